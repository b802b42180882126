"""What a run found: tables of its rows and verdicts, as data that every output shares.

1. A row of a table is the median of its rounds, and says how many those were.
2. A measurement that found `lines` (figures by name, of several settings of one store) is as many
   rows of its table.
3. Each table states machine, place, sync mode, n and denominator; each target is said to be met,
   missed or not judged.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from benchmarks import compare
from benchmarks.machine import described
from benchmarks.targets import Row, Verdict, judge
from benchmarks.workloads import WORKLOADS, Workload


@dataclass(frozen=True)
class Table:
    """One case of one workload."""

    workload: str
    case: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    notes: list[str]
    medians: dict[str, dict[str, Any]]  # by peer
    verdicts: list[Verdict]

    @property
    def title(self) -> str:
        """Workload and case."""
        return f"{self.workload}: {self.case}"


@dataclass(frozen=True)
class Report:
    """All of one run."""

    facts: dict[str, Any]
    rows: list[Row]
    tables: list[Table]
    verdicts: list[Verdict]

    @property
    def machine(self) -> str:
        """Machine, place and size in one line."""
        facts = self.facts
        memtable = facts["memtable_bytes"] / (1 << 20)
        return (
            f"{described(facts['machine'])}. Measured in: {facts['place']}. Size: "
            f"{facts['size']}, memtable {memtable:g} MiB unless a case says otherwise"
        )


def made(facts: dict[str, Any], rows: list[Row]) -> Report:
    """The report of a run's rows."""
    verdicts = judge(rows)
    tables = []
    for workload, case in dict.fromkeys((row["workload"], row["case"]) for row in rows):
        own = [row for row in rows if (row["workload"], row["case"]) == (workload, case)]
        some = [line for row in own for line in _lines(row)]
        tables.append(_table(WORKLOADS[workload], case, some, verdicts))
    return Report(facts, rows, tables, verdicts)


def _lines(row: Row) -> list[Row]:
    lines = row["found"].get("lines")
    if not lines:
        return [row]
    named = [{**row, "peer": name, "found": found, "notes": []} for name, found in lines.items()]
    named[0]["notes"] = row["notes"]  # said once
    return named


def _table(workload: Workload, case: str, rows: list[Row], verdicts: list[Verdict]) -> Table:
    peers = list(dict.fromkeys(row["peer"] for row in rows))
    medians = {
        peer: _medians(row["found"] for row in rows if row["peer"] == peer) for peer in peers
    }
    columns = [c for c in workload.columns if any(c.key in found for found in medians.values())]
    notes: list[str] = []
    shown = []
    for peer in peers:
        own = [row for row in rows if row["peer"] == peer]
        own_notes = dict.fromkeys(note for row in own for note in row["notes"])
        notes += [text if workload.curve else f"{peer}: {text}" for text in own_notes]
        problem = next((row["problem"] for row in own if row["problem"]), None)
        if problem:
            notes.append(f"{peer}: {problem}")
        rate = _ratio(workload, medians, peer)
        cells = tuple(column.shown(medians[peer]) for column in columns)
        if problem:
            rate = "refused" if all(row["refused"] for row in own) else "failed"
        shown.append((peer, str(len(own)), *cells, rate))
    header = (
        "",
        "rounds",
        *(column.heading for column in columns),
        f"{workload.plotted[1]}, x {workload.beside}",
    )
    own_verdicts = [v for v in verdicts if (v.target.workload, v.case) == (workload.name, case)]
    return Table(workload.name, case, header, shown, notes, medians, own_verdicts)


def _medians(found: Iterable[dict[str, Any]]) -> dict[str, Any]:
    values: dict[str, list[float]] = {}
    for each in found:
        for key, value in each.items():
            if isinstance(value, int | float):
                values.setdefault(key, []).append(value)
    return {key: statistics.median(some) for key, some in values.items()}


def _ratio(workload: Workload, medians: dict[str, dict[str, Any]], peer: str) -> str:
    """How many times waferdb's figure (or that of the workload's own line) this peer's is, by the
    figure that the workload plots."""
    key, _ = workload.plotted
    own, theirs = medians.get(workload.beside, {}).get(key), medians[peer].get(key)
    if peer == workload.beside or own is None or theirs is None or not own:
        return ""
    return f"{theirs / own:.2f}"


DURABILITY = ("name", "store", "sync", "async", "vectors")


def durability(report: Report) -> list[tuple[str, ...]]:
    """Each store, what "sync" and "async" mean for it, and where its vectors are."""
    lines: list[tuple[str, ...]] = []
    for name in report.facts["peers"]:
        adapter = compare.peer(name)
        durable = adapter.durable
        title = report.facts["peers"][name]
        lines.append((name, title, durable.sync, durable.unsynced, adapter.vectors))
    return lines


def about(workload: Workload) -> list[str]:
    """What every table of the workload rests on."""
    return [
        workload.what,
        f'Durability: "{workload.durability}" of each store\'s table entry. '
        f"Denominator: {workload.denominator}.",
    ]


def verdict_line(verdict: Verdict) -> tuple[str, str, str, str, str]:
    """Case, what, target, value, word."""
    target = verdict.target
    bound = f"{target.than} {_number(target.bound)}"
    value = "" if verdict.value is None else _number(verdict.value)
    word = verdict.word + (f" ({verdict.note})" if verdict.note else "")
    return f"{target.workload}: {target.case or 'all'}", target.what, bound, value, word


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
