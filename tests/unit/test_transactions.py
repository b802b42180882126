"""Transactions: one snapshot, own writes, all or nothing, first committer wins, receipts."""

from __future__ import annotations

import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from wafer_support import Memory, vector_of, whole_keys, write_memory

import waferdb
from waferdb import Rows


def test_one_commit_over_all_structures_has_one_lsn(db: Any) -> None:
    before = db.lsn
    with db.transaction() as tx:
        write_memory(tx, "k")
        assert db.facts.get("k") is None
    assert tx.receipt.lsn == db.lsn == before + 1
    assert whole_keys(db) == {"k"}
    assert db.facts.read("k").version == before + 1


def test_an_exception_rolls_all_structures_back(db: Any) -> None:
    before = db.lsn
    with pytest.raises(ZeroDivisionError), db.transaction() as tx:
        write_memory(tx, "k")
        raise ZeroDivisionError
    assert whole_keys(db) == set()
    assert db.lsn == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_not_an_exception_rolls_back_too(db: Any, error: type[BaseException]) -> None:
    with pytest.raises(error), db.transaction() as tx:
        write_memory(tx, "k")
        raise error
    assert whole_keys(db) == set()


def test_rollback_by_hand_leaves_the_block_quietly(db: Any) -> None:
    with db.transaction() as tx:
        write_memory(tx, "k")
        tx.rollback()
    assert whole_keys(db) == set()
    with pytest.raises((waferdb.TransactionError, waferdb.ClosedError)):
        tx.facts.put("late", {"n": 1})


def test_it_reads_its_own_writes_everywhere(db: Any) -> None:
    db.facts.put_many([("a", {"user": "ann"}), ("b", {"user": "ann"})])
    with db.transaction() as tx:
        tx.facts.put("c", {"user": "ann"})
        tx.facts.put("a", {"user": "bob"})
        tx.facts.delete("b")
        assert tx.facts.get("a") == {"user": "bob"}
        assert "b" not in tx.facts
        assert [key for key, _ in tx.facts.scan()] == ["a", "c"]
        assert [key for key, _ in tx.facts.scan(reverse=True)] == ["c", "a"]
        assert [key for key, _ in tx.facts.find({"user": "ann"})] == ["c"]
        assert [key for key, _ in tx.facts.find({"user": "bob"})] == ["a"]
        assert tx.facts.count() == 2
        assert tx.facts.get_many(["a", "b"]) == [{"user": "bob"}, None]
        tx.embeddings.put("c", vector_of("c"))
        assert tx.embeddings.search(vector_of("c"), k=5).keys == ["c"]
        assert "c" in tx.embeddings
        tx.events.append("kind", key="c")
        assert [event.kind for event in tx.events.scan()] == ["kind"]
        tx.entities.link("a", "r", "b")
        assert [n.node for n in tx.entities.neighbors("a")] == ["b"]
        tx.context.set("s", "n", 1)
        assert tx.context.load("s") == {"n": 1}
        tx.session.put("k", 1)
        assert tx.session.get("k") == 1
        assert db.facts.get("a") == {"user": "ann"}
        assert db.embeddings.count() == 0


def test_it_stays_at_its_snapshot(db: Any) -> None:
    db.facts.put("k", {"n": 1})
    with db.transaction() as tx:
        assert tx.facts["k"] == {"n": 1}
        db.facts.put("k", {"n": 2})
        db.facts.put("new", {"n": 3})
        assert tx.facts["k"] == {"n": 1}
        assert "new" not in tx.facts
        assert list(tx.facts) == ["k"]


def test_the_first_committer_wins(db: Any) -> None:
    db.facts.put("k", {"n": 0})
    with pytest.raises(waferdb.ConflictError) as caught, db.transaction() as tx:
        tx.facts.put("k", {"n": tx.facts["k"]["n"] + 1})
        tx.facts.put("elsewhere", {"n": 1})
        db.facts.put("k", {"n": 10})
    assert not isinstance(caught.value, waferdb.PreconditionError)
    assert db.facts["k"] == {"n": 10}
    assert "elsewhere" not in db.facts


def test_two_open_transactions_on_one_key_commit_once(db: Any) -> None:
    with pytest.raises(waferdb.ConflictError), db.transaction() as loser:
        loser.facts.put("k", {"who": "loser"})
        with db.transaction() as winner:
            winner.facts.put("k", {"who": "winner"})
    assert db.facts["k"] == {"who": "winner"}


def test_a_delete_conflicts_as_a_put_does(db: Any) -> None:
    db.facts.put("k", {"n": 0})
    with pytest.raises(waferdb.ConflictError), db.transaction() as tx:
        tx.facts.put("k", {"n": 1})
        db.facts.delete("k")
    assert "k" not in db.facts


def test_writes_to_other_keys_do_not_conflict(db: Any) -> None:
    with db.transaction() as tx:
        tx.facts.put("a", {"n": 1})
        db.facts.put("b", {"n": 2})
        db.events.append("meanwhile")
        tx.events.append("also")
    assert list(db.facts) == ["a", "b"]


