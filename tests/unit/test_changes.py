"""Changes: every commit once, in order, with who and why, and nothing that is no commit."""

from __future__ import annotations

from typing import Any

import pytest
from wafer_support import Memory, write_memory


def test_each_commit_comes_once_in_order(db: Any) -> None:
    start = db.lsn
    receipts = [db.facts.put(f"k{n}", {"n": n}) for n in range(5)]
    with db.transaction(txn="mine", actor="planner", reason="why") as tx:
        write_memory(tx, "whole")
    receipts.append(tx.receipt)
    commits = list(db.changes(after=start))
    assert [commit.lsn for commit in commits] == [receipt.lsn for receipt in receipts]
    assert [commit.time for commit in commits] == [receipt.time for receipt in receipts]
    assert [commit.txn for commit in commits] == [receipt.txn for receipt in receipts]
    last = commits[-1]
    assert (last.txn, last.actor, last.reason) == ("mine", "planner", "why")
    assert (commits[0].actor, commits[0].reason) == (None, None)
    assert len(commits[0].changes) == 1
    assert len(last.changes) == 6


def test_a_change_tells_structure_and_key(db: Any) -> None:
    start = db.lsn
    db.facts.put("k", {"n": 1})
    (commit,) = db.changes(after=start)
    (change,) = commit.changes
    assert change.structure == "facts"
    assert change.key == "k"


def test_after_is_exclusive_and_the_whole_is_from_zero(db: Any) -> None:
    lsns = [db.facts.put("k", {"n": n}).lsn for n in range(4)]
    assert [commit.lsn for commit in db.changes(after=lsns[1])] == lsns[2:]
    assert list(db.changes(after=lsns[-1])) == []
    everything = [commit.lsn for commit in db.changes()]
    assert everything[-4:] == lsns
    assert everything == sorted(set(everything))
    assert everything == list(range(everything[0], db.lsn + 1))


def test_what_was_rolled_back_is_no_change(db: Any) -> None:
    start = db.lsn
    with pytest.raises(RuntimeError), db.transaction() as tx:
        write_memory(tx, "k")
        raise RuntimeError
    with db.transaction():
        pass
    assert list(db.changes(after=start)) == []


def test_changes_are_the_same_after_reopening_and_no_opening_is_one(path: Any) -> None:
    def summary(db: Any) -> Any:
        return [
            (commit.lsn, commit.time, commit.txn, commit.actor, len(commit.changes))
            for commit in db.changes()
        ]

    with Memory(path) as db:
        for n in range(3):
            with db.transaction(actor=f"a{n}") as tx:
                write_memory(tx, f"k{n}")
        before = summary(db)
    for _ in range(2):
        with Memory(path) as db:
            assert summary(db) == before
    with Memory(path) as db:
        db.facts.put("k", {"n": 1})
        assert summary(db)[:-1] == before
