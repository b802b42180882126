"""What many agents have today: four SQLite files, a vector store and a dict; six stores, six
commits, one after the other.

The vector store is Chroma where it is installed. Elsewhere it is a usearch graph in memory beside a
file to which each commit's vectors are appended and synced: as durable as the others, and much
cheaper than Chroma. The title says which. The cache is a dict of this process, as in most agents.
"""

from __future__ import annotations

import importlib.util
import os
import threading
import time
from collections.abc import Sequence
from typing import Any

import apsw
import msgpack

from benchmarks.workload import TTL_US, Item

from . import sqlite
from .base import MEMORIES, Durable, Peer
from .graph import Graph

_CHROMA = importlib.util.find_spec("chromadb") is not None


class SixStores(Peer):
    """Six stores in one directory, and nothing that keeps them together."""

    serves = frozenset({MEMORIES})
    durable = Durable(f"each of four files: {sqlite.SYNC}; the vector store's own commit")
    vectors = (
        "a Chroma collection, committed by Chroma"
        if _CHROMA
        else "appended to a file and synced at each commit; HNSW graph saved and synced at drain"
    )

    @staticmethod
    def title() -> str:
        vectors = "Chroma" if _CHROMA else "usearch and a synced file"
        return f"four SQLite {apsw.sqlite_lib_version()} files + {vectors} + dict"

    def open(self) -> None:
        self._lock = threading.Lock()
        tables = {
            "facts": sqlite.FACTS,
            "events": sqlite.EVENTS,
            "audit": sqlite.AUDIT,
            "context": sqlite.CONTEXT,
        }
        self._files = {
            name: sqlite.connect(self.directory / f"{name}.db", self.options.durability, table)
            for name, table in tables.items()
        }
        self._cache: dict[str, tuple[int, dict[str, Any]]] = {}
        self._vectors: Any = _chroma(self) if _CHROMA else _Appended(self)

    def drain(self) -> None:
        self._vectors.drain()
        for file in self._files.values():
            sqlite.checkpoint(file)

    def close(self) -> None:
        self._vectors.close()
        for file in self._files.values():
            file.close()

    def remember_many(self, items: Sequence[Item]) -> None:
        now = time.time_ns() // 1000
        bodies = [msgpack.packb(item.document) for item in items]
        with self._lock:
            self._commit(
                "facts",
                sqlite.PUT_FACT,
                [
                    (item.number + 1, item.key, item.user, item.document["time"], body)
                    for item, body in zip(items, bodies, strict=True)
                ],
            )
            self._vectors.put(items)
            self._commit(
                "events",
                sqlite.PUT_EVENT,
                [(now, "memory.remembered", item.key, msgpack.packb(item.about)) for item in items],
            )
            self._commit(
                "audit", sqlite.PUT_AUDIT, [(now, "agent", "remember", item.key) for item in items]
            )
            for item in items:
                self._cache[item.key] = (now + TTL_US, item.document)
            self._commit(
                "context",
                sqlite.PUT_CONTEXT,
                [(item.user, item.key, body) for item, body in zip(items, bodies, strict=True)],
            )

    def delete_many(self, items: Sequence[Item]) -> None:
        now = time.time_ns() // 1000
        with self._lock:
            gone = [(item.number + 1,) for item in items]
            self._commit("facts", "DELETE FROM facts WHERE id = ?", gone)
            self._vectors.delete(items)
            told = [(now, "agent", "delete", item.key) for item in items]
            self._commit("audit", sqlite.PUT_AUDIT, told)
            for item in items:
                self._cache.pop(item.key, None)
            named = [(item.user, item.key) for item in items]
            self._commit("context", "DELETE FROM context WHERE scope = ? AND name = ?", named)

    def count(self) -> int:
        found: int = self._files["facts"].execute("SELECT count(*) FROM facts").get
        return found

    def _commit(self, name: str, statement: str, rows: list[tuple[Any, ...]]) -> None:
        with self._files[name] as file:
            file.executemany(statement, rows)


class _Appended:
    """A graph in memory and a file that has each vector as soon as it is committed."""

    def __init__(self, peer: Peer) -> None:
        self._graph = Graph(peer.directory / "vectors.usearch", peer.options.dim)
        path = peer.directory / "vectors.log"
        self._log = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)

    def put(self, items: Sequence[Item]) -> None:
        self._append(b"".join(_numbered(item) + item.vector.tobytes() for item in items))
        self._graph.put(items)

    def delete(self, items: Sequence[Item]) -> None:
        self._append(b"".join(_numbered(item) for item in items))
        self._graph.delete(items)

    def _append(self, some: bytes) -> None:
        os.write(self._log, some)
        os.fdatasync(self._log)

    def drain(self) -> None:
        self._graph.save()

    def close(self) -> None:
        os.close(self._log)


def _numbered(item: Item) -> bytes:
    return item.number.to_bytes(8, "little")


def _chroma(peer: Peer) -> Any:
    from .chroma import Collection

    return Collection(peer.directory / "chroma")
