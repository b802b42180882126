"""Where a handle reads and writes: the open database, a transaction, a batch or a snapshot.

One class per structure serves all of them, because it asks its scope for a reader and for the way
to write.

1. A scope never outlives its engine silently: an ended scope answers with `ClosedError` or
   `TransactionError`.
2. A reader with a pinned LSN is let go when its last user is, so each belongs to one call or one
   cursor.
3. A write outside a transaction is one commit of its own.

Transactions and batches are in `transaction`.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar, Concatenate, NoReturn, ParamSpec

from waferdb import _core, units
from waferdb.errors import ClosedError, ReadOnlyError, TransactionError
from waferdb.policies import Bounded
from waferdb.results import Key, Receipt

if TYPE_CHECKING:
    from waferdb.database import Database
    from waferdb.policies import Consistency
    from waferdb.refresh import Refresher
    from waferdb.schema import Catalog

P = ParamSpec("P")
AsOf = int | datetime | str
Operation = Callable[Concatenate["_core.Transaction", P], None]

_CONSISTENCIES = frozenset(("strong", "session", "eventual"))


def check_consistency(consistency: Consistency | None, as_of: AsOf | None) -> None:
    """Raises for a consistency or `as_of` that no scope accepts."""
    if as_of is not None:
        if consistency is not None:
            raise TypeError("consistency= and as_of= exclude each other: give one")
        if isinstance(as_of, bool) or not isinstance(as_of, int | datetime | str):
            raise TypeError(f"as_of= is an LSN, a datetime or ISO 8601 text, not {as_of!r}")
        if isinstance(as_of, int) and as_of < 0:
            raise ValueError(f"as_of={as_of}: an LSN is not negative")
    elif isinstance(consistency, str):
        if consistency not in _CONSISTENCIES:
            raise ValueError(
                f'consistency={consistency!r}: it is "strong", "session", "eventual", an LSN or '
                "bounded(…)"
            )
    elif isinstance(consistency, bool) or not isinstance(consistency, int | Bounded | None):
        raise TypeError(f"consistency= is text, an LSN or bounded(…), not {consistency!r}")
    elif isinstance(consistency, int) and consistency < 0:
        raise ValueError(f"consistency={consistency}: an LSN is not negative")


def past_reader(engine: _core.Engine, as_of: AsOf) -> _core.Reader:
    """A reader of the database as it was."""
    if isinstance(as_of, int):
        return engine.reader_at(as_of)
    return engine.reader_at_time(units.time(as_of, "as_of"))


class Shared:
    """What all handles of one open database share: the engine and its structures."""

    __slots__ = ("__weakref__", "catalog", "engine", "handles", "label", "over", "refresher")

    refresher: Refresher  # of its views

    def __init__(self, engine: _core.Engine, catalog: Catalog, label: str) -> None:
        self.engine = engine
        self.catalog = catalog
        self.label = label
        self.handles: weakref.WeakSet[Database] = weakref.WeakSet()
        self.over = False

    def end(self) -> None:
        """Tells every handle that the engine is closed, or was left behind by a fork."""
        self.over = True
        for handle in list(self.handles):
            handle._scope.over = True
            handle._scope.plain = None

    def reload(self) -> None:
        """Takes over a schema that changed; handles bind their structures again."""
        self.catalog = self.catalog.reloaded(self.engine.schema())
        self.refresher.reload(self)
        for handle in list(self.handles):
            handle._bound.clear()


_NO_RECEIPT = Receipt()


class Scope:
    """What every scope answers. The base refuses everything: it is the scope of a declaration."""

    __slots__ = ("base", "chunk", "core", "over", "plain", "receipt")
    what: ClassVar[str] = "a declaration"

    base: Scope | Shared  # what it ends with
    over: bool  # it has ended, or the engine has
    plain: _core.Reader | None  # the reader of plain reads; None: ask `strong`
    chunk: int  # writes per commit; 0: no bound
    core: _core.Transaction | None  # the one transaction of all writes, if there is one
    receipt: Receipt  # what its writes return

    def __init__(self, base: Scope | Shared | None = None) -> None:
        self.base = self if base is None else base
        self.over = False
        self.plain = None
        self.chunk = 0
        self.core = None
        self.receipt = _NO_RECEIPT

    def _refuse(self) -> NoReturn:
        raise TypeError(
            "this structure is declared, not open: use it on an open database, as in db.facts"
        )

    @property
    def shared(self) -> Shared:
        """The open database behind the scope."""
        self._refuse()

    @property
    def lsn(self) -> int:
        """The LSN that a read answers with."""
        self._refuse()

    @property
    def ended(self) -> bool:
        """Whether cursors of this scope have ended with it."""
        self._refuse()

    def strong(self) -> _core.Reader:
        """The reader of plain reads: the newest committed state of the scope."""
        self._refuse()

    def reader(
        self, consistency: Consistency | None, as_of: AsOf | None, structure: int
    ) -> _core.Reader:
        """A reader of one structure, pinned at an LSN that the arguments ask for."""
        self._refuse()

    def write(self, op: Operation[P], *args: P.args, **kwargs: P.kwargs) -> Receipt:
        """Does one write: alone, or as part of the scope's transaction."""
        self._refuse()

    def write_loosely(self, op: Operation[P], *args: P.args, **kwargs: P.kwargs) -> Receipt:
        """As `write`, for what need not be durable when the call returns."""
        return self.write(op, *args, **kwargs)

    def put(
        self, structure: int, key: Key, value: bytes, if_version: int | None, if_absent: bool
    ) -> Receipt:
        """Puts one row."""
        return self.write(_core.Transaction.put, structure, key, value, if_version, if_absent)

    def live(self, call: str) -> Live:
        """The scope of the whole database, for calls that only it has."""
        raise TransactionError(f"{call} is not possible in {self.what}; call it on the database")

    def exit(self, failed: bool) -> None:
        """Ends the scope at the end of its `with` block."""
        self._refuse()


