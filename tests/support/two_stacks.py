"""One memory in six places, twice: the six-store stack of the benchmarks, and waferdb.

Both remember and delete the same `Memory`, tell what each place knows of it, and can be struck: a
step of theirs then raises `StruckError` or ends the process, as in

    python two_stacks.py waferdb DIRECTORY remember vectors

which remembers `TEA` in that directory and dies before its vector is written.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

import waferdb
from waferdb import AgentMemory, Cache, Context, Events, Vectors, View, lazy

sys.path.append(str(Path(__file__).resolve().parents[2]))

DIM = 384
STEPS = ("vectors", "events", "audit", "cache", "context")


class StruckError(Exception):
    """What the test makes happen between two steps."""


def axis(number: int) -> NDArray[np.float32]:
    vector = np.zeros(DIM, dtype=np.float32)
    vector[number] = 1
    return vector


@dataclass(frozen=True)
class Memory:
    number: int
    text: str
    meaning: int
    user: str = "ann"

    @property
    def key(self) -> str:
        return f"memory:{self.number:010}"

    @property
    def vector(self) -> NDArray[np.float32]:
        return axis(self.meaning)


TEA = Memory(1, "Ann drinks tea", meaning=3)
COFFEE = Memory(1, "Ann drinks coffee", meaning=7)


@dataclass(frozen=True)
class Known:
    """What each place answers: texts, and whether there is an event and a provable entry."""

    row: str | None
    event: bool
    audit: bool
    cache: str | None
    context: str | None
    summary: str | None
    found: bool
    """Whether a search for what it means finds it."""

    @property
    def anywhere(self) -> bool:
        """Whether any place that answers with the memory itself still does."""
        return any((self.row, self.cache, self.context, self.summary, self.found))


class SixStores:
    """The stack that the benchmarks measure, with its vectors in usearch; the agent that uses it
    keeps a summary of each user in the context store."""

    holds = False

    def __init__(self, directory: Path) -> None:
        from benchmarks import workload
        from benchmarks.compare import MEMORIES, Options, six_stores, sqlite

        self._sql, self._item = sqlite, workload.Item
        with mock.patch.object(six_stores, "_CHROMA", new=False):
            self._peer: Any = six_stores.SixStores(directory, Options(MEMORIES))

    def remember(self, memory: Memory) -> None:
        self._peer.remember(self._of(memory))

    def summarise(self, memory: Memory) -> None:
        summary = self._sql.PUT_CONTEXT, [(memory.user, "summary", memory.text.encode())]
        self._peer._commit("context", *summary)

    def delete(self, memory: Memory) -> None:
        self._peer.delete_many([self._of(memory)])

    def known(self, memory: Memory) -> Known:
        def ask(name: str, statement: str, *values: Any) -> Any:
            return self._peer._files[name].execute(statement, values).get

        key, user = memory.key, memory.user
        about_context = "SELECT document FROM context WHERE scope = ? AND name = ?"
        cached = self._peer._cache.get(key)
        summary = ask("context", about_context, user, "summary")
        return Known(
            row=_text(ask("facts", "SELECT document FROM facts WHERE key = ?", key)),
            event=bool(ask("events", "SELECT count(*) FROM events WHERE key = ?", key)),
            audit=bool(ask("audit", "SELECT count(*) FROM audit WHERE key = ?", key)),
            cache=None if cached is None else cached[1]["text"],
            context=_text(ask("context", about_context, user, key)),
            summary=None if summary is None else summary.decode(),
            found=self._nearest(memory) == memory.number,
        )

    def _nearest(self, memory: Memory) -> int | None:
        found = self._peer._vectors._graph._index.search(memory.vector, 1)
        near = [int(match.key) for match in found if match.distance < 0.1]
        return near[0] if near else None

    @contextmanager
    def struck(self, step: str, act: Callable[[], None]) -> Iterator[None]:
        """Until the end of the block, `act` happens before each step of this name."""
        peer, commit = self._peer, self._peer._commit

        def struck_commit(name: str, *rest: Any) -> None:
            if name == step:
                act()
            commit(name, *rest)

        def struck_vectors(*_: Any) -> None:
            act()

        if step == "vectors":
            methods = {"put": struck_vectors, "delete": struck_vectors}
            with mock.patch.multiple(peer._vectors, **methods):
                yield
        else:
            with mock.patch.object(peer, "_commit", struck_commit):
                yield

    def save(self) -> None:
        self._peer.drain()

    def close(self) -> None:
        self._peer.close()

    def _of(self, memory: Memory) -> Any:
        document = {"text": memory.text, "user": memory.user, "time": memory.number}
        about = {"user": memory.user}
        return self._item(memory.number, memory.key, memory.user, document, about, memory.vector)


def _text(body: bytes | None) -> str | None:
    import msgpack

    return None if body is None else str(msgpack.unpackb(body)["text"])


class Given:
    """An embedder for memories that bring their vectors."""

    name = "given"
    dim = DIM

    def __call__(self, texts: list[str], /) -> NDArray[np.float32]:
        raise NotImplementedError


def summary(group: Any) -> dict[str, Any]:
    return {"text": " ".join(row.value["text"] for row in group.rows)}


class Agent(AgentMemory):
    """An agent's memory, and a summary of each user."""

    profile = View(summary, source="facts", by="user", policy=lazy())


