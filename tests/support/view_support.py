"""What the tests of views share: a function that counts its calls, and waits that always end.

Nothing here measures time. `within` fails a test that would hang, with room enough that a slow
machine is not taken for a hanging one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import waferdb
from waferdb import Rows, View, lazy

T = TypeVar("T")

PATIENCE = 30.0


def fact(user: str, text: str, **more: Any) -> dict[str, Any]:
    return {"user": user, "text": text, **more}


def joined(group: Any) -> dict[str, Any]:
    """The texts of a group, in the order of its rows."""
    return {"text": " ".join(row.value["text"] for row in group.rows)}


class Recorded:
    """A view's function; `calls` has the key of each call, `function` may be changed meanwhile."""

    def __init__(self, function: Callable[[Any], Any] = joined) -> None:
        self.function = function
        self.calls: list[Any] = []

    def __call__(self, group: Any) -> Any:
        self.calls.append(group.key)
        return self.function(group)


class Blocked:
    """A function that waits in each call until it is released: `started` says that it waits."""

    def __init__(self, function: Callable[[Any], Any] = joined) -> None:
        self.function = function
        self.calls: list[Any] = []
        self.started = threading.Event()
        self.released = threading.Event()

    def __call__(self, group: Any) -> Any:
        self.calls.append(group.key)
        self.started.set()
        self.released.wait()
        return self.function(group)


def opened(
    path: Any, function: Any, /, source: Any = None, by: Any = "user", **options: Any
) -> Any:
    """A database of `facts`, unrelated `notes`, and `profile`, a view of the facts."""
    facts = Rows(indexes=["user"]) if source is None else source
    profile = View(function, source="facts", by=by, **{"policy": lazy(), **options})
    return waferdb.open(path, {"facts": facts, "notes": Rows(), "profile": profile})


def view_stats(db: Any, name: str = "profile") -> Any:
    return db.stats().views[name]


def reason(db: Any, key: Any, name: str = "profile") -> str:
    """Why a group of a view stalls; empty if it does not."""
    return str(view_stats(db, name).stalled.get(repr(key), ""))


def stale_read(view: Any, key: Any, consistency: Any = None) -> Any:
    """The value of a read that must say it is stale."""
    read = view.read(key, consistency=consistency)
    assert read.freshness.stale, read
    return read.value


def fresh_read(view: Any, key: Any, consistency: Any = "strong") -> Any:
    """The value of a read that must say it is not stale, nor behind."""
    read = view.read(key, consistency=consistency)
    assert not read.freshness.stale, read
    assert read.freshness.behind == 0, read
    return read.value


def eventually(condition: Callable[[], Any], seconds: float = PATIENCE) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.005)
    return bool(condition())


def begun(work: Callable[[], T]) -> Callable[[], T]:
    """Starts `work` on a thread of its own; call the result for what it returns or raises."""
    ended = threading.Event()
    values: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            values.append(work())
        except BaseException as error:  # noqa: BLE001 - it is raised again below
            errors.append(error)
        ended.set()

    threading.Thread(target=run, daemon=True).start()

    def result() -> T:
        assert ended.wait(PATIENCE), "it hangs"
        if errors:
            raise errors[0]
        return values[0]

    return result


def within(work: Callable[[], T]) -> T:
    """What `work` returns or raises; fails if it does neither."""
    return begun(work)()
