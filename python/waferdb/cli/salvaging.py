"""salvage: what is whole of a damaged database, in a new one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .._salvage import SalvageReport
from .._salvage import salvage as salvage_database
from .options import Json
from .output import NOT_FOUND, note, print_json, print_line, print_table, progress

_SHOWN = 100


def salvage(
    src: Annotated[Path, typer.Argument(metavar="SRC", help="A damaged database directory.")],
    dst: Annotated[Path, typer.Argument(metavar="DST", help="A new or empty directory.")],
    older: Annotated[
        bool,
        typer.Option("--older", help="Where a key's newest version is damaged, write an older."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Copies what is provably whole of SRC, which is not written to, to a new database at DST, and
    lists the rest. Exit code 0: all is whole, 1: something is lost, 2: nothing could be done."""
    with progress("salvage", None, count=False) as advance_to:
        report = salvage_database(src, dst, older=older, progress=advance_to)
    if as_json:
        print_json(report)
    else:
        _print(report)
    if not report.ok:
        raise typer.Exit(NOT_FOUND)


def _print(report: SalvageReport) -> None:
    rows = [(name, one.kind, one.written, one.lost) for name, one in report.structures.items()]
    print_table(report.destination, ("structure", "kind", "written", "lost"), rows)
    if report.lost:
        columns = ("structure", "key", "lsn", "where", "why", "older version")
        lost = [
            (
                one.structure,
                " ".join(one.key),
                one.lsn,
                f"{one.file} offset {one.offset}",
                one.why,
                _older(one.older, one.older_written),
            )
            for one in report.lost[:_SHOWN]
        ]
        print_table(f"{report.lost_count:,} lost", columns, lost)
        if report.lost_count > len(lost):
            note(f"{report.lost_count - len(lost):,} more: --json lists them")
    if report.damage:
        found = [(one.file, one.offset, one.bytes, one.what) for one in report.damage[:_SHOWN]]
        print_table("Damage", ("file", "offset", "bytes", "what"), found)
    for gap in report.missing:
        last = "the end of the log" if gap.last is None else f"LSN {gap.last}"
        note(f"nothing is left from LSN {gap.first} to {last}: any key may have changed there")
    for lsn in report.unknown[:_SHOWN]:
        note(f"LSN {lsn} is damaged and may have changed other keys than those listed")
    if report.torn_tail is not None:
        note(report.torn_tail)
    for remark in report.notes:
        note(remark)
    whole = f"{report.whole:,} commits whole, {report.damaged:,} damaged"
    print_line(f"{report.destination}: {'nothing' if report.ok else 'something'} is lost; {whole}")


def _older(lsn: int | None, written: bool) -> str:
    if lsn is None:
        return "none"
    return f"LSN {lsn}, written" if written else f"LSN {lsn}, not written (--older)"
