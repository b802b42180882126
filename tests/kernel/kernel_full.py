"""A writer on a disk that becomes full; runs in a child, and talks as `kernel_lives` does."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any

from kernel_check import Bounds, compare
from kernel_children import Talk
from kernel_lives import tell_error
from kernel_store import Model, Options, commit

import waferdb

WRITER = "w0"
_COMMITS_MAX = 30_000
_PIECE = bytes(1 << 16)
_OVER_SECONDS_MAX = 10.0


def fill(talk: Talk, path: str, seed: int, left: int, options: Options) -> None:
    """Writes until `FullError`, reads all, makes room and goes on in the same handle.

    `left` are the bytes that ballast leaves of the disk behind the first commits: with none it is
    flushes that find no room, for the log has its space by then.
    """
    ballast = Path(path).parent / "ballast"
    model = Model(seed, WRITER)
    with options.open(path, seed) as db:
        for _ in range(30):
            _one(talk, db, model)
        _grow(ballast, left)
        refusals = 0
        while refusals < 5 and model.count < _COMMITS_MAX:
            if _refused(talk, db, model):
                refusals += 1
        talk("refused", refusals, model.count)
        try:
            db.drain()
        except waferdb.WaferError as error:
            talk("drain", error.code)
        bound = {WRITER: Bounds(model.count, model.count)}
        for problem in compare(db, seed, bound, thorough=False)[1]:
            # What the comparison itself writes, results of views, finds the disk full too.
            if "FullError" not in problem:
                talk("?", problem)
        ballast.unlink()
        talk("room")
        longest = max(_one_at_last(talk, db, model) for _ in range(50))
        talk("over", f"{longest:.3f}")
        db.drain()
    talk("end")


def _one(talk: Talk, db: Any, model: Model) -> None:
    number = model.count
    commit(db, model)
    talk("+", WRITER, number)


def _one_at_last(talk: Talk, db: Any, model: Model) -> float:
    """A commit once there is room, after how many seconds: a flush is not tried again at once."""
    began = time.monotonic()
    while time.monotonic() - began < _OVER_SECONDS_MAX:
        if not _refused(talk, db, model):
            return time.monotonic() - began
        time.sleep(0.001)
    raise AssertionError(f"there is room, and commits are refused for {_OVER_SECONDS_MAX:.0f} s")


def _refused(talk: Talk, db: Any, model: Model) -> bool:
    try:
        _one(talk, db, model)
    except waferdb.FullError:
        return True
    except Exception as error:
        tell_error(talk, "commit", error)
        raise
    return False


def _grow(ballast: Path, left: int) -> None:
    """Fills the disk with a file but for `left` bytes."""
    handle = os.open(ballast, os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            room = os.fstatvfs(handle)
            if room.f_bavail * room.f_bsize <= left:
                return
            os.write(handle, _PIECE[: max(4_096, room.f_bavail * room.f_bsize - left)])
            os.fsync(handle)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    finally:
        os.close(handle)
