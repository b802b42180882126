"""Threads: one handle, many threads, each commit whole, and nobody waits for the interpreter."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from wafer_support import Memory, document_of, vector_of, whole_keys, write_memory

import waferdb


def together(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Runs `work(0..count)` in threads that begin at the same moment; raises what they raise."""
    start = threading.Barrier(count)

    def run(number: int) -> Any:
        start.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return [
            future.result(timeout=120) for future in [pool.submit(run, n) for n in range(count)]
        ]


def test_concurrent_transactions_are_each_whole_and_have_each_their_lsn(place: str) -> None:
    with Memory(place) as db:

        def work(number: int) -> list[int]:
            lsns = []
            for n in range(25):
                with db.transaction() as tx:
                    write_memory(tx, f"{number}-{n}")
                lsns.append(tx.receipt.lsn)
            return lsns

        results = together(8, work)
        lsns = [lsn for result in results for lsn in result]
        assert len(set(lsns)) == 200
        assert all(result == sorted(result) for result in results)
        assert whole_keys(db) == {f"{number}-{n}" for number in range(8) for n in range(25)}
        assert [commit.lsn for commit in db.changes(after=min(lsns) - 1)] == sorted(lsns)
        times = [commit.time for commit in db.changes()]
        assert times == sorted(times)
        assert db.verify(deep=True).ok


def test_readers_never_see_half_a_commit(db: Any) -> None:
    stop = threading.Event()
    with db.transaction() as tx:
        tx.facts.put("a", {"n": 0})
        tx.facts.put("b", {"n": 0})
        tx.context.set("s", "n", 0)

    def write(_: int) -> None:
        try:
            for n in range(1, 200):
                with db.transaction() as tx:
                    tx.facts.put("a", {"n": n})
                    tx.context.set("s", "n", n)
                    tx.facts.put("b", {"n": n})
        finally:
            stop.set()

    def read(_: int) -> int:
        reads, last = 0, -1
        while not stop.is_set() or reads == 0:
            with db.snapshot() as snapshot:
                first = snapshot.facts["a"]["n"]
                assert snapshot.context.get("s", "n") == snapshot.facts["b"]["n"] == first
            scanned = [document["n"] for _, document in db.facts.scan()]
            assert scanned[0] == scanned[1]
            assert first >= last
            last = first
            reads += 1
        return reads

    together(3, lambda number: write(number) if number == 0 else read(number))


def test_a_commit_is_seen_by_every_thread_that_asks_after_it_returned(db: Any) -> None:
    acknowledged = [0]

    def work(number: int) -> None:
        if number == 0:
            for n in range(1, 150):
                db.facts.put("k", {"n": n})
                acknowledged[0] = n
            return
        while acknowledged[0] < 149:
            known = acknowledged[0]
            found = db.facts.get("k", default={"n": 0})
            assert found["n"] >= known

    together(3, work)


def test_racing_for_an_absent_key_or_a_unique_value_has_one_winner(db: Any) -> None:
    def claim(number: int) -> str:
        try:
            db.facts.put("seat", {"who": number}, if_absent=True)
        except waferdb.ConflictError:
            return "lost"
        return "won"

    def register(number: int) -> str:
        try:
            db.facts.put(f"user-{number}", {"email": "one@x"})
        except waferdb.ConflictError:
            return "lost"
        return "won"

    assert sorted(together(6, claim)) == ["lost"] * 5 + ["won"]
    assert sorted(together(6, register)) == ["lost"] * 5 + ["won"]
    assert len(list(db.facts.find({"email": "one@x"}))) == 1


def test_of_racing_read_modify_writes_none_is_lost(db: Any) -> None:
    db.facts.put("k", {"n": 0})

    def work(_: int) -> int:
        won = 0
        for _ in range(30):
            try:
                with db.transaction() as tx:
                    tx.facts.put("k", {"n": tx.facts["k"]["n"] + 1})
            except waferdb.ConflictError:
                continue
            won += 1
        return won

    assert db.facts["k"] == {"n": 0}
    assert sum(together(4, work)) == db.facts["k"]["n"]


