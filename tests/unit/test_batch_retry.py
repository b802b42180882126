"""Batches and retries: many writes in few commits, and transactions that run again."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from wafer_support import Memory, whole_keys, write_memory

import waferdb


def test_a_batch_commits_every_so_many_writes_and_the_rest_at_its_end(db: Any) -> None:
    before = db.lsn
    with db.batch(every=10) as batch:
        for n in range(25):
            batch.facts.put(f"k{n:02}", {"n": n})
    assert batch.commits == 3
    assert db.lsn == before + 3
    assert db.facts.count() == 25


def test_a_batch_of_nothing_commits_nothing(db: Any) -> None:
    before = db.lsn
    with db.batch() as batch:
        pass
    assert batch.commits == 0
    assert db.lsn == before


def test_a_batch_writes_all_structures(db: Any) -> None:
    keys = {f"k{n}" for n in range(30)}
    with db.batch(every=12) as batch:
        for key in sorted(keys):
            write_memory(batch, key)
    assert whole_keys(db) == keys
    assert db.verify(deep=True).ok


def test_a_batch_is_not_checked_for_conflicts_except_unique(db: Any) -> None:
    db.facts.put("k", {"n": 0})
    with db.batch(every=100) as batch:
        batch.facts.put("k", {"n": 1})
        db.facts.put("k", {"n": 2})
    assert db.facts["k"] == {"n": 1}
    db.facts.put("taken", {"email": "e"})
    with pytest.raises(waferdb.UniqueError), db.batch() as batch:
        batch.facts.put("thief", {"email": "e"})
    assert "thief" not in db.facts


def test_what_a_batch_committed_stays_when_it_fails(db: Any) -> None:
    with pytest.raises(RuntimeError), db.batch(every=5) as batch:
        for n in range(7):
            batch.facts.put(f"k{n}", {"n": n})
        raise RuntimeError
    assert {f"k{n}" for n in range(5)} <= set(db.facts)
    assert db.verify(deep=True).ok


@pytest.mark.parametrize("every", [0, -1])
def test_a_batch_that_never_commits_is_refused(db: Any, every: int) -> None:
    with pytest.raises(ValueError):
        db.batch(every=every).__enter__()


def test_retry_runs_again_after_a_conflict_and_returns_the_result(db: Any) -> None:
    db.facts.put("k", {"n": 0})
    runs = []

    def add(tx: Any) -> int:
        number = tx.facts["k"]["n"] + 1
        runs.append(number)
        if len(runs) < 3:
            db.facts.put("k", {"n": number * 10})
        tx.facts.put("k", {"n": number})
        return int(number)

    assert db.retry(add) == 111
    assert runs == [1, 11, 111]
    assert db.facts["k"] == {"n": 111}


def test_retry_gives_up_after_its_attempts(db: Any) -> None:
    runs = []

    def always_late(tx: Any) -> None:
        runs.append(1)
        tx.facts.put("k", {"n": 1})
        db.facts.put("k", {"n": 2})

    with pytest.raises(waferdb.ConflictError):
        db.retry(always_late, attempts=3)
    assert len(runs) == 3
    assert db.facts["k"] == {"n": 2}


def test_retry_does_not_repeat_what_cannot_succeed(db: Any) -> None:
    db.facts.put("k", {"email": "e"})
    runs = []

    def absent(tx: Any) -> None:
        runs.append("absent")
        tx.facts.put("k", {"n": 1}, if_absent=True)

    def unique(tx: Any) -> None:
        runs.append("unique")
        tx.facts.put("other", {"email": "e"})

    def broken(tx: Any) -> None:
        runs.append("broken")
        raise ZeroDivisionError

    for function, error in (
        (absent, waferdb.PreconditionError),
        (unique, waferdb.UniqueError),
        (broken, ZeroDivisionError),
    ):
        with pytest.raises(error):
            db.retry(function)
    assert runs == ["absent", "unique", "broken"]


def test_retry_passes_transaction_options_on(db: Any) -> None:
    def write(tx: Any) -> str:
        tx.facts.put("k", {"n": 1})
        return str(tx.txn)

    txn = db.retry(write, actor="planner", reason="why", priority="critical")
    (entry,) = db.audit.entries(actor="planner")
    assert entry.reason == "why"
    assert db.outcome(txn) == "committed"


def test_counting_from_many_threads_loses_no_increment(place: str) -> None:
    with Memory(place) as db:
        db.facts.put("counter", {"n": 0})

        def work() -> None:
            for _ in range(25):
                db.retry(
                    lambda tx: tx.facts.put("counter", {"n": tx.facts["counter"]["n"] + 1}),
                    attempts=10_000,
                )

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert db.facts["counter"] == {"n": 100}


def test_a_refused_commit_of_a_batch_says_what_went_with_it(db: Any) -> None:
    db.facts.put("taken", {"email": "a@x"})
    with pytest.raises(waferdb.UniqueError) as caught, db.batch(every=3) as batch:
        for n in range(4):
            batch.facts.put(f"fine-{n}", {"n": n})
        batch.facts.put("twice", {"email": "a@x"})
    assert any("gave up the 2 writes" in note for note in caught.value.__notes__)
    assert any("the 1 commits before it stay" in note for note in caught.value.__notes__)
    assert sorted(db.facts) == ["fine-0", "fine-1", "fine-2", "taken"]
