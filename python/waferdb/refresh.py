"""When stale groups of views are computed: for a reader that asks, after a commit, or in the
background.

1. No lock, snapshot or transaction of a caller is held while a function runs.
2. What a view is made of is computed before it, level by level, from rows upwards.
3. A reader that asks is answered from a computation that began after it asked.
4. A function that fails or hangs holds up no other group, view or commit for longer than its time.
"""

from __future__ import annotations

import itertools
import threading
import time
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING

from waferdb import _core
from waferdb.calls import Place, computing
from waferdb.computing import CannotComputeError, Computing, Started, batches, declared
from waferdb.errors import StaleViewError, TransactionError, WaferError
from waferdb.groups import decode_key
from waferdb.policies import Eager, Hybrid, Lazy
from waferdb.results import ViewStats
from waferdb.structures.view import View

if TYPE_CHECKING:
    from waferdb.schema import Member
    from waferdb.scope import Shared

__all__ = ["Refresher"]

_Parts = dict[str, bytes]  # fields of a group's key, encoded

_PAGE = 512
_PAGES_LOOKED_AT = 64
_LEFT_BEHIND_MICROS = 1_000_000.0
_COST_SECONDS_MIN = 1e-4
_ATTEMPTS = 4
_TICK_SECONDS = 0.05
_TICK_SECONDS_MAX = 1.0
_READS_REMEMBERED = 16_384
_RUNNING_MAX = 16


class _Signal:
    """What wakes the worker, which must not keep the database open while it sleeps."""

    __slots__ = ("changed", "pending", "stopping", "tick", "woken")

    def __init__(self) -> None:
        self.tick = _TICK_SECONDS
        self.changed = threading.Condition()
        self.pending = True  # a group may be stale that the worker has to see to
        self.stopping = False
        self.woken = False  # a call is done

    def notify(self) -> None:
        if not self.pending:
            with self.changed:
                self.pending = True
                self.changed.notify()

    def wake(self) -> None:
        with self.changed:
            self.woken = True
            self.changed.notify()

    def stop(self) -> None:
        with self.changed:
            self.stopping = True
            self.changed.notify_all()

    def wait(self) -> bool:
        """Until there may be something to do; `False`: it is to end."""
        with self.changed:
            if not (self.stopping or self.woken):
                # Who commits through the C API wakes nobody.
                self.changed.wait(self.tick if self.pending else _TICK_SECONDS_MAX)
            self.woken = False
            return not self.stopping


