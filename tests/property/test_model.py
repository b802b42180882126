"""A state machine against plain dicts: transactions over all structures, rollback, reopening, past.

The model is the whole state as Python values. Operations are drawn as lists, applied to the model
and to one transaction in the same order; what the transaction reads before it ends, what the
database reads after, what a snapshot keeps and what `as_of` answers must all be the model's.
"""

from __future__ import annotations

import copy
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import waferdb
from waferdb import Audit, Cache, Context, Database, Events, Graph, Rows, Vectors

DIM = 3


class Subject(Database):
    facts = Rows(indexes=["user", ("user", "n")], unique=["email"])
    vectors = Vectors(dim=DIM, metric="l2", rows="facts")
    events = Events()
    journal = Events(capture=["facts"])
    session = Cache(ttl="1h")
    context = Context()
    graph = Graph()
    audit = Audit()


@dataclass
class Model:
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    vectors: dict[str, tuple[float, ...]] = field(default_factory=dict)
    events: list[tuple[str, str | None, Any]] = field(default_factory=list)
    journal: list[tuple[str, str]] = field(default_factory=list)
    session: dict[str, Any] = field(default_factory=dict)
    context: dict[str, dict[str, Any]] = field(default_factory=dict)
    graph: dict[tuple[str, str, str], Any] = field(default_factory=dict)
    # A write that must be refused was tried: at once or at the commit, both are right.
    tempted: bool = False

    def email_owner(self, email: str) -> str | None:
        return next((k for k, d in self.facts.items() if d.get("email") == email), None)


KEYS = st.sampled_from(["a", "b", "c", "d", "a\0", "é"])
USERS = st.sampled_from(["ann", "bob"])
EMAILS = st.sampled_from(["e1", "e2"])
VALUES = st.one_of(
    st.none(),
    st.integers(-5, 5),
    st.text("xyz", max_size=3),
    st.just("long " * 20),
    st.lists(st.booleans(), max_size=2),
)
DOCUMENTS = st.fixed_dictionaries(
    {}, optional={"user": USERS, "n": st.integers(0, 3), "email": EMAILS, "text": VALUES}
)
VECTORS = st.tuples(*[st.integers(-4, 4).map(float)] * DIM)
RELATIONS = st.sampled_from(["r", "s"])

OPERATIONS = st.one_of(
    st.tuples(st.just("put"), KEYS, DOCUMENTS),
    st.tuples(st.just("put with vector"), KEYS, DOCUMENTS, VECTORS),
    st.tuples(st.just("patch"), KEYS, DOCUMENTS),
    st.tuples(st.just("delete"), KEYS),
    st.tuples(st.just("vector"), KEYS, VECTORS),
    st.tuples(st.just("no vector"), KEYS),
    st.tuples(st.just("event"), st.sampled_from(["k1", "k2"]), VALUES, st.none() | KEYS),
    st.tuples(st.just("cache"), KEYS, VALUES),
    st.tuples(st.just("no cache"), KEYS),
    st.tuples(st.just("set"), USERS, KEYS, VALUES),
    st.tuples(st.just("unset"), USERS, st.none() | KEYS),
    st.tuples(st.just("link"), KEYS, RELATIONS, KEYS, st.none() | st.just({"w": 1})),
    st.tuples(st.just("unlink"), KEYS, RELATIONS, KEYS),
)


class UniqueTakenError(Exception):
    """The model says that the unique value belongs to another key."""


