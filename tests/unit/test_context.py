"""Context: learned patterns by scope and name."""

from __future__ import annotations

from typing import Any

import pytest
from wafer_support import Memory


def test_names_of_a_scope_are_set_read_loaded_and_deleted(db: Any) -> None:
    db.context.set("ann", "channel", "email")
    db.context.set("ann", "tone", {"formal": True})
    db.context.set("bob", "channel", "slack")
    assert db.context.get("ann", "channel") == "email"
    assert db.context.load("ann") == {"channel": "email", "tone": {"formal": True}}
    assert sorted(db.context.scopes()) == ["ann", "bob"]
    db.context.set("ann", "channel", "phone")
    assert db.context.get("ann", "channel") == "phone"
    db.context.delete("ann", "channel")
    assert db.context.get("ann", "channel") is None
    assert db.context.load("ann") == {"tone": {"formal": True}}


def test_deleting_a_scope_deletes_all_its_names_and_no_other(db: Any) -> None:
    for scope in ["a", "a/b", "a\0b", "b"]:
        db.context.set(scope, "n", scope)
        db.context.set(scope, "m", scope)
    db.context.delete("a")
    assert db.context.load("a") == {}
    assert sorted(db.context.scopes()) == ["a\0b", "a/b", "b"]
    assert db.context.load("a/b") == {"n": "a/b", "m": "a/b"}
    assert db.context.load("a\0b") == {"n": "a\0b", "m": "a\0b"}


def test_scope_and_name_never_run_together(db: Any) -> None:
    db.context.set("ab", "c", 1)
    db.context.set("a", "bc", 2)
    db.context.set("a\0", "b", 3)
    db.context.set("a", "\0b", 4)
    assert db.context.load("ab") == {"c": 1}
    assert db.context.load("a") == {"bc": 2, "\0b": 4}
    assert db.context.load("a\0") == {"b": 3}


def test_what_is_not_there_is_none_or_empty(db: Any) -> None:
    assert db.context.get("nobody", "nothing") is None
    assert db.context.load("nobody") == {}
    assert list(db.context.scopes()) == []
    db.context.delete("nobody")
    db.context.delete("nobody", "nothing")
    db.context.set("ann", "n", 1)
    db.context.delete("ann", "n")
    assert list(db.context.scopes()) == []


def test_the_latest_writer_wins_without_conflict(db: Any) -> None:
    with db.transaction() as tx:
        tx.context.set("ann", "n", "transaction")
        db.context.set("ann", "n", "meanwhile")
    assert db.context.get("ann", "n") == "transaction"


def test_a_transaction_reads_its_own_writes_and_can_roll_back(db: Any) -> None:
    db.context.set("ann", "n", 1)
    with pytest.raises(RuntimeError), db.transaction() as tx:
        tx.context.set("ann", "m", 2)
        tx.context.delete("ann", "n")
        assert tx.context.load("ann") == {"m": 2}
        assert tx.context.get("ann", "n") is None
        tx.context.set("new", "n", 1)
        assert sorted(tx.context.scopes()) == ["ann", "new"]
        raise RuntimeError
    assert db.context.load("ann") == {"n": 1}
    assert list(db.context.scopes()) == ["ann"]


def test_deleting_a_scope_and_setting_a_name_again_in_one_transaction(db: Any) -> None:
    db.context.set("ann", "old", 1)
    with db.transaction() as tx:
        tx.context.delete("ann")
        tx.context.set("ann", "new", 2)
    assert db.context.load("ann") == {"new": 2}


def test_it_is_there_after_reopening(path: Any) -> None:
    with Memory(path) as db:
        db.context.set("ann", "n", {"deep": [1, 2]})
        db.context.set("ann", "gone", 1)
        db.context.delete("ann", "gone")
    with Memory(path) as db:
        assert db.context.load("ann") == {"n": {"deep": [1, 2]}}
