"""Many small values: memory held, bytes written, and how long a reopening takes.

Four phases, each a process of its own: load; reopen what was closed; write a tail and die without
closing; reopen that. The page cache is warm: what is measured is the store's work, not the disk's.
"""

from __future__ import annotations

import os
import statistics
import time

import numpy as np

from benchmarks import compare
from benchmarks.compare import PAIRS
from benchmarks.meter import resident_bytes
from benchmarks.sizes import Sizes
from benchmarks.task import Session, Task, opened

from .base import BYTES, RATE, Case, Column, Found, Leave, N, Workload
from .pairs import Pairs

_PER_COMMIT = 1_000
_OVERWRITES = 2
_REOPENINGS = 3
_VALUE_BYTES = 100
_MEGA = 1e-6


class KvSmall(Workload):
    """100-byte values under random keys, each overwritten twice."""

    name = "kv-small"
    what = (
        "Pairs of a random 16-byte key and 100 bytes of noise, 1,000 per commit, one thread; then "
        "every key overwritten twice in random order. Resident memory is the process's peak, the "
        "interpreter included (baseline: before the store is opened). Reopening counts from the "
        "call to the first answer, after an orderly close (median of three); and again after a "
        "tail was written and the process ended without closing. Page cache warm."
    )
    denominator = "keys and values of every writing"
    kind = PAIRS
    phases = ("load", "reopen", "tail", "reopen-tail")
    plotted = ("device_per_logical", "device bytes per logical byte")
    columns = (
        N,
        Column("per_second", "puts/s", RATE),
        Column("device_bytes", "device MB", RATE, _MEGA),
        *BYTES,
        Column("peak_bytes", "peak RSS MB", RATE, _MEGA),
        Column("baseline_bytes", "of it baseline", RATE, _MEGA),
        Column("reopen_ms", "reopen ms", "{:,.1f}"),
        Column("tail_log_bytes", "tail MB", "{:,.1f}", _MEGA),
        Column("reopen_tail_ms", "reopen with tail ms", "{:,.1f}"),
        Column("tail_mb_per_second", "tail MB/s", RATE),
    )

    def cases(self, sizes: Sizes) -> list[Case]:
        name = f"{sizes.small_pairs:,} pairs, 64 MiB memtable"
        seconds = sizes.seconds * 3
        return [Case(name, sizes.small_pairs, seconds, memtable_bytes=64 << 20)]

    def run(self, task: Task, leave: Leave) -> Found:
        pairs = Pairs(task.n, _VALUE_BYTES)
        if task.phase == "load":
            return self._load(task, pairs)
        if task.phase == "tail":
            return self._tail(task, pairs, leave)
        return self._reopen(task, pairs)

    def derive(self, found: Found) -> None:
        """The rate at which a tail is taken in, from what it adds to the reopening."""
        if "tail_log_bytes" in found:
            added = max(found["reopen_tail_ms"] - found["reopen_ms"], 0.1) / 1e3
            found["tail_mb_per_second"] = found["tail_log_bytes"] * _MEGA / added

    def _load(self, task: Task, pairs: Pairs) -> Found:
        baseline = resident_bytes()
        session = Session(task, self.kind, durability=self.durability)
        puts, busy = 0, 0.0
        for version in range(1 + _OVERWRITES):
            order = np.random.default_rng(version).permutation(task.n)
            for batch in pairs.batches(order, _PER_COMMIT, version):
                if busy > task.seconds:
                    break
                since = time.perf_counter()
                session.peer.put_many(batch)
                busy += time.perf_counter() - since
                puts += len(batch)
        found = session.finish(puts * pairs.pair_bytes)
        return {
            **found,
            "n_done": puts,
            "per_second": puts / busy,
            "peak_bytes": resident_bytes(peak=True),
            "baseline_bytes": baseline,
        }

    def _reopen(self, task: Task, pairs: Pairs) -> Found:
        key = pairs.key(int(np.random.default_rng(0).permutation(task.n)[0]))
        compare.peer(task.peer)  # imported before the clock starts
        # A tail can be met once: the orderly close behind it leaves none.
        times = _REOPENINGS if task.phase == "reopen" else 1
        taken = statistics.median(self._once(task, key) for _ in range(times))
        return {"reopen_ms" if task.phase == "reopen" else "reopen_tail_ms": taken}

    def _once(self, task: Task, key: bytes) -> float:
        """Milliseconds from the call to the first answer."""
        started = time.perf_counter()
        peer = opened(task, self.kind, durability=self.durability)
        if peer.get(key) is None:
            raise AssertionError("a pair that was written is not there")
        taken = (time.perf_counter() - started) * 1e3
        peer.close()
        return taken

    def _tail(self, task: Task, pairs: Pairs, leave: Leave) -> Found:
        peer = opened(task, self.kind, durability=self.durability)
        peer.drain()
        before = peer.counted().log_bytes
        order = np.random.default_rng(9).permutation(task.n)[: max(1, task.n // 4)]
        started = time.perf_counter()
        for batch in pairs.batches(order, _PER_COMMIT, 9):
            peer.put_many(batch)
            if time.perf_counter() - started > task.seconds:
                break
        after = peer.counted().log_bytes
        found = {} if before is None or after is None else {"tail_log_bytes": after - before}
        leave(found)
        # As a crash does: nothing is closed, no handler runs.
        os._exit(0)
