"""Which groups a view has, rows that go and move between them, and views over views.

`opened` declares rows `facts` and a view `profile` of them by user, lazy where nothing is said, so
that nothing is computed but by a call in the test.
"""

from __future__ import annotations

import random
from contextlib import suppress
from datetime import UTC, datetime
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
    stale_read,
)

import waferdb
from waferdb import (
    AgentMemory,
    Rows,
    View,
    bounded,
    eager,
    hybrid,
    lazy,
)

# Rows that go and rows that move.


@pytest.mark.parametrize("consistency", [None, "eventual", "session", bounded("1h"), "strong"])
def test_nothing_derived_from_a_deleted_row_is_answered(place: str, consistency: Any) -> None:
    with opened(place, joined) as db:
        db.facts.put_many([("a1", fact("ann", "one")), ("a2", fact("ann", "secret"))])
        assert fresh_read(db.profile, "ann") == {"text": "one secret"}
        db.facts.delete("a2")
        assert db.profile.get("ann", consistency=consistency) in (None, {"text": "one"})
        assert "secret" not in str(db.profile.read("ann", consistency=consistency))


def test_a_deletion_drops_the_result_and_makes_the_group_stale(place: str) -> None:
    function = Recorded()
    with opened(place, function) as db:
        db.facts.put_many([("a1", fact("ann", "one")), ("a2", fact("ann", "two"))])
        fresh_read(db.profile, "ann")
        db.facts.delete("a2")
        assert stale_read(db.profile, "ann") is None
        assert "ann" not in db.profile
        assert db.profile.count() == 0
        assert db.profile.stale() == ["ann"]
        assert function.calls == ["ann"]
        assert fresh_read(db.profile, "ann") == {"text": "one"}


def test_a_group_whose_last_row_went_is_absent_and_never_computed(place: str) -> None:
    function = Recorded()
    with opened(place, function) as db:
        db.facts.put("a1", fact("ann", "one"))
        fresh_read(db.profile, "ann")
        db.facts.delete("a1")
        for consistency in ("eventual", "strong"):
            assert fresh_read(db.profile, "ann", consistency) is None
        assert "ann" not in db.profile
        assert db.profile.stale() == []
        assert db.profile.refresh() == 0
        with pytest.raises(KeyError):
            db.profile.lineage("ann")
        assert function.calls == ["ann"]
        db.facts.put("a1", fact("ann", "back"))
        assert stale_read(db.profile, "ann") is None
        assert fresh_read(db.profile, "ann") == {"text": "back"}


def test_a_row_that_is_overwritten_leaves_the_old_result_stale(place: str) -> None:
    with opened(place, joined) as db:
        db.facts.put("a1", fact("ann", "one"))
        fresh_read(db.profile, "ann")
        db.facts.put("a1", fact("ann", "two"))
        assert stale_read(db.profile, "ann") == {"text": "one"}
        assert fresh_read(db.profile, "ann") == {"text": "two"}


def test_a_row_that_moves_makes_both_groups_stale_before_anyone_looks(place: str) -> None:
    function = Recorded()
    with opened(place, function) as db:
        db.facts.put_many([("a1", fact("ann", "stays")), ("a2", fact("ann", "moves"))])
        db.facts.put("b1", fact("bob", "uno"))
        db.profile.refresh()
        db.facts.put("a2", fact("bob", "moved"))
        assert sorted(db.profile.stale()) == ["ann", "bob"]
        assert stale_read(db.profile, "ann") == {"text": "stays moves"}
        assert stale_read(db.profile, "bob") == {"text": "uno"}
        assert fresh_read(db.profile, "ann") == {"text": "stays"}
        assert fresh_read(db.profile, "bob") == {"text": "uno moved"}
        db.facts.patch("a2", {"user": "cyd"})
        db.facts.patch("a2", {"user": "ann"})
        assert db.profile.refresh() == 2, "nothing is left of the group that it only passed"
        assert fresh_read(db.profile, "bob") == {"text": "uno"}
        assert fresh_read(db.profile, "ann") == {"text": "stays moved"}
        assert fresh_read(db.profile, "cyd") is None


def test_the_last_row_that_moves_away_leaves_nothing_behind(place: str) -> None:
    function = Recorded()
    with opened(place, function) as db:
        db.facts.put("a1", fact("ann", "one"))
        fresh_read(db.profile, "ann")
        db.facts.put("a1", fact("bob", "one"))
        assert fresh_read(db.profile, "ann") is None
        assert "ann" not in db.profile
        assert fresh_read(db.profile, "bob") == {"text": "one"}
        assert function.calls == ["ann", "bob"]
        assert db.profile.stale() == []


