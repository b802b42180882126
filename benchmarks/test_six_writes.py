"""The main job, durable: one writer, sixteen writers, and a hundred memories in a commit.

Each round makes a fresh database; what the figure is divided by runs in the same round, just before
it. The assertions are about what was written; a missed target is said in the report and fails
nothing, because it may be the machine's.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from sqlite_six import NAME, SqliteSix

from machine import probe
from report import Report, Table, median, shown
from sizes import Sizes
from workload import Item, Outcome, Run, items

SYNC = 'durability="sync": a commit returns once its group is written and synced (fdatasync)'
THREADS = 16


def rounds_of(
    benchmark: BenchmarkFixture,
    directory: Path,
    rounds: int,
    before: Callable[[], None],
    work: Callable[[Run], Outcome],
) -> list[Outcome]:
    """`work` on a fresh database in each round, after `before`; only `work` is timed."""
    found: list[Outcome] = []
    open_runs: list[Run] = []
    path = directory / "agent.wafer"

    def finish() -> None:
        for run in open_runs:
            run.db.close()
        open_runs.clear()
        shutil.rmtree(path, ignore_errors=True)

    def setup() -> tuple[tuple[Run], dict[str, Any]]:
        finish()
        before()
        open_runs.append(Run(path))
        return (open_runs[0],), {}

    def timed(run: Run) -> None:
        found.append(work(run))

    benchmark.pedantic(timed, setup=setup, rounds=rounds, iterations=1)
    finish()
    return found


def group_bytes(directory: Path, some: list[Item], per_commit: int) -> int:
    """Bytes of one commit's group, from the log that a short run of such commits leaves.

    A closed log is trimmed: no zeros are counted, only groups, which are whole sectors.
    """
    path = directory / "sized.wafer"
    with Run(path) as run:
        outcome = run.in_commits_of(per_commit, some) if per_commit > 1 else run.one_by_one(some)
    log = sum(file.stat().st_size for file in (path / "log").iterdir())
    shutil.rmtree(path)
    return max(1, round(log / outcome.commits / 512)) * 512


def probed(probes: list[dict[str, Any]]) -> tuple[str, str]:
    """The probe's layout, and its median row."""
    last = probes[-1]
    rate, p50 = median([p["per_second"] for p in probes]), median([p["p50_us"] for p in probes])
    return last["layout"], f"{shown(rate)}/s (p50 {p50:.0f} µs)"


def test_one_writer(
    benchmark: BenchmarkFixture, directory: Path, sizes: Sizes, report: Report
) -> None:
    """One thread, one transaction of six writes per commit."""
    some = items(sizes.one_writer)
    size = group_bytes(directory, some[:500], 1)
    layout = probe(directory, size, "--seconds", sizes.probe_seconds)["layout"]
    probes: list[dict[str, Any]] = []

    def before() -> None:
        seconds = sizes.probe_seconds
        probes.append(probe(directory, size, "--layout", layout, "--seconds", seconds))

    outcomes = rounds_of(
        benchmark, directory, sizes.rounds, before, lambda run: run.one_by_one(some)
    )
    ratios = [
        outcome.commits_per_second / raw["per_second"]
        for outcome, raw in zip(outcomes, probes, strict=True)
    ]
    rate = median([outcome.commits_per_second for outcome in outcomes])
    table = Table(
        name="One writer, six writes per commit",
        what="One thread; each memory is one transaction over six structures and one commit.",
        n=f"{len(some):,} commits a round",
        sync=SYNC,
        denominator=(
            f"raw pwrite + fdatasync of {size:,} B (the group of such a commit), one thread, "
            f"layout {layout}, the fastest here; zeros written beforehand are not timed"
        ),
        header=("", "commits/s", "bytes written per byte remembered"),
        rows=[
            (f"raw probe, {size:,} B", probed(probes)[1], ""),
            ("waferdb", f"{shown(rate)}/s", f"{median([o.waf for o in outcomes]):.2f}"),
        ],
        value=median(ratios),
        target=0.75,
        unit="of the probe",
        rounds=ratios,
    )
    assert all(outcome.commits == len(some) for outcome in outcomes)
    report.add(table, directory)
    benchmark.extra_info.update(ratio=table.value, bytes_per_commit=size)


