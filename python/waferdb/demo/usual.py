"""The same work the usual way: SQLite for rows, events, audit and context, a dict, a usearch file.

`python -m waferdb.demo.usual DIRECTORY FILES`, memories on stdin. FILES is 4 (a file per store, a
commit per store and memory) or 1 (one file, one commit per memory: kinder than most). SQLite runs
with WAL and synchronous=FULL. The vector index is saved every 500 memories and at the end, because
saving it at every memory would rewrite all of it each time: up to 500 vectors are lost in a crash.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..embedders import WordLlama
from .corpus import Item
from .process import SAVE_EVERY, read_items, say, written_by_this_process

_TABLES = {
    "facts": """
        CREATE TABLE facts (key TEXT PRIMARY KEY, user TEXT, topic TEXT, time TEXT, document TEXT);
        CREATE INDEX facts_user ON facts (user, time);
        CREATE INDEX facts_topic ON facts (topic);
        CREATE INDEX facts_by_user ON facts (user);""",
    "events": """
        CREATE TABLE events (id INTEGER PRIMARY KEY, time TEXT, kind TEXT, key TEXT, payload TEXT);
        CREATE INDEX events_key ON events (key);""",
    "audit": """
        CREATE TABLE audit (id INTEGER PRIMARY KEY, time TEXT, actor TEXT, key TEXT, hash BLOB);""",
    "context": """
        CREATE TABLE context (scope TEXT, name TEXT, document TEXT, PRIMARY KEY (scope, name));""",
}


class Stores:
    """The six stores of one agent, each where it usually is."""

    def __init__(self, directory: Path, files: int, dim: int) -> None:
        from usearch.index import Index

        directory.mkdir(parents=True)
        self._vector_file = directory / "vectors.usearch"
        self._index: Any = Index(ndim=dim, metric="cos", dtype="f32")
        self._session: dict[str, str] = {}
        self._chain = b""
        self.commits = 0
        names = {name: f"{name}.db" if files > 1 else "memory.db" for name in _TABLES}
        opened = {file: _open(directory / file) for file in sorted(set(names.values()))}
        self._of = {name: opened[file] for name, file in names.items()}
        self._files = list(opened.values())
        for name, tables in _TABLES.items():
            self._of[name].executescript(tables)

    def remember(self, number: int, item: Item, vector: Any) -> None:
        """The six writes of one memory."""
        now = datetime.now(UTC).isoformat()
        key, user, topic = item["key"], item["user"], item["topic"]
        document = json.dumps({"text": item["text"], "user": user, "topic": topic, "time": now})
        self._chain = hashlib.sha256(self._chain + key.encode() + document.encode()).digest()
        about = json.dumps({"user": user, "topic": topic})
        for store, statement, values in (
            (
                "facts",
                "INSERT INTO facts VALUES (?, ?, ?, ?, ?)",
                (key, user, topic, now, document),
            ),
            (
                "events",
                "INSERT INTO events (time, kind, key, payload) VALUES (?, ?, ?, ?)",
                (now, "memory.remembered", key, about),
            ),
            (
                "audit",
                "INSERT INTO audit (time, actor, key, hash) VALUES (?, ?, ?, ?)",
                (now, user, key, self._chain),
            ),
            ("context", "INSERT OR REPLACE INTO context VALUES (?, ?, ?)", (user, key, document)),
        ):
            self._of[store].execute(statement, values)
            if len(self._files) > 1:
                self._of[store].commit()
                self.commits += 1
        if len(self._files) == 1:
            self._files[0].commit()
            self.commits += 1
        self._session[key] = document
        self._index.add(number, vector)
        if (number + 1) % SAVE_EVERY == 0:
            self._index.save(str(self._vector_file))

    def close(self) -> None:
        """Saves the vectors and closes the files."""
        self._index.save(str(self._vector_file))
        for file in self._files:
            file.close()


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def main() -> None:
    """The child's whole life."""
    directory, files = Path(sys.argv[1]), int(sys.argv[2])
    items, embedder = read_items(), WordLlama()
    embedder(["a first call loads the model"])
    before = written_by_this_process()
    stores = Stores(directory, files, embedder.dim)
    started = time.perf_counter()
    for number, item in enumerate(items):
        stores.remember(number, item, embedder([item["text"]])[0])
    seconds = time.perf_counter() - started
    stores.close()
    after = written_by_this_process()
    wrote = None if before is None or after is None else after - before
    done = {"seconds": seconds, "memories": len(items), "commits": stores.commits, "wchar": wrote}
    say("done", json.dumps(done))


if __name__ == "__main__":
    main()
