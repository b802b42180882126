"""What a figure depends on: the machine it was measured on, and the raw probe beside it.

Nothing here measures waferdb.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent
_PROBE_SOURCES = _ROOT / "benchmarks" / "probe"


@cache
def probe_binary() -> Path:
    """The compiled probe; cargo makes it if it is not there or older than its sources."""
    given = os.environ.get("WAFERDB_PROBE")
    if given:
        return Path(given)
    command = ["cargo", "build", "--release", "--locked", "--package", "waferdb-probe", "--quiet"]
    subprocess.run(command, cwd=_ROOT, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", _ROOT / "target"))
    return target / "release" / "probe"


def probe(directory: Path, size: int, *options: str | float) -> dict[str, Any]:
    """Durable appends of `size` bytes in `directory`; the probe's options, and what it prints."""
    command = [str(probe_binary()), str(directory), "--bytes", str(size), *map(str, options)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def machine(directory: Path) -> dict[str, Any]:
    """The machine, and the file system that `directory` is on."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "kernel": f"{platform.system()} {platform.release()}",
        "file_system": _file_system(directory),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(directory: Path) -> str:
    """Type and options of the longest mount point above `directory`."""
    directory = directory.resolve()
    found = (-1, "unknown")
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, options, *_ = line.split()
        above = point == "/" or directory.is_relative_to(point)
        if above and len(point) >= found[0]:
            found = (len(point), f"{kind} ({options})")
    return found[1]


def described(facts: dict[str, Any]) -> str:
    """The machine in one line; a load above the number of its writers says it was not idle."""
    return (
        f"{facts['cpu']}, {facts['cores']} cores, {facts['kernel']}, {facts['file_system']}, "
        f"Python {facts['python']}, load {facts['load']:.1f}"
    )
