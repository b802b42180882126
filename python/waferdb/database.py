"""The database: opening, transactions, snapshots, and what concerns all structures at once.

1. A database, its transactions, batches and snapshots are instances of one class, the user's own,
   over different scopes; attributes set on one are seen on all.
2. The handle that opened the engine closes it; handles of `connect` close only themselves.
3. Structures are found through descriptors and bound when first used.

No data passes through here, and no encoding is done here.
"""

from __future__ import annotations

import atexit
import json
import os
import random
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Literal, NoReturn, Self, TypeVar

from waferdb import _core, _html, documents, schema, units
from waferdb.errors import (
    ConflictError,
    PreconditionError,
    ReadOnlyError,
    SchemaError,
    TransactionError,
    WaferError,
)
from waferdb.policies import Lazy, Policy
from waferdb.refresh import Refresher
from waferdb.results import Change, Commit, Receipt, Report, Stats
from waferdb.scope import (
    AsOf,
    Live,
    Scope,
    Shared,
    Snapshot,
    check_consistency,
    names_of,
    past_reader,
)
from waferdb.structures import Rows, Structure, Vectors
from waferdb.transaction import BatchScope, TransactionScope

from .structures.vectors import decode_vector

__all__ = ["Database", "DynamicDatabase", "Priority", "open"]

T = TypeVar("T")
Priority = Literal["critical", "routine", "background"]
Durability = Literal["sync", "async"]
Compression = Literal["zstd"]
Progress = Callable[[int, int], None]

_new = object.__new__
_CHANGES_PAGE = 256
_BACKOFF_SECONDS_MAX = 0.05
_open: weakref.WeakSet[Shared] = weakref.WeakSet()


