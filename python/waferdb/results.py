"""What calls return: small immutable values, with times as aware UTC `datetime`s.

A `Receipt` is the exception: it is handed out before its commit and is filled in by it.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from waferdb import _core, _html, units
from waferdb.errors import PendingError

if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    T = TypeVarWithDefault("T", default=Any)
else:
    T = TypeVar("T")

__all__ = [
    "Change",
    "Commit",
    "Controller",
    "Edge",
    "Event",
    "Freshness",
    "Hit",
    "Hits",
    "Key",
    "Lag",
    "Latency",
    "Neighbor",
    "Plan",
    "Problem",
    "Read",
    "Receipt",
    "Recent",
    "Report",
    "Stats",
    "VectorPlan",
    "ViewStats",
    "Watched",
]

Key = str | bytes


class Receipt:
    """What a commit came to: `lsn`, `time`, `durable`, `leaf`, `txn`, `lagging`.

    Inside a transaction every write returns the receipt of the whole transaction; its fields raise
    `PendingError` until the commit, and for good if there is none.
    """

    __slots__ = ("_commit", "_fate", "_lagging")

    def __init__(
        self, commit: "_core._Commit | None" = None, lagging: tuple[str, ...] = ()
    ) -> None:
        self._commit = commit
        self._lagging = lagging
        self._fate = "its transaction has not committed yet"

    def _committed(self) -> "_core._Commit":
        commit = self._commit
        if commit is None:
            raise PendingError(f"the receipt has nothing to say: {self._fate}")
        return commit

    @property
    def lsn(self) -> int:
        """The log sequence number; of a transaction that wrote nothing, the LSN it read at."""
        return self._committed()[0]

    @property
    def time(self) -> datetime:
        """The commit's time."""
        return units.to_datetime(self._committed()[1])

    @property
    def durable(self) -> bool:
        """Whether the commit was synced to disk when the call returned."""
        return self._committed()[2]

    @property
    def leaf(self) -> bytes | None:
        """The hash of the audit leaf, 32 bytes; None without an audit structure."""
        return self._committed()[3]

    @property
    def txn(self) -> str:
        """The transaction's id, for `db.outcome`."""
        return self._committed()[4]

    @property
    def lagging(self) -> tuple[str, ...]:
        """The views that were to reflect the commit before the call returned and do not yet: their
        functions failed or ran past their time. `db.stats().views` says why."""
        self._committed()
        return self._lagging

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Receipt):
            return NotImplemented
        return self is other or (self._commit is not None and self._commit == other._commit)

    def __hash__(self) -> int:
        return id(self) if self._commit is None else hash(self._commit)

    def __repr__(self) -> str:
        if self._commit is None:
            return f"Receipt({self._fate})"
        return (
            f"Receipt(lsn={self.lsn}, time={self.time.isoformat()!r}, durable={self.durable}, "
            f"txn={self.txn!r})"
        )


@dataclass(frozen=True, slots=True)
class Freshness:
    """How current an answer is: the LSN it reflects, how many relevant commits and how much time it
    is behind, and whether it is known to be stale."""

    lsn: int
    behind: int = 0
    age: timedelta = timedelta(0)
    stale: bool = False


@dataclass(frozen=True, slots=True)
class Read(Generic[T]):
    """A value with its version (the LSN that wrote it), its commit's time and its freshness.

    Absent: `value`, `version` and `time` are None. What the reading transaction wrote itself has no
    `version` before its commit.
    """

    value: T | None
    version: int | None
    time: datetime | None
    freshness: Freshness


@dataclass(frozen=True, slots=True)
class Hit:
    """One result of a vector search; `row` is the linked row's document, None without a link."""

    key: str
    distance: float
    row: Any = None