def test_reads_are_not_checked_unless_asked(db: Any) -> None:
    db.facts.put_many([("a", {"on": True}), ("b", {"on": True})])
    with db.transaction() as tx:
        tx.facts.get("a")
        tx.facts.put("b", {"on": False})
        db.facts.put("a", {"on": False})
    assert db.facts["b"] == {"on": False}


def test_for_update_and_serializable_prevent_write_skew(db: Any) -> None:
    db.facts.put_many([("a", {"on": True}), ("b", {"on": True})])
    with pytest.raises(waferdb.ConflictError), db.transaction() as tx:
        tx.facts.get("a", for_update=True)
        tx.facts.put("b", {"on": False})
        db.facts.put("a", {"on": False})
    with pytest.raises(waferdb.ConflictError), db.transaction(isolation="serializable") as tx:
        tx.facts.get("a")
        tx.facts.put("b", {"on": False})
        db.facts.put("a", {"on": None})
    assert db.facts["b"] == {"on": True}


def test_serializable_sees_rows_that_appear_in_what_was_scanned_or_found(db: Any) -> None:
    for read in (
        lambda tx: list(tx.facts.scan()),
        lambda tx: list(tx.facts.find({"user": "ann"})),
        lambda tx: tx.facts.get("new"),
        lambda tx: tx.facts.count(),
    ):
        with pytest.raises(waferdb.ConflictError), db.transaction(isolation="serializable") as tx:
            read(tx)
            tx.facts.put("mine", {"n": 1})
            db.facts.put("new", {"user": "ann"})
        db.facts.delete("new")
        assert "mine" not in db.facts


def test_a_unique_value_taken_meanwhile_is_refused(db: Any) -> None:
    with pytest.raises(waferdb.ConflictError), db.transaction() as tx:
        tx.facts.put("a", {"email": "e"})
        db.facts.put("b", {"email": "e"})
    assert list(db.facts) == ["b"]


def test_preconditions_within_a_transaction_refuse_it_whole(db: Any) -> None:
    db.facts.put("k", {"n": 1})
    with pytest.raises(waferdb.PreconditionError), db.transaction() as tx:
        tx.facts.put("other", {"n": 1})
        tx.facts.put("k", {"n": 2}, if_absent=True)
    with pytest.raises(waferdb.ConflictError), db.transaction() as tx:
        tx.facts.put("k2", {"n": 2}, if_absent=True)
        db.facts.put("k2", {"n": 1})
    assert dict(db.facts.scan()) == {"k": {"n": 1}, "k2": {"n": 1}}


def test_the_receipt_is_pending_until_commit(db: Any) -> None:
    with db.transaction() as tx:
        receipt = tx.facts.put("k", {"n": 1})
        for field in ("lsn", "time", "durable", "leaf"):
            with pytest.raises(waferdb.PendingError):
                getattr(receipt, field)
    assert tx.receipt.lsn == receipt.lsn == db.lsn
    assert tx.receipt.durable is True
    assert tx.receipt.time.utcoffset() == timedelta(0)
    assert len(tx.receipt.leaf) == 32
    assert tx.receipt.txn == tx.txn
    assert not tx.receipt.lagging


def test_a_write_outside_a_transaction_is_its_own_commit(db: Any) -> None:
    first = db.facts.put("a", {"n": 1})
    second = db.context.set("s", "n", 1)
    third = db.events.append("kind")
    assert [second.lsn, third.lsn] == [first.lsn + 1, first.lsn + 2]
    assert first.time <= second.time <= third.time
    assert first.durable is True


def test_nothing_written_is_nothing_logged(db: Any) -> None:
    before = db.lsn
    with db.transaction(txn="empty", actor="a", reason="b") as tx:
        tx.facts.get("k")
    assert db.lsn == before


def test_the_callers_transaction_id_is_known_from_the_start_and_has_an_outcome(db: Any) -> None:
    with db.transaction(txn="mine-1") as tx:
        assert tx.txn == "mine-1"
        tx.facts.put("k", {"n": 1})
    assert db.outcome("mine-1") == "committed"
    assert db.outcome("never") == "absent"
    with pytest.raises(RuntimeError), db.transaction(txn="mine-2") as tx:
        tx.facts.put("k2", {"n": 1})
        raise RuntimeError
    assert db.outcome("mine-2") == "absent"
    with db.transaction() as tx:
        tx.facts.put("k3", {"n": 1})
        generated = tx.txn
    assert db.outcome(generated) == "committed"


def test_outcomes_are_known_after_reopening(path: Path) -> None:
    with Memory(path) as db:
        with db.transaction(txn="mine") as tx:
            tx.facts.put("k", {"n": 1})
    with Memory(path) as db:
        assert db.outcome("mine") == "committed"
        assert db.outcome("other") == "absent"
        with (
            pytest.raises(waferdb.TransactionError, match="mine"),
            db.transaction(txn="mine") as tx,
        ):
            tx.facts.put("k", {"n": 2})
        assert db.facts["k"] == {"n": 1}


