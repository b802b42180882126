"""Ranges in key order, after every pair was overwritten: short ones, and all of it."""

from __future__ import annotations

import itertools
import time

import numpy as np

from benchmarks import pace
from benchmarks.compare import PAIRS
from benchmarks.sizes import Sizes
from benchmarks.task import Session, Task

from .base import RATE, Case, Column, Found, Leave, N, Workload
from .pairs import Pairs

_VALUE_BYTES = 100
_PER_COMMIT = 1_000
_RANGE = 100


class Scan(Workload):
    """Short and whole scans over overwritten pairs."""

    name = "scan"
    what = (
        "Pairs of a random 16-byte key and 100 bytes, written at random and overwritten once, then "
        "drained; one thread reads pairs with their values."
    )
    denominator = "seconds of the scans alone; a short scan is 100 pairs from a random key on"
    kind = PAIRS
    durability = "async"
    columns = (
        N,
        Column("per_second", "pairs/s", RATE),
        Column("scans_per_second", "scans/s", RATE),
        Column("p50_us", "p50 µs", RATE),
        Column("p99_us", "p99 µs", RATE),
    )

    def cases(self, sizes: Sizes) -> list[Case]:
        n, seconds = sizes.pairs, sizes.seconds / 4
        return [
            Case("short scans", n, seconds, {"range": _RANGE}),
            Case("whole scan", n, seconds, {"range": None}),
        ]

    def run(self, task: Task, leave: Leave) -> Found:
        pairs = Pairs(task.n, _VALUE_BYTES)
        session = Session(task, self.kind, durability=self.durability)
        for version in range(2):
            order = np.random.default_rng(version).permutation(task.n)
            for batch in pairs.batches(order, _PER_COMMIT, version):
                session.peer.put_many(batch)
        session.peer.drain()
        length = task.settings["range"]
        if length is None:
            since = time.perf_counter()
            count = sum(1 for _ in session.peer.scan())
            seconds = time.perf_counter() - since
            if count != task.n:
                raise AssertionError(f"a scan finds {count:,} of {task.n:,} pairs")
            found: Found = {"scans_per_second": 1 / seconds}
        else:
            starts = [pairs.key(n) for n in np.random.default_rng(5).permutation(task.n).tolist()]
            seen = 0

            def short(start: bytes) -> None:
                nonlocal seen
                seen += sum(1 for _ in itertools.islice(session.peer.scan(start), length))

            done = pace.closed(short, starts, task.seconds)
            count, seconds = seen, done.seconds
            found = {"scans_per_second": done.per_second, **done.percentiles()}
        found.update(n_done=count, per_second=count / seconds)
        return {**session.finish(2 * task.n * pairs.pair_bytes), **found}
