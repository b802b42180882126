"""Computes stale groups of views: for a reader that asks, after a commit, or in the background.

1. No lock, snapshot or transaction of the caller is held while a function runs; it runs on a thread
   of its own, for no longer than its time, and may read the database but not write it.
2. A result is committed as of the LSN its inputs were read at: whatever came meanwhile leaves the
   group stale, and a function that is slower than its group changes still makes progress.
3. One group is computed by one thread at a time. A group whose function fails is tried again with
   growing pauses, or when its inputs change, and holds up no other group, view or commit.
4. A reader that asks is answered from a computation that began after it asked.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from waferdb import documents, units
from waferdb.calls import Calls, computing
from waferdb.errors import StaleViewError, TransactionError, WaferError
from waferdb.groups import Group, decode_key, rows_of
from waferdb.policies import Eager, Hybrid, Lazy
from waferdb.results import ViewStats
from waferdb.structures.vectors import decode_vector
from waferdb.structures.view import View

if TYPE_CHECKING:
    from waferdb import _core
    from waferdb.schema import Member
    from waferdb.scope import Shared

__all__ = ["Refresher"]

_Place = tuple[int, bytes]  # a view, and a group of it

_PAGE = 512
_ATTEMPTS = 4
_PAUSE_MICROS = 1_000_000
_PAUSE_MICROS_MAX = 600_000_000
_TICK_SECONDS = 0.05
_READS_REMEMBERED = 16_384
_STALLS_SHOWN = 32


class _Stall:
    """Why a group's function failed, what it saw, and when it is tried again."""

    __slots__ = ("again", "changed", "pause", "reason")

    def __init__(self, reason: str, changed: int, again: int, pause: int) -> None:
        self.reason = reason
        self.changed = changed
        self.again = again
        self.pause = pause


class _Signal:
    """What wakes the worker, which must not keep the database open while it sleeps."""

    __slots__ = ("changed", "pending", "stopping")

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.pending = True  # a group may be stale that the worker has to see to
        self.stopping = False

    def notify(self) -> None:
        if not self.pending:
            with self.changed:
                self.pending = True
                self.changed.notify()

    def stop(self) -> None:
        with self.changed:
            self.stopping = True
            self.changed.notify_all()

    def wait(self) -> bool:
        """Until there may be something to do; `False`: it is to end."""
        with self.changed:
            if not self.stopping:
                self.changed.wait(_TICK_SECONDS if self.pending else None)
            return not self.stopping


class _Figures:
    """What a view's computations came to."""

    __slots__ = ("computed", "failed", "micros")

    def __init__(self) -> None:
        self.computed = 0
        self.failed = 0
        self.micros = 0.0  # of one call, a moving mean


