"""Searching while vectors come, go and are sealed: recall, deleted vectors, latencies.

1. Every answer says at which LSN it was found, and every write which LSN it got. So the truth of
   each search is computed afterwards over exactly what was live at its LSN, and disturbs no timing.
2. A vector whose deletion was acknowledged before a search began must not be in its answer,
   whatever LSN the answer claims.
3. Two phases, each on a store of its own, that differ in the policy alone: `lazy()`, under which
   nothing is sealed, then one under which it is.
"""

from __future__ import annotations

import gc
import itertools
import sys
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import waferdb
from benchmarks import mixture, pace
from benchmarks.compare import VECTORS
from benchmarks.compare.base import vector_key
from benchmarks.mixture import Floats, Longs, Mixture
from benchmarks.sizes import Sizes
from benchmarks.targets import SUBJECT
from benchmarks.task import Session, Task

from .base import RATE, Case, Column, Found, Leave, Workload
from .vector_search import DIM, K, batches

_INSERTS = 1_000  # a second, one per commit
_DELETE_EVERY = 10  # inserts
_SEARCHES = 25  # a second
_BEFORE = 1 / 4  # of the inserts, as many are there before them
_SEALS_MIN, _MERGES_MIN = 5, 2
_PATIENCE = 1.5
# A stream that leaves more than this share undone measures its queue, and is no denominator.
_LATE = 0.01
_IDLE = 1 / 4  # of the stream's seconds, once all is drained
_LOOK_SECONDS = 0.1
# The interpreter hands over between the threads this often; its usual 5 ms would be the p99.
_SWITCH_SECONDS = 0.000_2
_NEVER = np.iinfo(np.int64).max


class VectorStream(Workload):
    """Inserts and deletes at a rate, beside searches at a rate."""

    name = "vector-stream"
    what = (
        f"One thread inserts {_INSERTS:,} clustered 384-d vectors a second and deletes a tenth as "
        "many at random, one per commit; a second searches "
        f"{_SEARCHES} times a second; both by a schedule, with latency from the intended start. A "
        "quarter as many vectors are there before. Recall is of each second, over what was live at "
        "the LSN of each search. Idle p99 is the same searches in a closed loop when all was "
        "written and drained. The same stream runs first with `policy=lazy()`. Seals and merges "
        "are counted by looks, 0.1 s apart, at their bytes: what falls together counts once. "
        f"Judged only with {_SEALS_MIN} seals and {_MERGES_MIN} merges; commits only where the "
        "lazy stream kept the schedule."
    )
    denominator = "commit p50 with `policy=lazy()`; search p99 when idle"
    kind = VECTORS
    paced = True
    phases = ("lazy", "sealing")
    plotted = ("search_p99_ratio", "search p99 in the stream / idle")
    columns = (
        Column("n_done", "writes", RATE),
        Column("unserved", "not served", RATE),
        Column("seals", "seals", RATE),
        Column("merges", "merges", RATE),
        Column("recall_min", "recall@10, worst second", "{:.4f}"),
        Column("recall", "recall@10, all", "{:.4f}"),
        Column("deleted_returned", "deleted returned", RATE),
        Column("stale", "searches behind", RATE),
        Column("idle_p99_us", "search p99 idle, µs", RATE),
        Column("search_p50_us", "search p50, µs", RATE),
        Column("search_p99_us", "search p99, µs", RATE),
        Column("search_p99_ratio", "x idle"),
        Column("lazy_p50_us", "commit p50 lazy, µs", RATE),
        Column("commit_p50_us", "commit p50, µs", RATE),
        Column("commit_ratio", "x lazy"),
        Column("lazy_p99_us", "commit p99 lazy, µs", RATE),
        Column("commit_p99_us", "commit p99, µs", RATE),
    )

    def cases(self, sizes: Sizes) -> list[Case]:
        seconds = sizes.stream_seconds
        n = max(_DELETE_EVERY, round(_INSERTS * seconds))
        return [Case(f"{_INSERTS:,}/s, a tenth deleted", n, seconds, only=(SUBJECT,))]

    def derive(self, found: Found) -> None:
        if "commit_p50_us" in found:
            found["commit_ratio"] = found["commit_p50_us"] / found["lazy_p50_us"]

    def run(self, task: Task, leave: Leave) -> Found:
        sys.setswitchinterval(_SWITCH_SECONDS)
        before = max(K, round(task.n * _BEFORE))
        mixed = Mixture(DIM)
        vectors = mixed.vectors(before + task.n)
        queries = mixed.queries(max(1, round(_SEARCHES * task.seconds)))
        # Each phase has a store of its own.
        task = replace(task, directory=str(Path(task.directory, task.phase)))
        Path(task.directory).mkdir()
        lazy = task.phase == "lazy"
        policy = None if lazy else waferdb.hybrid()
        session = Session(task, self.kind, durability=self.durability, policy=policy)
        stream = Stream(session.peer, vectors)
        for keys, some in batches(vectors[:before]):
            stream.put(keys, some)
        session.peer.drain()
        gc.collect()
        gc.freeze()
        found = _streamed(stream, schedule(before, task.n), queries, task.seconds)
        if lazy:
            session.peer.close()
            kept = {"lazy_kept_pace": found["unserved"] <= _LATE * task.n}
            return kept | {f"lazy_{n}": found[f"commit_{n}"] for n in ("p50_us", "p99_us")}
        found.update(stream.judged(queries))
        session.peer.drain()
        idle = pace.closed(stream.search, list(queries), task.seconds * _IDLE)
        session.peer.close()
        found["idle_p99_us"] = idle.percentiles()["p99_us"]
        found["search_p99_ratio"] = found["search_p99_us"] / found["idle_p99_us"]
        found["enough_sealed"] = found["seals"] >= _SEALS_MIN and found["merges"] >= _MERGES_MIN
        return found


