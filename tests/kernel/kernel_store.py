"""The database that the kernel's faults strike, and a model of what must be in it.

1. A writer is a numbered sequence of commits. Commit `n` follows from seed, writer, `n` and the
   commits before it, so whoever knows how many commits stand knows the whole content.
2. Each commit counts itself in the context structure: `standing` reads how many there are.
3. Writers share no keys, so the content of a database is the union of its writers' models.

The model is plain dicts and knows nothing of how the engine stores anything.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waferdb import AgentMemory, Cache, Count, Events, Graph, Rows, Vectors, View, hybrid

DIM = 8
POINT_DIM = 4
KEYS = 12
POINTS = 24
PROGRESS = "progress"
_EPOCH = datetime(2024, 1, 1, tzinfo=UTC)

Document = dict[str, Any]
Operation = tuple[Any, ...]


class Embedder:
    """Every memory here brings its vector, so the embedder is only a name and a length."""

    name = "kernel-test"
    dim = DIM

    def __call__(self, texts: list[str], /) -> NDArray[np.float32]:
        return np.stack([vector_of(text, DIM) for text in texts])


def vector_of(name: str, dim: int) -> NDArray[np.float32]:
    """A vector that follows from a name, none of its components zero."""
    digest = hashlib.shake_128(name.encode()).digest(2 * dim)
    return np.frombuffer(digest, dtype="<i2").astype(np.float32) + np.float32(0.5)


def digest_of(group: Any) -> Document:
    """The view's function: what follows from the rows of a user, in any order of theirs."""
    return {"texts": sorted(row.value["text"] for row in group.rows)}


class Store(AgentMemory):
    """The six structures of an agent, rows with a unique field, a graph, captures and views."""

    session = Cache(ttl="12h")
    people = Rows(indexes=["city", ("city", "age")], unique=["email"])
    journal = Events(capture=["people"])
    points = Vectors(dim=POINT_DIM, metric="l2")
    entities = Graph()
    per_topic = View(Count(), source="facts", by="topic")
    digests = View(digest_of, source="facts", by="user", policy=hybrid(max_age="30ms"))


@dataclass(frozen=True)
class Options:
    """How a database is opened; small budgets make flushes, merges and seals come soon."""

    memory: str = "256MiB"
    memtable: str | None = None
    durability: str = "sync"
    compression: str | None = None

    def open(self, path: Path | str, seed: int, **more: Any) -> Store:
        """Opens the database of that seed."""
        given: Any = {**self.__dict__, **more}
        return Store(path, embedder=Embedder(), **given)


ROOMY = Options()
TINY = Options(memory="1MiB", memtable="16KiB")


@dataclass
class Model:
    """What the first `count` commits of one writer leave behind."""

    seed: int
    writer: str
    count: int = 0
    facts: dict[str, Document] = field(default_factory=dict)
    context: dict[tuple[str, str], Document] = field(default_factory=dict)
    events: list[tuple[str, str | None, Any]] = field(default_factory=list)
    people: dict[str, Document] = field(default_factory=dict)
    journal: list[tuple[str, str]] = field(default_factory=list)
    points: dict[str, str] = field(default_factory=dict)
    links: dict[tuple[str, str, str], Document] = field(default_factory=dict)
    forgotten: dict[str, int] = field(default_factory=dict)

    def txn(self, number: int) -> str:
        return f"{self.seed}/{self.writer}/{number}"

    def plan(self) -> list[Operation]:
        """The operations of the next commit."""
        number = self.count
        chance = random.Random(f"{self.seed}/{self.writer}/{number}")
        key = f"{self.writer}/{chance.randrange(KEYS):02}"
        kind = chance.random()
        if kind < 0.45 or number == 0:
            return [self._memory(key, number, chance), self._person(key, number, chance)]
        if kind < 0.57:
            return [("delete", key), ("depart", key)]
        if kind < 0.65:
            return [("forget", key)]
        if kind < 0.75:
            done = [("patch", key, {"age": chance.randrange(90)})] if key in self.people else []
            return [*done, ("say", key, number)]
        if kind < 0.87:
            names = [f"{self.writer}/{chance.randrange(POINTS)}" for _ in range(8)]
            return [("points", sorted(set(names)), f"{self.txn(number)}")]
        keys = chance.sample(range(KEYS), 3)
        return [self._memory(f"{self.writer}/{n:02}", number, chance) for n in keys]

    def _memory(self, key: str, number: int, chance: random.Random) -> Operation:
        text = f"{key} as of {number} " + "x" * chance.choice((0, 40, 400, 3_000))
        document = {
            "text": text,
            "user": f"{self.writer}.user{chance.randrange(3)}",
            "topic": f"topic{chance.randrange(4)}",
            "time": _EPOCH + timedelta(seconds=number),
            "n": number,
        }
        return ("remember", key, document)

    def _person(self, key: str, number: int, chance: random.Random) -> Operation:
        city = f"city{chance.randrange(3)}"
        return ("arrive", key, {"email": f"{key}@x", "city": city, "age": number % 90})

    def take(self, operations: Iterable[Operation]) -> None:
        """Does to the model what `write` does to the database."""
        for name, key, *rest in operations:
            getattr(self, f"_take_{name}")(key, *rest)
        self.count += 1

    def _take_remember(self, key: str, document: Document) -> None:
        self._leave_context(key)
        self.facts[key] = document
        self.context[document["user"], key] = document
        about = {"user": document["user"], "topic": document["topic"]}
        self.events.append(("memory.remembered", key, about))
        self.links[key, "about", document["topic"]] = {"n": document["n"]}

    def _take_delete(self, key: str) -> None:
        self._leave_context(key)
        self.facts.pop(key, None)
        self._unlink(key)
        self.events.append(("deleted", key, None))

    def _take_forget(self, key: str) -> None:
        self._leave_context(key)
        self.facts.pop(key, None)
        self._unlink(key)
        self.events = [event for event in self.events if event[1] != key]
        digest = hashlib.sha256(key.encode()).hexdigest()
        self.events.append(("memory.forgotten", None, {"key_sha256": digest}))
        self.forgotten[key] = self.count

    def _take_arrive(self, key: str, document: Document) -> None:
        self.people[key] = document
        self.journal.append(("people.put", key))

    def _take_depart(self, key: str) -> None:
        if self.people.pop(key, None) is not None:
            self.journal.append(("people.delete", key))

    def _take_patch(self, key: str, changes: Document) -> None:
        self.people[key] = {**self.people[key], **changes}
        self.journal.append(("people.put", key))

    def _take_say(self, key: str, number: int) -> None:
        self.events.append(("said", key, {"n": number}))

    def _take_points(self, names: list[str], seed: str) -> None:
        self.points.update({name: f"{seed}/{name}" for name in names})

    def _leave_context(self, key: str) -> None:
        for scope, name in [at for at in self.context if at[1] == key]:
            del self.context[scope, name]

    def _unlink(self, key: str) -> None:
        for edge in [edge for edge in self.links if edge[0] == key]:
            del self.links[edge]


