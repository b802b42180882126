"""Options that several commands share, and how a command opens its database."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..database import Database, DynamicDatabase
from ..database import open as open_database

Db = Annotated[
    Path,
    typer.Option("--db", "-d", envvar="WAFERDB", help="The database directory (or $WAFERDB)."),
]
Json = Annotated[bool, typer.Option("--json", help="JSON for programs, one document a line.")]


def open_to_read(path: Path) -> DynamicDatabase:
    """The database as it is stored, read-only: nothing at all is written."""
    return open_database(path, mode="r")


def structure(db: Database, name: str) -> Any:
    """The structure of that name; `ValueError` names those there are."""
    if name not in db:
        raise ValueError(f"no structure {name!r} in this database: it has {', '.join(db)}")
    return db[name]
