"""How fast vectors are taken in, durable, while what is built over them follows behind."""

from __future__ import annotations

import gc

import numpy as np

import waferdb
from benchmarks import pace
from benchmarks.compare import VECTORS
from benchmarks.mixture import Mixture
from benchmarks.sizes import Sizes
from benchmarks.targets import SUBJECT
from benchmarks.task import Session, Task

from .base import BYTES, RATE, Case, Column, Found, Leave, N, Workload
from .vector_search import DIM, PER_COMMIT, batches

_PARTS = 10


class VectorPut(Workload):
    """Commits of many vectors and nothing else."""

    name = "vector-put"
    what = (
        f"384-d vectors by put_many, {PER_COMMIT} per commit, one thread, closed loop. Sealing "
        "goes on beside the puts; once the vectors that are not sealed reach their bound, writers "
        "wait, which the slowest tenth of the commits shows. What was put off when the last commit "
        "was acknowledged is a note. rocksdb-bare stores the same bytes as values."
    )
    denominator = f"the vectors, once: {DIM * 4:,} B each"
    kind = VECTORS
    repeated = True
    columns = (
        N,
        Column("per_second", "vectors/s", RATE),
        Column("slowest_per_second", "slowest tenth, vectors/s", RATE),
        Column("p50_us", "p50 µs", RATE),
        Column("p99_us", "p99 µs", RATE),
        Column("max_us", "max µs", RATE),
        *BYTES,
        Column("vector_share", "vectors' files/logical", "{:.3f}"),
        Column("drain_seconds", "drain s"),
    )

    def cases(self, sizes: Sizes) -> list[Case]:
        peers = (SUBJECT, "rocksdb-bare")
        settings = {"per_commit": PER_COMMIT}
        name = f"{PER_COMMIT} per commit"
        return [Case(name, sizes.vectors, sizes.seconds, settings, probe=True, only=peers)]

    def run(self, task: Task, leave: Leave) -> Found:
        work = batches(Mixture(DIM).vectors(task.n))
        gc.collect()
        gc.freeze()
        session = Session(task, self.kind, durability=self.durability, policy=waferdb.hybrid())
        peer = session.peer
        done = pace.closed(lambda batch: peer.add(*batch), work, task.seconds)
        lag = peer.lagging()
        count = sum(len(keys) for keys, _ in work[: done.operations])
        if (there := peer.count()) != count:
            raise AssertionError(f"{there:,} of {count:,} vectors are there")
        found = session.finish(count * DIM * 4)
        if task.peer == SUBJECT:
            found["group_bytes"] = task.log_bytes / done.operations
        if lag:
            found["notes"] = [*found.get("notes", []), f"lag after the last commit: {lag}"]
        slowest = max(part.mean() for part in np.array_split(done.nanos, _PARTS) if len(part))
        return {
            **found,
            **done.percentiles(),
            "n_done": count,
            "per_second": count / done.seconds,
            "commits_per_second": done.per_second,
            "slowest_per_second": float(PER_COMMIT * 1e9 / slowest),
        }
