"""The computing of one group of a view: its inputs, the call, the result committed.

1. One group is computed by one at a time.
2. A result is committed as of the LSN its inputs were read at, and those are kept until it is.
3. Whatever a function does, its group stalls and no other: the reason is remembered, and what is
   computed in the background waits, longer each time, until it is tried again.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from waferdb import _core, documents, units
from waferdb.calls import Call, Calls, Place, chain, computing
from waferdb.errors import (
    ClosedError,
    FailedError,
    ForkedError,
    FullError,
    ReadOnlyError,
    StaleViewError,
)
from waferdb.groups import Group, decode_key, rows_of
from waferdb.structures.vectors import decode_vector
from waferdb.structures.view import View

if TYPE_CHECKING:
    from waferdb.schema import Member
    from waferdb.scope import Shared

__all__ = ["CannotComputeError", "Computing", "Started", "batches", "declared"]

_PAUSE_MICROS = 1_000_000
_PAUSE_MICROS_MAX = 600_000_000
_STALLS_SHOWN = 32
_STALLS_MAX = 65_536
_FOLLOWED_MAX = 4_096
_MEAN_OF = 16
_COMMIT_BYTES = _core.LIMITS["commit_bytes_max"] // 2
_REASON_LETTERS_MAX = 500

# Of the database itself: whoever waits for a result is told, and no function is to blame.
_OWN = (ClosedError, FailedError, ForkedError, FullError, ReadOnlyError)


class CannotComputeError(StaleViewError):
    """A result cannot be computed here at all, whatever its function would do."""


class _Stall:
    """Why a group's function failed, what it saw, and when it is tried again."""

    __slots__ = ("again", "changed", "pause", "reason")

    def __init__(self, reason: str, changed: int, again: int, pause: int) -> None:
        self.reason = reason
        self.changed = changed
        self.again = again
        self.pause = pause


def batches(made: list[tuple[Started, bytes]]) -> Iterator[list[tuple[Started, bytes]]]:
    """Results in parts that one commit can hold."""
    part: list[tuple[Started, bytes]] = []
    size = 0
    for started, document in made:
        if part and size + len(document) > _COMMIT_BYTES:
            yield part
            part, size = [], 0
        part.append((started, document))
        size += len(document)
    if part:
        yield part


class Started:
    """A group whose function was called."""

    __slots__ = ("began", "call", "covered", "deadline", "place", "read_at", "reader", "stale")

    def __init__(
        self, place: Place, reader: _core.Reader, stale: _core._Stale, call: Call, deadline: float
    ) -> None:
        self.place = place
        self.reader = reader
        self.read_at = reader.lsn
        self.stale = stale
        self.call = call
        self.began = time.perf_counter()
        self.deadline = deadline


class _Figures:
    """What a view's computations came to."""

    __slots__ = ("computed", "failed", "seconds")

    def __init__(self) -> None:
        self.computed = 0
        self.failed = 0
        self.seconds = 0.0  # of one call, a moving mean


