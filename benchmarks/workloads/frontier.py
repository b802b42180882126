"""What freshness costs: bytes written beside the staleness of views, for each policy.

1. Traces carry their own times and reads and run on the simulated clock, so that figures are the
   same on every machine: nothing here is a measurement of time.
2. Staleness is taken from the answers, not from what the engine says of itself: a summary tells
   its newest fact, and it is as old as the first of its group's later facts.
3. The controller's budget is what a fixed setting wrote in the same run, so that both have spent
   about the same and staleness can be compared, or both keep the same bound and bytes can.
"""

from __future__ import annotations

import gc
import heapq
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import waferdb
from benchmarks.compare import MEMORIES
from benchmarks.sizes import Sizes
from benchmarks.targets import SUBJECT
from benchmarks.task import Task
from waferdb import Rows, View, _simulated
from waferdb.policies import Policy

from .base import RATE, Case, Column, Found, Leave, Workload
from .traces import FACTS, TRACES, TURNS, Ask, Level, Put, Trace

_SAMPLE_SECONDS = 1.0
# Each look is at another moment of its second (by the golden ratio): at the same one, a policy
# whose refreshes keep step with the looks would seem never to be stale, or always.
_SHIFT = 0.618_034
# The clock moves at most this part of a bound at once, so that what is due runs when it is due.
_STEPS = 4
_FINEST_SECONDS = 0.025
# When the trace is over, what is still put off is done: it is owed.
_AFTER_SECONDS = 30.0

EAGER, LAZY, BARE = "eager", "lazy", "no views"
_AGES = (0.1, 0.3, 1.0, 3.0, 10.0)
_TIGHT, _LOOSE = 1.0, 10.0
# A controller that refreshes more often than declared by less than this did nothing.
_ACTED = 1.05


def hybrid_name(seconds: float) -> str:
    """What a fixed hybrid is called."""
    return f"hybrid {seconds:g} s"


@dataclass(frozen=True)
class Setting:
    """A policy of all views, or the controller within a bound."""

    name: str
    policy: Policy
    max_age: float | None = None  # seconds; None where nothing is refreshed by the clock
    budget_of: str | None = None  # the setting whose bytes are the controller's budget

    @property
    def step(self) -> float:
        """Most seconds that the clock moves at once."""
        if self.budget_of is not None:
            return _FINEST_SECONDS
        if self.max_age is None:
            return _SAMPLE_SECONDS
        return self.max_age / _STEPS


def _hybrid(seconds: float) -> Policy:
    # The age alone decides: the other two bounds are out of reach.
    return waferdb.hybrid(max_age=seconds, max_items=1_000_000, max_bytes="1GiB")


FIXED = (
    Setting(EAGER, waferdb.eager()),
    *(Setting(hybrid_name(age), _hybrid(age), age) for age in _AGES),
    Setting(LAZY, waferdb.lazy()),
)
CONTROLLER = f"controller, {_TIGHT:g} s"
CONTROLLER_LOOSE = f"controller, {_LOOSE:g} s"
CONTROLLED = (
    Setting(CONTROLLER, _hybrid(_TIGHT), _TIGHT, hybrid_name(_TIGHT)),
    Setting(CONTROLLER_LOOSE, _hybrid(_LOOSE), _LOOSE, hybrid_name(_TIGHT)),
)


