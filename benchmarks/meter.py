"""What a process wrote and held: bytes by three counters, memory, space on the file system.

1. Device bytes count from one `settle` to another: everything that the stretch between wrote has
   arrived, and nothing that was written before it.
2. `wchar` counts what the process handed to the kernel through write calls: no journal, no padding
   of the file system, no memory maps. It is never shown as device bytes.
"""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks import device


class Meter:
    """Counts from its making to `read`."""

    def __init__(self, directory: Path, counters: device.Counters | None) -> None:
        self._directory, self._counters = directory, counters
        device.settle(directory, counters)
        self._device = counters.written_bytes() if counters else 0
        self._journal = counters.journal_bytes() if counters else 0
        self._wchar = _wchar()

    def read(self) -> dict[str, int]:
        """Bytes since then; the caller has closed its store, or says what is still open."""
        found = {"wchar_bytes": _wchar() - self._wchar}
        device.settle(self._directory, self._counters)
        if self._counters is not None:
            found["device_bytes"] = self._counters.written_bytes() - self._device
            found["journal_bytes"] = max(0, self._counters.journal_bytes() - self._journal)
        return found


def _wchar() -> int:
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("wchar:"):
            return int(line.split()[1])
    raise RuntimeError("/proc/self/io has no wchar")


def resident_bytes(peak: bool = False) -> int:
    """Resident memory of this process now, or the most it ever was."""
    name = "VmHWM:" if peak else "VmRSS:"
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) << 10
    raise RuntimeError(f"/proc/self/status has no {name}")


def space_bytes(directory: Path) -> int:
    """Blocks that the files under `directory` hold."""
    found = 0
    for root, _, names in os.walk(directory):
        found += sum(Path(root, name).lstat().st_blocks * 512 for name in names)
    return found
