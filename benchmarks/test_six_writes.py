"""The main job under pytest-benchmark: for looking at one change and the next on one machine.

`pytest benchmarks/test_six_writes.py --benchmark-autosave --benchmark-compare` with
WAFERDB_BENCH=small. Stores and loops are those of the harness; a round is a fresh database.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import compare, pace
from benchmarks.compare import MEMORIES, Options, Peer
from benchmarks.sizes import Sizes
from benchmarks.workload import items
from benchmarks.workloads.remember import chunks

CASES = {"one writer": (1, 1), "sixteen writers": (16, 1), "a hundred per commit": (1, 100)}


@pytest.mark.parametrize("name", ["waferdb", "sqlite"])
@pytest.mark.parametrize("case", CASES)
def test_six_writes(
    benchmark: BenchmarkFixture, tmp_path: Path, sizes: Sizes, case: str, name: str
) -> None:
    """Six writes a memory, each commit durable when it returns."""
    if lacking := compare.missing(name):
        pytest.skip(f"not installed: {', '.join(lacking)}")
    threads, per_commit = CASES[case]
    some = items(sizes.memories // 4)
    adapter = compare.peer(name)
    opened: list[Peer] = []

    def setup() -> tuple[tuple[Peer], dict[str, Any]]:
        finish()
        opened.append(adapter(tmp_path / "store", Options(MEMORIES)))
        return (opened[0],), {}

    def finish() -> None:
        for peer in opened:
            assert peer.count() == len(some)
            peer.close()
        opened.clear()
        shutil.rmtree(tmp_path / "store", ignore_errors=True)

    def work(peer: Peer) -> None:
        if per_commit == 1:
            pace.closed_by_threads(peer.remember, some, threads, float(1 << 20))
        else:
            pace.closed(peer.remember_many, chunks(some, per_commit), float(1 << 20))

    benchmark.group = case
    benchmark.extra_info["memories"] = len(some)
    pedantic: Any = benchmark.pedantic
    pedantic(work, setup=setup, rounds=sizes.rounds, iterations=1)
    finish()
