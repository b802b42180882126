"""A million vectors: the time and memory that building takes, and what is found then."""

from __future__ import annotations

import time

import waferdb
from benchmarks import mixture
from benchmarks.compare import VECTORS
from benchmarks.meter import resident_bytes
from benchmarks.mixture import Mixture
from benchmarks.sizes import Sizes
from benchmarks.targets import SUBJECT
from benchmarks.task import Session, Task

from .base import RATE, Case, Column, Found, Leave, N, Workload
from .vector_search import K, batches, searched

_DIM = 128
_QUERIES = 200
_MEGA = 1e-6


class VectorLarge(Workload):
    """Put, sealed and merged as they come."""

    name = "vector-large"
    what = (
        "Clustered 128-d vectors, 100 per commit, drawn as they are put, so that the process holds "
        "no copy; then drained. Peak resident memory is the process's, the interpreter included, "
        "read before the truth is computed. Of the full size alone."
    )
    denominator = f"vectors of {_DIM * 4} B; build is puts and drain, without the drawing"
    kind = VECTORS
    columns = (
        N,
        Column("put_seconds", "put s", RATE),
        Column("drain_seconds", "drain s", RATE),
        Column("build_seconds", "build s", RATE),
        Column("built_per_second", "built/s", RATE),
        Column("peak_bytes", "peak RSS MB", RATE, _MEGA),
        Column("baseline_bytes", "of it baseline", RATE, _MEGA),
        Column("recall", "recall@10", "{:.4f}"),
        Column("per_second", "searches/s", RATE),
        Column("p99_us", "p99 µs", RATE),
        Column("vector_share", "vectors' files/logical", "{:.3f}"),
    )

    def cases(self, sizes: Sizes) -> list[Case]:
        n = sizes.large_vectors
        return [Case(f"{n:,} x {_DIM}", n, sizes.seconds, only=(SUBJECT,))] if n else []

    def run(self, task: Task, leave: Leave) -> Found:
        mixed = Mixture(_DIM)
        queries = mixed.queries(_QUERIES)
        baseline = resident_bytes()
        session = Session(
            task, self.kind, durability=self.durability, policy=waferdb.hybrid(), dim=_DIM
        )
        put = 0.0
        for start, block in mixed.blocks(task.n):
            work = batches(block, start)
            since = time.perf_counter()
            for batch in work:
                session.peer.add(*batch)
            put += time.perf_counter() - since
        since = time.perf_counter()
        session.peer.drain()
        drained = time.perf_counter() - since
        peak = resident_bytes(peak=True)
        true = mixture.truth(mixed.blocks(task.n), queries, K)
        found = searched(session.peer, queries, true, task.seconds)
        return {
            **session.finish(task.n * _DIM * 4),
            **found,
            "n_done": task.n,
            "put_seconds": put,
            "drain_seconds": drained,
            "build_seconds": put + drained,
            "built_per_second": task.n / (put + drained),
            "peak_bytes": peak,
            "baseline_bytes": baseline,
        }
