"""RocksDB through rocksdict, with a usearch graph ("rocksdb") or without ("rocksdb-bare").

RocksDB's own defaults but for the write buffer, which is the memtable of the workload. Vectors are
values of the store, durable with the commit; the graph is what makes them searchable, and its file
is written when the store is drained.
"""

from __future__ import annotations

import importlib.metadata
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import takewhile
from typing import Any

from rocksdict import Options as RocksOptions
from rocksdict import Rdict, WriteBatch, WriteOptions

from benchmarks.mixture import Floats
from benchmarks.workload import Item

from .base import MEMORIES, PAIRS, VECTORS, Durable, Pair, Peer
from .graph import Graph
from .records import FACT, deletes, puts

_BUSY = (
    "rocksdb.mem-table-flush-pending",
    "rocksdb.num-running-flushes",
    "rocksdb.compaction-pending",
    "rocksdb.num-running-compactions",
)
_COMPACTED = re.compile(r"rocksdb\.compact\.write\.bytes COUNT : (\d+)")
_POLL_SECONDS = 0.01
# Looks in a row: one compaction may schedule the next.
_QUIET_LOOKS = 5


class Rocks(Peer):
    """One RocksDB directory and one vector file."""

    serves = frozenset({MEMORIES, PAIRS})
    durable = Durable(
        sync="WriteOptions.sync=True: the WAL is synced at each write",
        unsynced="WriteOptions.sync=False: written to the WAL, not synced",
    )
    vectors = "values of the store, durable with the commit; HNSW graph saved and synced at drain"
    searchable = True

    @staticmethod
    def title() -> str:
        return f"RocksDB (rocksdict {importlib.metadata.version('rocksdict')}) + usearch"

    def open(self) -> None:
        options = RocksOptions(raw_mode=True)
        options.create_if_missing(True)
        options.set_write_buffer_size(self.options.memtable_bytes)
        if self.options.count_merges:
            options.enable_statistics()
        self._options = options
        self._db: Any = Rdict(str(self.directory / "rocks"), options)
        self._write = WriteOptions()
        self._write.sync = self.options.durability == "sync"
        self._db.set_write_options(self._write)
        self._graph: Graph | None = None
        if self.searchable and self.options.kind == MEMORIES:
            self._graph = Graph(self.directory / "vectors.usearch", self.options.dim)

    def drain(self) -> None:
        if self._graph is not None:
            self._graph.save()
        self._db.flush(True)
        quiet = 0
        while quiet < _QUIET_LOOKS:
            busy = any(self._db.property_int_value(name) for name in _BUSY)
            quiet = 0 if busy else quiet + 1
            time.sleep(_POLL_SECONDS)

    def close(self) -> None:
        self._db.close()

    def merged_bytes(self) -> int:
        found = _COMPACTED.search(self._options.get_statistics() or "")
        return int(found[1]) if found else 0

    def remember_many(self, items: Sequence[Item]) -> None:
        batch = WriteBatch(raw_mode=True)
        for item in items:
            for key, value in puts(item):
                batch.put(key, value)
        self._db.write(batch, self._write)
        if self._graph is not None:
            self._graph.put(items)

    def delete_many(self, items: Sequence[Item]) -> None:
        batch = WriteBatch(raw_mode=True)
        for item in items:
            for key in deletes(item):
                batch.delete(key)
        self._db.write(batch, self._write)
        if self._graph is not None:
            self._graph.delete(items)

    def count(self) -> int:
        if self.options.kind != MEMORIES:
            return sum(1 for _ in self._db.items())
        facts = takewhile(lambda key: key.startswith(FACT), self._db.keys(from_key=FACT))
        return sum(1 for _ in facts)

    def put(self, key: bytes, value: bytes) -> Any:
        self._db.put(key, value)

    def get(self, key: bytes) -> bytes | None:
        found: bytes | None = self._db.get(key)
        return found

    def putter(self) -> Callable[[bytes, bytes], Any]:
        call: Callable[[bytes, bytes], Any] = self._db.put
        return call

    def getter(self) -> Callable[[bytes], bytes | None]:
        call: Callable[[bytes], bytes | None] = self._db.get
        return call

    def put_many(self, pairs: Iterable[Pair]) -> None:
        batch = WriteBatch(raw_mode=True)
        for key, value in pairs:
            batch.put(key, value)
        self._db.write(batch, self._write)

    def scan(self, start: bytes | None = None) -> Iterator[Pair]:
        found: Any = self._db.items(from_key=start)
        return iter(found)


class RocksBare(Rocks):
    """RocksDB alone: vectors are values, and nothing is built to search them."""

    serves = frozenset({MEMORIES, VECTORS})
    vectors = "values of the store, durable with the commit; no graph"
    searchable = False

    @staticmethod
    def title() -> str:
        return f"RocksDB (rocksdict {importlib.metadata.version('rocksdict')}), no graph"

    def add(self, keys: Sequence[str], vectors: Floats) -> None:
        self.put_many((key.encode(), one.tobytes()) for key, one in zip(keys, vectors, strict=True))
