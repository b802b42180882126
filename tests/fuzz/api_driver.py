"""Random steps over the public API, each compared with the model; bad input among them.

1. A step is a function of (seed, its number) and of the state alone, so that a failing sequence
   can be played again, also with steps left out: `shortened` does.
2. The clock is the test's own; nothing here sleeps or depends on threads.
3. An error is right only where the model says so; one of no public type never is.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from api_bad import BAD
from api_model import ABSENT
from api_reads import Reading
from api_writes import Tx
from api_zoo import KEYS, NODES, USERS, MismatchError, Zoo, same

import waferdb
from waferdb import ClosedError, ReadOnlyError, TransactionError, WaferError, _simulated, lazy


class Fuzz(Reading):
    """`step(number)` does one thing and compares."""

    def step(self, number: int) -> str:
        self.random = random.Random(f"{self.seed}:{number}")
        name = self.random.choices(NAMES, WEIGHTS)[0]
        rule: Callable[[], None] = getattr(self, name)
        try:
            rule()
        except (AssertionError, WaferError, ArithmeticError, LookupError, TypeError, ValueError,
                AttributeError, OSError, RuntimeError) as error:  # fmt: skip
            error.add_note(f"in step {number}, {name}")
            raise
        self.counts[name] += 1
        return name

    # ---- memories

    def remember(self) -> None:
        if self.open_:
            return
        key, before = self.one(KEYS[:6]), self.db.lsn
        text = f"{self.one(USERS)} said {self.random.randint(0, 99)}"
        done = self.db.remember(text, user=self.one(USERS), topic="t", key=key)
        same((done.key, self.db.lsn), (key, before + 1), "remember")
        self.model.of["facts"].put(done.receipt.lsn, key, text)

    def recall(self) -> None:
        live = self.model.of["facts"].live()
        found = self.db.recall("what did ann say?", k=4)
        told = {one.key: one.text for one in found}
        same(told, {key: live.get(key) for key in told}, "recall")
        same(len(told), min(4, len(live)), f"number of memories of {live}")
        key, lsn = self.one(KEYS[:6]), self.lsn()
        past = self.model.of["facts"].get(key, lsn)
        row = self.db.facts.get(key, as_of=lsn)
        same(row and row["text"], None if past is ABSENT else past, f"fact {key!r} as of {lsn}")

    def forget(self) -> None:
        if self.open_:
            return
        key = self.one(KEYS[:6])
        self.db.forget(key)
        self.model.of["facts"].forget(key, self.db.lsn)
        for lsn in (self.lsn(), self.lsn(), self.db.lsn):
            same(self.db.facts.get(key, as_of=lsn), None, f"forgotten {key!r} as of {lsn}")
            same(self.db.embeddings.get(key, as_of=lsn), None, f"its vector as of {lsn}")
        same(key in {one.key for one in self.db.recall("said", k=10)}, False, "a forgotten memory")

    # ---- the whole database

    def advance(self) -> None:
        seconds = self.one([0.1, 0.7, 1.3, 4.0])
        _simulated.advance(self.db, seconds)
        self.clock = int(self.now() * 1e6)

    def snapshot(self) -> None:
        lsn = self.lsn()
        with self.db.snapshot(as_of=lsn) as past:
            same(past.lsn, lsn, "lsn of a snapshot")
            live = self.model.of["things"].live(lsn)
            same(dict(past.things.scan()), live, f"things of a snapshot at {lsn}")
            self.refused(ReadOnlyError, lambda: past.things.put("a", {"n": 1}), "a snapshot's put")

    def sibling(self) -> None:
        with self.db.connect() as other:
            key = self.one(KEYS)
            expected = self.model.of["things"].get(key)
            same(other.things.get(key, ABSENT), expected, f"a sibling's {key!r}")
            self.db.wait(self.db.lsn, "things", "log", timeout=5)
        self.refused(ClosedError, lambda: other.things.get("a"), "a closed sibling")

    def upkeep(self) -> None:
        draw = self.random.random()
        if draw < 0.3:
            self.db.flush()
        elif draw < 0.5:
            self.db.drain()
        elif draw < 0.6:
            self.db.rebuild(
                self.one(["things", "blobs", "vectors", "log", "notes", "graph", "facts"])
            )
        elif draw < 0.7:
            policy = self.one([waferdb.eager(), lazy(), waferdb.hybrid("1s")])
            self.db.set_policy(self.one(["things", "vectors", "loose"]), policy)
        elif draw < 0.85:
            report = self.db.verify(deep=self.chance(0.3))
            same((report.ok, list(report.problems)), (True, []), "verify")
        else:
            stats = self.db.stats()
            same(stats.commits >= 0 and stats.physical_bytes >= 0, True, "stats")

    def reopen(self) -> None:
        if self.directory is None:
            return
        self.clock = int(self.now() * 1e6)
        lsn, old = self.db.lsn, self.db
        self.close()
        old.close()
        for call in (
            lambda: old.things.get("a"), lambda: old.things.put("a", {}), lambda: old.lsn,
            lambda: old.verify(), lambda: list(old.log.scan()),
            lambda: old.transaction().__enter__(),
            lambda: old.vectors.search([1, 2, 3]), lambda: old.audit.head(),
        ):  # fmt: skip
            self.refused_quietly(ClosedError, call, "a closed handle")
        self.open()
        same(self.db.lsn, lsn, "lsn after reopening")
        self.whole(self.db)

    def back_up(self) -> None:
        if self.directory is None:
            return
        self.backups += 1
        copy = self.directory / f"copy-{self.backups}.wafer"
        self.db.backup(copy)
        other = _simulated.open(Zoo, copy, mode="r", clock=self.clock)
        same(other.lsn, self.db.lsn, "lsn of a backup")
        self.whole(other)
        self.refused(ReadOnlyError, lambda: other.things.put("a", {"n": 1}), "a reader's put")
        other.close()
        shutil.rmtree(copy)

    def whole(self, db: Any) -> None:
        """Everything that is there."""
        of = {name: versions.live() for name, versions in self.model.of.items()}
        same(dict(db.things.scan()), of["things"], "things")
        same(dict(db.blobs.scan()), of["blobs"], "blobs")
        for name in ("vectors", "loose"):
            keys = {key: tuple(map(float, getattr(db, name).get(key))) for key in getattr(db, name)}
            same(keys, of[name], name)
        notes = {
            (at, name): one for at in db.notes.scopes() for name, one in db.notes.load(at).items()
        }
        same(notes, of["notes"], "notes")
        edges = {(one.src, one.relation, one.dst) for node in NODES for one in db.graph.edges(node)}
        same(edges, set(of["graph"]), "graph")
        same({key: row["text"] for key, row in db.facts.scan()}, of["facts"], "facts")
        own = [one for one in db.log.scan() if not one.kind.startswith("things.")]
        expected = [one for one in self.model.log if not one.kind.startswith("things.")]
        same([(one.lsn, one.kind) for one in own], [(one.lsn, one.kind) for one in expected], "log")

    # ---- bad input

    def bad_input(self) -> None:
        before = self.db.lsn
        tx = self.target()
        handle = self.handle(tx)
        what, call, error = self.one(BAD)
        try:
            found = call(handle)
            if isinstance(found, Iterator):
                found = list(found)
        except error:
            same(self.db.lsn, before, f"lsn after {what}")
            return
        raise MismatchError(f"{what} was accepted: {found!r}")

    def misuse(self) -> None:
        """Calls that are right elsewhere."""
        if self.open_:
            tx = self.one(self.open_).handle
            for call in (
                lambda: tx.transaction().__enter__(), lambda: tx.close(), lambda: tx.backup("x"),
            ):  # fmt: skip
                self.refused_quietly(TransactionError, call, "in a transaction")
        else:
            ended = Tx(self.db, {})
            ended.manager.__exit__(None, None, None)
            call = lambda: ended.handle.things.put("a", {"n": 1})  # noqa: E731
            self.refused(WaferError, call, "a transaction that ended")


RULES: dict[str, int] = {
    "put_thing": 12, "put_things": 4, "patch_thing": 4, "delete_thing": 5, "change_blob": 4,
    "change_vector": 7, "change_loose": 4, "append_event": 3, "change_cache": 3, "change_note": 4,
    "change_edge": 5, "begin": 7, "end": 8, "read_for_update": 2, "batch": 1, "retried": 1,
    "get_things": 5, "read_versions": 2, "scan_things": 4, "find_things": 6, "get_blobs": 2,
    "search": 5, "scan_events": 2, "get_cache": 3, "get_notes": 2, "get_graph": 3, "get_views": 3,
    "audit_trail": 2, "read_changes": 1, "remember": 2, "recall": 1, "forget": 1, "advance": 3,
    "snapshot": 1, "sibling": 1, "upkeep": 1, "reopen": 1, "back_up": 1, "bad_input": 8,
    "misuse": 1,
}  # fmt: skip
NAMES, WEIGHTS = list(RULES), list(RULES.values())


def play(seed: int, steps: Sequence[int], directory: Path | None) -> Counter[str]:
    """Plays these steps on a new database; how often each rule ran."""
    fuzz = Fuzz(seed, directory)
    try:
        for number in steps:
            fuzz.step(number)
        fuzz.whole(fuzz.db)
        report = fuzz.db.verify(deep=True)
        same((report.ok, list(report.problems)), (True, []), "verify at the end")
    finally:
        fuzz.close()
    return fuzz.counts


def shortened(fails: Callable[[list[int]], bool], steps: list[int]) -> list[int]:
    """Steps that still fail, after taking away what can be taken away, in halves and less."""
    size = len(steps) // 2
    while size:
        at = 0
        while at < len(steps):
            fewer = steps[:at] + steps[at + size :]
            if fails(fewer):
                steps = fewer
            else:
                at += size
        size //= 2
    return steps