class Refresher:
    """Of one open database. Any thread may use it."""

    def __init__(self, shared: Shared, *, threads: bool) -> None:
        self._engine = shared.engine
        self._lock = threading.Lock()
        self._signal = _Signal()
        self._computing = Computing(shared, self._signal.wake)
        # Where nobody closes the database, its threads end with it.
        for stop in (self._signal.stop, self._computing.calls.stop):
            weakref.finalize(self, stop)
        self._threads = threads
        self._worker: threading.Thread | None = None
        self._running: dict[Place, Started] = {}  # of the worker
        self._reads: dict[Place, int] = {}
        self._from: dict[int, bytes | None] = {}
        self.reload(shared)

    @property
    def _views(self) -> dict[int, Member]:
        return self._computing.views

    def reload(self, shared: Shared) -> None:
        """Takes up the views of a schema that changed."""
        members = shared.catalog.entries.values()
        views = {m.id: m for m in members if isinstance(m.declaration, View)}
        self._computing.views = views
        if any(_in_background(member) for member in views.values()):
            hybrids = [m.policy for m in views.values() if isinstance(m.policy, Hybrid)]
            tick = min((policy.max_age / 4e6 for policy in hybrids), default=_TICK_SECONDS_MAX)
            self._signal.tick = min(max(tick, _TICK_SECONDS), _TICK_SECONDS_MAX)
            self._start()
            self._signal.notify()

    def refuse_inside(self, call: str) -> None:
        """Raises `TransactionError` in a function of a view: it may read, not write."""
        if self._computing.calls.running and computing():
            raise TransactionError(
                f"a view's function may read the database, not change it: {call} was refused and "
                "nothing was written; return what is to be kept"
            )

    # For readers.

    def note_read(self, view: int, group: bytes) -> None:
        """Groups that are read are computed first."""
        reads = self._reads
        if len(reads) >= _READS_REMEMBERED:
            reads.clear()
        place = (view, group)
        reads[place] = reads.get(place, 0) + 1

    def lacks(self, view: int, group: bytes, reader: _core.Reader) -> _core._Stale | None:
        """What a group and all that it is made of lack, taken as one; `None`: nothing."""
        _, stale = reader.view_group(view, group)
        found = [] if stale is None else [stale]
        member: Member | None = self._views.get(view)
        parts = {} if member is None else _parts(member, group)
        while member is not None and (member := self._source(member)) is not None:
            parts = _shared(member, parts)
            page = itertools.islice(_each_stale(reader, member, parts), _PAGE)
            found.extend(stale for _, stale in page)
        if not found:
            return None
        since, changed, removed, changes, times, sizes, routine = zip(*found, strict=True)
        return (
            min(since),
            max(changed),
            max(removed),
            sum(changes),
            min(times),
            sum(sizes),
            any(routine),
        )

    def _source(self, member: Member) -> Member | None:
        """The view that a view is made of."""
        return None if member.source is None else self._views.get(member.source)

    def fresh(self, view: int, group: bytes, on_error: str) -> int:
        """Computes a group from everything committed so far, and what it is made of, first; how
        many were computed. A failure raises `StaleViewError`, unless an older result may serve;
        where nothing can be computed at all, always."""
        try:
            return self._fresh(view, group, self._engine.lsn)
        except CannotComputeError:
            raise
        except StaleViewError:
            stored, _ = self._engine.reader().view_group(view, group)
            if on_error == "raise" or stored is None:
                raise
            return 0

    def _fresh(self, view: int, group: bytes, wanted: int) -> int:
        member = self._views.get(view)
        computed = 0
        if member is not None and (source := self._source(member)) is not None:
            parts = _shared(source, _parts(member, group))
            computed += self._settle(source, parts, wanted)
        return computed + self._compute((view, group), wanted)

    def _settle(self, member: Member, parts: _Parts, wanted: int) -> int:
        """Computes the stale groups of a view with these parts in their keys, and all below them,
        first: each level is asked what is stale once the one below it is not."""
        computed = 0
        source = self._source(member)
        if source is not None:
            computed += self._settle(source, _shared(source, parts), wanted)
        for group, _ in _each_stale(self._engine.reader(), member, parts):
            computed += self._compute((member.id, group), wanted)
        return computed

    def stale(self, view: int, reader: _core.Reader) -> list[bytes]:
        """The groups of a view that are stale, or made of some that are."""
        member = self._views[view]
        found = {group for group, _ in _each_stale(reader, member, {})}
        parts: list[_Parts] = [{}]
        source = self._source(member)
        while source is not None:
            fields = [field for field in declared(member).by if field in declared(source).by]
            for group, _ in _each_stale(reader, source, {}):
                known = _parts(source, group)
                parts.append({field: known[field] for field in fields})
            source = self._source(source)
        whole = set(declared(member).by)
        for known in parts[1:]:
            if known.keys() == whole:
                found.add(b"".join(known[field] for field in declared(member).by))
            else:
                # It is not known before it is computed which of them it leads to.
                found.update(g for g in _each_group(reader, view) if _agrees(member, g, known))
        return sorted(found)

    def refresh(self, view: int) -> int:
        """Computes all stale groups of a view, and of the views it is made of; how many."""
        member = self._views[view]
        if declared(member).function is not None and not _computes(member):
            return 0  # kept up by the difference
        self._computing.function(view)
        computed = 0
        source = self._source(member)
        if source is not None:
            computed += self.refresh(source.id)
        for group, _ in _each_stale(self._engine.reader(), member, {}):
            try:
                computed += self._compute((view, group), 0)
            except StaleViewError:
                # Said in the statistics; the others go on.
                continue
        return computed

    def wait(self, lsn: int, named: list[Member], deadline: float | None) -> None:
        """Computes what these views lack of the commits up to `lsn`; `TimeoutError` if that is not
        done in time, `StaleViewError` if it cannot be."""
        for member in named:
            if member.id not in self._views:
                continue
            reader = self._engine.reader()
            for group, stale in _each_stale(reader, member, {}):
                if stale[0] > lsn:
                    continue
                if deadline is not None and time.monotonic() >= deadline:
                    raise TimeoutError(
                        f"{self._computing.name((member.id, group))} does not reflect LSN {lsn} "
                        "within the time given; wait again"
                    )
                self._compute((member.id, group), lsn, deadline)

    def drain(self, named: list[Member]) -> None:
        """Computes what is stale of these views, or of all that are not lazy."""
        wanted = {member.id for member in named}
        for member in list(self._views.values()):
            asked = member.id in wanted if named else not isinstance(member.policy, Lazy)
            if asked and _computes(member) and self._engine.writable:
                self.refresh(member.id)

    def _compute(self, place: Place, wanted: int, until: float | None = None) -> int:
        """Computes one group, if it is stale. `until`: past that it is a `TimeoutError`."""
        try:
            return self._compute_within(place, wanted, until)
        except StaleViewError:
            if until is None or time.monotonic() < until:
                raise
            raise TimeoutError(
                f"{self._computing.name(place)} was not computed within the time given; wait again"
            ) from None

    def _compute_within(self, place: Place, wanted: int, until: float | None) -> int:
        limit = self._limit(place[0])
        for _ in range(_ATTEMPTS):
            deadline = time.monotonic() + limit
            started = self._computing.begin(place, wanted, min(deadline, until or deadline))
            if started is None:
                return 0
            document = self._computing.result(started)
            commit, dropped, _ = self._computing.commit([(started, document)], "async")
            if commit is None:
                raise StaleViewError(self._why(place))
            self.after_commit(commit, False)
            if not dropped:
                return 1
        raise StaleViewError(
            f"inputs of {self._computing.name(place)} were deleted each time it was computed; ask "
            "again"
        )

    def _why(self, place: Place) -> str:
        _, _, stalled = self._computing.figures(place[0])
        reason = stalled.get(repr(decode_key(place[1])), "its result could not be kept")
        return f"{self._computing.name(place)} could not be computed: {reason}"

    def _limit(self, view: int) -> float:
        return declared(self._views[view]).timeout / 1_000_000

    # After a commit.

    def after_commit(self, commit: _core._Commit, critical: bool) -> tuple[str, ...]:
        """Computes what the views' policies want before the call returns; those that lag. The
        commit is durable or on its way, so nothing but an interrupt comes out of this."""
        views = self._views
        try:
            lagging = self._after(commit, critical) if views else set()
        except Exception:  # noqa: BLE001 - what was committed is committed; the worker sees to it
            lagging = {view for view, member in views.items() if _is_at_once(member, critical)}
        if lagging:
            self._signal.notify()
        return tuple(sorted(views[view].name for view in lagging if view in views))

    def _after(self, commit: _core._Commit, critical: bool) -> set[int]:
        touched = commit[5]
        if touched is None:
            # Not applied when the call returned: it is once it is durable.
            self._signal.notify()
            at_once = [m for m in self._views.values() if _is_at_once(m, critical)]
            if not at_once:
                return set()
            self._engine.flush()
            touched = self._touched_since(at_once, commit[0])
        wanted = [place for place in touched if self._at_once(place, commit[0], critical)]
        left = {view for view, _ in {*touched} - {*wanted}}
        if any(_in_background(self._views[view]) for view in left if view in self._views):
            self._signal.notify()
        if not wanted:
            return set()
        if not commit[2]:
            # An eager result is of what is durable.
            self._engine.flush()
        return self._compute_now(wanted, commit[0], critical)

    def _touched_since(self, members: list[Member], lsn: int) -> list[Place]:
        """Stale groups of these views that changed at this LSN, or after it."""
        reader = self._engine.reader()
        return [
            (member.id, group)
            for member in members
            for group, stale in _each_stale(reader, member, {})
            if stale[1] >= lsn
        ]

    def _compute_now(
        self, wanted: list[Place], lsn: int, critical: bool, seen: frozenset[Place] = frozenset()
    ) -> set[int]:
        """Computes groups beside each other, each within the time of its view from now; the views
        of those that failed."""
        now = time.monotonic()
        lagging: set[int] = set()
        followed: set[Place] = set()
        tries = 0
        waiting = list(reversed(wanted))
        while waiting:
            begun: list[Started] = []
            while waiting and len(begun) < _RUNNING_MAX:
                place = waiting.pop()
                try:
                    started = self._computing.begin(place, lsn, now + self._limit(place[0]))
                except WaferError:
                    lagging.add(place[0])
                    continue
                if started is not None:
                    begun.append(started)
                else:
                    # Another computed it just now, and sees to what follows at leisure.
                    followed.update(self._computing.followed(place))
            failed, dropped = self._gather(begun, critical)
            lagging |= failed
            # An input went meanwhile: they are computed from what is left.
            tries += 1
            if tries < _ATTEMPTS:
                waiting += dropped
            else:
                lagging |= {view for view, _ in dropped}
        seen |= {*wanted}
        more = [p for p in sorted(followed - seen) if self._at_once(p, lsn, critical)]
        return lagging | self._compute_now(more, lsn, critical, seen) if more else lagging

    def _gather(self, begun: list[Started], critical: bool) -> tuple[set[int], list[Place]]:
        """Waits for calls and commits what they return; the views of what failed or lags, and the
        groups whose result was dropped."""
        made: list[tuple[Started, bytes]] = []
        failed: set[int] = set()
        waiting = list(reversed(begun))
        try:
            while waiting:
                started = waiting.pop()
                try:
                    made.append((started, self._computing.result(started)))
                except StaleViewError:
                    failed.add(started.place[0])
        except BaseException:
            for started in (*waiting, *(started for started, _ in made)):
                self._computing.calls.give_up(started.call)
                self._computing.end(started)
            raise
        dropped: list[Place] = []
        for part in batches(made):
            lagging, gone = self._keep(part, critical)
            failed |= lagging
            dropped += gone
        return failed, dropped

    def _keep(
        self, made: list[tuple[Started, bytes]], critical: bool
    ) -> tuple[set[int], list[Place]]:
        """Commits results that the policies want at once."""
        try:
            commit, dropped, refused = self._computing.commit(made, None)
        except WaferError:
            # What was committed before is committed; the next write is told.
            return {started.place[0] for started, _ in made}, []
        failed = {view for view, _ in refused}
        if commit is not None:
            names = self.after_commit(commit, critical)
            failed |= {view for view, member in self._views.items() if member.name in names}
        return failed, dropped

    def _at_once(self, place: Place, lsn: int, critical: bool) -> bool:
        member = self._views.get(place[0])
        if member is None or not _computes(member):
            return False
        if isinstance(member.policy, Eager):
            return True
        if not isinstance(member.policy, Hybrid):
            return False
        if critical:
            return True
        _, stale = self._engine.reader().view_group(*place)
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
        self._computing.calls.stop()
        worker = self._worker
        if worker is not None and worker is not threading.current_thread():
            worker.join()

    def turn(self) -> int:
        """Begins what is due and keeps what is done; how many results were kept. Without threads of
        its own it waits for what it began."""
        self._signal.pending = False
        kept = 0
        more = True
        while more and not self._signal.stopping:
            more = self._begin_due()
            if not self._threads:
                for started in self._running.values():
                    started.call.done.wait(max(0.0, started.deadline - time.monotonic()))
            kept += self._keep_done()
            more = more and not self._threads
        if self._running or kept or any(self._waits(view) for view in list(self._views)):
            self._signal.notify()
        return kept

    def _waits(self, view: int) -> bool:
        member = self._views.get(view)
        if member is None or not _in_background(member):
            return False
        return any(True for _ in _each_stale(self._engine.reader(), member, {}))

    def _begin_due(self) -> bool:
        """Calls the functions of groups that may wait no longer, of all views the most worth
        first; whether there were any."""
        due: list[tuple[float, Place]] = []
        for member in list(self._views.values()):
            if _in_background(member):
                due += self._due(member)
        begun = False
        for _, place in sorted(due, reverse=True):
            if len(self._running) >= _RUNNING_MAX:
                break
            if place in self._running or place[0] not in self._views:
                continue
            try:
                limit = time.monotonic() + self._limit(place[0])
                started = self._computing.begin(place, 0, limit, wait=False)
            except StaleViewError:
                continue
            if started is not None:
                self._reads.pop(place, None)
                self._running[place] = started
                begun = True
        return begun

    def _keep_done(self) -> int:
        """Commits, as one, the results of calls that are done; those out of time are given up."""
        made: list[tuple[Started, bytes]] = []
        now = time.monotonic()
        for place, started in list(self._running.items()):
            if started.call.done.is_set() or started.deadline <= now:
                del self._running[place]
                try:
                    made.append((started, self._computing.result(started)))
                except StaleViewError:
                    continue
        kept = 0
        for part in batches(made):
            commit, dropped, failed = self._computing.commit(part, "async")
            if commit is not None:
                self.after_commit(commit, False)
            kept += len(part) - len(dropped) - len(failed)
        return kept

    def _due(self, member: Member) -> list[tuple[float, Place]]:
        """Groups to compute now, with what that is worth; it looks on where it looked last."""
        for _ in range(_PAGES_LOOKED_AT):
            place = self._from.get(member.id)
            page, after = self._engine.reader().view_stale(member.id, b"", place, _PAGE)
            self._from[member.id] = after
            due = self._due_of(member, page)
            if due or after is None:
                return due
        return []

    def _due_of(
        self, member: Member, page: list[tuple[bytes, _core._Stale]]
    ) -> list[tuple[float, Place]]:
        scale = self._engine.batch_scale()
        now, idle = self._engine.now(), self._engine.is_idle()
        policy = member.policy
        # An eager group is computed by who commits; what was left behind is seen to here.
        full, age_max = False, _LEFT_BEHIND_MICROS
        if isinstance(policy, Hybrid):
            changes = sum(stale[3] for _, stale in page)
            size = sum(stale[5] for _, stale in page)
            full = changes > policy.max_items * scale or size > policy.max_bytes * scale
            age_max = policy.max_age * scale
        cost = self._computing.cost(member.id) + _COST_SECONDS_MIN
        due: list[tuple[float, Place]] = []
        for group, stale in page:
            age, place = now - stale[4], (member.id, group)
            if self._computing.waits(place, stale[1], now):
                continue
            routine = stale[6] or isinstance(policy, Eager)
            if full or (routine and age >= age_max) or (idle and not routine):
                due.append((age * (1 + self._reads.get(place, 0)) / cost, place))
        return due

    def stats(self) -> dict[str, ViewStats]:
        """What was computed of each view, and what is stale."""
        found = {}
        for member in self._views.values():
            computed, failed, stalled = self._computing.figures(member.id)
            stale = self._engine.reader().view_stale_count(member.id)
            found[member.name] = ViewStats(stale, computed, failed, stalled)
        return found


