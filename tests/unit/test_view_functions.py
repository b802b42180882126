"""The function zoo: whatever a view's function raises or returns, only its own group suffers."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from view_support import (
    Recorded,
    eventually,
    fact,
    fresh_read,
    joined,
    opened,
    reason,
    stale_read,
    view_stats,
    within,
)
from view_zoo import each_policy, raising, zoo

import waferdb
from waferdb import Rows, StaleViewError, View, eager, hybrid, lazy

# It raises.


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even its text can be had")


class OutsiderError(BaseException):
    """Neither an `Exception` nor known to anybody."""


def recurse(group: Any) -> Any:
    return recurse(group)


RAISING = [
    ValueError,
    KeyError,
    MemoryError,
    StopIteration,
    UnspeakableError,
    OutsiderError,
    asyncio.CancelledError,
    GeneratorExit,
    KeyboardInterrupt,
    SystemExit,
    waferdb.StaleViewError,
    waferdb.ConflictError,
    # As of another database that it uses.
    waferdb.ClosedError,
    waferdb.ReadOnlyError,
    waferdb.FullError,
]


@each_policy
@pytest.mark.parametrize("error", RAISING)
def test_what_it_raises_stalls_its_group_alone(policy: Any, error: type[BaseException]) -> None:
    with zoo(raising(error), policy) as z:
        receipt = within(lambda: z.db.facts.put("a2", fact("ann", "two")))
        assert z.db.facts["a2"] == fact("ann", "two")
        if policy == eager():
            assert "profile" in receipt.lagging
        assert within(lambda: stale_read(z.db.profile, "ann", "strong")) == {"text": "one"}
        assert stale_read(z.db.profile, "ann") == {"text": "one"}
        assert z.db.profile.get("ann") == {"text": "one"}
        assert error.__name__ in reason(z.db, "ann")
        assert view_stats(z.db).failed >= 1
        assert z.db.profile.stale() == ["ann"]
        z.others_go_on()
        z.repair()
        assert within(lambda: fresh_read(z.db.profile, "ann")) == {"text": "one two"}
        assert reason(z.db, "ann") == ""


@each_policy
def test_the_reason_has_the_words_of_the_error(policy: Any) -> None:
    with zoo(raising(ValueError), policy) as z:
        z.db.facts.put("a2", fact("ann", "two"))
        within(lambda: z.db.profile.get("ann", consistency="strong"))
        assert "boom" in reason(z.db, "ann")


@each_policy
def test_endless_recursion_stalls_its_group_alone(policy: Any) -> None:
    with zoo(recurse, policy) as z:
        within(lambda: z.db.facts.put("a2", fact("ann", "two")))
        assert within(lambda: stale_read(z.db.profile, "ann", "strong")) == {"text": "one"}
        assert "RecursionError" in reason(z.db, "ann")
        z.others_go_on()


@each_policy
def test_on_error_raise_tells_the_strong_reader_why(policy: Any) -> None:
    with zoo(raising(ValueError), policy, on_error="raise") as z:
        z.db.facts.put("a2", fact("ann", "two"))
        for consistency in ("strong", "session", z.db.lsn, waferdb.bounded(max_commits=0)):
            with pytest.raises(StaleViewError, match="boom"):
                z.db.profile.get("ann", consistency=consistency)
        with pytest.raises(StaleViewError, match="boom"):
            z.db.profile.read("ann", consistency="strong")
        assert stale_read(z.db.profile, "ann") == {"text": "one"}
        assert z.db.profile["ann"] == {"text": "one"}
        z.others_go_on()


@pytest.mark.parametrize("on_error", ["stale", "raise"])
@each_policy
def test_where_there_was_no_good_value_a_strong_reader_gets_an_error(
    policy: Any, on_error: str
) -> None:
    with opened(":memory:", raising(ValueError), policy=policy, on_error=on_error) as db:
        db.facts.put("a1", fact("ann", "one"))
        assert stale_read(db.profile, "ann") is None
        assert db.profile.get("ann", "nothing") == "nothing"
        assert "ann" not in db.profile
        with pytest.raises(StaleViewError, match="boom"):
            db.profile.get("ann", consistency="strong")


@each_policy
def test_a_failing_group_does_not_hold_up_the_refresh_of_others(policy: Any) -> None:
    with zoo(raising(ValueError), policy) as z:
        with z.db.transaction() as tx:
            tx.facts.put("a2", fact("ann", "two"))
            tx.facts.put("b2", fact("bob", "dos"))
            tx.facts.put("c1", fact("cyd", "un"))
        within(z.db.profile.refresh)
        assert fresh_read(z.db.profile, "bob", "eventual") == {"text": "uno dos"}
        assert fresh_read(z.db.profile, "cyd", "eventual") == {"text": "un"}
        assert z.db.profile.stale() == ["ann"]


@each_policy
def test_a_changed_input_lets_a_stalled_group_try_again(policy: Any) -> None:
    def no_twos(group: Any) -> Any:
        if any(row.value["text"] == "two" for row in group.rows):
            raise ValueError("a two")
        return joined(group)

    with zoo(no_twos, policy) as z:
        z.db.facts.put("a2", fact("ann", "two"))
        assert within(lambda: stale_read(z.db.profile, "ann", "strong")) == {"text": "one"}
        z.db.facts.put("a2", fact("ann", "three"))
        if policy == lazy():
            within(z.db.profile.refresh)
        assert eventually(lambda: not z.db.profile.read("ann").freshness.stale)
        assert z.db.profile.get("ann")["text"] == "one three"
        assert reason(z.db, "ann") == ""


@pytest.mark.parametrize("policy", [hybrid(max_age="1s"), eager()], ids=["hybrid", "eager"])
@pytest.mark.parametrize("error", [ValueError, waferdb.ClosedError])
def test_the_worker_tries_again_with_growing_pauses_and_by_itself(
    policy: Any, error: type[Exception]
) -> None:
    from waferdb import _simulated

    function = Recorded(raising(error))
    schema = {"facts": Rows(), "profile": View(function, source="facts", by="user", policy=policy)}
    with _simulated.open(schema) as db:
        db.facts.put("a1", fact("ann", "one"))
        calls = [0]
        for _ in range(20):
            _simulated.advance(db, 30)
            calls.append(len(function.calls))
        made = [after - before for before, after in pairwise(calls)]
        assert calls[1] >= 2, "the worker gave up"
        assert sum(made) < 120, f"called in a loop: {made} calls per half minute"
        assert sum(made[:10]) > sum(made[10:]), f"the pauses do not grow: {made}"
        function.function = joined
        for _ in range(60):
            _simulated.advance(db, 60)
            if not db.profile.read("ann").freshness.stale:
                break
        assert fresh_read(db.profile, "ann", "eventual") == {"text": "one"}


@pytest.mark.parametrize("error", [ValueError, waferdb.ReadOnlyError])
def test_a_failing_function_is_not_called_in_a_loop(error: type[Exception]) -> None:
    function = Recorded(raising(error))
    with opened(":memory:", function, policy=hybrid(max_age="1ms")) as db:
        db.facts.put("a1", fact("ann", "one"))
        assert eventually(lambda: function.calls)
        time.sleep(1)
        assert len(function.calls) < 10


# It returns garbage.


def cyclic() -> dict[str, Any]:
    document: dict[str, Any] = {}
    document["self"] = document
    return document


def nested(depth: int) -> dict[str, Any]:
    return {"deeper": nested(depth - 1)} if depth else {}


GARBAGE = {
    "None": None,
    "list": [1],
    "text": "text",
    "number": 7,
    "bytes": b"bytes",
    "a key that is no text": {1: "a"},
    "set": {"a": {1}},
    "object": {"a": object()},
    "class": dict,
    "generator": {"a": (n for n in [1])},
    "number too large": {"a": 1 << 70},
    "naive time": {"a": datetime(2026, 1, 1)},
    "half a character": {"a": "\ud800"},
    "nested too deeply": nested(500),
    "contains itself": cyclic(),
}


@each_policy
@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_is_not_stored_and_stalls_its_group_alone(policy: Any, garbage: Any) -> None:
    with zoo(lambda group: garbage, policy) as z:
        receipt = within(lambda: z.db.facts.put("a2", fact("ann", "two")))
        if policy == eager():
            assert "profile" in receipt.lagging
        assert within(lambda: stale_read(z.db.profile, "ann", "strong")) == {"text": "one"}
        assert reason(z.db, "ann")
        z.others_go_on()
        z.repair()
        assert within(lambda: fresh_read(z.db.profile, "ann")) == {"text": "one two"}


def test_any_document_that_a_row_could_be_is_a_result() -> None:
    documents = [
        {},
        {"": None},
        {"float": 0.1, "inf": float("inf"), "large": 2**64 - 1, "small": -(2**63)},
        {"bytes": b"\x00\xff", "list": [1, [2, {"a": []}]], "true": True},
    ]
    given = iter(documents)
    with opened(":memory:", lambda group: next(given)) as db:
        for document in documents:
            db.facts.put("a1", fact("ann", "one"))
            assert fresh_read(db.profile, "ann") == document
            assert "ann" in db.profile
        given = iter([{"tuple": (1, 2)}])
        db.facts.put("a1", fact("ann", "one"))
        assert fresh_read(db.profile, "ann") == {"tuple": [1, 2]}


@each_policy
def test_a_hundred_megabytes_are_refused_and_stall_their_group_alone(policy: Any) -> None:
    with zoo(lambda group: {"text": "x" * 100_000_000}, policy) as z:
        written = z.db.stats().physical_bytes
        within(lambda: z.db.facts.put("a2", fact("ann", "two")))
        assert within(lambda: stale_read(z.db.profile, "ann", "strong")) == {"text": "one"}
        assert "MiB" in reason(z.db, "ann") or "bytes" in reason(z.db, "ann")
        assert z.db.stats().physical_bytes - written < 1_000_000
        z.others_go_on()
        z.repair()
        assert within(lambda: fresh_read(z.db.profile, "ann")) == {"text": "one two"}


@pytest.mark.parametrize(("size", "fits"), [(15 << 20, True), (17 << 20, False)])
def test_a_result_may_have_sixteen_mebibytes(size: int, fits: bool) -> None:
    with opened(":memory:", lambda group: {"text": "x" * size}) as db:
        db.facts.put("a1", fact("ann", "one"))
        if fits:
            assert len(fresh_read(db.profile, "ann")["text"]) == size
        else:
            with pytest.raises(StaleViewError):
                db.profile.get("ann", consistency="strong")


# It changes what it was given, or what it gave.


@each_policy
def test_changing_its_input_changes_nothing(policy: Any) -> None:
    seen: list[Any] = []

    def vandal(group: Any) -> Any:
        seen.append([(row.key, dict(row.value), list(row.value["list"])) for row in group.rows])
        found = None if group.previous is None else dict(group.previous)
        for row in group.rows:
            row.value["list"].append("mine")
            row.value["text"] = "mine"
            row.value.clear()
        if group.previous is not None:
            group.previous["mine"] = True
        for change in ("clear", "append", "reverse"):
            with suppress(AttributeError, TypeError):
                getattr(group.rows, change)(*([None] if change == "append" else []))
        return {"previous": None if found is None else sorted(found), "list": [1]}

    with opened(":memory:", vandal, policy=policy) as db:
        for n in range(3):
            db.facts.put(f"a{n}", fact("ann", f"text {n}", list=[n]))
            assert fresh_read(db.profile, "ann")["list"] == [1]
        assert [key for key, _, _ in seen[-1]] == ["a0", "a1", "a2"]
        for key, document, numbers in seen[-1]:
            assert document["text"] == f"text {key[1:]}"
            assert numbers == [int(key[1:])]
            assert db.facts[key] == fact("ann", f"text {key[1:]}", list=[int(key[1:])])
        assert db.profile.get("ann") == {"previous": ["list", "previous"], "list": [1]}


def test_one_document_for_every_result_is_stored_as_it_was_each_time() -> None:
    kept: dict[str, Any] = {}

    def reuses(group: Any) -> Any:
        kept.update(who=group.key, n=len(group.rows))
        return kept

    with opened(":memory:", reuses) as db:
        db.facts.put("a1", fact("ann", "one"))
        assert fresh_read(db.profile, "ann") == {"who": "ann", "n": 1}
        db.facts.put_many([("b1", fact("bob", "uno")), ("b2", fact("bob", "dos"))])
        assert fresh_read(db.profile, "bob") == {"who": "bob", "n": 2}
        kept["who"] = "nobody"
        assert db.profile.get("ann") == {"who": "ann", "n": 1}
        assert db.profile.get("bob") == {"who": "bob", "n": 2}


def test_changing_an_answer_changes_no_later_answer() -> None:
    with opened(":memory:", lambda group: {"list": [1]}) as db:
        db.facts.put("a1", fact("ann", "one"))
        for consistency in ("strong", "strong", "eventual"):
            db.profile.get("ann", consistency=consistency)["list"].append(2)
        assert db.profile.get("ann") == {"list": [1]}


# It is not deterministic.


@each_policy
def test_a_result_of_chance_stands_until_an_input_changes(path: Path, policy: Any) -> None:
    drawn = iter(range(1_000_000))
    function = Recorded(lambda group: {"drawn": next(drawn)})
    with opened(path, function, policy=policy) as db:
        db.facts.put("a1", fact("ann", "one"))
        first = fresh_read(db.profile, "ann")
        calls = len(function.calls)
        for consistency in ("strong", "session", "eventual", db.lsn):
            assert db.profile.get("ann", consistency=consistency) == first
        assert db.profile.refresh() == 0
        assert len(function.calls) == calls
    with opened(path, function, policy=policy) as db:
        assert fresh_read(db.profile, "ann") == first
        db.rebuild("profile")
        assert fresh_read(db.profile, "ann") == first
        assert len(function.calls) == calls, "replaying the log called the model"
        assert db.verify(deep=True).ok
        db.facts.put("a1", fact("ann", "again"))
        assert fresh_read(db.profile, "ann")["drawn"] > first["drawn"]


# It is repaired by opening the database with another function.


@each_policy
def test_a_database_opened_with_a_sound_function_recovers(path: Path, policy: Any) -> None:
    with opened(path, joined, policy=policy) as db:
        db.facts.put("a1", fact("ann", "one"))
        fresh_read(db.profile, "ann")
    with opened(path, raising(ValueError), policy=policy) as db:
        db.facts.put("a2", fact("ann", "two"))
        assert stale_read(db.profile, "ann", "strong") == {"text": "one"}
        assert "boom" in reason(db, "ann")
    with opened(path, joined, policy=policy) as db:
        assert db.profile.get("ann")["text"].startswith("one")
        if policy != lazy():
            assert eventually(lambda: not db.profile.read("ann").freshness.stale)
        assert fresh_read(db.profile, "ann") == {"text": "one two"}
        assert view_stats(db).stalled == {}
