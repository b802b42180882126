"""A run on the terminal: a line while it goes, tables when it is done."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from benchmarks import report as reporting
from benchmarks.report import Report, Table
from benchmarks.targets import Row
from benchmarks.workloads import WORKLOADS

_STYLES = {"met": "green", "missed": "bold red", "not": "yellow"}

# Wide enough for every table where the output goes to a file.
_FILE_COLUMNS = 240


class Terminal:
    """Prints to one console."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        if not self._console.is_terminal:
            self._console.width = max(self._console.width, _FILE_COLUMNS)

    def row(self, row: Row) -> None:
        """One measurement has ended."""
        key, what = WORKLOADS[row["workload"]].plotted
        value = row["found"].get(key)
        shown = row["problem"] or ("" if value is None else f"{value:,.2f} {what}")
        name = f"{row['workload']}: {row['case']}"
        line = Text(f"{name:52} {row['peer']:13} round {row['round'] + 1}  {shown}")
        self._console.print(line, soft_wrap=True)

    def report(self, report: Report) -> None:
        """All tables."""
        self._console.print(f"\n{report.machine}", soft_wrap=True)
        named = None
        for table in report.tables:
            if table.workload != named:
                named = table.workload
                for line in reporting.about(WORKLOADS[named]):
                    self._console.print(Text(f"\n{line}", style="dim"))
            self._table(table)
        if report.verdicts:
            lines = [reporting.verdict_line(verdict) for verdict in report.verdicts]
            self._grid("Targets", ("case", "figure", "target", "measured", ""), lines)

    def _table(self, table: Table) -> None:
        self._grid(table.title, table.header, table.rows)
        for note in table.notes:
            self._console.print(Text(f"  {note}", style="dim"))
        for verdict in table.verdicts:
            _, what, bound, value, word = reporting.verdict_line(verdict)
            style = _STYLES[word.split(" ")[0]]
            self._console.print(Text(f"  target {what} {bound}: {value} {word}", style=style))

    def _grid(self, title: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
        grid = RichTable(box=SIMPLE_HEAD, title=title, title_justify="left", title_style="bold")
        for number, heading in enumerate(header):
            grid.add_column(heading, justify="left" if number == 0 else "right")
        for row in rows:
            grid.add_row(*(Text(cell, style=_STYLES.get(cell.split(" ")[0], "")) for cell in row))
        self._console.print(grid)