def model_at(seed: int, writer: str, count: int) -> Model:
    """The model after `count` commits."""
    model = Model(seed, writer)
    while model.count < count:
        model.take(model.plan())
    return model


def write(tx: Any, model: Model, operations: Iterable[Operation]) -> None:
    """Writes the operations of `model`'s next commit into an open transaction."""
    for name, key, *rest in operations:
        _WRITES[name](tx, model, key, *rest)
    tx.context.set(PROGRESS, model.writer, model.count + 1)


def _remember(tx: Any, _: Model, key: str, document: Document) -> None:
    fields = {"n": document["n"]}
    given = {name: document[name] for name in ("text", "user", "topic", "time")}
    tx.remember(key=key, fields=fields, vector=vector_of(document["text"], DIM), **given)
    tx.entities.link(key, "about", document["topic"], {"n": document["n"]})


def _delete(tx: Any, model: Model, key: str) -> None:
    if key in model.facts:
        tx.context.delete(model.facts[key]["user"], key)
    tx.facts.delete(key)
    tx.session.delete(key)
    _unlink(tx, model, key)
    tx.events.append("deleted", key=key)


def _forget(tx: Any, model: Model, key: str) -> None:
    _unlink(tx, model, key)
    tx.forget(key)


def _unlink(tx: Any, model: Model, key: str) -> None:
    for src, relation, dst in sorted(model.links):
        if src == key:
            tx.entities.unlink(src, relation, dst)


def _points(tx: Any, _: Model, names: list[str], seed: str) -> None:
    tx.points.put_many(names, np.stack([vector_of(f"{seed}/{n}", POINT_DIM) for n in names]))


_WRITES: dict[str, Any] = {
    "remember": _remember,
    "delete": _delete,
    "forget": _forget,
    "arrive": lambda tx, _, key, document: tx.people.put(key, document),
    "depart": lambda tx, _, key: tx.people.delete(key),
    "patch": lambda tx, _, key, changes: tx.people.patch(key, changes),
    "say": lambda tx, _, key, number: tx.events.append("said", {"n": number}, key=key),
    "points": _points,
}


def commit(db: Any, model: Model, **how: Any) -> Any:
    """Makes `model`'s next commit, in the database and then in the model; gives its receipt."""
    operations = model.plan()
    named = {"actor": model.writer, "reason": str(model.count), "txn": model.txn(model.count)}
    with db.transaction(**named, **how) as tx:
        write(tx, model, operations)
    model.take(operations)
    return tx.receipt


def standing(db: Any) -> dict[str, int]:
    """How many commits of each writer stand, as the database says itself."""
    return dict(db.context.load(PROGRESS))


def topics(models: Iterable[Model]) -> Counter[str]:
    return Counter(row["topic"] for model in models for row in model.facts.values())
