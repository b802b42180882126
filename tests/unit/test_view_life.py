"""Views under each policy, in transactions and snapshots, and from one opening to the next.

`opened` declares rows `facts` and a view `profile` of them by user, lazy where nothing is said, so
that nothing is computed but by a call in the test.
"""

from __future__ import annotations

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
    within,
)

import waferdb
from waferdb import (
    Events,
    ReadOnlyError,
    Rows,
    StaleViewError,
    TransactionError,
    View,
    eager,
    hybrid,
    lazy,
)

# Policies.


def test_an_eager_view_is_fresh_when_the_commit_returns(place: str) -> None:
    function = Recorded()
    with opened(place, function, policy=eager()) as db:
        receipt = db.facts.put("a1", fact("ann", "one"))
        assert receipt.lagging == ()
        assert fresh_read(db.profile, "ann", "eventual") == {"text": "one"}
        assert db.profile.read("ann").version > receipt.lsn, "a second commit"
        with db.transaction(priority="background") as tx:
            tx.facts.put("a2", fact("ann", "two"))
            tx.facts.put("b1", fact("bob", "uno"))
        assert tx.receipt.lagging == ()
        assert fresh_read(db.profile, "ann", "eventual") == {"text": "one two"}
        assert fresh_read(db.profile, "bob", "eventual") == {"text": "uno"}
        db.facts.delete("a1")
        assert fresh_read(db.profile, "ann", "eventual") == {"text": "two"}
        assert sorted(function.calls) == ["ann", "ann", "ann", "bob"]
        db.notes.put("n", {})
        assert len(function.calls) == 4


def test_a_hybrid_view_is_refreshed_by_itself(place: str) -> None:
    with opened(place, joined, policy=hybrid(max_age="50ms")) as db:
        db.facts.put("a1", fact("ann", "one"))
        assert eventually(lambda: db.profile.get("ann") == {"text": "one"})
        db.facts.put("a2", fact("ann", "two"))
        assert eventually(lambda: db.profile.get("ann") == {"text": "one two"})
        assert fresh_read(db.profile, "ann", "eventual") == {"text": "one two"}


def test_critical_commits_and_deletions_reach_a_hybrid_view_at_once(place: str) -> None:
    with opened(place, joined, policy=hybrid(max_age="1h")) as db:
        with db.transaction(priority="critical") as tx:
            tx.facts.put("a1", fact("ann", "one"))
        assert tx.receipt.lagging == ()
        assert fresh_read(db.profile, "ann", "eventual") == {"text": "one"}
        db.facts.put("a2", fact("ann", "two"))
        assert stale_read(db.profile, "ann") == {"text": "one"}
        db.facts.delete("a1")
        assert fresh_read(db.profile, "ann", "eventual") == {"text": "two"}


def test_a_hybrid_view_keeps_its_bounds() -> None:
    from waferdb import _simulated

    function = Recorded()
    policy = hybrid(max_age="10s", max_items=3, max_bytes="1KiB")
    profile = View(function, source="facts", by="user", policy=policy)
    with _simulated.open({"facts": Rows(), "other": Rows(), "profile": profile}) as db:

        def busy(seconds: float) -> None:
            for n in range(round(seconds * 20)):
                db.other.put("n", {"n": n})
                _simulated.advance(db, 0.05)

        db.facts.put("a1", fact("ann", "one"))
        busy(9)
        assert function.calls == []
        busy(1.1)
        assert function.calls == ["ann"], "as old as it may be"
        assert fresh_read(db.profile, "ann", "eventual") == {"text": "one"}
        for n in range(4):
            db.facts.put(f"b{n}", fact("bob", str(n)))
        busy(0.1)
        assert fresh_read(db.profile, "bob", "eventual") == {"text": "0 1 2 3"}, "more than may"
        db.facts.put("c1", fact("cyd", "x" * 2000))
        busy(0.1)
        assert len(fresh_read(db.profile, "cyd", "eventual")["text"]) == 2000
        with db.transaction(priority="background") as tx:
            tx.facts.put("d1", fact("dee", "idle"))
        busy(1)
        assert stale_read(db.profile, "dee") is None
        _simulated.advance(db, 1)
        assert fresh_read(db.profile, "dee", "eventual") == {"text": "idle"}, "it was idle"


