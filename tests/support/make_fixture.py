"""Makes a fixture directory of the present format: a database as this build writes it, and damaged.

Run once per format version, and never again over a committed one: a fixture says how databases of
that format were written, for ever. `python tests/support/make_fixture.py tests/fixtures/format-1`
makes `sound/` (closed cleanly, in two sessions), `damaged/` (the same with one flipped bit in a
value) and `expected.json`, which is everything a reader must answer.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import log_reader
import numpy as np

from waferdb import Audit, Cache, Context, Database, Events, Graph, Rows, Vectors, hybrid

DIM = 8


class Fixture(Database):
    """Every kind of structure, with every option that the format knows."""

    facts = Rows(indexes=["user", ("user", "time")], unique=["email"])
    blobs = Rows(codec="raw")
    embeddings = Vectors(dim=DIM, metric="cosine", rows="facts", policy=hybrid())
    session = Cache(ttl="36500d")
    events = Events(capture=["facts"])
    audit = Audit()
    context = Context()
    entities = Graph()


def write(path: Path) -> None:
    with Fixture(path) as db:
        for n in range(3):
            key = f"memory/{n}"
            document = {
                "user": "ann" if n else "bob",
                "time": n - 1,
                "email": f"{n}@example.org",
                "text": f"memory {n}: " + "prefers email over Slack, " * 2,
                "tags": ["é", None, True, 1.5, b"\x00\xff", -(2**63), 2**64 - 1],
            }
            txn = f"import-{n}" if n else None
            with db.transaction(txn=txn, actor="planner", reason=f"because {n}") as tx:
                tx.facts.put(key, document)
                tx.embeddings.put(key, np.arange(DIM, dtype=np.float32) - n)
                tx.session.put(key, document)
                tx.events.append("remembered", {"n": n}, key=key)
                tx.context.set("ann", key, document)
                tx.entities.link("ann", "knows", key, {"n": n} if n else None)
        db.blobs.put(b"\x00raw\xff", bytes(range(256)))
        time.sleep(1.5)  # for the mark of an idle second
    with Fixture(path) as db:
        with db.transaction(priority="critical") as tx:
            tx.facts.patch("memory/1", {"text": "prefers telephone"})
            tx.facts.delete("memory/0")
            tx.entities.unlink("ann", "knows", "memory/0")
        with db.transaction(reason="asked to") as tx:
            tx.facts._forget("memory/2")
            tx.events._forget("memory/2")
            tx.context._forget("ann", "memory/2")
        db.context.delete("bob")


def answers(path: Path) -> dict[str, Any]:
    """What a reader of `path` is told, as JSON."""
    with Fixture(path, mode="r") as db:
        past = db.snapshot(as_of=3)
        head = db.audit.head()
        return {
            "lsn": db.lsn,
            "facts": plain(list(db.facts.scan())),
            "facts of ann": plain(list(db.facts.find({"user": "ann"}))),
            "facts as of 3": plain(list(past.facts.scan())),
            "blobs": plain(list(db.blobs.scan())),
            "embeddings": {key: db.embeddings.get(key).tolist() for key in db.embeddings},
            "session": {key: plain(db.session.get(key)) for key in db.session},
            "events": [
                [event.lsn, event.index, event.time.isoformat(), event.kind, event.key]
                for event in db.events.scan()
            ],
            "payloads": [plain(event.payload) for event in db.events.scan()],
            "context": {scope: plain(db.context.load(scope)) for scope in db.context.scopes()},
            "graph": plain([[e.node, e.relation, e.props] for e in db.entities.neighbors("ann")]),
            "audit": [head.size, head.root.hex()],
            "leaves": [db.audit.leaf(entry.lsn).hex() for entry in db.audit.entries()],
            "changes": [
                [change.lsn, change.time.isoformat(), change.txn, change.actor, change.reason]
                for change in db.changes()
            ],
            "outcome": db.outcome("import-1"),
        }


def plain(value: Any) -> Any:
    """A value in JSON; bytes as {"bytes": hexadecimal}, pairs as lists."""
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def make(folder: Path) -> None:
    folder.mkdir(parents=True)
    sound, damaged = folder / "sound", folder / "damaged"
    write(sound)
    (sound / "LOCK").unlink(missing_ok=True)
    expected = {
        "files": {
            str(file.relative_to(sound)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(sound.rglob("*"))
            if file.is_file()
        },
        "answers": answers(sound),
    }
    text = json.dumps(expected, indent=1, ensure_ascii=False)
    (folder / "expected.json").write_text(text + "\n", encoding="utf-8")
    shutil.copytree(sound, damaged)
    log = log_reader.read_log(sound)
    stored = next(
        operation for operation in log.commits[0].operations if operation.form == log_reader.STORED
    )
    file = damaged / "log" / "00000001.wal"
    data = bytearray(file.read_bytes())
    data[data.index(stored.value, stored.offset) + 5] ^= 0x10
    file.write_bytes(data)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
