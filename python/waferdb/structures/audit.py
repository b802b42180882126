"""Audit: every commit a leaf of a Merkle tree, with proofs that need no database to check.

The tree is of what is committed: inside a transaction its calls answer without the transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

from waferdb import _core, units
from waferdb.audit import Change, ConsistencyProof, Entry, Head, InclusionProof
from waferdb.errors import ClosedError, TransactionError
from waferdb.results import Freshness
from waferdb.scope import Snapshot
from waferdb.structures.base import Cursor, Structure, check_limit, check_text


class Audit(Structure):
    """The audit trail: an RFC 6962 Merkle tree over all commits since it was declared.

    What a transaction says about itself (`actor=`, `reason=`, or `tx.note`) is part of its leaf.

    >>> import waferdb
    >>> db = waferdb.open(":memory:", {"facts": waferdb.Rows(), "audit": Audit()})
    >>> receipt = db.facts.put("a", {})
    >>> waferdb.audit.verify(db.audit.prove(receipt.lsn), db.audit.head().root)
    True
    """

    __slots__ = ()

    KIND = "audit"

    def __init__(self) -> None:
        super().__init__()

    def _to_json(self, name_of: Callable[[str | Structure, str], str]) -> dict[str, Any]:
        return {"kind": "audit"}

    @classmethod
    def _from_json(cls, stored: dict[str, Any]) -> Self:
        return cls()

    def head(self) -> Head:
        """The number of leaves and the root hash (32 bytes) of the tree as it is now."""
        return Head(*self._engine().audit_head(self._id))

    def entries(
        self, *, after: int | None = None, actor: str | None = None, limit: int | None = None
    ) -> Cursor[Entry]:
        """The entries up to now, in commit order: those behind the LSN `after`, of one `actor`, at
        most `limit`."""
        if after is not None:
            if isinstance(after, bool) or not isinstance(after, int):
                raise TypeError(f"after= is an LSN, not {type(after).__name__}")
            if after < 0:
                raise ValueError(f"after={after}: an LSN is not negative")
        if actor is not None:
            check_text(actor, "actor=")
        check_limit(limit)
        engine, structure = self._engine(), self._id
        last = engine.lsn
        behind, left = after or 0, limit

        def page(count: int) -> Sequence[Any]:
            nonlocal behind, left
            wanted = count if left is None else min(count, left)
            if not wanted:
                return ()
            found = engine.audit_entries(structure, behind, actor, wanted)
            found = [entry for entry in found if entry[0] <= last]
            if found:
                behind = found[-1][0]
            if left is not None:
                left -= len(found)
            return found

        key_of = self._scope.shared.catalog.key

        def entry(item: tuple[Any, ...]) -> Entry:
            return _entry(item, key_of)

        return Cursor(self._scope, page, _nothing, Freshness(last), entry)

    def leaf(self, lsn: int) -> bytes:
        """What was hashed for a commit: LSN, time, transaction, a salted digest of each operation
        and the note."""
        return self._engine().audit_leaf(self._id, lsn)

    def prove(self, lsn: int, *, size: int | None = None) -> InclusionProof:
        """The proof that a commit is in the tree of `size` leaves (now, if not given)."""
        index, leaves, leaf, path = self._engine().audit_prove(self._id, lsn, size)
        return InclusionProof(index=index, size=leaves, leaf_hash=leaf, path=tuple(path))

    def prove_growth(self, old_size: int, size: int | None = None) -> ConsistencyProof:
        """The proof that the tree of `size` leaves (now, if not given) continues the one of
        `old_size` leaves."""
        old, new, path = self._engine().audit_prove_growth(self._id, old_size, size)
        return ConsistencyProof(old_size=old, size=new, path=tuple(path))

    def _engine(self) -> _core.Engine:
        scope = self._scope
        if isinstance(scope, Snapshot):
            raise TransactionError("the audit trail is read on the database, not on a snapshot")
        if scope.ended:
            raise ClosedError("the audit trail ended with its transaction or database")
        return scope.shared.engine


def _nothing() -> None:
    """Entries hold no snapshot that would have to be let go."""


def _entry(item: tuple[Any, ...], key_of: Callable[[str, Any], Any]) -> Entry:
    lsn, index, time, actor, reason, changes, leaf = item
    return Entry(
        lsn=lsn,
        index=index,
        time=units.to_datetime(time),
        actor=actor,
        reason=reason,
        changes=tuple(
            Change(structure, key_of(structure, key), kind) for structure, key, kind in changes
        ),
        leaf_hash=leaf,
    )


__all__ = ["Audit"]
