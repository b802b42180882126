"""Events: an append-only history, in commit order.

With `capture` the changes of rows are read as events too, out of the log and stored nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from waferdb import _core, documents, policies, units
from waferdb.errors import SchemaError
from waferdb.policies import Consistency, Policy
from waferdb.results import Event, Receipt
from waferdb.scope import AsOf
from waferdb.structures.base import Cursor, Structure, check_limit, check_text, freshness_of
from waferdb.structures.rows import Rows

if TYPE_CHECKING:
    from waferdb.structures.base import _Linker

Bound = int | str | datetime | Event

# Behind every operation of a commit.
_LSN_MAX = 2**63
_INDEX_END = 2**32 - 1


class Events(Structure):
    """An append-only sequence of events.

    `capture` names `Rows` (or gives their descriptors) whose changes appear as events of kind
    `"facts.put"` and `"facts.delete"`.

    >>> import waferdb
    >>> db = waferdb.open(":memory:", {"events": Events()})
    >>> _ = db.events.append("preference.learned", {"key": "pref:1"})
    >>> [(event.kind, event.payload) for event in db.events.scan()]
    [('preference.learned', {'key': 'pref:1'})]
    """

    __slots__ = ("capture",)

    KIND = "events"

    capture: tuple[str | Rows[Any, Any], ...]

    def __init__(
        self,
        capture: Sequence[str | Rows[Any, Any]] = (),
        policy: Policy = policies.Eager(),  # noqa: B008 - immutable
    ) -> None:
        super().__init__(policy)
        if isinstance(capture, str | Structure):
            raise SchemaError(f'capture={capture!r}: it is a list of structures, as in ["facts"]')
        self.capture = tuple(capture)

    def _arguments(self) -> dict[str, Any]:
        names = [part.name if isinstance(part, Structure) else part for part in self.capture]
        return {"capture": names} if names else {}

    def _to_json(self, name_of: Callable[[str | Structure, str], str]) -> dict[str, Any]:
        names = [name_of(part, "capture") for part in self.capture]
        return {"kind": "events", "capture": names, "policy": self.policy.to_json()}

    @classmethod
    def _from_json(cls, stored: dict[str, Any]) -> Self:
        return cls(stored["capture"], policies.from_json(stored["policy"]))

    def _check_links(self, name: str, structures: dict[str, Structure], link: _Linker) -> None:
        for part in self.capture:
            if not isinstance(structures[link(part, "capture")], Rows):
                raise SchemaError(f"{name}: capture= names Rows, and {part!r} is none")

    def append(self, kind: str, payload: Any = None, *, key: str | None = None) -> Receipt:
        """Appends an event of a `kind`, with a storable `payload` and the `key` it is about.

        Raises `DocumentError` for a payload that cannot be stored.
        """
        encoded = None if payload is None else documents.encode(payload)
        tx = self._tx
        if tx is None:
            return self._scope.write(_core.Transaction.append, self._id, kind, encoded, key)
        tx.append(self._id, kind, encoded, key)
        return self._receipt

    def scan(
        self,
        *,
        after: Bound | None = None,
        until: Bound | None = None,
        kind: str | None = None,
        key: str | None = None,
        limit: int | None = None,
        reverse: bool = False,
        consistency: Consistency | None = None,
        as_of: AsOf | None = None,
    ) -> Cursor[Event]:
        """The events in commit order: those later than `after`, up to and with `until` (each an
        LSN, an aware time or an `Event`), of one `kind`, about one `key`, at most `limit`.

        `reverse` gives the newest first; `after` and `until` keep their meaning.
        """
        for name, value in (("kind=", kind), ("key=", key)):
            if value is not None:
                check_text(value, name)
        check_limit(limit)
        reader = self._scope.reader(consistency, as_of, self._id)
        low = _place(reader, after, "after")
        high = _place(reader, until, "until")
        core = reader.events(self._id, low, high, kind, key, limit, bool(reverse))
        return Cursor(self._scope, core.page, core.close, freshness_of(reader), _event)

    def __iter__(self) -> Cursor[Event]:
        return self.scan()


def _event(item: tuple[int, int, int, str, str | bytes | None, bytes | None]) -> Event:
    lsn, index, time, kind, key, payload = item
    # Only captured raw rows have keys of bytes, and their values are not encoded.
    value = payload if payload is None or isinstance(key, bytes) else documents.decode(payload)
    if lsn > _LSN_MAX:
        lsn = 0  # the reading transaction's own
    return Event(lsn, index, units.to_datetime(time), kind, key, value)


def _place(reader: _core.Reader, bound: Bound | None, name: str) -> tuple[int, int] | None:
    """The (LSN, index) behind which `bound` ends."""
    if bound is None:
        return None
    if isinstance(bound, Event):
        return bound.lsn, bound.index
    if isinstance(bound, bool) or not isinstance(bound, int | str | datetime):
        raise TypeError(f"{name}= is an LSN, a time or an Event, not {type(bound).__name__}")
    if not isinstance(bound, int):
        return reader.lsn_at_time(units.time(bound, name)), _INDEX_END
    if bound < 0:
        raise ValueError(f"{name}={bound}: an LSN is not negative")
    return bound, _INDEX_END


__all__ = ["Events"]
