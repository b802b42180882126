"""asyncio by `asyncio.to_thread`: a cancelled await is no cancelled commit, and no half one."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from wafer_support import Memory, whole_keys, write_memory

import waferdb


def remember(db: Any, key: str, acknowledged: set[str]) -> None:
    with db.transaction(txn=f"txn-{key}") as tx:
        write_memory(tx, key)
    acknowledged.add(key)


def test_many_tasks_commit_and_read_without_blocking_the_loop(place: str) -> None:
    async def main(db: Any) -> int:
        ticks = 0
        done = asyncio.Event()
        acknowledged: set[str] = set()

        async def tick() -> None:
            nonlocal ticks
            while not done.is_set():
                ticks += 1
                await asyncio.sleep(0)

        ticker = asyncio.create_task(tick())
        await asyncio.gather(
            *(asyncio.to_thread(remember, db, f"k{n}", acknowledged) for n in range(100))
        )
        found = await asyncio.gather(
            *(asyncio.to_thread(db.facts.get, f"k{n}") for n in range(100))
        )
        assert all(found)
        done.set()
        await ticker
        return ticks

    with Memory(place) as db:
        assert asyncio.run(main(db)) > 0
        assert whole_keys(db) == {f"k{n}" for n in range(100)}


def test_cancelled_tasks_neither_lose_nor_half_apply(path: Any) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    acknowledged: set[str] = set()

    async def main(db: Any) -> set[str]:
        awaited: set[str] = set()

        async def one(key: str) -> None:
            await asyncio.to_thread(remember, db, key, acknowledged)
            awaited.add(key)

        for wave in range(10):
            tasks = [asyncio.create_task(one(f"{wave}-{n}")) for n in range(20)]
            for _ in range(chance.randrange(20)):
                await asyncio.sleep(0)
            for task in chance.sample(tasks, 10):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return awaited

    with Memory(path) as db:
        awaited = asyncio.run(main(db))
        # asyncio.run has joined the executor: whatever reached a thread has ended.
        assert awaited <= acknowledged
        assert whole_keys(db) == acknowledged
        for key in acknowledged:
            assert db.outcome(f"txn-{key}") == "committed"
    with Memory(path) as db:
        assert whole_keys(db) == acknowledged
        assert db.verify(deep=True).ok


def test_a_timeout_does_not_undo_the_commit_it_gave_up_on(db: Any) -> None:
    import threading

    entered, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        with db.transaction(txn="slow") as tx:
            write_memory(tx, "slow")
            entered.set()
            go_on.wait(60)

    async def main() -> None:
        task = asyncio.create_task(asyncio.to_thread(slow))
        while not entered.is_set():
            await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            go_on.set()
        else:
            raise AssertionError("the await was not cancelled")

    asyncio.run(main())
    assert db.outcome("slow") == "committed"
    assert whole_keys(db) == {"slow"}


def test_conflicts_between_tasks_are_retried(db: Any) -> None:
    db.facts.put("counter", {"n": 0})

    def add() -> None:
        db.retry(
            lambda tx: tx.facts.put("counter", {"n": tx.facts["counter"]["n"] + 1}),
            attempts=10_000,
        )

    async def main() -> None:
        await asyncio.gather(*(asyncio.to_thread(add) for _ in range(30)))

    asyncio.run(main())
    assert db.facts["counter"] == {"n": 30}


def test_an_error_in_the_thread_reaches_the_task(db: Any) -> None:
    async def main() -> str:
        try:
            await asyncio.to_thread(db.embeddings.put, "orphan", [1.0] * 8)
        except waferdb.LinkError as error:
            return str(error)
        return ""

    assert "orphan" in asyncio.run(main())
