"""Views: what a function makes of the groups of a source, and how stale it is.

A view never answers silently with less than there is: each answer says which LSN it reflects and
how many changes it lacks. Computing is the business of `refresh`; here is what a reader sees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self, TypeVar

from waferdb import _core, documents, policies, units
from waferdb.errors import SchemaError, StaleViewError
from waferdb.groups import (
    FUNCTIONS,
    Function,
    Incremental,
    decode_key,
    encode_key,
    function_from_json,
)
from waferdb.policies import Bounded, Consistency, Policy
from waferdb.results import Freshness, Read
from waferdb.scope import Live, Scope, Snapshot, check_consistency
from waferdb.structures.base import Cursor, Structure
from waferdb.structures.rows import Rows

if TYPE_CHECKING:
    from waferdb.refresh import Refresher
    from waferdb.structures.base import _Linker

D = TypeVar("D")

_PAGE = 256


class View(Structure):
    """Results of a function over the groups of a source.

    `function(group) -> document` gets a `Group` (`key`, `rows`, `previous`) and returns a map that
    can be stored; or one of the built-in `Count()`, `Sum(field)`, `Latest(n)`, `Top(n, by=field)`,
    which are kept up by the difference and are always fresh. `source` names `Rows` or another view
    (or gives the descriptor), `by` a field or a tuple of fields to group by: a document that lacks
    one is in no group, and a result that lacks one is grouped by its own group's field of that
    name. A new `version` makes all groups stale.

    `policy` says when a stale group is computed: `eager()` before the commit returns that changed
    it, `hybrid(…)` by a background worker within the bounds (critical commits at once), `lazy()`
    when it is asked for. A call may take `timeout` (a duration); a group whose call fails keeps its
    last result, marked stale, or raises `StaleViewError` from a strong read with
    `on_error="raise"`.

    >>> import waferdb
    >>> from waferdb import Rows, View
    >>> def summarise(group):
    ...     return {"text": "; ".join(row.value["text"] for row in group.rows)}
    >>> db = waferdb.open(":memory:", {
    ...     "facts": Rows(), "profile": View(summarise, source="facts", by="user")})
    >>> _ = db.facts.put("a", {"user": "ann", "text": "prefers email"})
    >>> db.profile.get("ann", consistency="strong")
    {'text': 'prefers email'}
    >>> _ = db.facts.put("b", {"user": "ann", "text": "lives in Bern"})
    >>> db.profile.read("ann").freshness.stale
    True
    """

    __slots__ = (
        "_nested",
        "_source_id",
        "by",
        "function",
        "on_error",
        "source",
        "timeout",
        "version",
    )

    KIND = "view"

    function: Function | Incremental | None
    by: tuple[str, ...]
    version: int
    timeout: int
    on_error: str
    _nested: bool
    _source_id: int

    def __init__(
        self,
        function: Function | Incremental | None,
        source: str | Rows[Any, Any] | View,
        by: str | Sequence[str],
        policy: Policy = policies.Lazy(),  # noqa: B008 - immutable
        version: int = 1,
        timeout: units.Duration = "30s",
        on_error: str = "stale",
    ) -> None:
        super().__init__(policy)
        known: object = function
        if known is not None and not callable(known) and not isinstance(known, FUNCTIONS):
            raise SchemaError(f"a view's function is callable, and {function!r} is not")
        self.function = function
        self.source: str | Structure = source
        self.by = _fields(by)
        if not units.is_int(version) or version < 0:
            raise SchemaError(f"version={version!r}: it is an int from 0 on")
        self.version = version
        self.timeout = units.duration(timeout, "timeout")
        if self.timeout <= 0:
            raise ValueError(f"timeout={timeout!r}: it is more than 0")
        if on_error not in ("stale", "raise"):
            raise SchemaError(f'on_error={on_error!r}: it is "stale" or "raise"')
        self.on_error = on_error
        self._nested = False
        self._source_id = -1

    def _bind(self, scope: Scope, name: str, structure_id: int) -> Self:
        bound = super()._bind(scope, name, structure_id)
        for part in ("function", "source", "by", "version", "timeout", "on_error"):
            setattr(bound, part, getattr(self, part))
        source = scope.shared.catalog.source_of(name)
        bound._nested = isinstance(source.declaration, View)
        bound._source_id = source.id
        return bound

    def _arguments(self) -> dict[str, Any]:
        source = self.source.name if isinstance(self.source, Structure) else self.source
        by = self.by[0] if len(self.by) == 1 else self.by
        return {"function": self.function, "source": source, "by": by, "policy": self.policy}

    def _to_json(self, name_of: Callable[[str | Structure, str], str]) -> dict[str, Any]:
        built_in = isinstance(self.function, FUNCTIONS)
        return {
            "kind": "view",
            "source": name_of(self.source, "source"),
            "by": list(self.by),
            "version": self.version,
            "function": self.function.to_json() if built_in else {"name": "custom"},  # type: ignore[union-attr]
            "timeout": self.timeout,
            "on_error": self.on_error,
            "policy": self.policy.to_json(),
        }

    @classmethod
    def _from_json(cls, stored: dict[str, Any]) -> Self:
        return cls(
            function_from_json(stored["function"]),
            stored["source"],
            stored["by"],
            policies.from_json(stored["policy"]),
            stored["version"],
            timedelta(microseconds=stored["timeout"]),
            stored["on_error"],
        )

    def _check_links(self, name: str, structures: dict[str, Structure], link: _Linker) -> None:
        target: Structure = self
        for _ in structures:
            if not isinstance(target, View):
                break
            target = structures[link(target.source, "source")]
        if isinstance(target, View):
            raise SchemaError(f"{name}: source= leads back to itself")
        if not isinstance(target, Rows) or target.codec != "msgpack":
            raise SchemaError(f'{name}: source= names a View, or a Rows with codec="msgpack"')

    # Reading.

    def get(
        self, key: Any, default: D | None = None, *, consistency: Consistency | None = None
    ) -> documents.Document | D | None:
        """The result of a group, or `default` where there is none: as it is stored (default), or as
        fresh as `consistency` asks, which may compute it. For several fields the key is a tuple.

        Raises `StaleViewError` if it must be computed and cannot be.
        """
        found = self.read(key, consistency=consistency)
        return default if found.value is None else found.value

    def read(self, key: Any, *, consistency: Consistency | None = None) -> Read[documents.Document]:
        """The result with the LSN that wrote it, its time and its freshness: `lsn` up to which it
        reflects the source, `behind` the commits that changed the group since, `age` the time since
        the first of them, `stale` whether there are any."""
        check_consistency(consistency, None)
        scope = self._scope
        group = scope.strong().view_key(self._id, encode_key(key, len(self.by)))
        refresher = scope.shared.refresher
        refresher.note_read(self._id, group)
        if consistency is not None and consistency != "eventual":
            self._ensure(refresher, group, consistency)
        if not isinstance(scope, Live):
            return self._read(scope.strong(), group)
        # The result and what it lacks are of one LSN.
        reader = scope.engine.reader_now()
        try:
            return self._read(reader, group)
        finally:
            reader.close()

    def __getitem__(self, key: Any) -> documents.Document:
        value = self.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def __contains__(self, key: object) -> bool:
        try:
            return self.get(key) is not None
        except TypeError:
            return False

    def _read(self, reader: _core.Reader, group: bytes) -> Read[documents.Document]:
        stored, _ = reader.view_group(self._id, group)
        stale = self._lacks(reader, group, stored)
        freshness = self._freshness(reader, stored, stale)
        if stored is None:
            return Read(None, None, None, freshness)
        document, lsn, _, time = stored
        return Read(documents.decode(document), lsn, units.to_datetime(time), freshness)

    def _freshness(
        self,
        reader: _core.Reader,
        stored: tuple[bytes, int, int, int] | None,
        stale: _core._Stale | None,
    ) -> Freshness:
        if stale is None:
            return Freshness(reader.lsn)
        lsn = 0 if stored is None else min(stored[2], stale[0] - 1)
        age = max(0, self._scope.shared.engine.now() - stale[4])
        return Freshness(lsn, stale[3], timedelta(microseconds=age), True)

    def _lacks(
        self,
        reader: _core.Reader,
        group: bytes,
        stored: tuple[bytes, int, int, int] | None,
    ) -> _core._Stale | None:
        """What the result of a group lacks. Staleness itself keeps no history: of the past it is
        told by the versions of the inputs."""
        stale = self._scope.shared.refresher.lacks(self._id, group, reader)
        if stale is not None or not isinstance(self._scope, Snapshot):
            return stale
        input_lsn = 0 if stored is None else stored[2]
        later = [(v, t) for _, _, v, t in reader.view_inputs(self._id, group) if v > input_lsn]
        if not later or isinstance(self.function, FUNCTIONS):
            return None
        return later[0][0], later[-1][0], 0, len({v for v, _ in later}), later[0][1], 0, True

    def _ensure(self, refresher: Refresher, group: bytes, wanted: Consistency) -> None:
        """Computes the group unless what is stored is as fresh as wanted."""
        scope = self._scope
        reader = scope.strong()
        stored, _ = reader.view_group(self._id, group)
        stale = self._lacks(reader, group, stored)
        if stale is None or (stored is not None and _is_enough(scope, stale, wanted)):
            return
        if not isinstance(scope, Live):
            raise StaleViewError(
                f"{self._name!r} is stale at LSN {reader.lsn}, and {scope.what} reads views "
                "without computing them; read it on the database"
            )
        refresher.fresh(self._id, group, self.on_error)

    # Groups.

    def keys(self) -> Cursor[Any]:
        """The keys of the groups that have a result, in order."""
        reader = self._scope.strong()
        place: list[bytes | None] = [None]
        pages = _pages(lambda after: reader.view_keys(self._id, after, _PAGE), place)
        freshness = Freshness(reader.lsn)
        return Cursor(self._scope, lambda _: next(pages, []), _nothing, freshness, decode_key)

    def __iter__(self) -> Iterator[Any]:
        return self.keys()

    def count(self) -> int:
        """How many groups have a result."""
        return self._scope.strong().count(self._id)

    def stale(self) -> list[Any]:
        """The keys of the groups whose result lacks changes of the source, or of what
        the source is made of."""
        stale = self._scope.shared.refresher.stale(self._id, self._scope.strong())
        return [decode_key(group) for group in stale]

    def refresh(self, key: Any = None) -> int:
        """Computes the stale groups now, or the one of `key`; how many were computed.

        With a key raises `StaleViewError` if its function fails; without, groups that fail are left
        as they are: `db.stats().views` says why.
        """
        live = self._scope.live("refresh()")
        refresher = live.shared.refresher
        if key is None:
            return refresher.refresh(self._id)
        group = self._scope.strong().view_key(self._id, encode_key(key, len(self.by)))
        return refresher.fresh(self._id, group, "raise")

    def lineage(self, key: Any) -> list[int]:
        """The LSNs of the inputs that went into a group's result, ascending: with these versions
        `as_of` reads show what it was made of. `KeyError` without a result.

        Raises `HistoryError` where the history kept is shorter than the result is old.
        """
        reader = self._scope.strong()
        group = reader.view_key(self._id, encode_key(key, len(self.by)))
        stored, _ = reader.view_group(self._id, group)
        if stored is None:
            raise KeyError(key)
        then = self._scope.shared.engine.reader_at(stored[2])
        try:
            return [version for _, _, version, _ in then.view_inputs(self._id, group)]
        finally:
            then.close()


def _fields(by: str | Sequence[str]) -> tuple[str, ...]:
    fields = (by,) if isinstance(by, str) else tuple(by)
    if len(set(fields)) != len(fields):
        raise SchemaError(f"by={by!r} names a field twice")
    if not fields or not all(isinstance(field, str) for field in fields) or "" in fields:
        raise SchemaError(f"by={by!r}: it names a field, or several as a tuple")
    return fields


def _is_enough(scope: Scope, stale: _core._Stale, wanted: Consistency) -> bool:
    """Whether a result that lacks these changes is as fresh as wanted."""
    since, changes, time = stale[0], stale[3], stale[4]
    if isinstance(wanted, Bounded):
        age = scope.shared.engine.now() - time
        return (wanted.max_age is None or age <= wanted.max_age) and (
            wanted.max_commits is None or changes <= wanted.max_commits
        )
    if isinstance(wanted, int):
        return since > wanted
    return wanted == "session" and isinstance(scope, Live) and since > scope.session


def _pages(
    fetch: Callable[[bytes | None], tuple[list[Any], bytes | None]], place: list[bytes | None]
) -> Iterator[list[Any]]:
    """Pages that hold something, until the last."""
    while True:
        page, place[0] = fetch(place[0])
        if page:
            yield page
        if place[0] is None:
            return


def _nothing() -> None:
    """A cursor over pages keeps nothing open."""


__all__ = ["View"]
