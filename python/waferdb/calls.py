"""Calls of views' functions, each on a thread of its own.

A thread cannot be stopped: a call that is given up is left behind, and its result with it. While
one of a group is left behind, no other of that group begins, so a function that hangs costs each
group it hangs on one thread and no more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from waferdb.errors import StaleViewError

__all__ = ["Call", "Calls", "Place", "chain", "computing"]

Place = tuple[int, bytes]  # a view, and a group of it

_IDLE_MAX = 4

_inside = threading.local()


def computing(place: Place | None = None) -> bool:
    """Whether this thread runs a view's function: any, or that of one group, however deep."""
    within = chain()
    return bool(within) if place is None else place in within


def chain() -> tuple[Place, ...]:
    """The groups whose functions this thread is within, the innermost last."""
    found: tuple[Place, ...] = getattr(_inside, "chain", ())
    return found


class Call:
    """One call: what it is of, and what became of it once it is `done`."""

    __slots__ = ("argument", "chain", "done", "failure", "function", "place", "result", "told")

    def __init__(
        self,
        place: Place,
        function: Callable[[Any], Any],
        argument: Any,
        told: Callable[[], None],
    ) -> None:
        self.place = place
        self.function = function
        self.argument = argument
        self.told = told  # called when it is done
        self.chain: tuple[Place, ...] = (*chain(), place)
        self.done = threading.Event()
        self.result: Any = None
        self.failure: BaseException | None = None

    def outcome(self) -> Any:
        """What the function returned, or raises what it raised."""
        if self.failure is None:
            return self.result
        if isinstance(self.failure, Exception):
            raise self.failure
        # An exit or interrupt of its own ends no more than the call.
        raise RuntimeError(f"{type(self.failure).__name__} in the function") from self.failure


class Calls:
    """The threads of one database that run functions."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[SimpleQueue[Call | None]] = []
        self._behind: set[Place] = set()
        self._open: set[Call] = set()
        self.is_stopped = False
        self.running = 0

    def begin(
        self,
        place: Place,
        function: Callable[[Any], Any],
        argument: Any,
        told: Callable[[], None],
    ) -> Call:
        """Begins `function(argument)`; `StaleViewError` while one of this group is left behind."""
        call = Call(place, function, argument, told)
        with self._lock:
            if place in self._behind:
                raise StaleViewError("an earlier call for this group still runs past its time")
            if self.is_stopped:
                raise StaleViewError("the database is being closed")
            todo = self._idle.pop() if self._idle else None
        if todo is None:
            todo = SimpleQueue()
            thread = threading.Thread(target=self._serve, args=(todo,), daemon=True)
            thread.name = "waferdb-view"
            thread.start()
        with self._lock:
            self.running += 1
            self._open.add(call)
        todo.put(call)
        return call

    def give_up(self, call: Call) -> bool:
        """Waits for a call no longer; `False`: it was done just now."""
        with self._lock:
            if call not in self._open:
                return False
            self._behind.add(call.place)
            return True

    def _serve(self, todo: SimpleQueue[Call | None]) -> None:
        while (call := todo.get()) is not None:
            _inside.chain = call.chain
            try:
                call.result = call.function(call.argument)
            except BaseException as failure:  # noqa: BLE001 - told to who waits
                call.failure = failure
            _inside.chain = ()
            with self._lock:
                self.running -= 1
                self._open.discard(call)
                self._behind.discard(call.place)
                call.done.set()
                keep = not self.is_stopped and len(self._idle) < _IDLE_MAX
                if keep:
                    self._idle.append(todo)
            call.told()
            del call
            if not keep:
                return

    def stop(self) -> None:
        """Nobody waits any longer."""
        with self._lock:
            self.is_stopped = True
            idle, self._idle = self._idle, []
            for call in self._open:
                call.done.set()
        for todo in idle:
            todo.put(None)
