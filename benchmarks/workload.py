"""The six writes of one memory, the documents they are made of, and waferdb doing them.

A memory is a document of about 506 bytes of msgpack with two indexed fields, a float32 embedding of
384 components, an event, an audit entry, a cache entry and a context entry. Its logical bytes are
those of the document and of the vector, once.

What a run hands in is made before its clock starts; encoding it is part of the run.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from waferdb import Audit, Cache, Context, Database, Events, Rows, Vectors

DIM = 384
USERS = 64
# Distinct vectors are repeated after this many memories: never within one commit.
_VECTORS = 2_000
_TEXT = (
    "prefers email over slack meeting budget quarter review launch partner pricing travel window "
    "seat contract renewal legal draft roadmap sprint retro allergy peanuts birthday october"
)
_WORDS = _TEXT.split()


class Memory(Database):
    """The six structures."""

    facts = Rows(indexes=["user", "time"])
    embeddings = Vectors(dim=DIM, metric="cosine", rows="facts")
    session = Cache(ttl="30m")
    events = Events()
    audit = Audit()
    context = Context()


@dataclass(frozen=True)
class Item:
    """What is remembered."""

    key: str
    user: str
    document: dict[str, Any]
    about: dict[str, Any]
    vector: NDArray[np.float32]


def items(count: int, start: int = 0) -> list[Item]:
    """Memories number `start` and following, the same in each run."""
    random = np.random.default_rng(384)
    vectors = random.standard_normal((min(_VECTORS, max(count, 1)), DIM), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return [_item(number, vectors[number % len(vectors)]) for number in range(start, start + count)]


def _item(number: int, vector: NDArray[np.float32]) -> Item:
    user = f"user:{number % USERS:03}"
    words = [_WORDS[(number * 7 + place * (number % 11 + 1)) % len(_WORDS)] for place in range(59)]
    document = {
        "text": f"{number:08} {' '.join(words)}"[:408],
        "user": user,
        "topic": _WORDS[number % len(_WORDS)],
        "time": 1_760_000_000_000_000 + number,
        "source": "conversation",
        "confidence": 0.5 + (number % 50) / 100,
    }
    about = {"user": user, "topic": document["topic"]}
    return Item(f"memory:{number:010}", user, document, about, vector)


def remember(db: Memory, item: Item) -> None:
    """One transaction of six writes; its audit entry is the commit's own."""
    with db.transaction(actor="agent", reason="remember") as tx:
        tx.facts.put(item.key, item.document)
        tx.embeddings.put(item.key, item.vector)
        tx.events.append("memory.remembered", item.about, key=item.key)
        tx.session.put(item.key, item.document)
        tx.context.set(item.user, item.key, item.document)


def remember_many(db: Memory, some: Sequence[Item]) -> None:
    """The six writes of each of `some`, in one commit."""
    with db.transaction(actor="agent", reason="remember") as tx:
        tx.facts.put_many([(item.key, item.document) for item in some])
        tx.embeddings.put_many(
            [item.key for item in some], np.stack([item.vector for item in some])
        )
        append, put, set_in = tx.events.append, tx.session.put, tx.context.set
        for item in some:
            append("memory.remembered", item.about, key=item.key)
            put(item.key, item.document)
            set_in(item.user, item.key, item.document)


@dataclass(frozen=True)
class Outcome:
    """One run: memories a second, and what the engine says of itself."""

    memories: int
    commits: int
    seconds: float
    commits_per_sync: float
    waf: float

    @property
    def commits_per_second(self) -> float:
        """Acknowledged commits a second."""
        return self.commits / self.seconds

    @property
    def memories_per_second(self) -> float:
        """Memories a second."""
        return self.memories / self.seconds


class Run:
    """A fresh database and a workload on it, as a context."""

    def __init__(self, path: Path) -> None:
        self.db = Memory(path)
        self._before = self.db.stats()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.db.close()

    def one_by_one(self, all_items: Sequence[Item]) -> Outcome:
        """One writer, one commit per memory."""
        db = self.db
        started = time.perf_counter()
        for item in all_items:
            remember(db, item)
        return self._outcome(len(all_items), time.perf_counter() - started)

    def by_threads(
        self, all_items: Sequence[Item], threads: int, one_core: bool = False
    ) -> Outcome:
        """`threads` writers, one commit per memory; the clock runs until the last is done.

        With `one_core` the writers (no other thread) keep to the first core they may use.
        """
        db, failed = self.db, list[BaseException]()
        together = threading.Barrier(threads + 1)

        def write(own: Sequence[Item]) -> None:
            if one_core:
                os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
            together.wait()
            try:
                for item in own:
                    remember(db, item)
            except BaseException as error:  # noqa: BLE001 - raised again by the thread that asked
                failed.append(error)

        writers = [
            threading.Thread(target=write, args=(all_items[number::threads],))
            for number in range(threads)
        ]
        for writer in writers:
            writer.start()
        together.wait()
        started = time.perf_counter()
        for writer in writers:
            writer.join()
        seconds = time.perf_counter() - started
        if failed:
            raise failed[0]
        return self._outcome(len(all_items), seconds)

    def in_commits_of(self, size: int, all_items: Sequence[Item]) -> Outcome:
        """One writer, `size` memories per commit."""
        db = self.db
        started = time.perf_counter()
        for start in range(0, len(all_items), size):
            remember_many(db, all_items[start : start + size])
        return self._outcome(len(all_items), time.perf_counter() - started)

    def _outcome(self, memories: int, seconds: float) -> Outcome:
        before, after = self._before, self.db.stats()
        if self.db.facts.count() != memories:
            raise AssertionError(f"{self.db.facts.count()} of {memories} memories are there")
        commits, syncs = after.commits - before.commits, after.syncs - before.syncs
        logical = after.logical_bytes - before.logical_bytes
        return Outcome(
            memories=memories,
            commits=commits,
            seconds=seconds,
            commits_per_sync=commits / max(syncs, 1),
            waf=(after.physical_bytes - before.physical_bytes) / logical,
        )
