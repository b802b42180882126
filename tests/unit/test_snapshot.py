"""Snapshots and siblings: a database at one LSN, and cheap handles with sessions of their own."""

from __future__ import annotations

from typing import Any

import pytest
from wafer_support import Memory, vector_of, whole_keys, write_memory

import waferdb


def remember(db: Any, *keys: str) -> int:
    for key in keys:
        with db.transaction() as tx:
            write_memory(tx, key)
    return int(db.lsn)


def test_a_snapshot_stands_still_while_the_database_moves(db: Any) -> None:
    lsn = remember(db, "a", "b")
    with db.snapshot() as snapshot:
        remember(db, "c")
        db.facts.delete("a")
        assert snapshot.lsn == lsn
        assert list(snapshot.facts) == ["a", "b"]
        assert sorted(snapshot.embeddings.keys()) == ["a", "b"]
        assert sorted(snapshot.embeddings.search(vector_of("a"), k=9).keys) == ["a", "b"]
        assert [event.key for event in snapshot.events.scan()] == ["a", "b"]
        assert {n for s in snapshot.context.scopes() for n in snapshot.context.load(s)} == {
            "a",
            "b",
        }
        assert list(snapshot.entities.neighbors("c")) == []
        assert len(list(snapshot.entities.neighbors("a"))) == 1
    assert list(db.facts) == ["b", "c"]


def test_a_snapshot_of_the_past(db: Any) -> None:
    first = remember(db, "a")
    remember(db, "b")
    with db.snapshot(as_of=first) as snapshot:
        assert snapshot.lsn == first
        assert list(snapshot.facts) == ["a"]
        assert [event.key for event in snapshot.events.scan()] == ["a"]
    with pytest.raises(waferdb.HistoryError):
        db.snapshot(as_of=db.lsn + 1).__enter__()


def test_a_snapshot_refuses_writes(db: Any) -> None:
    remember(db, "a")
    with db.snapshot() as snapshot:
        for attempt in (
            lambda: snapshot.facts.put("k", {"n": 1}),
            lambda: snapshot.events.append("kind"),
            lambda: snapshot.session.put("k", 1),
        ):
            with pytest.raises(waferdb.ReadOnlyError):
                attempt()
    assert whole_keys(db) == {"a"}


def test_a_closed_snapshot_refuses_reads_and_the_database_goes_on(db: Any) -> None:
    remember(db, "a")
    snapshot = db.snapshot()
    cursor = snapshot.facts.scan()
    snapshot.close()
    snapshot.close()
    with pytest.raises(waferdb.ClosedError):
        snapshot.facts.get("a")
    with pytest.raises(waferdb.ClosedError):
        next(cursor)
    assert whole_keys(db) == {"a"}


def test_a_snapshot_ends_with_its_database(path: Any) -> None:
    db = Memory(path)
    remember(db, "a")
    snapshot = db.snapshot()
    db.close()
    with pytest.raises(waferdb.ClosedError):
        snapshot.facts.get("a")
    with Memory(path) as again:
        assert whole_keys(again) == {"a"}


def test_a_snapshot_keeps_what_changes_many_times_after_it(db: Any) -> None:
    db.facts.put("k", {"n": -1})
    with db.snapshot() as snapshot:
        for n in range(200):
            db.facts.put("k", {"n": n})
        assert snapshot.facts["k"] == {"n": -1}
    assert db.facts["k"] == {"n": 199}


def test_a_sibling_reads_and_writes_the_same_database(db: Any) -> None:
    with db.connect() as sibling:
        assert type(sibling) is type(db)
        sibling.facts.put("k", {"n": 1})
        assert db.facts["k"] == {"n": 1}
        lsn = db.facts.put("k", {"n": 2}).lsn
        assert sibling.facts.get("k", consistency="strong") == {"n": 2}
        assert sibling.facts.get("k", consistency=lsn) == {"n": 2}
    db.facts.put("after", {"n": 3})
    with pytest.raises(waferdb.ClosedError):
        sibling.facts.get("k")


def pinned(db: Any) -> int | None:
    oldest: int | None = db.stats().oldest_snapshot
    return oldest


def test_a_closed_snapshot_keeps_nothing_while_its_name_lives(db: Any) -> None:
    first = remember(db, "a")
    remember(db, "b")
    snapshot = db.snapshot(as_of=first)
    assert pinned(db) == first
    snapshot.close()
    assert pinned(db) is None
    with db.snapshot(as_of=first) as past:
        assert pinned(db) == first
    assert pinned(db) is None
    assert snapshot.closed
    assert past.closed


def test_a_cursor_that_ended_or_was_closed_keeps_nothing(db: Any) -> None:
    first = remember(db, "a")
    remember(db, "b")
    for scan in (
        lambda: db.facts.scan(as_of=first),
        lambda: db.facts.keys(as_of=first),
        lambda: db.facts.find({}, as_of=first),
        lambda: db.events.scan(as_of=first),
    ):
        cursor = scan()
        assert pinned(db) == first
        assert len(list(cursor)) == 1
        assert pinned(db) is None
        assert list(cursor) == []
        cursor.close()
        with pytest.raises(waferdb.ClosedError):
            next(cursor)
        left = scan()
        next(left)
        left.close()
        assert pinned(db) is None


def test_an_ended_transaction_keeps_nothing(db: Any) -> None:
    remember(db, "a")
    with db.transaction() as tx:
        tx.facts.get("a")
        tx.context.set("s", "n", 1)
        assert tx.lsn == 1
    assert pinned(db) is None
    assert db.lsn == 2


def test_a_refused_look_beyond_a_snapshot_keeps_nothing(db: Any) -> None:
    first = remember(db, "a")
    second = remember(db, "b")
    remember(db, "c")
    with db.snapshot(as_of=first) as snapshot:
        with pytest.raises(waferdb.TransactionError):
            snapshot.facts.get("a", as_of=second)
        assert pinned(db) == first
    assert pinned(db) is None
