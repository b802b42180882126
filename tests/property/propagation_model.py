"""The oracle of the propagation traces: what every structure and view holds at every LSN.

It is the eager answer in plain dicts, kept for each commit, and nothing is shared with the
database but the three functions that a user would write for the views.

1. `history` has a whole `State` for each commit; `at(lsn)` is the newest that is not above it.
2. `touched[name]` are the commits that touch a structure, those of its source included, so that
   "behind" is their number above the LSN that an answer claims.
3. `barriers[name]` is the newest commit that took something out of a structure: a deletion, a
   `forget` or a superseded version. No answer may be older, under any policy.
4. `gone` are versions of rows that nothing may answer or derive from any more: all versions of a
   key up to an LSN. A row overwritten or moved to another group is not among them.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from typing import Any, NamedTuple

Document = dict[str, Any]
Group = Any  # the value of the field, or a tuple for several

STRUCTURES = ("facts", "vectors", "hot", "session", "events", "journal", "context", "graph")
IDENTITY = ("subject", "attribute")


class Operation(NamedTuple):
    """One write, as a name and arguments that are plain values."""

    name: str
    args: tuple[Any, ...]

    def calls(self) -> list[tuple[str, str, tuple[Any, ...], dict[str, Any]]]:
        """What it is in calls of the database: structure, method, arguments."""
        match self.name, self.args:
            case "put with vector", (key, document, vector):
                return [
                    ("facts", "put", (key, document), {}),
                    ("vectors", "put", (key, vector), {}),
                ]
            case "append", (kind, payload, key):
                return [("events", "append", (kind, payload), {"key": key})]
            case "forget", (key, structures, scopes):
                return [
                    *(("context", "_forget", (scope, key), {}) for scope in scopes),
                    *((structure, "_forget", (key,), {}) for structure in structures),
                ]
            case name, args:
                structure, method = name.split(".")
                return [(structure, method, args, {})]
        raise AssertionError(self)


class Version(NamedTuple):
    """A row's document and the LSN that wrote it."""

    lsn: int
    document: Document


class Told(NamedTuple):
    """An event."""

    lsn: int
    kind: str
    key: str | None
    payload: Any


@dataclass
class State:
    """Everything, as it stands after one commit."""

    facts: dict[str, Version] = field(default_factory=dict)
    vectors: dict[str, list[float]] = field(default_factory=dict)
    session: dict[str, Any] = field(default_factory=dict)
    context: dict[tuple[str, str], Any] = field(default_factory=dict)
    graph: dict[tuple[str, str, str], Any] = field(default_factory=dict)
    events: list[Told] = field(default_factory=list)
    journal: list[Told] = field(default_factory=list)

    def copy(self) -> State:
        return State(
            dict(self.facts),
            dict(self.vectors),
            dict(self.session),
            dict(self.context),
            dict(self.graph),
            list(self.events),
            list(self.journal),
        )

    def forget(self, key: str) -> None:
        self.facts.pop(key, None)
        self.vectors.pop(key, None)
        self.session.pop(key, None)
        self.context = {place: v for place, v in self.context.items() if place[1] != key}
        self.events = [event for event in self.events if event.key != key]
        self.journal = [event for event in self.journal if event.key != key]


def identity_of(document: Document) -> tuple[Any, ...] | None:
    """What the document is about; None if it lacks one of the fields."""
    if any(name not in document for name in IDENTITY):
        return None
    return tuple(document[name] for name in IDENTITY)


# Of each group of a view: the keys and versions of its rows.
Members = dict[Group, set[tuple[str, int]]]

# The views: what a user's function makes of the rows of a group, given as (key, version, value).

Inputs = list[tuple[Any, int, Document]]


def summary(group: Group, rows: Inputs) -> Document:
    """Names every version it is made of, so that a result tells which inputs it had."""
    seen = sorted([version, key, value["text"]] for key, version, value in rows)
    return {"seen": seen, "total": sum(value["n"] for _, _, value in rows)}


def rollup(group: Group, rows: Inputs) -> Document:
    """A summary of summaries; in which `parity` it is changes as its inputs do."""
    total = sum(value["total"] for _, _, value in rows)
    return {
        "seen": sorted(item for _, _, value in rows for item in value["seen"]),
        "days": sorted(key[1] for key, _, _ in rows),
        "total": total,
        "parity": total % 2,
    }


def league(group: Group, rows: Inputs) -> Document:
    """The third level: who is in this parity now."""
    return {
        "seen": sorted(item for _, _, value in rows for item in value["seen"]),
        "users": sorted(key for key, _, _ in rows),
    }


@dataclass(frozen=True)
class Grouping:
    """What a view with a function is."""

    source: str
    by: tuple[str, ...]
    function: Callable[[Group, Inputs], Document]

    def group_of(self, fields: Document) -> Group | None:
        """The group of an input; None if it lacks a field."""
        if any(name not in fields for name in self.by):
            return None
        values = tuple(fields[name] for name in self.by)
        return values if len(values) > 1 else values[0]

    def fields_of(self, group: Group) -> Document:
        """The fields that a group's key gives a view over this one."""
        return dict(zip(self.by, group if len(self.by) > 1 else (group,), strict=True))