# Where a memory's transaction is struck: a method that it calls, or the end of it.
_METHODS: dict[str, tuple[type, str]] = {
    "vectors": (Vectors, "put_many"),
    "events": (Events, "append"),
    "cache": (Cache, "put"),
    "context": (Context, "set"),
}


class Wafer:
    """The same in waferdb; `audit` stands for the moment before the commit, which is the entry."""

    holds = True

    def __init__(self, directory: Path) -> None:
        self._memory: Any = Agent(directory, embedder=Given())
        self._before_commit: Callable[[], None] = lambda: None

    def remember(self, memory: Memory) -> None:
        with self._memory.transaction() as tx:
            tx.remember(memory.text, user=memory.user, key=memory.key, vector=memory.vector)
            self._before_commit()

    def summarise(self, memory: Memory) -> None:
        assert memory.text in self._memory.profile.get(memory.user, consistency="strong")["text"]

    def delete(self, memory: Memory) -> None:
        with self._memory.transaction() as tx:
            tx.forget(memory.key)
            self._before_commit()

    def known(self, memory: Memory) -> Known:
        db, key, user = self._memory, memory.key, memory.user
        hits = db.embeddings.search(memory.vector, k=1)
        entries = [
            entry
            for entry in db.audit.entries()
            if any((change.structure, change.key) == ("facts", key) for change in entry.changes)
        ]
        root = db.audit.head().root if entries else b""
        return Known(
            row=(db.facts.get(key) or {}).get("text"),
            event=any(True for _ in db.events.scan(key=key)),
            audit=bool(entries)
            and all(waferdb.audit.verify(db.audit.prove(entry.lsn), root) for entry in entries),
            cache=(db.session.get(key) or {}).get("text"),
            context=(db.context.get(user, key) or {}).get("text"),
            summary=(db.profile.get(user) or {}).get("text"),
            found=any(hit.key == key and hit.distance < 0.1 for hit in hits),
        )

    @contextmanager
    def struck(self, step: str, act: Callable[[], None]) -> Iterator[None]:
        """Until the end of the block, `act` happens before each step of this name."""

        def struck_method(*_: Any, **__: Any) -> None:
            act()

        if step == "audit":
            self._before_commit = act
            yield
            self._before_commit = lambda: None
        else:
            owner, name = _METHODS[step]
            with mock.patch.object(owner, name, struck_method):
                yield

    def save(self) -> None:
        self._memory.drain()

    def close(self) -> None:
        self._memory.close()


STACKS: dict[str, Any] = {"six stores": SixStores, "waferdb": Wafer}


def main() -> None:
    """The child's whole life: it ends with status 9 before the step, or with 1."""
    name, directory, call, step = sys.argv[1:]
    stack = STACKS[name](Path(directory))
    with stack.struck(step, lambda: os._exit(9)):
        getattr(stack, call)(TEA)
    sys.exit(1)


if __name__ == "__main__":
    main()
