"""One life of a writing process, until something ends it; runs in a child.

It says `ready` once open, `+ WRITER N` for a commit `N` that is acknowledged and durable, `~ WRITER
N` for one of `durability="async"` that no flush followed yet, and `! WHERE KIND CODE TEXT` for each
error, `-` standing for no code. So what is behind the last whole line is what nobody was told.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kernel_check import Bounds
from kernel_children import Talk
from kernel_store import Model, Options, commit, model_at

import waferdb

WRITERS = ("w0", "w1", "w2", "w3")
_FLUSH_EVERY = 7


@dataclass(frozen=True)
class Life:
    """What a writing process does: which of the chores run beside its writers."""

    options: Options
    chores: tuple[str, ...] = ()
    writers: tuple[str, ...] = WRITERS

    @classmethod
    def drawn(cls, chance: random.Random) -> Life:
        """A life by chance: budgets, durability, writers and chores."""
        memtable = chance.choice((None, "64KiB", "32KiB"))
        options = Options(
            memory="256MiB" if memtable is None else "1MiB",
            memtable=memtable,
            durability=chance.choice(("sync", "sync", "sync", "async")),
            compression=chance.choice((None, None, "zstd")),
        )
        names = ("drain", "flush", "seal", "view", "search", "backup", "rebuild", "verify")
        chores = tuple(chance.sample(names, chance.choice((0, 0, 1, 2))))
        return cls(options, chores, WRITERS[: chance.choice((1, 2, 4))])


@dataclass
class Told:
    """What a child said before it ended."""

    ready: bool = False
    durable: dict[str, int] = field(default_factory=dict)
    begun: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    def hear(self, line: str) -> None:
        sign, _, rest = line.partition(" ")
        if sign in "+~":
            writer, number = rest.split()
            self.begun[writer] = int(number) + 1
            if sign == "+":
                self.durable[writer] = int(number) + 1
        elif sign == "!":
            self.errors.append(rest)
        elif sign == "ready":
            self.ready = True

    def bounds(self, before: Mapping[str, int]) -> dict[str, Bounds]:
        """How many commits of each writer may stand: one more than it was told of at most."""
        return {
            writer: Bounds(
                max(before.get(writer, 0), self.durable.get(writer, 0)),
                max(before.get(writer, 0), self.begun.get(writer, 0)) + 1,
            )
            for writer in WRITERS
        }


def tell_error(talk: Talk, where: str, error: BaseException) -> None:
    code = error.code if isinstance(error, waferdb.WaferError) else "-"
    talk("!", where, type(error).__name__, code, error)


def write_on(talk: Talk, db: Any, model: Model, last: int | None = None) -> None:
    """Commits of one writer, one after the other, each told once it returned."""
    lazily = False
    while last is None or model.count < last:
        number = model.count
        try:
            receipt = commit(db, model)
        except KeyError:
            # When the log fails, what was not durable is withdrawn: a transaction that begins then
            # lacks what it builds on. The engine says so itself; otherwise it is a finding.
            db.flush()
            raise
        if receipt.durable or number % _FLUSH_EVERY == 0:
            if not receipt.durable:
                db.flush()
            lazily = False
        else:
            lazily = True
        talk("~" if lazily else "+", model.writer, number)


def live(talk: Talk, path: str, seed: int, standing: dict[str, int], life: Life) -> None:
    """Writers and chores until the process is ended from outside, or everything fails."""
    try:
        db = life.options.open(path, seed)
    except Exception as error:  # noqa: BLE001 - told, and judged outside
        tell_error(talk, "open", error)
        return
    # Known before anybody writes, so that threads do not wait for each other's models.
    models = [model_at(seed, writer, standing.get(writer, 0)) for writer in life.writers]
    talk("ready")

    def run(where: str, work: Any, *arguments: Any) -> None:
        try:
            work(*arguments)
        except Exception as error:  # noqa: BLE001 - told, and judged outside
            tell_error(talk, where, error)

    threads = [
        threading.Thread(target=run, args=(model.writer, write_on, talk, db, model), daemon=True)
        for model in models
    ]
    threads += [
        threading.Thread(target=run, args=(name, _CHORES[name], db, Path(path)), daemon=True)
        for name in life.chores
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run("close", db.close)


def opened(talk: Talk, path: str, seed: int, options: Options) -> None:
    """Opens and closes: for what ends a process during recovery or closing."""
    try:
        talk("begin")
        with options.open(path, seed):
            talk("ready")
    except Exception as error:  # noqa: BLE001 - told, and judged outside
        tell_error(talk, "open", error)


Chore = Callable[[Any, Path], None]


def _for_ever(pause: float) -> Callable[[Chore], Chore]:
    """Makes a chore of one call of it."""

    def decorate(function: Chore) -> Chore:
        def run(db: Any, path: Path) -> None:
            while True:
                function(db, path)
                time.sleep(pause)

        return run

    return decorate


@_for_ever(0.005)
def _view(db: Any, _: Path) -> None:
    if "digests" not in db.structures:
        return
    db.digests.refresh()
    for topic in list(db.per_topic.keys()):
        db.per_topic.get(topic, consistency="strong")


@_for_ever(0.002)
def _search(db: Any, _: Path) -> None:
    with contextlib.suppress(waferdb.SnapshotExpiredError):
        db.points.search([1.0, 2.0, 3.0, 4.0], k=5)
        list(db.people.find({"city": "city1"}))


@_for_ever(0.01)
def _backup(db: Any, path: Path) -> None:
    copy = path.with_suffix(".copy")
    shutil.rmtree(copy, ignore_errors=True)
    db.backup(copy)


@_for_ever(0.01)
def _rebuild(db: Any, _: Path) -> None:
    for name in ("people", "embeddings", "per_topic", "events"):
        if name in db.structures:
            db.rebuild(name)


@_for_ever(0.01)
def _verify(db: Any, _: Path) -> None:
    # What it finds is judged by the check that follows each life: here the disk may be dead.
    db.verify(deep=True)


_CHORES: dict[str, Chore] = {
    "drain": _for_ever(0.005)(lambda db, _: db.drain()),
    "flush": _for_ever(0.001)(lambda db, _: db.flush()),
    "seal": _for_ever(0.003)(lambda db, _: db.drain("points", "embeddings")),
    "view": _view,
    "search": _search,
    "backup": _backup,
    "rebuild": _rebuild,
    "verify": _verify,
}