class Hits(Sequence[Hit]):
    """The results of a vector search, nearest first.

    `keys` is a list of str, `distances` a read-only float32 array of the same length, `freshness`
    says which LSN was searched. Rows are decoded when a hit is taken.
    """

    __slots__ = ("_decode", "_rows", "distances", "freshness", "keys")

    keys: list[str]
    distances: NDArray[np.float32]
    freshness: Freshness

    def __init__(
        self,
        keys: list[str],
        distances: Sequence[float],
        rows: list[bytes | None] | None,
        decode: Callable[[bytes], Any],
        freshness: Freshness,
    ) -> None:
        self.keys = keys
        self.distances = np.array(distances, dtype=np.float32)
        self.distances.flags.writeable = False
        self._rows = rows
        self._decode = decode
        self.freshness = freshness

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> "list[Hit]": ...
    def __getitem__(self, index: int | slice) -> "Hit | list[Hit]":
        if isinstance(index, slice):
            return [self._hit(place) for place in range(*index.indices(len(self.keys)))]
        return self._hit(range(len(self.keys))[index])

    def __iter__(self) -> Iterator[Hit]:
        return map(self._hit, range(len(self.keys)))

    def _hit(self, place: int) -> Hit:
        raw = None if self._rows is None else self._rows[place]
        row = None if raw is None else self._decode(raw)
        return Hit(self.keys[place], float(self.distances[place]), row)

    def __repr__(self) -> str:
        shown = ", ".join(f"{hit.key!r}: {hit.distance:.4f}" for hit in self[:5])
        return f"Hits({shown}{', …' if len(self) > 5 else ''})"

    def _repr_html_(self) -> str:
        return _html.table(
            ("key", "distance", "row"), [(h.key, f"{h.distance:.4f}", h.row) for h in self[:50]]
        )


@dataclass(frozen=True, slots=True)
class Event:
    """One event: `lsn` of its commit and `index` in it are its place in the order of all events.

    `lsn` is 0 for events of the reading transaction itself, which come last.
    """

    lsn: int
    index: int
    time: datetime
    kind: str
    key: Key | None
    payload: Any


@dataclass(frozen=True, slots=True)
class Neighbor:
    """A node reached by a walk: over which relation, at what depth, with that edge's props."""

    node: str
    relation: str
    depth: int
    props: Any = None


@dataclass(frozen=True, slots=True)
class Edge:
    """One edge of a graph."""

    src: str
    relation: str
    dst: str
    props: Any = None


