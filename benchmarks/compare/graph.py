"""A vector graph of usearch beside a store that has none.

1. One thread at a time adds: concurrent `add` leaves vectors that no search reaches.
2. usearch keeps no log. Its file is written by `save`, whole, then synced, and so is its directory;
   until then the store's own copy of the vectors is the durable one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from usearch.index import Index

from benchmarks.workload import Item


class Graph:
    """Vectors by the number in their item's key."""

    def __init__(self, path: Path, dim: int) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._index = Index(ndim=dim, metric="cos", dtype="f32")
        if path.exists():
            self._index.load(str(path))

    def put(self, items: Sequence[Item]) -> None:
        """Adds the vectors, in place of those that were there."""
        labels = _labels(items)
        with self._lock:
            there = labels[self._index.contains(labels)] if len(self._index) else labels[:0]
            if len(there):
                self._index.remove(there)
            vectors = np.stack([item.vector for item in items])
            self._index.add(labels, vectors, threads=1)

    def delete(self, items: Sequence[Item]) -> None:
        """Removes the vectors."""
        with self._lock:
            self._index.remove(_labels(items))

    def save(self) -> None:
        """Makes the file durable."""
        with self._lock:
            self._index.save(str(self._path))
        for path in (self._path, self._path.parent):
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def _labels(items: Sequence[Item]) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.array([item.number for item in items], dtype=np.uint64)
