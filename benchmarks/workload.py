"""The six writes of one memory, what they are made of, and waferdb doing them.

A memory is a document of about 506 bytes of msgpack with two indexed fields, a float32 embedding of
384 components, an event, an audit entry, a cache entry and a context entry. Its logical bytes are
those of the document and of the vector, once.

What a run hands in is made before its clock starts; encoding it is part of the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.mixture import Mixture
from waferdb import Audit, Cache, Context, Database, Events, Rows, Vectors, documents
from waferdb.policies import Policy
from waferdb.structures import Structure

DIM = 384
USERS = 64
TTL_US = 30 * 60 * 1_000_000
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


def declared(dim: int, policy: Policy) -> dict[str, Structure]:
    """The six structures, for vectors of `dim` components with graphs as `policy` says."""
    vectors = Vectors(dim=dim, metric="cosine", rows="facts", policy=policy)
    return {**Memory._structures, "embeddings": vectors}


@dataclass(frozen=True)
class Item:
    """What is remembered."""

    number: int
    key: str
    user: str
    document: dict[str, Any]
    about: dict[str, Any]
    vector: NDArray[np.float32]

    @property
    def logical_bytes(self) -> int:
        """The document, encoded, and the vector, once."""
        return len(documents.encode(self.document)) + self.vector.nbytes


def items(count: int, start: int = 0, distinct: bool = False) -> list[Item]:
    """Memories number `start` and following, the same in each run.

    With `distinct` no vector comes twice, as a graph over them wants to be measured.
    """
    if distinct:
        own = Mixture(DIM).vectors(start + count, start)
        return [_item(start + number, vector) for number, vector in enumerate(own)]
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
    return Item(number, f"memory:{number:010}", user, document, about, vector)


def remember(db: Any, item: Item, priority: str = "routine") -> None:
    """One transaction of six writes; its audit entry is the commit's own."""
    with db.transaction(priority=priority, actor="agent", reason="remember") as tx:
        tx.facts.put(item.key, item.document)
        tx.embeddings.put(item.key, item.vector)
        tx.events.append("memory.remembered", item.about, key=item.key)
        tx.session.put(item.key, item.document)
        tx.context.set(item.user, item.key, item.document)


def remember_many(db: Any, some: Sequence[Item]) -> None:
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
