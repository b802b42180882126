"""The commands that read: stats, verify, tail, get, find, search, events.

They open the database with mode="r", so they write nothing; while a writer has it open they are
told so. `search` needs the embedder; the others need no class and no extra package.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import islice
from typing import Annotated, Any

import typer

from ..errors import CorruptionError
from ..results import Problem, Report
from ..structures import Cache, Context, Events, Graph, Rows, Vectors
from . import jsonform
from .options import Db, Json, open_memory_to_read, open_to_read, structure
from .output import (
    NOT_FOUND,
    not_found,
    print_json,
    print_line,
    print_table,
    progress,
    shown,
    size,
)

Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many.")]


def stats(db: Db, as_json: Json = False) -> None:
    """What is inside: structures, files, and the write meter since the database was opened."""
    with open_to_read(db) as base:
        found = jsonform.plain(base.stats())
        counts = {name: _count(base[name]) for name in base}
        kinds = {name: type(base[name]).__name__.lower() for name in base}
        lsn = base.lsn
    if as_json:
        structures = {name: {"kind": kinds[name], "count": counts[name]} for name in counts}
        print_json({"path": str(db), "lsn": lsn, "structures": structures, **found})
        return
    rows = [(name, kinds[name], counts[name]) for name in counts]
    print_table(f"{db}: {lsn:,} commits", ("structure", "kind", "entries"), rows)
    files = found.get("files") or {}
    pairs = files.items() if isinstance(files, Mapping) else [tuple(part) for part in files]
    print_table("Files", ("file", "size"), [(name, size(count)) for name, count in pairs])
    simple = [
        (name.replace("_", " "), value)
        for name, value in found.items()
        if name not in {"files", "lsn"} and not isinstance(value, Mapping | list)
    ]
    print_table("Since open", ("measure", "value"), [(n, shown(v)) for n, v in simple])


def _count(handle: Any) -> int | None:
    if isinstance(handle, Context):
        return sum(len(handle.load(scope)) for scope in handle.scopes())
    counter = getattr(handle, "count", None)
    if counter is not None:
        return int(counter())
    head = getattr(handle, "head", None)
    if head is not None:
        return int(head().size)
    return sum(1 for _ in handle.scan()) if isinstance(handle, Events) else None


def verify(
    db: Db,
    deep: Annotated[bool, typer.Option(help="Derive every structure from the log again.")] = False,
    as_json: Json = False,
) -> None:
    """Checks every checksum and every fact between structures. Exit code 1 for a problem."""
    try:
        with open_to_read(db) as base, progress("verify", None) as advance_to:
            report = base.verify(deep=deep, progress=advance_to)
    except CorruptionError as error:
        # Damage that keeps the database from opening is this command's answer, not its failure.
        lost = "not known: the database does not open"
        report = Report(False, (Problem(str(db), None, str(error), lost),), {})
    if as_json:
        print_json(report)
    elif report.ok:
        print_line(f"{db}: sound")
    else:
        columns = ("where", "lsn", "what", "lost")
        problems = [jsonform.plain(problem) for problem in report.problems]
        print_table(
            f"{db}: {len(problems)} problem{'s' if len(problems) != 1 else ''}",
            columns,
            [[problem.get(name) for name in columns] for problem in problems],
        )
    if not report.ok:
        raise typer.Exit(NOT_FOUND)


def tail(db: Db, limit: Limit = 20, as_json: Json = False) -> None:
    """The last commits: who, why and what changed."""
    with open_to_read(db) as base:
        commits = [_commit(found) for found in base.changes(after=max(0, base.lsn - limit))]
    if as_json:
        for commit in commits:
            print_json(commit)
        return
    rows = [
        (
            commit["lsn"],
            commit["time"],
            commit["actor"],
            commit["reason"],
            "\n".join(f"{c['structure']}.{c['kind']} {shown(c['key'])}" for c in commit["changes"]),
        )
        for commit in commits
    ]
    print_table(str(db), ("lsn", "time", "actor", "reason", "changes"), rows)


def _commit(commit: Any) -> dict[str, Any]:
    """A commit without the values: `get` shows those."""
    names = ("structure", "kind", "key")
    changes = [{name: getattr(change, name) for name in names} for change in commit.changes]
    head = {name: getattr(commit, name) for name in ("lsn", "time", "txn", "actor", "reason")}
    return {**head, "changes": changes}


def get(
    db: Db,
    name: Annotated[str, typer.Argument(metavar="STRUCTURE")],
    key: Annotated[list[str], typer.Argument(help="The key; for a context: SCOPE [NAME].")],
    as_json: Json = False,
) -> None:
    """One value of a structure, with its version. Exit code 1 if it is not there."""
    with open_to_read(db) as base:
        found = _get(structure(base, name), name, key)
    if found is None:
        raise not_found(f"{name} has no {' '.join(map(repr, key))}")
    if as_json:
        print_json({"structure": name, "key": key[0] if len(key) == 1 else key, **found})
        return
    value = found.pop("value")
    fields = value if isinstance(value, Mapping) else {"value": value}
    # A document may have fields of these names, so those of its commit say whose they are.
    commit = {f"commit's {field}": part for field, part in found.items()}
    rows = [(field, shown(part)) for field, part in [*fields.items(), *commit.items()]]
    print_table(f"{name} {' '.join(key)}", ("field", "value"), rows)


def _get(handle: Any, name: str, key: list[str]) -> dict[str, Any] | None:
    if isinstance(handle, Context):
        if len(key) == 1:
            scope = handle.load(key[0])
            return {"value": scope} if scope else None
        if len(key) != 2:
            raise ValueError(f"{name} has entries by SCOPE and NAME, not by {len(key)} parts")
        return _read(handle.read(*key))
    if len(key) != 1:
        raise ValueError(f"{name} has keys of one part, not of {len(key)}")
    if isinstance(handle, Graph):
        edges = [jsonform.plain(edge) for edge in handle.edges(key[0])]
        return {"value": {"edges": edges}} if edges else None
    if isinstance(handle, Rows | Vectors | Cache):
        return _read(handle.read(_key(handle, key[0])))
    raise ValueError(f"{name} has no values by key: try  waferdb events  or  waferdb tail")


def _read(read: Any) -> dict[str, Any] | None:
    if read.version is None:
        return None
    return {"value": read.value, "version": read.version, "time": read.time}


def _key(handle: Any, key: str) -> Any:
    return os.fsencode(key) if isinstance(handle, Rows) and handle.codec == "raw" else key


def find(
    db: Db,
    name: Annotated[str, typer.Argument(metavar="STRUCTURE")],
    where: Annotated[
        str,
        typer.Option(
            help='JSON: {"user": "ann"}; a list means any of; {"$range": [low, high]} from low to '
            'below high, null for open; {"$time": "2026-01-31T09:30:00Z"} for a time.'
        ),
    ] = "{}",
    order: Annotated[str | None, typer.Option(help="A field; -field descends.")] = None,
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """Rows by their fields. Exit code 1 if none match."""
    wanted = jsonform.loads(where)
    if not isinstance(wanted, dict):
        raise ValueError('--where is a JSON object, such as {"user": "ann"}')
    with open_to_read(db) as base:
        rows = structure(base, name)
        if not isinstance(rows, Rows):
            raise ValueError(f"find reads rows, and {name} is of kind {type(rows).__name__}")
        found = list(rows.find(wanted, order=order, limit=limit))
    if as_json:
        for key, value in found:
            print_json({"key": key, "value": value})
    elif found:
        fields = list(dict.fromkeys(field for _, row in found for field in row))
        table = [(key, *(shown(row.get(field)) for field in fields)) for key, row in found]
        print_table(name, ("key", *fields), table)
    if not found:
        raise not_found("no row matches")


def search(
    db: Db,
    text: Annotated[str, typer.Argument(help="What to look for, in your own words.")],
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="How many at most.")] = 5,
    user: Annotated[str | None, typer.Option(help="Only this user's memories.")] = None,
    where: Annotated[str, typer.Option(help="A filter as for find.")] = "{}",
    as_json: Json = False,
) -> None:
    """Memories by meaning, best first. Exit code 1 if there are none."""
    wanted = jsonform.loads(where)
    if not isinstance(wanted, dict):
        raise ValueError('--where is a JSON object, such as {"topic": "contact"}')
    with open_memory_to_read(db) as memory:
        found = memory.recall(text, k, user=user, where=wanted)
    if as_json:
        for memory_found in found:
            print_json(memory_found)
    elif found:
        rows = [(f"{r.score:.3f}", r.key, r.user, r.topic, r.text) for r in found]
        print_table(text, ("score", "key", "user", "topic", "text"), rows)
    if not found:
        raise not_found("no memory matches")


def events(
    db: Db,
    name: Annotated[str, typer.Option("--structure", help="Which event log.")] = "events",
    kind: Annotated[str | None, typer.Option(help="Only events of this kind.")] = None,
    key: Annotated[str | None, typer.Option(help="Only events about this key.")] = None,
    after: Annotated[int | None, typer.Option(help="Only after this LSN: from there on.")] = None,
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """The newest events, or with --after the first ones after an LSN; oldest first."""
    with open_to_read(db) as base:
        log = structure(base, name)
        if not isinstance(log, Events):
            raise ValueError(f"{name} is no event log, but of kind {type(log).__name__}")
        newest = after is None
        scan = log.scan(after=after, kind=kind, key=key, limit=limit, reverse=newest)
        found = list(islice(scan, limit))
    if newest:
        found.reverse()
    if as_json:
        for event in found:
            print_json(event)
        return
    rows = [(e.lsn, e.time, e.kind, e.key, shown(e.payload)) for e in found]
    print_table(name, ("lsn", "time", "kind", "key", "payload"), rows)
