"""Judges every answer of a database by the model, at any consistency.

1. An answer is the model's state at the LSN that its `freshness` claims, and `behind` is the number
   of commits that touch the structure above it.
2. That LSN is never below what the consistency asks for, nor below what was promised before: by a
   policy, a barrier, a drain, a reopening, or an earlier answer (`least`).
3. An answer that calls itself neither stale nor behind is the newest; a view's, too.
4. Nothing gone is in an answer, nor in what a view's function is given.

Under `steady` nothing happens between two calls, so that calls without a freshness of their own
can be judged as well; with background threads only what one call returns can.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
from propagation_model import (
    BUILT_IN,
    OVER_ROWS,
    STRUCTURES,
    Document,
    Group,
    Model,
    State,
    built_in,
)

from waferdb import eager
from waferdb.results import Freshness, Read

KEYS = tuple("abcdefg")
USERS = ("ann", "bob")
DAYS = (1, 2, 3)
GROUPS: dict[str, tuple[Group, ...]] = {
    "by_user": USERS,
    "by_day": tuple((user, day) for user in USERS for day in DAYS),
    "of_user": USERS,
    "of_parity": (0, 1),
}
DIM = 2
QUERY = np.array([0.25, -1.5], np.float32)

# Whether a commit that touches only these counts for the structure is nobody's promise.
SOURCES = {"vectors": ("facts",), "hot": ("facts",), "journal": ("facts",)}
CLOCK_TOLERANCE = 0.02


@dataclass(frozen=True)
class Wish:
    """A consistency, and in plain numbers what it asks for."""

    consistency: Any
    least: int = 0
    age: float | None = None
    commits: int | None = None

    @property
    def strong(self) -> bool:
        return self.consistency == "strong"


EVENTUAL = Wish("eventual")


class Judge:
    """Reads a database and compares; the trace tells it what happens (`promise`, `dropped`)."""

    def __init__(self, model: Model, policies: dict[str, Any], *, steady: bool) -> None:
        self.db: Any = None
        self.model = model
        self.policies = policies
        self.steady = steady
        self.clock = 0.0
        self.committed_at: dict[int, float] = {}
        self.least: defaultdict[Any, tuple[int, str]] = defaultdict(lambda: (0, "nothing"))
        self.dropped: dict[tuple[str, Group], int] = {}
        self.results: dict[tuple[str, Group], Document] = {}
        self.calls: Counter[str] = Counter()
        self.coverage: Counter[str] = Counter()

    def strong(self) -> Wish:
        return Wish("strong", self.model.lsn, 0, 0)

    def promise(self, name: Any, lsn: int, why: str) -> None:
        """From now on a structure (or a group of a view) reflects `lsn`."""
        self.least[name] = max(self.least[name], (lsn, why))

    def look(self) -> None:
        """Everything as it stands; nothing is brought up to date by it."""
        self.everything(EVENTUAL)

    def everything(self, wish: Wish) -> None:
        for name in STRUCTURES:
            self.structure(name, wish)
        for view, groups in GROUPS.items():
            for group in groups:
                self.view(view, group, wish)
            if self.steady:
                self.groups(view)
        for view in BUILT_IN:
            self.built_in(view, wish)
        if self.steady:
            self.lag()

    # Structures.

    def structure(self, name: str, wish: Wish) -> None:
        """The whole content of one structure."""
        getattr(self, f"_{name}")(wish)

    def claim(self, name: str, fresh: Freshness, wish: Wish) -> State:
        """What an answer claims to reflect, if it may."""
        model = self.model
        waiting = model.waiting(name, fresh.lsn)
        others = [model.waiting(source, fresh.lsn) for source in SOURCES.get(name, ())]
        most = sorted({*waiting, *(lsn for some in others for lsn in some)})
        assert fresh.lsn <= self.db.lsn, f"{name} reflects LSN {fresh.lsn}, which is not yet"
        assert len(waiting) <= fresh.behind <= len(most), f"{name}: {fresh}, waiting: {waiting}"
        assert fresh.behind or not fresh.stale, f"{name}: {fresh}"
        self._age(name, fresh, most if fresh.behind else [])
        self._enough(name, fresh, waiting, wish)
        assert fresh.lsn >= model.barriers[name], (
            f"{name} answers as of {fresh.lsn}, though something was taken out of it at "
            f"{model.barriers[name]}"
        )
        if self.policies[name] == eager():
            assert not waiting, f"{name} is eager and lacks {waiting}"
        if waiting:
            self.coverage[f"{name} behind, {type(self.policies[name]).__name__}"] += 1
        reflected = waiting[0] - 1 if waiting else model.lsn
        self.promise(name, reflected, "an earlier answer")
        return model.at(fresh.lsn)

    def _enough(self, name: Any, fresh: Freshness, waiting: list[int], wish: Wish) -> None:
        least, why = max(self.least[name], (wish.least, f"consistency={wish.consistency!r}"))
        assert not waiting or waiting[0] > least, (
            f"{name}: {fresh} lacks {waiting}, but must reflect {least} because of {why}"
        )
        if wish.commits is not None:
            assert fresh.behind <= wish.commits, f"{name}: {fresh}, {wish}"
        if wish.age is not None:
            assert fresh.age <= timedelta(seconds=wish.age), f"{name}: {fresh}, {wish}"

    def _age(self, name: Any, fresh: Freshness, waiting: list[int]) -> None:
        if not waiting:
            assert fresh.age == timedelta(0), f"{name}: {fresh} lacks nothing"
        elif self.steady and all(lsn in self.committed_at for lsn in waiting):
            oldest = self.clock - self.committed_at[waiting[0]]
            newest = self.clock - self.committed_at[waiting[-1]]
            least = newest if name in SOURCES else oldest
            age = fresh.age.total_seconds()
            assert least - CLOCK_TOLERANCE <= age <= oldest + CLOCK_TOLERANCE, (
                f"{name}: {fresh}, but the oldest of {waiting} waits for {oldest} s"
            )

    def _facts(self, wish: Wish) -> None:
        facts, c = self.db.facts, wish.consistency
        cursor = facts.scan(consistency=c)
        rows = documents(self.claim("facts", cursor.freshness, wish))
        assert list(cursor) == sorted(rows.items())
        for user in USERS:
            found = facts.find({"user": user}, consistency=c)
            there = documents(self.claim("facts", found.freshness, wish))
            assert dict(found) == {k: d for k, d in there.items() if d["user"] == user}
        for key in KEYS:
            read = facts.read(key, consistency=c)
            version = self.claim("facts", read.freshness, wish).facts.get(key)
            assert (read.version, read.value) == (version or (None, None)), key
            assert version is None or read.time == self.model.times[version.lsn]
        if self.steady:
            assert facts.count(consistency=c) == len(rows)
            assert list(facts.keys(consistency=c)) == sorted(rows)
            assert facts.get_many(KEYS, consistency=c) == [rows.get(key) for key in KEYS]
            assert [facts.get(key, consistency=c) for key in KEYS] == [rows.get(k) for k in KEYS]

    def _vectors(self, wish: Wish) -> None:
        vectors, c = self.db.vectors, wish.consistency
        hits = vectors.search(QUERY, k=50, consistency=c)
        state = self.claim("vectors", hits.freshness, wish)
        assert hits.keys == nearest(state)
        if wish.strong:
            assert [hit.row for hit in hits] == [state.facts[key].document for key in hits.keys]
        for key in KEYS:
            read = vectors.read(key, consistency=c)
            expected = self.claim("vectors", read.freshness, wish).vectors.get(key)
            assert (None if read.value is None else read.value.tolist()) == expected

    def _hot(self, wish: Wish) -> None:
        for key in KEYS:
            read = self.db.hot.read(key, consistency=wish.consistency)
            version = self.claim("hot", read.freshness, wish).facts.get(key)
            assert read.value == (version and version.document), key

    def _session(self, wish: Wish) -> None:
        for key in KEYS:
            read = self.db.session.read(key, consistency=wish.consistency)
            state = self.claim("session", read.freshness, wish)
            assert read.value == state.session.get(key), key
        keys = self.db.session.keys(consistency=wish.consistency)
        assert sorted(keys) == sorted(self.claim("session", keys.freshness, wish).session)

    def _events(self, wish: Wish) -> None:
        cursor = self.db.events.scan(consistency=wish.consistency)
        events = self.claim("events", cursor.freshness, wish).events
        assert [(e.lsn, e.kind, e.key, e.payload) for e in cursor] == [tuple(e) for e in events]

    def _journal(self, wish: Wish) -> None:
        """In which order a commit tells of its rows and their contradictions is left open, and so
        is whether it tells of a superseded row as a deleted one."""
        cursor = self.db.journal.scan(consistency=wish.consistency)
        expected = self.claim("journal", cursor.freshness, wish).journal
        found = [(e.lsn, e.kind, e.key, e.payload) for e in cursor]
        assert [event[0] for event in found] == sorted(event[0] for event in found)
        told = [event for event in found if not self._told_as_deletion(event)]
        assert sorted(told, key=repr) == sorted(map(tuple, expected), key=repr)

    def _told_as_deletion(self, event: tuple[int, str, Any, Any]) -> bool:
        lsn, kind, key, _ = event
        older = self.model.superseded.get(lsn, ())
        return kind == "facts.delete" and key in older

    def _context(self, wish: Wish) -> None:
        context, c = self.db.context, wish.consistency
        for scope in USERS:
            for name in KEYS:
                read = context.read(scope, name, consistency=c)
                state = self.claim("context", read.freshness, wish)
                assert read.value == state.context.get((scope, name)), (scope, name)
            if self.steady:
                expected = {n: v for (s, n), v in state.context.items() if s == scope}
                assert context.load(scope, consistency=c) == expected
                assert context.get(scope, "a", consistency=c) == expected.get("a")
        if self.steady:
            assert context.scopes(consistency=c) == sorted({s for s, _ in state.context})

    def _graph(self, wish: Wish) -> None:
        """Its answers carry no freshness; `stats().lag` says what they reflect."""
        if not (self.steady or wish.strong):
            return
        graph, c = self.db.graph, wish.consistency
        edges = {node: graph.edges(node, consistency=c) for node in KEYS}
        next_to = {node: graph.neighbors(node, consistency=c) for node in KEYS}
        state = (
            self.model.newest if wish.strong else self.claim("graph", self._lag_of_graph(), wish)
        )
        for node in KEYS:
            expected = {edge: p for edge, p in state.graph.items() if node in (edge[0], edge[2])}
            found = {(e.src, e.relation, e.dst): e.props for e in edges[node]}
            assert found == expected, node
            reached = {dst for src, _, dst in state.graph if src == node} - {node}
            assert {n.node for n in next_to[node]} == reached, node

    def _lag_of_graph(self) -> Freshness:
        lag, touched = self.db.stats().lag["graph"], self.model.touched["graph"]
        assert lag.commits <= len(touched)
        lsn = touched[-lag.commits] - 1 if lag.commits else self.model.lsn
        return Freshness(lsn, lag.commits, lag.age, lag.commits > 0)

    def lag(self) -> None:
        """`stats()` says the same of a structure as its answers."""
        lag = self.db.stats().lag
        probes = {
            "facts": self.db.facts.read("a", consistency="eventual"),
            "vectors": self.db.vectors.read("a", consistency="eventual"),
            "hot": self.db.hot.read("a", consistency="eventual"),
            "session": self.db.session.read("a", consistency="eventual"),
            "events": self.db.events.scan(limit=1, consistency="eventual"),
            "journal": self.db.journal.scan(limit=1, consistency="eventual"),
            "context": self.db.context.read("ann", "a", consistency="eventual"),
        }
        for name, probe in probes.items():
            assert lag[name].commits == probe.freshness.behind, name

    # Views.

    def view(self, view: str, group: Group, wish: Wish) -> None:
        """One group of a view with a function."""
        stood, before = self.db[view].read(group), self.calls[view]
        read = self.db[view].read(group, consistency=wish.consistency)
        newest = self.model.answers(view).get(group)
        where, fresh = f"{view}[{group!r}]", read.freshness
        self.nothing_gone(read.value, where)
        if not fresh.stale:
            assert fresh.behind == 0, f"{where}: {fresh}"
            assert read.value == newest, f"{where} calls itself fresh: {fresh}"
        if wish.strong:
            assert not fresh.stale, f"{where}: {fresh} for a strong read"
        if view in OVER_ROWS:
            self._over_rows(view, group, read, wish)
            if self.steady and wish.strong:
                needed = int(stood.freshness.stale and newest is not None)
                assert self.calls[view] - before == needed, f"{where}: function calls"
        self.coverage[f"{view} {'stale' if fresh.stale else 'fresh'}"] += 1
        if read.value is not None:
            self.results[view, group] = read.value

    def _over_rows(self, view: str, group: Group, read: Read[Any], wish: Wish) -> None:
        """Of a view over rows each claim can be judged, as for a structure."""
        model, fresh, where = self.model, read.freshness, f"{view}[{group!r}]"
        place = (view, group)
        if read.value is None:
            newest = model.answers(view).get(group)
            assert fresh.stale == (newest is not None), f"{where}: {fresh} without a result"
            assert newest is None or self._may_lack(place, wish), (
                f"{where}: no result, though {self.least[place]}"
            )
            return
        waiting = model.waiting_group(view, group, fresh.lsn)
        assert fresh.stale == (fresh.behind > 0), f"{where}: {fresh}"
        assert fresh.behind == len(waiting), f"{where}: {fresh}, waiting: {waiting}"
        assert read.value == model.answers(view, fresh.lsn).get(group), f"{where}: {fresh}"
        self._age(where, fresh, waiting)
        self._enough(place, fresh, waiting, wish)
        versions = sorted({version for version, _, _ in read.value["seen"]})
        if self.steady:
            assert sorted({*self.db[view].lineage(group)}) == versions, f"{where}: lineage"
        self.promise(place, waiting[0] - 1 if waiting else model.lsn, "an earlier answer")

    def _may_lack(self, place: tuple[str, Group], wish: Wish) -> bool:
        """Whether a group with rows may have no result: it had none, or lost it."""
        least = self.least[place][0]
        kept = least > 0 and self.dropped.get(place, 0) <= least
        return not (kept and self._never_empty(place, least)) and not (
            wish.least and self._never_empty(place, wish.least)
        )

    def _never_empty(self, place: tuple[str, Group], since: int) -> bool:
        if self.model.remade.get(place, 0) > since:
            return False
        moments = [since, *self.model.waiting_group(*place, since)]
        return all(place[1] in self.model.answers(place[0], lsn) for lsn in moments)

    def groups(self, view: str) -> None:
        """What the view says of its groups as a whole is what it says of each."""
        bound = self.db[view]
        reads = {group: bound.read(group) for group in GROUPS[view]}
        listed = sorted(bound.stale())
        told = [group for group, read in reads.items() if read.freshness.stale]
        stored = [group for group, read in reads.items() if read.value is not None]
        if view == "of_parity":
            # Which groups a source that is stale leads to is in its results: of those that have
            # none yet only a read can say that they may come.
            assert {*listed} <= {*told}
            assert {*told} & {*stored} <= {*listed}
        else:
            assert listed == told
        assert sorted(bound.keys()) == sorted(bound) == stored
        assert bound.count() == len(stored)
        for group, read in reads.items():
            assert (group in bound) == (group in stored), group
            assert bound.get(group, default="none") == (
                "none" if read.value is None else read.value
            )

    def built_in(self, view: str, wish: Wish) -> None:
        """Always fresh, whatever is asked."""
        for user in USERS:
            read = self.db[view].read(user, consistency=wish.consistency)
            expected = built_in(view, self.model.newest, user)
            assert (read.freshness.behind, read.freshness.stale) == (0, False)
            if view == "newest" and expected is not None:
                # Which of the rows of one commit comes first is left open.
                state, entries = self.model.newest, read.value["rows"]
                assert versions_of(entries) == versions_of(expected["rows"])
                for entry in entries:
                    assert state.facts[entry["key"]] == (entry["version"], entry["value"])
            elif view == "sums" and expected is not None and not expected["count"]:
                assert read.value in (None, expected)
            else:
                assert read.value == expected, f"{view}[{user!r}]: {read}, not {expected}"

    def nothing_gone(self, document: Document | None, where: str) -> None:
        """No input of a result was deleted, superseded or forgotten since."""
        for version, key, _ in [] if document is None else document["seen"]:
            assert version > self.model.gone.get(key, 0), (
                f"{where} is made of {key!r} at {version}, which went at {self.model.gone[key]}"
            )

    def nothing_forgotten(self, document: Document | None, where: str) -> None:
        """No input of a result was forgotten, which holds for the past as well."""
        for version, key, _ in [] if document is None else document["seen"]:
            assert version > self.model.forgotten.get(key, 0), (
                f"{where} is made of {key!r} at {version}, which was forgotten"
            )


def documents(state: State) -> dict[str, Document]:
    """The rows as they are read."""
    return {key: version.document for key, version in state.facts.items()}


def versions_of(entries: list[Document]) -> list[int]:
    """The versions of what a built-in view answers."""
    return [entry["version"] for entry in entries]


def nearest(state: State) -> list[str]:
    """The keys of all vectors by their distance to `QUERY`, ties by key."""

    def place(key: str) -> tuple[float, str]:
        return float(np.linalg.norm(np.array(state.vectors[key], np.float32) - QUERY)), key

    return sorted(state.vectors, key=place)
