"""Six writes a memory, at the three ways in which agents commit them."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import waferdb
from benchmarks import pace
from benchmarks.compare import MEMORIES
from benchmarks.sizes import Sizes
from benchmarks.task import Session, Task
from benchmarks.workload import Item, items

from .base import BYTES, RATE, Case, Column, Found, Leave, N, Workload

# The graphs' own vectors are all held beside their memories; more would say nothing new.
_GRAPHS_MAX = 100_000


def chunks(some: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """`some` in commits of `size`."""
    return [some[start : start + size] for start in range(0, len(some), size)]


def average_bytes(some: Sequence[Item]) -> float:
    """Logical bytes of one memory, from the first thousand."""
    sample = some[:1_000]
    return sum(item.logical_bytes for item in sample) / len(sample)


class Remember(Workload):
    """New memories only."""

    name = "remember"
    what = (
        "Each memory is six writes: a 506-byte document with two indexed fields, a 384-d float32 "
        "vector, an event, an audit entry, a cache entry and a context entry. Closed loop; p50 to "
        "p99.9 are service times of one commit. No graph over the vectors of waferdb "
        "(`policy=lazy()`), but for the case that says so: there no vector comes twice, and all of "
        "them are sealed and merged before the bytes are read."
    )
    denominator = "document and vector once: 2,042 logical bytes a memory"
    kind = MEMORIES
    repeated = True
    columns = (
        N,
        Column("per_second", "memories/s", RATE),
        Column("p50_us", "p50 µs", RATE),
        Column("p99_us", "p99 µs", RATE),
        Column("p999_us", "p99.9 µs", RATE),
        Column("commits_per_sync", "commits/sync", "{:.1f}"),
        *BYTES,
        Column("vector_share", "vectors' files/logical", "{:.3f}"),
        Column("drain_seconds", "drain s"),
    )

    def cases(self, sizes: Sizes) -> list[Case]:
        n, seconds = sizes.memories, sizes.seconds
        one = {"threads": 1, "per_commit": 1}
        many = {"threads": 16, "per_commit": 1}
        hundred = {"threads": 1, "per_commit": 100}
        return [
            Case("100 per commit", n, seconds, hundred, probe=True),
            Case("1 per commit, 16 threads", n, seconds, many),
            Case("1 per commit, 1 thread", n, seconds, one, probe=True),
            Case(
                "1 per commit, 16 threads kept to one core",
                max(1, n // 4),
                seconds,
                {**many, "one_core": True},
                only=("waferdb",),
                once=True,
            ),
            Case(
                "with graphs: 100 per commit, sealed, merged and drained",
                min(n, _GRAPHS_MAX),
                seconds,
                {**hundred, "graphs": True},
                only=("waferdb",),
                once=True,
            ),
        ]

    def run(self, task: Task, leave: Leave) -> Found:
        graphs = task.settings.get("graphs", False)
        some = items(task.n, distinct=graphs)
        threads, per_commit = task.settings["threads"], task.settings["per_commit"]
        gc.collect()
        gc.freeze()
        policy = waferdb.hybrid() if graphs else None
        session = Session(task, self.kind, durability=self.durability, policy=policy)
        peer = session.peer
        if per_commit > 1:
            done = pace.closed(peer.remember_many, chunks(some, per_commit), task.seconds)
        else:
            one_core = task.settings.get("one_core", False)
            done = pace.closed_by_threads(peer.remember, some, threads, task.seconds, one_core)
        count = min(done.operations * per_commit, task.n)
        if (there := peer.count()) != count:
            raise AssertionError(f"{there:,} of {count:,} memories are there")
        found = session.finish(round(count * average_bytes(some)))
        if task.peer == "waferdb":
            found["group_bytes"] = task.log_bytes / done.operations
        return {
            **found,
            **done.percentiles(),
            "n_done": count,
            "per_second": count / done.seconds,
            "commits_per_second": done.per_second,
        }
