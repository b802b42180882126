"""How long a memory takes when they come at a given rate, whether or not the store keeps up."""

from __future__ import annotations

import gc

from benchmarks import pace
from benchmarks.compare import MEMORIES
from benchmarks.sizes import Sizes
from benchmarks.task import Session, Task
from benchmarks.workload import items

from .base import RATE, Case, Column, Found, Leave, Workload
from .remember import average_bytes

_RATES = (100, 1_000, 4_000)
# A store that is behind may take this many times the schedule's length.
_PATIENCE = 1.5


class Latency(Workload):
    """An open loop: intended start times, latency from each of them."""

    name = "latency"
    what = (
        "One memory per commit at a stated rate, one thread. Latency counts from the intended "
        "start, whatever happened before (no coordinated omission); memories not begun when the "
        "time was up count with the time they had waited, and are told."
    )
    denominator = "the schedule: memory n is due at n / rate"
    kind = MEMORIES
    paced = True
    plotted = ("p99_us", "p99 in µs")
    columns = (
        Column("n_done", "served", RATE),
        Column("unserved", "not served", RATE),
        Column("achieved_per_second", "achieved/s", RATE),
        Column("p50_us", "p50 µs", RATE),
        Column("p99_us", "p99 µs", RATE),
        Column("p999_us", "p99.9 µs", RATE),
        Column("max_us", "max µs", RATE),
    )

    def cases(self, sizes: Sizes) -> list[Case]:
        seconds = sizes.paced_seconds
        return [
            Case(f"{rate:,}/s", max(1, round(rate * seconds)), seconds, {"rate": rate})
            for rate in _RATES
        ]

    def run(self, task: Task, leave: Leave) -> Found:
        some = items(task.n)
        gc.collect()
        gc.freeze()
        session = Session(task, self.kind, durability=self.durability)
        patience = task.seconds * _PATIENCE
        done = pace.opened(session.peer.remember, some, task.settings["rate"], patience)
        return {
            **session.finish(round(done.operations * average_bytes(some))),
            **done.percentiles(),
            "n_done": done.operations,
            "unserved": done.unserved,
            "achieved_per_second": done.per_second,
        }
