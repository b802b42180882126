"""Where databases are made: a file system whose device nobody else writes, or a plain directory.

1. Each measurement gets an empty ext4, made anew on an image that was written once in full, so
   that no store meets the leavings of another and no block of the image is allocated meanwhile.
2. The image is unmounted and its loop device detached on every way out but SIGKILL: `mount -o loop`
   lets go of the device with the mount, and the harness turns SIGTERM into an exception.
3. The device's counter is the truth about bytes. What the file system's journal had of it is a
   lower bound: jbd2 reports whole blocks per transaction, so up to one block a transaction more.

Without root there is no device: the directory is a plain one, and only `wchar` is left.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_SECTOR_BYTES = 512
_BLOCK_BYTES = 4_096
# Enough for any store here; the tables of mkfs's own choice would take longer to write than a run.
_INODES = 65_536
_CHUNK_BYTES = 4 << 20
# A killed child may hold the mount for the moment it takes the kernel to end it.
_UNMOUNT_TRIES = 50
_JOURNAL = re.compile(r"^(\d+) transactions", re.MULTILINE)
_LOGGED = re.compile(r"(\d+) logged blocks per transaction")


@dataclass(frozen=True)
class Counters:
    """The files in which the kernel counts a mounted image's bytes."""

    block: str
    stat: str
    journal: str

    def written_bytes(self) -> int:
        """Bytes that reached the device, all of them."""
        fields = Path(self.stat).read_text().split()
        return int(fields[6]) * _SECTOR_BYTES

    def journal_bytes(self) -> int:
        """Bytes of them that are known to be the journal's."""
        text = Path(self.journal).read_text()
        transactions, logged = _JOURNAL.search(text), _LOGGED.search(text)
        if transactions is None or logged is None:
            return 0
        return int(transactions[1]) * int(logged[1]) * _BLOCK_BYTES

    def to_json(self) -> dict[str, str]:
        """For a child's task."""
        return asdict(self)


class Place:
    """A directory to measure in; `fresh()` empties it. Without a device, `counters` is None."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.counters: Counters | None = None

    def fresh(self) -> Path:
        """An empty directory for the next measurement."""
        made = self.directory / "run"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        return made

    @property
    def described(self) -> str:
        """What kind of place it is, for the report."""
        return "a plain directory, no device of its own"


class OwnDevice(Place):
    """An ext4 on a loop device of its own, made anew by each `fresh()`."""

    def __init__(self, directory: Path, image_bytes: int) -> None:
        super().__init__(directory / "mount")
        self._image = directory / "image"
        self._image_bytes = image_bytes

    def prepare(self) -> None:
        """Writes the image and mounts it. Raises `OSError` where that is not allowed."""
        self.directory.mkdir()
        zeros = bytes(_CHUNK_BYTES)
        with self._image.open("wb") as file:
            for _ in range(self._image_bytes // _CHUNK_BYTES):
                file.write(zeros)
            os.fsync(file.fileno())
        self._mount()

    def close(self) -> None:
        """Lets go of everything; also of what `prepare` left when it failed."""
        self._unmount()
        self._image.unlink(missing_ok=True)

    def fresh(self) -> Path:
        self._unmount()
        self._mount()
        made = self.directory / "run"
        made.mkdir()
        return made

    @property
    def described(self) -> str:
        return f"ext4 of its own on a loop device, {self._image_bytes >> 20:,} MiB, made anew"

    def _mount(self) -> None:
        # nodiscard: a discard would punch holes into the image that was written for this. Inode
        # tables are written now, for the kernel would write them later and be counted.
        extended = "nodiscard,lazy_itable_init=0,lazy_journal_init=1"
        options = ("-b", _BLOCK_BYTES, "-N", _INODES, "-E", extended)
        _run("mkfs.ext4", "-q", "-F", *options, self._image)
        _run("mount", "-o", "loop", self._image, self.directory)
        self.counters = _counters(self.directory)

    def _unmount(self) -> None:
        self.counters = None
        for _ in range(_UNMOUNT_TRIES):
            if not os.path.ismount(self.directory):
                return
            if subprocess.run(["umount", self.directory], capture_output=True).returncode:
                time.sleep(0.1)
        # Somebody holds it: out of the way now, and gone when they let go.
        _run("umount", "--lazy", self.directory)


def _counters(mount: Path) -> Counters:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        device, point, *_ = line.split()
        if point == str(mount):
            name = Path(device).name
            return Counters(device, f"/sys/block/{name}/stat", f"/proc/fs/jbd2/{name}-8/info")
    raise RuntimeError(f"{mount} is not among the mounts")


def _run(*command: str | Path | int) -> str:
    """What a command prints; raises with what it complained about."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout


@contextlib.contextmanager
def place(image_bytes: int, directory: Path | None = None) -> Iterator[Place]:
    """An own device where root allows, else (or with `directory`) a plain directory."""
    with tempfile.TemporaryDirectory(prefix="waferdb-bench-", dir=directory) as made:
        home = Path(made).resolve()
        if directory is None and os.geteuid() == 0:
            with contextlib.closing(OwnDevice(home, image_bytes)) as device:
                try:
                    device.prepare()
                except OSError as error:
                    print(f"no device of its own: {error}")
                else:
                    yield device
                    return
        yield Place(home / "plain")


def settle(directory: Path, counters: Counters | None) -> None:
    """Everything written so far reaches the device: data, journal, and metadata in its place."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(handle):
            raise OSError(ctypes.get_errno(), "syncfs")
    finally:
        os.close(handle)
    if counters is not None:
        # What the journal holds is copied to its place later; the counter should have it now.
        block = os.open(counters.block, os.O_RDONLY)
        try:
            os.fsync(block)
        finally:
            os.close(block)


def from_json(found: dict[str, Any] | None) -> Counters | None:
    """The other end of `Counters.to_json`."""
    return None if found is None else Counters(**found)
