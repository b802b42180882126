"""A file system of its own, and the power cut: its kernel stops writing at once.

1. The cut is the shutdown ioctl that ext4 and xfs share. What the page cache and the journal's
   memory held is gone, as with the power; the next mount replays the journal.
2. It does not lose what the file system had already handed to the device, for the loop device's
   file lies in another page cache: a missing flush of the device's own cache would not show.
3. Device and mount are let go of on every way out but SIGKILL.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import struct
import subprocess
import time
from pathlib import Path
from typing import Self

# _IOR('X', 125, __u32), of both file systems; and its flags.
_SHUTDOWN = 0x8004587D
LOG_FLUSHED, LOG_LOST = 1, 2
_IMAGE_BYTES = 320 << 20  # xfs takes no less than 300 MiB
_UNMOUNT_TRIES = 200
_MOUNT_TRIES = 600
_MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=0", "-J", "size=4"),
    "xfs": ("mkfs.xfs", "-q", "-f", "-K"),
}


class MissingError(Exception):
    """What this machine lacks for a file system of its own."""


class Disk:
    """A file system of one kind, mounted at `place` between `mount` and `unmount`.

    "ext4" and "xfs" are on a loop device; "tmpfs" has none, and is empty after each mount.
    """

    def __init__(self, kind: str, folder: Path, bytes_total: int = _IMAGE_BYTES) -> None:
        self.kind = kind
        self.place = folder / "mount"
        self._image = folder / "image"
        self._bytes = bytes_total
        self._device: str | None = None
        self._libc = ctypes.CDLL(None, use_errno=True)

    def __enter__(self) -> Self:
        """Makes and mounts it. Raises `MissingError`."""
        if os.geteuid() != 0:
            raise MissingError("mounting a file system of its own needs root")
        for tool in (_MAKE[self.kind][0], "losetup") if self.kind in _MAKE else ():
            if shutil.which(tool) is None:
                raise MissingError(f"there is no {tool} on this machine")
        try:
            self._prepare()
        except (OSError, subprocess.CalledProcessError) as error:
            self.__exit__()
            told = getattr(error, "stderr", None) or error
            raise MissingError(f"no {self.kind} can be mounted on a loop device: {told}") from None
        return self

    def __exit__(self, *_: object) -> None:
        self.unmount()
        if self._device is not None:
            subprocess.run(["losetup", "--detach", self._device], capture_output=True, check=False)
            self._device = None
        self._image.unlink(missing_ok=True)

    def _prepare(self) -> None:
        self.place.mkdir(parents=True)
        if self.kind not in _MAKE:
            self.mount(f"size={self._bytes}")
            return
        with self._image.open("wb") as file:
            file.truncate(self._bytes)
        _run(*_MAKE[self.kind], str(self._image))
        self._device = _run("losetup", "--find", "--show", str(self._image)).strip()
        self.mount()

    def mount(self, options: str = "") -> None:
        """Mounts it, which replays its journal. Raises `OSError`."""
        words = (self._device or self.kind, str(self.place), self.kind)
        for _ in range(_MOUNT_TRIES):
            if self._libc.mount(*(word.encode() for word in words), 0, options.encode()):
                raise OSError(ctypes.get_errno(), f"mount of {self.kind} at {self.place}")
            if self._alive():
                return
            # A mount namespace made meanwhile holds what was cut: this is that, not a new mount.
            self.unmount()
            time.sleep(0.1)
        raise OSError(errno.EBUSY, f"{self.place} is held in another mount namespace")

    def _alive(self) -> bool:
        probe = self.place / "probe"
        try:
            probe.touch()
            probe.unlink()
        except OSError:
            return False
        return True

    def unmount(self) -> None:
        """Unmounts it; a killed child may hold it for the moment it takes to end."""
        for _ in range(_UNMOUNT_TRIES):
            # Asked of the kernel by trying: a file system that was cut does not answer a stat.
            if self._libc.umount2(str(self.place).encode(), 0) == 0:
                return
            if ctypes.get_errno() != errno.EBUSY:
                return
            time.sleep(0.01)
        # Somebody holds it: out of the way now, and gone when they let go.
        self._libc.umount2(str(self.place).encode(), 2)

    def cut(self, how: int = LOG_LOST) -> None:
        """The power goes, for this file system."""
        handle = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, _SHUTDOWN, struct.pack("=I", how))
        finally:
            os.close(handle)


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
