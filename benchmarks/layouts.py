"""Which log layout suits which group size: rates and device bytes, as a table.

`python benchmarks/layouts.py [--rounds N] [SIZE ...]` measures in two places:

1. rates on the file system of the temporary directory (or `--directory`), as a database there
   would see them, layouts in turn within each round, the best of the rounds: whatever else the
   machine does can only slow an append;
2. bytes on an ext4 of its own on a loop device, from the device's own counter: what arrived,
   journal included, per byte handed in. That needs root; without it the process's own `wchar` is
   shown and labelled so, which knows nothing of journal and padding.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.device import place
from benchmarks.machine import described, machine, probe

SIZES = (512, 2_560, 16_896, 67_584, 230_400)
LAYOUTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("growing", ()),
    ("fallocate", ()),
    ("fallocate-direct", ()),
    ("zeros", ()),
    ("zeros-direct", ()),
    ("zeros", ("--as-it-goes",)),
    ("zeros-direct", ("--as-it-goes",)),
)
NAMES = {
    "growing": "growing file, buffered",
    "fallocate": "fallocate, buffered",
    "fallocate-direct": "fallocate, O_DIRECT",
    "zeros": "zeros beforehand, buffered",
    "zeros-direct": "zeros beforehand, O_DIRECT",
    "zeros --as-it-goes": "zeros as it goes (timed), buffered",
    "zeros-direct --as-it-goes": "zeros as it goes (timed), O_DIRECT",
}
IMAGE_BYTES = 512 << 20
ROUND_SECONDS = 0.25


def count_of(size: int) -> int:
    """Enough appends for stable figures, and little enough to wait for."""
    return max(60, min(1_000, (24 << 20) // size))


def rates(directory: Path, sizes: tuple[int, ...], rounds: int) -> dict[tuple[str, int], float]:
    """Appends per second, the best of the rounds, by layout and size."""
    found: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for size in sizes:
            for name, options in LAYOUTS:
                shown = " ".join((name, *options))
                with contextlib.suppress(subprocess.CalledProcessError):
                    bounds = ("--count", count_of(size), "--seconds", ROUND_SECONDS)
                    done = probe(directory, size, "--layout", name, *bounds, *options)
                    found.setdefault((shown, size), []).append(done["per_second"])
    return {key: max(each) for key, each in found.items()}


def amplification(done: dict[str, Any]) -> str:
    """Bytes written per byte handed in; for zeros written beforehand `appends + zeros`."""
    payload = done["payload_bytes"]
    device = done["device_bytes"]
    if device is None:
        return f"{done['wchar'] / payload:.2f}"
    appended = device["appended"] / payload
    zeros = done["layout"].startswith("zeros") and not done["zeros_timed"]
    return f"{appended:.2f} + {device['prepared'] / payload:.2f}" if zeros else f"{appended:.2f}"


def amplifications(
    directory: Path, stat: Path | None, sizes: tuple[int, ...]
) -> dict[tuple[str, int], str]:
    """`amplification` by layout and size."""
    counter = () if stat is None else ("--stat", str(stat))
    found: dict[tuple[str, int], str] = {}
    for size in sizes:
        for name, options in LAYOUTS:
            count = count_of(size)
            with contextlib.suppress(subprocess.CalledProcessError):
                done = probe(
                    directory, size, "--layout", name, "--count", count, *options, *counter
                )
                found[" ".join((name, *options)), size] = amplification(done)
    return found


def table(title: str, sizes: tuple[int, ...], cells: dict[tuple[str, int], str]) -> str:
    """A Markdown table, a row a layout and a column a size."""
    lines = [title, "", "| layout | " + " | ".join(f"{size:,} B" for size in sizes) + " |"]
    lines.append("| --- |" + " --- |" * len(sizes))
    for name, shown in NAMES.items():
        row = " | ".join(cells.get((name, size), "refused") for size in sizes)
        lines.append(f"| {shown} | {row} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures and prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=SIZES, metavar="SIZE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()))
    arguments = parser.parse_args()
    sizes = tuple(size + -size % 512 for size in arguments.sizes)
    print(described(machine(arguments.directory)), "\n")
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        found = rates(Path(directory), sizes, arguments.rounds)
    title = f"Durable appends per second, best of {arguments.rounds} rounds, n of a round at most: "
    title += ", ".join(f"{count_of(size):,}" for size in sizes)
    print(table(title, sizes, {key: f"{rate:,.0f}" for key, rate in found.items()}))
    with place(IMAGE_BYTES) as where:
        made, counters = where.fresh(), where.counters
        if counters is None:
            cells = amplifications(made, None, sizes)
            title = (
                "Bytes the process handed to the kernel (wchar, not the device) per payload byte"
            )
        else:
            cells = amplifications(made, Path(counters.stat), sizes)
            title = (
                "Bytes that reached the device per payload byte, ext4 on a loop device of its own"
            )
    print(table(title, sizes, cells))


if __name__ == "__main__":
    main()