def test_a_lazy_view_is_never_computed_in_the_background() -> None:
    from waferdb import _simulated

    function = Recorded()
    schema = {"facts": Rows(), "profile": View(function, source="facts", by="user", policy=lazy())}
    with _simulated.open(schema) as db:
        with db.transaction(priority="critical") as tx:
            tx.facts.put("a1", fact("ann", "one"))
        for _ in range(100):
            _simulated.advance(db, 60)
        assert function.calls == []
        assert stale_read(db.profile, "ann") is None


def test_a_policy_set_at_run_time_holds_and_is_remembered(path: Path) -> None:
    function = Recorded()
    with opened(path, function) as db:
        db.facts.put("a1", fact("ann", "one"))
        assert function.calls == []
        db.set_policy("profile", eager())
        db.facts.put("a2", fact("ann", "two"))
        assert fresh_read(db.profile, "ann", "eventual") == {"text": "one two"}
    with opened(path, function) as db:
        db.facts.put("a3", fact("ann", "three"))
        assert fresh_read(db.profile, "ann", "eventual") == {"text": "one two three"}
        db.set_policy("profile", lazy())
        calls = len(function.calls)
        db.facts.put("a4", fact("ann", "four"))
        assert stale_read(db.profile, "ann") == {"text": "one two three"}
        assert len(function.calls) == calls
        db.set_policy("profile", hybrid(max_age="20ms"))
        assert eventually(lambda: db.profile.get("ann") == {"text": "one two three four"})


# Transactions and snapshots.


def test_a_transaction_reads_views_and_computes_none(place: str) -> None:
    function = Recorded()
    with opened(place, function) as db:
        db.facts.put_many([("a1", fact("ann", "one")), ("b1", fact("bob", "uno"))])
        db.profile.refresh()
        with db.transaction() as tx:
            assert tx.profile.get("ann") == {"text": "one"}
            assert tx.profile.get("ann", consistency="strong") == {"text": "one"}
            tx.facts.put("a2", fact("ann", "two"))
            assert stale_read(tx.profile, "ann") == {"text": "one"}
            with pytest.raises(StaleViewError):
                tx.profile.get("ann", consistency="strong")
            assert fresh_read(tx.profile, "bob") == {"text": "uno"}
            with pytest.raises((StaleViewError, TransactionError)):
                tx.profile.refresh()
        assert function.calls == ["ann", "bob"] or function.calls == ["bob", "ann"]
        assert db.facts["a2"] == fact("ann", "two")
        assert fresh_read(db.profile, "ann") == {"text": "one two"}


def test_a_transaction_answers_nothing_derived_from_what_it_deleted(place: str) -> None:
    with opened(place, joined) as db:
        db.facts.put_many([("a1", fact("ann", "one")), ("a2", fact("ann", "secret"))])
        fresh_read(db.profile, "ann")
        with db.transaction() as tx:
            tx.facts.delete("a2")
            assert "secret" not in str(tx.profile.read("ann"))
            assert "secret" in db.profile.get("ann")["text"], "not committed yet"
            tx.rollback()
        assert fresh_read(db.profile, "ann", "eventual") == {"text": "one secret"}


def test_a_transaction_stays_at_its_snapshot_of_views_too(place: str) -> None:
    with opened(place, joined) as db:
        db.facts.put("a1", fact("ann", "one"))
        fresh_read(db.profile, "ann")
        with db.transaction() as tx:
            assert tx.profile.get("ann") == {"text": "one"}
            db.facts.put("a2", fact("ann", "two"))
            fresh_read(db.profile, "ann")
            assert tx.profile.get("ann") == {"text": "one"}
            assert fresh_read(tx.profile, "ann") == {"text": "one"}


def test_a_snapshot_answers_what_stood_at_its_lsn(place: str) -> None:
    with opened(place, joined) as db:
        db.facts.put("a1", fact("ann", "one"))
        before = db.lsn
        fresh_read(db.profile, "ann")
        computed = db.lsn
        with db.snapshot() as held:
            db.facts.put("a2", fact("ann", "two"))
            fresh_read(db.profile, "ann")
            db.facts.put("b1", fact("bob", "uno"))
            fresh_read(db.profile, "bob")
            assert held.profile.get("ann") == {"text": "one"}
            assert fresh_read(held.profile, "ann") == {"text": "one"}
            assert list(held.profile) == ["ann"]
            assert held.profile.get("bob") is None
            with pytest.raises(waferdb.WaferError):
                held.profile.refresh("bob")
        with db.snapshot(as_of=before) as past:
            assert past.profile.get("ann") is None
            with pytest.raises((StaleViewError, ReadOnlyError, TransactionError)):
                past.profile.get("ann", consistency="strong")
        with db.snapshot(as_of=computed) as past:
            assert past.profile.get("ann") == {"text": "one"}
        assert db.profile.get("ann") == {"text": "one two"}