def test_a_second_commit_under_a_committed_id_is_refused(db: Any) -> None:
    with db.transaction(txn="once") as tx:
        tx.facts.put("k", {"n": 1})
    with pytest.raises(waferdb.TransactionError, match="once"), db.transaction(txn="once") as tx:
        tx.facts.put("k", {"n": 2})
    assert db.facts["k"] == {"n": 1}
    assert db.lsn == tx_lsn(db)


def tx_lsn(db: Any) -> int:
    return int(db.facts.read("k").version)


def test_nested_transactions_close_and_backup_are_refused_inside(db: Any, tmp_path: Path) -> None:
    with db.transaction() as tx:
        tx.facts.put("k", {"n": 1})
        with pytest.raises(waferdb.TransactionError), tx.transaction():
            pass
        with pytest.raises(waferdb.TransactionError):
            tx.close()
        with pytest.raises(waferdb.TransactionError):
            tx.backup(tmp_path / "copy")
    assert db.facts["k"] == {"n": 1}


def test_a_finished_transaction_refuses_reads_and_writes(db: Any) -> None:
    with db.transaction() as tx:
        tx.facts.put("k", {"n": 1})
    ended = (waferdb.TransactionError, waferdb.ClosedError)
    with pytest.raises(ended):
        tx.facts.put("k", {"n": 2})
    with pytest.raises(ended):
        tx.facts.get("k")
    assert db.facts["k"] == {"n": 1}


def test_bad_options_are_refused_before_anything_happens(db: Any) -> None:
    for bad in (
        {"priority": "urgent"},
        {"isolation": "chaos"},
        {"durability": "maybe"},
        {"txn": "t" * 256},
        {"txn": ""},
    ):
        with pytest.raises(ValueError):
            with db.transaction(**bad) as tx:
                tx.facts.put("k", {"n": 1})
    with pytest.raises(TypeError):
        db.transaction(nonsense=1)
    assert db.facts.count() == 0


@pytest.mark.parametrize("priority", ["critical", "routine", "background"])
def test_every_priority_is_seen_by_a_strong_read(db: Any, priority: str) -> None:
    with db.transaction(priority=priority) as tx:
        write_memory(tx, "k")
    assert whole_keys(db) == {"k"}


def test_a_transaction_has_the_methods_of_its_class() -> None:
    class Notes(waferdb.Database):
        facts = Rows()

        def note(self, key: str, text: str) -> None:
            self.facts.put(key, {"text": text})

    with Notes(":memory:") as db:
        with db.transaction() as tx:
            assert isinstance(tx, Notes)
            tx.note("a", "in a transaction")
        db.note("b", "on its own")
        assert list(db.facts) == ["a", "b"]
        with db.transaction() as tx:
            tx["facts"].put("c", {"text": "by name"})
        assert "c" in db["facts"]


def test_a_transaction_beyond_the_byte_limit_is_refused_whole(db: Any) -> None:
    chunk = bytes(8 << 20)
    with pytest.raises(waferdb.LimitError, match="(?i)MiB|bytes"), db.transaction() as tx:
        for n in range(9):
            tx.facts.put(f"k{n}", {"n": n, "chunk": n.to_bytes(4, "big") + chunk})
    assert db.facts.count() == 0
    db.facts.put("after", {"n": 1})


def test_equal_values_of_one_commit_are_stored_once(db: Any) -> None:
    import os

    text = os.urandom(200_000)
    db.flush()
    before = db.stats().physical_bytes
    with db.transaction() as tx:
        tx.facts.put("k", {"blob": text})
        tx.session.put("k", {"blob": bytes(bytearray(text))})
        tx.context.set("s", "n", {"blob": bytes(bytearray(text))})
        tx.events.append("kind", {"blob": bytes(bytearray(text))}, key="k")
    db.flush()
    assert db.stats().physical_bytes - before < 300_000
    assert db.session.get("k") == db.context.get("s", "n") == db.facts["k"] == {"blob": text}


class Interrupted(BaseException):
    pass


def test_a_receipt_tells_the_truth_after_an_interrupt(disk: Any) -> None:
    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    interrupted = committed = 0
    try:
        for n in range(300):
            tx = disk.transaction()
            tx.facts.put(f"k{n}", {"n": n})
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.00002 + n % 20 * 0.00002)
                with tx:
                    pass
                # A signal that falls into a destructor is not raised here.
                until = time.monotonic() + 0.5
                while time.monotonic() < until:
                    pass
            except Interrupted:
                interrupted += 1
            if disk.outcome(tx.txn) == "committed":
                committed += 1
                assert tx.receipt.lsn == disk.facts.read(f"k{n}").version
            else:
                with pytest.raises(waferdb.PendingError):
                    assert tx.receipt.lsn
                assert f"k{n}" not in disk.facts
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted > 250
    assert committed > 0
