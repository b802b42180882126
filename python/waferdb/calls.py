"""Calls of views' functions, each on a thread of its own and for no longer than its time.

A thread cannot be stopped: one that runs past its time is left behind, and its result with it. A
view that has left so many behind is not called again until one of them ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from waferdb.errors import StaleViewError

__all__ = ["Calls", "computing"]

_Place = tuple[int, bytes]

_LEFT_BEHIND_MAX = 4
_IDLE_MAX = 4

_inside = threading.local()


def computing(place: _Place | None = None) -> bool:
    """Whether this thread runs a view's function: any, or that of one group, however deep."""
    chain: tuple[_Place, ...] = getattr(_inside, "chain", ())
    return bool(chain) if place is None else place in chain


class _Call:
    """One call, its outcome, and who waits for it."""

    __slots__ = ("argument", "chain", "done", "failure", "function", "left", "result", "view")

    def __init__(self, view: int, place: _Place, function: Callable[[Any], Any], argument: Any):
        self.view = view
        self.function = function
        self.argument = argument
        self.chain: tuple[_Place, ...] = (*getattr(_inside, "chain", ()), place)
        self.done = threading.Event()
        self.result: Any = None
        self.failure: BaseException | None = None
        self.left = False


class Calls:
    """The threads of one database that run functions."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[SimpleQueue[_Call | None]] = []
        self._behind: dict[int, int] = {}
        self._waiting: set[_Call] = set()
        self._stopped = False
        self.running = 0

    def run(
        self, view: int, place: _Place, function: Callable[[Any], Any], argument: Any, limit: float
    ) -> Any:
        """`function(argument)`, or what it raised; `StaleViewError` past `limit` seconds."""
        call = _Call(view, place, function, argument)
        with self._lock:
            if self._stopped:
                raise StaleViewError("the database is being closed")
            if self._behind.get(view, 0) >= _LEFT_BEHIND_MAX:
                raise StaleViewError(
                    f"{_LEFT_BEHIND_MAX} calls of its function still run past their time"
                )
            self.running += 1
            self._waiting.add(call)
            todo = self._idle.pop() if self._idle else None
        if todo is None:
            todo = SimpleQueue()
            thread = threading.Thread(target=self._serve, args=(todo,), daemon=True)
            thread.name = "waferdb-view"
            thread.start()
        todo.put(call)
        try:
            call.done.wait(limit)
        finally:
            with self._lock:
                self._waiting.discard(call)
                if call.left or not call.done.is_set():
                    call.left = True
                    self._behind[view] = self._behind.get(view, 0) + 1
        if call.left:
            raise StaleViewError(f"its function had not returned within {limit:g} s")
        if call.failure is not None:
            raise _as_error(call.failure)
        return call.result

    def _serve(self, todo: SimpleQueue[_Call | None]) -> None:
        while (call := todo.get()) is not None:
            _inside.chain = call.chain
            try:
                call.result = call.function(call.argument)
            except BaseException as failure:  # noqa: BLE001 - told to who waits
                call.failure = failure
            _inside.chain = ()
            with self._lock:
                self.running -= 1
                left = call.left
                call.done.set()
                if left:
                    self._behind[call.view] -= 1
                keep = not self._stopped and len(self._idle) < _IDLE_MAX
                if keep:
                    self._idle.append(todo)
            del call
            if not keep:
                return

    def stop(self) -> None:
        """Nobody waits any longer."""
        with self._lock:
            self._stopped = True
            idle, self._idle = self._idle, []
            for call in self._waiting:
                call.left = True
                call.done.set()
        for todo in idle:
            todo.put(None)


def _as_error(failure: BaseException) -> Exception:
    """What a function raised; an exit or interrupt of its own ends no more than its call."""
    if isinstance(failure, Exception):
        return failure
    error = RuntimeError(f"{type(failure).__name__}: {failure}")
    error.__cause__ = failure
    return error