def test_a_batch_does_not_compute(place: str) -> None:
    function = Recorded()
    with opened(place, function) as db:
        with db.batch(every=2) as batch:
            for n in range(5):
                batch.facts.put(f"a{n}", fact("ann", str(n)))
        assert function.calls == []
        assert fresh_read(db.profile, "ann") == {"text": "0 1 2 3 4"}


# Closing and opening again.


def test_results_and_staleness_outlive_the_process(path: Path) -> None:
    function = Recorded()
    with opened(path, function) as db:
        db.facts.put("a1", fact("ann", "one"))
        db.facts.put("b1", fact("bob", "uno"))
        db.profile.refresh()
        versions = {user: db.profile.read(user).version for user in ("ann", "bob")}
        lineage = db.profile.lineage("bob")
        db.facts.put("b2", fact("bob", "dos"))
        db.facts.put("c1", fact("cyd", "un"))
    function.calls.clear()
    with opened(path, function) as db:
        assert sorted(db.profile.stale()) == ["bob", "cyd"]
        assert fresh_read(db.profile, "ann", "eventual") == {"text": "one"}
        assert stale_read(db.profile, "bob") == {"text": "uno"}
        assert db.profile.read("bob").freshness.behind == 1
        assert {user: db.profile.read(user).version for user in versions} == versions
        assert db.profile.lineage("bob") == lineage
        assert function.calls == []
        assert db.profile.refresh() == 2
        assert db.verify(deep=True).ok


def test_without_its_function_what_is_stored_is_served_and_nothing_computed(path: Path) -> None:
    with opened(path, joined) as db:
        db.facts.put("a1", fact("ann", "one"))
        db.facts.put("b1", fact("bob", "uno"))
        db.profile.refresh()
        db.facts.put("b2", fact("bob", "dos"))
    with waferdb.open(path) as db:
        assert fresh_read(db.profile, "ann") == {"text": "one"}
        assert stale_read(db.profile, "bob") == {"text": "uno"}
        with pytest.raises(StaleViewError, match=r"(?i)function|class|declar"):
            db.profile.get("bob", consistency="strong")
        with pytest.raises(StaleViewError):
            db.profile.refresh()
        db.facts.put("c1", fact("cyd", "un"))
        db.facts.delete("a1")
        assert sorted(db.profile.stale()) == ["bob", "cyd"]
        assert list(db.profile) == ["bob"]
    with opened(path, joined) as db:
        assert db.profile.refresh() == 2
        assert db.profile.get("bob") == {"text": "uno dos"}
        assert db.verify(deep=True).ok


@pytest.mark.parametrize("policy", [eager(), hybrid(max_age="1ms")], ids=["eager", "hybrid"])
def test_commits_go_on_without_the_function(path: Path, policy: Any) -> None:
    with opened(path, joined, policy=policy) as db:
        db.facts.put("a1", fact("ann", "one"))
        fresh_read(db.profile, "ann")
    with waferdb.open(path) as db:
        within(lambda: db.facts.put("a2", fact("ann", "two")))
        with db.transaction(priority="critical") as tx:
            tx.facts.put("a3", fact("ann", "three"))
        assert stale_read(db.profile, "ann") == {"text": "one"}
    with opened(path, joined, policy=policy) as db:
        assert eventually(lambda: not db.profile.read("ann").freshness.stale)
        assert db.profile.get("ann") == {"text": "one two three"}


def test_a_view_added_later_has_everything_before_it(path: Path) -> None:
    with waferdb.open(path, {"facts": Rows(), "notes": Rows()}) as db:
        db.facts.put_many([("a1", fact("ann", "one")), ("b1", fact("bob", "uno"))])
        db.facts.delete("b1")
    function = Recorded()
    with opened(path, function) as db:
        assert db.profile.stale() == ["ann"]
        assert function.calls == []
        assert fresh_read(db.profile, "ann") == {"text": "one"}
        assert db.verify(deep=True).ok


