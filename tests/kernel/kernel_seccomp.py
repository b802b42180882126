"""The kernel's answer to the N-th system call on a path below one directory, made to be a fault.

1. A child installs a seccomp filter whose notifications come here, then runs its script; every
   thread it starts is under the filter. `strace -e inject` would count for each thread apart, so
   that the calls of one thread hide behind those of another; here one counter sees them all.
2. Calls are counted by their name and only below the directory, so that the interpreter's own are
   no part of it.
3. A call that is to fail does not happen. `torn` and `short` write the first half, as a dying or a
   busy kernel may; after `torn` the process is killed, as by `kill`.

x86-64 only: system calls have other numbers elsewhere.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import platform
import select
import signal
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kernel_children import PATIENCE, Child, HungError, Server, Talk

_NUMBERS = {
    "read": 0, "write": 1, "open": 2, "close": 3, "lseek": 8, "mmap": 9,
    "pread64": 17, "pwrite64": 18, "readv": 19, "writev": 20, "msync": 26, "sendfile": 40,
    "fcntl": 72, "flock": 73, "fsync": 74, "fdatasync": 75, "truncate": 76, "ftruncate": 77,
    "getdents64": 217, "rename": 82, "mkdir": 83, "rmdir": 84, "creat": 85, "link": 86,
    "unlink": 87, "openat": 257, "mkdirat": 258, "newfstatat": 262, "unlinkat": 263,
    "renameat": 264, "linkat": 265, "sync_file_range": 277, "fallocate": 285, "preadv": 295,
    "pwritev": 296, "syncfs": 306, "renameat2": 316, "copy_file_range": 326, "preadv2": 327,
    "pwritev2": 328, "statx": 332, "openat2": 437,
}  # fmt: skip
_NAMES = {number: name for name, number in _NUMBERS.items()}
_BY_PATH = {"open": 0, "truncate": 0, "rename": 0, "mkdir": 0, "rmdir": 0, "creat": 0, "link": 0,
            "unlink": 0, "openat": 1, "mkdirat": 1, "newfstatat": 1, "unlinkat": 1, "renameat": 1,
            "linkat": 1, "renameat2": 1, "statx": 1, "openat2": 1}  # fmt: skip
_BY_FD = {"mmap": 4}  # The others have it first.
_LOCKS = {fcntl.F_SETLK, fcntl.F_SETLKW, 37, 38}  # and those of open file descriptions

# Which calls may end so on a real kernel.
_GROWING = {"open", "openat", "write", "writev", "pwrite64", "pwritev", "pwritev2", "fallocate",
            "ftruncate", "fsync", "fdatasync", "rename", "renameat", "renameat2", "mkdir",
            "mkdirat", "copy_file_range", "link", "linkat"}  # fmt: skip
_SLOW = {"open", "openat", "read", "readv", "pread64", "preadv", "write", "writev", "pwrite64",
         "pwritev", "fsync", "fdatasync", "ftruncate", "fallocate", "flock", "fcntl"}  # fmt: skip
_WHOLE = {"write", "pwrite64"}
# They leave the files as they were: a kill there is a kill at the next call that does not.
_ASKING = {"statx", "newfstatat", "getdents64", "lseek"}
FAULTS: dict[str, Callable[[str], bool]] = {
    "EIO": lambda name: True,
    "ENOSPC": _GROWING.__contains__,
    "EINTR": _SLOW.__contains__,
    "short": _WHOLE.__contains__,
    "torn": _WHOLE.__contains__,
    "kill": lambda name: name not in _ASKING,
}

_NOTIFY, _ALLOW = 0x7FC00000, 0x7FFF0000
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_CONTINUE = 1
_NOTICE = struct.Struct("=QIIiIQ6Q")


def missing() -> str | None:
    """What this machine lacks; None: nothing."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "faults at system calls are made on Linux on x86-64 only"
    try:
        text = Path("/proc/sys/kernel/seccomp/actions_avail").read_text()
    except OSError:
        return "this kernel has no seccomp filters"
    return None if "user_notif" in text else "this kernel has no seccomp notifications"


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_ushort),
        ("jt", ctypes.c_ubyte),
        ("jf", ctypes.c_ubyte),
        ("k", ctypes.c_uint),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.POINTER(_Instruction)))


def under_filter(talk: Talk, call: str, function: str, *arguments: Any, channel: int) -> None:
    """Runs `module:function(talk, …)`; `channel` is told of each such `call`, or of all."""
    import importlib

    numbers = [_NUMBERS[call]] if call else sorted(_NUMBERS.values())
    last = len(numbers)
    program = (_Instruction * (last + 3))(
        _Instruction(0x20, 0, 0, 0),  # the call's number
        *(_Instruction(0x15, last - place, 0, n) for place, n in enumerate(numbers)),
        _Instruction(0x06, 0, 0, _ALLOW),
        _Instruction(0x06, 0, 0, _NOTIFY),
    )
    module, name = function.split(":")
    run = getattr(importlib.import_module(module), name)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    given = ctypes.byref(_Program(last + 3, program))
    listener = libc.syscall(317, 1, 8, given)  # SECCOMP_SET_MODE_FILTER, with a new listener
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    with socket.socket(fileno=channel) as connection:
        socket.send_fds(connection, [b"x"], [listener])
        os.close(listener)
    run(talk, *arguments)