class Frontier(Workload):
    """Each trace under each setting."""

    name = "frontier"
    what = (
        "Views that summarise facts, on a simulated clock. Stored results are read as they stand; "
        "under `lazy`, where nothing else refreshes them, reads are strong. Staleness of a summary "
        "is the age of the oldest fact that it does not reflect; of a view, that of its stalest "
        "summary, looked at once in every second; of a read, that of its answer. Result "
        "bytes are those of the views by `stats().by`, their log included; what is written for "
        f"views is all beyond `{BARE}`, the same changes alone: framing and padding, too. "
        "`controller, N s`: "
        f"`hybrid` with a `max_age` of N s, and as `waf_budget` what {hybrid_name(_TIGHT)} wrote."
    )
    denominator = "keys and documents that were handed in, encoded; written: all by the engine"
    kind = MEMORIES
    plotted = ("derived_per_logical", "result bytes / logical")
    beside = EAGER
    curve = ("stale_mean_s", "mean staleness, s", "derived_per_logical", "result bytes / logical")
    columns = (
        Column("changes", "changes", RATE),
        Column("written_per_logical", "written/logical"),
        Column("added_per_logical", "of it for views"),
        Column("derived_per_logical", "results/logical", "{:,.3f}"),
        Column("stale_mean_s", "stale, mean s", "{:,.3f}"),
        Column("stale_p99_s", "stale, p99 s", "{:,.3f}"),
        Column("read_stale_mean_s", "read, mean s", "{:,.3f}"),
        Column("read_stale_p99_s", "read, p99 s", "{:,.3f}"),
        Column("calls", "calls", RATE),
        Column("reads", "reads", RATE),
        Column("answered", "answered", RATE),
    )

    def cases(self, sizes: Sizes) -> list[Case]:
        # A turn of a chat is two changes in three views, and the last trace is mostly reads.
        parts = {"chat": 4, "burst": 4, "read heavy": 10}
        return [
            Case(
                name,
                sizes.trace_changes // parts.get(name, 1),
                sizes.seconds,
                {"trace": name},
                only=(SUBJECT,),
            )
            for name in TRACES
        ]

    def run(self, task: Task, leave: Leave) -> Found:
        trace = TRACES[task.settings["trace"]](task.n)
        lines: dict[str, Found] = {}
        found: Found = {"n_done": len(trace.puts), "lines": lines, "notes": [trace.what]}
        for setting in (None, *FIXED, *CONTROLLED):
            name = BARE if setting is None else setting.name
            budget = None
            if setting is not None and setting.budget_of is not None:
                budget = lines[setting.budget_of]["waf"]
            line = lines[name] = Player(trace, setting, budget).play()
            added = line["written_bytes"] - lines[BARE]["written_bytes"]
            line.update(added_bytes=added, added_per_logical=added / line["logical_bytes"])
            leave(found)
            gc.collect()
        found.update(judged(lines, found["notes"]))
        return found


def judged(lines: dict[str, Found], notes: list[str]) -> Found:
    """The ratios, each told with its denominator, and whether there was a controller at all."""
    found: Found = {}
    for figure, what, of, to in compared(lines):
        ours, theirs = lines[of][what], lines[to][what]
        found[figure] = ours / max(theirs, 1)
        named = "result bytes" if what == "derived_bytes" else "bytes written"
        notes.append(f"{named}: {of} {ours:,} / {to} {theirs:,} = {found[figure]:.4f}")
    ours, theirs = (lines[name]["stale_mean_s"] for name in (CONTROLLER_LOOSE, hybrid_name(_TIGHT)))
    notes.append(
        f"mean staleness: {CONTROLLER_LOOSE} {ours:.3f} s, {hybrid_name(_TIGHT)} {theirs:.3f} s"
    )
    decided = {setting.name: lines[setting.name]["decided"] for setting in CONTROLLED}
    notes += [f"{name}: {said or 'no controller'}" for name, said in decided.items()]
    found["controlled"] = all(decided.values())
    # Where it never refreshed sooner than declared, it is the fixed setting under another name.
    calls, declared = (lines[name]["calls"] for name in (CONTROLLER_LOOSE, hybrid_name(_LOOSE)))
    found["controller_acted"] = calls > declared * _ACTED
    return found


def compared(lines: dict[str, Found]) -> Iterator[tuple[str, str, str, str]]:
    """The figures that are judged: name, what of, and the settings that are compared."""
    yield "hybrid_per_eager", "derived_bytes", hybrid_name(1.0), EAGER
    yield "lazy_per_eager", "derived_bytes", LAZY, EAGER
    within = [s.name for s in FIXED if s.name == EAGER or (s.max_age or _LOOSE) <= _TIGHT]
    yield "controller_per_best", "written_bytes", CONTROLLER, fewest(lines, within)
    stale = lines[CONTROLLER_LOOSE]["stale_mean_s"]
    as_fresh = [s.name for s in FIXED if lines[s.name]["stale_mean_s"] <= stale]
    best = fewest(lines, as_fresh)
    yield "controller_per_as_fresh", "written_bytes", CONTROLLER_LOOSE, best


def fewest(lines: dict[str, Found], names: list[str]) -> str:
    """The one of these settings that wrote least."""
    return min(names, key=lambda name: int(lines[name]["written_bytes"]))


