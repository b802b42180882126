"""Views of functions: what is computed when, what a read answers meanwhile, and how it says so.

`opened` declares rows `facts` and a view `profile` of them by user, lazy where nothing is said, so
that nothing is computed but by a call in the test.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
from view_support import (
    Recorded,
    fact,
    fresh_read,
    joined,
    opened,
    stale_read,
    view_stats,
)

import waferdb
from waferdb import (
    Database,
    Rows,
    View,
    bounded,
    lazy,
)


def test_a_class_declares_a_view_by_name_or_descriptor(place: str) -> None:
    class Memory(Database):
        facts = Rows(indexes=["user"])
        by_name = View(joined, source="facts", by="user")
        by_descriptor = View(joined, source=facts, by="user")

    with Memory(place) as db:
        db.facts.put("a1", fact("ann", "one"))
        assert db.by_name.get("ann", consistency="strong") == {"text": "one"}
        assert db.by_descriptor.get("ann", consistency="strong") == {"text": "one"}
        assert db["by_name"].get("ann") == {"text": "one"}
        assert set(db.structures) == {"facts", "by_name", "by_descriptor"}
        assert db.verify(deep=True).ok


# What stands is served; it says whether it is stale.


def test_a_group_has_no_result_before_it_is_computed(place: str) -> None:
    function = Recorded()
    with opened(place, function) as db:
        db.facts.put("a1", fact("ann", "one"))
        assert db.profile.get("ann") is None
        assert db.profile.get("ann", "nothing") == "nothing"
        assert db.profile.get("ann", default="nothing") == "nothing"
        read = db.profile.read("ann")
        assert (read.value, read.version, read.time) == (None, None, None)
        assert read.freshness.stale
        assert read.freshness.behind == 1
        with pytest.raises(KeyError):
            db.profile["ann"]
        assert "ann" not in db.profile
        assert list(db.profile) == list(db.profile.keys()) == []
        assert db.profile.count() == 0
        assert db.profile.stale() == ["ann"]
        with pytest.raises(KeyError):
            db.profile.lineage("ann")
        assert function.calls == []


def test_a_strong_read_computes_and_stores_by_a_commit_of_its_own(place: str) -> None:
    function = Recorded()
    with opened(place, function) as db:
        put = db.facts.put("a1", fact("ann", "one"))
        read = db.profile.read("ann", consistency="strong")
        assert read.value == {"text": "one"}
        assert read.version == db.lsn == put.lsn + 1
        assert read.time is not None
        assert read.time >= put.time
        assert not read.freshness.stale
        assert read.freshness.behind == 0
        assert read.freshness.age == timedelta(0)
        assert read.freshness.lsn >= put.lsn
        assert db.profile.read("ann").version == read.version
        assert db.profile.get("ann", consistency="strong") == {"text": "one"}
        assert db.lsn == read.version, "it was fresh: nothing to compute, nothing to commit"
        assert function.calls == ["ann"]


def test_a_stored_result_is_served_stale_until_it_is_computed_again(place: str) -> None:
    function = Recorded()
    with opened(place, function) as db:
        db.facts.put("a1", fact("ann", "one"))
        db.facts.put("b1", fact("bob", "uno"))
        assert db.profile.refresh() == 2
        first = db.profile.read("ann")
        missing = db.facts.put("a2", fact("ann", "two"))
        read = db.profile.read("ann")
        assert (read.value, read.version) == ({"text": "one"}, first.version)
        assert read.freshness.stale
        assert read.freshness.behind == 1
        assert read.freshness.age >= timedelta(0)
        assert read.freshness.lsn < missing.lsn
        with db.transaction() as tx:
            tx.facts.put("a3", fact("ann", "three"))
            tx.facts.put("a4", fact("ann", "four"))
        assert db.profile.read("ann").freshness.behind == 2, "two commits, three rows"
        assert db.profile["ann"] == {"text": "one"}
        assert "ann" in db.profile
        assert fresh_read(db.profile, "bob", "eventual") == {"text": "uno"}
        assert db.profile.stale() == ["ann"]
        assert function.calls.count("ann") == 1
        assert fresh_read(db.profile, "ann") == {"text": "one two three four"}
        assert db.profile.stale() == []
        assert function.calls.count("bob") == 1


def test_writes_that_touch_no_input_leave_a_result_fresh(place: str) -> None:
    function = Recorded()
    with opened(place, function) as db:
        db.facts.put("a1", fact("ann", "one"))
        version = db.profile.read("ann", consistency="strong").version
        db.notes.put("n", fact("ann", "elsewhere"))
        db.facts.put("b1", fact("bob", "uno"))
        db.facts.delete("nobody")
        read = db.profile.read("ann", consistency="strong")
        assert read.version == version
        assert function.calls == ["ann"]
        assert db.profile.stale() == ["bob"]


def test_keys_count_in_and_iteration_are_of_groups_with_a_result(place: str) -> None:
    with opened(place, joined) as db:
        for user in ("cyd", "ann", "bob"):
            db.facts.put(user, fact(user, "x"))
        assert db.profile.refresh("ann") == 1
        assert db.profile.refresh("cyd") == 1
        db.facts.put("more", fact("cyd", "y"))
        assert sorted(db.profile.keys()) == sorted(db.profile) == ["ann", "cyd"]
        assert db.profile.count() == 2
        assert "cyd" in db.profile
        assert "bob" not in db.profile
        assert sorted(db.profile.stale()) == ["bob", "cyd"]


def test_a_group_that_never_was_is_absent_and_not_stale(place: str) -> None:
    function = Recorded()
    with opened(place, function) as db:
        db.facts.put("a1", fact("ann", "one"))
        for consistency in (None, "eventual", "strong", "session"):
            read = db.profile.read("nobody", consistency=consistency)
            assert read.value is None
            assert not read.freshness.stale
            assert read.freshness.behind == 0
        assert db.profile.get("nobody", "nothing", consistency="strong") == "nothing"
        assert db.profile.refresh("nobody") == 0
        with pytest.raises(KeyError):
            db.profile.lineage("nobody")
        assert function.calls == []


# What the function is given.


def test_a_group_has_its_key_its_rows_by_version_and_the_previous_result(place: str) -> None:
    groups: list[Any] = []

    def look(group: Any) -> dict[str, Any]:
        rows = [(row.key, row.value, row.version, row.time) for row in group.rows]
        groups.append((group.key, rows, group.previous, len(group.rows), group.rows[0].key))
        return {"n": len(rows)}

    with opened(place, look) as db:
        receipts = {key: db.facts.put(key, fact("ann", key)) for key in ("z", "a", "m")}
        fresh_read(db.profile, "ann")
        key, rows, previous, count, first = groups[-1]
        assert (key, previous, count, first) == ("ann", None, 3, "z")
        assert [row[0] for row in rows] == ["z", "a", "m"]
        for name, value, version, written in rows:
            assert value == fact("ann", name)
            assert version == receipts[name].lsn
            assert written == receipts[name].time
        db.facts.put("z", fact("ann", "again"))
        fresh_read(db.profile, "ann")
        key, rows, previous, _, _ = groups[-1]
        assert [row[0] for row in rows] == ["a", "m", "z"]
        assert previous == {"n": 3}


def test_every_way_of_writing_reaches_the_view(place: str) -> None:
    with opened(place, joined) as db:

        def text() -> Any:
            return (fresh_read(db.profile, "ann") or {}).get("text")

        db.facts.put_many([("a1", fact("ann", "1")), ("a2", fact("ann", "2"))])
        assert text() == "1 2"
        db.facts.patch("a1", {"text": "one"})
        assert text() == "2 one"
        with db.batch(every=2) as batch:
            for n in range(3, 6):
                batch.facts.put(f"a{n}", fact("ann", str(n)))
        assert text() == "2 one 3 4 5"
        db.facts.delete_many(["a2", "a3", "a4"])
        assert text() == "one 5"
        db.retry(lambda tx: tx.facts.put("a6", fact("ann", "6")))
        assert text() == "one 5 6"
        with pytest.raises(RuntimeError), db.transaction() as tx:
            tx.facts.put("a7", fact("ann", "7"))
            raise RuntimeError
        assert db.profile.stale() == []
        assert text() == "one 5 6"


def test_a_hundred_groups_in_one_commit_are_a_hundred_results(place: str) -> None:
    with opened(place, joined) as db:
        db.facts.put_many([(f"k{n:03}", fact(f"u{n % 100}", f"{n}")) for n in range(300)])
        assert len(db.profile.stale()) == 100
        assert db.profile.refresh() == 100
        assert db.profile.refresh() == 0
        assert db.profile.stale() == []
        assert db.profile.count() == 100
        assert db.profile.get("u7") == {"text": "7 107 207"}


# How fresh a read wants to be.


def test_each_consistency_computes_only_what_it_must(place: str) -> None:
    function = Recorded()
    with opened(place, function) as db:
        first = db.facts.put("a1", fact("ann", "one"))
        fresh_read(db.profile, "ann")
        second = db.facts.put("a2", fact("ann", "two"))
        third = db.connect().facts.put("a3", fact("ann", "three"))
        enough = ["eventual", None, first.lsn, bounded("1h"), bounded(max_commits=2)]
        enough += [bounded("1h", max_commits=2)]
        for consistency in enough:
            assert stale_read(db.profile, "ann", consistency) == {"text": "one"}, consistency
        assert function.calls == ["ann"]
        assert db.profile.get("ann", consistency="session")["text"].startswith("one two")
        assert function.calls == ["ann"] * 2
        assert db.profile.get("ann", consistency=second.lsn)["text"].startswith("one two")
        assert db.profile.get("ann", consistency=third.lsn) == {"text": "one two three"}
        assert fresh_read(db.profile, "ann") == {"text": "one two three"}
        assert len(function.calls) <= 3


@pytest.mark.parametrize(
    "tight", [bounded(max_commits=1), bounded("1us"), bounded("1h", max_commits=0)]
)
def test_a_bound_that_is_not_met_computes(place: str, tight: Any) -> None:
    with opened(place, joined) as db:
        db.facts.put("a1", fact("ann", "one"))
        fresh_read(db.profile, "ann")
        db.facts.put("a2", fact("ann", "two"))
        db.facts.put("a3", fact("ann", "three"))
        time.sleep(0.001)
        assert db.profile.get("ann", consistency=tight) == {"text": "one two three"}


def test_a_session_asks_for_its_own_commits_only(place: str) -> None:
    function = Recorded()
    with opened(place, function) as db:
        db.facts.put("a1", fact("ann", "one"))
        fresh_read(db.profile, "ann")
        sibling = db.connect()
        sibling.facts.put("a2", fact("ann", "two"))
        assert db.profile.get("ann", consistency="session") == {"text": "one"}
        assert function.calls == ["ann"]
        assert sibling.profile.get("ann", consistency="session") == {"text": "one two"}
        assert db.profile.get("ann") == {"text": "one two"}


@pytest.mark.parametrize("bad", ["perhaps", "STRONG", "", 1.5, True, object(), ["strong"], b"x"])
def test_a_consistency_that_there_is_not_is_refused(bad: Any) -> None:
    with opened(":memory:", joined) as db:
        db.facts.put("a1", fact("ann", "one"))
        for read in (db.profile.get, db.profile.read):
            with pytest.raises((TypeError, ValueError)):
                read("ann", consistency=bad)
            with pytest.raises((TypeError, ValueError)):
                read("nobody", consistency=bad)


def test_age_is_that_of_the_oldest_change_not_reflected() -> None:
    from waferdb import _simulated

    schema = {"facts": Rows(), "profile": View(joined, source="facts", by="user", policy=lazy())}
    with _simulated.open(schema) as db:
        db.facts.put("a1", fact("ann", "one"))
        _simulated.advance(db, 3)
        assert fresh_read(db.profile, "ann") == {"text": "one"}
        db.facts.put("a2", fact("ann", "two"))
        _simulated.advance(db, 5)
        db.facts.put("a3", fact("ann", "three"))
        _simulated.advance(db, 2)
        freshness = db.profile.read("ann").freshness
        assert freshness.behind == 2
        assert timedelta(seconds=7) <= freshness.age < timedelta(seconds=8)
        assert stale_read(db.profile, "ann", bounded("8s")) == {"text": "one"}
        assert db.stats().lag["profile"].commits >= 2
        assert timedelta(seconds=7) <= db.stats().lag["profile"].age < timedelta(seconds=8)
        assert db.profile.get("ann", consistency=bounded("6s")) == {"text": "one two three"}
        assert db.stats().lag["profile"].commits == 0
        assert db.stats().lag["profile"].age == timedelta(0)


# Refreshing.


def test_refresh_computes_what_is_stale_and_counts_it(place: str) -> None:
    function = Recorded()
    with opened(place, function) as db:
        for user in ("ann", "bob", "cyd"):
            db.facts.put(user, fact(user, "x"))
        assert db.profile.refresh("bob") == 1
        assert db.profile.refresh("bob") == 0
        assert function.calls == ["bob"]
        assert db.profile.refresh() == 2
        assert sorted(function.calls) == ["ann", "bob", "cyd"]
        assert db.profile.refresh() == 0
        db.facts.put("bob", fact("bob", "y"))
        assert db.profile.refresh(key="ann") == 0
        assert db.profile.refresh() == 1
        assert view_stats(db).computed == 4
        assert view_stats(db).failed == 0
        assert view_stats(db).stale == 0
        assert view_stats(db).stalled == {}


def test_drain_and_wait_reflect_a_lazy_view_where_it_is_named(place: str) -> None:
    function = Recorded()
    with opened(place, function) as db:
        db.facts.put("a1", fact("ann", "one"))
        db.drain()
        db.wait(db.lsn)
        assert function.calls == []
        db.drain("profile")
        assert fresh_read(db.profile, "ann", "eventual") == {"text": "one"}
        put = db.facts.put("a1", fact("ann", "two"))
        db.wait(put.lsn, "profile", timeout=30)
        assert fresh_read(db.profile, "ann", "eventual") == {"text": "two"}
        assert function.calls == ["ann"] * 2


def test_lineage_is_the_versions_of_the_inputs_of_what_stands(place: str) -> None:
    with opened(place, joined) as db:
        first = db.facts.put("a1", fact("ann", "one"))
        with db.transaction() as tx:
            tx.facts.put("a2", fact("ann", "two"))
            tx.facts.put("a3", fact("ann", "three"))
        fresh_read(db.profile, "ann")
        inputs = {first.lsn, tx.receipt.lsn}
        assert set(db.profile.lineage("ann")) == inputs
        assert db.profile.lineage("ann") == sorted(db.profile.lineage("ann"))
        newer = db.facts.put("a1", fact("ann", "newer"))
        assert set(db.profile.lineage("ann")) == inputs, "it is the lineage of the old result"
        fresh_read(db.profile, "ann")
        assert set(db.profile.lineage("ann")) == {tx.receipt.lsn, newer.lsn}


def test_changes_and_audit_entries_name_groups_by_their_keys() -> None:
    schema = {
        "facts": Rows(),
        "audit": waferdb.Audit(),
        "days": View(lambda group: {"n": len(group.rows)}, source="facts", by=("user", "day")),
    }
    with waferdb.open(":memory:", schema) as db:
        db.facts.put("a", {"user": "ann", "day": 1})
        db.days.refresh()
        *_, last = db.changes()
        assert [(c.structure, c.key, c.value) for c in last.changes] == [
            ("days", ("ann", 1), {"n": 1})
        ]
        *_, entry = db.audit.entries()
        assert [(c.structure, c.key) for c in entry.changes] == [("days", ("ann", 1))]
