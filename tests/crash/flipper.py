"""Flips bytes of a closed database, one at a time, and compares every answer with the sound one.

    python flipper.py DIRECTORY EXPECTED.pickle PROGRESS  < work

`work` is lines of `FILE OFFSET MASK MODE`. The directory is this process's own copy; each flip is
undone before the next. `PROGRESS` holds the flip under way, so that a dead process can be blamed on
it. One line of JSON per wrong outcome, and one with the counts at the end, go to standard output.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wafer_support import DIM, Memory, owner_of

import waferdb

Answers = dict[str, Any]
Question = Callable[[Any], Any]


def questions(keys: list[str]) -> dict[str, Question]:
    """Every read of every structure, by a name for the report."""
    asked: dict[str, Question] = {
        "lsn": lambda db: db.lsn,
        "facts.scan": lambda db: list(db.facts.scan()),
        "facts.reverse": lambda db: list(db.facts.scan(reverse=True)),
        "facts.find": lambda db: [list(db.facts.find({"user": f"{n:x}"})) for n in range(16)],
        "embeddings.keys": lambda db: sorted(db.embeddings.keys()),
        "embeddings.search": lambda db: [
            (hit.key, float(hit.distance), hit.row)
            for hit in db.embeddings.search([1.0] + [0.5] * (DIM - 1), k=1000)
        ],
        "events.scan": lambda db: [
            (e.lsn, e.index, e.time, e.kind, e.key, e.payload) for e in db.events.scan()
        ],
        "session.keys": lambda db: sorted(db.session.keys()),
        "context": lambda db: {scope: db.context.load(scope) for scope in db.context.scopes()},
        "graph.in": lambda db: [
            sorted((n.node, n.relation, str(n.props)) for n in found)
            for found in (
                db.entities.neighbors(owner, direction="in")
                for owner in sorted({owner_of(key) for key in keys})
            )
        ],
        "audit.head": lambda db: (db.audit.head().size, db.audit.head().root),
        "audit.entries": lambda db: [
            (e.lsn, e.index, e.time, e.actor, e.reason, e.leaf_hash) for e in db.audit.entries()
        ],
        "audit.leaves": lambda db: [db.audit.leaf(e.lsn) for e in db.audit.entries()],
        "changes": lambda db: [
            (c.lsn, c.time, c.txn, c.actor, c.reason, len(c.changes)) for c in db.changes()
        ],
    }
    for key in keys:
        asked[f"facts.get {key}"] = lambda db, key=key: db.facts.get(key)
        asked[f"embeddings.get {key}"] = lambda db, key=key: vector_bytes(db.embeddings.get(key))
        asked[f"session.get {key}"] = lambda db, key=key: db.session.get(key)
        asked[f"context.get {key}"] = lambda db, key=key: db.context.get(owner_of(key), key)
        asked[f"graph.out {key}"] = lambda db, key=key: [
            (n.node, n.relation, n.props) for n in db.entities.neighbors(key)
        ]
    return asked


def vector_bytes(vector: Any) -> bytes | None:
    return None if vector is None else vector.tobytes()


def observe(path: Path, keys: list[str], mode: str = "r") -> Answers:
    with Memory(path, mode=mode) as db:
        answers = {name: ask(db) for name, ask in questions(keys).items()}
        report = db.verify(deep=True)
        assert report.ok, report.problems
    return answers


def judge(path: Path, expected: Answers, keys: list[str], mode: str) -> tuple[str, list[str]]:
    """(outcome, what is wrong) of opening and reading a damaged database."""
    wrong: list[str] = []
    refused = 0
    try:
        with Memory(path, mode=mode) as db:
            for name, ask in questions(keys).items():
                try:
                    answer = ask(db)
                except waferdb.CorruptionError as error:
                    refused += 1
                    if len(str(error)) < 20:
                        wrong.append(f"{name}: CorruptionError says too little: {error}")
                except Exception as error:  # noqa: BLE001 - any untyped error is the finding
                    wrong.append(f"{name}: {type(error).__name__}: {error}")
                else:
                    if answer != expected[name]:
                        wrong.append(f"{name}: wrong data: {str(answer)[:200]}")
            try:
                report = db.verify(deep=True)
                if refused and report.ok:
                    wrong.append("verify says ok where a read is refused")
            except waferdb.CorruptionError:
                refused += 1
            return ("read refused" if refused else "right"), wrong
    except (waferdb.CorruptionError, waferdb.FormatError) as error:
        if len(str(error)) < 20:
            wrong.append(f"{type(error).__name__} says too little: {error}")
        return f"open: {type(error).__name__}", wrong
    except Exception:  # noqa: BLE001 - any untyped error is the finding
        return "open: untyped", [*wrong, traceback.format_exc()[-600:]]


def main() -> None:
    directory, expected_file, progress_file = map(Path, sys.argv[1:])
    keys, expected = pickle.loads(expected_file.read_bytes())
    counts: Counter[str] = Counter()
    scratch = directory.with_suffix(".rw")
    with progress_file.open("w") as progress:
        for line in sys.stdin:
            name, offset_text, mask_text, mode = line.split()
            progress.seek(0)
            progress.write(f"{line.strip():<80}")
            progress.flush()
            offset, mask = int(offset_text), int(mask_text)
            place = directory
            if mode == "rw":
                shutil.rmtree(scratch, ignore_errors=True)
                shutil.copytree(directory, scratch)
                place = scratch
            handle = os.open(place / name, os.O_RDWR)
            original = os.pread(handle, 1, offset)
            os.pwrite(handle, bytes([original[0] ^ mask]), offset)
            outcome, wrong = judge(place, expected, keys, mode)
            os.pwrite(handle, original, offset)
            os.close(handle)
            counts[outcome] += 1
            if wrong:
                report = {"flip": line.strip(), "outcome": outcome, "wrong": wrong[:5]}
                print(json.dumps(report), flush=True)
    print(json.dumps({"counts": dict(counts)}), flush=True)


if __name__ == "__main__":
    main()
