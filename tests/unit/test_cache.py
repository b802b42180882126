"""Cache: entries that end with their time or with the row they came from."""

from __future__ import annotations

import time
from typing import Any

import pytest
from wafer_support import Memory

import waferdb
from waferdb import Cache, Rows


def eventually(condition: Any, seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.002)
    return bool(condition())


def test_an_entry_is_read_replaced_and_deleted(db: Any) -> None:
    db.session.put("k", {"n": 1})
    assert db.session.get("k") == {"n": 1}
    db.session.put("k", [1, 2])
    assert db.session.get("k") == [1, 2]
    assert db.session.read("k").value == [1, 2]
    db.session.delete("k")
    db.session.delete("k")
    assert db.session.get("k") is None
    assert db.session.get("k", default="d") == "d"
    assert db.session.read("k").value is None


def test_keys_count_in_and_iteration_agree(db: Any) -> None:
    for key in ["b", "a"]:
        db.session.put(key, 1)
    assert sorted(db.session.keys()) == sorted(db.session) == ["a", "b"]
    assert db.session.count() == 2
    assert "a" in db.session
    assert "c" not in db.session


def test_an_expired_entry_is_never_answered_by_any_call(db: Any) -> None:
    db.session.put("short", 1, ttl=0.05)
    db.session.put("long", 2)
    assert eventually(lambda: db.session.get("short") is None)
    assert db.session.read("short").value is None
    assert "short" not in db.session
    assert list(db.session.keys()) == ["long"]
    assert db.session.count() == 1
    with pytest.raises(KeyError):
        db.session["short"]


def test_the_declared_ttl_holds_where_none_is_given() -> None:
    with waferdb.open(":memory:", {"session": Cache(ttl=0.05)}) as db:
        db["session"].put("k", 1)
        db["session"].put("longer", 1, ttl="1h")
        assert eventually(lambda: db["session"].get("k") is None)
        assert db["session"].get("longer") == 1


def test_putting_again_begins_a_new_term(db: Any) -> None:
    db.session.put("k", 1, ttl=0.03)
    db.session.put("k", 2, ttl="1h")
    db.session.put("witness", 3, ttl=0.03)
    assert eventually(lambda: db.session.get("witness") is None)
    assert db.session.get("k") == 2


def test_an_entry_that_expired_while_closed_is_not_answered(path: Any) -> None:
    with Memory(path) as db:
        db.session.put("short", 1, ttl=0.05)
        db.session.put("long", 2)
        assert eventually(lambda: "short" not in db.session)
    with Memory(path) as db:
        assert db.session.get("short") is None
        assert db.session.get("long") == 2


def test_the_latest_writer_wins_without_conflict(db: Any) -> None:
    with db.transaction() as tx:
        tx.session.put("k", "transaction")
        db.session.put("k", "meanwhile")
    assert db.session.get("k") == "transaction"


def test_within_a_transaction_it_is_all_or_nothing(db: Any) -> None:
    with pytest.raises(RuntimeError), db.transaction() as tx:
        tx.session.put("k", 1)
        assert tx.session.get("k") == 1
        raise RuntimeError
    assert db.session.get("k") is None


@pytest.mark.parametrize("ttl", ["soon", "-1s", "", -1, 0])
def test_a_bad_ttl_is_a_value_error_at_declaration(ttl: Any) -> None:
    with pytest.raises(ValueError):
        Cache(ttl=ttl)


class Filled(waferdb.Database):
    facts = Rows()
    hot = Cache(ttl="1h", source="facts")


def test_a_cache_of_rows_answers_with_the_row(place: str) -> None:
    with Filled(place) as db:
        db.facts.put("k", {"n": 1})
        assert db.hot.get("k") == {"n": 1}
        db.facts.put("k", {"n": 2})
        assert db.hot.get("k", consistency="strong") == {"n": 2}
        assert db.hot.get("nobody") is None


def test_an_entry_goes_with_its_row(place: str) -> None:
    with Filled(place) as db:
        db.facts.put("k", {"n": 1})
        assert db.hot.get("k") == {"n": 1}
        db.facts.delete("k")
        assert db.hot.get("k") is None
        assert "k" not in db.hot


def test_a_cache_of_rows_answers_after_reopening(path: Any) -> None:
    with Filled(path) as db:
        db.facts.put("k", {"n": 1})
        db.facts.put("gone", {"n": 2})
        db.facts.delete("gone")
    with Filled(path) as db:
        assert db.hot.get("k") == {"n": 1}
        assert db.hot.get("gone") is None
