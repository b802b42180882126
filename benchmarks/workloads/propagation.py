"""What propagation costs those who commit, what it owes them, and how fast it catches up."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import waferdb
from benchmarks import pace
from benchmarks.compare import MEMORIES
from benchmarks.meter import resident_bytes
from benchmarks.sizes import Sizes
from benchmarks.targets import SUBJECT
from benchmarks.task import Task
from benchmarks.workload import Item, items, remember
from waferdb import (
    Audit,
    Cache,
    Context,
    Count,
    Events,
    Latest,
    Rows,
    Vectors,
    View,
    hybrid,
    lazy,
)
from waferdb.policies import Policy

from .base import RATE, Case, Column, Found, Leave, N, Workload
from .remember import chunks

_MEMORIES_MAX = 20_000
_BLOCK = 200  # commits of one database, then of the other
_SUMMARY_CHARACTERS = 1_000
_CRITICAL_MAX, _CRITICAL_EVERY = 10_000, 5
_PER_COMMIT = 1_000
_TEXT = "prefers email over slack for everything but the weekly retro"
_MEGA = 1e-6
_HOLDS_ALL, _MEMORY_MIN = 1 << 30, 256 << 20


def summarise(group: Any) -> dict[str, Any]:
    """The beginnings of a user's newest memories."""
    newest = [row.value["text"][:100] for row in group.rows[-10:]]
    return {"text": "; ".join(newest)[:_SUMMARY_CHARACTERS], "memories": len(group.rows)}


def _schema(policy: Policy, views: Policy | None) -> dict[str, Any]:
    """The six structures under one policy, with views or without any."""
    declared: dict[str, Any] = {
        "facts": Rows(indexes=["user", "time"], policy=policy),
        "embeddings": Vectors(dim=384, metric="cosine", rows="facts", policy=policy),
        "session": Cache(ttl="30m", policy=policy),
        "events": Events(policy=policy),
        "audit": Audit(),
        "context": Context(policy=policy),
    }
    if views is not None:
        declared["profiles"] = View(summarise, source="facts", by="user", policy=views)
        declared["counts"] = View(Count(), source="facts", by="user")
        declared["newest"] = View(Latest(3), source="facts", by="user")
    return declared


def _opened(directory: Path, name: str, schema: dict[str, Any], task: Task) -> Any:
    return waferdb.open(directory / f"{name}.wafer", schema, memtable=task.memtable_bytes)


class Propagation(Workload):
    """A routine commit into everything, beside one into the log."""

    name = "propagation"
    what = (
        "The six writes of a memory in one routine commit, one thread, synced. All: six structures "
        "with `hybrid()`, a view of a Python function by user with `hybrid()`, and `Count` and "
        "`Latest`. Log alone: the same calls where every policy is `lazy()` and there are no "
        f"views. {_BLOCK} commits of one, then of the other, in the same process; what the first "
        "put off is done before the other's turn, and not timed. The probe appends and syncs "
        "groups of the same size."
    )
    denominator = "p50 of the same commits to the log alone, in the same run; the probe's p50"
    kind = MEMORIES
    repeated = True
    plotted = ("p50_us", "p50 µs, all")
    columns = (
        N,
        Column("p50_us", "p50 all, µs", RATE),
        Column("log_p50_us", "p50 log alone, µs", RATE),
        Column("p50_ratio", "ratio"),
        Column("p99_us", "p99 all, µs", RATE),
        Column("log_p99_us", "p99 log alone, µs", RATE),
        Column("commits_per_second", "commits/s", RATE),
        Column("group_bytes", "group, B", RATE),
        Column("computed", "summaries computed", RATE),
    )

    def cases(self, sizes: Sizes) -> list[Case]:
        n = min(sizes.memories, _MEMORIES_MAX)
        return [
            Case("six writes, 1 thread", n, sizes.seconds, {}, probe=True, only=(SUBJECT,)),
        ]

    def run(self, task: Task, leave: Leave) -> Found:
        some = items(task.n, distinct=True)
        task.store.mkdir(parents=True)
        every = _opened(task.store, "all", _schema(hybrid(), hybrid()), task)
        log = _opened(task.store, "log", _schema(lazy(), None), task)
        gc.collect()
        gc.freeze()
        nanos: dict[str, list[Any]] = {"": [], "log_": []}
        spent = 0.0
        for block in chunks(some, _BLOCK):
            for name, db in (("", every), ("log_", log)):
                done = _block(db, block, task.seconds)
                nanos[name].append(done.nanos)
                spent += done.seconds
            every.drain()
            if spent > task.seconds:
                break
        found: Found = {}
        for name, parts in nanos.items():
            own = np.concatenate(parts)
            found.update({f"{name}{key}": v for key, v in pace.percentiles(own).items()})
        committed = len(np.concatenate(nanos[""]))
        for db in (every, log):
            if (there := db["facts"].count()) != committed:
                raise AssertionError(f"{there:,} of {committed:,} memories are there")
        found["computed"] = every.stats().views["profiles"].computed
        log.close()
        every.close()
        files = (task.store / "log.wafer" / "log").iterdir()
        return {
            **found,
            "n_done": committed,
            "p50_ratio": found["p50_us"] / found["log_p50_us"],
            "commits_per_second": committed / (sum(map(np.sum, nanos[""])) / 1e9),
            "group_bytes": sum(file.stat().st_size for file in files) / committed,
        }


