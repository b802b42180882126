"""What the commands print: tables for people, JSON for programs, progress on stderr.

1. Standard output carries the result and nothing else; progress, notes and errors go to stderr.
2. Text from the database is printed as text, never as markup or terminal control.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from . import jsonform

NOT_FOUND = 1
ERROR = 2


def print_json(value: Any) -> None:
    """One JSON document on one line."""
    typer.echo(jsonform.dumps(value))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table; columns whose every cell is a number are right-aligned."""
    cells = [list(row) for row in rows]
    table = Table(title=title, title_justify="left", header_style="bold")
    for place, name in enumerate(columns):
        numbers = bool(cells) and all(_is_number(row[place]) for row in cells)
        table.add_column(name, justify="right" if numbers else "left", overflow="fold")
    for row in cells:
        table.add_row(*(Text(shown(cell)) for cell in row))
    _console().print(table)


def print_line(text: str) -> None:
    """One line of plain text."""
    typer.echo(_visible(text))


def note(text: str) -> None:
    """A remark for people, on stderr."""
    typer.echo(_visible(text), err=True)


def not_found(text: str) -> typer.Exit:
    """Says so on stderr; raise what it returns."""
    note(text)
    return typer.Exit(NOT_FOUND)


def shown(value: Any) -> str:
    """A value in one table cell."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.3f}" if abs(value) < 100 else f"{value:,.0f}"
        case datetime():
            return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%fZ")
        case str():
            return _visible(value)
        case bytes():
            return f"{len(value):,} bytes: {value[:16].hex(' ')}" + (" …" if value[16:] else "")
        case np.ndarray():
            head = ", ".join(f"{part:.4f}" for part in value[:4])
            return f"[{head}{', …' if len(value) > 4 else ''}] ({len(value)} components)"
        case _:
            return _visible(jsonform.dumps(value))


def size(count: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            return f"{count:,.0f} B" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1024
    raise AssertionError("the last unit returns")


@contextmanager
def progress(
    label: str, total: int | None, *, count: bool = True
) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on stderr, only where that is a terminal; yields `advance_to(done, total=None)`."""
    columns = [TextColumn("{task.description}"), BarColumn()]
    columns += [MofNCompleteColumn()] if count else [TaskProgressColumn()]
    console = Console(stderr=True)
    hidden = not console.is_terminal
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=hidden) as bars:
        task = bars.add_task(label, total=total)

        def advance_to(done: int, of: int | None = None) -> None:
            bars.update(task, completed=done, total=of if of is not None else total)

        yield advance_to


def _console() -> Console:
    # A pipe has no width; tables there must not be cut at 80 columns.
    return Console() if sys.stdout.isatty() else Console(width=200, force_terminal=False)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _visible(text: str) -> str:
    """Control characters as escapes: what is stored must not drive the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
