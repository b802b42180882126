"""What a benchmark run leaves: latest.json for programs, latest.md for people.

1. A ratio is the median of the ratios of its rounds, and within a round both sides ran one after
   the other: a machine that slows down slows both.
2. Each table states its n, its denominator and its sync mode; the report states the machine.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from machine import described, machine


@dataclass(frozen=True)
class Table:
    """One workload beside its denominator."""

    name: str
    what: str
    n: str
    sync: str
    denominator: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    value: float
    target: float
    unit: str
    rounds: list[float]

    @property
    def met(self) -> bool:
        """Whether the median reaches the target."""
        return self.value >= self.target

    def markdown(self) -> str:
        """The table with what it rests on."""
        lines = [f"## {self.name}", "", self.what, ""]
        lines += ["| " + " | ".join(self.header) + " |", "| --- " * len(self.header) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        spread = f"{shown(min(self.rounds))} to {shown(max(self.rounds))}"
        verdict = "reached" if self.met else "**missed**"
        lines += [
            "",
            f"**{shown(self.value)} {self.unit}** (median of {len(self.rounds)} rounds, {spread}); "
            f"target {shown(self.target)}: {verdict}.",
            "",
            f"n: {self.n}. Sync mode: {self.sync}. Denominator: {self.denominator}.",
        ]
        return "\n".join(lines)


@dataclass
class Report:
    """All tables of one run."""

    size: str
    tables: list[Table] = field(default_factory=list)
    _machine: dict[str, Any] = field(default_factory=dict)

    def add(self, table: Table, directory: Path) -> None:
        """Takes a table measured in `directory`."""
        self._machine = self._machine or machine(directory)
        self.tables.append(table)

    def markdown(self) -> str:
        """The report for people."""
        if not self.tables:
            return "Nothing was measured.\n"
        head = [
            "# Benchmarks",
            "",
            f"Machine: {described(self._machine)}. Size: {self.size}.",
            "A row is the median of its rounds; a ratio is taken within each round.",
            "",
        ]
        return (
            "\n".join(head) + "\n" + "\n\n".join(table.markdown() for table in self.tables) + "\n"
        )

    def write(self, directory: Path) -> None:
        """Leaves latest.json and latest.md."""
        directory.mkdir(parents=True, exist_ok=True)
        facts = {
            "size": self.size,
            "machine": self._machine,
            "tables": [{**asdict(table), "met": table.met} for table in self.tables],
        }
        (directory / "latest.json").write_text(json.dumps(facts, indent=2) + "\n")
        (directory / "latest.md").write_text(self.markdown())


def shown(value: float) -> str:
    """A figure with the digits that mean something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def median(values: Sequence[float]) -> float:
    """The median; 0.0 of nothing."""
    return statistics.median(values) if values else 0.0
