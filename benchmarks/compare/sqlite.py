"""SQLite with sqlite-vec through apsw: the six stores as tables of one file, one transaction.

Kinder to SQLite than most users: one file, one commit, statements prepared once (apsw keeps them),
no hash chain in the audit table, the document encoded once, one writer at a time and so no busy
waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import apsw
import msgpack
import sqlite_vec

from benchmarks.workload import TTL_US, Item

from .base import MEMORIES, PAIRS, Durable, Pair, Peer

FACTS = """
CREATE TABLE facts (id INTEGER PRIMARY KEY, key TEXT UNIQUE, user TEXT, time INT, document BLOB);
CREATE INDEX facts_user ON facts (user);
CREATE INDEX facts_time ON facts (time);
"""
EVENTS = """
CREATE TABLE events (id INTEGER PRIMARY KEY, time INT, kind TEXT, key TEXT, payload BLOB);
"""
AUDIT = """
CREATE TABLE audit (id INTEGER PRIMARY KEY, time INT, actor TEXT, reason TEXT, key TEXT);
"""
CONTEXT = """
CREATE TABLE context (scope TEXT, name TEXT, document BLOB, PRIMARY KEY (scope, name));
"""
_CACHE = "CREATE TABLE cache (key TEXT PRIMARY KEY, expires INT, document BLOB);"
_EMBEDDINGS = "CREATE VIRTUAL TABLE embeddings USING vec0 (embedding float[{dim}]);"
_PAIRS = "CREATE TABLE pairs (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID;"

PUT_FACT = "INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?, ?)"
PUT_EVENT = "INSERT INTO events (time, kind, key, payload) VALUES (?, ?, ?, ?)"
PUT_AUDIT = "INSERT INTO audit (time, actor, reason, key) VALUES (?, ?, ?, ?)"
PUT_CONTEXT = "INSERT OR REPLACE INTO context VALUES (?, ?, ?)"
_PUT_PAIR = "INSERT OR REPLACE INTO pairs VALUES (?, ?)"

SYNC = "WAL, PRAGMA synchronous=FULL: the WAL is synced at each commit"


def connect(path: Path, durability: str, tables: str, vectors: bool = False) -> apsw.Connection:
    """A file in WAL mode with `tables`, as durable as asked."""
    db = apsw.Connection(str(path))
    if vectors:
        db.enable_load_extension(True)
        db.load_extension(sqlite_vec.loadable_path())
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(f"PRAGMA synchronous = {'FULL' if durability == 'sync' else 'NORMAL'}")
    if not db.execute("SELECT count(*) FROM sqlite_master").get:
        db.execute(tables)
    return db


def checkpoint(db: apsw.Connection) -> None:
    """The WAL's pages go to their places."""
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


class Sqlite(Peer):
    """One SQLite file."""

    serves = frozenset({MEMORIES, PAIRS})
    durable = Durable(
        sync=SYNC,
        unsynced="WAL, PRAGMA synchronous=NORMAL: written, synced at checkpoints",
    )
    vectors = "a sqlite-vec table, durable with the commit; no graph, search is exact"

    @staticmethod
    def title() -> str:
        return f"SQLite {apsw.sqlite_lib_version()} + sqlite-vec {sqlite_vec.__version__}"

    def open(self) -> None:
        self._lock = threading.Lock()
        pairs = self.options.kind == PAIRS
        self._table = "pairs" if pairs else "facts"
        six = FACTS + _EMBEDDINGS.format(dim=self.options.dim) + EVENTS + AUDIT + _CACHE + CONTEXT
        path, tables = self.directory / "store.db", _PAIRS if pairs else six
        self._db = connect(path, self.options.durability, tables, vectors=not pairs)

    def drain(self) -> None:
        checkpoint(self._db)

    def close(self) -> None:
        self._db.close()

    def remember_many(self, items: Sequence[Item]) -> None:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            for item in items:
                self._six_writes(item)
            self._db.execute("COMMIT")

    def _six_writes(self, item: Item) -> None:
        run, now = self._db.execute, time.time_ns() // 1000
        body = msgpack.packb(item.document)
        row = item.number + 1
        run(PUT_FACT, (row, item.key, item.user, item.document["time"], body))
        vector = item.vector.tobytes()
        try:
            run("INSERT INTO embeddings (rowid, embedding) VALUES (?, ?)", (row, vector))
        except apsw.Error:
            # vec0 has no OR REPLACE; the first time, which is the usual one, pays no look-up.
            run("UPDATE embeddings SET embedding = ? WHERE rowid = ?", (vector, row))
        run(PUT_EVENT, (now, "memory.remembered", item.key, msgpack.packb(item.about)))
        run(PUT_AUDIT, (now, "agent", "remember", item.key))
        run("INSERT OR REPLACE INTO cache VALUES (?, ?, ?)", (item.key, now + TTL_US, body))
        run(PUT_CONTEXT, (item.user, item.key, body))

    def delete_many(self, items: Sequence[Item]) -> None:
        now = time.time_ns() // 1000
        with self._lock:
            run = self._db.execute
            run("BEGIN IMMEDIATE")
            for item in items:
                run("DELETE FROM facts WHERE id = ?", (item.number + 1,))
                run("DELETE FROM embeddings WHERE rowid = ?", (item.number + 1,))
                run("DELETE FROM cache WHERE key = ?", (item.key,))
                run("DELETE FROM context WHERE scope = ? AND name = ?", (item.user, item.key))
                run(PUT_AUDIT, (now, "agent", "delete", item.key))
            run("COMMIT")

    def count(self) -> int:
        found: int = self._db.execute(f"SELECT count(*) FROM {self._table}").get
        return found

    def put(self, key: bytes, value: bytes) -> None:
        self._db.execute(_PUT_PAIR, (key, value))

    def put_many(self, pairs: Iterable[Pair]) -> None:
        with self._db:
            self._db.executemany(_PUT_PAIR, pairs)

    def get(self, key: bytes) -> bytes | None:
        found: bytes | None = self._db.execute("SELECT value FROM pairs WHERE key = ?", (key,)).get
        return found

    def scan(self, start: bytes | None = None) -> Iterator[Pair]:
        found: Iterator[Pair] = self._db.execute(
            "SELECT key, value FROM pairs WHERE key >= ? ORDER BY key", (start or b"",)
        )
        return found
