"""Six scripts whose every system call is struck: what a database does, from its creation on.

A script runs in a child under the filter and goes on behind an error as far as it can, as a program
would that catches what the engine raises. It tells `+ w0 N` for each acknowledged commit, `! WHERE
KIND CODE TEXT` for each error, `? TEXT` for an answer that is wrong, and `end` when all is done.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from kernel_children import Talk
from kernel_lives import tell_error
from kernel_store import POINT_DIM, ROOMY, Model, Options, commit, model_at, standing, vector_of

import waferdb

# Which scripts forget and which have views: see the seeds in kernel_store.
SEEDS = {"create": 7, "commits": 8, "merge": 8, "recover": 7, "backup": 7, "seal": 9}
WRITER = "w0"
SMALL = Options(memory="1MiB", memtable="64KiB")
_TRIES = 3


class Script:
    """One run: the database, the writer's model, and what may still be tried."""

    def __init__(self, talk: Talk, path: str, seed: int, count: int, options: Options) -> None:
        self.talk = talk
        self.path = Path(path)
        self.model = model_at(seed, WRITER, count)
        self.options = options
        self.db: Any = None

    def attempt(self, where: str, work: Callable[[], Any]) -> bool:
        """Does it, and says so if it fails."""
        try:
            work()
        except Exception as error:  # noqa: BLE001 - told, and judged outside
            tell_error(self.talk, where, error)
            return False
        return True

    @contextmanager
    def opened(self) -> Iterator[bool]:
        """The database, after a few tries as a caller would make them; closed behind."""

        def open_it() -> None:
            self.db = self.options.open(self.path, self.model.seed)

        done = any(self.attempt("open", open_it) for _ in range(_TRIES))
        yield done
        if done:
            self._read()
            self.attempt("close", self.db.close)

    def commits(self, count: int) -> None:
        """So many commits, each tried again where it says that it is not committed."""
        for _ in range(count):
            for _ in range(_TRIES):
                number = self.model.count
                if self.attempt("commit", lambda: commit(self.db, self.model)):
                    self.talk("+", WRITER, number)
                    break
            else:
                return

    def catch_up(self) -> None:
        """The model follows the database, which alone knows whether a torn commit stands."""
        self.model = model_at(self.model.seed, WRITER, standing(self.db)[WRITER])

    def _read(self) -> None:
        """What was acknowledged can be read, whatever failed before."""
        found: dict[str, Any] = {}

        def scan() -> None:
            found.update(self.db.facts.scan())

        # The one fault may strike the first reading. What was not acknowledged may be there.
        if not any(self.attempt("read", scan) for _ in range(2)):
            self.talk("?", "what was acknowledged cannot be read")
            return
        next_one = model_at(self.model.seed, WRITER, self.model.count + 1)
        if found not in (self.model.facts, next_one.facts):
            self.talk("?", f"read are {sorted(found)}, acknowledged {sorted(self.model.facts)}")


def create(talk: Talk, path: str, seed: int, count: int) -> None:
    """A database is created and written to."""
    script = Script(talk, path, seed, count, ROOMY)
    with script.opened() as done:
        if done:
            script.commits(6)
    talk("end")


def commits(talk: Talk, path: str, seed: int, count: int) -> None:
    """Commits over every structure, asynchronous ones and flushes between them."""
    script = Script(talk, path, seed, count, ROOMY)
    with script.opened() as done:
        if done:
            script.commits(8)
            for _ in range(2):
                _asynchronous(script)
                script.commits(2)
    talk("end")


def _asynchronous(script: Script) -> None:
    number = script.model.count

    def work() -> None:
        commit(script.db, script.model, durability="async")
        script.talk("~", WRITER, number)
        script.db.flush()
        script.talk("+", WRITER, number)

    if not script.attempt("commit", work):
        script.model = model_at(script.model.seed, WRITER, number)


def merge(talk: Talk, path: str, seed: int, count: int) -> None:
    """Memtables are written out, runs merged, checkpoints taken, a structure made again."""
    script = Script(talk, path, seed, count, SMALL)
    with script.opened() as done:
        if done:
            script.commits(6)
            script.attempt("drain", lambda: script.db.drain())
            script.commits(2)
            script.attempt("rebuild", lambda: script.db.rebuild("people"))
            script.commits(2)
    talk("end")


def recover(talk: Talk, path: str, seed: int, count: int) -> None:
    """A torn log is recovered, written to, and opened again."""
    script = Script(talk, path, seed, count, ROOMY)
    for _ in range(2):
        with script.opened() as done:
            if not done:
                break
            # The torn commit may stand: what the database says counts.
            if not any(script.attempt("read", script.catch_up) for _ in range(_TRIES)):
                talk("?", "how many commits stand cannot be read")
                break
            script.commits(3)
    talk("end")


def backup(talk: Talk, path: str, seed: int, count: int) -> None:
    """A copy is made while the database is in use; then another in its place."""
    script = Script(talk, path, seed, count, SMALL)
    copy = Path(path).parent / "copy.wafer"
    with script.opened() as done:
        if done:
            script.commits(2)
            for _ in range(_TRIES):
                number = script.model.count
                if script.attempt("backup", lambda: script.db.backup(copy)):
                    talk("copied", number)
                    break
                # One that failed may have left something, which the next one refuses.
                script.attempt("clean", lambda: shutil.rmtree(copy, ignore_errors=True))
            script.commits(2)
    talk("end")


def seal(talk: Talk, path: str, seed: int, count: int) -> None:
    """Vectors are sealed into a graph with those of an older one, searched and deleted."""
    script = Script(talk, path, seed, count, ROOMY)
    with script.opened() as done:
        if done:
            script.commits(2)
            script.attempt("drain", lambda: script.db.drain("points", "embeddings"))
            script.attempt("search", lambda: _search(script))
            script.commits(2)
    talk("end")


def _search(script: Script) -> None:
    expected = script.model.points
    query = vector_of("query", POINT_DIM)
    hits = script.db.points.search(query, k=5)
    distances = sorted(
        float(np.linalg.norm(vector_of(name, POINT_DIM).astype(np.float64) - query))
        for name in expected.values()
    )[:5]
    if not np.allclose(hits.distances, distances, rtol=1e-4):
        script.talk("?", f"a search gives {hits.keys}")


def template(path: str, name: str) -> int:
    """Makes the database that a script begins with; gives how many commits stand in it."""
    model = Model(SEEDS[name], WRITER)
    if name == "create":
        return 0
    with ROOMY.open(path, model.seed) as db:
        while model.count < 40:
            commit(db, model)
        # Runs and graphs; few of them, for each is opened and read by every run of the script.
        db.drain()
        while model.count < 60:
            commit(db, model)
    return model.count


def torn(talk: Talk, path: str, seed: int, count: int) -> None:
    """Is killed in the middle of a write: makes the log that `recover` begins with."""
    script = Script(talk, path, seed, count, ROOMY)
    with script.opened() as done:
        if done:
            script.commits(30)


def copied(path: str, seed: int, least: int) -> list[str]:
    """What is wrong with a copy that `backup` returned from, or with what it left."""
    from kernel_check import Bounds, examine

    bounds = {WRITER: Bounds(least, 1 << 30)}
    if not Path(path).exists():
        return ["lost: the copy is not there"] if least else []
    try:
        ROOMY.open(path, seed, mode="r", create=False).close()
    except waferdb.WaferError:
        return ["lost: the copy does not open"] if least else []
    return examine(path, seed, bounds, ROOMY, thorough=True)[1]