def test_a_thread_waiting_in_the_engine_lets_others_run(db: Any) -> None:
    target = db.lsn + 1
    waiting = threading.Event()

    def wait() -> None:
        waiting.set()
        db.wait(target, timeout=60)

    thread = threading.Thread(target=wait)
    thread.start()
    waiting.wait()
    assert sum(range(100_000)) == 4_999_950_000
    db.facts.put("k", {"n": 1})
    thread.join(30)
    assert not thread.is_alive()


def test_closing_while_others_write_leaves_only_whole_commits(path: Any) -> None:
    db = Memory(path)
    enough = threading.Semaphore(0)

    def work(number: int) -> set[str]:
        done: set[str] = set()
        try:
            for n in range(100_000):
                key = f"{number}-{n}"
                with db.transaction() as tx:
                    write_memory(tx, key)
                done.add(key)
                enough.release()
        except (waferdb.ClosedError, waferdb.TransactionError):
            return done
        raise AssertionError("close was never noticed")

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(work, number) for number in range(4)]
        for _ in range(40):
            enough.acquire(timeout=60)
        db.close()
        acknowledged = set().union(*(future.result(timeout=60) for future in futures))
    with Memory(path) as again:
        assert acknowledged <= whole_keys(again)
        assert again.verify(deep=True).ok


def test_searches_run_beside_writes(db: Any) -> None:
    with db.transaction() as tx:
        for n in range(50):
            tx.facts.put(f"k{n}", document_of(f"k{n}"))
            tx.embeddings.put(f"k{n}", vector_of(f"k{n}"))

    def work(number: int) -> None:
        for n in range(40):
            if number == 0:
                with db.transaction() as tx:
                    key = f"k{n}"
                    tx.facts.delete(key)
            else:
                for hit in db.embeddings.search(vector_of(f"k{n}"), k=5):
                    assert hit.row == document_of(hit.key)

    together(3, work)
    assert db.embeddings.count() == 10


def test_a_cursor_and_a_search_outlive_the_thread_that_made_them(db: Any) -> None:
    db.facts.put_many([(f"k{n}", {"n": n}) for n in range(10)])
    cursors: list[Any] = []
    thread = threading.Thread(target=lambda: cursors.append(db.facts.scan()))
    thread.start()
    thread.join()
    assert len(list(cursors[0])) == 10


def test_an_interrupt_does_not_turn_a_commit_into_a_rollback(path: Any) -> None:
    """SIGINT at any moment: what the child acknowledged before it is there, and all is whole."""
    import os
    import signal
    import subprocess
    import sys

    from wafer_support import child_environment

    source = """
import sys
from wafer_support import Memory, write_memory
with Memory(sys.argv[1]) as db:
    try:
        print("ready", flush=True)
        for n in range(1_000_000):
            with db.transaction(txn=f"t{n}") as tx:
                write_memory(tx, f"k{n}")
            print(f"k{n}", flush=True)
    except KeyboardInterrupt:
        sys.exit(3)
"""
    child = subprocess.Popen(
        [sys.executable, "-c", source, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env=child_environment(),
    )
    assert child.stdout is not None
    lines = [child.stdout.readline().strip() for _ in range(30)]
    os.kill(child.pid, signal.SIGINT)
    lines += child.stdout.read().split()
    child.stdout.close()
    assert child.wait(timeout=60) == 3
    acknowledged = {line for line in lines if line.startswith("k")}
    with Memory(path) as db:
        keys = whole_keys(db)
        assert acknowledged <= keys
        assert len(keys - acknowledged) <= 1
        for key in keys:
            assert db.outcome("t" + key[1:]) == "committed"
        assert db.outcome(f"t{len(keys)}") == "absent"


@pytest.mark.parametrize("threads", [2, 8])
def test_batches_of_many_threads_do_not_disturb_each_other(place: str, threads: int) -> None:
    with Memory(place) as db:

        def work(number: int) -> int:
            with db.batch(every=7) as batch:
                for n in range(50):
                    batch.facts.put(f"{number}-{n}", {"n": n})
            return int(batch.commits)

        assert together(threads, work) == [8] * threads
        assert db.facts.count() == threads * 50
