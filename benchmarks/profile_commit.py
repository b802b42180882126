"""Where the microseconds of the benchmarks go, layer by layer.

`python benchmarks/profile_commit.py [--directory D] [--memories N]` prints tables, all in
microseconds per memory:

- one writer and a hundred per commit: the median of each public call by the clock around it, beside
  the same call made directly on the compiled engine with encoded values, and the encoding alone;
  what is left is the Python layer; "in memory": the public call on a database without files;
- the engine's own histograms of commit and sync, and the raw probe of the same bytes;
- what a memory costs without one of its structures;
- one to 64 threads: wall time, processor time and what a database in memory (no disk at all) does.

A clock reading costs about 0.05 µs and is not subtracted.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import waferdb
from benchmarks import pace
from benchmarks.machine import described, machine, probe
from benchmarks.workload import DIM, TTL_US, Item, Memory, items, remember, remember_many
from waferdb import Vectors, documents

_now = time.perf_counter_ns


class Clock:
    """Nanoseconds by the name of a step; medians, so that a busy neighbour counts for little."""

    def __init__(self) -> None:
        self._spent: dict[str, list[int]] = {}
        self._since = 0

    def start(self) -> None:
        """The next step begins now."""
        self._since = _now()

    def lap(self, name: str) -> None:
        """The step that ends now; the next one begins."""
        now = _now()
        self._spent.setdefault(name, []).append(now - self._since)
        self._since = _now()

    def micros(self, memories: int) -> dict[str, float]:
        """Median microseconds of each step, for each of the `memories` of a commit."""
        return {
            name: statistics.median(each) / 1e3 / memories for name, each in self._spent.items()
        }


def public_one(db: Memory, item: Item, clock: Clock) -> None:
    """`workload.remember`, step by step."""
    clock.start()
    tx = db.transaction(actor="agent", reason="remember").__enter__()
    clock.lap("begin")
    tx.facts.put(item.key, item.document)
    clock.lap("facts.put")
    tx.embeddings.put(item.key, item.vector)
    clock.lap("embeddings.put")
    tx.events.append("memory.remembered", item.about, key=item.key)
    clock.lap("events.append")
    tx.session.put(item.key, item.document)
    clock.lap("session.put")
    tx.context.set(item.user, item.key, item.document)
    clock.lap("context.set")
    tx.__exit__(None, None, None)
    clock.lap("commit")


def core_one(db: Memory, item: Item, clock: Clock) -> None:
    """The same on the compiled engine; encoding has a step of its own."""
    engine: Any = db._scope.shared.engine
    facts, vectors, events = db.facts._id, db.embeddings._id, db.events._id
    session, context = db.session._id, db.context._id
    encode = documents.encode
    clock.start()
    body = encode(item.document)
    clock.lap("facts.put: encode")
    encode(item.document)
    clock.lap("session.put: encode")
    encode(item.document)
    clock.lap("context.set: encode")
    about = encode(item.about)
    clock.lap("events.append: encode")
    tx = engine.begin(actor="agent", reason="remember")
    clock.lap("begin")
    tx.put(facts, item.key, body)
    clock.lap("facts.put")
    tx.vector_put(vectors, item.key, item.vector)
    clock.lap("embeddings.put")
    tx.append(events, "memory.remembered", about, item.key)
    clock.lap("events.append")
    tx.cache_put(session, item.key, body, TTL_US)
    clock.lap("session.put")
    tx.context_set(context, item.user, item.key, body)
    clock.lap("context.set")
    tx.commit()
    clock.lap("commit")


def public_many(db: Memory, some: Sequence[Item], clock: Clock) -> None:
    """`workload.remember_many`, step by step."""
    clock.start()
    tx = db.transaction(actor="agent", reason="remember").__enter__()
    clock.lap("begin")
    tx.facts.put_many([(item.key, item.document) for item in some])
    clock.lap("facts.put")
    tx.embeddings.put_many([item.key for item in some], np.stack([item.vector for item in some]))
    clock.lap("embeddings.put")
    append, put, set_in = tx.events.append, tx.session.put, tx.context.set
    for item in some:
        append("memory.remembered", item.about, key=item.key)
    clock.lap("events.append")
    for item in some:
        put(item.key, item.document)
    clock.lap("session.put")
    for item in some:
        set_in(item.user, item.key, item.document)
    clock.lap("context.set")
    tx.__exit__(None, None, None)
    clock.lap("commit")


def core_many(db: Memory, some: Sequence[Item], clock: Clock) -> None:
    """The same on the compiled engine; encoding has a step of its own."""
    engine: Any = db._scope.shared.engine
    facts, vectors, events = db.facts._id, db.embeddings._id, db.events._id
    session, context = db.session._id, db.context._id
    encode = documents.encode
    clock.start()
    bodies = [encode(item.document) for item in some]
    clock.lap("facts.put: encode")
    _ = [encode(item.document) for item in some]
    clock.lap("session.put: encode")
    _ = [encode(item.document) for item in some]
    clock.lap("context.set: encode")
    abouts = [encode(item.about) for item in some]
    clock.lap("events.append: encode")
    keys, array = [item.key for item in some], np.stack([item.vector for item in some])
    clock.start()
    tx = engine.begin(actor="agent", reason="remember")
    clock.lap("begin")
    tx.put_many(facts, keys, bodies)
    clock.lap("facts.put")
    tx.vector_put_many(vectors, keys, array)
    clock.lap("embeddings.put")
    for item, about in zip(some, abouts, strict=True):
        tx.append(events, "memory.remembered", about, item.key)
    clock.lap("events.append")
    for item, body in zip(some, bodies, strict=True):
        tx.cache_put(session, item.key, body, TTL_US)
    clock.lap("session.put")
    for item, body in zip(some, bodies, strict=True):
        tx.context_set(context, item.user, item.key, body)
    clock.lap("context.set")
    tx.commit()
    clock.lap("commit")


def fresh(directory: Path | None, name: str) -> Memory:
    """A new database in `directory`, or in memory."""
    return Memory(":memory:" if directory is None else directory / f"{name}.wafer")


def stepped(
    directory: Path | None, name: str, all_items: list[Item], size: int, public: bool
) -> tuple[dict[str, float], Any]:
    """Microseconds per memory by step, after a tenth as warm-up, and the engine's statistics."""
    clock, warm = Clock(), len(all_items) // 10 // size * size
    with fresh(directory, name) as db:
        for start in range(0, len(all_items), size):
            if start == warm:
                clock = Clock()
            some = all_items[start : start + size]
            if size == 1:
                (public_one if public else core_one)(db, some[0], clock)
            else:
                (public_many if public else core_many)(db, some, clock)
        return clock.micros(size), db.stats()