@pytest.mark.parametrize("one_core", [False, True], ids=["any core", "one core"])
def test_sixteen_writers(
    benchmark: BenchmarkFixture, directory: Path, sizes: Sizes, report: Report, one_core: bool
) -> None:
    """Sixteen threads, one transaction of six writes per commit, beside SQLite's best.

    The interpreter runs one thread at a time. Left alone, the kernel spreads the threads over the
    cores and each hand-over of the interpreter wakes an idle one; with `one_core` the writers keep
    to one core and leave the others to the log's thread, as a program may that wants the most.
    """
    if one_core and not hasattr(os, "sched_setaffinity"):
        pytest.skip("threads cannot be kept on a core here")
    some, fewer = items(sizes.sixteen_writers), items(sizes.peer)
    peer: list[float] = []

    def before() -> None:
        (directory / "peer").mkdir()
        stores = SqliteSix(directory / "peer" / "six.db")
        peer.append(stores.run(fewer))
        stores.close()
        shutil.rmtree(directory / "peer")

    outcomes = rounds_of(
        benchmark,
        directory,
        sizes.rounds,
        before,
        lambda run: run.by_threads(some, THREADS, one_core),
    )
    ratios = [o.memories_per_second / rate for o, rate in zip(outcomes, peer, strict=True)]
    rate = median([outcome.memories_per_second for outcome in outcomes])
    table = Table(
        name="Sixteen writers, six writes per commit, "
        + ("on one core" if one_core else "left alone"),
        what="Sixteen threads of one process; each memory is one transaction and one commit."
        + (
            " The writers keep to one core (os.sched_setaffinity), where the interpreter's lock "
            "lets one run at a time; the log's thread has the other."
            if one_core
            else ""
        ),
        n=f"{len(some):,} commits a round; SQLite {len(fewer):,}",
        sync=SYNC,
        denominator=(
            f"one writer of {NAME} doing the six writes in one transaction, WAL, synchronous=FULL"
        ),
        header=("", "commits/s", "commits per sync", "bytes written per byte remembered"),
        rows=[
            (f"{NAME}, one writer", f"{shown(median(peer))}/s", "1", ""),
            (
                f"waferdb, {THREADS} threads",
                f"{shown(rate)}/s",
                f"{median([o.commits_per_sync for o in outcomes]):.1f}",
                f"{median([o.waf for o in outcomes]):.2f}",
            ),
        ],
        value=median(ratios),
        target=8.0,
        unit="times SQLite",
        rounds=ratios,
    )
    assert all(outcome.commits == len(some) for outcome in outcomes)
    report.add(table, directory)
    benchmark.extra_info.update(ratio=table.value)


def test_hundred_per_commit(
    benchmark: BenchmarkFixture, directory: Path, sizes: Sizes, report: Report
) -> None:
    """One thread, a hundred memories of six writes in each commit."""
    some = items(sizes.hundreds)
    size = group_bytes(directory, some[:2_000], 100)
    layout = probe(directory, size, "--seconds", sizes.probe_seconds)["layout"]
    probes: list[dict[str, Any]] = []

    def before() -> None:
        seconds = sizes.probe_seconds
        probes.append(probe(directory, size, "--layout", layout, "--seconds", seconds))

    outcomes = rounds_of(
        benchmark, directory, sizes.rounds, before, lambda run: run.in_commits_of(100, some)
    )
    rates = [outcome.memories_per_second for outcome in outcomes]
    commits = median([outcome.commits_per_second for outcome in outcomes])
    table = Table(
        name="A hundred memories per commit",
        what=(
            "One thread; rows and vectors through put_many, events, cache and context entries one "
            "call each."
        ),
        n=f"{len(some):,} memories a round",
        sync=SYNC,
        denominator=(
            f"seconds. The probe writes and syncs {size:,} B (the group of such a commit), "
            f"one thread, layout {layout}, the fastest here"
        ),
        header=("", "commits/s", "memories/s", "bytes written per byte remembered"),
        rows=[
            (f"raw probe, {size:,} B", probed(probes)[1], "", ""),
            (
                "waferdb",
                f"{shown(commits)}/s",
                f"{shown(median(rates))}/s",
                f"{median([outcome.waf for outcome in outcomes]):.2f}",
            ),
        ],
        value=median(rates),
        target=30_000.0,
        unit="memories/s",
        rounds=rates,
    )
    assert all(outcome.commits == -(-len(some) // 100) for outcome in outcomes)
    report.add(table, directory)
    benchmark.extra_info.update(memories_per_second=table.value, bytes_per_commit=size)
