"""Indexes of vectors in memory: usearch and hnswlib (HNSW), and numpy, which compares them all.

1. They are what `search` is measured against, not stores: nothing is durable, nothing is deleted.
2. Both graphs have float32 vectors, M = 16 and a construction breadth of 128, added by one thread:
   concurrent `add` of usearch leaves vectors that no search reaches.
3. Every search is one thread's.
"""

from __future__ import annotations

import importlib.metadata
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.mixture import Floats, Longs

from .base import VECTORS, Durable, Peer

_CONNECTIVITY = 16
_EXPANSION_ADD = 128


class _Index(Peer):
    """What the three have in common."""

    serves = frozenset({VECTORS})
    durable = Durable(sync="nothing: in memory")
    synced = False
    vectors = "float32 in memory"

    def drain(self) -> None:
        return

    def close(self) -> None:
        return

    def add(self, keys: Sequence[str], vectors: Floats) -> None:
        self.insert(np.array([int(key) for key in keys], dtype=np.int64), vectors)

    @abstractmethod
    def insert(self, labels: Longs, vectors: Floats) -> None:
        """Takes in vectors under their numbers."""

    def numbers_many(self, found: Any) -> list[list[int]]:
        return [self.numbers(each) for each in found]


class Usearch(_Index):
    """usearch's own package, through its documented calls."""

    @staticmethod
    def title() -> str:
        return f"usearch {importlib.metadata.version('usearch')}, f32"

    def open(self) -> None:
        from usearch.index import Index

        self._index: Any = Index(
            ndim=self.options.dim,
            metric="cos",
            dtype="f32",
            connectivity=_CONNECTIVITY,
            expansion_add=_EXPANSION_ADD,
        )

    def insert(self, labels: Longs, vectors: Floats) -> None:
        self._index.add(labels.astype(np.uint64), vectors, threads=1)

    def near(self, query: Floats, k: int) -> Any:
        return self._index.search(query, k, threads=1)

    def near_many(self, queries: Floats, k: int) -> Any:
        return self._index.search(queries, k, threads=1)

    def numbers(self, found: Any) -> list[int]:
        numbers: list[int] = found.keys.tolist()
        return numbers

    def set_breadth(self, breadth: int) -> None:
        self._index.expansion_search = breadth

    def count(self) -> int:
        return len(self._index)


class Hnswlib(_Index):
    """hnswlib, whose index has a capacity that is doubled when it is full."""

    @staticmethod
    def title() -> str:
        return f"hnswlib {importlib.metadata.version('hnswlib')}, f32"

    def open(self) -> None:
        import hnswlib

        self._index: Any = hnswlib.Index(space="cosine", dim=self.options.dim)
        self._capacity = 1_024
        self._index.init_index(
            max_elements=self._capacity, M=_CONNECTIVITY, ef_construction=_EXPANSION_ADD
        )
        self._index.set_num_threads(1)

    def insert(self, labels: Longs, vectors: Floats) -> None:
        while self._index.get_current_count() + len(labels) > self._capacity:
            self._capacity *= 2
            self._index.resize_index(self._capacity)
        self._index.add_items(vectors, labels, num_threads=1)

    def near(self, query: Floats, k: int) -> Any:
        return self._index.knn_query(query, k, num_threads=1)

    def near_many(self, queries: Floats, k: int) -> Any:
        return self._index.knn_query(queries, k, num_threads=1)

    def numbers(self, found: Any) -> list[int]:
        numbers: list[int] = found[0][0].tolist()
        return numbers

    def numbers_many(self, found: Any) -> list[list[int]]:
        numbers: list[list[int]] = found[0].tolist()
        return numbers

    def set_breadth(self, breadth: int) -> None:
        self._index.set_ef(breadth)

    def count(self) -> int:
        found: int = self._index.get_current_count()
        return found


class Numpy(_Index):
    """Every vector compared: one product of a matrix, then the largest."""

    @staticmethod
    def title() -> str:
        return f"numpy {np.__version__}, exact"

    def open(self) -> None:
        self._parts: list[tuple[Longs, Floats]] = []

    def insert(self, labels: Longs, vectors: Floats) -> None:
        self._parts.append((labels, vectors))

    def drain(self) -> None:
        labels, vectors = zip(*self._parts, strict=True)
        self._labels, self._vectors = np.concatenate(labels), np.concatenate(vectors)

    def near(self, query: Floats, k: int) -> Longs:
        return self._best(self._vectors @ query, k)

    def near_many(self, queries: Floats, k: int) -> Any:
        return [self._best(products, k) for products in queries @ self._vectors.T]

    def numbers(self, found: Any) -> list[int]:
        numbers: list[int] = found.tolist()
        return numbers

    def count(self) -> int:
        return sum(len(labels) for labels, _ in self._parts)

    def _best(self, products: Floats, k: int) -> Longs:
        some = np.argpartition(products, -k)[-k:]
        found: Longs = self._labels[some[np.argsort(-products[some])]]
        return found