Write = tuple[bool, int]  # whether it is a put, and of which vector


def schedule(before: int, inserts: int, seed: int = 11) -> list[Write]:
    """Puts of the vectors from number `before` on; after every tenth, one of those that are live
    then is deleted."""
    random = np.random.default_rng(seed)
    live = list(range(before))
    found: list[Write] = []
    for number in range(before, before + inserts):
        found.append((True, number))
        live.append(number)
        if (number - before + 1) % _DELETE_EVERY == 0:
            at = int(random.integers(len(live)))
            live[at], live[-1] = live[-1], live[at]
            found.append((False, live.pop()))
    return found


@dataclass
class Search:
    """An answer, and what was acknowledged before it was asked for."""

    numbers: list[int]
    lsn: int
    acknowledged: int  # the newest LSN
    deleted: int  # how many deletions


@dataclass
class Stream:
    """Writes and searches of one store, with the LSNs of all."""

    peer: Any
    vectors: Floats
    searches: list[Search] = field(default_factory=list)
    deleted: list[int] = field(default_factory=list)  # in the order of their acknowledgement
    acknowledged: int = 0

    def __post_init__(self) -> None:
        self.structure = self.peer.db["embeddings"]
        self.born = np.full(len(self.vectors), _NEVER, dtype=np.int64)
        self.died = np.full(len(self.vectors), _NEVER, dtype=np.int64)

    def put(self, keys: list[str], vectors: Floats) -> None:
        """One commit."""
        lsn = self.structure.put_many(keys, vectors).lsn
        self.born[[int(key) for key in keys]] = lsn
        self.acknowledged = lsn

    def write(self, what: Write) -> None:
        """One put or deletion, one commit."""
        put, number = what
        if put:
            self.put([vector_key(number)], self.vectors[number : number + 1])
            return
        lsn = self.structure.delete(vector_key(number)).lsn
        self.died[number] = lsn
        self.acknowledged = lsn
        self.deleted.append(number)

    def search(self, query: Floats) -> None:
        """The nearest ten."""
        # Read before the call: what is acknowledged by now the answer has to know of.
        acknowledged, deleted = self.acknowledged, len(self.deleted)
        hits = self.structure.search(query, K)
        numbers = [int(key) for key in hits.keys]
        self.searches.append(Search(numbers, hits.freshness.lsn, acknowledged, deleted))

    def judged(self, queries: Floats) -> Found:
        """What the searches found so far, by second, against the truth of their LSNs."""
        done = self.searches
        seconds = [
            self._recall(done[at : at + _SEARCHES], queries[at : at + _SEARCHES])
            for at in range(0, len(done), _SEARCHES)
        ]
        return {
            "recall_min": min(seconds),
            "recall": float(np.mean(seconds)),
            "deleted_returned": sum(map(self.deleted_in, done)),
            "stale": sum(search.lsn < search.acknowledged for search in done),
        }

    def deleted_in(self, search: Search) -> int:
        """How many of an answer's vectors were deleted at its LSN or before it was asked for."""
        gone = set(self.deleted[: search.deleted])
        return sum(n in gone or int(self.died[n]) <= search.lsn for n in search.numbers)

    def _recall(self, searches: list[Search], queries: Floats) -> float:
        products = queries[: len(searches)] @ self.vectors.T
        for each, search in zip(products, searches, strict=True):
            each[(self.born > search.lsn) | (self.died <= search.lsn)] = -np.inf
        true: Longs = np.argpartition(products, -K, axis=1)[:, -K:]
        return mixture.recall([search.numbers for search in searches], true)


def _streamed(
    stream: Stream, writes: list[Write], queries: Floats, seconds: float
) -> dict[str, Any]:
    """Both schedules at once, and what was sealed and merged meanwhile."""
    looks, stop = Looks(stream.peer), threading.Event()
    failed: list[BaseException] = []
    searched: list[pace.Done] = []

    def search() -> None:
        try:
            searched.append(
                pace.opened(stream.search, list(queries), _SEARCHES, seconds * _PATIENCE)
            )
        except BaseException as error:  # noqa: BLE001 - raised again below
            failed.append(error)

    threads = [threading.Thread(target=search), threading.Thread(target=looks.until, args=(stop,))]
    for thread in threads:
        thread.start()
    try:
        done = pace.opened(stream.write, writes, len(writes) / seconds, seconds * _PATIENCE)
    finally:
        threads[0].join()
        stop.set()
        threads[1].join()
    if failed:
        raise failed[0]
    found: Found = {f"commit_{name}": value for name, value in done.percentiles().items()}
    found.update({f"search_{name}": v for name, v in searched[0].percentiles().items()})
    unserved = done.unserved + searched[0].unserved
    counts = {"seals": looks.bursts("seal"), "merges": looks.bursts("merge")}
    return {**found, **counts, "n_done": done.operations, "unserved": unserved}


class Looks:
    """Counters of bytes that were sealed and merged, looked at again and again."""

    def __init__(self, peer: Any) -> None:
        self._db = peer.db
        self._seen: list[dict[tuple[str, str], int]] = []

    def until(self, stop: threading.Event) -> None:
        """Looks until told to stop."""
        while True:
            self._seen.append(dict(self._db.stats().by))
            if stop.wait(_LOOK_SECONDS):
                return

    def bursts(self, cause: str) -> int:
        """How often the vectors' bytes of a cause began to grow after a look at which they did
        not: at least as many files were written."""
        counts = [by.get(("embeddings", cause), 0) for by in self._seen]
        grew = [later > earlier for earlier, later in itertools.pairwise(counts)]
        return sum(now and not was for was, now in itertools.pairwise([False, *grew]))
