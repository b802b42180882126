"""Supersede: a new value about the same thing takes the place of the old one, and says so.

The rule, for `Rows(supersede=("subject", "attribute"))`: a put whose document has the values of
other current rows in these fields, and differs elsewhere, removes them at its own LSN from rows,
linked vectors, sourced caches and the inputs of views. Each older version, the one under its own
key included, is told as a "contradiction" with both versions.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

import waferdb
from waferdb import (
    Cache,
    Count,
    Database,
    Events,
    Latest,
    Rows,
    Sum,
    Top,
    Vectors,
    View,
    bounded,
    eager,
    hybrid,
    lazy,
)

RULE = ("subject", "attribute")
CONSISTENCIES = ("strong", "session", 0, bounded("1h", max_commits=100), "eventual")


def texts(group: Any) -> dict[str, Any]:
    """What a view says of its inputs."""
    return {"texts": sorted(row.value["text"] for row in group.rows)}


class Beliefs(Database):
    """Facts with the rule, and everything that follows them."""

    facts = Rows(indexes=["subject", "user"], supersede=RULE)
    vectors = Vectors(dim=2, metric="l2", rows="facts")
    hot = Cache(ttl="1h", source="facts")
    session = Cache(ttl="1h")
    journal = Events(capture=["facts"])
    other = Events()
    said = View(texts, source="facts", by="user")
    counts = View(Count(), source="facts", by="user")
    sums = View(Sum("n"), source="facts", by="user")
    newest = View(Latest(5), source="facts", by="user")
    best = View(Top(5, by="n"), source="facts", by="user")


@pytest.fixture
def db(place: str) -> Iterator[Beliefs]:
    """A database that must still follow from its log when the test is done."""
    with Beliefs(place) as database:
        yield database
        report = database.verify(deep=True)
        assert report.ok, report.problems


def belief(text: str, *, user: str = "ann", attribute: str = "contact", n: int = 1) -> Any:
    """What is thought of Ann; equal texts make equal documents."""
    return {"subject": "ann", "attribute": attribute, "text": text, "user": user, "n": n}


def contradictions(events: Any, **bounds: Any) -> list[tuple[Any, ...]]:
    """(LSN, key, older key, older version, newer key, newer version) of each."""
    return [
        (e.lsn, e.key, *e.payload["older"].values(), *e.payload["newer"].values())
        for e in events.scan(kind="contradiction", **bounds)
    ]


def absent(db: Any, key: str, where: Any) -> None:
    """No current read of rows answers the key, at any consistency."""
    assert key not in db.facts
    with pytest.raises(KeyError):
        db.facts[key]
    for consistency in CONSISTENCIES:
        assert db.facts.get(key, consistency=consistency) is None
        assert db.facts.read(key, consistency=consistency).version is None
        assert db.facts.get_many([key], consistency=consistency) == [None]
        assert key not in dict(db.facts.scan(consistency=consistency))
        assert key not in dict(db.facts.find(where, consistency=consistency))
        assert key not in list(db.facts.keys(consistency=consistency))


# The rule itself.


def test_a_new_value_under_another_key_removes_the_older_row(db: Beliefs) -> None:
    older = db.facts.put("a", belief("slack")).lsn
    newer = db.facts.put("b", belief("email")).lsn
    assert list(db.facts) == ["b"]
    assert db.facts.count() == 1
    absent(db, "a", {"subject": "ann"})
    absent(db, "a", {"text": "slack"})
    assert contradictions(db.journal) == [(newer, "b", "a", older, "b", newer)]


def test_a_new_value_under_the_same_key_is_a_contradiction_too(db: Beliefs) -> None:
    older = db.facts.put("a", belief("slack")).lsn
    newer = db.facts.put("a", belief("email")).lsn
    assert dict(db.facts.scan()) == {"a": belief("email")}
    assert contradictions(db.journal) == [(newer, "a", "a", older, "a", newer)]


def test_a_patch_supersedes_as_a_put_does(db: Beliefs) -> None:
    db.facts.put("a", belief("slack"))
    db.facts.put("b", belief("tea", attribute="drink"))
    newer = db.facts.patch("b", {"attribute": "contact"}).lsn
    assert list(db.facts) == ["b"]
    assert [told[:3] for told in contradictions(db.journal)] == [(newer, "b", "a")]


def test_an_equal_document_supersedes_nothing(db: Beliefs) -> None:
    db.facts.put("a", belief("slack"))
    db.facts.put("b", belief("slack"))
    db.facts.put("a", belief("slack"))
    assert list(db.facts) == ["a", "b"]
    assert contradictions(db.journal) == []


def test_one_put_supersedes_all_that_differ(db: Beliefs) -> None:
    first = db.facts.put("a", belief("slack")).lsn
    second = db.facts.put("b", belief("slack")).lsn
    newer = db.facts.put("c", belief("email")).lsn
    assert list(db.facts) == ["c"]
    assert sorted(contradictions(db.journal)) == [
        (newer, "c", "a", first, "c", newer),
        (newer, "c", "b", second, "c", newer),
    ]


def test_overwriting_one_of_two_equal_rows_removes_the_other(db: Beliefs) -> None:
    first = db.facts.put("a", belief("slack")).lsn
    second = db.facts.put("b", belief("slack")).lsn
    newer = db.facts.put("a", belief("email")).lsn
    assert dict(db.facts.scan()) == {"a": belief("email")}
    assert sorted(contradictions(db.journal), key=lambda told: told[2]) == [
        (newer, "a", "a", first, "a", newer),
        (newer, "a", "b", second, "a", newer),
    ]


def test_the_newer_one_stays_among_its_equals(db: Beliefs) -> None:
    db.facts.put("a", belief("slack"))
    db.facts.put("b", belief("email"))
    db.facts.put("c", belief("email"))
    assert list(db.facts) == ["b", "c"]


@pytest.mark.parametrize("other", [{"subject": "bob"}, {"attribute": "drink"}])
def test_another_value_of_either_field_is_about_something_else(db: Beliefs, other: Any) -> None:
    db.facts.put("a", belief("slack"))
    db.facts.put("b", belief("email") | other)
    assert list(db.facts) == ["a", "b"]
    assert contradictions(db.journal) == []


@pytest.mark.parametrize("lacking", ["subject", "attribute"])
def test_a_document_without_one_of_the_fields_is_outside_the_rule(
    db: Beliefs, lacking: str
) -> None:
    partial = {name: value for name, value in belief("x").items() if name != lacking}
    db.facts.put("a", belief("slack"))
    db.facts.put("b", partial)
    db.facts.put("c", partial | {"text": "y"})
    db.facts.put("b", partial | {"text": "z"})
    assert list(db.facts) == ["a", "b", "c"]
    assert contradictions(db.journal) == []


def test_values_are_the_same_as_in_find(db: Beliefs) -> None:
    """Numbers among each other, and nothing else across types."""
    for n, value in enumerate([1, "1", True, b"1"]):
        db.facts.put(f"k{n}", belief("x") | {"attribute": value})
    assert db.facts.count() == 4
    db.facts.put("float", belief("y") | {"attribute": 1.0})
    assert list(db.facts) == ["float", "k1", "k2", "k3"]


@pytest.mark.parametrize("now", [belief("tea", attribute="drink"), {"text": "about nothing"}])
def test_a_row_that_is_about_something_else_now_has_left_its_place(db: Beliefs, now: Any) -> None:
    db.facts.put("a", belief("slack"))
    db.facts.put("a", now)
    assert contradictions(db.journal) == []
    db.facts.put("b", belief("email"))
    assert list(db.facts) == ["a", "b"]
    assert contradictions(db.journal) == []


def test_a_deleted_row_is_not_superseded(db: Beliefs) -> None:
    db.facts.put("a", belief("slack"))
    db.facts.delete("a")
    db.facts.put("b", belief("email"))
    assert contradictions(db.journal) == []


def test_what_was_superseded_does_not_come_back_when_its_successor_goes(db: Beliefs) -> None:
    db.facts.put("a", belief("slack"))
    db.facts.put("b", belief("email"))
    db.facts.delete("b")
    assert list(db.facts) == []
    absent(db, "a", {"subject": "ann"})


def test_a_superseded_key_can_be_put_again_and_supersedes_in_turn(db: Beliefs) -> None:
    db.facts.put("a", belief("slack"))
    second = db.facts.put("b", belief("email")).lsn
    with pytest.raises(waferdb.PreconditionError):
        db.facts.put("a", belief("phone"), if_version=1)
    third = db.facts.put("a", belief("phone"), if_absent=True).lsn
    assert dict(db.facts.scan()) == {"a": belief("phone")}
    assert contradictions(db.journal)[1:] == [(third, "a", "b", second, "a", third)]


def test_a_rule_of_one_field() -> None:
    with waferdb.open(":memory:", {"facts": Rows(supersede=("subject",)), "told": Events()}) as db:
        db["facts"].put("a", {"subject": "ann", "text": "slack"})
        db["facts"].put("b", {"subject": "ann", "text": "email", "attribute": "contact"})
        assert list(db["facts"]) == ["b"]
        assert len(contradictions(db["told"])) == 1


def test_without_the_rule_nothing_is_superseded() -> None:
    with waferdb.open(":memory:", {"facts": Rows(), "told": Events(capture=["facts"])}) as db:
        db["facts"].put("a", belief("slack"))
        db["facts"].put("b", belief("email"))
        assert list(db["facts"]) == ["a", "b"]
        assert contradictions(db["told"]) == []


def test_raw_rows_have_no_fields_to_supersede_by() -> None:
    with pytest.raises(waferdb.SchemaError):
        Rows(codec="raw", supersede=RULE)


def test_a_unique_value_of_a_superseded_row_is_free(place: str) -> None:
    with waferdb.open(place, {"facts": Rows(unique=["email"], supersede=RULE)}) as db:
        db["facts"].put("a", belief("slack") | {"email": "a@x"})
        db["facts"].put("b", belief("email") | {"email": "b@x"})
        db["facts"].put("c", belief("tea", attribute="drink") | {"email": "a@x"})
        assert list(db["facts"]) == ["b", "c"]


# The past.


def test_the_older_row_is_gone_at_the_very_lsn_and_there_below(db: Beliefs) -> None:
    older = db.facts.put("a", belief("slack")).lsn
    newer = db.facts.put("b", belief("email")).lsn
    assert newer == older + 1
    assert db.facts.get("a", as_of=newer) is None
    assert db.facts.get("a", as_of=older) == belief("slack")
    assert dict(db.facts.scan(as_of=older)) == {"a": belief("slack")}
    assert dict(db.facts.find({"subject": "ann"}, as_of=older)) == {"a": belief("slack")}
    assert dict(db.facts.find({"subject": "ann"}, as_of=newer)) == {"b": belief("email")}
    assert contradictions(db.journal, as_of=older) == []


def test_a_snapshot_taken_before_keeps_the_older_row(db: Beliefs) -> None:
    db.facts.put("a", belief("slack"))
    with db.snapshot() as before:
        db.facts.put("b", belief("email"))
        assert dict(before.facts.scan()) == {"a": belief("slack")}
    with db.snapshot() as after:
        assert list(after.facts) == ["b"]


def test_forgetting_the_older_row_masks_it_at_every_lsn(db: Beliefs) -> None:
    older = db.facts.put("a", belief("slack")).lsn
    db.facts.put("b", belief("email"))
    with db.transaction() as tx:
        tx.facts._forget("a")
        tx.journal._forget("a")
    for lsn in range(db.lsn + 1):
        assert db.facts.get("a", as_of=lsn) is None
        assert all(e.payload != belief("slack") for e in db.journal.scan(as_of=lsn))
    assert dict(db.facts.scan()) == {"b": belief("email")}
    assert dict(db.facts.scan(as_of=older)) == {}


def test_forgetting_the_newer_row_does_not_bring_the_older_one_back(db: Beliefs) -> None:
    older = db.facts.put("a", belief("slack")).lsn
    db.facts.put("b", belief("email"))
    with db.transaction() as tx:
        tx.facts._forget("b")
    assert list(db.facts) == []
    assert dict(db.facts.scan(as_of=older)) == {"a": belief("slack")}


# Transactions.


def test_inside_a_transaction_the_later_put_supersedes_the_earlier(db: Beliefs) -> None:
    with db.transaction() as tx:
        tx.facts.put("a", belief("slack"))
        tx.facts.put("b", belief("email"))
    assert dict(db.facts.scan()) == {"b": belief("email")}
    assert dict(db.facts.find({"subject": "ann"})) == {"b": belief("email")}
    assert db.facts.get("a", as_of=db.lsn) is None


def test_put_many_is_a_put_of_each_in_turn(db: Beliefs) -> None:
    receipt = db.facts.put_many([("a", belief("slack")), ("b", belief("email"))])
    assert dict(db.facts.scan(as_of=receipt.lsn)) == {"b": belief("email")}


def test_in_a_batch_the_rule_holds_over_its_commits(db: Beliefs) -> None:
    db.facts.put("a", belief("slack"))
    with db.batch(every=2) as batch:
        for n in range(5):
            batch.facts.put(f"k{n}", belief(f"number {n}"))
    assert dict(db.facts.scan()) == {"k4": belief("number 4")}


def test_a_transaction_reads_its_own_superseding(db: Beliefs) -> None:
    db.facts.put("a", belief("slack"))
    with db.transaction() as tx:
        tx.facts.put("b", belief("email"))
        assert dict(tx.facts.scan()) == {"b": belief("email")}
        assert tx.facts.get("a") is None
        assert dict(tx.facts.find({"subject": "ann"})) == {"b": belief("email")}


def test_a_transaction_rolled_back_supersedes_nothing(db: Beliefs) -> None:
    older = db.facts.put("a", belief("slack")).lsn
    with db.transaction() as tx:
        tx.facts.put("b", belief("email"))
        tx.rollback()
    assert dict(db.facts.scan()) == {"a": belief("slack")}
    assert db.facts.read("a").version == older
    assert contradictions(db.journal) == []


def test_the_newer_row_may_be_deleted_in_its_own_transaction(db: Beliefs) -> None:
    """Whatever the transaction leaves, two values of one thing never stand beside each other."""
    db.facts.put("a", belief("slack"))
    with db.transaction() as tx:
        tx.facts.put("b", belief("email"))
        tx.facts.delete("b")
        tx.facts.put("c", belief("phone"))
    assert dict(db.facts.scan()) == {"c": belief("phone")}


def test_two_transactions_at_once_leave_one_value(db: Beliefs) -> None:
    try:
        with db.transaction() as tx:
            tx.facts.put("a", belief("slack"))
            db.facts.put("b", belief("email"))
    except waferdb.ConflictError:
        assert list(db.facts) == ["b"]
    else:
        assert list(db.facts) == ["a"]
        assert [told[2] for told in contradictions(db.journal)] == ["b"]


def test_many_writers_leave_one_value_and_a_contradiction_for_each_other(db: Beliefs) -> None:
    def write(name: str) -> None:
        for n in range(20):
            db.retry(lambda tx, n=n: tx.facts.put(name, belief(f"{name} {n}")), attempts=100)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert db.facts.count() == 1
    told = contradictions(db.journal)
    versions = [event.lsn for event in db.journal.scan(kind="facts.put")]
    assert len(versions) == 80
    # Each version but the last was superseded by the very next one.
    pairs = [(older, newer) for _, _, _, older, _, newer in told]
    assert pairs == list(itertools.pairwise(versions))


# What is linked to the rows.


def test_the_older_rows_vector_goes_with_it(db: Beliefs) -> None:
    with db.transaction() as tx:
        tx.facts.put("a", belief("slack"))
        tx.vectors.put("a", [0.0, 0.0])
        tx.facts.put("far", belief("tea", attribute="drink"))
        tx.vectors.put("far", [9.0, 9.0])
    older = db.lsn
    with db.transaction() as tx:
        tx.facts.put("b", belief("email"))
        tx.vectors.put("b", [1.0, 0.0])
    query = np.zeros(2, np.float32)
    for consistency in CONSISTENCIES:
        assert db.vectors.search(query, k=5, consistency=consistency).keys == ["b", "far"]
        assert db.vectors.get("a", consistency=consistency) is None
    assert db.vectors.search(query, k=5, where={"subject": "ann"}).keys == ["b", "far"]
    assert "a" not in db.vectors
    (hit,) = db.vectors.search(query, k=1, as_of=older)
    assert (hit.key, hit.row) == ("a", belief("slack"))


def test_a_row_overwritten_under_its_key_keeps_its_vector(db: Beliefs) -> None:
    with db.transaction() as tx:
        tx.facts.put("a", belief("slack"))
        tx.vectors.put("a", [1.0, 2.0])
    db.facts.put("a", belief("email"))
    assert db.vectors.get("a").tolist() == [1.0, 2.0]


def test_a_superseded_row_put_again_does_not_have_its_old_vector(db: Beliefs) -> None:
    with db.transaction() as tx:
        tx.facts.put("a", belief("slack"))
        tx.vectors.put("a", [1.0, 2.0])
    db.facts.put("b", belief("email"))
    with pytest.raises(waferdb.LinkError):
        db.vectors.put("a", [3.0, 4.0])
    db.facts.put("a", belief("phone"))
    assert db.vectors.get("a") is None


def test_a_sourced_cache_forgets_the_older_row_and_a_plain_one_is_let_alone(db: Beliefs) -> None:
    db.facts.put("a", belief("slack"))
    db.session.put("a", "by hand")
    assert db.hot.get("a") == belief("slack")
    db.facts.put("b", belief("email"))
    for consistency in ("eventual", "strong"):
        assert db.hot.get("a", consistency=consistency) is None
    assert "a" not in db.hot
    assert db.hot.get("b", consistency="strong") == belief("email")
    assert db.session.get("a") == "by hand"


# Views.


def test_a_result_made_of_the_older_row_is_dropped_at_once(db: Beliefs) -> None:
    db.facts.put("a", belief("slack", user="bob"))
    db.facts.put("c", belief("tea", user="bob", attribute="drink"))
    assert db.said.get("bob", consistency="strong") == {"texts": ["slack", "tea"]}
    db.facts.put("b", belief("email", user="ann"))
    read = db.said.read("bob")
    assert (read.value, read.freshness.stale) == (None, True)
    assert db.said.get("bob", consistency="strong") == {"texts": ["tea"]}
    assert db.said.get("ann", consistency="strong") == {"texts": ["email"]}


def test_a_group_of_superseded_rows_alone_is_no_group(db: Beliefs) -> None:
    db.facts.put("a", belief("slack", user="bob"))
    assert db.said.refresh() == 1
    db.facts.put("b", belief("email", user="ann"))
    read = db.said.read("bob")
    assert (read.value, read.freshness.stale) == (None, False)
    assert db.said.get("bob", consistency="strong") is None
    assert db.said.stale() == ["ann"]


def test_a_result_made_before_the_row_moved_is_dropped_with_it(db: Beliefs) -> None:
    """The group it left still has a result with it, stale; superseding takes that one too."""
    db.facts.put("a", belief("slack", user="bob"))
    db.facts.put("c", belief("tea", user="bob", attribute="drink"))
    db.said.refresh()
    db.facts.put("a", belief("slack", user="cid"))
    db.facts.put("b", belief("email", user="ann"))
    value = db.said.get("bob")
    assert value is None or "slack" not in value["texts"]
    assert db.said.get("bob", consistency="strong") == {"texts": ["tea"]}


def test_built_in_views_are_without_the_older_row(db: Beliefs) -> None:
    db.facts.put("a", belief("slack", n=10))
    db.facts.put("c", belief("tea", attribute="drink", n=1))
    newer = db.facts.put("b", belief("email", n=5)).lsn
    assert db.counts.get("ann") == {"count": 2}
    assert db.sums.get("ann") == {"sum": 6, "count": 2}
    newest = [(row["key"], row["version"]) for row in db.newest.get("ann")["rows"]]
    assert newest == [("b", newer), ("c", newer - 1)]
    assert [row["key"] for row in db.best.get("ann")["rows"]] == ["b", "c"]


def test_a_row_superseded_from_another_group_leaves_the_counts_of_its_own(db: Beliefs) -> None:
    db.facts.put("a", belief("slack", user="bob"))
    db.facts.put("b", belief("email", user="ann"))
    assert db.counts.get("bob") is None
    assert db.counts.get("ann") == {"count": 1}


# Events.


def test_a_contradiction_is_told_where_the_rows_are_captured(db: Beliefs) -> None:
    older = db.facts.put("a", belief("slack"))
    newer = db.facts.put("b", belief("email"))
    (event,) = db.journal.scan(kind="contradiction")
    assert (event.lsn, event.key, event.time) == (newer.lsn, "b", newer.time)
    assert event.payload == {
        "older": {"key": "a", "version": older.lsn},
        "newer": {"key": "b", "version": newer.lsn},
    }
    assert list(db.other.scan()) == []
    assert [e.lsn for e in db.journal.scan(key="b", kind="contradiction")] == [newer.lsn]
    assert list(db.journal.scan(key="a", kind="contradiction")) == []
    assert list(db.journal.scan(kind="contradiction", until=older.lsn)) == []
    assert list(db.journal.scan(kind="contradiction", after=older.lsn)) == [event]


def test_without_a_capture_every_sequence_of_events_is_told(place: str) -> None:
    schema = {"facts": Rows(supersede=RULE), "one": Events(), "two": Events()}
    with waferdb.open(place, schema) as db:
        older = db["facts"].put("a", belief("slack")).lsn
        newer = db["facts"].put("b", belief("email")).lsn
        for name in ("one", "two"):
            assert [e.kind for e in db[name].scan()] == ["contradiction"]
            assert contradictions(db[name]) == [(newer, "b", "a", older, "b", newer)]


def test_without_events_there_is_nobody_to_tell(place: str) -> None:
    with waferdb.open(place, {"facts": Rows(supersede=RULE)}) as db:
        db["facts"].put("a", belief("slack"))
        db["facts"].put("b", belief("email"))
        assert list(db["facts"]) == ["b"]


def test_both_versions_of_a_contradiction_can_still_be_read(db: Beliefs) -> None:
    db.facts.put("a", belief("slack"))
    db.facts.put("b", belief("email"))
    (event,) = db.journal.scan(kind="contradiction")
    said = [
        db.facts.get(version["key"], as_of=version["version"])["text"]
        for version in (event.payload["older"], event.payload["newer"])
    ]
    assert said == ["slack", "email"]


# Policies.


@pytest.mark.parametrize("policy", [eager(), lazy(), hybrid(max_age="1h")])
def test_under_every_policy_the_older_row_is_gone_at_once(place: str, policy: Any) -> None:
    schema = {
        "facts": Rows(indexes=["subject"], supersede=RULE, policy=policy),
        "vectors": Vectors(dim=2, metric="l2", rows="facts", policy=policy),
        "hot": Cache(ttl="1h", source="facts", policy=policy),
    }
    with waferdb.open(place, schema) as db:
        with db.transaction() as tx:
            tx.facts.put("a", belief("slack"))
            tx.vectors.put("a", [0.0, 0.0])
        db.drain("facts", "vectors", "hot")
        with db.transaction(priority="background") as tx:
            tx.facts.put("b", belief("email"))
        assert dict(db["facts"].find({"subject": "ann"}, consistency="eventual")) == {
            "b": belief("email")
        }
        assert db["facts"].read("b", consistency="eventual").freshness.age == timedelta(0)
        assert db["vectors"].search([0.0, 0.0], consistency="eventual").keys == []
        assert db["hot"].get("a", consistency="eventual") is None
        absent(db, "a", {"subject": "ann"})


def test_a_lazy_structure_supersedes_what_it_does_not_reflect_yet(place: str) -> None:
    with waferdb.open(place, {"facts": Rows(supersede=RULE, policy=lazy())}) as db:
        db["facts"].put("a", belief("slack"))
        db["facts"].put("b", belief("email"))
        assert dict(db["facts"].scan(consistency="eventual")) == {"b": belief("email")}


# What lasts.


def test_it_is_the_same_after_reopening_and_rebuilding(path: Any) -> None:
    with Beliefs(path) as db:
        first = db.facts.put("a", belief("slack")).lsn
        with db.transaction() as tx:
            tx.facts.put("b", belief("email"))
            tx.vectors.put("b", [1.0, 1.0])
        second = db.lsn
        third = db.facts.put("c", belief("phone")).lsn
        told = contradictions(db.journal)
    assert told == [(second, "b", "a", first, "b", second), (third, "c", "b", second, "c", third)]
    with Beliefs(path) as db:
        for name in (None, "facts", "vectors", "hot", "journal"):
            if name is not None:
                db.rebuild(name)
            assert dict(db.facts.scan()) == {"c": belief("phone")}
            assert dict(db.facts.find({"subject": "ann"})) == {"c": belief("phone")}
            assert dict(db.facts.scan(as_of=first)) == {"a": belief("slack")}
            assert db.vectors.get("b", as_of=second).tolist() == [1.0, 1.0]
            assert list(db.vectors) == []
            assert [db.hot.get(key) for key in "abc"] == [None, None, belief("phone")]
            assert contradictions(db.journal) == told
            assert db.counts.get("ann") == {"count": 1}
        report = db.verify(deep=True)
        assert report.ok, report.problems


def test_a_reader_of_the_files_sees_the_same(path: Any) -> None:
    with Beliefs(path) as db:
        db.facts.put("a", belief("slack"))
        db.facts.put("b", belief("email"))
    with Beliefs(path, mode="r") as db:
        absent(db, "a", {"subject": "ann"})
        assert len(contradictions(db.journal)) == 1


def test_the_rule_is_stored_with_the_database(path: Any) -> None:
    with Beliefs(path) as db:
        db.facts.put("a", belief("slack"))
    with waferdb.open(path) as db:
        db["facts"].put("b", belief("email"))
        assert list(db["facts"]) == ["b"]
        assert len(contradictions(db["journal"])) == 1
