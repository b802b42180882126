"""The peer: the six writes in one transaction of SQLite with sqlite-vec, one writer.

WAL and synchronous=FULL, so that each commit is durable, as waferdb's are. Kinder to SQLite than
most users: one file, one commit, prepared statements, no hash chain in the audit table, and the
document is encoded once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import apsw
import msgpack
import sqlite_vec

from workload import DIM, Item

NAME = f"SQLite {apsw.sqlite_lib_version()} + sqlite-vec {sqlite_vec.__version__}"
_TABLES = f"""
CREATE TABLE facts (id INTEGER PRIMARY KEY, key TEXT UNIQUE, user TEXT, time INT, document BLOB);
CREATE INDEX facts_user ON facts (user);
CREATE INDEX facts_time ON facts (time);
CREATE VIRTUAL TABLE embeddings USING vec0 (embedding float[{DIM}]);
CREATE TABLE events (id INTEGER PRIMARY KEY, time INT, kind TEXT, key TEXT, payload BLOB);
CREATE TABLE audit (id INTEGER PRIMARY KEY, time INT, actor TEXT, reason TEXT, key TEXT);
CREATE TABLE cache (key TEXT PRIMARY KEY, expires INT, document BLOB);
CREATE TABLE context (scope TEXT, name TEXT, document BLOB, PRIMARY KEY (scope, name));
"""


class SqliteSix:
    """The six stores in one SQLite file."""

    def __init__(self, path: Path) -> None:
        self._db = apsw.Connection(str(path))
        self._db.enable_load_extension(True)
        self._db.load_extension(sqlite_vec.loadable_path())
        self._db.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")
        self._db.execute(_TABLES)

    def remember(self, item: Item) -> None:
        """The six writes of one memory, one durable commit."""
        run, now = self._db.execute, time.time_ns() // 1000
        body = msgpack.packb(item.document)
        run("BEGIN IMMEDIATE")
        run(
            "INSERT INTO facts (key, user, time, document) VALUES (?, ?, ?, ?)",
            (item.key, item.user, item.document["time"], body),
        )
        row = self._db.last_insert_rowid()
        run("INSERT INTO embeddings (rowid, embedding) VALUES (?, ?)", (row, item.vector.tobytes()))
        run(
            "INSERT INTO events (time, kind, key, payload) VALUES (?, ?, ?, ?)",
            (now, "memory.remembered", item.key, msgpack.packb(item.about)),
        )
        run(
            "INSERT INTO audit (time, actor, reason, key) VALUES (?, ?, ?, ?)",
            (now, "agent", "remember", item.key),
        )
        run("INSERT OR REPLACE INTO cache VALUES (?, ?, ?)", (item.key, now + 1_800_000_000, body))
        run("INSERT OR REPLACE INTO context VALUES (?, ?, ?)", (item.user, item.key, body))
        run("COMMIT")

    def run(self, all_items: Sequence[Item]) -> float:
        """Memories a second."""
        started = time.perf_counter()
        for item in all_items:
            self.remember(item)
        return len(all_items) / (time.perf_counter() - started)

    def close(self) -> None:
        """Closes the file."""
        self._db.close()
