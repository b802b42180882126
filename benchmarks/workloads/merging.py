"""Commits at a given rate beside a bulk load, with and without merges in the background.

Two phases, each on a store of its own, that differ in the memtable alone: one so large that nothing
is flushed, then the run's own, so that runs are written and merged. Commits count as "while
merging" when the store's counter of merged bytes grew between the looks around them. The rate is a
part of what the first phase reaches in a closed loop: an open loop above the capacity would measure
its own queue.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks import pace
from benchmarks.compare import PAIRS, Peer
from benchmarks.compare.base import Pair
from benchmarks.sizes import Sizes
from benchmarks.task import Session, Task

from .base import RATE, Case, Column, Found, Leave, Workload
from .pairs import Pairs

_RATE_MAX = 500
_SHARE_OF_CAPACITY = 0.3
_KEY_BYTES = 100
_VALUE_BYTES = 100
_BATCH = 1_000
_LOADED = 100_000
# The load keeps this pace, so that it is the same in both phases and merging has room to follow.
_LOAD_SECONDS = 0.01
_LOOK_SECONDS = 0.005
# The interpreter hands over between the threads this often; its usual 5 ms would be the p99.
_SWITCH_SECONDS = 0.000_2
_NOTHING_FLUSHED_BYTES = 1 << 30
# Of the time of the second phase, for the first and for finding the rate.
_WITHOUT, _CLOSED = 1 / 3, 1 / 12

Span = tuple[int, int]  # intended start and end of a commit, in nanoseconds


class Merging(Workload):
    """What merging does to the tail of the latencies."""

    name = "merging"
    what = (
        "One thread puts single pairs, one per commit, by a schedule; a second loads random "
        f"100-byte keys with 100-byte values, {_BATCH:,} per commit, at most one such commit every "
        "10 ms. Latency counts from the intended start. The rate is 0.3 of what the same load "
        f"allows in a closed loop, {_RATE_MAX}/s at most. Without merges: a memtable of 1 GiB. "
        "While merging: commits between two looks, 5 ms apart, at a counter of merged bytes that "
        "grew."
    )
    denominator = "p99 of the same load and rate without merges, in the same run"
    kind = PAIRS
    paced = True
    phases = ("without", "while")
    plotted = ("p99_ratio", "p99 while merging / without")
    columns = (
        Column("rate", "commits/s due", RATE),
        Column("merged_bytes", "merged MiB", "{:,.1f}", 1 / (1 << 20)),
        Column("without_n", "commits without", RATE),
        Column("while_n", "commits while", RATE),
        Column("without_p50_us", "p50 without, µs", RATE),
        Column("while_p50_us", "p50 while, µs", RATE),
        Column("without_p99_us", "p99 without, µs", RATE),
        Column("while_p99_us", "p99 while, µs", RATE),
        Column("quiet_p99_us", "p99 between merges, µs", RATE),
        Column("while_p999_us", "p99.9 while, µs", RATE),
        Column("p99_ratio", "p99 ratio"),
        Column("unserved", "not served", RATE),
    )

    def cases(self, sizes: Sizes) -> list[Case]:
        wanted = {"merge_bytes": sizes.merge_bytes}
        n = max(1, round(_RATE_MAX * sizes.merge_seconds))
        name = f"{sizes.merge_bytes >> 20:,} MiB merged" if sizes.merge_bytes >> 20 else "merging"
        return [Case(name, n, sizes.merge_seconds, wanted, only=("waferdb", "rocksdb"))]

    def derive(self, found: Found) -> None:
        if "while_p99_us" in found:
            found["p99_ratio"] = found["while_p99_us"] / found["without_p99_us"]

    def run(self, task: Task, leave: Leave) -> Found:
        sys.setswitchinterval(_SWITCH_SECONDS)
        own = Pairs(task.n, _VALUE_BYTES, _KEY_BYTES, seed=2)
        work = [(own.key(number), own.value(number)) for number in range(task.n)]
        without = task.phase == "without"
        # Each phase has a store of its own.
        task = replace(task, directory=str(Path(task.directory, task.phase)))
        Path(task.directory).mkdir()
        if without:
            task = replace(task, memtable_bytes=_NOTHING_FLUSHED_BYTES)
        session = Session(task, self.kind, durability=self.durability, count_merges=True)
        with _loading(session.peer) as looks:
            found = _without(task, session.peer, work) if without else _while(task, looks, work)
        session.peer.close()
        return found


def _without(task: Task, peer: Peer, work: list[Pair]) -> Found:
    """Finds the rate, then keeps it."""
    closed = pace.closed(lambda pair: peer.put(*pair), work, task.seconds * _CLOSED)
    rate = min(_RATE_MAX, max(1.0, closed.per_second * _SHARE_OF_CAPACITY))
    seconds = task.seconds * _WITHOUT
    done = pace.opened(
        lambda pair: peer.put(*pair), work[: max(1, round(rate * seconds))], rate, seconds * 1.5
    )
    found: Found = {f"without_{name}": value for name, value in done.percentiles().items()}
    return {"rate": rate, "without_n": len(done.nanos), **found}


def _while(task: Task, looks: _Looks, work: list[Pair]) -> Found:
    rate = task.settings["before"]["rate"]
    spans: list[Span] = []
    done = pace.opened(
        lambda pair: looks.peer.put(*pair),
        work[: max(1, round(rate * task.seconds))],
        rate,
        task.seconds * 1.5,
        lambda intended, end: spans.append((intended, end)),
    )
    merging = np.array([looks.grew(*span) for span in spans], dtype=bool)
    served, waiting = done.nanos[: done.operations], done.nanos[done.operations :]
    # What was not served is nobody's proof of quiet: it counts as merging if anything was merged.
    counted = np.concatenate([served[merging], waiting]) if merging.any() else served[:0]
    found: Found = {f"while_{name}": each for name, each in pace.percentiles(counted).items()}
    for name, each in pace.percentiles(served[~merging]).items():
        found[f"quiet_{name}"] = each
    return {
        **found,
        "while_n": len(counted),
        "n_done": done.operations,
        "unserved": done.unserved,
        "merged_bytes": looks.merged,
        "enough_merged": looks.merged >= task.settings["merge_bytes"],
    }


class _Looks:
    """A counter of merged bytes, looked at again and again."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self._times: list[int] = []
        self._bytes: list[int] = []

    def until(self, stop: threading.Event) -> None:
        """Looks until told to stop."""
        while not stop.is_set():
            self._times.append(time.perf_counter_ns())
            self._bytes.append(self.peer.merged_bytes())
            stop.wait(_LOOK_SECONDS)

    @property
    def merged(self) -> int:
        """Bytes merged between the first look and the last."""
        return self._bytes[-1] - self._bytes[0] if self._bytes else 0

    def grew(self, start: int, end: int) -> bool:
        """Whether the counter grew between the looks before `start` and after `end`."""
        if not self._bytes:
            return False
        first = max(bisect.bisect_left(self._times, start) - 1, 0)
        last = min(bisect.bisect_left(self._times, end), len(self._bytes) - 1)
        return self._bytes[last] > self._bytes[first]


@contextlib.contextmanager
def _loading(peer: Peer) -> Iterator[_Looks]:
    """Loads and looks, in threads of their own, as long as the context lasts."""
    pairs = Pairs(_LOADED, _VALUE_BYTES, _KEY_BYTES)
    order = np.random.default_rng(6).permutation(pairs.count)
    batches = list(pairs.batches(order, _BATCH))
    looks, stop, failed = _Looks(peer), threading.Event(), list[BaseException]()

    def load() -> None:
        try:
            for batch in itertools.cycle(batches):
                due = time.perf_counter() + _LOAD_SECONDS
                peer.put_many(batch)
                if stop.wait(max(0.0, due - time.perf_counter())):
                    return
        except BaseException as error:  # noqa: BLE001 - raised again below
            failed.append(error)

    threads = [threading.Thread(target=load), threading.Thread(target=looks.until, args=(stop,))]
    for thread in threads:
        thread.start()
    try:
        yield looks
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    if failed:
        raise failed[0]