VIEWS = {
    "by_user": Grouping("facts", ("user",), summary),
    "by_day": Grouping("facts", ("user", "day"), summary),
    "of_user": Grouping("by_day", ("user",), rollup),
    "of_parity": Grouping("of_user", ("parity",), league),
}
OVER_ROWS = tuple(name for name, view in VIEWS.items() if view.source == "facts")
BUILT_IN = ("counts", "sums", "newest", "best")


class Model:
    """The history of one database."""

    def __init__(self) -> None:
        self.history: dict[int, State] = {0: State()}
        self._lsns = [0]
        self.times: dict[int, datetime] = {}
        self.priorities: dict[int, str] = {}
        self.touched: dict[str, list[int]] = {name: [] for name in STRUCTURES}
        self.barriers: dict[str, int] = dict.fromkeys(STRUCTURES, 0)
        self.gone: dict[str, int] = {}
        self.forgotten: dict[str, int] = {}
        self.superseded: dict[int, list[str]] = {}
        # Of each group of a view over rows: the commits that changed its inputs, and the newest
        # that left none of its rows, so that it may count as gone, and made anew.
        self.changed: dict[tuple[str, Group], list[int]] = {}
        self.remade: dict[tuple[str, Group], int] = {}
        self._answers: dict[tuple[str, int], dict[Group, Document]] = {}

    # Reading.

    @property
    def lsn(self) -> int:
        return self._lsns[-1]

    @property
    def newest(self) -> State:
        return self.history[self.lsn]

    def at(self, lsn: int) -> State:
        return self.history[self._place(lsn)]

    def _place(self, lsn: int) -> int:
        return self._lsns[bisect.bisect_right(self._lsns, lsn) - 1]

    def waiting(self, name: str, lsn: int) -> list[int]:
        """The commits that touch a structure and are above `lsn`."""
        return [commit for commit in self.touched[name] if commit > lsn]

    def waiting_group(self, view: str, group: Group, lsn: int) -> list[int]:
        """The commits above `lsn` that changed the inputs of a group of a view over rows."""
        return [commit for commit in self.changed.get((view, group), ()) if commit > lsn]

    def answers(self, view: str, lsn: int | None = None) -> dict[Group, Document]:
        """What eager would have stored for each group of a view, at an LSN."""
        place = (view, self._place(self.lsn if lsn is None else lsn))
        if place not in self._answers:
            spec = VIEWS[view]
            members = self._members(view, place[1])
            self._answers[place] = {
                group: spec.function(group, rows) for group, rows in members.items()
            }
        return self._answers[place]

    def _members(self, view: str, lsn: int) -> dict[Group, Inputs]:
        spec = VIEWS[view]
        members: dict[Group, Inputs] = {}
        for key, version, fields, value in self._inputs(spec.source, lsn):
            group = spec.group_of(fields)
            if group is not None:
                members.setdefault(group, []).append((key, version, value))
        return members

    def _inputs(self, source: str, lsn: int) -> Iterator[tuple[Any, int, Document, Document]]:
        if source == "facts":
            for key, version in self.at(lsn).facts.items():
                yield key, version.lsn, version.document, version.document
        else:
            for group, result in self.answers(source, lsn).items():
                yield group, 0, {**VIEWS[source].fields_of(group), **result}, result

    def days_of(self, user: str) -> list[Group]:
        """The groups of `by_day` that `of_user` takes in for one user."""
        return [group for group in self.answers("by_day") if group[0] == user]

    # Writing.

    def commit(
        self, lsn: int, time: datetime, priority: str, operations: Iterable[Operation]
    ) -> Change:
        """One transaction."""
        assert lsn > self.lsn, f"commit {lsn} is not above {self.lsn}"
        before = {view: self._versions(view) for view in OVER_ROWS}
        state, change = self.newest.copy(), Change(lsn)
        for operation in operations:
            self._apply(state, operation, change)
        self.history[lsn] = state
        self._lsns.append(lsn)
        self.times[lsn], self.priorities[lsn] = time, priority
        self.superseded[lsn] = change.superseded
        for name in change.touched:
            self.touched[name].append(lsn)
        for name in change.barriers:
            self.barriers[name] = lsn
        self.gone.update(dict.fromkeys(change.removed, lsn))
        self._note_groups(before, change)
        return change

    def _apply(self, state: State, operation: Operation, change: Change) -> None:
        match operation.name, operation.args:
            case "facts.put", (key, document):
                self._put(state, key, document, change)
            case "put with vector", (key, document, vector):
                self._put(state, key, document, change)
                state.vectors[key] = vector
                change.touch("vectors")
            case "facts.patch", (key, changes):
                self._put(state, key, {**state.facts[key].document, **changes}, change)
            case "facts.delete", (key,):
                self._remove(state, key, change)
                state.journal.append(Told(change.lsn, "facts.delete", key, None))
                change.touch("journal")
            case "forget", (key, structures, scopes):
                forgotten = {*structures, *(("context",) if scopes else ())}
                self._forget(state, key, forgotten, change)
            case "append", (kind, payload, key):
                state.events.append(Told(change.lsn, kind, key, payload))
                change.touch("events")
            case name, args:
                structure, method = name.split(".")
                self._apply_plain(state, structure, method, args, change)

    def _apply_plain(
        self, state: State, structure: str, method: str, args: tuple[Any, ...], change: Change
    ) -> None:
        """Structures that are plain maps: the last argument of a write is its value."""
        content = getattr(state, structure)
        if method in ("delete", "unlink"):
            place = args
            change.bar(structure)
        else:
            place = args[:-1]
        place = place if structure in ("context", "graph") else place[0]
        if method in ("delete", "unlink"):
            del content[place]
        else:
            content[place] = args[-1]
        change.touch(structure)

    def _put(self, state: State, key: str, document: Document, change: Change) -> None:
        identity = identity_of(document)
        for other, older in list(state.facts.items()):
            differs = older.document != document
            if identity is None or identity_of(older.document) != identity or not differs:
                continue
            versions = {
                "older": {"key": other, "version": older.lsn},
                "newer": {"key": key, "version": change.lsn},
            }
            state.journal.append(Told(change.lsn, "contradiction", key, versions))
            change.superseded.append(other)
            if other == key:
                change.bar("facts", "hot")
            else:
                self._remove(state, other, change)
        state.facts[key] = Version(change.lsn, document)
        state.journal.append(Told(change.lsn, "facts.put", key, document))
        change.touch("facts", "hot", "journal")

    def _remove(self, state: State, key: str, change: Change) -> None:
        """A row goes, and with it what is linked to it."""
        del state.facts[key]
        change.removed.append(key)
        change.bar("facts", "hot")
        change.touch("facts", "hot", "journal")
        if state.vectors.pop(key, None) is not None:
            change.bar("vectors")
            change.touch("vectors")

    def _forget(self, state: State, key: str, structures: set[str], change: Change) -> None:
        if key in state.facts:
            structures = structures | {"hot"}
        change.forgot = change.forgot or "facts" in structures
        for past in (*self.history.values(), state):
            past.forget(key)
        self._answers.clear()
        self.forgotten[key] = change.lsn
        change.removed.append(key)
        change.bar(*structures)
        change.touch(*structures)

    def _note_groups(self, before: dict[str, Members], change: Change) -> None:
        """Which groups of the views over rows the commit changed, and which lost inputs to it."""
        for view, old in before.items():
            new = self._versions(view)
            for group in {**old, **new}:
                lost = old.get(group, set()) - new.get(group, set())
                if old.get(group) != new.get(group):
                    self.changed.setdefault((view, group), []).append(change.lsn)
                    change.groups.add((view, group))
                if any(key in change.removed for key, _ in lost):
                    change.bereft.add((view, group))
                if not {key for key, _ in old.get(group, ())} & {k for k, _ in new.get(group, ())}:
                    self.remade[view, group] = change.lsn

    def _versions(self, view: str) -> Members:
        found: Members = {}
        for key, version in self.newest.facts.items():
            group = VIEWS[view].group_of(version.document)
            if group is not None:
                found.setdefault(group, set()).add((key, version.lsn))
        return found


