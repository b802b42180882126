"""Memories that come and go: each commit of new ones is followed by one that deletes the oldest."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import pace
from benchmarks.compare import MEMORIES
from benchmarks.sizes import Sizes
from benchmarks.task import Session, Task
from benchmarks.workload import Item, items

from .base import BYTES, RATE, Case, Column, Found, Leave, N, Workload
from .remember import average_bytes, chunks

_PER_COMMIT = 100
# One part in this many stays alive.
_LIVE = 10


class Churn(Workload):
    """Put and delete in turn."""

    name = "churn"
    what = (
        "100 memories are put in one commit; once a tenth of all are there, each such commit is "
        "followed by one that deletes the 100 oldest."
    )
    denominator = "document and vector of every put; space is per byte still live"
    kind = MEMORIES
    columns = (
        N,
        Column("per_second", "puts/s", RATE),
        *BYTES[:-1],
        Column("space_per_live", "space/live"),
        Column("drain_seconds", "drain s"),
    )

    def cases(self, sizes: Sizes) -> list[Case]:
        return [Case("put and delete", sizes.memories // 2, sizes.seconds / 2)]

    def run(self, task: Task, leave: Leave) -> Found:
        some = items(task.n)
        batches = chunks(some, _PER_COMMIT)
        live = max(1, len(batches) // _LIVE)
        session = Session(task, self.kind, durability=self.durability)
        peer = session.peer

        def do(step: tuple[Sequence[Item], Sequence[Item] | None]) -> None:
            new, old = step
            peer.remember_many(new)
            if old is not None:
                peer.delete_many(old)

        steps = [
            (new, batches[at - live] if at >= live else None) for at, new in enumerate(batches)
        ]
        done = pace.closed(do, steps, task.seconds)
        count = min(done.operations * _PER_COMMIT, task.n)
        kept = min(count, live * _PER_COMMIT - done.operations * _PER_COMMIT + count)
        if (there := peer.count()) != kept:
            raise AssertionError(f"{there:,} of {kept:,} memories are there")
        each = average_bytes(some)
        found = session.finish(round(count * each))
        return {
            **found,
            "n_done": count,
            "per_second": count / done.seconds,
            "space_per_live": found["space_bytes"] / (kept * each),
        }
