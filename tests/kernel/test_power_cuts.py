"""The power goes for a real file system: ext4 and xfs on a loop device, shut down by ioctl.

`WAFERDB_CUTS_EXT4` and `WAFERDB_CUTS_XFS` say how often (`make crash`: 1,000 and 200). Replay one
database of a failing run with `WAFERDB_SEED=<seed> WAFERDB_SAGA=<number> pytest -s
tests/kernel/test_power_cuts.py -k <file system>`.

The cut loses what the file system's page cache and its journal held in memory. It does not lose
what was handed to the device and not yet flushed there; the simulated disk does (docs/testing.md).
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest
from kernel_campaign import numbers, reported, saga, side_by_side
from kernel_children import Child
from kernel_disk import LOG_FLUSHED, LOG_LOST, Disk, MissingError
from kernel_lives import Told

pytestmark = pytest.mark.crash

CUTS = {
    "ext4": int(os.environ.get("WAFERDB_CUTS_EXT4", "5")),
    "xfs": int(os.environ.get("WAFERDB_CUTS_XFS", "3")),
}
REPLAY = "tests/kernel/test_power_cuts.py"
MOUNTS = {"ext4": ("", "", "data=writeback", "nodelalloc"), "xfs": ("",)}


def typed(told: Told, status: int) -> list[str]:
    """Whatever the dead disk led to, the process was told in the engine's own words."""
    untyped = [error for error in told.errors if error.split()[2] == "-"]
    problems = [f"wrong: an error of no type: {error}" for error in untyped]
    if status not in (-9, 0):
        problems.append(f"wrong: the process ended with {status}")
    return problems


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_power_cuts_lose_nothing_acknowledged_in_any_structure(tmp_path: Path, kind: str) -> None:
    disk = Disk(kind, tmp_path)

    def cut(child: Child, chance: random.Random) -> str:
        how = chance.choice((LOG_LOST, LOG_LOST, LOG_LOST, LOG_FLUSHED))
        disk.cut(how)
        # The process may meet the dead disk for a moment, or not at all.
        time.sleep(chance.choice((0, 0.002, 0.02)))
        child.kill()
        child.wait()
        disk.unmount()
        disk.mount(chance.choice(MOUNTS[kind]))
        return "log lost" if how == LOG_LOST else "log flushed"

    try:
        with (
            disk,
            reported(
                f"power cut of {kind}", f"tests/kernel/test_power_cuts.py -k {kind}"
            ) as figures,
        ):
            side_by_side(
                1,
                lambda server, number: saga(figures, server, disk.place, number, cut, typed),
                numbers(figures, CUTS[kind]),
            )
    except MissingError as reason:
        pytest.skip(str(reason))
    assert figures.cycles >= CUTS[kind] or "WAFERDB_SAGA" in os.environ
