"""Cache: values by key that expire, filled by hand or from rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self, TypeVar

from waferdb import _core, documents, policies, units
from waferdb.errors import SchemaError
from waferdb.policies import Consistency, Policy
from waferdb.results import Read, Receipt
from waferdb.scope import AsOf
from waferdb.structures.base import Keyed, Structure, freshness_of, read_of
from waferdb.structures.rows import Rows

if TYPE_CHECKING:
    from waferdb.structures.base import _Linker

D = TypeVar("D")


class Cache(Keyed[str]):
    """Values that are gone after `ttl` (a duration), with at most `capacity` of them.

    An expired entry is never returned, whatever the clock does. With `source` (the name of a `Rows`
    or its descriptor) it fills itself from the rows written, costs no log bytes, and an entry goes
    with its row. The last writer wins; writes outside a transaction do not wait for the disk.

    >>> import waferdb
    >>> db = waferdb.open(":memory:", {"session": Cache(ttl="30m")})
    >>> _ = db.session.put("topic", "contact")
    >>> db.session.get("topic")
    'contact'
    """

    __slots__ = ("capacity", "source", "ttl")

    KIND = "cache"

    ttl: int
    capacity: int | None

    def __init__(
        self,
        ttl: units.Duration,
        source: str | Rows[Any, Any] | None = None,
        capacity: int | None = None,
        policy: Policy = policies.Eager(),  # noqa: B008 - immutable
    ) -> None:
        super().__init__(policy)
        self.ttl = units.positive_duration(ttl, "ttl")
        self.source: str | Rows[Any, Any] | None = source
        if capacity is not None and (not units.is_int(capacity) or capacity < 1):
            raise SchemaError(f"capacity={capacity!r}: it is None or an int of at least 1")
        self.capacity = capacity

    def _bind(self, scope: Any, name: str, structure_id: int) -> Self:
        bound = super()._bind(scope, name, structure_id)
        bound.ttl = self.ttl
        bound.source = self.source
        bound.capacity = self.capacity
        return bound

    def _arguments(self) -> dict[str, Any]:
        source = self.source.name if isinstance(self.source, Structure) else self.source
        shown = {"source": source, "capacity": self.capacity}
        given = {name: value for name, value in shown.items() if value is not None}
        return {"ttl": self.ttl / 1_000_000} | given

    def _to_json(self, name_of: Callable[[str | Structure, str], str]) -> dict[str, Any]:
        return {
            "kind": "cache",
            "ttl": self.ttl,
            "source": None if self.source is None else name_of(self.source, "source"),
            "capacity": self.capacity,
            "policy": self.policy.to_json(),
        }

    @classmethod
    def _from_json(cls, stored: dict[str, Any]) -> Self:
        policy = policies.from_json(stored["policy"])
        declared = cls(1, stored["source"], stored["capacity"], policy)
        declared.ttl = stored["ttl"]
        return declared

    def _check_links(self, name: str, structures: dict[str, Structure], link: _Linker) -> None:
        if self.source is not None:
            target = structures[link(self.source, "source")]
            if not isinstance(target, Rows) or target.codec != "msgpack":
                raise SchemaError(f'{name}: source= names a Rows with codec="msgpack"')

    def put(self, key: str, value: Any, ttl: units.Duration | None = None) -> Receipt:
        """Stores any storable `value` for `ttl` (by default the structure's)."""
        if key.__class__ is not str:
            self._check_key(key)
        micros = None if ttl is None else units.positive_duration(ttl, "ttl")
        encoded = documents.encode(value)
        tx = self._tx
        if tx is None:
            put = _core.Transaction.cache_put
            return self._scope.write_loosely(put, self._id, key, encoded, micros)
        tx.cache_put(self._id, key, encoded, micros)
        return self._receipt

    def delete(self, key: str) -> Receipt:
        """Deletes an entry; no error if there is none."""
        if key.__class__ is not str:
            self._check_key(key)
        return self._scope.write_loosely(_core.Transaction.delete, self._id, key)

    def get(
        self, key: str, default: D | None = None, *, consistency: Consistency | None = None
    ) -> Any | D | None:
        """The value under `key`, or `default` if there is none or it has expired."""
        if key.__class__ is not str:
            self._check_key(key)
        raw = self._reader(consistency, None).get(self._id, key)
        return default if raw is None else documents.decode(raw)

    def read(self, key: str, *, consistency: Consistency | None = None) -> Read[Any]:
        """The value with its version, time and freshness; absent: a `Read` of None."""
        if key.__class__ is not str:
            self._check_key(key)
        reader = self._scope.reader(consistency, None, self._id)
        return read_of(reader.read(self._id, key), documents.decode, freshness_of(reader))

    def _check_past(self, as_of: AsOf | None) -> None:
        if as_of is not None:
            raise TypeError("a cache keeps no history; as_of= is for other structures")

    def __getitem__(self, key: str) -> Any:
        if key.__class__ is not str:
            self._check_key(key)
        raw = self._scope.strong().get(self._id, key)
        if raw is None:
            raise KeyError(key)
        return documents.decode(raw)


__all__ = ["Cache"]
