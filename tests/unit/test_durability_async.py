"""`durability="async"`: acknowledged at once, durable soon, and never out of order."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from wafer_support import Memory, child_environment, whole_keys, write_memory

import waferdb

# Writes memories k0, k1, …, says what `sys.argv[2]` asks for, and waits to be killed.
CHILD = """
import sys
from wafer_support import Memory, write_memory
db = Memory(sys.argv[1], durability="async")
print("ready", flush=True)
count = 0
for line in sys.stdin:
    if line == "write\\n":
        with db.transaction() as tx:
            write_memory(tx, f"k{count}")
        count += 1
    elif line == "flush\\n":
        db.flush()
    elif line == "sync\\n":
        with db.transaction(durability="sync") as tx:
            write_memory(tx, f"k{count}")
        assert tx.receipt.durable is True
        count += 1
    print(count, flush=True)
"""


class Child:
    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=child_environment(),
        )
        assert self.answer() == "ready"

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, what: str) -> int:
        assert self.process.stdin is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return int(self.answer())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                continue


def survivors(path: Path) -> int:
    """How many memories survived, after asserting that they are the first ones, each whole."""
    with Memory(path) as db:
        keys = whole_keys(db)
        assert keys == {f"k{n}" for n in range(len(keys))}
        assert db.verify(deep=True).ok
        return len(keys)


@pytest.mark.parametrize("what", ["flush", "sync"])
def test_what_was_flushed_survives_a_kill(path: Path, what: str) -> None:
    child = Child(path)
    try:
        for _ in range(20):
            child.ask("write")
        count = child.ask(what)
    finally:
        child.kill()
    assert survivors(path) == count


def test_an_idle_writer_is_durable_within_the_promised_time(path: Path) -> None:
    child = Child(path)
    try:
        for _ in range(20):
            child.ask("write")
        time.sleep(0.5)  # The promise is 100 ms; the rest is for a busy machine.
    finally:
        child.kill()
    assert survivors(path) == 20


@pytest.mark.parametrize("count", [1, 7, 40])
def test_what_survives_a_kill_is_a_beginning_of_what_was_written(path: Path, count: int) -> None:
    child = Child(path)
    try:
        for _ in range(count):
            child.ask("write")
    finally:
        child.kill()
    assert survivors(path) <= count


def test_closing_makes_everything_durable(path: Path) -> None:
    with Memory(path, durability="async") as db:
        for n in range(20):
            with db.transaction() as tx:
                write_memory(tx, f"k{n}")
    assert survivors(path) == 20


def test_an_asynchronous_commit_is_seen_at_once_and_has_its_lsn(path: Path) -> None:
    with Memory(path, durability="async") as db:
        before = db.lsn
        receipt = db.facts.put("k", {"n": 1})
        assert receipt.lsn == before + 1
        assert db.facts["k"] == {"n": 1}
        assert isinstance(receipt.durable, bool)
        db.flush()
        durable = db.facts.put("k2", {"n": 2})
        db.flush()
        assert durable.lsn == before + 2


def test_one_transaction_may_ask_for_more_or_less_than_its_database(path: Path) -> None:
    with Memory(path, durability="async") as db, db.transaction(durability="sync") as tx:
        tx.facts.put("k", {"n": 1})
    assert tx.receipt.durable is True
    with Memory(path) as db:
        syncs = db.stats().syncs
        for n in range(50):
            with db.transaction(durability="async") as tx:
                tx.facts.put(f"k{n}", {"n": n})
        assert db.stats().syncs - syncs < 50
        assert db.facts.count() == 51
    with Memory(path) as db:
        assert db.facts.count() == 51


def test_the_cache_alone_does_not_wait_for_the_disk(disk: Any) -> None:
    syncs = disk.stats().syncs
    for n in range(50):
        disk.session.put(f"k{n}", n)
    assert disk.stats().syncs - syncs < 50
    assert disk.session.get("k49") == 49


def test_an_asynchronous_handle_refuses_after_close_like_any_other(path: Path) -> None:
    db = Memory(path, durability="async")
    db.facts.put("k", {"n": 1})
    db.close()
    with pytest.raises(waferdb.ClosedError):
        db.facts.put("late", {"n": 1})
