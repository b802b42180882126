"""The five ways in which a memory that is six writes fails in parts, each made to happen.

Each story is told of both: of six stores with a commit each, where it must end as the name of the
failure says, and of waferdb, where the same blow at the same place must leave all or nothing. The
six-store stack is the one of the benchmarks; without its packages (apsw, usearch) its half is
skipped.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from two_stacks import COFFEE, STACKS, STEPS, TEA, StruckError
from wafer_support import SUPPORT, child_environment


def strike() -> None:
    raise StruckError


class Sessions:
    """One stack's directory, opened and closed and opened again; one session at a time."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name, self.directory = name, directory
        self._open: list[Any] = []

    def begin(self) -> Any:
        """The stack as a new process would find it."""
        self.end()
        self._open.append(STACKS[self.name](self.directory))
        return self._open[-1]

    def end(self) -> None:
        while self._open:
            self._open.pop().close()

    def die(self, call: str, step: str) -> None:
        """A process of its own begins to `call` with `TEA` and dies before `step`."""
        self.end()
        child = [str(SUPPORT / "two_stacks.py"), self.name, str(self.directory), call, step]
        done = subprocess.run(
            [sys.executable, *child],
            capture_output=True,
            text=True,
            timeout=60,
            env=child_environment(),
            check=False,
        )
        assert done.returncode == 9, done.stderr


@pytest.fixture(params=STACKS)
def sessions(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sessions]:
    """Of both in turn; of the six stores only where their packages are."""
    if request.param == "six stores":
        pytest.importorskip("apsw")
        pytest.importorskip("usearch")
    made = Sessions(request.param, tmp_path / "memory")
    yield made
    made.end()


def test_semantic_drift(sessions: Sessions) -> None:
    """An error comes between the new row and the new vector: the row says coffee, and who asks for
    tea is given it."""
    stack = sessions.begin()
    stack.remember(TEA)
    with stack.struck("vectors", strike), pytest.raises(StruckError):
        stack.remember(COFFEE)
    row = stack.known(TEA).row
    means_tea, means_coffee = stack.known(TEA).found, stack.known(COFFEE).found
    assert (means_tea, means_coffee) == (True, False)
    drifted = row == COFFEE.text
    if stack.holds:
        assert not drifted
        assert row == stack.known(TEA).cache == stack.known(TEA).context == TEA.text
    else:
        assert drifted


def test_log_reality_divergence(sessions: Sessions) -> None:
    """The process dies between row and event: the row says yes, the log of events says no."""
    sessions.die("remember", "events")
    stack = sessions.begin()
    known = stack.known(TEA)
    diverged = (known.row is not None) != known.event
    if stack.holds:
        assert not diverged
        stack.remember(TEA)
        assert stack.known(TEA).row == TEA.text
        assert stack.known(TEA).event
    else:
        assert diverged


def test_context_desynchronisation(sessions: Sessions) -> None:
    """An error comes before the context store: this session's cache knows, the next forgets."""
    stack = sessions.begin()
    with stack.struck("context", strike), pytest.raises(StruckError):
        stack.remember(TEA)
    warm = stack.known(TEA).cache
    stack = sessions.begin()
    loaded = stack.known(TEA).context
    if stack.holds:
        assert warm is None
        assert loaded is None
        stack.remember(TEA)
        assert stack.known(TEA).cache == TEA.text
        stack = sessions.begin()
        assert stack.known(TEA).context == TEA.text
    else:
        assert warm == TEA.text
        assert loaded is None


def test_partial_audit_gap(sessions: Sessions) -> None:
    """The process dies before the audit store: it happened, and nothing proves it."""
    sessions.die("remember", "audit")
    stack = sessions.begin()
    known = stack.known(TEA)
    happened = known.row is not None or known.event or known.found
    if stack.holds:
        assert not happened
        assert not known.audit
        stack.remember(TEA)
        assert stack.known(TEA).row == TEA.text
        assert stack.known(TEA).audit, "what happened can be proven"
    else:
        assert happened
        assert not known.audit


def test_half_deletion(sessions: Sessions) -> None:
    """The process dies in mid-deletion: gone from the table, and still found by search, loaded
    from context and told by the summary."""
    stack = sessions.begin()
    stack.remember(TEA)
    stack.summarise(TEA)
    stack.save()
    assert stack.known(TEA).summary == TEA.text
    sessions.die("delete", "audit" if stack.holds else "vectors")
    stack = sessions.begin()
    known = stack.known(TEA)
    if stack.holds:
        assert known.row == known.context == known.summary == TEA.text, "nothing is gone"
        assert known.found
        stack.delete(TEA)
        assert not stack.known(TEA).anywhere
        assert stack.known(TEA).audit, "that it was there can still be proven"
        stack = sessions.begin()
        assert not stack.known(TEA).anywhere
    else:
        assert known.row is None
        assert known.found
        assert known.context == TEA.text
        assert known.summary == TEA.text


def test_a_summary_outlives_what_it_was_made_of(sessions: Sessions) -> None:
    """Half deletion without any blow: nothing tells the stack's summary that its source went."""
    stack = sessions.begin()
    stack.remember(TEA)
    stack.summarise(TEA)
    stack.delete(TEA)
    known = stack.known(TEA)
    assert (known.row, known.cache, known.context) == (None, None, None)
    assert not known.found
    assert known.summary == (None if stack.holds else TEA.text)


STRIKES = [("remember", step) for step in STEPS] + [("delete", "events"), ("delete", "audit")]


@pytest.mark.parametrize(("call", "step"), STRIKES)
def test_wherever_an_error_strikes_waferdb_is_whole(tmp_path: Path, call: str, step: str) -> None:
    sessions = Sessions("waferdb", tmp_path / "memory")
    stack = sessions.begin()
    if call == "delete":
        stack.remember(TEA)
        stack.summarise(TEA)
    before = stack.known(TEA)
    with stack.struck(step, strike), pytest.raises(StruckError):
        getattr(stack, call)(TEA)
    assert stack.known(TEA) == before
    assert sessions.begin().known(TEA) == before
    sessions.end()
