"""What a run leaves: latest.json for programs, latest.md and latest.html for people."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from benchmarks import page
from benchmarks import report as reporting
from benchmarks.report import Report
from benchmarks.workloads import WORKLOADS


def write(report: Report, directory: Path) -> list[Path]:
    """Leaves latest.json, latest.md and latest.html."""
    directory.mkdir(parents=True, exist_ok=True)
    verdicts = [
        {**asdict(v.target), "value": v.value, "note": v.note, "word": v.word}
        for v in report.verdicts
    ]
    facts = {"facts": report.facts, "targets": verdicts, "rows": report.rows}
    written = {
        "latest.json": json.dumps(facts, indent=1) + "\n",
        "latest.md": markdown(report),
        "latest.html": page.made(report),
    }
    for name, text in written.items():
        (directory / name).write_text(text, encoding="utf-8")
    return [directory / name for name in written]


def markdown(report: Report) -> str:
    """The report for people who read text."""
    lines = ["# Benchmarks", "", f"{report.machine}.", ""]
    if not report.facts["device"]:
        lines += ["No device of its own: bytes are `wchar`, what the process handed over.", ""]
    lines += ["## Targets", ""]
    header = ("case", "figure", "target", "measured", "")
    lines += _markdown_table(
        header, [reporting.verdict_line(verdict) for verdict in report.verdicts]
    )
    lines += ["", "## Durability", ""]
    lines += _markdown_table(reporting.DURABILITY, reporting.durability(report))
    named = None
    for table in report.tables:
        if table.workload != named:
            named = table.workload
            lines += ["", f"## {named}", ""]
            lines += [f"{text}\n" for text in reporting.about(WORKLOADS[named])]
        lines += [f"### {table.case}", "", *_markdown_table(table.header, table.rows), ""]
        lines += [f"- {note}" for note in table.notes]
        for verdict in table.verdicts:
            _, what, bound, value, word = reporting.verdict_line(verdict)
            lines.append(f"- target {what} {bound}: {value} **{word}**")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _markdown_table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    lines = ["| " + " | ".join(header) + " |"]
    lines.append("| --- " * (lines[0].count("|") - 1) + "|")
    lines += ["| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in rows]
    return lines
