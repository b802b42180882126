"""How fast the nearest are found, and how many of them, beside indexes that are nothing but that.

The figures at equal recall: waferdb's own is its default search. A graph of another library is
searched with the smallest breadth (found by bisection) whose recall is at most 0.002 below
waferdb's in the same run, which is its fastest way to answer as well.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from typing import Any

import waferdb
from benchmarks import mixture, pace
from benchmarks.compare import VECTORS, Peer
from benchmarks.compare.base import vector_key
from benchmarks.mixture import Floats, Longs, Mixture
from benchmarks.sizes import Sizes
from benchmarks.targets import SUBJECT
from benchmarks.task import Session, Task

from .base import RATE, Case, Column, Found, Leave, N, Workload

K = 10
DIM = 384
PER_COMMIT = 100
SEARCHERS = (SUBJECT, "usearch", "hnswlib", "numpy")
_PASSES = 3
_WARMING = 50
_AT_ONCE = 100
_TOLERANCE = 0.002
_BREADTH_MAX = 1_024
# What a peer is brought to where waferdb was not measured before it.
_RECALL = 0.99

Batch = tuple[list[str], Floats]


class VectorSearch(Workload):
    """Default search after everything is sealed and merged."""

    name = "vector-search"
    what = (
        "Clustered 384-d vectors of length 1 (a seeded mixture of 1,000 Gaussians of three "
        f"spreads), put {PER_COMMIT} per commit, then drained; queries are new draws of the same "
        "mixture. One thread searches by the public call, and only the call is timed. recall@10 is "
        "against every vector compared. Graphs of the peers: float32, M = 16, construction breadth "
        "128, one thread. At equal recall: the smallest breadth whose recall is at most "
        f"{_TOLERANCE} below waferdb's."
    )
    denominator = "single calls; k = 10"
    kind = VECTORS
    columns = (
        N,
        Column("recall", "recall@10", "{:.4f}"),
        Column("per_second", "searches/s", RATE),
        Column("p50_us", "p50 µs", RATE),
        Column("p99_us", "p99 µs", RATE),
        Column("many_per_second", "searches/s, 100 a call", RATE),
        Column("equal_breadth", "breadth at equal recall", RATE),
        Column("equal_recall", "its recall@10", "{:.4f}"),
        Column("equal_per_second", "its searches/s", RATE),
        Column("put_per_second", "put/s", RATE),
        Column("built_per_second", "built/s", RATE),
        Column("seal_bytes_each", "sealed B/vector"),
        Column("merge_bytes_each", "merged B/vector"),
        Column("vector_bytes_each", "all but log, B/vector"),
    )

    def cases(self, sizes: Sizes) -> list[Case]:
        n = sizes.vectors
        settings = {"queries": sizes.queries}
        return [Case(f"{n:,} x {DIM}", n, sizes.seconds, settings, only=SEARCHERS)]

    def run(self, task: Task, leave: Leave) -> Found:
        mixed = Mixture(DIM)
        vectors, queries = mixed.vectors(task.n), mixed.queries(task.settings["queries"])
        true = mixture.truth(mixture.in_blocks(vectors), queries, K)
        work = batches(vectors)
        gc.collect()
        session = Session(task, self.kind, policy=waferdb.hybrid(), dim=DIM)
        peer = session.peer
        found = _built(peer, work, task.n)
        found.update(searched(peer, queries, true, task.seconds))
        found.update(_at_once(peer, queries, task.seconds))
        if task.peer == SUBJECT:
            found.update(equal_per_second=found["per_second"], equal_recall=found["recall"])
            found.update(_written(peer, task.n))
        elif task.peer != "numpy":
            wanted = task.settings.get("subject", {}).get("recall", _RECALL)
            found.update(_at_equal_recall(peer, queries, true, wanted, task.seconds))
        peer.close()
        return found


def batches(vectors: Floats, start: int = 0) -> list[Batch]:
    """Vectors number `start` and following in commits of PER_COMMIT, with their keys."""
    return [
        (
            [vector_key(start + at + n) for n in range(len(vectors[at : at + PER_COMMIT]))],
            vectors[at : at + PER_COMMIT],
        )
        for at in range(0, len(vectors), PER_COMMIT)
    ]


def searched(peer: Peer, queries: Floats, true: Longs, seconds: float) -> Found:
    """Rate, percentiles and recall of single searches, as the peer is set."""
    answers: list[Any] = []
    for query in queries[:_WARMING]:
        peer.near(query, K)
    done = pace.closed(
        lambda query: answers.append(peer.near(query, K)), list(queries) * _PASSES, seconds
    )
    judged = min(len(queries), len(answers))
    numbers = [peer.numbers(answer) for answer in answers[:judged]]
    return {
        "per_second": done.per_second,
        "searches": done.operations,
        "recall": mixture.recall(numbers, true[:judged]),
        **done.percentiles(),
    }


def _built(peer: Peer, work: Sequence[Batch], count: int) -> Found:
    """Puts and drains. waferdb seals beside the puts, so its rate counts from the first of them:
    a lower bound of what one thread builds."""
    started = time.perf_counter()
    for keys, vectors in work:
        peer.add(keys, vectors)
    put = time.perf_counter()
    peer.drain()
    drained = time.perf_counter()
    if (there := peer.count()) != count:
        raise AssertionError(f"{there:,} of {count:,} vectors are there")
    return {
        "n_done": count,
        "put_per_second": count / (put - started),
        "drain_seconds": drained - put,
        "built_per_second": count / (drained - started),
    }


def _written(peer: Peer, count: int) -> Found:
    """Bytes of the vectors' own files; `sealed` says whether there was a graph to write."""
    by = peer.counted().vectors_by
    return {
        "sealed": by.get("seal", 0) > 0,
        "seal_bytes_each": by.get("seal", 0) / count,
        "merge_bytes_each": by.get("merge", 0) / count,
        "vector_bytes_each": sum(n for cause, n in by.items() if cause != "log") / count,
    }


def _at_once(peer: Peer, queries: Floats, seconds: float) -> Found:
    parts = [queries[at : at + _AT_ONCE] for at in range(0, len(queries), _AT_ONCE)]
    done = pace.closed(lambda part: peer.near_many(part, K), parts * _PASSES, seconds)
    count = sum(len(part) for part in (parts * _PASSES)[: done.operations])
    return {"many_per_second": count / done.seconds}


def _at_equal_recall(
    peer: Peer, queries: Floats, true: Longs, wanted: float, seconds: float
) -> Found:
    def reached(breadth: int) -> bool:
        peer.set_breadth(breadth)
        numbers = peer.numbers_many(peer.near_many(queries, K))
        return mixture.recall(numbers, true) >= wanted - _TOLERANCE

    breadth = smallest(reached, K, _BREADTH_MAX)
    if breadth is None:
        return {"notes": [f"no breadth up to {_BREADTH_MAX:,} reaches a recall of {wanted:.4f}"]}
    peer.set_breadth(breadth)
    found = searched(peer, queries, true, seconds)
    return {
        "equal_breadth": breadth,
        "equal_recall": found["recall"],
        "equal_per_second": found["per_second"],
    }


def smallest(reached: Callable[[int], bool], low: int, high: int) -> int | None:
    """The smallest number from `low` to `high` that `reached` accepts, by bisection; or none."""
    if not reached(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle + 1, high)
    return low