class Refresher:
    """Of one open database. Any thread may use it."""

    def __init__(self, shared: Shared, *, threads: bool) -> None:
        self._shared = weakref.ref(shared)
        self._engine = shared.engine
        self._lock = threading.Lock()
        self._signal = _Signal()
        weakref.finalize(self, self._signal.stop)
        self._threads = threads
        self._worker: threading.Thread | None = None
        self._busy: dict[_Place, threading.Lock] = {}
        self._stalls: dict[_Place, _Stall] = {}
        self._figures: dict[int, _Figures] = {}
        self._reads: dict[_Place, int] = {}
        self._from: dict[int, bytes | None] = {}
        self._calls = Calls()
        self._views: dict[int, Member] = {}
        self.reload(shared)

    def reload(self, shared: Shared) -> None:
        """Takes up the views of a schema that changed."""
        members = shared.catalog.entries.values()
        self._views = {m.id: m for m in members if isinstance(m.declaration, View)}
        if any(isinstance(m.policy, Hybrid) and _computes(m) for m in self._views.values()):
            self._start()
            self._signal.notify()

    # Guards.

    def refuse_inside(self, call: str) -> None:
        """Raises `TransactionError` in a function of a view: it may read, not write."""
        if self._calls.running and computing():
            raise TransactionError(
                f"a view's function may read the database, not change it: {call} was refused and "
                "nothing was written; return what is to be kept"
            )

    def note_read(self, view: int, group: bytes) -> None:
        """Groups that are read are computed first."""
        reads = self._reads
        if len(reads) >= _READS_REMEMBERED:
            reads.clear()
        place = (view, group)
        reads[place] = reads.get(place, 0) + 1

    # For readers.

    def is_fresh(self, view: int, group: bytes, reader: _core.Reader) -> bool:
        """Whether a group reflects everything, and so do the groups it is made of."""
        if reader.view_group(view, group)[1] is not None:
            return False
        return not any(True for _ in self._stale_sources(view, group, reader))

    def fresh(self, view: int, group: bytes, on_error: str) -> int:
        """Computes a group from everything committed so far, and what it is made of, first; how
        many were computed. A failure raises `StaleViewError`, unless an older result may serve."""
        try:
            return self._fresh(view, group, self._engine.lsn)
        except StaleViewError:
            stored, _ = self._engine.reader().view_group(view, group)
            if on_error == "raise" or stored is None:
                raise
            return 0

    def _fresh(self, view: int, group: bytes, wanted: int) -> int:
        computed = 0
        reader = self._engine.reader_now()
        try:
            stale = list(self._stale_sources(view, group, reader))
        finally:
            reader.close()
        for source, part in stale:
            computed += self._fresh(source, part, wanted)
        return computed + self._compute(view, group, wanted)

    def _stale_sources(self, view: int, group: bytes, reader: _core.Reader) -> Iterator[_Place]:
        """Stale groups of the view's source, and of its own, whose results go into this group."""
        member = self._views.get(view)
        if member is None:
            return
        declared: View = member.declaration  # type: ignore[assignment]
        source = self._views.get(member.source or -1)
        if source is None:
            return
        above: View = source.declaration  # type: ignore[assignment]
        shared_fields = [above.by.index(field) for field in declared.by if field in above.by]
        whole = declared.by == above.by[: len(declared.by)]
        wanted = None
        if not whole and len(shared_fields) == len(declared.by):
            key = decode_key(group)
            wanted = (key,) if len(declared.by) == 1 else key
        for found, _ in _each_stale(reader, source.id, group if whole else b""):
            if wanted is not None:
                key = decode_key(found)
                parts = (key,) if len(above.by) == 1 else key
                if tuple(parts[at] for at in shared_fields) != wanted:
                    continue
            yield source.id, found
        # A group of the source is stale, too, if one that goes into it is: none of them need have
        # a result yet, so all of its own stale sources that may lead here are looked at.
        if source.source in self._views:
            prefix = group if whole else b""
            yield from self._deeper(source, prefix, reader)

    def _deeper(self, source: Member, prefix: bytes, reader: _core.Reader) -> Iterator[_Place]:
        """Stale groups further up whose results may lead to groups that begin with `prefix`."""
        above = self._views[source.source]  # type: ignore[index]
        declared: View = source.declaration  # type: ignore[assignment]
        higher: View = above.declaration  # type: ignore[assignment]
        keeps = prefix if declared.by == higher.by[: len(declared.by)] else b""
        for found, _ in _each_stale(reader, above.id, keeps):
            yield above.id, found
        if above.source in self._views:
            yield from self._deeper(above, keeps, reader)

    def refresh(self, view: int) -> int:
        """Computes all stale groups of a view, and of the views it is made of; how many."""
        self._function(view)
        computed = 0
        member = self._views[view]
        if member.source in self._views and _computes(self._views[member.source]):
            computed += self.refresh(member.source)
        after: bytes | None = None
        while True:
            page, after = self._engine.reader().view_stale(view, b"", after, _PAGE)
            for group, _ in page:
                try:
                    computed += self._compute(view, group, 0)
                except StaleViewError:
                    # Said in the statistics; the others go on.
                    continue
            if after is None:
                return computed

    def drain(self, named: list[Member]) -> None:
        """Computes what is stale of these views, or of all that are not lazy."""
        wanted = {member.id for member in named}
        for member in list(self._views.values()):
            asked = member.id in wanted if named else not isinstance(member.policy, Lazy)
            if asked and _computes(member) and self._engine.writable:
                self.refresh(member.id)

    # After a commit.

    def after_commit(self, commit: _core._Commit, critical: bool) -> tuple[str, ...]:
        """Computes what the views' policies want before the call returns; those that lag."""
        if not self._views:
            return ()
        lagging: set[str] = set()
        touched = commit[5]
        if not commit[2] and any(_is_eager(member) for member in self._views.values()):
            # An eager result is of what is durable.
            self._engine.flush()
        if touched is None:
            touched = self._all_stale_eager()
        deadlines: dict[int, float] = {}
        for view, group in touched:
            member = self._views.get(view)
            if member is None or not _computes(member):
                continue
            if not self._at_once(member, group, commit[0], critical):
                if isinstance(member.policy, Hybrid):
                    self._signal.notify()
                continue
            declared: View = member.declaration  # type: ignore[assignment]
            limit = time.monotonic() + declared.timeout / 1_000_000
            left = deadlines.setdefault(view, limit) - time.monotonic()
            try:
                self._compute(view, group, commit[0], max(0.0, left), lagging, critical=True)
            except WaferError:
                # What was committed is committed; the statistics say why the view lags.
                lagging.add(member.name)
                self._signal.notify()
        return tuple(sorted(lagging))

    def _all_stale_eager(self) -> list[_Place]:
        reader = self._engine.reader()
        eager = [member.id for member in self._views.values() if _is_eager(member)]
        return [(view, group) for view in eager for group, _ in _each_stale(reader, view, b"")]

    def _at_once(self, member: Member, group: bytes, lsn: int, critical: bool) -> bool:
        if isinstance(member.policy, Eager):
            return True
        if not isinstance(member.policy, Hybrid):
            return False
        if critical:
            return True
        _, stale = self._engine.reader().view_group(member.id, group)
        return stale is not None and stale[2] >= lsn

    # In the background.

    def _start(self) -> None:
        with self._lock:
            if self._worker is None and self._threads and not self._signal.stopping:
                work = (weakref.ref(self), self._signal)
                self._worker = threading.Thread(
                    target=_work, args=work, name="waferdb-refresh", daemon=True
                )
                self._worker.start()

    def stop(self) -> None:
        """Ends the worker; a function that runs is left to end by itself."""
        self._signal.stop()
        self._calls.stop()
        worker = self._worker
        if worker is not None and worker is not threading.current_thread():
            worker.join()

    def turn(self) -> int:
        """Computes the groups of hybrid views that may wait no longer; how many."""
        computed = 0
        pending = False
        self._signal.pending = False
        for member in list(self._views.values()):
            if not (isinstance(member.policy, Hybrid) and _computes(member)):
                continue
            due, waiting = self._due(member)
            pending = pending or waiting
            for group in due:
                if self._signal.stopping:
                    return computed
                try:
                    computed += self._compute(member.id, group, 0)
                except WaferError:
                    # Kept as the group's stall, or told by the next commit.
                    continue
        if pending or computed:
            self._signal.notify()
        return computed

    def _due(self, member: Member) -> tuple[list[bytes], bool]:
        """Groups to compute now, the most worth first, and whether others wait."""
        policy: Hybrid = member.policy  # type: ignore[assignment]
        scale = self._engine.batch_scale()
        now = self._engine.now()
        reader = self._engine.reader()
        page, after = reader.view_stale(member.id, b"", self._from.get(member.id), _PAGE)
        self._from[member.id] = after
        full = (
            sum(stale[3] for _, stale in page) > policy.max_items * scale
            or sum(stale[5] for _, stale in page) > policy.max_bytes * scale
        )
        due: list[tuple[float, bytes]] = []
        for group, stale in page:
            age = now - stale[4]
            stall = self._stalls.get((member.id, group))
            if stall is not None and stall.changed == stale[1] and stall.again > now:
                continue
            if full or age >= policy.max_age * scale:
                reads = self._reads.pop((member.id, group), 0)
                due.append((-float(age) * (1 + reads), group))
        due.sort()
        return [group for _, group in due], bool(page) or after is not None

    # Computing.

    def _function(self, view: int) -> Any:
        member = self._views.get(view)
        declared = None if member is None else member.declaration
        function = getattr(declared, "function", None)
        if function is None:
            name = "the view" if member is None else repr(member.name)
            raise StaleViewError(
                f"{name} has no function here: open the database with the class that declares it; "
                'its stored results are read with consistency="eventual"'
            )
        if not self._engine.writable:
            raise StaleViewError(
                'a result cannot be computed in a database opened with mode="r", which writes '
                'nothing: open it with mode="rw", or read with consistency="eventual"'
            )
        return function

    @contextmanager
    def _alone(self, place: _Place) -> Iterator[None]:
        with self._lock:
            lock = self._busy.setdefault(place, threading.Lock())
        with lock:
            yield
        with self._lock:
            if not lock.locked():
                self._busy.pop(place, None)

    def _compute(
        self,
        view: int,
        group: bytes,
        wanted: int,
        seconds: float | None = None,
        lagging: set[str] | None = None,
        *,
        critical: bool = False,
    ) -> int:
        """Computes a group if it is stale, from what was committed at `wanted` at least."""
        place = (view, group)
        if computing(place):
            raise StaleViewError(
                f"{self._views[view].name}: the function asks for the group it computes"
            )
        if view not in self._views:
            return 0
        with self._alone(place):
            for _ in range(_ATTEMPTS):
                done = self._attempt(place, wanted, seconds, lagging, critical)
                if done is not None:
                    return done
        raise StaleViewError(
            f"{self._views[view].name}: inputs of {decode_key(group)!r} were deleted each time it "
            "was computed; ask again"
        )

    def _attempt(
        self,
        place: _Place,
        wanted: int,
        seconds: float | None,
        lagging: set[str] | None,
        critical: bool,
    ) -> int | None:
        """`None`: an input went meanwhile, so that the result was dropped."""
        view, group = place
        reader = self._engine.reader_now()
        try:
            stored, stale = reader.view_group(view, group)
            if stale is None or (wanted and stored is not None and stored[2] >= wanted):
                return 0
            function = self._function(view)
            given = self._given(view, group, stored, reader)
            if not given.rows:
                return 0
            member = self._views[view]
            declared: View = member.declaration  # type: ignore[assignment]
            limit = declared.timeout / 1_000_000 if seconds is None else seconds
            read_at = reader.lsn
            started = time.perf_counter()
            try:
                result = self._calls.run(view, place, function, given, limit)
                document = documents.encode_document(result)
                commit = self._commit(view, group, document, read_at, stale[3])
            except (KeyboardInterrupt, SystemExit):
                raise
            except WaferError as error:
                if error.code in ("closed", "failed", "forked", "full", "read_only"):
                    raise
                raise self._stalled(place, stale[1], error) from error
            except Exception as error:
                raise self._stalled(place, stale[1], error) from error
        finally:
            reader.close()
        self._succeeded(place, time.perf_counter() - started)
        stands, _ = self._engine.reader().view_group(view, group)
        if stands is None or stands[2] < read_at:
            return None
        more = self.after_commit(commit, critical)
        if lagging is not None:
            lagging.update(more)
        return 1

    def _given(
        self,
        view: int,
        group: bytes,
        stored: tuple[bytes, int, int, int] | None,
        reader: _core.Reader,
    ) -> Group:
        shared = self._shared()
        nested = self._views[view].source in self._views
        inputs = reader.view_inputs(view, group)
        rows = tuple(rows_of(inputs, nested, units.to_datetime))
        previous = None if stored is None else documents.decode(stored[0])

        def vectors(of: str, keys: list[str]) -> list[Any]:
            if shared is None or of not in shared.catalog.entries:
                raise KeyError(of)
            raws = reader.get_many(shared.catalog.entries[of].id, keys)
            return [None if raw is None else decode_vector(raw) for raw in raws]

        return Group(decode_key(group), rows, previous, vectors)

    def _commit(
        self, view: int, group: bytes, document: bytes, input_lsn: int, covered: int
    ) -> _core._Commit:
        core = self._engine.begin(priority="background", mode="single")
        try:
            core.put_result(view, group, document, input_lsn, covered)
        except BaseException:
            core.rollback()
            raise
        return core.commit()

    def _succeeded(self, place: _Place, seconds: float) -> None:
        with self._lock:
            self._stalls.pop(place, None)
            figures = self._figures.setdefault(place[0], _Figures())
            figures.computed += 1
            figures.micros += (seconds * 1e6 - figures.micros) / min(figures.computed, 16)

    def _stalled(self, place: _Place, changed: int, error: BaseException) -> StaleViewError:
        """Remembers why a group's function failed; the error for who asked."""
        reason = f"{type(error).__name__}: {error}"[:500]
        now = self._engine.now()
        with self._lock:
            known = self._stalls.get(place)
            again = known is not None and known.changed == changed
            pause = min(known.pause * 2, _PAUSE_MICROS_MAX) if known and again else _PAUSE_MICROS
            self._stalls[place] = _Stall(reason, changed, now + pause, pause)
            self._figures.setdefault(place[0], _Figures()).failed += 1
        name = self._views[place[0]].name
        return StaleViewError(
            f"{name}: the group {decode_key(place[1])!r} could not be computed: {reason}; its last "
            'result is read with consistency="eventual"'
        )

    def stats(self) -> dict[str, ViewStats]:
        """What was computed of each view, and what is stale."""
        found = {}
        for member in self._views.values():
            figures = self._figures.get(member.id, _Figures())
            stalled = {
                repr(decode_key(group)): stall.reason
                for (view, group), stall in list(self._stalls.items())
                if view == member.id
            }
            found[member.name] = ViewStats(
                self._engine.reader().view_stale_count(member.id),
                figures.computed,
                figures.failed,
                dict(list(stalled.items())[:_STALLS_SHOWN]),
            )
        return found


def _computes(member: Member) -> bool:
    return callable(getattr(member.declaration, "function", None))


def _is_eager(member: Member) -> bool:
    return isinstance(member.policy, Eager) and _computes(member)


def _each_stale(
    reader: _core.Reader, view: int, prefix: bytes
) -> Iterator[tuple[bytes, _core._Stale]]:
    after: bytes | None = None
    while True:
        page, after = reader.view_stale(view, prefix, after, _PAGE)
        yield from page
        if after is None:
            return


def _work(refresher: weakref.ref[Refresher], signal: _Signal) -> None:
    """The worker's life."""
    while signal.wait():
        held = refresher()
        if held is None:
            return
        try:
            held.turn()
        except WaferError:
            # The database closed or failed: whoever writes next is told.
            if held._engine.closed:
                return
            signal.notify()
        del held
