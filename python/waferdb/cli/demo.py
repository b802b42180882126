"""`waferdb demo`: what `waferdb.demo` found, as tables or as one JSON document."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from ..demo import Result, Watch, run
from . import jsonform
from .options import Json
from .output import NOT_FOUND, note, print_json, print_line, print_table


def demo(
    count: Annotated[int, typer.Option(min=100, help="How many memories.")] = 4000,
    kills: Annotated[int, typer.Option(min=0, max=100, help="How often the writer is killed.")] = 5,
    keep: Annotated[
        Path | None, typer.Option(help="Keep the databases in this directory, new or empty.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Remembers real text, is killed and comes back whole; recalls, forgets, and measures itself.

    Exit code 1 if a check fails.
    """
    directory = _directory(keep)
    try:
        with _bars() as bars:
            result = run(directory, count, kills, _watch(bars))
    finally:
        if keep is None:
            shutil.rmtree(directory, ignore_errors=True)
    if as_json:
        found = jsonform.plain(result)
        found["measures"] = [
            {**jsonform.plain(measure), "per_second": measure.per_second}
            for measure in result.measures
        ]
        print_json({"ok": result.ok, "problems": result.problems, **found})
    else:
        _show(result)
    if not result.ok:
        raise typer.Exit(NOT_FOUND)


def _directory(keep: Path | None) -> Path:
    if keep is None:
        return Path(tempfile.mkdtemp(prefix="waferdb-demo-"))
    keep.mkdir(parents=True, exist_ok=True)
    if any(keep.iterdir()):
        raise ValueError(f"--keep {keep}: the directory is not empty; name a new one")
    return keep


def _bars() -> Progress:
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, disable=not console.is_terminal)


def _watch(bars: Progress) -> Watch:
    """One bar per stage; a stage ends where the next begins."""
    tasks: dict[str, TaskID] = {}

    def watch(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            for earlier in tasks.values():
                bars.update(earlier, completed=bars.tasks[earlier].total)
                bars.stop_task(earlier)
            tasks[stage] = bars.add_task(stage, total=total)
        bars.update(tasks[stage], completed=done, total=total)

    return watch


def _show(result: Result) -> None:
    print_table(
        f"{result.memories:,} memories from Python's own help, in {result.directory} "
        f"({result.file_system})",
        ("round", "writer", "acknowledged", "in all six", "in flight, whole", "reopened", "check"),
        [
            (
                r.number,
                r.ended,
                r.acknowledged,
                r.present,
                r.in_flight,
                f"{r.recovery_seconds * 1000:,.0f} ms",
                "all or nothing" if not r.problems else "FAILED",
            )
            for r in result.rounds
        ],
    )
    for question, answers in result.answers.items():
        rows = [(f"{score:.3f}", topic, _cut(text)) for score, topic, text in answers]
        print_table(question, ("score", "topic", "memory"), rows)
    forgetting = result.forgetting
    print_table(
        f"forget: {forgetting['question']}",
        ("recall", "answer"),
        [
            ("before", "; ".join(forgetting["before"]) or "nothing"),
            ("after", "; ".join(forgetting["after"]) or "nothing"),
            ("as of before", "; ".join(forgetting["as_of_before"]) or "nothing"),
        ],
    )
    print_table(
        "The same memories, each its own durable commit, on this machine in this run",
        ("way", "memories/s", "commits/sync", "written/byte, own meter", "written/byte, wchar"),
        [
            (
                m.name,
                f"{m.per_second:,.0f}",
                _figure(m.commits_per_sync),
                _figure(m.metered_per_byte),
                _figure(m.wchar_per_byte),
            )
            for m in result.measures
        ],
    )
    print_line("written/byte: bytes written per byte remembered (text and float32 vector, once).")
    print_line("own meter: what the engine says it wrote; wchar: what the kernel counted for the")
    print_line("process, from before opening to after closing, the same for all.")
    for measure in result.measures:
        if measure.note:
            print_line(f"{measure.name}: {measure.note}.")
    for remark in result.remarks:
        note(remark)
    for problem in result.problems:
        note(f"FAILED: {problem}")
    verdict = "every check passed" if result.ok else f"{len(result.problems)} checks failed"
    print_line(f"{verdict}, in {result.seconds:.0f} s")


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _cut(text: str, width: int = 110) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
