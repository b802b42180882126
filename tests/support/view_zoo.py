"""The keeper of the function zoo: a view whose function misbehaves for one user, until repaired.

Each story has the users Ann and Bob. The function is sound at first, so that Ann has a good value;
then it misbehaves for Ann alone, and is repaired in the end. In between, commits return and keep
what they wrote, Bob and the other views go on, Ann's last good value is served as stale, and
`db.stats().views` says why.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from view_support import (
    Recorded,
    fact,
    fresh_read,
    joined,
    reason,
    within,
)

import waferdb
from waferdb import Rows, View, eager, hybrid, lazy

POLICIES = {"lazy": lazy(), "hybrid": hybrid(max_age="20ms"), "eager": eager()}
each_policy = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES.keys())
# Long enough that a sound function is never cut off, and short where it must be.
LONG, SHORT = "60s", "300ms"


class Zoo:
    """A database whose view `profile` misbehaves for Ann while `broken` is set."""

    def __init__(
        self,
        misbehave: Callable[[Any], Any],
        policy: Any,
        timeout: str = LONG,
        on_error: Any = "stale",
    ) -> None:
        self.misbehave = misbehave
        self.broken = False
        self.released = threading.Event()
        self.function = Recorded(self._run)
        profile = View(
            self.function,
            source="facts",
            by="user",
            policy=policy,
            timeout=timeout,
            on_error=on_error,
        )
        other = View(joined, source="facts", by="user", policy=policy)
        schema = {"facts": Rows(), "notes": Rows(), "profile": profile, "other": other}
        self.db: Any = waferdb.open(":memory:", schema)

    def _run(self, group: Any) -> Any:
        return self.misbehave(group) if self.broken and group.key == "ann" else joined(group)

    def begin(self) -> None:
        """Ann and Bob have a good value each, and from now on the function misbehaves."""
        self.db.facts.put("a1", fact("ann", "one"))
        self.db.facts.put("b1", fact("bob", "uno"))
        assert fresh_read(self.db.profile, "ann") == {"text": "one"}
        assert fresh_read(self.db.profile, "bob") == {"text": "uno"}
        self.broken = True

    def others_go_on(self) -> None:
        """Another group of the same view, and Ann's group of another view."""
        within(lambda: self.db.facts.put("b2", fact("bob", "dos")))
        assert within(lambda: fresh_read(self.db.profile, "bob")) == {"text": "uno dos"}
        assert within(lambda: fresh_read(self.db.other, "ann"))["text"].startswith("one")
        assert reason(self.db, "bob") == ""

    def repair(self) -> None:
        self.broken = False
        self.released.set()


@contextmanager
def zoo(misbehave: Callable[[Any], Any], policy: Any, **options: Any) -> Iterator[Zoo]:
    made = Zoo(misbehave, policy, **options)
    try:
        made.begin()
        yield made
    finally:
        made.repair()
        within(made.db.close)


def raising(error: type[BaseException]) -> Callable[[Any], Any]:
    def misbehave(group: Any) -> Any:
        raise error("boom")

    return misbehave
