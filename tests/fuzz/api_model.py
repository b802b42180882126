"""What a database must answer, from the public contract alone: plain dictionaries with versions.

1. A version is (LSN, value); `ABSENT` is a deletion. A read at an LSN is the newest version there.
2. Nothing here asks the database: only what its writes returned is told to the model.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

NOW: Final = 1 << 62


class _Absent:
    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent()


class Versions:
    """One structure: every version of every key."""

    def __init__(self) -> None:
        self.of: dict[Any, list[tuple[int, Any]]] = {}

    def put(self, lsn: int, key: Hashable, value: Any) -> None:
        history = self.of.setdefault(key, [])
        if history and history[-1][0] == lsn:
            history.pop()
        assert not history or history[-1][0] < lsn
        history.append((lsn, value))

    def newest(self, key: Hashable, lsn: int = NOW) -> tuple[int, Any]:
        """LSN and value at `lsn`; (0, ABSENT) where nothing was written."""
        for at, value in reversed(self.of.get(key, ())):
            if at <= lsn:
                return at, value
        return 0, ABSENT

    def get(self, key: Hashable, lsn: int = NOW) -> Any:
        return self.newest(key, lsn)[1]

    def live(self, lsn: int = NOW) -> dict[Any, Any]:
        found = ((key, self.get(key, lsn)) for key in self.of)
        return {key: value for key, value in found if value is not ABSENT}

    def forget(self, key: Hashable, lsn: int) -> None:
        self.of[key] = [one for one in self.of.get(key, ()) if one[0] > lsn]


@dataclass
class Happened:
    """An event, appended or captured; its index is not known to the model."""

    lsn: int
    kind: str
    key: str | None
    payload: Any


@dataclass
class Writes:
    """What a transaction wrote and has not committed, over the snapshot it reads."""

    snapshot: int
    of: dict[str, dict[Any, Any]] = field(default_factory=dict)
    events: list[tuple[str, str | None, Any]] = field(default_factory=list)
    read_for_update: set[tuple[str, Any]] = field(default_factory=set)
    # Deletions of what was not there, or that follow from others: the contract does not say
    # whether they conflict.
    idle: set[tuple[str, Any]] = field(default_factory=set)

    def put(self, structure: str, key: Any, value: Any) -> None:
        self.of.setdefault(structure, {})[key] = value


CHECKED: Final = ("things", "blobs", "vectors", "loose", "graph")
"""Structures whose writes conflict; those of caches and contexts are last-writer-wins."""


class Model:
    def __init__(self) -> None:
        names = ("things", "blobs", "vectors", "loose", "graph", "temp", "notes", "facts")
        self.of = {name: Versions() for name in names}
        self.log: list[Happened] = []
        self.idle: dict[tuple[str, Any], int] = {}
        self.commits: dict[int, tuple[str, str | None, str | None]] = {}

    def view(self, structure: str, writes: Writes | None, lsn: int = NOW) -> dict[Any, Any]:
        """Everything that is there, for a transaction or for all."""
        live = self.of[structure].live(lsn if writes is None else writes.snapshot)
        if writes is not None:
            for key, value in writes.of.get(structure, {}).items():
                live.pop(key, None)
                if value is not ABSENT:
                    live[key] = value
        return live

    def commit(self, lsn: int, writes: Writes) -> None:
        for structure, changes in writes.of.items():
            for key, value in changes.items():
                was = self.of[structure].get(key)
                if value is ABSENT and was is ABSENT:
                    continue
                self.of[structure].put(lsn, key, value)
                if structure == "things" and value is ABSENT:
                    linked = self.of["vectors"]
                    if linked.get(key) is not ABSENT:
                        linked.put(lsn, key, ABSENT)
        for place in writes.idle:
            self.idle[place] = lsn
        self.log.extend(Happened(lsn, *event) for event in writes.events)

    def conflicts(self, writes: Writes) -> bool | None:
        """Whether first-committer-wins refuses it; None: the contract leaves it open."""
        if not any(writes.of.values()) and not writes.events:
            return None if writes.read_for_update else False
        touched = {
            (name, key) for name in CHECKED for key in writes.of.get(name, {})
        } | writes.read_for_update
        changed = {
            (name, key) for name, key in touched if self.of[name].newest(key)[0] > writes.snapshot
        }
        sure = changed - writes.idle
        if sure:
            return True
        recently = {place for place, lsn in self.idle.items() if lsn > writes.snapshot}
        linked = {"things": "vectors", "vectors": "things"}
        recently |= {(linked.get(name, name), key) for name, key in recently}
        if changed or recently & touched:
            return None
        # A row's deletion takes its vector with it, and a vector needs its row.
        rows, vectors = writes.of.get("things", {}), writes.of.get("vectors", {})
        for key in {*rows, *vectors}:
            for name in ("things", "vectors"):
                if self.of[name].newest(key)[0] > writes.snapshot:
                    return None
        return False

    def dangling(self, writes: Writes) -> bool:
        """Whether a vector would stand without its row."""
        rows = writes.of.get("things", {})
        return any(
            value is not ABSENT and rows.get(key, self.of["things"].get(key)) is ABSENT
            for key, value in writes.of.get("vectors", {}).items()
        )

    def tally(self, lsn: int = NOW, by: str = "user") -> dict[Any, int]:
        counts: dict[Any, int] = {}
        for document in self.of["things"].live(lsn).values():
            if by in document:
                counts[document[by]] = counts.get(document[by], 0) + 1
        return counts


def kind_of(value: Any) -> str:
    """Values of different kinds are never equal: True is not 1, but 1.0 is."""
    if isinstance(value, bool):
        return "bool"
    return "number" if isinstance(value, int | float) else type(value).__name__


def equal(one: Any, other: Any) -> bool:
    return kind_of(one) == kind_of(other) and bool(one == other)


def matches(document: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    for name, condition in where.items():
        if name not in document:
            return False
        value = document[name]
        if isinstance(condition, list):
            if not any(equal(value, one) for one in condition):
                return False
        elif isinstance(condition, tuple):
            low, high = condition
            if (low is not None and value < low) or (high is not None and value >= high):
                return False
        elif not equal(value, condition):
            return False
    return True


def nearest(
    vectors: Mapping[str, tuple[float, ...]], query: tuple[float, ...], metric: str, k: int
) -> list[tuple[float, str]]:
    def distance(vector: tuple[float, ...]) -> float:
        if metric == "l2":
            return math.dist(vector, query)
        return -sum(a * b for a, b in zip(vector, query, strict=True))

    return sorted((distance(vector), key) for key, vector in vectors.items())[:k]


Edges = Iterable[tuple[str, str, str]]


def reached(edges: Edges, start: str, relation: str | None, way: str, depth: int) -> dict[str, int]:
    """Each node but the start within `depth` steps, and how many they are."""
    known = [edge for edge in edges if relation in (None, edge[1])]
    found, border = {start: 0}, {start}
    for step in range(1, depth + 1):
        onward = {edge[2] for edge in known if way != "in" and edge[0] in border}
        onward |= {edge[0] for edge in known if way != "out" and edge[2] in border}
        border = onward - found.keys()
        found |= dict.fromkeys(border, step)
    del found[start]
    return found
