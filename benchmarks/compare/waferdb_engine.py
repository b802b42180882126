"""waferdb, through its public Python interface."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import waferdb
from benchmarks.workload import Item, declared, remember, remember_many

from .base import MEMORIES, PAIRS, Counted, Durable, Options, Pair, Peer, UnsupportedError

_ACCEPTED = inspect.signature(waferdb.open).parameters


class Wafer(Peer):
    """One database directory."""

    serves = frozenset({MEMORIES, PAIRS})
    durable = Durable(
        sync='durability="sync": the commit\'s group is written and fdatasync has returned',
        unsynced='durability="async": in the log\'s buffer, durable within 100 ms or at flush()',
    )
    vectors = "float32 in the log, durable with the commit; no graph on disk, search is exact"

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
        self._before = self.db.stats()

    def drain(self) -> None:
        self.db.flush()
        self.db.drain()

    def close(self) -> None:
        self.db.close()

    def counted(self) -> Counted:
        before, after = self._before, self.db.stats()
        causes: dict[str, int] = {}
        for (structure, cause), count in after.by.items():
            causes[cause] = causes.get(cause, 0) + count - before.by.get((structure, cause), 0)
        commits, syncs = after.commits - before.commits, after.syncs - before.syncs
        return Counted(
            logical_bytes=after.logical_bytes - before.logical_bytes,
            written_bytes=after.physical_bytes - before.physical_bytes,
            commits_per_sync=commits / syncs if syncs else None,
            log_bytes=causes.get("log", 0),
            merged_bytes=causes.get("merge", 0),
            by=causes,
        )

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
        rows = self.db["facts"] if self._pairs is None else self._pairs
        found: int = rows.count()
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


def _schema(options: Options) -> dict[str, Any]:
    if options.kind == PAIRS:
        return {"pairs": waferdb.Rows(codec="raw")}
    return declared(options.dim)