def apply(tx: Any, model: Model, operation: tuple[Any, ...], *, tempt: bool) -> None:
    """One operation on both. `tempt`: also where a unique value is taken, which must refuse."""
    name, *rest = operation
    if name in ("put", "put with vector", "patch"):
        key, document = rest[0], rest[1]
        if name == "patch":
            if key not in model.facts:
                with pytest.raises(KeyError):
                    tx.facts.patch(key, document)
                return
            new = {**model.facts[key], **document}
        else:
            new = dict(document)
        taken = "email" in new and model.email_owner(new["email"]) not in (None, key)
        if taken and not tempt:
            return
        model.tempted = taken
        if name == "patch":
            tx.facts.patch(key, document)
        else:
            tx.facts.put(key, document)
        if taken:
            raise UniqueTakenError  # The transaction itself has yet to refuse.
        model.facts[key] = new
        model.journal.append(("facts.put", key))
        if name == "put with vector":
            tx.vectors.put(key, np.array(rest[2], np.float32))
            model.vectors[key] = rest[2]
    elif name == "delete":
        if rest[0] in model.vectors and rest[0] not in model.facts:
            return  # A vector still without its row: whether this deletes it is nobody's promise.
        tx.facts.delete(rest[0])
        if model.facts.pop(rest[0], None) is not None:
            model.journal.append(("facts.delete", rest[0]))
        model.vectors.pop(rest[0], None)
    elif name == "vector":
        tx.vectors.put(rest[0], np.array(rest[1], np.float32))
        model.vectors[rest[0]] = rest[1]
    elif name == "no vector":
        tx.vectors.delete(rest[0])
        model.vectors.pop(rest[0], None)
    elif name == "event":
        kind, payload, key = rest
        tx.events.append(kind, payload, key=key)
        model.events.append((kind, key, payload))
    elif name == "cache":
        tx.session.put(rest[0], rest[1])
        model.session[rest[0]] = rest[1]
    elif name == "no cache":
        tx.session.delete(rest[0])
        model.session.pop(rest[0], None)
    elif name == "set":
        scope, key, value = rest
        tx.context.set(scope, key, value)
        model.context.setdefault(scope, {})[key] = value
    elif name == "unset":
        scope, key = rest
        if key is None:
            tx.context.delete(scope)
            model.context.pop(scope, None)
        else:
            tx.context.delete(scope, key)
            model.context.get(scope, {}).pop(key, None)
            if not model.context.get(scope, True):
                del model.context[scope]
    elif name == "link":
        src, relation, dst, props = rest
        tx.graph.link(src, relation, dst, props)
        model.graph[(src, relation, dst)] = props
    elif name == "unlink":
        tx.graph.unlink(*rest)
        model.graph.pop(tuple(rest), None)


def walk(
    model: Model, start: str, relation: str | None, direction: str, depth: int
) -> dict[str, int]:
    found: dict[str, int] = {}
    frontier = {start}
    for level in range(1, depth + 1):
        reached = set()
        for src, name, dst in model.graph:
            if relation not in (None, name):
                continue
            if direction != "in" and src in frontier:
                reached.add(dst)
            if direction != "out" and dst in frontier:
                reached.add(src)
        frontier = reached - set(found) - {start}
        found.update(dict.fromkeys(frontier, level))
    return found


