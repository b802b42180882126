"""LanceDB alone: one table with document and vector of each memory.

LanceDB has no event, audit, cache or context store, and no commit is synced: the sync after the run
is what brings its files to the device. No ANN index is built. `add` appends; a memory that is there
already is replaced by `merge_insert`.
"""

from __future__ import annotations

import importlib.metadata
import threading
from collections.abc import Sequence
from datetime import timedelta

import lancedb
import msgpack
import numpy as np
import pyarrow as pa

from benchmarks.workload import Item

from .base import MEMORIES, Durable, Peer


class Lance(Peer):
    """One LanceDB table."""

    serves = frozenset({MEMORIES})
    durable = Durable("none offered: a commit is files in the page cache, not synced")
    synced = False
    vectors = "a column of the table; no graph"

    @staticmethod
    def title() -> str:
        return f"LanceDB {importlib.metadata.version('lancedb')}, document and vector only, no sync"

    def open(self) -> None:
        self._lock = threading.Lock()
        self._there: set[str] = set()
        self._schema = pa.schema(
            [
                ("key", pa.string()),
                ("user", pa.string()),
                ("document", pa.binary()),
                ("vector", pa.list_(pa.float32(), self.options.dim)),
            ]
        )
        db = lancedb.connect(str(self.directory / "lance"))
        if "memories" in db.list_tables().tables:
            self._table = db.open_table("memories")
        else:
            self._table = db.create_table("memories", schema=self._schema)

    def drain(self) -> None:
        # Fragments are put together and older versions let go.
        self._table.optimize(cleanup_older_than=timedelta(0))

    def close(self) -> None:
        del self._table

    def remember_many(self, items: Sequence[Item]) -> None:
        values = pa.array(np.concatenate([item.vector for item in items]))
        rows = pa.table(
            [
                pa.array([item.key for item in items]),
                pa.array([item.user for item in items]),
                pa.array([msgpack.packb(item.document) for item in items], pa.binary()),
                pa.FixedSizeListArray.from_arrays(values, self.options.dim),
            ],
            schema=self._schema,
        )
        with self._lock:
            keys = {item.key for item in items}
            if keys & self._there:
                merge = self._table.merge_insert("key")
                merge.when_matched_update_all().when_not_matched_insert_all().execute(rows)
            else:
                self._table.add(rows)
            self._there |= keys

    def delete_many(self, items: Sequence[Item]) -> None:
        keys = ", ".join(f"'{item.key}'" for item in items)
        with self._lock:
            self._table.delete(f"key IN ({keys})")
            self._there -= {item.key for item in items}

    def count(self) -> int:
        found: int = self._table.count_rows()
        return found
