"""Writers that are interrupted in their own process; run in a child, talk as `kernel_lives` does.

Each asks `outcome` about a commit whose call did not return, and goes on as that answer says: a
commit it calls absent is made again under the same id, one that it calls committed counts.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from kernel_children import Talk
from kernel_lives import WRITERS, tell_error, write_on
from kernel_store import Model, Options, commit, model_at

import waferdb

Standing = dict[str, int]


def settled(db: Any, model: Model) -> Model:
    """The model as `outcome` says of the commit that was under way."""
    number = model.count
    stands = db.outcome(model.txn(number)) == "committed"
    return model_at(model.seed, model.writer, number + stands)


def interrupt(
    talk: Talk, path: str, seed: int, standing: Standing, draw: int, options: Options
) -> None:
    """SIGINT at moments of chance, many in one life, while the main thread commits."""
    chance = random.Random(draw)
    main = threading.main_thread().ident
    assert main is not None
    ended = threading.Event()
    delays = [chance.uniform(0, 0.012) for _ in range(25)]
    armed = False

    def interrupted(*_: object) -> None:
        """As Python's own handler; what a test does with an interrupt is left alone by the next."""
        nonlocal armed
        if armed:
            armed = False
            raise KeyboardInterrupt

    def disturb() -> None:
        for delay in delays:
            time.sleep(delay)
            signal.pthread_kill(main, signal.SIGINT)
        ended.set()

    signal.signal(signal.SIGINT, interrupted)
    with options.open(path, seed) as db:
        count = standing.get(WRITERS[0], 0)
        model = model_at(seed, WRITERS[0], count)
        interrupts = 0
        thread = threading.Thread(target=disturb)
        thread.start()
        while not ended.is_set():
            try:
                armed = True
                while not ended.is_set():
                    count = model.count
                    commit(db, model)
                    talk("+", model.writer, count)
                armed = False
            except KeyboardInterrupt:
                interrupts += 1
                # The model may have been interrupted as well.
                model = settled(db, model_at(seed, WRITERS[0], count))
                if model.count > count:
                    talk("+", model.writer, count)
        thread.join()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        talk("interrupted", interrupts)
        stands = db.outcome(model.txn(model.count - 1)) if model.count else "committed"
        if stands != "committed":
            talk("!", "outcome", "Changed", "-", f"{model.count - 1} is {stands}")


def cancel(
    talk: Talk, path: str, seed: int, standing: Standing, draw: int, options: Options
) -> None:
    """asyncio: commits in threads whose awaits are cancelled at moments of chance."""
    chance = random.Random(draw)
    with options.open(path, seed) as db:
        asyncio.run(_cancelled(talk, db, seed, standing, chance))


async def _cancelled(
    talk: Talk, db: Any, seed: int, standing: Standing, chance: random.Random
) -> None:
    """As by `asyncio.to_thread`, with a pool that tells whether a thread took up its call."""
    cancelled = 0
    models = [model_at(seed, writer, standing.get(writer, 0)) for writer in WRITERS]
    with ThreadPoolExecutor(len(WRITERS)) as pool:

        async def one(place: int, futures: dict[int, Future[Any]]) -> None:
            futures[place] = pool.submit(commit, db, models[place])
            await asyncio.wrap_future(futures[place])

        for _ in range(20):
            futures: dict[int, Future[Any]] = {}
            numbers = [model.count for model in models]
            tasks = [asyncio.create_task(one(place, futures)) for place in range(len(models))]
            await asyncio.sleep(chance.choice((0, 0, 0.0005, 0.002)))
            for task in tasks:
                if chance.random() < 0.6:
                    cancelled += task.cancel()
            for end in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(end, Exception):
                    tell_error(talk, "task", end)
            for place, (model, number) in enumerate(zip(models, numbers, strict=True)):
                future = futures.get(place)
                # What a thread has begun goes on, whoever waits for it.
                done = future is not None and not future.cancelled()
                if future is not None and done:
                    future.result(60)
                    talk("+", model.writer, number)
                stands = db.outcome(model.txn(number)) == "committed"
                if stands != done:
                    talk("!", "outcome", "Differs", "-", f"{model.writer} {number}: {stands}")
    talk("interrupted", cancelled)