@dataclass(frozen=True, slots=True)
class Change:
    """One operation of a commit: which structure, what was done, to which key, and the value.

    A key of several parts (context: scope and name; graph: source, relation, destination) is a
    tuple. `value` is None for a deletion and for what was forgotten since, and stays encoded
    (bytes) where the structure exists no more.
    """

    structure: str
    kind: str
    key: Key | tuple[Key, ...]
    value: Any


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit of the log, with its changes in the order they were made."""

    lsn: int
    time: datetime
    txn: str
    actor: str | None
    reason: str | None
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """How a `find` is answered.

    `access` is `"index"` or `"scan"`; `index` the fields of the index used, of which `equal` are
    matched by value and `range` by a range; `filter` are the fields checked on each row; `sorted`
    says whether rows have to be sorted for the order asked for.
    """

    access: str
    index: tuple[str, ...] | None
    equal: tuple[str, ...]
    range: str | None
    filter: tuple[str, ...]
    sorted: bool

    @classmethod
    def _from_json(cls, text: str) -> "Plan":
        plan = json.loads(text)
        index = plan["index"]
        return cls(
            plan["access"],
            None if index is None else tuple(index),
            tuple(plan["equal"]),
            plan["range"],
            tuple(plan["filter"]),
            plan["sorted"],
        )


@dataclass(frozen=True, slots=True)
class VectorPlan:
    """How a search is answered: `access` is `"exact"` (each vector, or each that matches, is
    compared), `"graph"` (sealed ones are found through graphs) or `"filtered-graph"` (and their
    rows looked at on the way). `vectors` is how many there are; `rows` the plan of the filter over
    the linked rows, None without one; `matching` how many rows match, None where that was not
    counted to choose."""

    access: str
    vectors: int
    rows: Plan | None
    matching: int | None = None


@dataclass(frozen=True, slots=True)
class Lag:
    """What a structure does not reflect yet: commits, and the age of the oldest of them; and what
    is left to do on disk: bytes in memory that are not in files yet (about), the files that a read
    may have to look into, the bytes of the merge that is due, and the vectors that no graph links,
    so that a search compares each of them."""

    commits: int
    age: timedelta
    memtable_bytes: int = 0
    runs: int = 0
    merge_bytes: int = 0
    unsealed: int = 0


@dataclass(frozen=True, slots=True)
class ViewStats:
    """Of a view since the database was opened: how many of its groups are `stale`, how many results
    were `computed` and how many calls `failed`, and why groups are `stalled`, by their keys."""

    stale: int
    computed: int
    failed: int
    stalled: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Controller:
    """How a `waf_budget` is held: hybrid structures and views use the part `scale` of their
    declared bounds (at most 1.0), merges take `fan_out` files; `reason` is `"within_budget"`,
    `"under_budget"`, `"over_budget"`, `"at_bound"` or `"idle"`, `waf` what the last windows came
    to."""

    budget: float
    scale: float
    fan_out: int
    reason: str
    waf: float

    def __str__(self) -> str:
        return f"{self.waf:.2f} of {self.budget:g}, {self.reason}, scale {self.scale:.2f}"


@dataclass(frozen=True, slots=True)
class Recent:
    """What was written lately: `by` maps (structure, cause) to bytes, over the last `seconds` (at
    most about 60)."""

    seconds: float
    by: Mapping[tuple[str, str], int]


@dataclass(frozen=True, slots=True)
class Watched:
    """What was compared with the log while the database was idle: how many `rounds` over all
    structures, up to which `lsn` the last, and what differed and was made again: (structure, LSN,
    the first difference)."""

    rounds: int
    lsn: int
    repaired: tuple[tuple[str, int, str], ...]

    @classmethod
    def _from_json(cls, raw: Mapping[str, Any]) -> "Watched":
        repaired = (
            tuple(found[part] for part in ("structure", "lsn", "what")) for found in raw["repaired"]
        )
        return cls(raw["rounds"], raw["lsn"], tuple(repaired))


@dataclass(frozen=True, slots=True)
class Latency:
    """A latency histogram: how many, and percentiles and maximum in microseconds."""

    count: int
    p50: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Stats:
    """What the engine did since it was opened; bytes and counts.

    `logical_bytes` are the unique payload bytes handed in, `physical_bytes` all bytes written,
    `waf` their ratio (0.0 before the first write). `by` maps (structure, cause) to bytes, with the
    causes log, flush, merge, seal, checkpoint and reclaim. `files` maps names to bytes, `latency`
    the operations to their histograms, `lag` the structures to what they lack, `policies` the
    structures to `{"declared": …, "in_force": …}`, `views` the views to their groups' fates,
    `recent` is what was written in the last minute, `controller` how a `waf_budget` is held,
    `watch` what was compared with the log at idle.
    `compression` has, of the values that were tried, `values`, `bytes_in` and `bytes_out`, and how
    many `dictionaries` the log holds. `torn_tail` tells what opening dropped at the end of the log,
    if anything: bytes of a write that was never acknowledged.
    """

    lsn: int
    durable_lsn: int
    commits: int
    syncs: int
    logical_bytes: int
    physical_bytes: int
    by: Mapping[tuple[str, str], int]
    lag: Mapping[str, Lag]
    files: Mapping[str, int]
    latency: Mapping[str, Latency]
    oldest_snapshot: int | None
    policies: Mapping[str, Mapping[str, Any]]
    memory: Mapping[str, Any] = field(default_factory=dict)
    compression: Mapping[str, int] = field(default_factory=dict)
    torn_tail: str | None = None
    rebuilt: str | None = None
    views: Mapping[str, ViewStats] = field(default_factory=dict)
    recent: Recent = Recent(0.0, {})
    controller: Controller | None = None
    watch: Watched = Watched(0, 0, ())

    @property
    def waf(self) -> float:
        """Write amplification: physical over logical bytes; 0.0 when nothing was handed in."""
        return self.physical_bytes / self.logical_bytes if self.logical_bytes else 0.0

    @property
    def commits_per_sync(self) -> float:
        """Commits that share one sync on average; 0.0 before the first sync."""
        return self.commits / self.syncs if self.syncs else 0.0

    @classmethod
    def _from_json(cls, text: str, views: Mapping[str, ViewStats] | None = None) -> "Stats":
        raw = json.loads(text)
        return cls(
            lsn=raw["lsn"],
            durable_lsn=raw["durable_lsn"],
            commits=raw["commits"],
            syncs=raw["syncs"],
            logical_bytes=raw["logical_bytes"],
            physical_bytes=raw["physical_bytes"],
            by={(structure, cause): count for structure, cause, count in raw["by"]},
            lag={
                name: Lag(
                    lag["commits"],
                    timedelta(seconds=lag["age"]),
                    lag["memtable_bytes"],
                    lag["runs"],
                    lag["merge_bytes"],
                    lag["unsealed"],
                )
                for name, lag in raw["lag"].items()
            },
            files=dict(raw["files"]),
            latency={
                name: Latency(*(shape[part] for part in ("count", "p50", "p90", "p99", "max")))
                for name, shape in raw["latency"].items()
            },
            oldest_snapshot=raw["oldest_snapshot"],
            policies=raw["policies"],
            memory=raw["memory"],
            compression=raw["compression"],
            torn_tail=raw["torn_tail"],
            rebuilt=raw["rebuilt"],
            views=dict(views or {}),
            recent=Recent(
                raw["recent"]["seconds"],
                {(structure, cause): count for structure, cause, count in raw["recent"]["by"]},
            ),
            watch=Watched._from_json(raw["watch"]),
            controller=None if raw["controller"] is None else Controller(**raw["controller"]),
        )

    def _summary(self) -> list[tuple[str, str]]:
        rows = [
            ("lsn", f"{self.lsn:,} (durable {self.durable_lsn:,})"),
            ("commits", f"{self.commits:,} in {self.syncs:,} syncs"),
            ("commits per sync", f"{self.commits_per_sync:.2f}"),
            ("logical bytes", f"{self.logical_bytes:,}"),
            ("physical bytes", f"{self.physical_bytes:,}"),
            ("write amplification", f"{self.waf:.2f}"),
            *([] if self.controller is None else [("waf budget", str(self.controller))]),
            ("files", f"{len(self.files)}, {sum(self.files.values()):,} bytes"),
            ("oldest snapshot", str(self.oldest_snapshot)),
        ]
        if self.torn_tail is not None:
            rows.append(("dropped when opened", self.torn_tail))
        if self.rebuilt is not None:
            rows.append(("made again when opened", self.rebuilt))
        rows += [
            (f"{name} latency", f"p50 {shape.p50:,.0f} µs, p99 {shape.p99:,.0f} µs")
            for name, shape in self.latency.items()
        ]
        rows += [
            (f"bytes of {structure or 'the log'} for {cause}", f"{count:,}")
            for (structure, cause), count in sorted(self.by.items())
        ]
        rows += [
            (f"{name} lacks", f"{lag.commits:,} commits, the first {lag.age} old")
            for name, lag in self.lag.items()
            if lag.commits
        ]
        rows += [
            (f"{name} is stale in", f"{view.stale:,} groups; {len(view.stalled):,} fail")
            for name, view in self.views.items()
            if view.stale
        ]
        return rows

    def __repr__(self) -> str:
        return (
            f"<Stats at LSN {self.lsn:,}: {self.commits:,} commits in {self.syncs:,} syncs, "
            f"{self.logical_bytes:,} bytes handed in, waf {self.waf:.2f}>"
        )

    def __str__(self) -> str:
        rows = self._summary()
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)

    def _repr_html_(self) -> str:
        return _html.table(("since open", ""), self._summary())


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding of `verify`: where, at which LSN (if one), what is wrong, what is lost."""

    where: str
    lsn: int | None
    what: str
    lost: str


@dataclass(frozen=True, slots=True)
class Report:
    """The answer of `verify`: `ok`, the `problems`, and how much of each thing was `checked`."""

    ok: bool
    problems: tuple[Problem, ...]
    checked: Mapping[str, int]

    @classmethod
    def _from_json(cls, text: str) -> "Report":
        raw = json.loads(text)
        problems = tuple(
            Problem(found["where"], found["lsn"], found["what"], found["lost"])
            for found in raw["problems"]
        )
        return cls(raw["ok"], problems, raw["checked"])

    def __bool__(self) -> bool:
        return self.ok

    def _repr_html_(self) -> str:
        checked = ", ".join(f"{count:,} {what}" for what, count in self.checked.items())
        if self.ok:
            return f"<p>ok: {_html.text(checked)}</p>"
        rows = [(p.where, p.lsn, p.what, p.lost) for p in self.problems]
        return _html.table(("where", "lsn", "what", "lost"), rows)
