"""The child processes of the demo, from both sides.

A child gets its memories as JSON lines on stdin and answers on stdout, one line each:

    ready                   it is open and warm, and begins
    ack KEY LSN             `remember` has returned: this memory is durable
    done {…}                all are in; its figures as JSON

1. A child says `ack` only after the write it stands for has returned, in one write to the pipe, so
   that a kill can lose an acknowledgement but never invent one.
2. Bytes that a child says it wrote are the kernel's count for that process (`wchar`), without what
   it wrote to the pipe.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from .corpus import Item

# The usual vector index is written whole each time; see `usual`.
SAVE_EVERY = 500


class Child:
    """A child process at work; use as a context manager."""

    def __init__(self, module: str, arguments: Sequence[str], items: Sequence[Item]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        self._errors: list[str] = []
        self._threads = [
            threading.Thread(target=self._feed, args=(items,), daemon=True),
            threading.Thread(target=self._collect_errors, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        for thread in self._threads:
            thread.join()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def answers(self) -> Iterator[list[str]]:
        """Its lines, split at blanks, until it ends or is killed; a line cut short is left out."""
        stdout = self._process.stdout
        assert stdout is not None, "the child was started with a pipe"
        for line in stdout:
            if line.endswith("\n"):
                yield line.rstrip("\n").split(" ", 1 if line.startswith("done ") else -1)

    def kill(self) -> None:
        """SIGKILL, wherever it is; returns once it is gone."""
        self._process.kill()
        self._process.wait()

    def check_ended(self) -> None:
        """Raises `RuntimeError` with its last words if it did not end well."""
        code = self._process.wait()
        self._threads[1].join()
        if code:
            said = " ".join("".join(self._errors).split()[-60:])
            raise RuntimeError(f"a process of the demo ended with code {code}: {said}")

    def _feed(self, items: Sequence[Item]) -> None:
        stdin = self._process.stdin
        assert stdin is not None, "the child was started with a pipe"
        try:
            with stdin:
                stdin.writelines(json.dumps(item) + "\n" for item in items)
        except BrokenPipeError:
            # It was killed or failed; whoever reads its answers finds out which.
            return

    def _collect_errors(self) -> None:
        if self._process.stderr is not None:
            self._errors.extend(self._process.stderr)


def figures(module: str, arguments: Sequence[str], items: Sequence[Item]) -> dict[str, Any]:
    """Runs a child to its end and returns the figures of its `done` line."""
    done: dict[str, Any] | None = None
    with Child(module, arguments, items) as child:
        for answer in child.answers():
            if answer[0] == "done":
                done = json.loads(answer[1])
        child.check_ended()
    if done is None:
        raise RuntimeError(f"{module} ended without its figures")
    return done


def read_items() -> list[Item]:
    """In the child: what there is to remember."""
    return [json.loads(line) for line in sys.stdin]


def say(*words: object) -> None:
    """In the child: one line, in one write."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def written_by_this_process() -> int | None:
    """Bytes handed to write calls so far, by the kernel's count; None where it keeps none."""
    try:
        lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("wchar:")), None)