def _block(db: Any, block: Sequence[Item], seconds: float) -> pace.Done:
    done = pace.closed(lambda item: remember(db, item), block, seconds)
    if done.operations < len(block):
        raise AssertionError(f"{seconds:g} s are too few for {len(block)} commits")
    return done


class PropagationCritical(Workload):
    """What has been reflected when a critical commit returns."""

    name = "propagation-critical"
    what = (
        "The six writes of a memory, one thread, synced, with six structures and a view of a "
        'Python function under `hybrid(max_age="10s")`: four routine commits, then a critical '
        "one. When it has returned, untimed: how many commits each structure is behind, by "
        "`stats().lag`, and that and the view's group by eventual reads and by the memory's number "
        "in its user's summary."
    )
    denominator = "critical commits; p50 of routine ones beside theirs"
    kind = MEMORIES
    plotted = ("p50_us", "p50 µs, critical")
    columns = (
        N,
        Column("behind_max", "commits behind, most", RATE),
        Column("missing", "not in their summary", RATE),
        Column("p50_us", "p50 critical, µs", RATE),
        Column("p99_us", "p99 critical, µs", RATE),
        Column("routine_p50_us", "p50 routine, µs", RATE),
        Column("routine_behind", "behind before, mean"),
    )

    def cases(self, sizes: Sizes) -> list[Case]:
        n = min(sizes.memories, _CRITICAL_MAX) // _CRITICAL_EVERY
        return [Case("every fifth is critical", n, sizes.seconds, {}, only=(SUBJECT,))]

    def run(self, task: Task, leave: Leave) -> Found:
        some = items(task.n * _CRITICAL_EVERY, distinct=True)
        task.store.mkdir(parents=True)
        bounds = hybrid(max_age="10s")
        db = _opened(task.store, "agent", _schema(bounds, bounds), task)
        routine: list[int] = []
        critical: list[int] = []
        before: list[int] = []
        behind = missing = 0
        for *earlier, last in chunks(some, _CRITICAL_EVERY):
            routine += [_timed(db, item, "routine") for item in earlier]
            before.append(_behind(db))
            critical.append(_timed(db, last, "critical"))
            behind = max(behind, _behind(db), *_read_behind(db, last))
            summary = db["profiles"].get(last.user)
            missing += summary is None or f"{last.number:08}" not in summary["text"]
            if sum(routine) + sum(critical) > task.seconds * 1e9:
                break
        db.close()
        found: Found = dict(pace.percentiles(np.array(critical)))
        found["routine_p50_us"] = pace.percentiles(np.array(routine))["p50_us"]
        return {
            **found,
            "n_done": len(critical),
            "behind_max": behind,
            "missing": missing,
            "routine_behind": float(np.mean(before)),
        }


def _timed(db: Any, item: Item, priority: str) -> int:
    since = time.perf_counter_ns()
    remember(db, item, priority)
    return time.perf_counter_ns() - since


