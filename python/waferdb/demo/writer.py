"""A process that remembers with several threads, until it is done or killed.

`python -m waferdb.demo.writer DIRECTORY THREADS acks|quiet`, memories on stdin; see `process`.
With `quiet` it acknowledges nothing and so measures only its work.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from ..agent_memory import AgentMemory, Remembered
from .corpus import Item
from .process import read_items, say, written_by_this_process


def main() -> None:
    """The child's whole life."""
    path, threads, acknowledge = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "acks"
    items = read_items()
    before = written_by_this_process()
    with AgentMemory(path) as memory:
        memory.embedder(["a first call loads the model"])
        say("ready")
        pipe = len("ready\n")
        started = time.perf_counter()
        _remember_all(memory, items, threads, _acknowledge if acknowledge else _nothing)
        seconds = time.perf_counter() - started
        stats = memory.stats()
    after = written_by_this_process()
    wrote = None if before is None or after is None else after - before - pipe
    done = {
        "seconds": seconds,
        "memories": len(items),
        "commits": stats.commits,
        "syncs": stats.syncs,
        "metered": stats.physical_bytes,
        "wchar": None if acknowledge else wrote,
    }
    say("done", json.dumps(done))


def _acknowledge(done: Remembered) -> None:
    say("ack", done.key, done.receipt.lsn)


def _nothing(_: Remembered) -> None:
    return


def _remember_all(
    memory: AgentMemory, items: list[Item], threads: int, acknowledge: Callable[[Remembered], None]
) -> None:
    work: Iterator[Item] = iter(items)
    handing_out, speaking = threading.Lock(), threading.Lock()

    def remember(_: int) -> None:
        while True:
            with handing_out:
                item = next(work, None)
            if item is None:
                return
            done = memory.remember(
                item["text"], user=item["user"], topic=item["topic"], key=item["key"]
            )
            with speaking:
                acknowledge(done)

    with ThreadPoolExecutor(threads) as pool:
        # Asking for the results raises what a thread raised.
        list(pool.map(remember, range(threads)))


if __name__ == "__main__":
    main()
