"""LMDB with a usearch graph beside it.

One environment, one database, a map that the run cannot fill; write transactions one at a time, as
LMDB has them. Vectors are values of the store, durable with the commit; the graph's file is written
when the store is drained. Pairs are read in one read transaction that lasts until the next write,
which is the fastest way to read from LMDB; pairs are used by one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import lmdb

from benchmarks.workload import Item

from .base import MEMORIES, PAIRS, Durable, Pair, Peer
from .graph import Graph
from .records import FACT, deletes, puts

_MAP_BYTES = 64 << 30


class Lightning(Peer):
    """One LMDB environment and one vector file."""

    serves = frozenset({MEMORIES, PAIRS})
    durable = Durable(
        sync="sync=True: data and meta page are synced at each commit",
        unsynced="sync=False: written, not synced",
    )
    vectors = "values of the store, durable with the commit; HNSW graph saved and synced at drain"

    @staticmethod
    def title() -> str:
        version = ".".join(str(part) for part in lmdb.version())
        return f"LMDB {version} + usearch"

    def open(self) -> None:
        sync = self.options.durability == "sync"
        path = str(self.directory / "lmdb")
        self._env = lmdb.open(path, map_size=_MAP_BYTES, sync=sync, metasync=sync, max_readers=64)
        self._graph: Graph | None = None
        self._reader: Any = None
        if self.options.kind == MEMORIES:
            self._graph = Graph(self.directory / "vectors.usearch", self.options.dim)

    def drain(self) -> None:
        if self._graph is not None:
            self._graph.save()
        self._env.sync(True)
        self._end_reader()

    def close(self) -> None:
        self._end_reader()
        self._env.close()

    def remember_many(self, items: Sequence[Item]) -> None:
        with self._env.begin(write=True) as txn:
            for item in items:
                for key, value in puts(item):
                    txn.put(key, value)
        if self._graph is not None:
            self._graph.put(items)

    def delete_many(self, items: Sequence[Item]) -> None:
        with self._env.begin(write=True) as txn:
            for item in items:
                for key in deletes(item):
                    txn.delete(key)
        if self._graph is not None:
            self._graph.delete(items)

    def count(self) -> int:
        if self.options.kind == PAIRS:
            found: int = self._env.stat()["entries"]
            return found
        count = 0
        with self._env.begin() as txn, txn.cursor() as cursor:
            cursor.set_range(FACT)
            for key in cursor.iternext(keys=True, values=False):
                if not key.startswith(FACT):
                    break
                count += 1
        return count

    def put(self, key: bytes, value: bytes) -> None:
        self._end_reader()
        with self._env.begin(write=True) as txn:
            txn.put(key, value)

    def put_many(self, pairs: Iterable[Pair]) -> None:
        self._end_reader()
        with self._env.begin(write=True) as txn:
            for key, value in pairs:
                txn.put(key, value)

    def get(self, key: bytes) -> bytes | None:
        return self.getter()(key)

    def getter(self) -> Callable[[bytes], bytes | None]:
        if self._reader is None:
            self._reader = self._env.begin()
        call: Callable[[bytes], bytes | None] = self._reader.get
        return call

    def scan(self, start: bytes | None = None) -> Iterator[Pair]:
        with self._env.begin() as txn, txn.cursor() as cursor:
            if cursor.set_range(start or b""):
                yield from cursor.iternext()

    def _end_reader(self) -> None:
        if self._reader is not None:
            self._reader.abort()
            self._reader = None
