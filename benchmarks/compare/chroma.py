"""Chroma alone: one persistent collection with document, vector and metadata of each memory.

Chroma has no transaction over several collections and no event, audit, cache or context store: what
is left of the six writes is one `upsert`.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import chromadb
import numpy as np

from benchmarks.workload import Item

from .base import MEMORIES, Durable, Peer


class Collection:
    """One collection in a directory of its own."""

    def __init__(self, path: Path) -> None:
        settings = chromadb.Settings(anonymized_telemetry=False)
        self._client = chromadb.PersistentClient(path=str(path), settings=settings)
        self._collection: Any = self._client.get_or_create_collection(
            "memories", embedding_function=None, metadata={"hnsw:space": "cosine"}
        )

    def put(self, items: Sequence[Item]) -> None:
        """One call, one commit."""
        self._collection.upsert(
            ids=[item.key for item in items],
            embeddings=np.stack([item.vector for item in items]),
            documents=[str(item.document["text"]) for item in items],
            metadatas=[{**item.about, "time": item.document["time"]} for item in items],
        )

    def delete(self, items: Sequence[Item]) -> None:
        """One call."""
        self._collection.delete(ids=[item.key for item in items])

    def count(self) -> int:
        """Memories."""
        found: int = self._collection.count()
        return found

    def drain(self) -> None:
        """Chroma offers nothing to wait for; its graph is written as it goes and at the end."""

    def close(self) -> None:
        """Stops the client's system, which writes what it holds."""
        self._client.close()


class Chroma(Peer):
    """One Chroma directory."""

    serves = frozenset({MEMORIES})
    durable = Durable("Chroma's own commit (SQLite inside, its settings); nothing to choose")
    vectors = "in Chroma's log at each commit; HNSW graph written by Chroma when it thinks fit"

    @staticmethod
    def title() -> str:
        return f"Chroma {importlib.metadata.version('chromadb')}, document and vector only"

    def open(self) -> None:
        self._all = Collection(self.directory / "chroma")

    def drain(self) -> None:
        self._all.drain()

    def close(self) -> None:
        self._all.close()

    def remember_many(self, items: Sequence[Item]) -> None:
        self._all.put(items)

    def delete_many(self, items: Sequence[Item]) -> None:
        self._all.delete(items)

    def count(self) -> int:
        return self._all.count()
