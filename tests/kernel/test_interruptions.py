"""A process that is interrupted from within: signals, cancelled tasks, forks, ends, few resources.

`WAFERDB_INTERRUPTIONS` says how many lives each kind has (`make crash`: 100). Replay one with
`WAFERDB_SEED=<seed> pytest -s tests/kernel/test_interruptions.py -k <kind>`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import kernel_interruptions
import pytest
from kernel_campaign import Figures, reported
from kernel_check import Bounds
from kernel_children import Server
from kernel_lives import WRITERS, Told
from kernel_store import ROOMY, Options
from wafer_support import child_environment

pytestmark = pytest.mark.crash

LIVES = int(os.environ.get("WAFERDB_INTERRUPTIONS", "2"))
LIVES_OF_ONE_DATABASE = 10
FULL = os.environ.get("WAFERDB_CRASH") == "full"
REPLAY = "tests/kernel/test_interruptions.py"


class Place:
    """A database that lives through interruptions, and what is known of it."""

    def __init__(self, server: Server, path: Path, seed: int, figures: Figures) -> None:
        self.server = server
        self.path = path
        self.seed = seed
        self.figures = figures
        self.standing: dict[str, int] = {}

    def judge(self, where: str, lines: list[str], bounds: dict[str, Bounds] | None = None) -> Told:
        """Counts one life, and compares what it left with what it acknowledged."""
        told = Told()
        for line in lines:
            told.hear(line)
        given = told.bounds(self.standing) if bounds is None else bounds
        arguments = (str(self.path), self.seed, given, ROOMY, True)
        found, problems = self.server.call("kernel_check:examine", *arguments)
        self.figures.cycles += 1
        for writer, count in told.durable.items():
            self.figures.acknowledged += count - self.standing.get(writer, 0)
        for line in lines:
            if line.startswith("interrupted"):
                self.figures.counts["interruptions"] += int(line.split()[1])
        self.standing = found
        self.figures.problems += [f"{where}: {problem}" for problem in problems]
        return told


@pytest.mark.parametrize("kind", ["interrupt", "cancel", "fork"])
def test_an_interruption_loses_nothing_and_its_outcome_is_final(tmp_path: Path, kind: str) -> None:
    with reported(kind, f"{REPLAY} -k {kind}") as figures, Server() as server:
        chance = random.Random(figures.seed)
        place = Place(server, tmp_path / "0.wafer", 2, figures)
        for number in range(LIVES):
            if number % LIVES_OF_ONE_DATABASE == 0:
                seed = chance.randrange(1 << 32)
                place = Place(server, tmp_path / f"{number}.wafer", seed, figures)
                figures.databases += 1
            durability = chance.choice(("sync", "sync", "async"))
            options = Options(durability="sync" if kind == "cancel" else durability)
            draw = chance.randrange(1 << 32)
            arguments = (str(place.path), place.seed, place.standing, draw, options)
            with server.start(f"kernel_interruptions:{kind}", *arguments) as child:
                lines = child.lines()
                status = child.wait()
            where = f"life {number}"
            told = place.judge(where, lines)
            if status:
                figures.problems.append(f"{where}: wrong: ended with {status}: {child.errors}")
            figures.problems += [f"{where}: wrong: {error}" for error in told.errors]
        assert figures.counts["interruptions"] >= LIVES


@pytest.mark.parametrize("how", ["sys.exit", "raise", "os._exit", "close"])
def test_an_interpreter_that_ends_in_a_commit_loses_nothing(tmp_path: Path, how: str) -> None:
    with reported(how, f"{REPLAY} -k '{how}'") as figures, Server() as server:
        chance = random.Random(figures.seed)
        place = Place(server, tmp_path / "0.wafer", 2, figures)
        for number in range(max(1, LIVES // 4)):
            if number % LIVES_OF_ONE_DATABASE == 0:
                seed = chance.randrange(1 << 32)
                place = Place(server, tmp_path / f"{number}.wafer", seed, figures)
                figures.databases += 1
            done = subprocess.run(
                [
                    sys.executable,
                    kernel_interruptions.__file__,
                    str(place.path),
                    str(place.seed),
                    json.dumps(place.standing),
                    how,
                    str(chance.uniform(0, 0.15)),
                ],
                capture_output=True,
                text=True,
                timeout=120,
                env=child_environment(),
                check=False,
            )
            place.judge(f"life {number}", done.stdout.splitlines())
            if done.returncode or done.stderr:
                figures.problems.append(
                    f"life {number}: wrong: ended with {done.returncode}: {done.stderr[:1_500]}"
                )


def starved(place: Place, kind: str, room: int, late: bool) -> tuple[list[str], int]:
    """One life under a limit: what it said, and how it ended."""
    arguments = (str(place.path), place.seed, place.standing, kind, room, late)
    with place.server.start("kernel_interruptions:starve", *arguments) as child:
        lines = child.lines()
        status = child.wait()
    where = f"{kind} {room} {'late' if late else 'early'}"
    before = place.standing.get(WRITERS[0], 0)
    durable = max(
        (int(line.split()[2]) + 1 for line in lines if line.startswith("+")), default=before
    )
    # One that failed in the interpreter behind the commit may stand.
    bounds = {WRITERS[0]: Bounds(durable, durable + 1)}
    told = place.judge(where, lines, bounds)
    place.figures.counts["without memory"] += sum(line.startswith("memory") for line in lines)
    for error in told.errors:
        place.figures.counts[error.split()[2]] += 1
        if error.split()[2] == "-":
            place.figures.problems.append(f"{where}: wrong: an error of no type: {error}")
    return lines, status


@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
def test_few_descriptors_are_a_typed_error_and_lose_nothing(tmp_path: Path, late: bool) -> None:
    with reported("descriptors", f"{REPLAY} -k descriptors") as figures, Server() as server:
        for number, room in enumerate(range(0, 48, 1 if FULL else 16)):
            if number % LIVES_OF_ONE_DATABASE == 0:
                place = Place(server, tmp_path / f"{number}.wafer", number, figures)
                figures.databases += 1
            _, status = starved(place, "descriptors", room, late)
            if status:
                figures.problems.append(f"room for {room}: wrong: ended with {status}")


@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
def test_little_address_space_loses_nothing(tmp_path: Path, late: bool) -> None:
    """Rust ends a process that cannot allocate: what was acknowledged is there even then."""
    with reported("address space", f"{REPLAY} -k address") as figures, Server() as server:
        for number, room in enumerate(range(0, 200, 4 if FULL else 100)):
            if number % LIVES_OF_ONE_DATABASE == 0:
                place = Place(server, tmp_path / f"{number}.wafer", number, figures)
                figures.databases += 1
            _, status = starved(place, "address space", room, late)
            figures.counts[f"ended with {status}"] += 1
            if status not in (0, -signal.SIGABRT, 1):
                figures.problems.append(f"{room} MiB: wrong: ended with {status}")
