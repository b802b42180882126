"""SIGKILL in any moment of a writing process with threads, over every structure.

`WAFERDB_KILLS` says how often (`make crash`: 1,000). Replay one database of a failing run with
`WAFERDB_SEED=<seed> WAFERDB_SAGA=<number> pytest -s tests/kernel/test_kills.py`.
"""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest
from kernel_campaign import numbers, reported, saga, side_by_side
from kernel_children import Child
from kernel_lives import Told

pytestmark = pytest.mark.crash

KILLS = int(os.environ.get("WAFERDB_KILLS", "8"))
WORKERS = 2


def kill(child: Child, _: random.Random) -> str:
    child.kill()
    return "killed"


def died(told: Told, status: int) -> list[str]:
    """Nothing but the signal ends the process, and nobody is told of an error before."""
    problems = [f"wrong: an error before the kill: {error}" for error in told.errors]
    # One that only opens and closes may have been faster than the signal.
    if status not in (-signal.SIGKILL, 0):
        problems.append(f"wrong: the process ended with {status}")
    return problems


def test_kills_at_any_moment_lose_nothing_acknowledged_in_any_structure(tmp_path: Path) -> None:
    with reported("SIGKILL", "tests/kernel/test_kills.py") as figures:
        side_by_side(
            WORKERS,
            lambda server, number: saga(figures, server, tmp_path, number, kill, died),
            numbers(figures, KILLS),
        )
    assert figures.cycles >= KILLS or "WAFERDB_SAGA" in os.environ
