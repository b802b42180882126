"""Child processes by the thousand: forked from one that has imported everything and opened nothing.

1. A child is a function by its name (`module:function`), its arguments and a pipe to talk through.
2. The server that forks has no threads and no database, so a child begins as a new process would.
3. Only `Child.wait` reaps: until then a child's id is its own and may be signalled.

    python kernel_children.py SOCKET_FD
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

_HERE = Path(__file__).resolve()
_LENGTH = struct.Struct("=I")
# A child that says nothing for so long hangs: a finding.
PATIENCE = 120.0


class HungError(AssertionError):
    """A child that did neither speak nor end."""


class Server:
    """The process that forks. One is used by one thread at a time."""

    def __init__(self) -> None:
        mine, theirs = socket.socketpair()
        paths = [str(_HERE.parent), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [sys.executable, str(_HERE), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            # Threads of a linear algebra library would not survive the fork.
            env={
                **os.environ,
                "OPENBLAS_NUM_THREADS": "1",
                "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            },
        )
        theirs.close()
        self._socket = mine

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._process.wait()

    def start(self, function: str, *arguments: Any, channel: int | None = None) -> Child:
        """Forks a child that runs `function(talk, *arguments)`,
        with `channel=` if one is given."""
        read, write = os.pipe()
        errors = os.memfd_create("errors")
        fds = [write, errors] if channel is None else [write, errors, channel]
        request = pickle.dumps((function, arguments))
        socket.send_fds(self._socket, [_LENGTH.pack(len(request))], fds)
        self._socket.sendall(request)
        os.close(write)
        return Child(self, _integer(self._socket), read, errors)

    def call(self, function: str, *arguments: Any) -> Any:
        """What `function(*arguments)` returns in a process of its own."""
        with self.start("kernel_children:answer", function, arguments) as child:
            text = child.rest()
            status = child.wait()
        if not text or status:
            raise AssertionError(f"{function} ended with {status}: {child.errors}")
        return pickle.loads(text)

    def reap(self, pid: int) -> int:
        self._socket.sendall(_LENGTH.pack(0) + _LENGTH.pack(pid))
        return _integer(self._socket)


class Child:
    """A running child. `lines` are what it has said so far, whole lines only."""

    def __init__(self, server: Server, pid: int, pipe: int, errors: int) -> None:
        self.pid = pid
        self.pipe = pipe
        self._server = server
        self._errors = errors
        self._buffer = b""
        self._status: int | None = None
        self.errors = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is None:
            self.kill()
            self.wait()
        os.close(self.pipe)

    def kill(self, how: int = signal.SIGKILL) -> None:
        os.kill(self.pid, how)

    def line(self) -> str:
        """The next line; empty once the child has ended. Raises `HungError`."""
        while b"\n" not in self._buffer:
            if not select.select([self.pipe], [], [], PATIENCE)[0]:
                raise HungError(f"child {self.pid} said nothing for {PATIENCE:.0f} s")
            piece = os.read(self.pipe, 1 << 16)
            if not piece:
                return ""
            self._buffer += piece
        text, self._buffer = self._buffer.split(b"\n", 1)
        return text.decode()

    def rest(self) -> bytes:
        """Everything it says until it ends. Raises `HungError`."""
        deadline = time.monotonic() + PATIENCE
        pieces = [self._buffer]
        while select.select([self.pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
            piece = os.read(self.pipe, 1 << 16)
            if not piece:
                return b"".join(pieces)
            pieces.append(piece)
        raise HungError(f"child {self.pid} did not end within {PATIENCE:.0f} s")

    def lines(self) -> list[str]:
        """As `rest`, as lines; what a killed child left half is dropped."""
        return [line.decode() for line in self.rest().split(b"\n")[:-1]]

    def wait(self) -> int:
        """The exit code, negative for a signal."""
        if self._status is None:
            self._status = os.waitstatus_to_exitcode(self._server.reap(self.pid))
            with os.fdopen(self._errors, "rb") as file:
                file.seek(0)
                self.errors = file.read().decode(errors="replace")[-2_000:]
        return self._status


class Talk:
    """A child's end of its pipe: one line a call, in one write, so that threads never mix."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe

    def __call__(self, *words: object) -> None:
        os.write(self.pipe, (" ".join(map(str, words)).replace("\n", " ")[:3_000] + "\n").encode())


def answer(talk: Talk, function: str, arguments: tuple[Any, ...]) -> None:
    """Runs a function that does not talk and sends back what it returns."""
    data = memoryview(pickle.dumps(_named(function)(*arguments)))
    while data:
        data = data[os.write(talk.pipe, data) :]


def _named(function: str) -> Any:
    module, name = function.split(":")
    return getattr(importlib.import_module(module), name)


def _integer(connection: socket.socket) -> int:
    data = connection.recv(_LENGTH.size, socket.MSG_WAITALL)
    if len(data) < _LENGTH.size:
        raise AssertionError("the server of children ended")
    return int(_LENGTH.unpack(data)[0])


def _requests(connection: socket.socket) -> Iterator[tuple[int, list[int]]]:
    while True:
        data, fds, _, _ = socket.recv_fds(connection, _LENGTH.size, 3)
        if not data:
            return
        yield _LENGTH.unpack(data)[0], fds


def _serve(connection: socket.socket) -> None:
    for length, fds in _requests(connection):
        if not length:
            pid = _integer(connection)
            connection.sendall(_LENGTH.pack(os.waitpid(pid, 0)[1]))
            continue
        request = connection.recv(length, socket.MSG_WAITALL)
        pid = os.fork()
        if not pid:
            connection.close()
            _run(request, fds)
        for fd in fds:
            os.close(fd)
        connection.sendall(_LENGTH.pack(pid))


def _run(request: bytes, fds: list[int]) -> None:
    """The whole life of a child; without the exit handlers of the server."""
    code = 1
    try:
        os.dup2(fds[1], 2)
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        function, arguments = pickle.loads(request)
        _named(function)(Talk(fds[0]), *arguments, **({"channel": fds[2]} if fds[2:] else {}))
        code = 0
    except BaseException:  # noqa: BLE001 - it is reported by the exit code and on standard error
        with contextlib.suppress(Exception):
            traceback.print_exc()
    finally:
        os._exit(code)


def main() -> None:
    for name in ("kernel_check", "kernel_lives", "kernel_scripts", "kernel_seccomp"):
        importlib.import_module(name)
    # What is imported stays; the collector would copy its pages in every child.
    gc.collect()
    gc.freeze()
    _serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
