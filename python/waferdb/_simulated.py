"""A database on a clock that moves only when told to, without threads: for tests and benchmarks.

Everything that threads would do in the background is done by `advance`, on the calling thread, at
the times at which they would have looked.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from waferdb import units
from waferdb.database import _RESERVED, Database, DynamicDatabase
from waferdb.schema import check
from waferdb.structures import Structure

__all__ = ["advance", "now", "open"]

_START_MICROS = 1_700_000_000_000_000
_TICK_MICROS = 50_000

Declared = type[Database] | Mapping[str, Structure]


def open(declared: Declared, path: str | os.PathLike[str] = ":memory:", **options: Any) -> Any:
    """The database of a class, or of a schema, as `waferdb.open` gives it; its options are those of
    `Database`, and `clock`, its first engine time in microseconds since 1970.

    >>> import waferdb
    >>> from waferdb import _simulated
    >>> db = _simulated.open({"facts": waferdb.Rows(policy=waferdb.hybrid("1s"))})
    >>> _ = db.facts.put("a", {"n": 1})
    >>> db.facts.read("a", consistency="eventual").freshness.behind
    1
    >>> _simulated.advance(db, 1)
    >>> db.facts.read("a", consistency="eventual").freshness.behind
    0
    """
    if isinstance(declared, type):
        database: Database = declared.__new__(declared)
        structures: Mapping[str, Structure] = declared._structures
    else:
        database = DynamicDatabase.__new__(DynamicDatabase)
        structures = declared
        check(structures, _RESERVED, "schema")
    given: dict[str, Any] = {
        "mode": "rw",
        "durability": "sync",
        "memory": "256MiB",
        "memtable": None,
        "waf_budget": None,
        "compression": None,
        "history": None,
        "create": True,
        "embedder": None,
        "clock": _START_MICROS,
    } | options
    database._open(path, structures, **given)
    return database


def advance(db: Database, seconds: units.Duration) -> None:
    """Moves the clock, and does what threads would have done meanwhile."""
    shared = db._scope.shared
    left = units.duration(seconds, "seconds")
    while True:
        step = min(left, _TICK_MICROS)
        shared.engine.advance(step)
        left -= step
        while shared.engine.step():
            pass
        shared.refresher.turn()
        if left <= 0:
            return


def now(db: Database) -> datetime:
    """Engine time."""
    return units.to_datetime(db._scope.shared.engine.now())