def test_a_row_that_comes_and_goes_before_anyone_looks_leaves_nothing(place: str) -> None:
    function = Recorded()
    with opened(place, function) as db:
        db.facts.put("a1", fact("ann", "one"))
        db.facts.delete("a1")
        assert db.profile.stale() == []
        assert fresh_read(db.profile, "ann") is None
        assert function.calls == []


def test_a_forgotten_memory_is_in_no_result_at_any_time(path: Path) -> None:
    class Memory(AgentMemory):
        profile = View(joined, source="facts", by="user", policy=lazy())

    with Memory(path) as memory:
        memory.remember("one", user="ann", key="a1", vector=[1.0] * 256)
        memory.remember("secret", user="ann", key="a2", vector=[2.0] * 256)
        assert fresh_read(memory.profile, "ann") == {"text": "one secret"}
        before = memory.lsn
        with memory.snapshot() as held:
            assert held.profile.get("ann") == {"text": "one secret"}
            memory.forget("a2")
            assert "secret" not in str(held.profile.read("ann"))
        assert stale_read(memory.profile, "ann") is None
        with memory.snapshot(as_of=before) as past:
            assert "secret" not in str(past.profile.read("ann"))
        assert fresh_read(memory.profile, "ann") == {"text": "one"}
    with Memory(path) as memory:
        with memory.snapshot(as_of=before) as past:
            assert "secret" not in str(past.profile.read("ann"))
        assert fresh_read(memory.profile, "ann", "eventual") == {"text": "one"}
        assert memory.verify(deep=True).ok


def test_a_superseded_belief_is_in_no_result(place: str) -> None:
    facts = Rows(supersede=("user", "about"))
    with opened(place, joined, source=facts) as db:
        db.facts.put("a1", fact("ann", "likes tea", about="drink"))
        db.facts.put("a2", fact("ann", "lives in Rome", about="home"))
        assert fresh_read(db.profile, "ann") == {"text": "likes tea lives in Rome"}
        db.facts.put("a3", fact("ann", "likes coffee", about="drink"))
        assert "a1" not in db.facts
        assert stale_read(db.profile, "ann") is None
        assert fresh_read(db.profile, "ann") == {"text": "lives in Rome likes coffee"}


# Which groups there are.


def test_a_row_without_the_field_is_in_no_group(place: str) -> None:
    with opened(place, joined) as db:
        db.facts.put("n", {"text": "of nobody"})
        db.facts.put("l", {"text": "of many", "user": ["ann", "bob"]})
        db.facts.put("m", {"text": "of a map", "user": {"name": "ann"}})
        assert db.profile.stale() == []
        assert db.profile.refresh() == 0
        db.facts.put("n", fact("ann", "found"))
        assert fresh_read(db.profile, "ann") == {"text": "found"}
        db.facts.put("n", {"text": "of nobody again"})
        assert fresh_read(db.profile, "ann") is None
        assert db.verify(deep=True).ok


GROUPS = [
    "text",
    "",
    "é\0",
    0,
    -1,
    2**64 - 1,
    -(2**63),
    1.5,
    float("-inf"),
    True,
    None,
    b"",
    b"\x00\xff",
    datetime(2026, 11, 20, 12, tzinfo=UTC),
]


def test_a_group_may_be_of_any_value_that_has_an_order(path: Path) -> None:
    with opened(path, Recorded(lambda group: {"n": len(group.rows)})) as db:
        for n, value in enumerate(GROUPS):
            db.facts.put(f"k{n}", {"user": value})
            db.facts.put(f"l{n}", {"user": value})
        db.facts.put("one", {"user": 1})
        for value in GROUPS:
            assert fresh_read(db.profile, value) == {"n": 2}, value
        assert fresh_read(db.profile, 1) == {"n": 1}, "1 is not True"
        assert [type(key) for key in db.profile].count(bool) == 1
    with opened(path, joined) as db:
        keys = list(db.profile)
        assert len(keys) == len(GROUPS) + 1
        for value in [*GROUPS, 1]:
            assert (value, type(value)) in [(key, type(key)) for key in keys]
            assert db.profile[value] is not None