@dataclass
class Change:
    """What one commit did: to structures, to rows, and to groups of the views over rows."""

    lsn: int
    touched: set[str] = field(default_factory=set)
    barriers: set[str] = field(default_factory=set)
    removed: list[str] = field(default_factory=list)
    superseded: list[str] = field(default_factory=list)
    groups: set[tuple[str, Group]] = field(default_factory=set)
    bereft: set[tuple[str, Group]] = field(default_factory=set)
    forgot: bool = False  # a row, with all that any of its versions went into

    def touch(self, *names: str) -> None:
        self.touched |= set(names)

    def bar(self, *names: str) -> None:
        self.barriers |= set(names)


def built_in(view: str, state: State, user: str) -> Document | None:
    """What a built-in view answers for a user; None where there are no rows."""
    rows = {k: v for k, v in state.facts.items() if v.document.get("user") == user}
    if not rows:
        return None
    match view:
        case "counts":
            return {"count": len(rows)}
        case "sums":
            amounts = [v.document.get("amount") for v in rows.values()]
            numbers = [amount for amount in amounts if isinstance(amount, int | float)]
            total = sum(map(Fraction, numbers), Fraction())
            exact = int(total) if total.denominator == 1 else float(total)
            return {"sum": exact, "count": len(numbers)}
        case "newest":
            first = sorted(rows, key=lambda key: (-rows[key].lsn, key))[:2]
        case _:
            first = sorted(rows, key=lambda key: (-rows[key].document["n"], key))[:2]
    entries = [{"key": k, "version": rows[k].lsn, "value": rows[k].document} for k in first]
    return {"rows": entries}
