"""Events: append-only readings of the log, by position, time, kind and key; capture of rows."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from wafer_support import Memory, Plain

import waferdb
from waferdb import Events, Rows


def kinds(cursor: Any) -> list[str]:
    return [event.kind for event in cursor]


@pytest.fixture
def told(db: Any) -> list[Any]:
    """Three commits: (a, b), (c), (a) with keys x, y, x and y."""
    with db.transaction() as tx:
        tx.events.append("a", {"n": 1}, key="x")
        tx.events.append("b", {"n": 2}, key="y")
    db.events.append("c", [1, 2], key="x")
    db.events.append("a", key="y")
    return list(db.events.scan())


def test_events_come_in_commit_order_with_position_and_time(db: Any) -> None:
    with db.transaction() as tx:
        tx.facts.put("k", {"n": 1})
        tx.events.append("first", {"text": "x" * 100}, key="k")
        tx.context.set("s", "n", 1)
        tx.events.append("second")
    lone = db.events.append("third", "payload")
    first, second, third = db.events.scan()
    assert (first.lsn, first.index) == (tx.receipt.lsn, 0)
    assert (second.lsn, second.index) == (tx.receipt.lsn, 1)
    assert (third.lsn, third.index) == (lone.lsn, 0)
    assert first.time == second.time == tx.receipt.time
    assert third.time == lone.time >= first.time
    assert (first.kind, first.key, first.payload) == ("first", "k", {"text": "x" * 100})
    assert (second.kind, second.key, second.payload) == ("second", None, None)
    assert third.payload == "payload"


def test_equal_events_are_as_many_as_were_appended(db: Any) -> None:
    with db.transaction() as tx:
        for _ in range(3):
            tx.events.append("same", {"text": "y" * 200}, key="k")
    assert [event.index for event in db.events.scan()] == [0, 1, 2]


def test_after_is_exclusive_and_until_inclusive_by_lsn(db: Any, told: list[Any]) -> None:
    lsns = [event.lsn for event in told]
    assert kinds(db.events.scan(after=lsns[0])) == ["c", "a"]
    assert kinds(db.events.scan(until=lsns[2])) == ["a", "b", "c"]
    assert kinds(db.events.scan(after=lsns[0], until=lsns[2])) == ["c"]
    assert kinds(db.events.scan(after=lsns[3])) == []
    assert kinds(db.events.scan(after=0)) == ["a", "b", "c", "a"]


def test_after_and_until_an_event_divide_a_commit(db: Any, told: list[Any]) -> None:
    assert kinds(db.events.scan(after=told[0])) == ["b", "c", "a"]
    assert kinds(db.events.scan(until=told[0])) == ["a"]
    assert kinds(db.events.scan(after=told[0], until=told[1])) == ["b"]
    assert kinds(db.events.scan(after=told[3])) == []


def test_after_and_until_a_time(db: Any, told: list[Any]) -> None:
    moment = told[2].time
    expected_after = [event.kind for event in told if event.time > moment]
    expected_until = [event.kind for event in told if event.time <= moment]
    assert kinds(db.events.scan(after=moment)) == expected_after
    assert kinds(db.events.scan(until=moment)) == expected_until
    assert kinds(db.events.scan(after=told[0].time - timedelta(seconds=1))) == ["a", "b", "c", "a"]
    assert kinds(db.events.scan(until=told[0].time - timedelta(seconds=1))) == []
    with pytest.raises((TypeError, ValueError)):
        db.events.scan(after=moment.replace(tzinfo=None))


def test_by_kind_and_key_limit_and_reverse(db: Any, told: list[Any]) -> None:
    assert [event.key for event in db.events.scan(kind="a")] == ["x", "y"]
    assert kinds(db.events.scan(key="x")) == ["a", "c"]
    assert kinds(db.events.scan(kind="a", key="y")) == ["a"]
    assert kinds(db.events.scan(kind="nothing")) == []
    assert kinds(db.events.scan(limit=2)) == ["a", "b"]
    assert list(db.events.scan(reverse=True)) == told[::-1]
    assert kinds(db.events.scan(reverse=True, limit=2)) == ["a", "c"]
    assert list(db.events.scan(kind="a", reverse=True, limit=1)) == [told[3]]
    assert kinds(db.events.scan(key="x", after=told[0].lsn)) == ["c"]


def test_a_scan_keeps_the_snapshot_of_its_call(db: Any, told: list[Any]) -> None:
    cursor = db.events.scan()
    db.events.append("later")
    assert list(cursor) == told


def test_payloads_hold_whatever_documents_hold(db: Any) -> None:
    payloads: list[Any] = [
        None,
        True,
        0,
        2**64 - 1,
        1.5,
        "text",
        b"bytes",
        [1, [2]],
        {"a": {"b": None}},
    ]
    for payload in payloads:
        db.events.append("k", payload)
    assert [event.payload for event in db.events.scan()] == payloads
    with pytest.raises(waferdb.DocumentError):
        db.events.append("k", {"bad": object()})
    assert len(list(db.events.scan())) == len(payloads)


def test_an_event_rolled_back_never_happened(db: Any) -> None:
    with pytest.raises(RuntimeError), db.transaction() as tx:
        tx.events.append("lost")
        raise RuntimeError
    assert list(db.events.scan()) == []


def test_capture_records_each_change_of_the_rows(plain: Any) -> None:
    first = plain.facts.put("k", {"n": 1})
    plain.facts.put("k", {"n": 2})
    plain.points.put("elsewhere", [1.0] * 8)
    last = plain.facts.delete("k")
    events = list(plain.journal.scan())
    assert [(event.kind, event.key) for event in events] == [
        ("facts.put", "k"),
        ("facts.put", "k"),
        ("facts.delete", "k"),
    ]
    assert [event.payload for event in events[:2]] == [{"n": 1}, {"n": 2}]
    assert (events[0].lsn, events[2].lsn) == (first.lsn, last.lsn)
    assert list(plain.events.scan()) == []
    plain.journal.append("by hand", key="k")
    assert kinds(plain.journal.scan(key="k")) == [
        "facts.put",
        "facts.put",
        "facts.delete",
        "by hand",
    ]


def test_capture_costs_no_second_copy_of_the_document() -> None:
    def bytes_written(capture: list[str]) -> int:
        schema = {"facts": Rows(), "journal": Events(capture=capture)}
        with waferdb.open(":memory:", schema) as db:
            for n in range(20):
                db["facts"].put(f"k{n}", {"blob": bytes([n]) * 20_000})
            db.flush()
            assert len(list(db["journal"].scan())) == (20 if capture else 0)
            return int(db.stats().physical_bytes)

    assert bytes_written(["facts"]) < bytes_written([]) * 1.2


def test_captured_and_appended_events_survive_reopening(path: Any) -> None:
    with Plain(path) as db:
        db.facts.put("k", {"n": 1})
        db.events.append("a", {"n": 2}, key="k")
        before = [*db.journal.scan(), *db.events.scan()]
    with Plain(path) as db:
        assert [*db.journal.scan(), *db.events.scan()] == before
        db.facts.put("k", {"n": 3})
        assert kinds(db.journal.scan()) == ["facts.put", "facts.put"]


def test_commit_times_never_decrease_over_reopening(path: Any) -> None:
    for _ in range(3):
        with Memory(path) as db:
            db.events.append("again")
            db.events.append("again")
    with Memory(path) as db:
        times = [event.time for event in db.events.scan()]
    assert len(times) == 6
    assert times == sorted(times)
    assert all(time.utcoffset() == timedelta(0) for time in times)