UNBOUND = Scope()


class Live(Scope):
    """The open database: reads see the newest commit, each write is a commit."""

    __slots__ = ("_reader", "_session_lock", "engine", "root", "session", "shared")
    what = "the database"

    shared: Shared
    session: int  # the newest LSN that this handle committed

    def __init__(self, shared: Shared, root: bool) -> None:
        super().__init__(shared)
        self.shared = shared
        self.engine = shared.engine
        self.root = root
        self.plain = self._reader = shared.engine.reader()
        self.session = 0
        self._session_lock = threading.Lock()

    @property
    def lsn(self) -> int:
        self.check_open()
        return self.engine.lsn

    @property
    def ended(self) -> bool:
        # The engine first: it knows of a fork.
        return self.engine.closed or self.over

    def check_open(self) -> None:
        """Raises `ClosedError` once this handle is closed; the engine knows about its own end."""
        if self.over and self.ended:
            raise ClosedError(f"{self.shared.label} is closed; open it again")

    def committed(self, commit: _core._Commit, critical: bool = False) -> tuple[str, ...]:
        """Remembers a commit of this handle for `consistency="session"`, and sees to the views that
        reflect it before the call returns; those that do not yet."""
        lsn = commit[0]
        with self._session_lock:
            if lsn > self.session:
                self.session = lsn
        touched = commit[5]
        if touched is not None and not touched:
            return ()
        return self.shared.refresher.after_commit(commit, critical)

    def strong(self) -> _core.Reader:
        if self.over:
            self.check_open()
        return self._reader

    def reader(
        self, consistency: Consistency | None, as_of: AsOf | None, structure: int
    ) -> _core.Reader:
        self.check_open()
        check_consistency(consistency, as_of)
        if as_of is not None:
            return past_reader(self.engine, as_of)
        if isinstance(consistency, int):
            return self.engine.reader_for(structure, at_least=consistency)
        if consistency == "session":
            return self.engine.reader_for(structure, at_least=self.session)
        if isinstance(consistency, Bounded):
            age, commits = consistency.max_age, consistency.max_commits
            return self.engine.reader_for(structure, max_age=age, max_commits=commits)
        return self.engine.reader_for(structure, strong=consistency != "eventual")

    def write(self, op: Operation[P], *args: P.args, **kwargs: P.kwargs) -> Receipt:
        return self._commit(None, op, *args, **kwargs)

    def write_loosely(self, op: Operation[P], *args: P.args, **kwargs: P.kwargs) -> Receipt:
        return self._commit("async", op, *args, **kwargs)

    def _commit(
        self, durability: str | None, op: Operation[P], *args: P.args, **kwargs: P.kwargs
    ) -> Receipt:
        if self.over:
            self.check_open()
        self.shared.refresher.refuse_inside("the write")
        core = self.engine.begin(durability=durability, mode="single")
        try:
            op(core, *args, **kwargs)
        except BaseException:
            core.rollback()
            raise
        commit = core.commit()
        return Receipt(commit, self.committed(commit))

    def put(
        self, structure: int, key: Key, value: bytes, if_version: int | None, if_absent: bool
    ) -> Receipt:
        if self.over:
            self.check_open()
        self.shared.refresher.refuse_inside("the write")
        commit = self.engine.put(structure, key, value, if_version, if_absent)
        return Receipt(commit, self.committed(commit))

    def live(self, call: str) -> Live:
        self.check_open()
        return self

    def close(self) -> None:
        """Closes this handle, and the engine if it is the handle that opened it."""
        if self.over and self.ended:
            return
        if self.root:
            self.shared.refresher.refuse_inside("close()")
            self.shared.refresher.stop()
            self.engine.close()
            self.shared.end()
        else:
            self._reader.close()
        self.over = True
        self.plain = None

    def exit(self, failed: bool) -> None:
        self.close()


