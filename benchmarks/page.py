"""The report as one HTML page that asks nobody for anything: styles and plots are inside.

Plots are SVG made by matplotlib, one for each table with figures to compare, and one of the targets
by how far each is met.
"""

from __future__ import annotations

import io
import json
import re
from html import escape
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

mpl.use("svg")

import numpy as np
from matplotlib import pyplot as plt
from matplotlib import ticker

from benchmarks import report as reporting
from benchmarks.targets import SUBJECT
from benchmarks.workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.report import Report, Table

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem;
  color: #1b1b1b; background: #fff; }
table { border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums;
  font-size: 13px; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid #ddd; padding: .2rem .6rem; text-align: right;
  white-space: nowrap; }
th:first-child, td:first-child, .words td { text-align: left; }
.words td { white-space: normal; }
.met { color: #17652a; } .missed { color: #b3261e; font-weight: 600; } .not { color: #7a5b00; }
.note { color: #555; font-size: 13px; margin: .1rem 0; }
svg { max-width: 100%; height: auto; }
"""
_OWN, _OTHER = "#1f6f8b", "#b9c4c9"
_ALSO = {"device_per_logical": "device bytes per logical byte", "p99_us": "p99 in µs"}
_FIRST_WORD = re.compile(r"^(met|missed|not)\b")
# What the drawing library says of itself; without it the page names no address but XML's own.
_METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)


def made(report: Report) -> str:
    """The page."""
    parts = [f"<h1>waferdb benchmarks</h1><p>{escape(report.machine)}.</p>"]
    if not report.facts["device"]:
        parts.append("<p>No device of its own: bytes are wchar, what the process handed over.</p>")
    parts.append("<h2>Targets</h2>")
    header = ("case", "figure", "target", "measured", "")
    parts.append(_grid(header, [reporting.verdict_line(verdict) for verdict in report.verdicts]))
    parts.append("<h2>How durable each store is</h2>")
    parts.append(_grid(reporting.DURABILITY, reporting.durability(report), words=True))
    named = None
    for number, table in enumerate(report.tables):
        if table.workload != named:
            named = table.workload
            parts.append(f"<h2>{escape(named)}</h2>")
            parts += [f"<p>{escape(line)}</p>" for line in reporting.about(WORKLOADS[named])]
        parts.append(_section(table, number))
    data = json.dumps({"facts": report.facts, "rows": report.rows}).replace("</", "<\\/")
    parts.append(f'<script type="application/json" id="rows">{data}</script>')
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>waferdb benchmarks</title>'
    return f"{head}<style>{_STYLE}</style>\n" + "\n".join(parts) + "\n</html>\n"


def _section(table: Table, number: int) -> str:
    parts = [f"<h3>{escape(table.case)}</h3>", _grid(table.header, table.rows)]
    parts += [f'<p class="note">{escape(note)}</p>' for note in table.notes]
    for verdict in table.verdicts:
        _, what, bound, value, word = reporting.verdict_line(verdict)
        line = f"target {what} {bound}: {value} "
        parts.append(f'<p class="note">{escape(line)}{_word(word)}</p>')
    parts.append(_curve(table, number) if WORKLOADS[table.workload].curve else _bars(table, number))
    return "\n".join(parts)


def _grid(header: Iterable[str], rows: Iterable[Iterable[str]], words: bool = False) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{_word(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    kind = ' class="words"' if words else ""
    return f"<table{kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _word(cell: str) -> str:
    """A cell; a verdict in its colour."""
    found = _FIRST_WORD.match(cell)
    text = escape(cell)
    return f'<span class="{found[1]}">{text}</span>' if found else text


def _bars(table: Table, number: int) -> str:
    """Bars of the figure that the workload is about, and of the bytes where there are any."""
    key, what = WORKLOADS[table.workload].plotted
    of_workload = {column.key for column in WORKLOADS[table.workload].columns}
    panels = {key: what}
    for other, name in _ALSO.items():
        if other in of_workload:
            panels.setdefault(other, name)
    shown = [
        (name, values)
        for panel, name in panels.items()
        if (values := _values(table, panel)) and len(values) > 1
    ]
    return _figure(shown, f"plot{number}") if shown else ""


def _values(table: Table, key: str) -> dict[str, float]:
    return {peer: found[key] for peer, found in table.medians.items() if found.get(key, 0) > 0}


def _curve(table: Table, number: int) -> str:
    """The lines of a table as points; those that are `joined` by a line in the order of x."""
    curve = WORKLOADS[table.workload].curve
    if curve is None:
        return ""
    x, x_name, y, y_name = curve
    points = {
        name: (found[x], found[y], bool(found.get("joined")))
        for name, found in table.medians.items()
        if x in found and found.get(y, 0) > 0
    }
    if not points:
        return ""
    with _drawing(f"plot{number}"):
        figure, axes = plt.subplots(1, 1, figsize=(7.8, 3.9), squeeze=False)
        axis = axes[0, 0]
        line = sorted((across, up) for across, up, joined in points.values() if joined)
        axis.plot(*np.array(line).reshape(-1, 2).T, color=_OTHER, zorder=1)
        for name, (across, up, joined) in points.items():
            # Names of the others are below, so that two at one place can be read.
            colour, marker, place = ("#444", "o", (4, 5)) if joined else (_OWN, "D", (4, -11))
            axis.scatter([across], [up], color=colour, marker=marker, s=28, zorder=2)
            axis.annotate(
                name, (across, up), place, textcoords="offset points", fontsize=8, color=colour
            )
        axis.set_xscale("symlog", linthresh=0.01)
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_minor_formatter(ticker.NullFormatter())
        for side in (axis.xaxis, axis.yaxis):
            side.set_major_formatter(_number)
        axis.margins(x=0.15, y=0.15)
        axis.set_xlim(left=0)
        axis.set_xlabel(x_name, fontsize=9)
        axis.set_title(f"{table.case}: {y_name}", fontsize=9, loc="left")
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        return _svg(figure)


def _drawing(name: str) -> Any:
    """As SVG with its text as text, the same in each run."""
    salted: Any = {"svg.fonttype": "none", "svg.hashsalt": name}
    return mpl.rc_context(salted)


def _svg(figure: Any) -> str:
    figure.tight_layout()
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    plt.close(figure)
    text = _METADATA.sub("", drawn.getvalue())
    return text[text.index("<svg") :]


def _figure(panels: list[tuple[str, dict[str, float]]], name: str) -> str:
    """Horizontal bars side by side, on logarithmic axes where values differ much."""
    most = max(len(values) for _, values in panels)
    with _drawing(name):
        figure, axes = plt.subplots(
            1, len(panels), figsize=(3.9 * len(panels), 0.6 + 0.3 * most), squeeze=False
        )
        for axis, (title, values) in zip(axes[0], panels, strict=True):
            names = list(values)[::-1]
            colours = [_OWN if peer == SUBJECT else _OTHER for peer in names]
            bars = axis.barh(names, [values[peer] for peer in names], color=colours)
            axis.bar_label(bars, fmt=_number, fontsize=8, padding=2)
            if max(values.values()) > 20 * min(values.values()):
                axis.set_xscale("log")
            axis.xaxis.set_major_formatter(_number)
            axis.margins(x=0.25)
            axis.set_title(title, fontsize=9, loc="left")
            axis.tick_params(labelsize=8)
            axis.spines[["top", "right"]].set_visible(False)
        return _svg(figure)


def _number(value: float, _: int = 0) -> str:
    """A figure short enough for an axis."""
    for size, name in ((1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{name}"
    return f"{value:.3g}"
