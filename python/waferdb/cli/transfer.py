"""import and export: memories as JSON Lines.

One memory a line, with the names of `AgentMemory.remember`:

    {"text": …, "user": …, "topic": …, "key": …, "time": …, "fields": {…}, "vector": {"$f32": …}}

1. Only `text` is required. A line without a key gets one from its content, so every import can be
   repeated: a line whose key is already there is skipped, and an import that was stopped goes on.
2. What `export` writes, `import` reads back as the same memories.
3. One embedder call and one commit per 256 new lines; a bad line stops the import, says its
   number, and leaves what came before it in place.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, BinaryIO, TextIO

import typer

from .._memories import CHUNK_ITEMS, from_item
from ..agent_memory import AgentMemory
from ..structures import Rows, Vectors
from . import jsonform
from .options import Db, Json, open_to_read
from .output import note, print_json, print_line, progress

_OWN = ("text", "user", "topic", "time")
_LINE_BYTES_MAX = 64 << 20


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE.jsonl", help="- for standard input.")],
    db: Db,
    as_json: Json = False,
) -> None:
    """Remembers each line of a JSON Lines file; lines already there are skipped."""
    imported = skipped = lines = 0
    with _source(file) as (stream, total), AgentMemory(db) as memory:
        with progress(f"import {file.name}", total, count=False) as advance_to:
            numbered = enumerate(_lines(stream, file), start=1)
            while chunk := list(islice(numbered, CHUNK_ITEMS)):
                new, numbers, failure = _new_items(memory, chunk, file)
                memory._remember_many(new, "routine", _refused(file, numbers, imported))
                lines, imported = chunk[-1][0], imported + len(new)
                skipped += sum(1 for _, line in chunk if line.strip()) - len(new)
                if failure is not None:
                    failure.add_note(_mend(imported))
                    raise failure
                if total is not None:
                    advance_to(stream.tell(), None)
        lsn = memory.lsn
    if as_json:
        print_json({"imported": imported, "skipped": skipped, "lines": lines, "lsn": lsn})
    else:
        print_line(f"{db}: {imported:,} memories imported, {skipped:,} were already there")


def _refused(file: Path, numbers: list[int], imported: int) -> Callable[[int], str]:
    """What is added to the error of the n-th new item: its line, and what is there by then."""
    return lambda place: f"in {file}:{numbers[place]}; {_mend(imported + place)}"


def _mend(imported: int) -> str:
    return f"{imported} memories were imported; mend it and run again"


@contextmanager
def _source(file: Path) -> Iterator[tuple[BinaryIO, int | None]]:
    if str(file) == "-":
        yield sys.stdin.buffer, None
        return
    with file.open("rb") as stream:
        status = os.fstat(stream.fileno())
        yield stream, status.st_size or None


def _lines(stream: BinaryIO, file: Path) -> Iterator[bytes]:
    # `for line in stream` would make tell() fail and a line unbounded.
    while line := stream.readline(_LINE_BYTES_MAX + 1):
        if len(line) > _LINE_BYTES_MAX:
            raise ValueError(f"{file}: a line of more than {_LINE_BYTES_MAX >> 20} MiB")
        yield line


def _new_items(
    memory: AgentMemory, chunk: list[tuple[int, bytes]], file: Path
) -> tuple[list[dict[str, Any]], list[int], ValueError | None]:
    """The items of a chunk that are not there yet, up to a bad line; their lines; and what is
    wrong with the bad one."""
    items: dict[str, dict[str, Any]] = {}
    lines: dict[str, int] = {}
    failure = None
    for number, line in chunk:
        if not line.strip():
            continue
        try:
            item = _item(line)
            from_item(item, memory.embedder.dim, "routine")
        except (ValueError, TypeError) as error:
            failure = ValueError(f"{file}:{number}: {error}")
            break
        if item["key"] not in items:
            items[item["key"]], lines[item["key"]] = item, number
    present = memory.facts.get_many(list(items)) if items else []
    new = [key for key, row in zip(items, present, strict=True) if row is None]
    return [items[key] for key in new], [lines[key] for key in new], failure


def _item(line: bytes) -> dict[str, Any]:
    item = jsonform.loads(line)
    if not isinstance(item, dict):
        raise ValueError(f"a line is a JSON object, not {type(item).__name__}")
    if isinstance(time := item.get("time"), str):
        item["time"] = jsonform.untagged({"$time": time})
    if item.get("key") is None:
        item["key"] = "import:" + hashlib.sha256(line.strip()).hexdigest()[:32]
    return item


def export(
    db: Db,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file; or stdout.")
    ] = None,
    vectors: Annotated[bool, typer.Option(help="Write vectors too; else import embeds.")] = True,
    user: Annotated[str | None, typer.Option(help="Only this user's memories.")] = None,
    as_json: Json = False,
) -> None:
    """Writes every memory as a line of JSON that import reads back, with or without --json."""
    written = 0
    with open_to_read(db) as base:
        if "facts" not in base or not isinstance(base["facts"], Rows):
            raise ValueError(f"{db} holds no memories: it has no rows named 'facts'")
        facts = base["facts"]
        embeddings = base["embeddings"] if vectors and "embeddings" in base else None
        total = facts.count() if user is None else None
        with _sink(output) as write, progress("export", total) as advance_to:
            rows = facts.scan() if user is None else facts.find({"user": user})
            for key, row in rows:
                vector = embeddings.get(key) if isinstance(embeddings, Vectors) else None
                write(jsonform.dumps(_line(key, row, vector)))
                written += 1
                if written % 100 == 0:
                    advance_to(written, None)
            advance_to(written, None)
    if output is not None and as_json:
        print_json({"exported": written, "file": str(output)})
    elif output is not None:
        note(f"{written:,} memories written to {output}")


def _line(key: str, row: Mapping[str, Any], vector: Any) -> dict[str, Any]:
    if not isinstance(row.get("text"), str):
        raise ValueError(f"row {key!r} of facts has no text, so it is no memory")
    line: dict[str, Any] = {"key": key, **{name: row.get(name) for name in _OWN}}
    fields = {name: value for name, value in row.items() if name not in _OWN}
    if fields:
        line["fields"] = fields
    if vector is not None:
        line["vector"] = vector
    return line


@contextmanager
def _sink(output: Path | None) -> Iterator[Callable[[str], object]]:
    if output is None:
        yield typer.echo
        return
    # Complete or not there: a reader never meets half an export under the name it was asked for.
    partial = output.with_name(output.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8") as stream:
            yield _line_writer(stream)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(output)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _line_writer(stream: TextIO) -> Callable[[str], object]:
    return lambda line: stream.write(line + "\n")