class Computing:
    """Of one open database. Any thread may use it."""

    def __init__(self, shared: Shared, told: Callable[[], None]) -> None:
        self._told = told  # when a call is done
        self._shared = weakref.ref(shared)
        self._engine = shared.engine
        self._changed = threading.Condition()
        self._busy: set[Place] = set()
        self._awaited: dict[Place, Place] = {}  # by a function: its group, and what it waits for
        self._stalls: dict[Place, _Stall] = {}
        self._figures: dict[int, _Figures] = {}
        self._followed: dict[Place, list[Place]] = {}
        self.calls = Calls()
        self.views: dict[int, Member] = {}

    # A group is held by one at a time.

    def _hold(self, place: Place, deadline: float) -> None:
        within = chain()
        with self._changed:
            left = deadline - time.monotonic()
            if within:
                self._refuse_circle(within, place)
                self._awaited[within[-1]] = place
            try:
                free = self._changed.wait_for(lambda: place not in self._busy, max(0.0, left))
            finally:
                if within:
                    self._awaited.pop(within[-1], None)
            if not free:
                raise StaleViewError(
                    f"{self.name(place)} is being computed by another, and was not done in time"
                )
            self._busy.add(place)

    def _refuse_circle(self, within: tuple[Place, ...], place: Place) -> None:
        """Raises where the function that computes `place` waits, itself or through others, for what
        this thread is to compute."""
        waited: Place | None = place
        for _ in range(len(self._awaited) + 1):
            waited = None if waited is None else self._awaited.get(waited)
            if waited in within:
                raise CannotComputeError(
                    f"{self.name(place)} asks for {self.name(within[-1])}, whose function asks for "
                    "it: one of them must read what is stored"
                )

    def _let_go(self, place: Place) -> None:
        with self._changed:
            self._busy.discard(place)
            self._changed.notify_all()

    def name(self, place: Place) -> str:
        """A group, for messages."""
        member = self.views.get(place[0])
        return f"{'a view' if member is None else member.name}[{decode_key(place[1])!r}]"

    # The steps of a computation.

    def begin(
        self, place: Place, wanted: int, deadline: float, *, wait: bool = True
    ) -> Started | None:
        """Calls the function of a group that is stale, or whose result is of before `wanted`;
        `None`: there is nothing to compute. `wait`: for another who computes it."""
        if computing(place):
            raise CannotComputeError(
                f"the function asks for {self.name(place)}, which it is to compute"
            )
        function = self.function(place[0])
        self._hold(place, deadline if wait else 0.0)
        reader: _core.Reader | None = None
        started: Started | None = None
        try:
            reader = self._engine.reader_now()
            stored, stale = reader.view_group(*place)
            if stale is None or (wanted and stored is not None and stored[2] >= wanted):
                return None
            group = self._group(place, stored, reader)
            if not group.rows:
                return None
            try:
                call = self.calls.begin(place, function, group, self._told)
            except (StaleViewError, RuntimeError) as error:
                # One is left behind, or there is no thread to be had.
                raise self._stalled(place, stale[1], error) from None
            started = Started(place, reader, stale, call, deadline)
            return started
        finally:
            if started is None:
                if reader is not None:
                    reader.close()
                self._let_go(place)

    def result(self, started: Started) -> bytes:
        """The encoded result of a call that is done or out of time; what went wrong is remembered
        and raised."""
        try:
            left = started.deadline - time.monotonic()
            started.call.done.wait(max(0.0, left))
            late = not started.call.done.is_set() or self.calls.is_stopped
            if late and self.calls.give_up(started.call):
                raise StaleViewError("its function had not returned within its time")
            return documents.encode_document(started.call.outcome())
        except Exception as error:
            failed = self._stalled(started.place, started.stale[1], error)
            self.end(started)
            raise failed from error
        except BaseException:
            # Of who waits: the call goes on without him, and no other of the group beside it.
            self.calls.give_up(started.call)
            self.end(started)
            raise

    def end(self, started: Started) -> None:
        """Lets a group and its inputs go."""
        started.reader.close()
        self._let_go(started.place)

    def commit(
        self, made: Iterable[tuple[Started, bytes]], durability: str | None
    ) -> tuple[_core._Commit | None, list[Place], list[Place]]:
        """Commits results as one, and lets their groups go: the commit, the groups whose result was
        dropped because an input went meanwhile, and those whose result cannot be kept."""
        kept: list[Started] = []
        every = list(made)
        # What a view is made of is as urgent to it as what that was made of.
        routine = any(started.stale[6] for started, _ in every)
        priority = "routine" if routine else "background"
        core = self._engine.begin(priority=priority, mode="single", durability=durability)
        commit: _core._Commit | None = None
        try:
            for started, document in every:
                view, group = started.place
                changes = started.stale[3]
                try:
                    core.put_result(view, group, document, started.read_at, changes)
                    kept.append(started)
                except _OWN:
                    raise
                except Exception as error:  # noqa: BLE001 - too large, or no document
                    self._stalled(started.place, started.stale[1], error)
            commit = core.commit() if kept else None
            if commit is not None:
                self._note(kept, commit[5] or [])
        except BaseException:
            core.rollback()
            raise
        finally:
            for started, _ in every:
                self.end(started)
        dropped = [started.place for started in kept if not self._stands(started)]
        failed = [started.place for started, _ in every if started not in kept]
        return commit, dropped, failed

    def _note(self, kept: list[Started], touched: list[Place]) -> None:
        with self._changed:
            if len(self._followed) > _FOLLOWED_MAX:
                self._followed.clear()
            for started in kept:
                self._followed[started.place] = touched

    def followed(self, place: Place) -> list[Place]:
        """What the newest result of a group made stale, whoever computed it."""
        return self._followed.get(place, [])

    def _stands(self, started: Started) -> bool:
        stored, stale = self._engine.reader().view_group(*started.place)
        # A group that went meanwhile needs no result.
        stands = stale is None or (stored is not None and stored[2] >= started.read_at)
        if stands:
            taken = time.perf_counter() - started.began
            with self._changed:
                self._stalls.pop(started.place, None)
                figures = self._figures.setdefault(started.place[0], _Figures())
                figures.computed += 1
                figures.seconds += (taken - figures.seconds) / min(figures.computed, _MEAN_OF)
        return stands

    def cost(self, view: int) -> float:
        """Seconds that a call of a view's function takes, as far as is known."""
        known = self._figures.get(view)
        return 0.0 if known is None else known.seconds

    def _group(
        self,
        place: Place,
        stored: tuple[bytes, int, int, int] | None,
        reader: _core.Reader,
    ) -> Group:
        view, group = place
        nested = self.views[view].source in self.views
        rows = tuple(rows_of(reader.view_inputs(view, group), nested, units.to_datetime))
        previous = None if stored is None else documents.decode(stored[0])
        known = self._shared

        def vectors(of: str, keys: list[str]) -> list[Any]:
            shared = known()
            if shared is None or of not in shared.catalog.entries:
                raise KeyError(of)
            raws = reader.get_many(shared.catalog.entries[of].id, keys)
            return [None if raw is None else decode_vector(raw) for raw in raws]

        return Group(decode_key(group), rows, previous, vectors)

    # What cannot be computed, or failed.

    def function(self, view: int) -> Any:
        """The function of a view; `CannotComputeError` where there is none."""
        member = self.views.get(view)
        function = None if member is None else declared(member).function
        if function is None:
            name = "the view" if member is None else repr(member.name)
            raise CannotComputeError(
                f"{name} has no function here: open the database with the class that declares it; "
                'its stored results are read with consistency="eventual"'
            )
        if not self._engine.writable:
            raise CannotComputeError(
                'a result cannot be computed in a database opened with mode="r", which writes '
                'nothing: open it with mode="rw", or read with consistency="eventual"'
            )
        return function

    def waits(self, place: Place, changed: int, now: int) -> bool:
        """Whether a group that failed is to be left alone for now."""
        stall = self._stalls.get(place)
        return stall is not None and stall.changed == changed and stall.again > now

    def _stalled(self, place: Place, changed: int, error: BaseException) -> StaleViewError:
        """Remembers why a group's function failed; the error for who asked."""
        reason = _said(error)
        now = self._engine.now()
        with self._changed:
            known = self._stalls.get(place)
            again = known is not None and known.changed == changed
            pause = min(known.pause * 2, _PAUSE_MICROS_MAX) if known and again else _PAUSE_MICROS
            self._stalls.pop(place, None)
            self._stalls[place] = _Stall(reason, changed, now + pause, pause)
            if len(self._stalls) > _STALLS_MAX:
                # The one that failed longest ago: should it fail again, its pause begins anew.
                del self._stalls[next(iter(self._stalls))]
            self._figures.setdefault(place[0], _Figures()).failed += 1
        return StaleViewError(
            f"{self.name(place)} could not be computed: {reason}; its last result is read with "
            'consistency="eventual"'
        )

    def figures(self, view: int) -> tuple[int, int, dict[str, str]]:
        """How many results were computed, how many calls failed, and why groups stall."""
        known = self._figures.get(view, _Figures())
        reader = self._engine.reader()
        stalls: dict[str, str] = {}
        for place, stall in list(self._stalls.items()):
            if place[0] != view or len(stalls) >= _STALLS_SHOWN:
                continue
            if reader.view_group(*place)[1] is None:
                # The group went, and with it what its function said of it.
                self._stalls.pop(place, None)
            else:
                stalls[repr(decode_key(place[1]))] = stall.reason
        return known.computed, known.failed, stalls


def declared(member: Member) -> View:
    """The declaration of a view."""
    assert isinstance(member.declaration, View)
    return member.declaration


def _said(error: BaseException) -> str:
    """What an error says, also where it cannot."""
    try:
        return f"{type(error).__name__}: {error}"[:_REASON_LETTERS_MAX]
    except Exception:  # noqa: BLE001 - its own text fails
        return f"{type(error).__name__}, which cannot be shown"
