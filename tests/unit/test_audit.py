"""Audit: every commit a leaf of an RFC 6962 tree, recomputed here from its definition."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from wafer_support import Memory, write_memory

import waferdb
from waferdb import Audit, Rows


def leaf_hash(leaf: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + leaf).digest()


def root_of(hashes: list[bytes]) -> bytes:
    if not hashes:
        return hashlib.sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    split = 1 << (len(hashes) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + root_of(hashes[:split]) + root_of(hashes[split:])).digest()


def commits(db: Any, count: int) -> list[Any]:
    receipts = []
    for n in range(count):
        with db.transaction(actor=f"agent-{n % 2}", reason=f"because {n}") as tx:
            write_memory(tx, f"k{n}")
        receipts.append(tx.receipt)
    return receipts


def test_every_commit_is_a_leaf_and_the_root_follows_from_them(db: Any) -> None:
    base = db.audit.head().size
    for count, receipt in enumerate(commits(db, 20), start=1):
        assert receipt.leaf == leaf_hash(db.audit.leaf(receipt.lsn))
        assert count <= 20
    head = db.audit.head()
    assert head.size == base + 20
    entries = list(db.audit.entries())
    assert len(entries) == head.size
    assert [entry.index for entry in entries] == list(range(head.size))
    assert all(entry.leaf_hash == leaf_hash(db.audit.leaf(entry.lsn)) for entry in entries)
    assert head.root == root_of([entry.leaf_hash for entry in entries])


def test_the_head_of_nothing_is_the_hash_of_nothing() -> None:
    with waferdb.open(":memory:", {"audit": Audit(), "facts": Rows()}) as db:
        head = db["audit"].head()
        assert head.root == root_of([entry.leaf_hash for entry in db["audit"].entries()])


def test_entries_tell_who_and_why(db: Any) -> None:
    receipts = commits(db, 4)
    entries = {entry.lsn: entry for entry in db.audit.entries()}
    for n, receipt in enumerate(receipts):
        entry = entries[receipt.lsn]
        assert (entry.actor, entry.reason) == (f"agent-{n % 2}", f"because {n}")
        assert entry.time == receipt.time
        assert entry.leaf_hash == receipt.leaf
    alone = db.facts.put("alone", {"n": 1})
    (entry,) = db.audit.entries(after=receipts[-1].lsn)
    assert (entry.lsn, entry.actor, entry.reason) == (alone.lsn, None, None)


def test_entries_by_actor_after_and_limit(db: Any) -> None:
    receipts = commits(db, 6)
    ones = [entry.lsn for entry in db.audit.entries(actor="agent-1")]
    assert ones == [receipt.lsn for receipt in receipts[1::2]]
    assert [entry.lsn for entry in db.audit.entries(actor="agent-1", limit=2)] == ones[:2]
    assert [entry.lsn for entry in db.audit.entries(after=receipts[3].lsn)] == [
        receipt.lsn for receipt in receipts[4:]
    ]
    assert list(db.audit.entries(actor="nobody")) == []


def test_a_note_says_who_and_why_within_the_transaction(db: Any) -> None:
    with db.transaction() as tx:
        tx.facts.put("k", {"n": 1})
        tx.note(actor="planner", reason="user said so")
    (entry,) = db.audit.entries(actor="planner")
    assert (entry.lsn, entry.reason) == (tx.receipt.lsn, "user said so")


def test_what_was_rolled_back_is_no_leaf(db: Any) -> None:
    head = db.audit.head()
    with pytest.raises(RuntimeError), db.transaction() as tx:
        write_memory(tx, "k")
        raise RuntimeError
    with db.transaction():
        pass
    assert db.audit.head() == head


def test_the_leaf_holds_digests_and_no_content(db: Any) -> None:
    secret = "the secret that must not be in the leaf"
    first = db.facts.put("k", {"text": secret})
    second = db.facts.put("k", {"text": secret})
    assert secret.encode() not in db.audit.leaf(first.lsn)
    assert db.audit.leaf(first.lsn) != db.audit.leaf(second.lsn)


def test_any_inclusion_at_any_size_is_proven_and_nothing_else(db: Any) -> None:
    receipts = commits(db, 13)
    entries = list(db.audit.entries())
    hashes = [entry.leaf_hash for entry in entries]
    head = db.audit.head()
    for entry in entries:
        assert waferdb.audit.verify(db.audit.prove(entry.lsn), head.root)
        for size in range(entry.index + 1, head.size + 1):
            proof = db.audit.prove(entry.lsn, size=size)
            assert waferdb.audit.verify(proof, root_of(hashes[:size]))
    wrong = db.audit.prove(receipts[0].lsn)
    assert not waferdb.audit.verify(wrong, root_of(hashes[:-1]))


def test_growth_is_proven_between_any_two_sizes(db: Any) -> None:
    commits(db, 13)
    hashes = [entry.leaf_hash for entry in db.audit.entries()]
    for new in range(1, len(hashes) + 1):
        for old in range(1, new + 1):
            proof = db.audit.prove_growth(old, new)
            assert waferdb.audit.verify_growth(proof, root_of(hashes[:old]), root_of(hashes[:new]))
    forged = [*hashes[:3], bytes(32), *hashes[4:]]
    proof = db.audit.prove_growth(5)
    assert not waferdb.audit.verify_growth(proof, root_of(forged[:5]), db.audit.head().root)


def test_asking_for_what_is_not_there_is_a_typed_error(db: Any) -> None:
    commits(db, 2)
    missing = (waferdb.WaferError, LookupError, ValueError)
    with pytest.raises(missing):
        db.audit.leaf(db.lsn + 1)
    with pytest.raises(missing):
        db.audit.prove(db.lsn + 1)
    with pytest.raises(missing):
        db.audit.prove(db.lsn, size=db.audit.head().size + 1)
    with pytest.raises(missing):
        db.audit.prove_growth(db.audit.head().size + 1)


def test_the_tree_is_the_same_after_reopening_and_goes_on(path: Any) -> None:
    with Memory(path) as db:
        commits(db, 9)
        head = db.audit.head()
        entries = list(db.audit.entries())
        leaves = [db.audit.leaf(entry.lsn) for entry in entries]
    with Memory(path) as db:
        assert db.audit.head() == head
        assert list(db.audit.entries()) == entries
        assert [db.audit.leaf(entry.lsn) for entry in entries] == leaves
        db.facts.put("more", {"n": 1})
        grown = db.audit.head()
        proof = db.audit.prove_growth(head.size, grown.size)
        assert grown.size == head.size + 1
        assert waferdb.audit.verify_growth(proof, head.root, grown.root)


def test_audit_begins_where_it_is_declared(path: Any) -> None:
    with waferdb.open(path, {"facts": Rows()}) as db:
        unaudited = db["facts"].put("before", {"n": 1})
        assert unaudited.leaf is None
    with waferdb.open(path, {"facts": Rows(), "audit": Audit()}) as db:
        first = db["facts"].put("after", {"n": 1})
        assert first.leaf is not None
        audited = [entry.lsn for entry in db["audit"].entries()]
        assert first.lsn in audited
        assert unaudited.lsn not in audited
        assert db["audit"].head().root == root_of(
            [entry.leaf_hash for entry in db["audit"].entries()]
        )
