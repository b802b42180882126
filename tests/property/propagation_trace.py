"""A random history of one database, applied to it and to the model, and judged at each step.

Everything is drawn from one `random.Random`, so a seed (or hypothesis) is a whole history; each
step is noted as the Python that does it, and a failure shows them all. The clock is by hand and
background work happens in `advance` only, unless `steady` is off: then threads do it when they do.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from propagation_checks import CLOCK_TOLERANCE, DIM, GROUPS, KEYS, USERS, Judge, Wish
from propagation_draw import Draw
from propagation_model import OVER_ROWS, STRUCTURES, VIEWS, Change, Document, Model

from waferdb import (
    Cache,
    Context,
    Count,
    Database,
    Events,
    Graph,
    Latest,
    Rows,
    Sum,
    Top,
    Vectors,
    View,
    _simulated,
    bounded,
    eager,
    hybrid,
    lazy,
)
from waferdb.policies import Hybrid

PRIORITIES = ("critical", "routine", "routine", "background")
ADVANCES = (0.05, 0.3, 2.0, 20.0)
IDLE = 0.5  # longer than what counts as idle

STEPS = {
    "commit": 12,
    "advance": 3,
    "ask": 6,
    "ask_for_all": 1,
    "refresh": 1,
    "drain": 1,
    "set_policy": 2,
    "transaction_reads": 1,
    "past": 1,
    "rebuild": 1,
    "reopen": 1,
    "kill": 1,
}


class Trace:
    """One database and its model. `folder`: where it lies; None: in memory, never reopened."""

    def __init__(self, rng: Random, folder: Path | None = None, *, steady: bool = True) -> None:
        self.rng = rng
        self.folder = folder
        self.steady = steady
        self.path = ":memory:" if folder is None else str(folder / "0")
        self.lives = 0
        self.log: list[str] = []
        self.own: dict[str, int] = {}
        self.given: list[tuple[str, Any, list[Any], Any]] = []
        self.model = Model()
        self.draw = Draw(rng, self.model)
        self.policies = {name: self.draw.policy() for name in (*STRUCTURES, *VIEWS)}
        self.note(", ".join(f"{name}={policy}" for name, policy in self.policies.items()))
        self.judge = Judge(self.model, self.policies, steady=steady)
        self.cls = type("Traced", (Database,), self.schema())
        self.open()

    def schema(self) -> dict[str, Any]:
        p = self.policies
        built_in = {"counts": Count(), "sums": Sum("amount"), "newest": Latest(2)}
        return {
            "facts": Rows(
                indexes=["user", ("user", "n")],
                supersede=("subject", "attribute"),
                policy=p["facts"],
            ),
            "vectors": Vectors(dim=DIM, metric="l2", rows="facts", policy=p["vectors"]),
            "hot": Cache(ttl="1d", source="facts", policy=p["hot"]),
            "session": Cache(ttl="1d", policy=p["session"]),
            "events": Events(policy=p["events"]),
            "journal": Events(capture=["facts"], policy=p["journal"]),
            "context": Context(policy=p["context"]),
            "graph": Graph(policy=p["graph"]),
            **{
                name: View(self.function(name), source=view.source, by=view.by, policy=p[name])
                for name, view in VIEWS.items()
            },
            **{name: View(kind, source="facts", by="user") for name, kind in built_in.items()},
            "best": View(Top(2, by="n"), source="facts", by="user"),
        }

    def function(self, name: str) -> Callable[[Any], Document]:
        """What the database calls; it notes what it was given."""

        def compute(group: Any) -> Document:
            rows = [(row.key, row.version, row.value) for row in group.rows]
            times = [(row.version, row.time) for row in group.rows]
            self.judge.calls[name] += 1
            self.given.append((name, group.key, times, group.previous))
            return VIEWS[name].function(group.key, rows)

        return compute

    # Life and death.

    def open(self) -> None:
        if self.steady:
            self.db = _simulated.open(self.cls, path=self.path)
        else:
            self.db = self.cls(self.path)
        self.sibling = self.db.connect()
        self.judge.db = self.db
        self.judge.committed_at.clear()
        self.opened = self.judge.clock
        self.own = {"db": 0, "sibling": 0}
        for name in STRUCTURES:
            self.judge.promise(name, self.model.lsn, "opening")

    def reopen(self) -> None:
        if self.folder is not None:
            self.note("db.close(); open again")
            self.db.close()
            self.open()

    def kill(self) -> None:
        """Goes on with a copy taken while the database was open, as a crash would leave it."""
        if self.folder is None or not self.steady:
            return
        self.note("db.flush(); copy the directory; open the copy")
        self.db.flush()
        self.lives += 1
        copy = self.folder / str(self.lives)
        shutil.copytree(self.path, copy)
        self.db.close()
        self.path = str(copy)
        self.open()

    def note(self, line: str) -> None:
        self.log.append(line)

    # The history.

    def run(self, steps: int) -> Counter[str]:
        """Does `steps` steps and judges after each; returns what was seen."""
        try:
            self.judge.look()
            for _ in range(steps):
                self.step()
            self.finish()
        except BaseException as failure:
            failure.add_note("\n".join(["The history:", *self.log]))
            raise
        finally:
            self.db.close()
        return self.judge.coverage

    def step(self) -> None:
        (name,) = self.rng.choices(list(STEPS), weights=list(STEPS.values()))
        getattr(self, name)()
        self.judge.look()
        self.inspect_calls()

    def finish(self) -> None:
        """At the end everything is brought up to date, in place and from the files."""
        self.note("read everything, strong")
        self.judge.everything(self.judge.strong())
        self.inspect_calls()
        if self.steady:
            self.catch_up()
        if self.folder is not None:
            self.reopen()
            self.judge.look()
            self.judge.everything(self.judge.strong())
        report = self.db.verify(deep=True)
        assert report.ok, report.problems

    def catch_up(self) -> None:
        """A background that may do everything leaves nothing behind, over three levels of views."""
        self.note("every policy hybrid(max_age='1s'); one more commit; advance 3 times 5 s")
        for name in self.policies:
            self.policies[name] = hybrid(max_age="1s")
            self.db.set_policy(name, self.policies[name])
        self.commit()
        for _ in range(3):
            _simulated.advance(self.db, 5.0)
            self.judge.clock += 5.0
        self.judge.look()
        for name in STRUCTURES:
            assert self.db.stats().lag[name].commits == 0, name
        for view in VIEWS:
            assert self.db[view].stale() == [], view
        self.inspect_calls()

    def inspect_calls(self) -> None:
        """What functions were given since the step before: inputs in order, and no past that is
        gone."""
        given, self.given = self.given, []
        for name, group, times, previous in given:
            versions = [version for version, _ in times]
            assert times, f"{name}[{group!r}] was computed of nothing"
            assert versions == sorted(versions), f"{name}[{group!r}] got {versions}"
            if name in OVER_ROWS:
                expected = [self.model.times[version] for version in versions]
                assert [moment for _, moment in times] == expected
            if self.steady:
                self.judge.nothing_gone(previous, f"previous of {name}[{group!r}]")

    def commit(self) -> None:
        name = self.rng.choice(("db", "db", "sibling"))
        handle = self.db if name == "db" else self.sibling
        operations = self.draw.operations()
        if not operations:
            return
        calls = [call for operation in operations for call in operation.calls()]
        before = self.judge.calls.copy()
        if len(calls) == 1 and self.rng.random() < 0.4:
            priority = "routine"
            structure, method, args, kwargs = calls[0]
            self.note(f"{name}.{shown(calls[0])}")
            receipt = getattr(handle[structure], method)(*args, **kwargs)
        else:
            priority = self.rng.choice(PRIORITIES)
            body = "; ".join(f"tx.{shown(call)}" for call in calls)
            self.note(f"with {name}.transaction(priority={priority!r}) as tx: {body}")
            with handle.transaction(priority=priority) as tx:
                for structure, method, args, kwargs in calls:
                    getattr(tx[structure], method)(*args, **kwargs)
            receipt = tx.receipt
        change = self.model.commit(receipt.lsn, receipt.time, priority, operations)
        self.note(f"    # LSN {receipt.lsn}; removed {change.removed}, older {change.superseded}")
        self.own[name] = receipt.lsn
        self.committed(change, critical=priority == "critical")
        self.idle_views(before)
        assert receipt.lagging == ()

    def committed(self, change: Change, *, critical: bool) -> None:
        """What the policies promise of a commit that has returned."""
        judge, lsn = self.judge, change.lsn
        judge.committed_at[lsn] = judge.clock
        for name in change.touched:
            at_once = critical or (name == "facts" and change.superseded)
            if self.policies[name] == eager() or (at_once and self.is_hybrid(name)):
                judge.promise(name, lsn, f"a commit under {self.policies[name]}")
        for place in change.groups:
            remade = self.model.remade.get(place) == lsn
            at_once = critical or (place in change.bereft and not remade)
            if self.policies[place[0]] == eager() or (at_once and self.is_hybrid(place[0])):
                judge.promise(place, lsn, f"a commit under {self.policies[place[0]]}")
        taken = {*change.removed, *change.superseded}
        for place, result in judge.results.items():
            held = any(key in taken for _, key, _ in result["seen"])
            # A forgotten row takes along every result of its groups, old ones for its own sake.
            if place in change.bereft or held or change.forgot:
                judge.dropped[place] = lsn
        for name in ("removed", "superseded"):
            judge.coverage[name] += len(getattr(change, name))

    def is_hybrid(self, name: str) -> bool:
        return isinstance(self.policies[name], Hybrid)

    def idle_views(self, before: Counter[str]) -> None:
        """The background and commits compute nothing for views that are lazy, or feed only such."""
        for name in ("by_user", "of_parity"):
            if self.policies[name] == lazy():
                assert self.judge.calls[name] == before[name], f"{name} is lazy and was computed"

    def advance(self) -> None:
        if not self.steady:
            self.note("time.sleep(0.02)")
            time.sleep(0.02)
            return
        seconds = self.rng.choice(ADVANCES)
        before = self.judge.calls.copy()
        self.note(f"_simulated.advance(db, {seconds})")
        _simulated.advance(self.db, seconds)
        self.judge.clock += seconds
        self.idle_views(before)
        for name in STRUCTURES:
            if self.is_hybrid(name):
                for lsn, why in self.due(name, self.model.touched[name], seconds):
                    self.judge.promise(name, lsn, why)
        for (view, group), changes in self.model.changed.items():
            if self.is_hybrid(view) and group in self.model.answers(view):
                for lsn, why in self.due(view, changes, seconds):
                    self.judge.promise((view, group), lsn, why)

    def due(self, name: str, commits: list[int], idle: float) -> list[tuple[int, str]]:
        """What a hybrid structure reflects once the background has run."""
        policy, judge = self.policies[name], self.judge
        # What was found when opening counts from then, for time stood still meanwhile.
        latest = judge.clock - policy.max_age / 1e6 - CLOCK_TOLERANCE
        hurried = [lsn for lsn in commits if self.model.priorities[lsn] != "background"]
        old = [lsn for lsn in hurried if judge.committed_at.get(lsn, self.opened) < latest]
        found = [(lsn, f"max_age of {policy}") for lsn in old[-1:]]
        if name in STRUCTURES:
            if idle >= IDLE:
                found += [(lsn, "being idle") for lsn in commits[-1:]]
            # Each commit is at least one operation.
            found += [(lsn, f"max_items of {policy}") for lsn in hurried[: -policy.max_items][-1:]]
        return found

    # Reading.

    def wish(self) -> Wish:
        kind = self.rng.choice(("strong", "strong", "session", "int", "bounded", "bounded"))
        match kind:
            case "strong":
                return self.judge.strong()
            case "session":
                return Wish("session", self.own["db"])
            case "int":
                lsn = self.rng.choice(list(self.model.history))
                return Wish(lsn, lsn)
        age = self.rng.choice((None, 0.0, 0.2, 5.0)) if self.steady else None
        commits = self.rng.choice((0, 1, 3)) if age is None else self.rng.choice((None, 2))
        return Wish(bounded(age, max_commits=commits), 0, age, commits)

    def ask(self) -> None:
        wish = self.wish()
        if self.rng.random() < 0.5:
            name = self.rng.choice(STRUCTURES)
            self.note(f"read db.{name}, consistency={wish.consistency!r}")
            self.judge.structure(name, wish)
        else:
            view = self.rng.choice(list(GROUPS))
            group = self.rng.choice(GROUPS[view])
            self.note(f"db.{view}.read({group!r}, consistency={wish.consistency!r})")
            self.judge.view(view, group, wish)

    def ask_for_all(self) -> None:
        self.note("read everything, strong")
        self.judge.everything(self.judge.strong())

    def refresh(self) -> None:
        view = self.rng.choice(list(GROUPS))
        bound, stale = self.db[view], self.db[view].stale()
        if stale and self.rng.random() < 0.3:
            group = self.rng.choice(sorted(stale))
            self.note(f"db.{view}.refresh({group!r})")
            computed = bound.refresh(group)
            assert computed == 1 or view not in OVER_ROWS
            assert not bound.read(group).freshness.stale
            return
        self.note(f"db.{view}.refresh()")
        computed = bound.refresh()
        assert bound.stale() == []
        if view in OVER_ROWS:
            assert not self.steady or computed == len(stale)
            for group in self.model.answers(view):
                self.judge.promise((view, group), self.model.lsn, "refresh()")

    def drain(self) -> None:
        name = self.rng.choice(STRUCTURES)
        if self.rng.random() < 0.5:
            lsn = self.model.lsn
            self.note(f"db.drain({name!r})")
            self.db.drain(name)
        else:
            lsn = self.rng.choice(list(self.model.history))
            self.note(f"db.wait({lsn}, {name!r}, timeout='10s')")
            self.db.wait(lsn, name, timeout="10s")
        self.judge.promise(name, lsn, "drain() or wait()")

    def rebuild(self) -> None:
        name = self.rng.choice((*STRUCTURES, *VIEWS))
        self.note(f"db.rebuild({name!r})")
        self.db.rebuild(name)

    def set_policy(self) -> None:
        name = self.rng.choice(list(self.policies))
        policy = self.policies[name] = self.draw.policy()
        self.note(f"db.set_policy({name!r}, {policy})")
        self.db.set_policy(name, policy)

    def transaction_reads(self) -> None:
        """A transaction reads the newest of structures, and of views what is stored."""
        self.note("read in a transaction")
        stored = {v: {g: self.db[v].read(g) for g in groups} for v, groups in GROUPS.items()}
        with self.db.transaction() as tx:
            newest = self.model.newest
            assert dict(tx.facts.scan()) == {
                key: version.document for key, version in newest.facts.items()
            }
            assert sorted(tx.session.keys()) == sorted(newest.session)
            assert len(list(tx.events.scan())) == len(newest.events)
            assert sorted(tx.vectors.keys()) == sorted(newest.vectors)
            for view, reads in stored.items():
                for group, read in reads.items():
                    if self.steady:
                        assert tx[view].get(group) == read.value, f"{view}[{group!r}]"

    def past(self) -> None:
        """Any moment since the beginning, under any policy: as it was, less what was forgotten."""
        lsn = self.rng.choice(list(self.model.history))
        self.note(f"read everything as of {lsn}")
        state, db = self.model.at(lsn), self.db
        rows = {key: version.document for key, version in state.facts.items()}
        assert dict(db.facts.scan(as_of=lsn)) == rows
        assert [e.payload for e in db.events.scan(as_of=lsn)] == [e.payload for e in state.events]
        for scope in USERS:
            expected = {name: v for (s, name), v in state.context.items() if s == scope}
            assert db.context.load(scope, as_of=lsn) == expected
        for node in KEYS:
            found = {(e.src, e.relation, e.dst) for e in db.graph.edges(node, as_of=lsn)}
            assert found == {edge for edge in state.graph if node in (edge[0], edge[2])}
        assert sorted(db.vectors.keys(as_of=lsn)) == sorted(state.vectors)
        with db.snapshot(as_of=lsn) as past:
            for view, groups in GROUPS.items():
                for group in groups:
                    self.judge.nothing_forgotten(past[view].get(group), f"{view} as of {lsn}")


def shown(call: tuple[str, str, tuple[Any, ...], dict[str, Any]]) -> str:
    """A call as Python."""
    structure, method, args, kwargs = call
    given = [*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())]
    return f"{structure}.{method}({', '.join(given)})"
