"""Key-value work through Python, call by call, without syncs: what the interface itself costs."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.compare import PAIRS, Peer
from benchmarks.sizes import Sizes
from benchmarks.task import Session, Task

from .base import RATE, Case, Column, Found, Leave, N, Workload
from .pairs import Pairs

_VALUE_BYTES = 400
_BATCH = 100
# The clock is read once for this many calls: it would cost a tenth of a get.
_CALLS = 1_000
_IN_MEMORY_BYTES = 1 << 30


class Kv(Workload):
    """Single puts, batches, point gets and scans."""

    name = "kv"
    what = (
        "Pairs of a 16-byte key and 400 bytes of noise, bytes in and bytes out, one thread, one "
        "call a pair unless it says batch (100 pairs, one commit). Nothing is synced while it "
        "runs; "
        "everything is drained before it is read, but for what is to be read from memory."
    )
    denominator = "seconds of the calls alone"
    kind = PAIRS
    durability = "async"
    repeated = True
    columns = (
        N,
        Column("per_second", "pairs/s", RATE),
        Column("drain_seconds", "drain s"),
    )

    def cases(self, sizes: Sizes) -> list[Case]:
        n, seconds = sizes.pairs, sizes.seconds
        memory = _IN_MEMORY_BYTES
        return [
            Case("single put", n, seconds, {"do": "put"}),
            Case("batch put", n, seconds, {"do": "batch"}),
            Case("point get from runs", n, seconds, {"do": "get"}),
            Case("point get from memory", n, seconds, {"do": "get"}, memtable_bytes=memory),
            Case("scan, keys written in order", n, seconds, {"do": "scan", "ordered": True}),
            Case("scan, keys written at random", n, seconds, {"do": "scan"}),
        ]

    def run(self, task: Task, leave: Leave) -> Found:
        pairs = Pairs(task.n, _VALUE_BYTES)
        session = Session(task, self.kind, durability=self.durability)
        gc.collect()
        gc.freeze()
        how = task.settings["do"]
        if how in ("put", "batch"):
            count, seconds = _write(session.peer, pairs, how, task.seconds)
            written = count
        else:
            written = task.n
            order = list(range(task.n))
            if task.settings.get("ordered"):
                order.sort(key=pairs.key)
            for batch in pairs.batches(np.array(order), _BATCH):
                session.peer.put_many(batch)
            if task.memtable_bytes < _IN_MEMORY_BYTES:
                session.peer.drain()
            reading = _get if how == "get" else _scan
            count, seconds = reading(session.peer, pairs, task.seconds)
        found = session.finish(written * pairs.pair_bytes)
        return {**found, "n_done": count, "per_second": count / seconds}


def timed(
    call: Callable[..., Any], work: Sequence[tuple[Any, ...]], limit: float
) -> tuple[int, float]:
    """How many calls were made, and in how many seconds."""
    spent, done = 0.0, 0
    for start in range(0, len(work), _CALLS):
        some = work[start : start + _CALLS]
        since = time.perf_counter()
        for words in some:
            call(*words)
        spent += time.perf_counter() - since
        done += len(some)
        if spent > limit:
            break
    return done, spent


def _write(peer: Peer, pairs: Pairs, how: str, limit: float) -> tuple[int, float]:
    order = np.random.default_rng(3).permutation(pairs.count)
    batches = list(pairs.batches(order, _BATCH))
    if how == "put":
        return timed(peer.putter(), [pair for batch in batches for pair in batch], limit)
    done, spent = timed(peer.put_many, [(batch,) for batch in batches], limit)
    return min(done * _BATCH, pairs.count), spent


def _get(peer: Peer, pairs: Pairs, limit: float) -> tuple[int, float]:
    order = np.random.default_rng(4).permutation(pairs.count)
    for number in order[:100].tolist():
        if peer.get(pairs.key(number)) != pairs.value(number):
            raise AssertionError("a get answers another value than was put")
    return timed(peer.getter(), [(pairs.key(number),) for number in order.tolist()], limit)


def _scan(peer: Peer, pairs: Pairs, limit: float) -> tuple[int, float]:
    since = time.perf_counter()
    found = sum(1 for _ in peer.scan())
    spent = time.perf_counter() - since
    if found != pairs.count:
        raise AssertionError(f"a scan finds {found:,} of {pairs.count:,} pairs")
    return found, spent
