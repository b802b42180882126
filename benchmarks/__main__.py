"""`python -m benchmarks`: runs workloads and shows what they found.

Exit codes: 0 everything asked for was measured; 1 a measurement failed or was left out; 2 the run
could not begin; 130 it was interrupted.
A missed target is no failure: it may be the machine's, and it is said in every output.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import compare, harness, outputs, report
from benchmarks.device import place
from benchmarks.sizes import SIZES
from benchmarks.terminal import Terminal
from benchmarks.workloads import WORKLOADS
from benchmarks.workloads.text import LOCOMO

_HERE = Path(__file__).resolve().parent
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def _names(given: str | None, known: tuple[str, ...], what: str) -> tuple[str, ...]:
    names = known if given in (None, "all") else tuple(str(given).split(","))
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"{name!r} is no {what}: there are {', '.join(known)}")
    return names


@app.command()
def main(
    workload: Annotated[
        str | None, typer.Option(help=f"all, or some of {','.join(WORKLOADS)}")
    ] = None,
    peers: Annotated[
        str | None, typer.Option(help=f"all installed, or some of {','.join(compare.known())}")
    ] = None,
    size: Annotated[str, typer.Option(help=", ".join(SIZES))] = "small",
    n: Annotated[int | None, typer.Option(min=1, help="how many, in place of the size's")] = None,
    case: Annotated[str | None, typer.Option(help="only cases whose name has this in it")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="rounds of waferdb")] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.01, help="most that one closed loop takes")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.01, help="no measurement begins later")
    ] = None,
    memtable: Annotated[float, typer.Option(min=0.001, help="MiB, unless a case says")] = 8,
    directory: Annotated[
        Path | None, typer.Option(help="measure here, without a device of its own")
    ] = None,
    image: Annotated[int | None, typer.Option(min=64, help="MiB of the device's image")] = None,
    results: Annotated[Path | None, typer.Option(help="where JSON, Markdown and HTML go")] = None,
    locomo: Annotated[Path | None, typer.Option(help=f"LoCoMo's JSON, else ${LOCOMO}")] = None,
) -> None:
    """Measures waferdb beside its peers."""
    if size not in SIZES:
        raise typer.BadParameter(f"{size!r} is no size: there are {', '.join(SIZES)}")
    asked: dict[str, Any] = {
        "rounds": rounds,
        "seconds": seconds,
        "minutes": minutes,
        "image_bytes": None if image is None else image << 20,
    }
    sizes = dataclasses.replace(
        SIZES[size], **{name: value for name, value in asked.items() if value is not None}
    )
    workloads = _names(workload, tuple(WORKLOADS), "workload")
    try:
        names = harness.installed(None if peers in (None, "all") else str(peers).split(","))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if locomo is not None:
        os.environ[LOCOMO] = str(locomo.resolve())
    harness.environment_ready()
    terminal = Terminal()
    with place(sizes.image_bytes, directory) as where:
        run = harness.Run(sizes, where, names, round(memtable * (1 << 20)), n=n, shown=terminal.row)
        interrupted = False
        try:
            for name in workloads:
                run.workload(name, case)
        except KeyboardInterrupt:
            # What was measured before is shown all the same.
            interrupted = True
    found = report.made(run.facts, run.rows)
    terminal.report(found)
    if found.rows:
        for path in outputs.write(found, results or _HERE / "results"):
            typer.echo(path)
    failed = any(row["problem"] and not row["refused"] for row in run.rows)
    raise typer.Exit(130 if interrupted else int(failed))


if __name__ == "__main__":
    app()