def layers(directory: Path, all_items: list[Item], size: int) -> None:
    """The table of one commit size."""
    public, stats = stepped(directory, f"public{size}", all_items, size, public=True)
    core, _ = stepped(directory, f"core{size}", all_items, size, public=False)
    nowhere, _ = stepped(None, "", all_items, size, public=True)
    print(f"{'step':16}{'public':>9}{'encode':>9}{'engine':>9}{'Python':>9}{'in memory':>11}")
    totals = [0.0] * 5
    for step, spent in public.items():
        encoding = core.get(f"{step}: encode", 0.0)
        row = [spent, encoding, core[step], spent - encoding - core[step], nowhere[step]]
        totals = [total + each for total, each in zip(totals, row, strict=True)]
        print(f"{step:16}" + "".join(f"{each:9.2f}" for each in row[:4]) + f"{row[4]:11.2f}")
    print(f"{'sum':16}" + "".join(f"{each:9.2f}" for each in totals[:4]) + f"{totals[4]:11.2f}")
    # A closed log is trimmed to its groups; what more was written are the zeros ahead of them.
    log = (directory / f"public{size}.wafer" / "log").iterdir()
    per_commit = round(sum(file.stat().st_size for file in log) / stats.commits / 512) * 512
    print(f"a commit's group: {per_commit:,} B; bytes written per byte handed in {stats.waf:.2f}")
    for name, shape in stats.latency.items():
        print(f"engine, {name}: p50 {shape.p50} p90 {shape.p90} p99 {shape.p99} max {shape.max} µs")
    raw = probe(directory, per_commit, "--seconds", 0.5)
    rate, p50, p99 = raw["per_second"], raw["p50_us"], raw["p99_us"]
    print(f"raw probe, {raw['layout']}: {rate:,.0f}/s, p50 {p50:.0f} p99 {p99:.0f} µs\n")