def _behind(db: Any) -> int:
    """Commits that the structure furthest behind does not reflect. Of a view only the groups that a
    commit touches follow it: its lag is the others'."""
    stats = db.stats()
    kept = (lag.commits for name, lag in stats.lag.items() if name not in stats.views)
    return max(kept, default=0)


def _read_behind(db: Any, item: Item) -> Iterator[int]:
    """The same, as reads that take what stands tell it."""
    reads = (("facts", item.key), ("session", item.key), ("profiles", item.user))
    for name, key in reads:
        yield db[name].read(key, consistency="eventual").freshness.behind


class PropagationDrain(Workload):
    """Changes that nobody has read yet, applied at last."""

    name = "propagation-drain"
    what = (
        "Rows with two indexes under `lazy()`, 1,000 changes per commit, routine, one thread, "
        "nothing synced; then `drain` of that structure, timed from the call to its return: "
        "entries made, memtables written, merges done; or the first strong read by an index, which "
        "makes all entries and writes nothing. The memtable holds everything, so that all of it "
        "waits; what fills the run's own is applied and written on the way, so there the puts "
        "count, too. Peak resident memory is the process's, the interpreter included."
    )
    denominator = "changes: one row each, with an entry in both indexes"
    kind = MEMORIES
    durability = "async"
    columns = (
        N,
        Column("per_second", "changes/s", RATE),
        Column("seconds", "s"),
        Column("put_per_second", "put/s", RATE),
        Column("written_bytes", "written before MB", RATE, _MEGA),
        Column("behind", "commits behind before", RATE),
        Column("peak_bytes", "peak RSS MB", RATE, _MEGA),
        Column("queued_bytes", "before the drain MB", RATE, _MEGA),
        Column("baseline_bytes", "of it baseline", RATE, _MEGA),
    )

    def cases(self, sizes: Sizes) -> list[Case]:
        n, only = sizes.queued_changes, (SUBJECT,)
        drain, read = {"by": "drain"}, {"by": "read"}
        return [
            Case("all wait: drain", n, sizes.seconds, drain, only=only, memtable_bytes=_HOLDS_ALL),
            Case("all wait: read", n, sizes.seconds, read, only=only, memtable_bytes=_HOLDS_ALL),
            Case("the run's memtable: put and drain", n, sizes.seconds, {"by": "all"}, only=only),
        ]

    def run(self, task: Task, leave: Leave) -> Found:
        task.store.mkdir(parents=True)
        baseline = resident_bytes()
        rows = Rows(indexes=["user", "number"], policy=lazy())
        db: Any = waferdb.open(
            task.store / "agent.wafer",
            {"facts": rows},
            durability="async",
            memtable=task.memtable_bytes,
            memory=max(task.memtable_bytes * 4, _MEMORY_MIN),
        )
        started = time.perf_counter()
        for start in range(0, task.n, _PER_COMMIT):
            db["facts"].put_many(_changes(start, min(start + _PER_COMMIT, task.n)))
        db.flush()
        put = time.perf_counter() - started
        stats, queued = db.stats(), resident_bytes()
        started = time.perf_counter()
        if task.settings["by"] == "read":
            list(db["facts"].find({"number": 0}))
        else:
            db.drain("facts")
        seconds = time.perf_counter() - started
        if task.settings["by"] == "all":
            seconds += put
        peak = resident_bytes(peak=True)
        if (there := db["facts"].count()) != task.n:
            raise AssertionError(f"{there:,} of {task.n:,} changes are there")
        db.close()
        return {
            "n_done": task.n,
            "per_second": task.n / seconds,
            "seconds": seconds,
            "put_per_second": task.n / put,
            "written_bytes": sum(c for (_, cause), c in stats.by.items() if cause == "flush"),
            "behind": stats.lag["facts"].commits,
            "peak_bytes": peak,
            "queued_bytes": queued,
            "baseline_bytes": baseline,
        }


def _changes(start: int, end: int) -> list[tuple[str, dict[str, Any]]]:
    # Keys in no order, as hashes are: a multiplication by an odd number permutes them.
    return [
        (
            f"{number * 0x9E3779B1 % (1 << 32):08x}",
            {"user": f"user:{number % 1_000:03}", "number": number, "text": _TEXT},
        )
        for number in range(start, end)
    ]