@dataclass
class Injection:
    """Which call is to fail, how, and what came of it."""

    below: str
    call: str = ""
    number: int = 0
    fault: str = ""
    seen: Counter[str] = field(default_factory=Counter)
    hit: str = ""  # the path it struck
    hit_lines: int = 0


class Supervisor:
    """Answers the notifications of one child until it has ended."""

    def __init__(self, child: Child, listener: int, injection: Injection) -> None:
        self._child = child
        self._listener = listener
        self._injection = injection

    def run(self) -> None:
        """Raises `HungError` if the child asks nothing and does not end."""
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        began = time.monotonic()
        notice = bytearray(_NOTICE.size)
        while True:
            ready = poll.poll(1_000)
            if ready and ready[0][1] & select.POLLIN:
                notice[:] = bytes(_NOTICE.size)
                with contextlib.suppress(FileNotFoundError):  # it was killed meanwhile
                    fcntl.ioctl(self._listener, _RECEIVE, notice)
                    self._answer(notice)
            elif ready:
                return
            if time.monotonic() - began > PATIENCE:
                raise HungError(f"the script did not end within {PATIENCE:.0f} s")

    def _answer(self, notice: bytearray) -> None:
        at, thread, _, number, _, _, *arguments = _NOTICE.unpack(notice)
        call = _NAMES[number]
        result: int | None = None
        injection = self._injection
        if path := self._path(thread, call, arguments):
            injection.seen[call] += 1
            if (call, injection.seen[call]) == (injection.call, injection.number):
                injection.hit = path
                result = self._strike(thread, arguments)
                if result is None:
                    return
        flags = _CONTINUE if result is None else 0
        value, error = (0, 0) if result is None else (max(result, 0), min(result, 0))
        fcntl.ioctl(self._listener, _SEND, struct.pack("=QqiI", at, value, error, flags))

    def _strike(self, thread: int, arguments: list[int]) -> int | None:
        """What the call is to return; None: the process is no more."""
        fault = self._injection.fault
        if fault in ("torn", "short"):
            written = self._write_half(thread, arguments)
            if fault == "short":
                return written
        if fault in ("torn", "kill"):
            os.kill(self._child.pid, signal.SIGKILL)
            return None
        return -int(getattr(errno, fault))

    def _write_half(self, thread: int, arguments: list[int]) -> int:
        """The first half of a write, by whole sectors where there is more than one."""
        length = arguments[2] // 2
        if length > 512:
            length -= length % 512
        data = _memory(thread, arguments[1], length)
        handle = os.open(f"/proc/{thread}/fd/{arguments[0]}", os.O_WRONLY)
        try:
            if self._injection.call == "pwrite64":
                return os.pwrite(handle, data, arguments[3])
            return 0  # Where a plain write goes is the file's own position: none of it.
        finally:
            os.close(handle)

    def _path(self, thread: int, call: str, arguments: list[int]) -> str | None:
        """The path below the directory that a call is about, if it is."""
        if call == "fcntl" and arguments[1] not in _LOCKS:
            return None
        try:
            if call in _BY_PATH:
                path = self._text(thread, arguments[_BY_PATH[call]])
                if not path.startswith("/") and _BY_PATH[call]:
                    path = os.path.join(self._link(thread, arguments[0]), path)  # noqa: PTH118
            else:
                path = self._link(thread, arguments[_BY_FD.get(call, 0)])
        except OSError:
            return None
        return path if path.startswith(self._injection.below) else None

    @staticmethod
    def _link(thread: int, handle: int) -> str:
        handle &= 0xFFFFFFFF
        if handle >= 1 << 31:  # -1, or AT_FDCWD
            return ""
        return str(Path(f"/proc/{thread}/fd/{handle}").readlink())

    @staticmethod
    def _text(thread: int, address: int) -> str:
        return _memory(thread, address, 512).split(b"\0", 1)[0].decode()


def _memory(thread: int, address: int, length: int) -> bytes:
    """Up to `length` bytes of a waiting thread's memory."""
    handle = os.open(f"/proc/{thread}/mem", os.O_RDONLY)
    try:
        return os.pread(handle, length, address)
    finally:
        os.close(handle)


def supervised(
    server: Server, injection: Injection, function: str, *arguments: Any
) -> tuple[list[str], int, str]:
    """What a child under the filter said, its exit code, and its standard error."""
    mine, theirs = socket.socketpair()
    with mine:
        with theirs:
            started = server.start(
                "kernel_seccomp:under_filter",
                injection.call,
                function,
                *arguments,
                channel=theirs.fileno(),
            )
        with started as child:
            data, fds, _, _ = socket.recv_fds(mine, 1, 1)
            if not data:
                child.wait()
                raise AssertionError(f"no filter: {child.errors}")
            try:
                Supervisor(child, fds[0], injection).run()
            finally:
                os.close(fds[0])
            lines = child.lines()
            status = child.wait()
            return lines, status, child.errors
