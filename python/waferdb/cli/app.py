"""The commands, and what their errors look like: one line on stderr and exit code 2, no traceback.

Exit codes: 0 done; 1 the command ran and the answer is no (a problem found by `verify` or `demo`,
something lost at `salvage`, a key or a match not found); 2 the command could not run.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from ..errors import WaferError
from . import demo, reading, salvaging, transfer
from .output import ERROR, note

_EXPECTED = (WaferError, OSError, ValueError, TypeError, ImportError, LookupError)


class _Commands(TyperGroup):
    """A command group whose expected errors are one line with the way out."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # The reader of our output (`| head`) has all it wanted.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except _EXPECTED as error:
            if os.environ.get("WAFERDB_TRACEBACK"):
                raise
            note(f"error: {_one_line(error)}")
            raise typer.Exit(ERROR) from None


def _one_line(error: BaseException) -> str:
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    parts = [str(message) or type(error).__name__, *getattr(error, "__notes__", ())]
    return " ".join("; ".join(parts).split())


app = typer.Typer(
    name="waferdb",
    cls=_Commands,
    help="One database for an agent's memory. Every command takes --json; exit code 0 done, "
    "1 a problem found or nothing found, 2 an error.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.command("demo")(demo.demo)
app.command("import")(transfer.import_)
app.command("export")(transfer.export)
app.command("stats")(reading.stats)
app.command("verify")(reading.verify)
app.command("salvage")(salvaging.salvage)
app.command("tail")(reading.tail)
app.command("get")(reading.get)
app.command("find")(reading.find)
app.command("search")(reading.search)
app.command("events")(reading.events)