class Snapshot(Scope):
    """The database at one LSN, for reading."""

    __slots__ = ("_reader", "shared")
    what = "a snapshot"

    shared: Shared

    def __init__(self, shared: Shared, reader: _core.Reader) -> None:
        super().__init__(shared)
        self.shared = shared
        self.plain = self._reader = reader

    @property
    def lsn(self) -> int:
        return self.strong().lsn

    @property
    def ended(self) -> bool:
        return self.over or self.shared.engine.closed

    def strong(self) -> _core.Reader:
        if self.over:
            raise ClosedError("the snapshot is closed; take another one")
        return self._reader

    def reader(
        self, consistency: Consistency | None, as_of: AsOf | None, structure: int
    ) -> _core.Reader:
        return reader_within(self, consistency, as_of)

    def write(self, op: Operation[P], *args: P.args, **kwargs: P.kwargs) -> Receipt:
        raise ReadOnlyError("a snapshot cannot be written; write on the database. Nothing was lost")

    def exit(self, failed: bool) -> None:
        if not self.over:
            self.over = True
            self.plain = None
            self._reader.close()


def reader_within(
    scope: Scope, consistency: Consistency | None, as_of: AsOf | None
) -> _core.Reader:
    """A reader in a scope that stands at one LSN: its own, or one of the past before it."""
    check_consistency(consistency, as_of)
    own = scope.strong()
    if as_of is not None:
        reader = past_reader(scope.shared.engine, as_of)
        if reader.lsn > own.lsn:
            reader.close()
            raise TransactionError(
                f"as_of={as_of!r} is after LSN {own.lsn}, at which {scope.what} reads"
            )
        return reader
    if isinstance(consistency, int) and consistency > own.lsn:
        raise TransactionError(f"{scope.what} reads at LSN {own.lsn}, not at {consistency}")
    return own


def names_of(structures: Mapping[str, object]) -> str:
    """The names of structures, for messages."""
    return ", ".join(sorted(structures)) or "none"