def _computes(member: Member) -> bool:
    return callable(declared(member).function)


def _is_at_once(member: Member, critical: bool) -> bool:
    eager = isinstance(member.policy, Eager)
    return _computes(member) and (eager or (critical and isinstance(member.policy, Hybrid)))


def _in_background(member: Member) -> bool:
    """Eager views, too: what their commits left behind is seen to."""
    return not isinstance(member.policy, Lazy) and _computes(member)


def _parts(member: Member, group: bytes) -> _Parts:
    """The fields of a group's key, as they are encoded."""
    return dict(zip(declared(member).by, _core.group_parts(group), strict=True))


def _shared(member: Member, parts: _Parts) -> _Parts:
    """Those of these fields that a view groups by: a result's own group comes before its fields, so
    what goes into a group agrees with it in them."""
    return {field: parts[field] for field in declared(member).by if field in parts}


def _each_stale(
    reader: _core.Reader, member: Member, parts: _Parts
) -> Iterator[tuple[bytes, _core._Stale]]:
    """Stale groups of a view whose keys have these parts."""
    by = declared(member).by
    leading = tuple(itertools.takewhile(parts.__contains__, by))
    prefix = b"".join(parts[field] for field in leading)
    after: bytes | None = None
    while True:
        page, after = reader.view_stale(member.id, prefix, after, _PAGE)
        for group, stale in page:
            if len(leading) == len(parts) or _agrees(member, group, parts):
                yield group, stale
        if after is None:
            return


def _each_group(reader: _core.Reader, view: int) -> Iterator[bytes]:
    after: bytes | None = None
    while True:
        page, after = reader.view_keys(view, after, _PAGE)
        yield from page
        if after is None:
            return


def _agrees(member: Member, group: bytes, parts: _Parts) -> bool:
    return parts.items() <= _parts(member, group).items()


def _work(refresher: weakref.ref[Refresher], signal: _Signal) -> None:
    """The worker's life."""
    while signal.wait():
        held = refresher()
        if held is None:
            return
        try:
            held.turn()
        except Exception:  # noqa: BLE001 - a view dropped meanwhile, a database that failed
            # Whoever writes next is told; the others are seen to on the next turn.
            if held._engine.closed:
                return
            signal.notify()
        del held