def fork(talk: Talk, path: str, seed: int, standing: Standing, draw: int, options: Options) -> None:
    """Forks while threads commit: the forked child is refused, the parent goes on."""
    chance = random.Random(draw)
    db = options.open(path, seed)
    models = [model_at(seed, writer, standing.get(writer, 0)) for writer in WRITERS]
    threads = [
        threading.Thread(target=write_on, args=(talk, db, model, model.count + 25))
        for model in models
    ]
    for thread in threads:
        thread.start()
    forks = 0
    while any(thread.is_alive() for thread in threads):
        time.sleep(chance.uniform(0, 0.004))
        pid = os.fork()
        if not pid:
            _refused(db)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        forks += 1
        if code:
            talk("!", "forked", "Child", "-", f"a forked child ended with {code}")
    for thread in threads:
        thread.join()
    talk("interrupted", forks)
    db.close()


def _refused(db: Any) -> None:
    """The forked child: every call is a `ForkedError`. Its exit code says what was not."""
    signal.alarm(20)  # of one that waits for what only its parent's threads could give
    calls: tuple[Callable[[], Any], ...] = (
        lambda: db.facts.get("k"),
        lambda: db.transaction().__enter__(),
        lambda: db.people.put("k", {"email": "e", "city": "c", "age": 1}),
        lambda: db.flush(),
        lambda: db.close(),
    )
    for place, call in enumerate(calls):
        try:
            call()
        except waferdb.ForkedError:
            continue
        except BaseException:  # noqa: BLE001 - told by the exit code
            os._exit(20 + place)
        os._exit(40 + place)
    os._exit(0)


def starve(
    talk: Talk, path: str, seed: int, standing: Standing, kind: str, room: int, late: bool
) -> None:
    """Everything a database does, with few descriptors or little address space.

    `room` are descriptors, or MiB of address space, beyond what is in use; `late`: the limit comes
    once the database is open.
    """
    model = model_at(seed, WRITERS[0], standing.get(WRITERS[0], 0))
    options = Options(memory="1MiB", memtable="64KiB")

    def limit() -> None:
        if kind == "descriptors":
            # A free number below the limit is what a new descriptor needs.
            used = max(map(int, os.listdir("/proc/self/fd")))  # noqa: PTH208
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + room, used + room))
        else:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            least = pages * resource.getpagesize() + (room << 20)
            resource.setrlimit(resource.RLIMIT_AS, (least, least))

    def attempt(where: str, work: Any) -> bool:
        try:
            work()
        except (MemoryError, RuntimeError) as error:
            # The interpreter's own words for want of memory, also where it can start no thread.
            if isinstance(error, RuntimeError) and "can't start new thread" not in str(error):
                tell_error(talk, where, error)
            talk("memory", where)
            return False
        except Exception as error:  # noqa: BLE001 - told, and judged outside
            tell_error(talk, where, error)
            return False
        return True

    opened: list[Any] = []
    if not late:
        limit()
    attempt("open", lambda: opened.append(options.open(path, seed)))
    if not opened:
        return
    db = opened[0]
    if late:
        limit()
    for _ in range(3):
        for _ in range(10):
            number = model.count
            if not attempt("commit", lambda: commit(db, model)):
                # What the interpreter gave up half may be half in the model too.
                break
            talk("+", model.writer, number)
        else:
            attempt("drain", db.drain)
            attempt("search", lambda: db.points.search([1.0, 2.0, 3.0, 4.0], k=5))
            attempt("backup", lambda: db.backup(Path(path).with_suffix(f".copy{model.count}")))
            attempt("verify", lambda: db.verify(deep=True))
            continue
        break
    attempt("close", db.close)
    talk("end")


def _tell_unless_closed(told: threading.ExceptHookArgs) -> None:
    """The interpreter closes the database when it ends, which each thread is told by an error."""
    if not issubclass(told.exc_type, waferdb.ClosedError | waferdb.TransactionError):
        sys.__excepthook__(told.exc_type, told.exc_value or told.exc_type(), told.exc_traceback)


def leave(path: str, seed: int, standing: Standing, how: str, delay: float) -> None:
    """A whole interpreter that ends while daemon threads commit; a program of its own."""
    threading.excepthook = _tell_unless_closed
    talk = Talk(1)
    db = Options().open(path, seed)
    models = [model_at(seed, writer, standing.get(writer, 0)) for writer in WRITERS]
    for model in models:
        threading.Thread(target=write_on, args=(talk, db, model), daemon=True).start()
    time.sleep(delay)
    if how == "os._exit":
        os._exit(0)
    if how == "raise":
        raise SystemExit(0)
    if how == "close":
        db.close()
    sys.exit(0)


if __name__ == "__main__":
    import json

    leave(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]), sys.argv[4], float(sys.argv[5]))
