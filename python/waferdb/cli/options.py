"""Options that several commands share, and how a command opens its database."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..agent_memory import AgentMemory
from ..database import Database, DynamicDatabase
from ..database import open as open_database
from ..errors import PathNotFoundError, ReadOnlyError, SchemaError

Db = Annotated[
    Path,
    typer.Option("--db", "-d", envvar="WAFERDB", help="The database directory (or $WAFERDB)."),
]
Json = Annotated[bool, typer.Option("--json", help="JSON for programs, one document a line.")]


def open_to_read(path: Path) -> DynamicDatabase:
    """The database as it is stored, read-only: nothing at all is written."""
    _check_there(path)
    return open_database(path, mode="r")


def open_memory_to_read(path: Path) -> AgentMemory:
    """The database as an agent's memory, read-only."""
    _check_there(path)
    try:
        return AgentMemory(path, mode="r", create=False)
    except (ReadOnlyError, SchemaError):
        with open_to_read(path) as base:
            missing = [name for name in ("facts", "embeddings") if name not in base]
        if missing:
            raise ValueError(f"{path} holds no memories: it has no {missing[0]!r}") from None
        raise


def _check_there(path: Path) -> None:
    if not path.exists():
        raise PathNotFoundError(
            f"no database at {path}; make one with  waferdb import FILE --db {path}"
        )


def structure(db: Database, name: str) -> Any:
    """The structure of that name; `ValueError` names those there are."""
    if name not in db:
        raise ValueError(f"no structure {name!r} in this database: it has {', '.join(db)}")
    return db[name]
