"""A disk of 16 MiB that becomes full: `FullError`, nothing lost, and over when there is room."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from kernel_check import Bounds
from kernel_children import Server
from kernel_disk import Disk, MissingError
from kernel_full import WRITER
from kernel_lives import Told
from kernel_store import ROOMY, Options

pytestmark = pytest.mark.crash

BYTES = 16 << 20
FULL = os.environ.get("WAFERDB_CRASH") == "full"
KINDS = ("tmpfs", "ext4") if FULL else ("tmpfs",)
SMALL = Options(memory="1MiB", memtable="64KiB")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [2, 3])
@pytest.mark.parametrize(
    ("left", "options"),
    [
        pytest.param(1 << 20, ROOMY, id="the log"),
        pytest.param(0, SMALL, id="flushes"),
    ],
)
def test_a_full_disk_loses_nothing_and_is_over_when_there_is_room(
    tmp_path: Path, kind: str, seed: int, left: int, options: Options
) -> None:
    try:
        with Disk(kind, tmp_path, BYTES) as disk, Server() as server:
            path = str(disk.place / "agent.wafer")
            with server.start("kernel_full:fill", path, seed, left, options) as child:
                lines = child.lines()
                status = child.wait()
            told = Told()
            for line in lines:
                told.hear(line)
            where = f"seed {seed} on {kind}: {lines[-3:]} {child.errors}"
            assert status == 0, where
            assert not told.errors, where
            assert not [line for line in lines if line.startswith("?")], where
            assert lines[-1] == "end", where
            refused = next(line for line in lines if line.startswith("refused"))
            assert refused.split()[1] == "5", where
            count = told.durable[WRITER]
            bounds = {WRITER: Bounds(count, count)}
            problems = server.call("kernel_check:examine", path, seed, bounds, ROOMY, True)[1]
            assert not problems, f"{where}: {problems}"
            over = next(line for line in lines if line.startswith("over"))
            print(f"{kind}, seed {seed}: {refused}, {over} s, {count} commits: 0 lost, 0 wrong")
    except MissingError as reason:
        pytest.skip(str(reason))
