"""How much each workload does, by the name that WAFERDB_BENCH gives."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """One size of all workloads."""

    name: str
    rounds: int
    one_writer: int  # commits
    sixteen_writers: int  # commits
    peer: int  # commits
    hundreds: int  # memories
    probe_seconds: float


SIZES = {
    "tiny": Sizes("tiny", 1, 50, 160, 50, 500, 0.1),
    "small": Sizes("small", 5, 8_000, 24_000, 6_000, 30_000, 1.0),
    "full": Sizes("full", 9, 30_000, 96_000, 20_000, 100_000, 3.0),
}