def test_a_new_version_makes_all_groups_stale_and_serves_the_old_meanwhile(path: Path) -> None:
    with opened(path, joined) as db:
        db.facts.put_many([("a1", fact("ann", "one")), ("b1", fact("bob", "uno"))])
        db.profile.refresh()
    function = Recorded(lambda group: {"loud": joined(group)["text"].upper()})
    with opened(path, function) as db:
        assert fresh_read(db.profile, "ann") == {"text": "one"}, "the same version: the same result"
    with opened(path, function, version=2) as db:
        assert sorted(db.profile.stale()) == ["ann", "bob"]
        assert stale_read(db.profile, "ann") == {"text": "one"}
        assert function.calls == []
        assert fresh_read(db.profile, "ann") == {"loud": "ONE"}
    with opened(path, function, version=2) as db:
        assert db.profile.stale() == ["bob"]
        assert db.profile.refresh() == 1
        assert sorted(function.calls) == ["ann", "bob"]


def test_a_new_version_of_a_hybrid_view_is_computed_by_itself(path: Path) -> None:
    policy = hybrid(max_age="10ms")
    with opened(path, joined, policy=policy) as db:
        db.facts.put("a1", fact("ann", "one"))
        fresh_read(db.profile, "ann")
    with opened(path, lambda group: {"new": True}, policy=policy, version=2) as db:
        assert eventually(lambda: db.profile.get("ann") == {"new": True})


def test_rebuilding_a_view_keeps_what_was_computed(path: Path) -> None:
    function = Recorded()
    with opened(path, function) as db:
        db.facts.put_many([("a1", fact("ann", "one")), ("b1", fact("bob", "uno"))])
        db.profile.refresh()
        db.facts.put("b2", fact("bob", "dos"))
        db.rebuild("profile")
        assert fresh_read(db.profile, "ann", "eventual") == {"text": "one"}
        assert stale_read(db.profile, "bob") == {"text": "uno"}
        db.rebuild("facts")
        assert db.profile.stale() == ["bob"]
        assert len(function.calls) == 2
        assert db.verify(deep=True).ok


def test_a_backup_has_the_results_too(path: Path, tmp_path: Path) -> None:
    with opened(path, joined) as db:
        db.facts.put("a1", fact("ann", "one"))
        fresh_read(db.profile, "ann")
        db.facts.put("b1", fact("bob", "uno"))
        db.backup(tmp_path / "copy")
    with opened(tmp_path / "copy", joined) as db:
        assert db.profile.get("ann") == {"text": "one"}
        assert db.profile.stale() == ["bob"]


@pytest.mark.parametrize("with_function", [True, False])
def test_a_reader_serves_what_is_stored_and_computes_nothing(
    path: Path, with_function: bool
) -> None:
    with opened(path, joined) as db:
        db.facts.put_many([("a1", fact("ann", "one")), ("b1", fact("bob", "uno"))])
        db.profile.refresh()
        db.facts.put("b2", fact("bob", "dos"))
    function = Recorded()
    facts, profile = Rows(indexes=["user"]), View(function, "facts", "user", policy=lazy())
    schema = {"facts": facts, "notes": Rows(), "profile": profile} if with_function else None
    with waferdb.open(path, schema, mode="r") as db:
        assert fresh_read(db.profile, "ann") == {"text": "one"}
        assert stale_read(db.profile, "bob") == {"text": "uno"}
        assert db.profile.stale() == ["bob"]
        with pytest.raises((StaleViewError, ReadOnlyError), match=r"(?i)\brw\b|writ|class"):
            db.profile.get("bob", consistency="strong")
        with pytest.raises((StaleViewError, ReadOnlyError)):
            db.profile.refresh()
        assert function.calls == []


def test_events_capture_and_changes_go_on_beside_views(place: str) -> None:
    schema = {
        "facts": Rows(),
        "journal": Events(capture=["facts"]),
        "profile": View(joined, source="facts", by="user", policy=eager()),
    }
    with waferdb.open(place, schema) as db:
        db.facts.put("a1", fact("ann", "one"))
        db.facts.delete("a1")
        assert [event.kind for event in db.journal.scan()] == ["facts.put", "facts.delete"]
        lsns = [commit.lsn for commit in db.changes()]
        assert lsns == sorted(lsns)
        assert db.lsn in lsns or lsns[-1] <= db.lsn
