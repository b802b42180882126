"""Context: learned patterns, by scope and name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self, TypeVar

from waferdb import _core, documents, policies
from waferdb.policies import Consistency, Policy
from waferdb.results import Read, Receipt
from waferdb.scope import AsOf
from waferdb.structures.base import Structure, freshness_of, read_of

D = TypeVar("D")


class Context(Structure):
    """Values by scope and name; a scope (a user, a project) is loaded at once.

    The last writer wins.

    >>> import waferdb
    >>> db = waferdb.open(":memory:", {"context": Context()})
    >>> _ = db.context.set("ann", "tone", "brief")
    >>> db.context.load("ann")
    {'tone': 'brief'}
    """

    __slots__ = ()

    KIND = "context"

    def __init__(self, policy: Policy = policies.Eager()) -> None:  # noqa: B008 - immutable
        super().__init__(policy)

    def _to_json(self, name_of: Callable[[str | Structure, str], str]) -> dict[str, Any]:
        return {"kind": "context", "policy": self.policy.to_json()}

    @classmethod
    def _from_json(cls, stored: dict[str, Any]) -> Self:
        return cls(policies.from_json(stored["policy"]))

    def set(self, scope: str, name: str, value: Any) -> Receipt:
        """Stores any storable `value` under `name` in `scope`."""
        encoded = documents.encode(value)
        tx = self._tx
        if tx is None:
            put = _core.Transaction.context_set
            return self._scope.write(put, self._id, scope, name, encoded)
        tx.context_set(self._id, scope, name, encoded)
        return self._receipt

    def delete(self, scope: str, name: str | None = None) -> Receipt:
        """Deletes one name of a scope, or the whole scope; no error if it is not there."""
        return self._scope.write(_core.Transaction.context_delete, self._id, scope, name)

    def get(
        self,
        scope: str,
        name: str,
        default: D | None = None,
        *,
        consistency: Consistency | None = None,
        as_of: AsOf | None = None,
    ) -> Any | D | None:
        """The value of a name, or `default`."""
        found = self._reader(consistency, as_of).context_get(self._id, scope, name)
        return default if found is None else documents.decode(found[0])

    def read(
        self,
        scope: str,
        name: str,
        *,
        consistency: Consistency | None = None,
        as_of: AsOf | None = None,
    ) -> Read[Any]:
        """The value with its version, time and freshness; absent: a `Read` of None."""
        reader = self._scope.reader(consistency, as_of, self._id)
        found = reader.context_get(self._id, scope, name)
        return read_of(found, documents.decode, freshness_of(reader))

    def load(
        self,
        scope: str,
        *,
        consistency: Consistency | None = None,
        as_of: AsOf | None = None,
    ) -> dict[str, Any]:
        """All of a scope at one LSN, by name; empty if there is no such scope."""
        pairs = self._reader(consistency, as_of).context_load(self._id, scope)
        return {name: documents.decode(raw) for name, raw in pairs}

    def scopes(
        self, *, consistency: Consistency | None = None, as_of: AsOf | None = None
    ) -> list[str]:
        """The scopes that hold something, in order."""
        reader = self._reader(consistency, as_of)
        return list(reader.context_scopes(self._id))


__all__ = ["Context"]