def compare(db: Any, model: Model, *, present: bool = True) -> None:
    """Every read of `db` against the model; the past has no cache (`present=False`)."""
    assert list(db.facts.scan()) == sorted(model.facts.items())
    assert db.facts.count() == len(model.facts)
    for user in ("ann", "bob"):
        expected = [key for key, doc in sorted(model.facts.items()) if doc.get("user") == user]
        assert [key for key, _ in db.facts.find({"user": user})] == expected
        by_number = sorted(expected, key=lambda key: model.facts[key].get("n", -1), reverse=True)
        assert [key for key, _ in db.facts.find({"user": user}, order="-n")] == by_number
    for email in ("e1", "e2"):
        owner = model.email_owner(email)
        assert [key for key, _ in db.facts.find({"email": email})] == ([owner] if owner else [])
    assert sorted(db.vectors.keys()) == sorted(model.vectors)
    for key, vector in model.vectors.items():
        assert db.vectors.get(key).tolist() == list(vector)
    query = np.array([0.5, -1.0, 2.0], np.float32)
    hits = db.vectors.search(query, k=10)
    nearest = sorted(
        model.vectors,
        key=lambda key: (float(np.sum((np.array(model.vectors[key]) - query) ** 2)), key),
    )
    assert hits.keys == nearest
    assert [hit.row for hit in hits] == [model.facts.get(key) for key in nearest]
    assert [(e.kind, e.key, e.payload) for e in db.events.scan()] == model.events
    keyed = [(e.kind, e.key, e.payload) for e in db.events.scan(kind="k1", key="a")]
    assert keyed == [event for event in model.events if event[:2] == ("k1", "a")]
    if present:
        assert sorted(db.session.keys()) == sorted(model.session)
        for key, value in model.session.items():
            assert db.session.get(key, default="absent") == value
    assert sorted(db.context.scopes()) == sorted(model.context)
    for scope in ("ann", "bob"):
        assert db.context.load(scope) == model.context.get(scope, {})
    for node in ("a", "é"):
        for direction in ("out", "in", "both"):
            for relation, depth in ((None, 1), ("r", 2), (None, 3)):
                found = db.graph.neighbors(node, relation, direction=direction, depth=depth)
                assert {n.node: n.depth for n in found} == walk(
                    model, node, relation, direction, depth
                )
    for src in ("a", "b"):
        outgoing = [edge for edge in db.graph.edges(src) if edge.src == src]
        assert {(e.relation, e.dst): e.props or None for e in outgoing} == {
            (relation, dst): props for (s, relation, dst), props in model.graph.items() if s == src
        }


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="waferdb-model-"))
        self.path = self.folder / "db"
        self.model = Model()
        self.history: dict[int, Model] = {}
        self.snapshots: list[tuple[Any, Model]] = []
        self.db: Any = None

    @initialize()
    def create(self) -> None:
        self.db = Subject(self.path)
        self.history[self.db.lsn] = copy.deepcopy(self.model)

    def teardown(self) -> None:
        try:
            if self.db is not None:
                self.drop_snapshots()
                assert self.db.verify(deep=True).ok
                self.db.close()
        finally:
            shutil.rmtree(self.folder)

    def drop_snapshots(self) -> None:
        for snapshot, _ in self.snapshots:
            snapshot.close()
        self.snapshots.clear()

    def committed(self, model: Model) -> None:
        self.model = model
        self.history[self.db.lsn] = copy.deepcopy(model)

    @rule(operations=st.lists(OPERATIONS, min_size=1, max_size=8), tempt=st.booleans())
    def transaction(self, operations: list[Any], tempt: bool) -> None:
        model = copy.deepcopy(self.model)
        before = self.db.lsn
        expected: type[Exception] | None = None
        refused: waferdb.WaferError | None = None
        try:
            with self.db.transaction() as tx:
                try:
                    for operation in operations:
                        apply(tx, model, operation, tempt=tempt)
                except UniqueTakenError:
                    pass
                else:
                    if set(model.vectors) <= set(model.facts):
                        compare(tx, model)
                    else:
                        expected = waferdb.LinkError
        except waferdb.WaferError as error:
            refused = error
        if model.tempted:
            # It may break a link as well; either may be found first.
            expected = (waferdb.UniqueError, waferdb.LinkError)
        if refused is None:
            assert expected is None, f"{expected} was not raised"
            self.committed(model)
        else:
            assert expected is not None, f"unexpected {refused!r}"
            assert isinstance(refused, expected)
            assert self.db.lsn == before

    @rule(operations=st.lists(OPERATIONS, min_size=1, max_size=8), by_hand=st.booleans())
    def rolled_back(self, operations: list[Any], by_hand: bool) -> None:
        class CancelledError(Exception):
            pass

        before = self.db.lsn
        model = copy.deepcopy(self.model)
        try:
            with self.db.transaction() as tx:
                for operation in operations:
                    apply(tx, model, operation, tempt=False)
                if by_hand:
                    tx.rollback()
                else:
                    raise CancelledError
        except CancelledError:
            assert not by_hand
        assert self.db.lsn == before

    @rule(operation=OPERATIONS)
    def on_its_own(self, operation: tuple[Any, ...]) -> None:
        if operation[0] == "put with vector":
            return
        if operation[0] == "vector" and operation[1] not in self.model.facts:
            with pytest.raises(waferdb.LinkError):
                self.db.vectors.put(operation[1], np.array(operation[2], np.float32))
            return
        model = copy.deepcopy(self.model)
        apply(self.db, model, operation, tempt=False)
        self.committed(model)

    @rule(operations=st.lists(OPERATIONS, min_size=1, max_size=12), every=st.integers(1, 5))
    def batch(self, operations: list[Any], every: int) -> None:
        model = copy.deepcopy(self.model)
        with self.db.batch(every=every) as batch:
            for operation in operations:
                # A batch only writes: what depends on a reading of its own is not part of it.
                if operation[0] in ("event", "cache", "no cache", "set", "link", "unlink"):
                    apply(batch, model, operation, tempt=False)
        self.committed(model)

    @rule()
    def reopen(self) -> None:
        self.drop_snapshots()
        lsn, head = self.db.lsn, self.db.audit.head()
        self.db.close()
        self.db = Subject(self.path)
        assert self.db.lsn == lsn
        assert self.db.audit.head() == head

    @rule()
    def reopen_read_only(self) -> None:
        self.drop_snapshots()
        self.db.close()
        with Subject(self.path, mode="r") as db:
            compare(db, self.model)
        self.db = Subject(self.path)

    @rule(name=st.sampled_from(["facts", "vectors", "events", "session", "context", "graph"]))
    def rebuild(self, name: str) -> None:
        self.db.rebuild(name)

    @precondition(lambda self: len(self.snapshots) < 2)
    @rule(data=st.data())
    def take_snapshot(self, data: st.DataObject) -> None:
        lsn = data.draw(st.sampled_from(sorted(self.history)))
        snapshot = self.db.snapshot() if lsn == self.db.lsn else self.db.snapshot(as_of=lsn)
        self.snapshots.append((snapshot, copy.deepcopy(self.history[lsn])))

    @precondition(lambda self: self.snapshots)
    @rule()
    def snapshots_stand_still(self) -> None:
        for snapshot, model in self.snapshots:
            compare(snapshot, model, present=False)
        self.drop_snapshots()

    @rule(data=st.data())
    def the_past(self, data: st.DataObject) -> None:
        lsn = data.draw(st.sampled_from(sorted(self.history)))
        model, db = self.history[lsn], self.db
        assert dict(db.facts.scan(as_of=lsn)) == model.facts
        for key in ("a", "b"):
            assert db.facts.get(key, as_of=lsn) == model.facts.get(key)
        found = db.facts.find({"user": "ann"}, as_of=lsn)
        assert dict(found) == {k: d for k, d in model.facts.items() if d.get("user") == "ann"}
        assert [(e.kind, e.key, e.payload) for e in db.events.scan(as_of=lsn)] == model.events
        for scope in ("ann", "bob"):
            assert db.context.load(scope, as_of=lsn) == model.context.get(scope, {})
        neighbors = db.graph.neighbors("a", as_of=lsn)
        assert {n.node for n in neighbors} == set(walk(model, "a", None, "out", 1))
        hits = db.vectors.search(np.zeros(DIM, np.float32), k=10, as_of=lsn)
        assert sorted(hits.keys) == sorted(model.vectors)

    @invariant()
    def present(self) -> None:
        if self.db is None:
            return
        compare(self.db, self.model)
        captured = [(e.kind, e.key) for e in self.db.journal.scan() if e.kind != "facts.delete"]
        assert captured == [entry for entry in self.model.journal if entry[0] == "facts.put"]


TestModel = Machine.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=25)
if settings.default is not None and settings.default.max_examples > 60:
    TestModel.settings = settings(max_examples=500, stateful_step_count=60)