@dataclass
class Watch:
    """What each view does not reflect yet, by its answers."""

    levels: tuple[Level, ...]
    # (number, time) of the facts of each group, oldest first, that were not in its summary when it
    # was last looked at.
    waiting: dict[str, dict[Any, deque[tuple[int, float]]]] = field(init=False)

    def __post_init__(self) -> None:
        self.waiting = {level.name: {} for level in self.levels}

    def changed(self, put: Put) -> None:
        """A fact was written."""
        for level in self.levels:
            groups = self.waiting[level.name]
            group = groups.setdefault(level.key(put.document), deque())
            group.append((put.document["number"], put.at))

    def answered(self, level: str, key: Any, summary: dict[str, Any] | None, now: float) -> float:
        """How stale this summary of that group is, in seconds."""
        groups = self.waiting[level]
        facts = groups.get(key)
        if facts is None:
            return 0.0
        newest = -1 if summary is None else summary["number"]
        while facts and facts[0][0] <= newest:
            facts.popleft()
        if not facts:
            del groups[key]
            return 0.0
        return now - facts[0][1]

    def looked(self, level: str, get: Callable[[Any], Any], now: float) -> float:
        """How stale the stalest summary of a view is."""
        keys = list(self.waiting[level])
        return max((self.answered(level, key, get(key), now) for key in keys), default=0.0)


class Player:
    """One trace under one setting."""

    def __init__(self, trace: Trace, setting: Setting | None, budget: float | None) -> None:
        self._trace, self._setting = trace, setting
        self._watch = Watch(trace.levels if setting else ())
        self._calls = 0
        self._now = 0.0
        options: dict[str, Any] = {} if budget is None else {"waf_budget": budget}
        schema: dict[str, Any] = {FACTS: Rows(), TURNS: Rows()}
        if setting is not None:
            for level in trace.levels:
                schema[level.name] = self._view(level, setting.policy)
        self._db: Any = _simulated.open(schema, ":memory:", **options)
        strong = setting is not None and setting.name == LAZY
        self._consistency = "strong" if strong else "eventual"
        self._stale: list[float] = []
        self._read_stale: list[float] = []
        self._reads = self._answered = 0

    def _view(self, level: Level, policy: Policy) -> View:
        def counted(group: Any) -> dict[str, Any]:
            self._calls += 1
            return level.summarise(group)

        return View(counted, source=level.source, by=level.declared_by, policy=policy)

    def play(self) -> Found:
        """Everything in its time, and what it came to."""
        looks = ((n + n * _SHIFT % 1) * _SAMPLE_SECONDS for n in range(int(self._trace.seconds)))
        moments = ((moment.at, 1, moment) for moment in self._trace.moments)
        looks_too = ((at, 0, None) for at in looks)
        for at, _, moment in heapq.merge(looks_too, moments, key=lambda due: due[:2]):
            self._until(at)
            if moment is None:
                self._look()
            elif isinstance(moment, Put):
                self._db[moment.structure].put(moment.key, moment.document)
                if moment.structure == FACTS:
                    self._watch.changed(moment)
            else:
                self._read(moment)
        self._until(self._now + _AFTER_SECONDS)
        self._db.flush()
        self._db.drain()
        found = self._found()
        self._db.close()
        return found

    def _until(self, at: float) -> None:
        step = _SAMPLE_SECONDS if self._setting is None else self._setting.step
        while (left := at - self._now) > 1e-9:
            # In small steps only while a view has something to do.
            some = min(left, step) if any(self._watch.waiting.values()) else left
            _simulated.advance(self._db, some)
            self._now += some

    def _look(self) -> None:
        for level in self._watch.levels:
            view = self._db[level.name]
            self._stale.append(self._watch.looked(level.name, view.get, self._now))

    def _read(self, ask: Ask) -> None:
        if self._setting is None:
            return
        level = self._trace.levels[-1].name
        summary = self._db[level].get(ask.key, consistency=self._consistency)
        self._reads += 1
        self._answered += summary is not None
        self._read_stale.append(self._watch.answered(level, ask.key, summary, self._now))

    def _found(self) -> Found:
        stats = self._db.stats()
        names = {level.name for level in self._watch.levels}
        derived = sum(count for (name, _), count in stats.by.items() if name in names)
        logical = self._trace.logical_bytes
        found: Found = {
            "changes": len(self._trace.puts),
            "logical_bytes": logical,
            "written_bytes": stats.physical_bytes,
            "derived_bytes": derived,
            "written_per_logical": stats.physical_bytes / logical,
            "derived_per_logical": derived / logical,
            "waf": stats.waf,
            "calls": self._calls,
            "reads": self._reads,
            "answered": self._answered,
        }
        for name, values in (("stale", self._stale), ("read_stale", self._read_stale)):
            if values:
                found[f"{name}_mean_s"] = float(np.mean(values))
                found[f"{name}_p99_s"] = float(np.percentile(values, 99))
        if self._setting is not None:
            controlled = self._setting.budget_of is not None
            found["joined"] = not controlled and self._setting.name != LAZY
            if controlled:
                found["decided"] = str(stats.controller or "")
        return found
