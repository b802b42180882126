"""Fifty times SIGKILL on one database: acknowledged is there, and nothing is half there.

Replay a failing run with `WAFERDB_SEED=<seed> pytest tests/crash/test_sigkill.py`; the seed decides
after how many acknowledgements, and how much later, each kill comes (the machine decides the rest).
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from wafer_support import Memory, child_environment, whole_keys

pytestmark = [pytest.mark.crash, pytest.mark.slow]

WRITER = Path(__file__).with_name("writer.py")
KILLS = int(os.environ.get("WAFERDB_KILLS", "50"))
ACKNOWLEDGED_MAX = 60
# Each check reads all there is: databases that grew for ever would make many kills slow.
KILLS_OF_ONE_DATABASE = 50


def killed_writer(path: Path, name: str, chance: random.Random) -> set[str]:
    """Lets a writer run, kills it at a moment of chance, and gives the keys it acknowledged."""
    child = subprocess.Popen(
        [sys.executable, str(WRITER), str(path), name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=child_environment(),
    )
    assert child.stdout is not None
    assert child.stderr is not None
    lines: list[bytes] = []
    try:
        if chance.random() < 0.1:
            time.sleep(chance.uniform(0, 0.4))  # Somewhere in start, recovery or the first writes.
        else:
            for _ in range(1 + chance.randrange(ACKNOWLEDGED_MAX)):
                line = child.stdout.readline()
                if not line:
                    break
                lines.append(line)
            time.sleep(chance.uniform(0, 0.004))
    finally:
        child.kill()
    lines += child.stdout.readlines()
    errors = child.stderr.read().decode()
    child.stdout.close()
    child.stderr.close()
    assert child.wait() == -9, f"the writer ended by itself: {errors}"
    answers = [line.decode().strip() for line in lines if line.endswith(b"\n")]
    failed = [answer for answer in answers if answer.startswith("!")]
    assert not failed, failed
    return {answer for answer in answers if answer != "ready"}


def test_fifty_kills_lose_nothing_acknowledged_and_leave_nothing_half(path: Path) -> None:
    seed = int(os.environ.get("WAFERDB_SEED", random.randrange(2**32)))
    print(f"WAFERDB_SEED={seed}")
    chance = random.Random(seed)
    acknowledged: set[str] = set()
    present: set[str] = set()
    total = 0
    for number in range(KILLS):
        where = f"seed {seed}, kill {number}"
        if number % KILLS_OF_ONE_DATABASE == 0:
            path = path.with_name(f"{number}.wafer")
            Memory(path).close()
            acknowledged, present = set(), set()
        told = killed_writer(path, f"{number:02}", chance)
        acknowledged |= told
        total += len(told)
        with Memory(path) as db:
            keys = whole_keys(db)
            lost = acknowledged - keys
            assert not lost, f"{where}: acknowledged and lost: {sorted(lost)[:5]}"
            gone = present - keys
            assert not gone, f"{where}: seen after an earlier kill and lost: {sorted(gone)[:5]}"
            foreign = {key for key in keys - present if not key.startswith(f"{number:02}/")}
            assert not foreign, f"{where}: came back from an earlier run: {sorted(foreign)[:5]}"
            report = db.verify(deep=True)
            assert report.ok, f"{where}: {report.problems}"
            assert db.audit.head().size == len(list(db.audit.entries()))
            present = keys
        # Threads acknowledge before their next commit, so each run leaves at most one
        # unacknowledged commit per thread.
        assert len(present - acknowledged) <= 8 * (number % KILLS_OF_ONE_DATABASE + 1), where
    assert total > KILLS, "the writers were killed before they wrote anything"


@pytest.mark.parametrize("delay", [0, 0.02, 0.05, 0.1, 0.2])
def test_a_kill_during_the_first_creation_leaves_something_that_opens(
    path: Path, delay: float
) -> None:
    child = subprocess.Popen(
        [sys.executable, str(WRITER), str(path), "first"],
        stdout=subprocess.PIPE,
        env=child_environment(),
    )
    assert child.stdout is not None
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.0005)
    time.sleep(delay)
    child.kill()
    answers = {line.decode().strip() for line in child.stdout if line.endswith(b"\n")}
    child.stdout.close()
    child.wait()
    with Memory(path) as db:
        assert answers - {"ready"} <= whole_keys(db)
        assert db.verify(deep=True).ok