def test_groups_of_several_fields_have_tuples_for_keys(place: str) -> None:
    function = Recorded()
    with opened(place, function, by=("user", "topic")) as db:
        db.facts.put("k1", fact("ann", "tea", topic="drink"))
        db.facts.put("k2", fact("ann", "Rome", topic="home"))
        db.facts.put("k3", fact("ann", "of no topic"))
        assert sorted(db.profile.stale()) == [("ann", "drink"), ("ann", "home")]
        assert fresh_read(db.profile, ("ann", "drink")) == {"text": "tea"}
        assert function.calls == [("ann", "drink")]
        assert db.profile[("ann", "drink")] == {"text": "tea"}
        assert db.profile["ann", "drink"] == {"text": "tea"}
        assert ("ann", "drink") in db.profile
        assert ("ann", "home") not in db.profile
        assert list(db.profile) == list(db.profile.keys()) == [("ann", "drink")]
        assert db.profile.refresh(("ann", "home")) == 1
        assert db.profile.lineage(("ann", "home")) == [db.facts.read("k2").version]
        db.facts.patch("k2", {"topic": "drink"})
        assert fresh_read(db.profile, ("ann", "home")) is None
        assert fresh_read(db.profile, ("ann", "drink")) == {"text": "tea Rome"}


def test_names_that_run_together_are_different_groups(place: str) -> None:
    with opened(place, joined, by=("user", "topic")) as db:
        pairs = [("a", "bc"), ("ab", "c"), ("a\0", "b"), ("a", "\0b"), ("", "abc")]
        for n, (user, topic) in enumerate(pairs):
            db.facts.put(f"k{n}", fact(user, str(n), topic=topic))
        for n, pair in enumerate(pairs):
            assert fresh_read(db.profile, pair) == {"text": str(n)}
        assert db.profile.count() == len(pairs)


@pytest.mark.parametrize("key", [object(), ["ann"], {"user": "ann"}, float("nan")])
def test_what_can_be_no_group_is_refused_or_absent(key: Any) -> None:
    with opened(":memory:", joined) as db:
        db.facts.put("a1", fact("ann", "one"))
        with suppress(TypeError, ValueError):
            assert db.profile.get(key) is None


# Views over views.


def hierarchy(path: Any, policy: Any = None) -> Any:
    """Facts by user and day, the days by user, and the users all together."""
    chosen = lazy() if policy is None else policy

    def user(group: Any) -> dict[str, Any]:
        days = sorted((row.key[1], row.value["text"]) for row in group.rows)
        return {"days": [f"{day}: {text}" for day, text in days], "all": True}

    def everybody(group: Any) -> dict[str, Any]:
        return {"users": sorted(row.key for row in group.rows)}

    schema = {
        "facts": Rows(),
        "days": View(joined, source="facts", by=("user", "day"), policy=chosen),
        "users": View(user, source="days", by="user", policy=chosen),
        "all": View(everybody, source="users", by="all", policy=chosen),
    }
    return waferdb.open(path, schema)


def test_a_strong_read_of_a_view_over_views_computes_all_below(place: str) -> None:
    with hierarchy(place) as db:
        db.facts.put("k1", fact("ann", "tea", day="mon"))
        db.facts.put("k2", fact("ann", "milk", day="tue"))
        db.facts.put("k3", fact("bob", "beer", day="mon"))
        assert fresh_read(db.users, "ann") == {"days": ["mon: tea", "tue: milk"], "all": True}
        assert fresh_read(db.days, ("ann", "tue"), "eventual") == {"text": "milk"}
        assert fresh_read(db.all, True) == {"users": ["ann", "bob"]}
        db.facts.put("k4", fact("ann", "rum", day="tue"))
        assert fresh_read(db.users, "ann")["days"] == ["mon: tea", "tue: milk rum"]
        assert db.verify(deep=True).ok


def levels(policy: Any) -> Any:
    """Episodes by day, days by topic, topics by user: each level takes its fields from the keys."""
    return waferdb.open(
        ":memory:",
        {
            "facts": Rows(),
            "days": View(joined, source="facts", by=("user", "topic", "day"), policy=policy),
            "topics": View(joined, source="days", by=("user", "topic"), policy=policy),
            "users": View(joined, source="topics", by="user", policy=policy),
        },
    )


def test_a_strong_read_of_the_third_level_has_what_was_never_computed_below() -> None:
    with levels(lazy()) as db:
        db.facts.put("k1", fact("ann", "tea", topic="drink", day="mon"))
        assert fresh_read(db.users, "ann") == {"text": "tea"}
        db.facts.put("k2", fact("ann", "Rome", topic="home", day="mon"))
        assert fresh_read(db.users, "ann") == {"text": "tea Rome"}
        db.facts.put("k3", fact("ann", "milk", topic="drink", day="tue"))
        assert "milk" in fresh_read(db.users, "ann")["text"]
        assert db.users.stale() == db.topics.stale() == db.days.stale() == []


