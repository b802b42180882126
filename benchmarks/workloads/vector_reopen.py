"""How long a fresh process takes to its first correct search.

Four phases, each a process of its own: load, seal, close; reopen; write a tail that nothing seals
and die without closing; reopen that. The page cache is warm.
"""

from __future__ import annotations

import os
import time

import waferdb
from benchmarks import compare, mixture
from benchmarks.compare import VECTORS
from benchmarks.mixture import Floats, Mixture
from benchmarks.sizes import Sizes
from benchmarks.targets import SUBJECT
from benchmarks.task import Session, Task, opened

from .base import RATE, Case, Column, Found, Leave, N, Workload
from .vector_search import DIM, K, batches

# A graph may miss some of the true neighbours, yet neither the vector itself nor many.
_RECALL_MIN = 0.8


class VectorReopen(Workload):
    """After an orderly close, and behind a tail."""

    name = "vector-reopen"
    what = (
        "Clustered 384-d vectors, 100 per commit, drained and closed; then a fresh process opens "
        "and searches for the vector that was written last: the time is from the call that opens "
        "to the answer, which has to begin with that vector. Then half as many vectors more under "
        "`policy=lazy()`, which leaves them unsealed, the process ends without closing, and the "
        "same again. Page cache warm; the interpreter's imports are not timed."
    )
    denominator = "one opening and one search"
    kind = VECTORS
    phases = ("load", "reopen", "tail", "reopen-tail")
    plotted = ("reopen_ms", "ms to the first search")
    columns = (
        N,
        Column("reopen_ms", "reopen ms", "{:,.1f}"),
        Column("reopen_recall", "recall@10", "{:.2f}"),
        Column("tail_n", "vectors in the tail", RATE),
        Column("reopen_tail_ms", "reopen with tail ms", "{:,.1f}"),
        Column("reopen_tail_recall", "recall@10", "{:.2f}"),
    )

    def cases(self, sizes: Sizes) -> list[Case]:
        n = sizes.vectors
        return [Case(f"{n:,} and a tail of {n // 2:,}", n, sizes.seconds, only=(SUBJECT,))]

    def run(self, task: Task, leave: Leave) -> Found:
        mixed, tail = Mixture(DIM), max(1, task.n // 2)
        if task.phase == "load":
            return self._load(task, mixed.vectors(task.n))
        if task.phase == "tail":
            return self._tail(task, mixed.vectors(task.n + tail, task.n), leave)
        if task.phase == "reopen":
            return self._reopen(task, mixed.vectors(task.n), waferdb.hybrid(), "reopen")
        return self._reopen(task, mixed.vectors(task.n + tail), None, "reopen_tail")

    def _load(self, task: Task, vectors: Floats) -> Found:
        session = Session(task, self.kind, durability=self.durability, policy=waferdb.hybrid())
        for batch in batches(vectors):
            session.peer.add(*batch)
        return {**session.finish(vectors.nbytes), "n_done": len(vectors)}

    def _tail(self, task: Task, vectors: Floats, leave: Leave) -> Found:
        peer = opened(task, self.kind, durability=self.durability)
        for batch in batches(vectors, task.n):
            peer.add(*batch)
        leave({"tail_n": len(vectors)})
        # As a kill does: nothing is closed, no handler runs.
        os._exit(0)

    def _reopen(
        self, task: Task, vectors: Floats, policy: waferdb.policies.Policy | None, name: str
    ) -> Found:
        last = len(vectors) - 1
        query = vectors[last]
        true = mixture.truth(mixture.in_blocks(vectors), query[None], K)
        compare.peer(task.peer)  # imported before the clock starts
        started = time.perf_counter()
        peer = opened(task, self.kind, durability=self.durability, policy=policy)
        answer = peer.near(query, K)
        taken = (time.perf_counter() - started) * 1e3
        numbers = peer.numbers(answer)
        recall = mixture.recall([numbers], true)
        if numbers[:1] != [last] or recall < _RECALL_MIN:
            raise AssertionError(f"the first search finds {numbers}, not {true[0].tolist()}")
        peer.close()
        return {f"{name}_ms": taken, f"{name}_recall": recall}
