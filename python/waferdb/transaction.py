"""The scopes that write: transactions and batches.

1. A transaction is one core transaction from begin to end; its `Receipt` is shared by all its
   writes and filled in by the commit.
2. However a commit fails, the receipt says so; it never turns into another commit's.
3. A batch commits whenever it holds `every` writes; what it committed stays, whatever follows.

A transaction or batch is used by one thread at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ParamSpec

from waferdb import _core
from waferdb.errors import ClosedError, ConflictError, TransactionError, UnknownOutcomeError
from waferdb.results import Receipt
from waferdb.scope import Live, Operation, Scope, Shared, reader_within

if TYPE_CHECKING:
    from waferdb.policies import Consistency
    from waferdb.scope import AsOf

P = ParamSpec("P")

# A batch commits early rather than come near the limit of one commit.
_BATCH_BYTES = _core.LIMITS["commit_bytes_max"] // 4


def _commit(core: _core.Transaction, receipt: Receipt, parent: Live, critical: bool) -> None:
    answer: list[_core._Commit] = []
    try:
        # The list holds the answer before a signal that came meanwhile can raise: an interrupt
        # behind the commit does not take it for a failed one.
        answer.extend(map(_core.Transaction.commit, (core,)))
    except UnknownOutcomeError:
        receipt._fate = "the outcome of its transaction is unknown; ask db.outcome(txn)"
        raise
    except BaseException:
        receipt._fate = "its transaction failed to commit"
        raise
    finally:
        if answer:
            receipt._commit = answer[0]
            receipt._lagging = parent.committed(answer[0], critical)


class TransactionScope(Scope):
    """One transaction: reads at its snapshot and its own writes, committed together."""

    __slots__ = ("_critical", "_parent", "shared", "tx")
    what = "a transaction"

    shared: Shared  # no property here: each structure that is bound asks for it

    def __init__(self, parent: Live, core: _core.Transaction, critical: bool) -> None:
        self._critical = critical
        self.base = self._parent = parent
        self.shared = parent.shared
        self.over = False
        self.plain = None
        self.chunk = 0
        self.core = self.tx = core
        self.receipt = Receipt()

    @property
    def lsn(self) -> int:
        return self.tx.lsn

    @property
    def ended(self) -> bool:
        return self.over or self._parent.ended

    def check_open(self) -> None:
        """Raises `TransactionError` once the transaction has ended."""
        if self.over:
            raise TransactionError("the transaction has ended; begin another one")

    def strong(self) -> _core.Reader:
        reader = self.plain
        if reader is None:
            self.check_open()
            reader = self.plain = self.tx.reader()
        return reader

    def reader(
        self, consistency: Consistency | None, as_of: AsOf | None, structure: int
    ) -> _core.Reader:
        self.check_open()
        return reader_within(self, consistency, as_of)

    def write(self, op: Operation[P], *args: P.args, **kwargs: P.kwargs) -> Receipt:
        op(self.tx, *args, **kwargs)
        return self.receipt

    def rollback(self) -> None:
        """Gives up all writes; a second call does nothing."""
        if not self.over:
            self.over = True
            self.receipt._fate = "its transaction was rolled back"
            self.tx.rollback()

    def exit(self, failed: bool) -> None:
        if failed:
            self.rollback()
        elif not self.over:
            self.over = True
            _commit(self.tx, self.receipt, self._parent, self._critical)


class BatchScope(Scope):
    """Writes only, committed each `every` of them."""

    __slots__ = ("_open", "_parent", "_priority", "commits", "shared")
    what = "a batch"

    shared: Shared

    def __init__(self, parent: Live, every: int, priority: str) -> None:
        self.base = self._parent = parent
        self.shared = parent.shared
        self.over = False
        self.plain = None
        self._priority = priority
        self._open: _core.Transaction | None = None
        self.chunk = every
        self.core = None
        self.commits = 0
        self.receipt = Receipt()

    @property
    def lsn(self) -> int:
        return self._parent.lsn

    @property
    def ended(self) -> bool:
        return self.over or self._parent.ended

    def strong(self) -> _core.Reader:
        raise TransactionError("a batch only writes; read on the database or in a transaction")

    def reader(
        self, consistency: Consistency | None, as_of: AsOf | None, structure: int
    ) -> _core.Reader:
        return self.strong()

    def write(self, op: Operation[P], *args: P.args, **kwargs: P.kwargs) -> Receipt:
        if self.over:
            raise ClosedError("the batch has ended; begin another one")
        core = self._open
        if core is None:
            core = self._parent.engine.begin(priority=self._priority, mode="batch")
            self._open = core
            self.receipt = Receipt()
        receipt = self.receipt
        op(core, *args, **kwargs)
        if core.operations >= self.chunk or core.bytes >= _BATCH_BYTES:
            self._flush()
        return receipt

    def _flush(self) -> None:
        core, self._open = self._open, None
        if core is not None:
            writes = core.operations
            try:
                _commit(core, self.receipt, self._parent, self._priority == "critical")
            except ConflictError as error:
                error.add_note(
                    f"the batch gave up the {writes} writes since its last commit; "
                    f"the {self.commits} commits before it stay"
                )
                raise
            finally:
                if self.receipt._commit is not None:
                    self.commits += 1

    def rollback(self) -> None:
        """Gives up the writes not committed yet."""
        core, self._open = self._open, None
        if core is not None:
            self.receipt._fate = "its part of the batch was rolled back"
            core.rollback()

    def exit(self, failed: bool) -> None:
        if self.over:
            return
        self.over = True
        if failed:
            self.rollback()
        else:
            self._flush()
