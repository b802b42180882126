"""Count, Sum, Latest and Top: exactly what a look at all rows would give, at any moment.

They are updated by the difference of each commit; the tests compare them with the rows themselves.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from view_support import fact, fresh_read

import waferdb
from waferdb import (
    AgentMemory,
    Count,
    Database,
    Group,
    Latest,
    Row,
    Rows,
    SchemaError,
    Sum,
    Top,
    TopicClusters,
    Vectors,
    View,
    eager,
    hybrid,
    lazy,
)


class Ledger(Database):
    facts = Rows()
    counts = View(Count(), source="facts", by="user")
    sums = View(Sum("amount"), source="facts", by="user")
    latest = View(Latest(3), source="facts", by="user")
    top = View(Top(3, by="score"), source="facts", by="user")


@pytest.fixture
def ledger(place: str) -> Iterator[Ledger]:
    with Ledger(place) as db:
        yield db


def total(db: Any, user: str = "ann") -> Any:
    found = fresh_read(db.sums, user)
    return None if found is None else found["sum"]


def exact(numbers: list[Any]) -> float:
    """Their sum, rounded once."""
    added = sum(map(Fraction, numbers), Fraction(0))
    try:
        return float(added)
    except OverflowError:
        return math.inf if added > 0 else -math.inf


def test_count_follows_every_change(ledger: Any) -> None:
    db = ledger
    assert db.counts.get("ann") is None
    db.facts.put_many([(f"k{n}", fact("ann", "x")) for n in range(5)])
    assert db.counts.get("ann") == {"count": 5}
    db.facts.put("k0", fact("ann", "overwritten"))
    assert db.counts.get("ann") == {"count": 5}
    db.facts.put("k0", fact("bob", "moved"))
    assert (db.counts.get("ann"), db.counts.get("bob")) == ({"count": 4}, {"count": 1})
    db.facts.delete("k1")
    db.facts.delete("nobody")
    assert db.counts.get("ann") == {"count": 3}
    db.facts.patch("k2", {"user": None})
    db.facts.put("k3", {"text": "of nobody"})
    assert db.counts.get("ann") == {"count": 1}
    db.facts.delete_many(["k0", "k4"])
    assert db.counts.get("ann") is None
    assert db.counts.get("bob") is None
    assert "ann" not in db.counts


def test_they_are_views_like_others(ledger: Any) -> None:
    db = ledger
    db.facts.put("a1", fact("ann", "x", amount=1, score=1))
    db.facts.put("b1", fact("bob", "x", amount=2, score=2))
    for view in (db.counts, db.sums, db.latest, db.top):
        assert sorted(view) == sorted(view.keys()) == ["ann", "bob"]
        assert view.count() == 2
        assert "ann" in view
        assert "cyd" not in view
        assert view["ann"] == view.get("ann")
        with pytest.raises(KeyError):
            view["cyd"]
        read = view.read("ann")
        assert read.value == view.get("ann")
        assert not read.freshness.stale
        assert read.freshness.behind == 0
        assert view.stale() == []
        assert view.refresh() == 0


def test_they_write_no_commit_and_no_log(path: Path) -> None:
    with Ledger(path) as db:
        for n in range(200):
            db.facts.put(f"k{n}", fact(f"u{n % 5}", "x", amount=n, score=n))
        assert db.lsn == 200
        views = ("counts", "sums", "latest", "top")
        for view in views:
            assert db[view].get("u1") is not None
        assert db.lsn == 200
        written = db.stats().by
        assert [written.get((view, "log"), 0) for view in views] == [0] * 4


# Sum


@pytest.mark.parametrize(
    "numbers",
    [
        [1, 2, 3],
        [-1, -(2**63), 2**63 - 1],
        [2**64 - 1, 2**64 - 1, -(2**63)],
        [0.1] * 10,
        [1e16, 1.0, -1e16],
        [1e308, 1e308, -1e308, -1e308, 1e-300],
        [5e-324, 1e308, -1e308],
        [1e100, 1, -1e100, 2**60 + 1, -0.5],
        [0.1, 0.2, 0.3, -0.6],
        [-0.0, 0.0],
    ],
)
def test_a_sum_is_exact_in_any_order_and_leaves_nothing_behind(
    ledger: Any, numbers: list[Any]
) -> None:
    db = ledger
    chance = random.Random(7)
    for order in range(3):
        chance.shuffle(numbers)
        there: dict[str, Any] = {}
        for n, number in enumerate(numbers):
            db.facts.put(f"k{n}", fact("ann", "x", amount=number))
            there[f"k{n}"] = number
        assert fresh_read(db.sums, "ann")["count"] == len(numbers)
        assert float(total(db)) == exact(numbers), order
        for key in chance.sample(sorted(there), len(there)):
            db.facts.delete(key)
            there.pop(key)
            if there:
                assert float(total(db)) == exact(list(there.values())), (order, there)
        assert db.sums.get("ann") is None


def test_a_sum_of_integers_is_an_integer_to_the_last_digit(ledger: Any) -> None:
    db = ledger
    db.facts.put("large", fact("ann", "x", amount=2**62))
    db.facts.put("one", fact("ann", "x", amount=1))
    assert total(db) == 2**62 + 1
    assert isinstance(total(db), int)
    db.facts.put("one", fact("ann", "x", amount=-1))
    assert total(db) == 2**62 - 1


def test_infinities_are_outside_a_sum_and_leave_nothing_behind(ledger: Any) -> None:
    db = ledger
    db.facts.put("one", fact("ann", "x", amount=1.5))
    for other in (math.inf, -math.inf, math.nan):
        db.facts.put("other", fact("ann", "x", amount=other))
        assert fresh_read(db.sums, "ann") == {"sum": 1.5, "count": 1}
        db.facts.put("other", fact("ann", "x", amount=2))
        assert fresh_read(db.sums, "ann") == {"sum": 3.5, "count": 2}


def test_rows_without_a_number_are_outside_a_sum(ledger: Any) -> None:
    db = ledger
    db.facts.put("number", fact("ann", "x", amount=2))
    for n, other in enumerate(["3", None, [4], {"n": 5}, b"6", True]):
        db.facts.put(f"k{n}", fact("ann", "x", amount=other))
    db.facts.put("none", fact("ann", "x"))
    assert fresh_read(db.sums, "ann") == {"sum": 2, "count": 1}
    db.facts.patch("number", {"amount": "no number any more"})
    db.facts.patch("none", {"amount": 9})
    assert fresh_read(db.sums, "ann") == {"sum": 9, "count": 1}


AMOUNTS = st.one_of(
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.1, -0.1, 1e16, -1e16, 1e308, 5e-324, "no number"]),
)
CHANGES = st.lists(
    st.tuples(
        st.sampled_from("abcdef"),
        st.sampled_from(["ann", "bob"]),
        AMOUNTS,
        st.integers(0, 3),
        st.booleans(),
    ),
    max_size=30,
)


@settings(max_examples=60)
@given(changes=CHANGES, commits=st.integers(1, 5))
def test_after_any_changes_they_are_what_the_rows_say(changes: Any, commits: int) -> None:
    with Ledger(":memory:") as db:
        for start in range(0, len(changes), commits):
            with db.transaction() as tx:
                for key, user, amount, score, delete in changes[start : start + commits]:
                    if delete:
                        tx.facts.delete(key)
                    else:
                        tx.facts.put(key, {"user": user, "amount": amount, "score": score})
                agree(tx)
            agree(db)
        if db.lsn > 1:
            with db.snapshot(as_of=db.lsn // 2) as past:
                agree(past)


def agree(db: Any) -> None:
    """Each view of each user against the rows of the same moment."""
    for user in ("ann", "bob"):
        rows = {key: row for key, row in db.facts.scan() if row["user"] == user}
        assert db.counts.get(user) == ({"count": len(rows)} if rows else None)
        numbers = [row["amount"] for row in rows.values() if not isinstance(row["amount"], str)]
        summed = db.sums.get(user)
        if numbers:
            assert summed["count"] == len(numbers)
            assert float(summed["sum"]) == exact(numbers)
        else:
            assert summed is None or summed["count"] == 0
        best = sorted(rows.items(), key=lambda item: (-item[1]["score"], item[0]))[:3]
        top = db.top.get(user) or {"rows": []}
        assert [(found["key"], found["value"]) for found in top["rows"]] == best
        newest = sorted((db.facts.read(key).version or math.inf for key in rows), reverse=True)
        latest = db.latest.get(user) or {"rows": []}
        versions = [found["version"] or math.inf for found in latest["rows"]]
        assert versions == newest[:3]
        assert all(rows[found["key"]] == found["value"] for found in latest["rows"])


# Latest and Top


def test_latest_has_the_newest_rows_first(ledger: Any) -> None:
    db = ledger
    versions = {}
    for key in ("z", "a", "m", "b"):
        versions[key] = db.facts.put(key, fact("ann", key)).lsn

    def keys() -> list[str]:
        return [row["key"] for row in fresh_read(db.latest, "ann")["rows"]]

    assert fresh_read(db.latest, "ann")["rows"][0] == {
        "key": "b",
        "version": versions["b"],
        "value": fact("ann", "b"),
    }
    assert keys() == ["b", "m", "a"]
    db.facts.put("z", fact("ann", "again"))
    assert keys() == ["z", "b", "m"]
    db.facts.delete("b")
    assert keys() == ["z", "m", "a"]
    db.facts.delete_many(["z", "m"])
    assert keys() == ["a"]
    db.facts.delete("a")
    assert fresh_read(db.latest, "ann") is None


def test_top_has_the_highest_first_and_ties_by_key(ledger: Any) -> None:
    db = ledger
    for key, score in [("b", 2), ("a", 2), ("c", 2.0), ("d", 9), ("e", -1)]:
        db.facts.put(key, fact("ann", key, score=score))

    def keys() -> list[str]:
        return [row["key"] for row in fresh_read(db.top, "ann")["rows"]]

    assert keys() == ["d", "a", "b"]
    db.facts.delete("d")
    assert keys() == ["a", "b", "c"]
    db.facts.patch("a", {"score": -5})
    assert keys() == ["b", "c", "e"]
    db.facts.patch("e", {"score": 2**64 - 1})
    db.facts.patch("a", {"score": float("inf")})
    assert keys() == ["a", "e", "b"]
    db.facts.patch("e", {"user": "bob"})
    assert keys() == ["a", "b", "c"]
    found = fresh_read(db.top, "bob")["rows"]
    assert found == [
        {"key": "e", "version": db.facts.read("e").version, "value": db.facts["e"]},
    ]


def test_changing_an_answer_changes_no_later_answer(ledger: Any) -> None:
    db = ledger
    db.facts.put("a", fact("ann", "x", score=1))
    for view in (db.latest, db.top):
        view.get("ann")["rows"][0]["value"]["text"] = "mine"
        view.get("ann")["rows"].clear()
        assert view.get("ann")["rows"][0]["value"]["text"] == "x"


# Everywhere


def test_they_work_inside_transactions_with_their_own_writes(ledger: Any) -> None:
    db = ledger
    db.facts.put("a1", fact("ann", "x", amount=1, score=1))
    with db.transaction() as tx:
        tx.facts.put("a2", fact("ann", "y", amount=0.5, score=2))
        assert tx.counts.get("ann") == {"count": 2}
        assert tx.counts.get("ann", consistency="strong") == {"count": 2}
        assert tx.sums.get("ann") == {"sum": 1.5, "count": 2}
        assert [row["key"] for row in tx.top.get("ann")["rows"]] == ["a2", "a1"]
        assert [row["key"] for row in tx.latest.get("ann")["rows"]] == ["a2", "a1"]
        tx.facts.delete("a1")
        assert tx.counts.get("ann") == {"count": 1}
        assert db.counts.get("ann") == {"count": 1}
        assert db.sums.get("ann") == {"sum": 1, "count": 1}
        tx.rollback()
    assert fresh_read(db.sums, "ann") == {"sum": 1, "count": 1}


def test_they_answer_as_of_the_past(ledger: Any) -> None:
    db = ledger
    for n in range(4):
        db.facts.put(f"k{n}", fact("ann", "x", amount=n, score=n))
    db.facts.delete("k3")
    for lsn in range(1, 5):
        with db.snapshot(as_of=lsn) as past:
            assert past.counts.get("ann") == {"count": lsn}
            assert past.sums.get("ann") == {"sum": sum(range(lsn)), "count": lsn}
            assert past.latest.get("ann")["rows"][0]["key"] == f"k{lsn - 1}"
            assert past.top.get("ann")["rows"][0]["key"] == f"k{lsn - 1}"
    assert db.counts.get("ann") == {"count": 3}


@pytest.mark.parametrize("policy", [lazy(), hybrid(max_age="1h"), eager()])
def test_they_are_fresh_under_every_policy(place: str, policy: Any) -> None:
    schema = {"facts": Rows(), "counts": View(Count(), source="facts", by="user", policy=policy)}
    with waferdb.open(place, schema) as db:
        for n in range(5):
            receipt = db.facts.put(f"k{n}", fact("ann", "x"))
            assert receipt.lagging == ()
            for consistency in (None, "eventual", "strong", "session", receipt.lsn):
                assert fresh_read(db.counts, "ann", consistency) == {"count": n + 1}


def test_they_need_no_function_at_reopening_and_follow_on(path: Path) -> None:
    with Ledger(path) as db:
        for n in range(5):
            db.facts.put(f"k{n}", fact("ann", "x", amount=0.1, score=n))
    with waferdb.open(path) as db:
        assert fresh_read(db.counts, "ann") == {"count": 5}
        assert fresh_read(db.sums, "ann") == {"sum": 0.5, "count": 5}
        db.facts.delete("k4")
        assert fresh_read(db.counts, "ann") == {"count": 4}
        assert fresh_read(db.sums, "ann")["sum"] == exact([0.1] * 4)
        assert [row["key"] for row in db.top.get("ann")["rows"]] == ["k3", "k2", "k1"]
        db.drain()
        db.rebuild("counts")
        db.rebuild("sums")
        assert fresh_read(db.counts, "ann") == {"count": 4}
        assert db.verify(deep=True).ok
    with waferdb.open(path, mode="r") as db:
        assert fresh_read(db.counts, "ann") == {"count": 4}
        assert fresh_read(db.sums, "ann") == {"sum": exact([0.1] * 4), "count": 4}


def test_they_may_be_added_to_a_database_that_has_rows(path: Path) -> None:
    with waferdb.open(path, {"facts": Rows()}) as db:
        for n in range(4):
            db.facts.put(f"k{n}", fact("ann", "x", amount=n, score=n))
        db.facts.delete("k0")
    with Ledger(path) as db:
        assert fresh_read(db.counts, "ann") == {"count": 3}
        assert fresh_read(db.sums, "ann") == {"sum": 6, "count": 3}
        assert [row["key"] for row in fresh_read(db.top, "ann")["rows"]] == ["k3", "k2", "k1"]


def test_groups_of_several_fields(place: str) -> None:
    schema = {"facts": Rows(), "counts": View(Count(), source="facts", by=("user", "day"))}
    with waferdb.open(place, schema) as db:
        db.facts.put("k1", fact("ann", "x", day="mon"))
        db.facts.put("k2", fact("ann", "x", day="mon"))
        db.facts.put("k3", fact("ann", "x"))
        assert fresh_read(db.counts, ("ann", "mon")) == {"count": 2}
        assert list(db.counts) == [("ann", "mon")]


def test_a_forgotten_memory_is_in_none_of_them_at_any_time(path: Path) -> None:
    class Memory(AgentMemory):
        counts = View(Count(), source="facts", by="user")
        latest = View(Latest(5), source="facts", by="user")

    with Memory(path) as memory:
        memory.remember("one", user="ann", key="a1", vector=[1.0] * 256)
        memory.remember("secret", user="ann", key="a2", vector=[2.0] * 256)
        before = memory.lsn
        memory.forget("a2")
        assert memory.counts.get("ann") == {"count": 1}
        assert [row["key"] for row in memory.latest.get("ann")["rows"]] == ["a1"]
        with memory.snapshot(as_of=before) as past:
            assert "secret" not in str(past.latest.get("ann"))


def test_superseded_rows_are_in_none_of_them(place: str) -> None:
    schema = {
        "facts": Rows(supersede=("user", "about")),
        "counts": View(Count(), source="facts", by="user"),
        "sums": View(Sum("amount"), source="facts", by="user"),
    }
    with waferdb.open(place, schema) as db:
        db.facts.put("a", {"user": "ann", "about": "rent", "amount": 900})
        db.facts.put("b", {"user": "ann", "about": "rent", "amount": 950})
        assert fresh_read(db.counts, "ann") == {"count": 1}
        assert fresh_read(db.sums, "ann") == {"sum": 950, "count": 1}


def test_they_may_be_grouped_further(place: str) -> None:
    schema = {
        "facts": Rows(),
        "days": View(Sum("amount"), source="facts", by=("user", "day")),
        "users": View(Sum("sum"), source="days", by="user"),
    }
    with waferdb.open(place, schema) as db:
        for n, day in enumerate(["mon", "mon", "tue"]):
            db.facts.put(f"k{n}", fact("ann", "x", day=day, amount=2**n))
        assert fresh_read(db.users, "ann") == {"sum": 7, "count": 2}
        db.facts.delete("k2")
        assert fresh_read(db.users, "ann") == {"sum": 3, "count": 1}
        db.facts.patch("k1", {"day": "wed"})
        assert fresh_read(db.users, "ann") == {"sum": 3, "count": 2}


@pytest.mark.parametrize("function", [Latest(2), Top(2, by="score")])
def test_what_keeps_no_results_of_its_own_is_no_source(function: Any) -> None:
    schema = {
        "facts": Rows(),
        "some": View(function, source="facts", by="user"),
        "more": View(Count(), source="some", by="user"),
    }
    with pytest.raises(SchemaError, match="some"):
        waferdb.open(":memory:", schema)


# TopicClusters


def test_topic_clusters_find_what_is_far_apart(place: str) -> None:
    schema = {
        "facts": Rows(),
        "embeddings": Vectors(dim=4, metric="cosine", rows="facts"),
        "topics": View(TopicClusters(of="embeddings", k=2), source="facts", by="user"),
    }
    with waferdb.open(place, schema) as db:
        near = {"north": [1, 0.01, 0, 0], "south": [0, 0, 1, 0.01]}
        for n in range(12):
            side = "north" if n % 3 else "south"
            with db.transaction() as tx:
                tx.facts.put(f"{side}{n:02}", fact("ann", side))
                tx.embeddings.put(f"{side}{n:02}", np.array(near[side]) + n / 1000)
        clusters = db.topics.get("ann", consistency="strong")["clusters"]
        assert sorted(cluster["size"] for cluster in clusters) == [4, 8]
        for cluster in clusters:
            (side,) = {key[:5] for key in cluster["keys"]}
            assert len(cluster["keys"]) == cluster["size"]
            centroid = np.frombuffer(cluster["centroid"], dtype="<f4")
            np.testing.assert_allclose(centroid, near[side], atol=0.02)
        for n in range(12):
            if n % 3 == 0:
                db.facts.delete(f"south{n:02}")
        left = db.topics.get("ann", consistency="strong")["clusters"]
        assert sum(cluster["size"] for cluster in left) == 8
        assert all(key.startswith("north") for cluster in left for key in cluster["keys"])


def test_topic_clusters_look_only_at_what_came_or_lost_something() -> None:
    asked: list[list[str]] = []
    places = {f"n{n}": np.array([1, n / 100], np.float32) for n in range(6)}
    places |= {f"s{n}": np.array([n / 100, -1], np.float32) for n in range(6)}

    def vectors(of: str, keys: list[str]) -> list[Any]:
        asked.append(sorted(keys))
        return [places.get(key) for key in keys]

    def rows(versions: dict[str, int]) -> list[Row]:
        now = datetime.now(UTC)
        return [Row(key, {}, version, now) for key, version in versions.items()]

    cluster = TopicClusters(of="embeddings", k=4)
    versions = {key: n for n, key in enumerate(places, 1) if key not in ("n5", "s5")}
    first = cluster(Group("ann", rows(versions), None, vectors))
    second = cluster(Group("ann", rows(versions | {"n5": 20}), first, vectors))
    assert asked[1] == ["n5"]
    assert {c["size"] for c in second["clusters"]} == {6, 5}
    # Written again, it leaves its cluster, whose others are added up, and joins the nearest.
    third = cluster(Group("ann", rows(versions | {"n5": 20, "s0": 21}), second, vectors))
    assert asked[2] == ["s0", "s1", "s2", "s3", "s4"]
    whole = cluster(Group("ann", rows(versions | {"n5": 20, "s0": 21}), None, vectors))
    assert [sorted(c["keys"]) for c in third["clusters"]] == [
        sorted(c["keys"]) for c in whole["clusters"]
    ]
