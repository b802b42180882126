"""Many lives of many databases: each life is ended, each time everything is compared.

A *saga* is one database over `LIVES` lives, all of it drawn from one seed and the saga's number, so
that one saga can be replayed without the others. What threads, kernel and disk do between is the
machine's.
"""

from __future__ import annotations

import contextlib
import os
import queue
import random
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kernel_children import Child, HungError, Server
from kernel_lives import Life, Told
from kernel_store import Options

LIVES = 20
COMMITS_MAX = 1_500
_LINES_MAX = 40


@dataclass
class Figures:
    """What a campaign did and found; printed at its end."""

    name: str
    seed: int
    wanted: int | None = None
    cycles: int = 0
    databases: int = 0
    acknowledged: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def done(self) -> bool:
        return self.wanted is not None and self.cycles >= self.wanted

    def __str__(self) -> str:
        lost = sum("lost:" in problem for problem in self.problems)
        counts = ", ".join(f"{count:,} {name}" for name, count in sorted(self.counts.items()))
        seconds = time.monotonic() - self.began
        return (
            f"{self.name}, seed {self.seed}: {self.cycles:,} cycles on {self.databases:,} "
            f"databases, {self.acknowledged:,} commits acknowledged ({counts}), {seconds:,.0f} s: "
            f"{lost} lost, {len(self.problems) - lost} wrong"
        )


Blow = Callable[[Child, random.Random], str]
Judge = Callable[[Told, int], list[str]]


@dataclass
class Saga:
    """One database over many lives."""

    server: Server
    path: Path
    seed: int
    chance: random.Random
    blow: Blow
    judge: Judge
    standing: dict[str, int] = field(default_factory=dict)

    def cycle(self, figures: Figures) -> list[str]:
        """One life, its end, and what is wrong afterwards."""
        life = Life.drawn(self.chance)
        if self.chance.random() < 0.08:
            child = self.server.start(
                "kernel_lives:opened", str(self.path), self.seed, life.options
            )
            opening = True
        else:
            arguments = (str(self.path), self.seed, self.standing, life)
            child = self.server.start("kernel_lives:live", *arguments)
            opening = self.chance.random() < 0.1
        told = Told()
        with child:
            try:
                self._wait(child, told, opening)
                how = self.blow(child, self.chance)
                for line in child.lines():
                    told.hear(line)
            except HungError as hung:
                return [f"wrong: {hung}"]
            problems = self.judge(told, child.wait())
            if child.errors:
                problems.append(f"wrong: on standard error: {child.errors}")
        before = self.standing
        problems += self._check(told)
        with figures.lock:
            figures.cycles += 1
            for writer, count in told.durable.items():
                figures.acknowledged += count - before.get(writer, 0)
            figures.counts[how] += 1
            figures.counts["before it was open"] += not told.ready
        return problems

    def _wait(self, child: Child, told: Told, opening: bool) -> None:
        """Until the moment of the blow: in opening, or behind some acknowledged commit."""
        if opening:
            time.sleep(self.chance.uniform(0, 0.04))
            return
        for _ in range(2 + self.chance.randrange(_LINES_MAX)):
            line = child.line()
            if not line:
                break
            told.hear(line)
        time.sleep(self.chance.uniform(0, 0.006))

    def _check(self, told: Told) -> list[str]:
        options = self.chance.choice((Options(), Options(memory="1MiB", memtable="64KiB")))
        arguments = (str(self.path), self.seed, told.bounds(self.standing), options, True)
        self.standing, problems = self.server.call("kernel_check:examine", *arguments)
        return list(problems)


def saga(
    figures: Figures, server: Server, folder: Path, number: int, blow: Blow, judge: Judge
) -> None:
    """All lives of one database; what it found goes to `figures`."""
    chance = random.Random(f"{figures.seed}/{number}")
    path = folder / f"saga-{number}.wafer"
    one = Saga(server, path, chance.randrange(1 << 32), chance, blow, judge)
    with figures.lock:
        figures.databases += 1
    for place in range(LIVES):
        problems = one.cycle(figures)
        if problems:
            where = f"saga {number}, life {place}"
            with figures.lock:
                figures.problems += [f"{where}: {problem}" for problem in problems]
            keep = os.environ.get("WAFERDB_KEEP")
            if keep:
                with contextlib.suppress(OSError):
                    shutil.copytree(path, Path(keep) / f"{figures.name}-{figures.seed}-{number}")
            break
        if sum(one.standing.values()) > COMMITS_MAX or figures.done:
            break
    shutil.rmtree(path, ignore_errors=True)
    shutil.rmtree(path.with_suffix(".copy"), ignore_errors=True)


def numbers(figures: Figures, cycles: int) -> Iterator[int]:
    """The sagas to play: one that was asked for, or as many as `cycles` take."""
    only = os.environ.get("WAFERDB_SAGA")
    if only is not None:
        yield int(only)
        return
    number, figures.wanted = 0, cycles
    while not figures.done:
        yield number
        number += 1


def side_by_side(workers: int, work: Callable[[Server, Any], None], items: Iterator[Any]) -> None:
    """Gives `items` to threads, each with a server of its own; raises what one raises."""
    waiting: queue.Queue[Any] = queue.Queue()
    lock = threading.Lock()
    errors: list[BaseException] = []

    def run() -> None:
        try:
            with Server() as server:
                while not errors:
                    with lock:
                        item = next(items, waiting)
                    if item is waiting:
                        return
                    work(server, item)
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=run) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@contextmanager
def reported(name: str, replay: str) -> Iterator[Figures]:
    """Figures with the seed of `WAFERDB_SEED`; printed, and an error if anything was found."""
    given = os.environ.get("WAFERDB_SEED")
    figures = Figures(name, random.randrange(1 << 32) if given is None else int(given))
    yield figures
    print(figures)
    if figures.problems:
        saga_of_first = re.match(r"saga (\d+)", figures.problems[0])
        only = f" WAFERDB_SAGA={saga_of_first[1]}" if saga_of_first else ""
        told = "\n".join([str(figures), *figures.problems[:10]])
        command = f"WAFERDB_SEED={figures.seed}{only} python -m pytest -s {replay}"
        raise AssertionError(f"{told}\nreplay: {command}")
