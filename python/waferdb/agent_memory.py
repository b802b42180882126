"""The memory of an agent: the six structures of one remembered fact, behind five calls.

1. A memory is in all six structures or in none: a row, its vector, a session entry, an event, an
   audit leaf and a context entry are one commit.
2. Its document is stored once: session and context hold the row's value, and the event carries
   neither text nor vector.
3. The embedder runs before the transaction opens, never inside one that this module opened.
4. Remembering a key again replaces it everywhere; the scope of a former user forgets it.
5. A forgotten memory is answered by no call at any LSN. The users it ever belonged to are found in
   its own events, so that its context entries go too; the event that records the forgetting names
   a digest of the key.

It keeps no state beside the embedder: everything is in the structures, which may be read and
written directly. What one memory is made of, and its checks, are in `memories`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from os import PathLike
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike

from . import embedders, units
from ._memories import ItemError, Memory, Vectors32, chunks, from_item
from .database import Database, Priority
from .embedders import Embedder, WordLlama
from .errors import CorruptionError, LinkError, TransactionError, UniqueError
from .results import Receipt
from .scope import Live
from .structures import Audit, Cache, Context, Events, Rows, Vectors
from .transaction import TransactionScope

__all__ = ["AgentMemory", "Recollection", "Remembered"]

# Remembering replaces, so a conflict is only a matter of order; each round one rival gets through.
_ATTEMPTS = 100
# What the engine says of a value, as opposed to what it says of the database or the disk.
_OF_AN_ITEM = (ValueError, TypeError, LinkError, UniqueError)

REMEMBERED = "memory.remembered"
FORGOTTEN = "memory.forgotten"


@dataclass(frozen=True, slots=True)
class Remembered:
    """Where a memory went: its key, and the receipt of the commit that holds it."""

    key: str
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Recollection:
    """One memory that a query found.

    `score` is 1 - cosine distance: 1.0 means the same direction. `fields` are the extra fields
    given to `remember`, `version` is the LSN that wrote the memory (None inside the transaction
    that does), `time` when it was remembered.
    """

    key: str
    text: str
    score: float
    fields: dict[str, Any]
    version: int | None
    time: datetime
    user: str | None = None
    topic: str | None = None


class AgentMemory(Database):
    """A database with the six structures of an agent's memory; subclass it to add others.

    Every method works on a transaction of it too (`with memory.transaction() as tx:
    tx.remember(…)`), in the same commit as whatever else the transaction writes. There the embedder
    runs while the transaction is open; pass `vector=` if it is slow.

    Args:
        path: the database directory, or ":memory:".
        embedder: makes vectors of texts; by default `WordLlama()` (`pip install
            'waferdb[embed]'`), loaded when first needed. A database remembers its embedder's name
            and dim and raises `SchemaError` for another.
        mode, durability, memory, memtable, waf_budget, compression, history, create: as for
            `Database`.
    """

    facts = Rows(indexes=["user", "topic", ("user", "time")])
    embeddings = Vectors(dim=WordLlama.dim, metric="cosine", rows="facts")
    session = Cache(ttl="30m")
    events = Events()
    audit = Audit()
    context = Context()

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        embedder: Embedder | None = None,
        mode: Literal["rw", "r"] = "rw",
        durability: Literal["sync", "async"] = "sync",
        memory: units.Size = "256MiB",
        memtable: units.Size | None = None,
        waf_budget: float | None = None,
        compression: Literal["zstd"] | None = None,
        history: units.Duration | None = None,
        create: bool = True,
    ) -> None:
        chosen = WordLlama() if embedder is None else embedder
        identity = embedders.identity(chosen)
        self._embed_with: Embedder = chosen
        super().__init__(
            path,
            mode=mode,
            durability=durability,
            memory=memory,
            memtable=memtable,
            waf_budget=waf_budget,
            compression=compression,
            history=history,
            create=create,
            _embedder=identity,
            _overrides={"embeddings": _of_length(type(self).embeddings, chosen.dim)},
        )

    @property
    def embedder(self) -> Embedder:
        """What makes vectors of texts here."""
        return self._embed_with

    def remember(
        self,
        text: str,
        *,
        user: str | None = None,
        topic: str | None = None,
        key: str | None = None,
        vector: ArrayLike | None = None,
        fields: Mapping[str, Any] | None = None,
        priority: Priority = "routine",
        time: datetime | None = None,
    ) -> Remembered:
        """Remembers `text` in all six structures, in one commit.

        Args:
            text: what to remember; not empty.
            user: whose memory it is, also the scope of its context entry; None: nobody's ("").
            topic: a label to find it by.
            key: its key; by default a new one that sorts by time. An existing key is replaced.
            vector: its vector, float32 of shape `(dim,)`; by default the embedder's.
            fields: further fields of the row; not text, user, topic or time.
            priority: "critical", "routine" or "background". Inside a transaction the
                transaction's own priority counts.
            time: when it happened (aware); by default now.

        Returns the key and the receipt (inside a transaction: complete once that commits).

        Raises `ValueError` for an empty text or a field that collides, `VectorError` for a vector
        of another length or with NaN, `DocumentError` for a field that cannot be stored. Nothing
        is written then.

        >>> from waferdb import AgentMemory
        >>> with AgentMemory(":memory:") as memory:
        ...     done = memory.remember("Ann prefers email", user="ann", vector=[1.0] * 256)
        ...     memory.facts[done.key]["text"]
        'Ann prefers email'
        """
        item = {
            "text": text,
            "user": user,
            "topic": topic,
            "key": key,
            "vector": vector,
            "fields": fields,
            "priority": priority,
            "time": time,
        }
        memories = [from_item(item, self._embed_with.dim, priority)]
        self._within_transaction()  # before the embedder runs for nothing
        return self._remember(memories, self._vectors_of(memories))[0]

    def remember_many(
        self,
        items: Iterable[str | Mapping[str, Any]],
        *,
        priority: Priority = "routine",
    ) -> list[Remembered]:
        """Remembers many: one call of the embedder and one commit per 256 items.

        Args:
            items: texts, or mappings with the names of `remember` (`text` is required).
            priority: of the items that name none.

        Returns one `Remembered` per item, in order; those of one commit share a receipt. An error
        says which item it is about, counted from 0; the items before it were written.
        """
        return self._remember_many(
            items,
            priority,
            lambda place: f"in item {place} of remember_many; those before it were written",
        )

    def recall(
        self,
        query: str | ArrayLike,
        k: int = 5,
        *,
        user: str | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> Sequence[Recollection]:
        """The `k` memories nearest in meaning to `query`, best first.

        Args:
            query: a text, or a vector of shape `(dim,)`.
            k: how many at most.
            user: only this user's memories; None: everybody's.
            where: a filter on the fields of the row, as in `facts.find`.

        Vectors and rows are read at one LSN. For the past: `memory.snapshot(as_of=…).recall(…)`.
        """
        if isinstance(query, str):
            if not query.strip():
                raise ValueError("recall needs a query that is not empty")
            vector = embedders.embed(self._embed_with, [query])[0]
        else:
            vector = embedders.as_vector(query, self._embed_with.dim)
        filters = dict(where or {})
        if user is not None and filters.setdefault("user", user) != user:
            raise ValueError(f"user={user!r} and where['user']={filters['user']!r} differ")
        if self._pinned:
            return self._recall(vector, k, filters)
        with self.snapshot() as view:
            return view._recall(vector, k, filters)

    def load(self, user: str | None) -> dict[str, Any]:
        """What the context store knows of one user: key → document. None: of nobody's."""
        return self.context.load(_scope(user))

    def forget(self, key: str) -> Receipt:
        """Forgets one memory: from now on no call answers with it, at any LSN or time.

        Its row, vector, session entry, events and context entries are gone from current reads and
        from `as_of` reads alike; the audit leaf of the commit that wrote it can still be proven.
        A key that is unknown, or was deleted before, is no error. Returns the receipt.
        """
        given: object = key
        if not isinstance(given, str) or not given:
            raise ValueError(f"a memory's key is a text that is not empty, not {given!r}")
        if self._within_transaction():
            return self._forget_in_all(key).receipt
        return self.retry(
            lambda tx: tx._forget_in_all(key), attempts=_ATTEMPTS, reason="memory.forget"
        ).receipt

    def _remember_many(
        self,
        items: Iterable[str | Mapping[str, Any]],
        priority: Priority,
        note: Callable[[int], str],
    ) -> list[Remembered]:
        """`remember_many`; `note` says of an item's place what is added to its error."""
        if isinstance(items, str | bytes | Mapping):
            raise TypeError(
                f"remember_many takes a list of items, not one {type(items).__name__}; "
                "for one memory call remember"
            )
        done: list[Remembered] = []
        try:
            for chunk in chunks(items, self._embed_with.dim, priority):
                for some in self._remember_chunk(chunk):
                    done += some
        except ItemError as bad:
            bad.error.add_note(note(len(done)))
            raise bad.error from None
        return done

    def _remember_chunk(self, chunk: Sequence[Memory]) -> Iterator[list[Remembered]]:
        """One commit; if an item is refused, those before it one by one, then `ItemError`."""
        within = self._within_transaction()
        vectors = self._vectors_of(chunk)
        if not within:
            try:
                yield self._remember(chunk, vectors)
                return
            except _OF_AN_ITEM:
                # The commit was refused as a whole: which item it was shows in commits of one.
                pass
        for place, memory in enumerate(chunk):
            try:
                one = self._remember([memory], vectors[place : place + 1])
            except _OF_AN_ITEM as error:
                raise ItemError(error) from None
            yield one

    # What follows runs inside a transaction or a snapshot.

    def _remember(self, memories: Sequence[Memory], vectors: Vectors32) -> list[Remembered]:
        if self._within_transaction():
            receipt = self._write(memories, vectors).receipt
        else:
            users = {memory.user for memory in memories}
            receipt = self.retry(
                lambda tx: tx._write(memories, vectors),
                attempts=_ATTEMPTS,
                priority=memories[0].priority,
                actor=users.pop() if len(users) == 1 else None,
                reason="memory.remember",
            ).receipt
        return [Remembered(memory.key, receipt) for memory in memories]

    def _within_transaction(self) -> bool:
        if not isinstance(self._scope, Live | TransactionScope):
            # A batch may commit between two of the six writes; a snapshot writes nothing.
            raise TransactionError(
                f"a memory is written or forgotten in one commit, and {self._scope.what} has none: "
                "call it on the database (remember_many for many) or in db.transaction()"
            )
        return isinstance(self._scope, TransactionScope)

    def _vectors_of(self, memories: Sequence[Memory]) -> Vectors32:
        out = np.empty((len(memories), self._embed_with.dim), dtype=np.float32)
        missing = [row for row, memory in enumerate(memories) if memory.vector is None]
        out[missing] = embedders.embed(self._embed_with, [memories[row].text for row in missing])
        for row, memory in enumerate(memories):
            if memory.vector is not None:
                out[row] = memory.vector
        return out

    def _write(self, memories: Sequence[Memory], vectors: Vectors32) -> Self:
        self._leave_former_scopes([memory for memory in memories if memory.key_given])
        self.facts.put_many([(memory.key, memory.document) for memory in memories])
        self.embeddings.put_many([memory.key for memory in memories], vectors)
        for memory in memories:
            self.session.put(memory.key, memory.document)
            self.context.set(_scope(memory.user), memory.key, memory.document)
            about = {"user": memory.user, "topic": memory.topic}
            self.events.append(REMEMBERED, about, key=memory.key)
        return self

    def _leave_former_scopes(self, memories: Sequence[Memory]) -> None:
        rows = self.facts.get_many([memory.key for memory in memories]) if memories else []
        for memory, row in zip(memories, rows, strict=True):
            if row is not None and row.get("user") != memory.user:
                self.context.delete(_scope(row.get("user")), memory.key)

    def _forget_in_all(self, key: str) -> Self:
        row = self.facts.get(key)
        scopes = {_scope(row.get("user"))} if row is not None else set()
        for event in self.events.scan(kind=REMEMBERED, key=key):
            scopes.add(_scope((event.payload or {}).get("user")))
        for scope in sorted(scopes):
            self.context._forget(scope, key)
        self.embeddings._forget(key)
        self.facts._forget(key)
        self.session._forget(key)
        self.events._forget(key)
        digest = hashlib.sha256(key.encode()).hexdigest()
        self.events.append(FORGOTTEN, {"key_sha256": digest})
        return self

    def _recall(self, vector: Vectors32, k: int, filters: dict[str, Any]) -> list[Recollection]:
        for _ in range(_ATTEMPTS):
            found = self._recall_once(vector, k, filters)
            if None not in found:
                break
        return [memory for memory in found if memory is not None]

    def _recall_once(
        self, vector: Vectors32, k: int, filters: dict[str, Any]
    ) -> list[Recollection | None]:
        """None stands for a memory that was forgotten, at every LSN, since it was found."""
        found: list[Recollection | None] = []
        for hit in self.embeddings.search(vector, k, where=filters or None):
            row = self.facts.read(hit.key)
            if row.value is None:
                if hit.key not in self.embeddings:
                    found.append(None)
                    continue
                raise CorruptionError(
                    f"memory {hit.key!r} has a vector but no row: nothing else is affected; "
                    "run verify(), then rebuild('embeddings')"
                )
            rest = dict(row.value)
            found.append(
                Recollection(
                    key=hit.key,
                    text=rest.pop("text"),
                    score=1.0 - float(hit.distance),
                    user=rest.pop("user", None),
                    topic=rest.pop("topic", None),
                    time=rest.pop("time"),
                    fields=rest,
                    version=row.version,
                )
            )
        return found


def _of_length(declared: Vectors, dim: int) -> Vectors:
    """The declaration of the class, for vectors of the embedder's length."""
    codes: Any = declared.codes
    return Vectors(
        dim, "cosine", rows="facts", model=declared.model, codes=codes, policy=declared.policy
    )


def _scope(user: object) -> str:
    """The context scope of a user; nobody's memories have the scope ""."""
    return user if isinstance(user, str) else ""
