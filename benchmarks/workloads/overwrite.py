"""The same memories again and again: what superseded versions cost."""

from __future__ import annotations

from dataclasses import replace

from benchmarks import pace
from benchmarks.compare import MEMORIES
from benchmarks.sizes import Sizes
from benchmarks.task import Session, Task
from benchmarks.workload import Item, items

from .base import BYTES, RATE, Case, Column, Found, Leave, N, Workload
from .remember import average_bytes, chunks

_TIMES = 10
_PER_COMMIT = 100


class Overwrite(Workload):
    """A tenth of the keys, each written ten times."""

    name = "overwrite"
    what = (
        "A tenth as many keys as memories, all of them written ten times in turn, 100 memories per "
        "commit; each time with another document and vector."
    )
    denominator = "document and vector of every writing; space is per byte still live"
    kind = MEMORIES
    columns = (
        N,
        Column("per_second", "memories/s", RATE),
        *BYTES[:-1],
        Column("space_per_live", "space/live"),
        Column("drain_seconds", "drain s"),
    )

    def cases(self, sizes: Sizes) -> list[Case]:
        return [Case("each key ten times", sizes.memories // 2, sizes.seconds / 2)]

    def run(self, task: Task, leave: Leave) -> Found:
        keys = max(_PER_COMMIT, task.n // _TIMES)
        some = [_in_place(item, keys) for item in items(task.n)]
        session = Session(task, self.kind, durability=self.durability)
        done = pace.closed(session.peer.remember_many, chunks(some, _PER_COMMIT), task.seconds)
        count = min(done.operations * _PER_COMMIT, task.n)
        if (there := session.peer.count()) != min(keys, count):
            raise AssertionError(f"{there:,} of {min(keys, count):,} memories are there")
        each = average_bytes(some)
        found = session.finish(round(count * each))
        return {
            **found,
            **done.percentiles(),
            "n_done": count,
            "per_second": count / done.seconds,
            "space_per_live": found["space_bytes"] / (min(keys, count) * each),
        }


def _in_place(item: Item, keys: int) -> Item:
    number = item.number % keys
    return replace(item, number=number, key=f"memory:{number:010}")