class Database:
    """A database directory and the structures in it; subclass it to declare them.

    `path` is a directory, or ":memory:" for a database without files. `mode` is "rw" (one writer)
    or "r" (many readers, nothing is written at all). `durability` is "sync", or "async": commits
    are acknowledged once in the log's buffer and durable within 100 ms or at `flush()`. `memory` is
    the budget of buffers and caches (a size), `memtable` the part of it for what is not yet in
    files (by default 64 MiB, at most a quarter), `waf_budget` a bound on write amplification.
    `compression="zstd"` compresses documents, payloads and raw values of 64 bytes or more from now
    on, each by itself, without loss; what is stored can be read whatever the option. `history` is
    how long superseded versions are kept (a duration; None: for ever). With
    `create=False` a missing database is a `FileNotFoundError`.

    Raises `SchemaError` if the declaration differs from what is stored, `LockedError` naming the
    other process, `CorruptionError`, `FormatError`, or an `OSError` that is also a `StorageError`.

    Any thread may use a database; a transaction is used by one at a time.

    >>> from waferdb import Database, Events, Rows
    >>> class Memory(Database):
    ...     facts = Rows(indexes=["user"])
    ...     events = Events()
    >>> with Memory(":memory:") as db:
    ...     with db.transaction(actor="planner") as tx:
    ...         receipt = tx.facts.put("pref:1", {"user": "ann", "text": "prefers email"})
    ...         receipt = tx.events.append("preference.learned", {"key": "pref:1"})
    ...     [key for key, doc in db.facts.find({"user": "ann"})], receipt.lsn == db.lsn
    (['pref:1'], True)
    """

    __slots__ = ("__dict__", "__weakref__", "_bound", "_scope")

    _structures: ClassVar[dict[str, Structure]] = {}
    _extra_slots: ClassVar[tuple[str, ...]] = ()

    _bound: dict[str, Structure]
    _scope: Scope

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        declared: dict[str, Structure] = {}
        slots: list[str] = []
        # All bases, the furthest first: each may add structures, also one that is no Database.
        for base in reversed(cls.__mro__):
            if base is Database:
                continue
            for name, value in vars(base).items():
                if isinstance(value, Structure):
                    declared[name] = value
                else:
                    declared.pop(name, None)
            own = vars(base).get("__slots__", ())
            slots += (own,) if isinstance(own, str) else tuple(own)
        for name in declared:
            _check_replaces(cls, name)
        cls._extra_slots = tuple(n for n in slots if n not in ("__dict__", "__weakref__"))
        cls._structures = declared
        schema.check(declared, _RESERVED, cls.__name__)

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        mode: Literal["rw", "r"] = "rw",
        durability: Durability = "sync",
        memory: units.Size = "256MiB",
        memtable: units.Size | None = None,
        waf_budget: float | None = None,
        compression: Compression | None = None,
        history: units.Duration | None = None,
        create: bool = True,
        _embedder: str | None = None,
        _overrides: Mapping[str, Structure] | None = None,
    ) -> None:
        declared = {**self._structures, **(_overrides or {})}
        if _overrides:
            schema.check(declared, _RESERVED, type(self).__name__)
        budgets = (memory, memtable, waf_budget)
        how = (mode, durability, *budgets, compression, history, create)
        self._open(path, declared, *how, _embedder)

    def _open(
        self,
        path: str | os.PathLike[str],
        declared: Mapping[str, Structure] | None,
        mode: str,
        durability: str,
        memory: units.Size,
        memtable: units.Size | None,
        waf_budget: float | None,
        compression: str | None,
        history: units.Duration | None,
        create: bool,
        embedder: str | None,
        clock: int | None = None,
    ) -> None:
        given = _directory(path, "path")
        for name, value, allowed in (
            ("mode", mode, ("rw", "r")),
            ("durability", durability, ("sync", "async")),
            ("compression", compression, ("zstd", None)),
        ):
            if value not in allowed:
                raise ValueError(f"{name}={value!r}: it is {' or '.join(map(repr, allowed))}")
        if waf_budget is not None and not _is_number(waf_budget):
            raise TypeError(f"waf_budget is a number, not {type(waf_budget).__name__}")
        if waf_budget is not None and not waf_budget >= 1:
            raise ValueError(f"waf_budget={waf_budget!r}: every byte is written at least once")
        if given == ":memory:" and mode == "r":
            raise ValueError(
                'path=":memory:" with mode="r": a database in memory begins empty, so there is '
                'nothing to read; open it with mode="rw"'
            )
        engine = _core.Engine.open(
            None if given == ":memory:" else given,
            None if declared is None else schema.to_json(declared),
            mode=mode,
            create=create,
            durability=durability,
            memory=units.size(memory, "memory"),
            memtable=None if memtable is None else units.size(memtable, "memtable"),
            history=None if history is None else units.duration(history, "history"),
            waf_budget=waf_budget,
            compression=compression,
            embedder=embedder,
            clock=clock,
        )
        catalog = schema.Catalog(declared or {}, engine.schema())
        shared = Shared(engine, catalog, f"{type(self).__name__}({given!r})")
        shared.refresher = Refresher(shared, threads=clock is None and mode == "rw")
        self._bound = {}
        self._scope = Live(shared, root=True)
        shared.handles.add(self)
        _open.add(shared)

    def _derive(self, scope: Scope) -> Self:
        """The same class over another scope; it shares the attributes set on this one."""
        other = _new(type(self))
        other._scope = scope
        other._bound = {}
        other.__dict__ = self.__dict__
        for name in self._extra_slots:
            if hasattr(self, name):
                setattr(other, name, getattr(self, name))
        return other

    def _bind(self, name: str) -> Structure:
        scope = self._scope
        member = scope.shared.catalog.entries.get(name)
        if member is None:
            raise AttributeError(
                f"{scope.shared.label} has no structure {name!r} any more; there are: "
                f"{names_of(scope.shared.catalog.entries)}"
            )
        bound = self._bound[name] = member.declaration._bind(scope, name, member.id)
        return bound

    def _live(self, call: str) -> Live:
        scope = self._scope
        return scope if type(scope) is Live and not scope.over else scope.live(call)

    @property
    def _engine(self) -> _core.Engine:
        """What `waferdb.capi` acquires."""
        return self._scope.shared.engine

    @property
    def _in_transaction(self) -> bool:
        return isinstance(self._scope, TransactionScope)

    @property
    def _pinned(self) -> bool:
        """Whether all reads here see one LSN."""
        return isinstance(self._scope, TransactionScope | Snapshot)

    # The handle.

    def __enter__(self) -> Self:
        if isinstance(self._scope, Live):
            self._scope.check_open()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if type(self._scope) is Live:
            self.close()
        else:
            self._scope.exit(kind is not None)

    def close(self) -> None:
        """Closes the handle; a second call does nothing.

        The handle that opened the database makes everything durable and unlocks it, which ends its
        transactions, cursors and siblings; a sibling of `connect` ends alone. On a snapshot: lets
        it go. Raises `TransactionError` inside a transaction.
        """
        scope = self._scope
        if isinstance(scope, Live):
            scope.close()
        elif isinstance(scope, Snapshot):
            scope.exit(False)
        else:
            scope.live("close()")

    @property
    def closed(self) -> bool:
        """Whether the handle has ended."""
        return self._scope.ended

    @property
    def path(self) -> str:
        """Where the database is; ":memory:" without files."""
        return self._scope.shared.engine.path

    @property
    def structures(self) -> tuple[str, ...]:
        """The names of the structures there are, also of those the class does not declare."""
        return tuple(self._scope.shared.catalog.entries)

    def __getitem__(self, name: str) -> Any:
        bound = self._bound.get(name)
        if bound is not None:
            return bound
        if name not in self._scope.shared.catalog.entries:
            raise KeyError(name)
        return self._bind(name)

    def __contains__(self, name: object) -> bool:
        return name in self._scope.shared.catalog.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.structures)

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} is an open database and cannot be pickled or copied; open the "
            f"database in the other process: {type(self).__name__}(path, mode='r')"
        )

    def _inside(self) -> list[tuple[str, str, str]]:
        """Name, kind and number of entries of each structure, as far as they can be told."""
        found = []
        for name in self:
            structure = self[name]
            count = ""
            counter = getattr(structure, "count", None)
            if counter is not None and not isinstance(self._scope, BatchScope):
                count = f"{counter():,}"
            found.append((name, type(structure).__name__, count))
        return found

    def __repr__(self) -> str:
        name = type(self).__name__
        try:
            shared = self._scope.shared
        except (AttributeError, TypeError):
            return f"<{name}, not open>"
        what = "" if isinstance(self._scope, Live) else f"{self._scope.what} of "
        try:
            if self.closed:
                return f"<{what}{shared.label}, closed>"
            inside = ", ".join(f"{part} {kind}({count})" for part, kind, count in self._inside())
            return f"<{what}{shared.label} at LSN {self.lsn}: {inside or 'no structures'}>"
        except WaferError as error:
            return f"<{what}{shared.label}, {error.code}>"

    def _repr_html_(self) -> str:
        try:
            if not self.closed:
                caption = f"{self._scope.shared.label} at LSN {self.lsn}"
                return _html.table(("structure", "kind", "entries"), self._inside(), caption)
        except WaferError:
            # The text form tells the state that made this fail.
            return f"<p>{_html.text(self)}</p>"
        return f"<p>{_html.text(self)}</p>"

    # Transactions.

    def transaction(
        self,
        *,
        txn: str | None = None,
        priority: Priority = "routine",
        durability: Durability | None = None,
        actor: str | None = None,
        reason: str | None = None,
        isolation: Literal["snapshot", "serializable"] = "snapshot",
    ) -> Self:
        """A transaction, to be used in a `with` block: commits at its end, rolls back if it raises.

        It is this class over one snapshot and sees its own writes. `txn` is an id of your own for
        `outcome`; `priority` is "critical", "routine" or "background"; `durability` overrides the
        database's; `actor` and `reason` go to the audit trail. Under `isolation="serializable"`
        what was read is checked at commit too.

        Its reads ignore `consistency=`, for they are at the snapshot; with `as_of=` they answer
        from the committed past, up to the snapshot (later: `TransactionError`).

        The commit raises `ConflictError` (run it again), `PreconditionError`, `UniqueError`,
        `LinkError`, `LimitError` with nothing written, or `UnknownOutcomeError`.

        >>> import waferdb
        >>> db = waferdb.open(":memory:", {"facts": waferdb.Rows()})
        >>> with db.transaction(actor="planner") as tx:
        ...     receipt = tx.facts.put("a", {"n": 1})
        >>> receipt.lsn == db.lsn
        True
        """
        if isolation not in ("snapshot", "serializable"):
            raise ValueError(f'isolation={isolation!r}: it is "snapshot" or "serializable"')
        live = self._live("transaction()")
        live.shared.refresher.refuse_inside("the transaction")
        try:
            core = live.engine.begin(
                txn=txn,
                priority=priority,
                durability=durability,
                actor=actor,
                reason=reason,
                serializable=isolation == "serializable",
            )
        except ReadOnlyError:
            raise ReadOnlyError(
                f'{live.shared.label} was opened with mode="r" and has no transactions: use '
                'snapshot() to read at one LSN, or open it with mode="rw" to write'
            ) from None
        return self._derive(TransactionScope(live, core, priority == "critical"))

    def retry(
        self,
        fn: Callable[[Self], T],
        *,
        attempts: int = 5,
        txn: str | None = None,
        priority: Priority = "routine",
        durability: Durability | None = None,
        actor: str | None = None,
        reason: str | None = None,
        isolation: Literal["snapshot", "serializable"] = "snapshot",
    ) -> T:
        """Runs `fn(tx)` in a transaction, again after conflicts, and returns its result.

        `fn` may run up to `attempts` times, so it should do nothing else that lasts. The options
        are those of `transaction`. Raises the last `ConflictError`; `PreconditionError` and
        `UniqueError` at once.

        >>> import waferdb
        >>> db = waferdb.open(":memory:", {"facts": waferdb.Rows()})
        >>> db.retry(lambda tx: tx.facts.put("a", {"n": 1})).lsn == db.lsn
        True
        """
        if not units.is_int(attempts) or attempts < 1:
            raise ValueError(f"attempts={attempts!r}: it is an int of at least 1")
        for attempt in range(attempts):
            try:
                with self.transaction(
                    txn=txn,
                    priority=priority,
                    durability=durability,
                    actor=actor,
                    reason=reason,
                    isolation=isolation,
                ) as tx:
                    return fn(tx)
            except PreconditionError:
                raise
            except ConflictError:
                if attempt + 1 == attempts:
                    raise
            longest = min(0.001 * 2**attempt, _BACKOFF_SECONDS_MAX)
            time.sleep(random.uniform(0, longest))
        raise AssertionError("a retry returns or raises")

    def batch(self, *, every: int = 1000, priority: Priority = "background") -> Self:
        """Many writes in commits of `every`, or of 16 MiB if that comes first; no reads.

        Use it in a `with` block; the rest is committed at its end. There are no conflict checks
        but for `unique`: the last writer wins. If the block raises, the writes since the last
        commit are rolled back and what was committed before stays: `.commits` says how many
        commits that were, and the receipts of their writes are filled in. A commit that is refused
        (`UniqueError`) gives up all writes since the one before, whichever was to blame.

        >>> import waferdb
        >>> db = waferdb.open(":memory:", {"facts": waferdb.Rows()})
        >>> with db.batch(every=2) as batch:
        ...     for n in range(5):
        ...         _ = batch.facts.put(str(n), {"n": n})
        >>> batch.commits
        3
        """
        if isinstance(every, bool) or not isinstance(every, int):
            raise TypeError(f"every is an int, not {type(every).__name__}")
        if every < 1:
            raise ValueError(f"every={every}: a commit holds at least one write")
        live = self._live("batch()")
        live.shared.refresher.refuse_inside("the batch")
        return self._derive(BatchScope(live, every, priority))

    @property
    def receipt(self) -> Receipt:
        """Of a transaction: its receipt, whose fields raise `PendingError` until the commit. Of a
        batch: the receipt of the newest commit, or of the one being filled."""
        scope = self._scope
        if isinstance(scope, TransactionScope | BatchScope):
            return scope.receipt
        raise TransactionError(f"{scope.what} has no receipt; each write returns its own")

    @property
    def txn(self) -> str:
        """The id of a transaction, for `outcome`."""
        return self._transaction("txn").tx.txn

    @property
    def commits(self) -> int:
        """Of a batch: how many commits it has made."""
        if isinstance(self._scope, BatchScope):
            return self._scope.commits
        raise TransactionError("commits is of a batch; for the database see stats().commits")

    def note(self, *, actor: str | None = None, reason: str | None = None) -> None:
        """Says in a transaction who does it and why, for the audit trail."""
        self._transaction("note()").tx.note(actor, reason)

    def rollback(self) -> None:
        """Gives up the writes of a transaction, or those of a batch that are not committed yet."""
        if isinstance(self._scope, BatchScope):
            self._scope.rollback()
        else:
            self._transaction("rollback()").rollback()

    def _transaction(self, call: str) -> TransactionScope:
        if isinstance(self._scope, TransactionScope):
            return self._scope
        raise TransactionError(f"{call} is for transactions; this is {self._scope.what}")

    def outcome(self, txn: str) -> str:
        """What became of a transaction, finally, also after a crash: "committed" or "absent"."""
        return self._live("outcome()").engine.outcome(txn)

    # Reading the whole.

    @property
    def lsn(self) -> int:
        """The newest commit's log sequence number (0: none); in a transaction or snapshot, the one
        it reads at."""
        return self._scope.lsn

    def wait(
        self, lsn: int, *structures: str | Structure, timeout: units.Duration | None = None
    ) -> None:
        """Waits until the structures (all, if none are named) reflect the commit `lsn`.

        Stale groups of views among them are computed. Raises `TimeoutError` after `timeout` (a
        duration), `StaleViewError` if a view's function fails.
        """
        live = self._live("wait()")
        named = [self._member(structure).id for structure in structures]
        seconds = None if timeout is None else units.duration(timeout, "timeout") / 1_000_000
        if not named:
            members = live.shared.catalog.entries.values()
            named = [member.id for member in members if not isinstance(member.policy, Lazy)]
        deadline = None if seconds is None else time.monotonic() + seconds
        live.engine.wait(lsn, seconds, named)
        members = live.shared.catalog.entries.values()
        views = [member for member in members if member.id in named]
        live.shared.refresher.wait(lsn, views, deadline)

    def snapshot(self, as_of: AsOf | None = None) -> Self:
        """A read-only database at one LSN: now, or `as_of` an LSN, an aware `datetime` or ISO 8601
        text. Use it in a `with` block, for it keeps old versions. Writes raise `ReadOnlyError`.

        Raises `HistoryError` for what is older than kept or not committed yet.

        >>> import waferdb
        >>> db = waferdb.open(":memory:", {"facts": waferdb.Rows()})
        >>> first = db.facts.put("a", {"n": 1})
        >>> _ = db.facts.put("a", {"n": 2})
        >>> with db.snapshot(as_of=first.lsn) as past:
        ...     past.facts["a"]
        {'n': 1}
        """
        live = self._live("snapshot()")
        check_consistency(None, as_of)
        engine = live.engine
        reader = engine.reader_now() if as_of is None else past_reader(engine, as_of)
        return self._derive(Snapshot(live.shared, reader))

    def connect(self) -> Self:
        """A sibling: another handle on the same open database, with a session of its own."""
        live = self._live("connect()")
        sibling = self._derive(Live(live.shared, root=False))
        live.shared.handles.add(sibling)
        return sibling

    def changes(self, after: int = 0) -> Iterator[Commit]:
        """The commits behind the LSN `after`, in order, as the log has them.

        >>> import waferdb
        >>> db = waferdb.open(":memory:", {"facts": waferdb.Rows()})
        >>> _ = db.facts.put("a", {"n": 1})
        >>> [(change.structure, change.key, change.value) for change in next(db.changes()).changes]
        [('facts', 'a', {'n': 1})]
        """
        if isinstance(after, bool) or not isinstance(after, int):
            raise TypeError(f"after is an LSN, not {type(after).__name__}")
        if after < 0:
            raise ValueError(f"after={after}: an LSN is not negative")
        live = self._live("changes()")
        return _commits(live, live.engine.changes(after))

    # Looking after the whole.

    def flush(self) -> None:
        """Returns when everything committed so far is durable."""
        self._live("flush()").engine.flush()

    def drain(self, *structures: str | Structure, progress: Progress | None = None) -> None:
        """Returns when all background work is done: queues applied, views computed, files written
        and merged. A view whose function fails stays stale; lazy structures are left out unless
        they are named.

        Vectors are sealed into one graph each: those of `structures`, or of all that are not
        `lazy()` where none are named. `progress(done, total)` is called as it goes.
        """
        live = self._live("drain()")
        named = [self._member(structure) for structure in structures]
        if progress is not None:
            progress(0, 1)
        live.shared.refresher.drain(named)
        live.engine.drain([structure.id for structure in named] if named else None)
        if progress is not None:
            progress(1, 1)

    def stats(self) -> Stats:
        """What was done since the database was opened: bytes, commits, syncs, latencies.

        >>> import waferdb
        >>> db = waferdb.open(":memory:", {"facts": waferdb.Rows()})
        >>> _ = db.facts.put("a", {"n": 1})
        >>> db.stats().commits
        1
        """
        live = self._live("stats()")
        return Stats._from_json(live.engine.stats(), live.shared.refresher.stats())

    def verify(self, deep: bool = False, progress: Progress | None = None) -> Report:
        """Checks every checksum and that the structures agree; `deep` makes every structure again
        from the log and compares. Problems are reported, not raised.

        >>> import waferdb
        >>> waferdb.open(":memory:", {"facts": waferdb.Rows()}).verify(deep=True).ok
        True
        """
        return Report._from_json(self._live("verify()").engine.verify(bool(deep), progress))

    def rebuild(self, structure: str | Structure, progress: Progress | None = None) -> None:
        """Drops what is derived of a structure and makes it again from the log."""
        live = self._live("rebuild()")
        live.shared.refresher.refuse_inside("rebuild()")
        live.engine.rebuild(self._member(structure).id, progress)

    def drop(self, name: str) -> None:
        """Removes a structure for good; its id and history are not used again."""
        live = self._live("drop()")
        live.shared.refresher.refuse_inside("drop()")
        live.engine.drop(self._member(name).name)
        live.shared.reload()

    def rename(self, old: str, new: str) -> None:
        """Gives a structure another name; declare it under that name from now on."""
        live = self._live("rename()")
        live.shared.refresher.refuse_inside("rename()")
        schema.check_name(new, _RESERVED, f"rename of {old!r}")
        live.engine.rename(self._member(old).name, new)
        live.shared.reload()

    def set_policy(self, name: str, policy: Policy) -> None:
        """Sets the policy of a structure from now on; it stays until the declaration changes.

        >>> import waferdb
        >>> db = waferdb.open(":memory:", {"facts": waferdb.Rows()})
        >>> db.set_policy("facts", waferdb.lazy())
        >>> receipt = db.facts.put("a", {"n": 1})
        >>> db.facts.get("a", consistency="eventual") is None
        True
        """
        live = self._live("set_policy()")
        live.shared.refresher.refuse_inside("set_policy()")
        _check_policy(policy)
        member = self._member(name)
        live.engine.set_policy(member.name, json.dumps(policy.to_json()))
        live.shared.reload()

    def backup(self, dst: str | os.PathLike[str], progress: Progress | None = None) -> None:
        """Copies the database, as of now, to the new directory `dst` while writes go on."""
        live = self._live("backup()")
        given = _directory(dst, "dst")
        if given == ":memory:":
            raise ValueError("dst=':memory:' is no directory; name a new one for the backup")
        live.engine.backup(given, progress)

    def _member(self, structure: str | Structure) -> schema.Member:
        name = structure.name if isinstance(structure, Structure) else structure
        entries = self._scope.shared.catalog.entries
        member = entries.get(name)
        if member is None:
            raise SchemaError(f"there is no structure {name!r}; there are: {names_of(entries)}")
        return member


