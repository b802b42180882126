"""Structures beyond memory, as a user meets them: budgets, files, reads of the past, healing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import waferdb
from waferdb import Audit, Cache, Context, Database, Events, Graph, Rows


class Memory(Database):
    facts = Rows(indexes=["user"])
    events = Events(capture=["facts"])
    audit = Audit()
    session = Cache(ttl="30m", capacity=50)
    context = Context()
    entities = Graph()


def fill(db: Memory, count: int, start: int = 0) -> None:
    for number in range(start, start + count):
        with db.transaction() as tx:
            key = f"k{number % 200:04}"
            tx.facts.put(key, {"user": f"u{number % 7}", "n": number})
            tx.session.put(key, number)
            tx.context.set(f"u{number % 7}", key, number)
            tx.entities.link(f"u{number % 7}", "knows", key)


def told(db: Memory) -> list[object]:
    """What every structure answers."""
    return [
        list(db.facts.scan()),
        list(db.facts.scan(reverse=True)),
        [list(db.facts.find({"user": f"u{user}"}, order="-n")) for user in range(7)],
        [(event.lsn, event.kind, event.key) for event in db.events.scan()],
        db.audit.head(),
        [db.context.load(f"u{user}") for user in range(7)],
        [sorted(edge.dst for edge in db.entities.edges(f"u{user}")) for user in range(7)],
        sorted(db.session.keys()),
        [count() for count in (db.facts.count, db.session.count)],
    ]


def runs(db: Memory) -> list[str]:
    return [path for path in db.stats().files if path.startswith("runs/")]


def test_memtables_beyond_their_budget_become_files_and_answers_stay(tmp_path: Path) -> None:
    with Memory(tmp_path / "db", memtable="64KiB") as small, Memory(":memory:") as whole:
        for db in (small, whole):
            fill(db, 600)
        small.drain()
        assert runs(small)
        assert not runs(whole)
        ours, theirs = told(small), told(whole)
        # Digests in an audit leaf are salted: the heads differ, their sizes do not.
        assert ours.pop(4).size == theirs.pop(4).size  # type: ignore[attr-defined]
        assert ours == theirs
        assert small.stats().by["facts", "flush"] > 0
        behind = small.stats().lag["facts"]
        assert behind.runs > 0
        assert (behind.memtable_bytes, behind.merge_bytes) == (0, 0)
        assert whole.stats().lag["facts"].memtable_bytes > 0
        assert small.verify(deep=True).ok


def test_the_past_is_read_from_files(tmp_path: Path) -> None:
    with Memory(tmp_path / "db", memtable="64KiB") as db:
        fill(db, 250)
        middle, then = db.lsn, told(db)
        fill(db, 350, start=250)
        db.facts.delete("k0001")
        db.drain()
        assert db.facts.get("k0001") is None
        assert db.facts.get("k0001", as_of=middle) == {"user": "u5", "n": 201}
        with db.snapshot(as_of=middle) as past:
            assert list(past.facts.scan()) == then[0]
            assert [(e.lsn, e.kind, e.key) for e in past.events.scan()] == then[3]
            assert [past.context.load(f"u{user}") for user in range(7)] == then[5]
            assert past.facts.count() == 200


def test_without_its_files_a_database_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with Memory(path, memtable="64KiB") as db:
        fill(db, 400)
        db.facts.delete("k0007")
        db.drain()
        before = told(db)
    shutil.rmtree(path / "runs")
    with Memory(path) as db:
        rebuilt = db.stats().rebuilt
        assert rebuilt is not None
        assert "missing" in rebuilt
        assert told(db) == before
        assert db.verify(deep=True).ok
    with Memory(path) as db:
        assert db.stats().rebuilt is None
        assert told(db) == before


def test_a_file_nobody_names_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with Memory(path, memtable="64KiB") as db:
        fill(db, 300)
        db.drain()
        before = told(db)
    (path / "runs" / "00099999.run").write_bytes(b"left by a crash")
    with Memory(path) as db:
        assert told(db) == before
    assert [file.name for file in (path / "quarantine").iterdir()] == ["00099999.run"]
    with Memory(path):
        assert not list((path / "quarantine").iterdir())


def test_a_flipped_byte_of_a_file_is_an_error_or_the_right_answer_and_heals(
    tmp_path: Path,
) -> None:
    path = tmp_path / "db"
    with Memory(path, memtable="64KiB") as db:
        fill(db, 300)
        db.drain()
        before = told(db)
    for file in sorted((path / "runs").iterdir()):
        content = bytearray(file.read_bytes())
        content[len(content) // 3] ^= 0x40
        file.write_bytes(content)
    with Memory(path) as db:
        for name in db:
            db.rebuild(name)
        assert told(db) == before
        assert db.verify(deep=True).ok


def test_forgotten_keys_stay_forgotten_in_files(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with waferdb.AgentMemory(path, memtable="64KiB") as memory:
        for number in range(60):
            memory.remember(f"memory number {number}", user="ann", key=f"m{number}")
        memory.drain()
        lsn = memory.lsn
        memory.forget("m7")
        for forgotten in (False, True):
            if forgotten:
                memory.drain()
            assert memory.facts.get("m7") is None
            assert memory.facts.get("m7", as_of=lsn) is None
            found = memory.recall("memory number 7", k=60, user="ann")
            assert "m7" not in [hit.key for hit in found]
    with waferdb.AgentMemory(path) as memory:
        assert memory.facts.get("m7", as_of=lsn) is None
        assert len(memory.recall("memory number 7", k=60, user="ann")) == 59
        assert memory.verify(deep=True).ok


@pytest.mark.parametrize("memtable", ["a lot", -1, object()])
def test_a_bad_budget_is_refused(tmp_path: Path, memtable: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        Memory(tmp_path / "db", memtable=memtable)  # type: ignore[arg-type]
