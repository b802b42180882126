"""The rules that write: alone, in transactions beside each other, in batches."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from api_model import ABSENT, Model, Writes
from api_zoo import (
    BLOBS,
    KEYS,
    NODES,
    RELATIONS,
    TAGS,
    TTL_SECONDS,
    USERS,
    VALUES,
    MismatchError,
    Zoo,
    same,
)

from waferdb import (
    ConflictError,
    LinkError,
    PendingError,
    PreconditionError,
    UniqueError,
    _simulated,
)


class Tx:
    """An open transaction, and what it wrote."""

    def __init__(self, db: Any, options: dict[str, Any]) -> None:
        self.lsn = db.lsn
        self.options = options
        self.manager = db.transaction(**options)
        self.handle = self.manager.__enter__()
        self.writes = Writes(self.lsn)


class Writing:
    """A database and its model, and the rules that write to both."""

    def __init__(self, seed: int, directory: Path | None) -> None:
        self.seed = seed
        self.directory = directory
        self.path = ":memory:" if directory is None else str(directory / "agent.wafer")
        self.counts: Counter[str] = Counter()
        self.db: Any = None
        self.model = Model()
        self.open_: list[Tx] = []
        self.heads: list[Any] = []
        self.backups = 0
        self.random = random.Random(seed)
        self.clock = 1_700_000_000_000_000
        self.open()

    # ---- life

    def open(self) -> None:
        self.db = _simulated.open(Zoo, self.path, clock=self.clock)

    def close(self) -> None:
        for one in self.open_:
            one.manager.__exit__(ValueError, ValueError("given up"), None)
        self.open_.clear()
        self.db.close()

    def refused_quietly(self, error: type[Exception], call: Callable[[], Any], what: str) -> None:
        try:
            call()
        except error:
            return
        raise MismatchError(f"{what} was accepted")

    def now(self) -> float:
        return _simulated.now(self.db).timestamp()

    # ---- drawing

    def one(self, among: Sequence[Any]) -> Any:
        return self.random.choice(among)

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def lsn(self) -> int:
        """A past LSN, or the newest."""
        return self.random.randint(min(1, self.db.lsn), self.db.lsn)

    def thing(self, key: str, *, slug: bool = True) -> dict[str, Any]:
        document: dict[str, Any] = {"n": self.random.randint(-3, 9)}
        if self.chance(0.85):
            document["user"] = self.one(USERS)
        if self.chance(0.6):
            document["tag"] = self.one(TAGS)
        if self.chance(0.3):
            document["more"] = self.one(VALUES)
        if slug and self.chance(0.4):
            document["slug"] = f"slug of {key}"
        return document

    def where(self) -> dict[str, Any]:
        conditions: dict[str, Any] = {}
        if self.chance(0.6):
            drawn = [self.one(USERS) for _ in range(self.random.randint(0, 3))]
            low, high = sorted((self.one(USERS), self.one(USERS)))
            conditions["user"] = self.one([self.one(USERS), drawn, (low, high), (low, None)])
        if self.chance(0.5):
            low = self.random.randint(-4, 9)
            conditions["n"] = self.one(
                [low, float(low), [low, low + 2], (low, low + 4), (low, None), (None, low)]
            )
        if self.chance(0.3):
            conditions["tag"] = self.one([self.one(TAGS), [self.one(TAGS), self.one(TAGS)]])
        if self.chance(0.1):
            conditions["slug"] = f"slug of {self.one(KEYS)}"
        return conditions

    # ---- writing, alone or in a transaction

    def target(self) -> Tx | None:
        return self.one(self.open_) if self.open_ and self.chance(0.6) else None

    def handle(self, tx: Tx | None) -> Any:
        return self.db if tx is None else tx.handle

    def writes(self, tx: Tx | None) -> Writes:
        return Writes(self.db.lsn) if tx is None else tx.writes

    def wrote(self, tx: Tx | None, writes: Writes, receipt: Any, before: int) -> None:
        """Tells the model; in a transaction there is no receipt yet."""
        if tx is not None:
            try:
                lsn = tx.handle.receipt.lsn
            except PendingError:
                return
            raise MismatchError(f"a receipt before the commit: {lsn}")
        lsn = receipt.lsn
        changes = any(writes.of.values()) or bool(writes.events)
        if not changes:
            same(self.db.lsn, before, "lsn after nothing was written")
            return
        same(self.db.lsn, lsn, "lsn after a write")
        idle = all((name, key) in writes.idle for name in writes.of for key in writes.of[name])
        if not idle or writes.events:
            same(lsn, before + 1, "LSN of a commit")
        elif lsn not in (before, before + 1):
            raise MismatchError(f"nothing changed, and the LSN went from {before} to {lsn}")
        if lsn > before:
            self.model.commit(lsn, writes)
            self.model.commits[lsn] = (receipt.txn, None, None)

    def refused(self, error: type[Exception], call: Callable[[], Any], what: str) -> None:
        before = self.db.lsn
        try:
            found = call()
        except error:
            same(self.db.lsn, before, f"lsn after {what}")
            return
        raise MismatchError(f"{what} gave {found!r}")

    def note_thing(self, writes: Writes, key: str, value: Any, was: Any) -> None:
        """A row's change and its captured event."""
        writes.put("things", key, value)
        if value is ABSENT and key in self.model.view("vectors", writes):
            # Its vector goes with it, whatever row the same transaction puts afterwards.
            writes.put("vectors", key, ABSENT)
            writes.idle.add(("vectors", key))
        if value is ABSENT and was is ABSENT:
            writes.idle.add(("things", key))
            return
        writes.idle.discard(("things", key))
        writes.events.append((f"things.{'delete' if value is ABSENT else 'put'}", key, value))

    def put_thing(self) -> None:
        tx, key = self.target(), self.one(KEYS)
        handle, writes, before = self.handle(tx), self.writes(tx), self.db.lsn
        document = self.thing(key)
        live = self.model.view("things", tx and tx.writes)
        was = live.get(key, ABSENT)
        if tx is None and self.chance(0.25):
            at = self.model.of["things"].newest(key)[0] if was is not ABSENT else None
            if self.chance(0.5):
                put = lambda: handle.things.put(key, document, if_absent=True)  # noqa: E731
                right = was is ABSENT
            else:
                version = self.one([at, 1, before + 7]) if at is not None else before + 7
                put = lambda: handle.things.put(key, document, if_version=version)  # noqa: E731
                right = version == at
            if not right:
                return self.refused(PreconditionError, put, f"a precondition on {key!r}")
            receipt = put()
        elif tx is None and was is ABSENT and self.chance(0.1):
            owned = [one["slug"] for one in live.values() if "slug" in one]
            if owned:
                twin = document | {"slug": self.one(owned)}
                return self.refused(
                    UniqueError, lambda: handle.things.put(key, twin), f"a second {twin['slug']}"
                )
            return None
        else:
            receipt = handle.things.put(key, document)
        self.note_thing(writes, key, document, was)
        return self.wrote(tx, writes, receipt, before)

    def put_things(self) -> None:
        tx, keys = self.target(), self.random.sample(KEYS, self.random.randint(1, 4))
        handle, writes, before = self.handle(tx), self.writes(tx), self.db.lsn
        items = [(key, self.thing(key)) for key in keys]
        given = dict(items) if self.chance(0.5) else iter(items)
        receipt = handle.things.put_many(given)
        for key, document in items:
            self.note_thing(writes, key, document, None)
        self.wrote(tx, writes, receipt, before)

    def patch_thing(self) -> None:
        tx, key = self.target(), self.one(KEYS)
        handle, writes, before = self.handle(tx), self.writes(tx), self.db.lsn
        was = self.model.view("things", tx and tx.writes).get(key, ABSENT)
        changes = self.thing(key)
        if was is ABSENT:
            return self.refused(
                KeyError, lambda: handle.things.patch(key, changes), f"patch of absent {key!r}"
            )
        receipt = handle.things.patch(key, changes)
        self.note_thing(writes, key, was | changes, was)
        return self.wrote(tx, writes, receipt, before)

    def delete_thing(self) -> None:
        tx, keys = self.target(), self.random.sample(KEYS, self.random.randint(1, 3))
        handle, writes, before = self.handle(tx), self.writes(tx), self.db.lsn
        live = self.model.view("things", tx and tx.writes)
        if len(keys) == 1:
            receipt = handle.things.delete(keys[0])
        else:
            receipt = handle.things.delete_many(keys)
        for key in keys:
            self.note_thing(writes, key, ABSENT, live.get(key, ABSENT))
        self.wrote(tx, writes, receipt, before)

    def change(
        self, tx: Tx | None, structure: str, key: Any, value: Any, call: Callable[[Any], Any]
    ) -> None:
        """One write of one key, where nothing else follows from it."""
        before, writes = self.db.lsn, self.writes(tx)
        was = self.model.view(structure, tx and tx.writes).get(key, ABSENT)
        receipt = call(self.handle(tx))
        writes.put(structure, key, value)
        if value is ABSENT and was is ABSENT:
            writes.idle.add((structure, key))
        else:
            writes.idle.discard((structure, key))
        self.wrote(tx, writes, receipt, before)

    def change_blob(self) -> None:
        key, value = self.one(BLOBS[1:]), self.one([*BLOBS, b"\xab" * 300])
        if self.chance(0.3):
            return self.change(self.target(), "blobs", key, ABSENT, lambda to: to.blobs.delete(key))
        return self.change(self.target(), "blobs", key, value, lambda to: to.blobs.put(key, value))

    def vector(self, dim: int) -> tuple[float, ...]:
        return tuple(float(self.random.randint(-4, 4)) for _ in range(dim))

    def change_vector(self) -> None:
        tx, key, vector = self.target(), self.one(KEYS), self.vector(3)
        if self.chance(0.2):
            return self.change(tx, "vectors", key, ABSENT, lambda to: to.vectors.delete(key))
        if key not in self.model.view("things", tx and tx.writes) and tx is None:
            return self.refused(
                LinkError, lambda: self.db.vectors.put(key, vector), f"a vector without {key!r}"
            )
        return self.change(tx, "vectors", key, vector, lambda to: to.vectors.put(key, vector))

    def change_loose(self) -> None:
        tx = self.target()
        if self.chance(0.2):
            key = self.one(KEYS)
            return self.change(tx, "loose", key, ABSENT, lambda to: to.loose.delete(key))
        before, writes = self.db.lsn, self.writes(tx)
        keys = self.random.sample(KEYS, self.random.randint(1, 5))
        vectors = [self.vector(2) for _ in keys]
        receipt = self.handle(tx).loose.put_many(keys, np.array(vectors, dtype=np.float32))
        for key, vector in zip(keys, vectors, strict=True):
            writes.put("loose", key, vector)
            writes.idle.discard(("loose", key))
        return self.wrote(tx, writes, receipt, before)

    def append_event(self) -> None:
        tx, kind = self.target(), self.one(["seen", "said", "é"])
        payload, key = self.one(VALUES), self.one([None, *KEYS[:3]])
        writes, before = self.writes(tx), self.db.lsn
        receipt = self.handle(tx).log.append(kind, payload, key=key)
        writes.events.append((kind, key, payload))
        self.wrote(tx, writes, receipt, before)

    def change_cache(self) -> None:
        key, value = self.one(KEYS), self.one(VALUES)
        if self.chance(0.2):
            return self.change(None, "temp", key, ABSENT, lambda to: to.temp.delete(key))
        ttl = self.one([None, 1, 0.5, "2s", timedelta(seconds=3), 3600])
        seconds = {None: TTL_SECONDS, "2s": 2.0}.get(ttl) if not isinstance(ttl, timedelta) else 3.0
        ends = self.now() + (float(ttl) if seconds is None else seconds)
        put = lambda to: to.temp.put(key, value, ttl=ttl)  # noqa: E731
        return self.change(None, "temp", key, (value, ends), put)

    def change_note(self) -> None:
        tx, scope, name = self.target(), self.one(USERS), self.one(["tone", "place", "é"])
        value = self.one(VALUES)
        draw = self.random.random()
        if draw < 0.7:
            return self.change(
                tx, "notes", (scope, name), value, lambda to: to.notes.set(scope, name, value)
            )
        if draw < 0.9:
            return self.change(
                tx, "notes", (scope, name), ABSENT, lambda to: to.notes.delete(scope, name)
            )
        if tx is not None:  # what a scope holds at the commit is not what it held before
            return None
        writes, before = self.writes(None), self.db.lsn
        receipt = self.db.notes.delete(scope)
        writes.put("notes", (scope, ""), ABSENT)
        writes.idle.add(("notes", (scope, "")))
        for place in self.model.of["notes"].live():
            if place[0] == scope:
                writes.put("notes", place, ABSENT)
        return self.wrote(None, writes, receipt, before)

    def change_edge(self) -> None:
        edge = (self.one(NODES), self.one(RELATIONS), self.one(NODES))
        props = self.one([None, {"w": 1}, {"w": [1.5, None]}])
        if self.chance(0.35):
            return self.change(
                self.target(), "graph", edge, ABSENT, lambda to: to.graph.unlink(*edge)
            )
        link = lambda to: to.graph.link(*edge, props)  # noqa: E731
        return self.change(self.target(), "graph", edge, ("props", props), link)

    # ---- transactions

    def begin(self) -> None:
        if len(self.open_) >= 3:
            return
        options: dict[str, Any] = {}
        if self.chance(0.3):
            options["actor"] = self.one(["planner", "é"])
            options["reason"] = self.one(["", "user said so"])
        if self.chance(0.2):
            options["txn"] = f"own-{self.seed}-{self.random.random()}"
        if self.chance(0.3):
            options["priority"] = self.one(["critical", "routine", "background"])
        if self.chance(0.2):
            options["durability"] = self.one(["sync", "async"])
        one = Tx(self.db, options)
        if "txn" in options:
            same(one.handle.txn, options["txn"], "tx.txn")
        self.open_.append(one)

    def end(self) -> None:
        if not self.open_:
            return
        tx = self.open_.pop(self.random.randrange(len(self.open_)))
        way = self.random.random()
        if way < 0.2:
            self.rolled_back(tx, by_hand=way < 0.1)
        else:
            self.committed(tx)

    def rolled_back(self, tx: Tx, *, by_hand: bool) -> None:
        before, txn = self.db.lsn, tx.handle.txn
        if by_hand:
            tx.handle.rollback()
            tx.manager.__exit__(None, None, None)
        else:
            raised = KeyError("mine")
            same(bool(tx.manager.__exit__(KeyError, raised, None)), False, "an exception swallowed")
        same(self.db.lsn, before, "lsn after a rollback")
        same(self.db.outcome(txn), "absent", "outcome of a rollback")

    def committed(self, tx: Tx) -> None:
        before, writes, txn = self.db.lsn, tx.writes, tx.handle.txn
        expected = self.model.conflicts(writes)
        dangling = self.model.dangling(writes)
        slugs = self.slug_twice(writes)
        try:
            tx.manager.__exit__(None, None, None)
        except (ConflictError, LinkError) as error:
            if expected is False and not dangling and not slugs:
                raise
            same(isinstance(error, UniqueError) <= slugs, True, "a UniqueError for nothing")
            same(self.db.lsn, before, "lsn after a conflict")
            same(self.db.outcome(txn), "absent", "outcome of a conflict")
            return
        if expected or dangling or slugs:
            why = f"conflict {expected}, dangling {dangling}, unique {slugs}"
            raise MismatchError(f"a commit that must be refused: {why}: {writes}")
        self.wrote(None, writes, tx.handle.receipt, before)
        lsn = self.db.lsn
        if lsn > before:
            same(self.db.outcome(txn), "committed", "outcome of a commit")
            actor, reason = tx.options.get("actor"), tx.options.get("reason")
            self.model.commits[lsn] = (txn, actor, reason)

    def slug_twice(self, writes: Writes) -> bool:
        live = self.model.of["things"].live()
        live |= writes.of.get("things", {})
        slugs = [one["slug"] for one in live.values() if one is not ABSENT and "slug" in one]
        return len(slugs) != len(set(slugs))

    def read_for_update(self) -> None:
        if self.open_:
            tx, key = self.one(self.open_), self.one(KEYS)
            found = tx.handle.things.get(key, ABSENT, for_update=True)
            same(found, self.model.view("things", tx.writes).get(key, ABSENT), f"things[{key!r}]")
            tx.writes.read_for_update.add(("things", key))

    def batch(self) -> None:
        if self.open_:
            return
        every, before = self.random.randint(1, 3), self.db.lsn
        items = [(key, self.thing(key)) for key in self.random.sample(KEYS, 5)]
        with self.db.batch(every=every) as batch:
            for key, document in items:
                batch.things.put(key, document)
        commits = -(-len(items) // every)
        same((batch.commits, self.db.lsn), (commits, before + commits), "commits of a batch")
        for number in range(commits):
            writes = Writes(before)
            for key, document in items[number * every : (number + 1) * every]:
                self.note_thing(writes, key, document, None)
            self.model.commit(before + 1 + number, writes)

    def retried(self) -> None:
        key, before = self.one(KEYS), self.db.lsn
        document = self.thing(key)
        calls = []

        def put(tx: Any) -> str:
            calls.append(1)
            if len(calls) == 1:  # somebody else is first
                self.db.things.put(key, {"n": 1})
            tx.things.get(key, for_update=True)
            tx.things.put(key, document)
            return "done"

        same(self.db.retry(put), "done", "retry")
        same((len(calls), self.db.lsn), (2, before + 2), "calls and LSN of a retry")
        for lsn, value in ((before + 1, {"n": 1}), (before + 2, document)):
            writes = Writes(before)
            self.note_thing(writes, key, value, None)
            self.model.commit(lsn, writes)
