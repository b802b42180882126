"""waferdb, through its public Python interface."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import waferdb
from benchmarks.mixture import Floats
from benchmarks.workload import Item, declared, remember, remember_many

from .base import MEMORIES, PAIRS, VECTORS, Counted, Durable, Options, Pair, Peer, UnsupportedError

_ACCEPTED = inspect.signature(waferdb.open).parameters


class Wafer(Peer):
    """One database directory."""

    serves = frozenset({MEMORIES, PAIRS, VECTORS})
    durable = Durable(
        sync='durability="sync": the commit\'s group is written and fdatasync has returned',
        unsynced='durability="async": in the log\'s buffer, durable within 100 ms or at flush()',
    )
    vectors = (
        "float32 in the log, durable with the commit; graphs over them where a case says so, "
        "sealed and merged in the background"
    )

    @staticmethod
    def title() -> str:
        return f"waferdb {waferdb.__version__}"

    def open(self) -> None:
        wanted = self.options
        given: dict[str, Any] = {"durability": wanted.durability}
        if "memtable" in _ACCEPTED:
            given["memtable"] = wanted.memtable_bytes
        else:
            self.notes.append("this build has no memtable= option: its own buffers")
        if wanted.compression is not None:
            if "compression" not in _ACCEPTED:
                raise UnsupportedError("this build has no compression= option")
            given["compression"] = wanted.compression
        self.db = waferdb.open(self.directory / "agent.wafer", _schema(wanted), **given)
        self._pairs: Any = self.db["pairs"] if wanted.kind == PAIRS else None
        self._vectors: Any = None if wanted.kind == PAIRS else self.db["embeddings"]
        self._before = self.db.stats()

    def drain(self) -> None:
        self.db.flush()
        self.db.drain()
        if self.options.policy is not None:
            self.db.drain("embeddings")

    def close(self) -> None:
        self.db.close()

    def counted(self) -> Counted:
        before, after = self._before, self.db.stats()
        causes: dict[str, int] = {}
        vectors: dict[str, int] = {}
        for (structure, cause), count in after.by.items():
            new = count - before.by.get((structure, cause), 0)
            causes[cause] = causes.get(cause, 0) + new
            if structure == "embeddings":
                vectors[cause] = new
        commits, syncs = after.commits - before.commits, after.syncs - before.syncs
        return Counted(
            logical_bytes=after.logical_bytes - before.logical_bytes,
            written_bytes=after.physical_bytes - before.physical_bytes,
            commits_per_sync=commits / syncs if syncs else None,
            log_bytes=causes.get("log", 0),
            merged_bytes=causes.get("merge", 0),
            by=causes,
            vectors_by=vectors,
        )

    def lagging(self) -> str:
        return ", ".join(f"{name}: {lag}" for name, lag in self.db.stats().lag.items())

    def merged_bytes(self) -> int:
        found = self.db.stats().by
        return sum(count for (_, cause), count in found.items() if cause == "merge")

    def remember(self, item: Item) -> None:
        remember(self.db, item)

    def remember_many(self, items: Sequence[Item]) -> None:
        remember_many(self.db, items)

    def delete_many(self, items: Sequence[Item]) -> None:
        # The row takes its vector along; cache and context are the caller's own.
        with self.db.transaction(actor="agent", reason="delete") as tx:
            tx.facts.delete_many([item.key for item in items])
            for item in items:
                tx.session.delete(item.key)
                tx.context.delete(item.user, item.key)

    def count(self) -> int:
        counted = {MEMORIES: "facts", PAIRS: "pairs", VECTORS: "embeddings"}
        found: int = self.db[counted[self.options.kind]].count()
        return found

    def put(self, key: bytes, value: bytes) -> Any:
        return self._pairs.put(key, value)

    def get(self, key: bytes) -> bytes | None:
        found: bytes | None = self._pairs.get(key)
        return found

    def putter(self) -> Callable[[bytes, bytes], Any]:
        call: Callable[[bytes, bytes], Any] = self._pairs.put
        return call

    def getter(self) -> Callable[[bytes], bytes | None]:
        call: Callable[[bytes], bytes | None] = self._pairs.get
        return call

    def put_many(self, pairs: Iterable[Pair]) -> None:
        self._pairs.put_many(pairs)

    def scan(self, start: bytes | None = None) -> Iterator[Pair]:
        cursor: Iterator[Pair] = self._pairs.scan(start=start)
        return cursor

    def add(self, keys: Sequence[str], vectors: Floats) -> Any:
        return self._vectors.put_many(keys, vectors)

    def near(self, query: Floats, k: int) -> Any:
        return self._vectors.search(query, k)

    def near_many(self, queries: Floats, k: int) -> Any:
        return self._vectors.search_many(queries, k)

    def numbers(self, found: Any) -> list[int]:
        return [int(key) for key in found.keys]

    def numbers_many(self, found: Any) -> list[list[int]]:
        return [self.numbers(each) for each in found]


def _schema(options: Options) -> dict[str, Any]:
    if options.kind == PAIRS:
        return {"pairs": waferdb.Rows(codec="raw")}
    policy = options.policy or waferdb.lazy()
    if options.kind == VECTORS:
        return {"embeddings": waferdb.Vectors(options.dim, "cosine", policy=policy)}
    return declared(options.dim, policy)
