"""Doing work at a pace: as fast as it goes, by threads, or by a schedule of intended times.

1. Closed loop: the next operation begins when the one before it has ended. Its times are service
   times, and what they do not show is the waiting that a stall causes.
2. Open loop: operation n is intended at start + n / rate whatever happened before, and its latency
   counts from that moment (no coordinated omission). What was not served when the time was up
   counts with the time it had waited: a lower bound, never left out.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")

_now = time.perf_counter_ns
# Sleeping ends late by up to this much; the rest of the way is spun.
_SPIN_NS = 60_000


@dataclass
class Done:
    """What a loop did: operations, seconds, and the nanoseconds of each."""

    operations: int
    seconds: float
    nanos: NDArray[np.int64] = field(repr=False)
    unserved: int = 0

    @property
    def per_second(self) -> float:
        """Operations a second."""
        return self.operations / max(self.seconds, 1e-9)

    def percentiles(self) -> dict[str, float]:
        """p50, p99, p99.9 and the longest, in microseconds."""
        return percentiles(self.nanos)


def percentiles(nanos: NDArray[np.int64]) -> dict[str, float]:
    """p50, p99, p99.9 and the longest, in microseconds; nothing of nothing."""
    if not len(nanos):
        return {}
    at = np.percentile(nanos, (50, 99, 99.9, 100)) / 1e3
    return dict(zip(("p50_us", "p99_us", "p999_us", "max_us"), map(float, at), strict=True))


def closed(do: Callable[[T], Any], work: Sequence[T], seconds: float) -> Done:
    """One thread does `work` in order, until it is done or the time is up."""
    nanos = np.empty(len(work), dtype=np.int64)
    done, limit = 0, int(seconds * 1e9)
    started = since = _now()
    for done, each in enumerate(work, 1):
        do(each)
        now = _now()
        nanos[done - 1] = now - since
        since = now
        if now - started > limit:
            break
    return Done(done, (since - started) / 1e9, nanos[:done])


def closed_by_threads(
    do: Callable[[T], Any], work: Sequence[T], threads: int, seconds: float, one_core: bool = False
) -> Done:
    """`threads` threads share `work`; the clock runs until the last has ended.

    With `one_core` the workers (no other thread) keep to the first core they may use.
    """
    if threads == 1:
        return closed(do, work, seconds)
    together = threading.Barrier(threads + 1)
    parts: list[Done] = []
    failed: list[BaseException] = []

    def run(own: Sequence[T]) -> None:
        if one_core:
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        together.wait()
        try:
            parts.append(closed(do, own, seconds))
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that asked
            failed.append(error)

    workers = [threading.Thread(target=run, args=(work[n::threads],)) for n in range(threads)]
    for worker in workers:
        worker.start()
    together.wait()
    started = time.perf_counter()
    for worker in workers:
        worker.join()
    took = time.perf_counter() - started
    if failed:
        raise failed[0]
    nanos = np.concatenate([part.nanos for part in parts])
    return Done(sum(part.operations for part in parts), took, nanos)


def opened(
    do: Callable[[T], Any],
    work: Sequence[T],
    rate: float,
    seconds: float,
    ended: Callable[[int, int], None] | None = None,
) -> Done:
    """One thread does `work` by a schedule of `rate` a second, giving up after `seconds`.

    `ended(intended, end)` is told the clock of each operation, in nanoseconds.
    """
    step = 1e9 / rate
    nanos = np.empty(len(work), dtype=np.int64)
    started, limit, done = _now(), int(seconds * 1e9), 0
    for number, each in enumerate(work):
        intended = started + int(number * step)
        _until(intended)
        if _now() - started > limit:
            break
        do(each)
        now = _now()
        nanos[number] = now - intended
        done = number + 1
        if ended is not None:
            ended(intended, now)
    end = _now()
    waiting = np.array([started + int(n * step) for n in range(done, len(work))], dtype=np.int64)
    waiting = waiting[waiting < end]
    every = np.concatenate([nanos[:done], end - waiting])
    return Done(done, (end - started) / 1e9, every, unserved=len(waiting))


def _until(moment: int) -> None:
    """Returns at `moment`, or at once if it has passed."""
    while (left := moment - _now()) > 0:
        if left > _SPIN_NS:
            time.sleep((left - _SPIN_NS) / 1e9)