def whole(name: str, db: Memory, run: Callable[[], pace.Done], per_commit: int) -> None:
    """Wall and processor time per memory of one run."""
    since, before = db.stats(), time.process_time_ns()
    done = run()
    memories = done.operations * per_commit
    cpu = (time.process_time_ns() - before) / 1e3 / memories
    stats = db.stats()
    together = (stats.commits - since.commits) / max(stats.syncs - since.syncs, 1)
    print(
        f"{name:36}{memories / done.seconds:10,.0f}/s  wall {done.seconds * 1e6 / memories:7.2f}  "
        f"processor {cpu:7.2f}  commits per sync {together:.1f}"
    )


def threads(directory: Path, all_items: list[Item]) -> None:
    """The same work by more and more writers, on disk and in memory."""
    size = 100
    some = [all_items[start : start + size] for start in range(0, len(all_items), size)]
    for place, path in (("disk", directory), ("memory", None)):
        for count in (1, 2, 4, 16, 64):
            with fresh(path, f"threads{count}") as db:
                one, forever = partial(remember, db), 1e9
                whole(
                    f"{place}, {count} threads",
                    db,
                    partial(pace.closed_by_threads, one, all_items, count, forever),
                    1,
                )
        with fresh(path, "hundred") as db:
            many = partial(remember_many, db)
            whole(f"{place}, 100 per commit", db, partial(pace.closed, many, some, 1e9), size)


def ablation(all_items: list[Item]) -> None:
    """One memory per commit in memory, with all structures and with each of them left out."""
    without: dict[str, float] = {}
    for left_out in ("", *Memory._structures):
        schema: dict[str, Any] = dict(Memory._structures)
        schema.pop(left_out, None)
        if left_out == "facts":
            schema["embeddings"] = Vectors(dim=DIM, metric="cosine")
        spent = []
        with waferdb.open(":memory:", schema) as db:
            for item in all_items:
                since = _now()
                with db.transaction(actor="agent", reason="remember") as tx:
                    if left_out != "facts":
                        tx.facts.put(item.key, item.document)
                    if left_out != "embeddings":
                        tx.embeddings.put(item.key, item.vector)
                    if left_out != "events":
                        tx.events.append("memory.remembered", item.about, key=item.key)
                    if left_out != "session":
                        tx.session.put(item.key, item.document)
                    if left_out != "context":
                        tx.context.set(item.user, item.key, item.document)
                spent.append(_now() - since)
        without[left_out] = statistics.median(spent) / 1e3
    print(
        f"all six: {without.pop(''):.2f}; without "
        + ", without ".join(f"{name} {micros:.2f}" for name, micros in without.items())
    )


def main() -> None:
    """Prints the profile."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--memories", type=int, default=10_000)
    arguments = parser.parse_args()
    all_items = items(arguments.memories)
    print(described(machine(arguments.directory)), "\n")
    with tempfile.TemporaryDirectory(dir=arguments.directory) as made:
        directory = Path(made)
        print("One memory per commit, µs per memory")
        layers(directory, all_items, 1)
        print("A hundred memories per commit, µs per memory")
        layers(directory, all_items, 100)
        print("One memory per commit in memory, a structure left out, µs per memory")
        ablation(all_items)
        print("\nWriters, one memory per commit; µs per memory")
        threads(directory, all_items)


if __name__ == "__main__":
    main()