_RESERVED = frozenset(name for name in dir(Database) if not name.startswith("_"))


class DynamicDatabase(Database):
    """A database opened without a class: its structures are attributes of type `Any`."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        schema_: Mapping[str, Structure] | None = None,
        *,
        mode: Literal["rw", "r"] = "rw",
        durability: Durability = "sync",
        memory: units.Size = "256MiB",
        memtable: units.Size | None = None,
        waf_budget: float | None = None,
        compression: Compression | None = None,
        history: units.Duration | None = None,
        create: bool = True,
    ) -> None:
        if schema_ is not None:
            if not isinstance(schema_, Mapping):
                raise SchemaError(f"a schema maps names to structures; it is no {schema_!r}")
            schema.check(schema_, _RESERVED, "schema")
        elif os.fspath(path) == ":memory:":
            raise SchemaError('a database in memory begins empty; give a schema: {"facts": Rows()}')
        self._open(
            path,
            schema_,
            mode,
            durability,
            memory,
            memtable,
            waf_budget,
            compression,
            history,
            create and schema_ is not None,
            None,
        )

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_"):
            bound = self._bound.get(name)
            if bound is not None:
                return bound
            if name in self._scope.shared.catalog.entries:
                return self._bind(name)
            raise AttributeError(
                f"there is no structure {name!r}; there are: "
                f"{names_of(self._scope.shared.catalog.entries)}"
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self]


def open(
    path: str | os.PathLike[str],
    schema: Mapping[str, Structure] | None = None,
    *,
    mode: Literal["rw", "r"] = "rw",
    durability: Durability = "sync",
    memory: units.Size = "256MiB",
    memtable: units.Size | None = None,
    waf_budget: float | None = None,
    compression: Compression | None = None,
    history: units.Duration | None = None,
    create: bool = True,
) -> DynamicDatabase:
    """Opens a database without a class: with a `schema` of names and structures, or, without one,
    an existing database with the schema it has (a missing path is `FileNotFoundError`).

    The options are those of `Database`.

    >>> import waferdb
    >>> db = waferdb.open(":memory:", {"facts": waferdb.Rows()})
    >>> _ = db.facts.put("a", {"n": 1})
    >>> db["facts"]["a"]
    {'n': 1}
    """
    return DynamicDatabase(
        path,
        schema,
        mode=mode,
        durability=durability,
        memory=memory,
        memtable=memtable,
        waf_budget=waf_budget,
        compression=compression,
        history=history,
        create=create,
    )


def _check_replaces(cls: type[Database], name: str) -> None:
    """Raises `SchemaError` for a structure in place of a method of a base."""
    for base in cls.__mro__:
        member = vars(base).get(name)
        if base is not Database and (callable(member) or isinstance(member, property)):
            raise SchemaError(
                f"{cls.__name__}.{name}: {base.__name__} has a member of that name; choose another"
            )


def _directory(path: str | os.PathLike[str], name: str) -> str:
    """A path as text; raises for one that names nothing."""
    given: object = os.fspath(path)
    if not isinstance(given, str):
        raise TypeError(f"{name} is text or a pathlib.Path, not {type(given).__name__}")
    if not given or "\0" in given:
        raise ValueError(f"{name}={given!r} names no directory")
    return given


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_policy(policy: object) -> None:
    if not isinstance(policy, Policy):
        raise TypeError(
            f"a policy is eager(), lazy() or hybrid(…), not {policy!r} "
            f"of type {type(policy).__name__}"
        )


def _commits(live: Live, core: _core.Changes) -> Iterator[Commit]:
    while page := core.page(_CHANGES_PAGE):
        for lsn, micros, txn, actor, reason, changes in page:
            made = tuple(
                Change(
                    structure,
                    kind,
                    live.shared.catalog.key(structure, parts[0] if len(parts) == 1 else parts),
                    None if raw is None else _decoded(live, structure, raw),
                )
                for structure, kind, parts, raw in changes
            )
            yield Commit(lsn, units.to_datetime(micros), txn, actor, reason, made)


def _decoded(live: Live, structure: str, raw: bytes) -> Any:
    member = live.shared.catalog.entries.get(structure)
    if member is None:
        return raw
    if isinstance(member.declaration, Rows):
        return member.declaration._decode(raw)
    if isinstance(member.declaration, Vectors):
        return decode_vector(raw)
    return documents.decode(raw)


def _close_all() -> None:
    """Closes what the program left open, so that nothing acknowledged waits in a buffer."""
    failure: WaferError | None = None
    for shared in list(_open):
        try:
            if not shared.over:
                shared.refresher.stop()
            shared.engine.close()
            shared.end()
        except WaferError as error:
            # In a forked child the engine belongs to the parent and is left alone.
            if error.code != "forked":
                failure = failure or error
    if failure is not None:
        raise failure


def _left_behind() -> None:
    """The engines of a forked child belong to its parent."""
    for shared in list(_open):
        shared.end()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_left_behind)