@pytest.mark.parametrize("seed", range(4))
def test_a_strong_read_of_a_lazy_hierarchy_is_what_eager_views_have(seed: int) -> None:
    """Up to order: the levels join texts in the order in which they were computed."""
    chance = random.Random(seed)
    with levels(lazy()) as late, levels(eager()) as early:
        for step in range(120):
            key = f"k{chance.randrange(12)}"
            row = fact(
                chance.choice(["ann", "bob"]),
                f"t{step}",
                topic=chance.choice(["x", "y"]),
                day=chance.choice(["mon", "tue"]),
            )
            for db in (late, early):
                if step % 4 == 3:
                    db.facts.delete(key)
                else:
                    db.facts.put(key, row)
            if chance.random() < 0.3:
                user = chance.choice(["ann", "bob"])
                texts = [row["text"] for _, row in early.facts.scan() if row["user"] == user]
                for value in (early.users.get(user), fresh_read(late.users, user)):
                    found = [] if value is None else value["text"].split()
                    assert sorted(found) == sorted(texts), (seed, step)


def test_staleness_below_shows_above(place: str) -> None:
    with hierarchy(place) as db:
        db.facts.put("k1", fact("ann", "tea", day="mon"))
        fresh_read(db.users, "ann")
        db.facts.put("k2", fact("ann", "milk", day="mon"))
        assert stale_read(db.days, ("ann", "mon")) == {"text": "tea"}
        assert stale_read(db.users, "ann")["days"] == ["mon: tea"]
        db.facts.put("k3", fact("bob", "beer", day="mon"))
        assert stale_read(db.users, "bob") is None


def test_views_over_views_are_refreshed_level_by_level(place: str) -> None:
    with hierarchy(place) as db:
        db.facts.put("k1", fact("ann", "tea", day="mon"))
        db.facts.put("k2", fact("ann", "milk", day="tue"))
        assert db.days.refresh() == 2
        assert db.users.stale() == ["ann"]
        assert db.users.refresh() == 1
        assert db.users.refresh() == 0
        assert db.users.lineage("ann") == sorted(
            db.days.read(("ann", day)).version for day in ("mon", "tue")
        )


def test_a_deletion_is_a_barrier_through_all_levels(place: str) -> None:
    with hierarchy(place) as db:
        db.facts.put("k1", fact("ann", "tea", day="mon"))
        db.facts.put("k2", fact("ann", "secret", day="mon"))
        fresh_read(db.all, True)
        db.facts.delete("k2")
        for view, key in ((db.days, ("ann", "mon")), (db.users, "ann")):
            for consistency in ("eventual", bounded("1h"), "strong"):
                assert "secret" not in str(view.read(key, consistency=consistency))
        assert fresh_read(db.users, "ann")["days"] == ["mon: tea"]
        db.facts.delete("k1")
        assert fresh_read(db.days, ("ann", "mon")) is None
        assert fresh_read(db.users, "ann") is None
        assert fresh_read(db.all, True) is None
        assert db.users.count() == db.days.count() == db.all.count() == 0


@pytest.mark.parametrize("policy", [eager(), hybrid(max_age="10ms")], ids=["eager", "hybrid"])
def test_a_hierarchy_follows_by_itself(place: str, policy: Any) -> None:
    with hierarchy(place, policy) as db:
        db.facts.put("k1", fact("ann", "tea", day="mon"))
        db.facts.put("k2", fact("bob", "beer", day="mon"))
        if policy == eager():
            assert db.all.get(True) == {"users": ["ann", "bob"]}
        assert eventually(lambda: db.all.get(True) == {"users": ["ann", "bob"]})
        db.facts.patch("k2", {"user": "cyd", "day": "tue"})
        expected = {"users": ["ann", "cyd"]}
        assert eventually(lambda: db.all.get(True) == expected)
        assert fresh_read(db.users, "cyd") == {"days": ["tue: beer"], "all": True}
        assert fresh_read(db.users, "bob") is None


def test_a_result_belongs_where_its_own_group_does(place: str) -> None:
    schema = {
        "facts": Rows(),
        "days": View(lambda group: {"user": "other"}, source="facts", by=("user", "day")),
        "users": View(lambda group: {"n": len(group.rows)}, source="days", by="user"),
        "each": View(lambda group: {"n": len(group.rows)}, source="days", by="day"),
    }
    with waferdb.open(place, schema) as db:
        db.facts.put("k1", {"user": "key", "day": "mon"})
        assert fresh_read(db.users, "key") == {"n": 1}
        assert fresh_read(db.users, "other") is None
        assert fresh_read(db.each, "mon") == {"n": 1}
