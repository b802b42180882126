"""The stores that the benchmarks know, by name; those whose packages are missing are not there."""

from __future__ import annotations

import importlib
import importlib.util

from .base import MEMORIES, PAIRS, VECTORS, Options, Peer

__all__ = [
    "MEMORIES",
    "PAIRS",
    "VECTORS",
    "Options",
    "Peer",
    "known",
    "missing",
    "peer",
    "served",
]

# Name, module and class; a module is imported only when its peer is used.
_PEERS = {
    "waferdb": ("waferdb_engine", "Wafer"),
    "rocksdb": ("rocksdb", "Rocks"),
    "rocksdb-bare": ("rocksdb", "RocksBare"),
    "lmdb": ("lightning", "Lightning"),
    "sqlite": ("sqlite", "Sqlite"),
    "six": ("six_stores", "SixStores"),
    "lancedb": ("lance", "Lance"),
    "chroma": ("chroma", "Chroma"),
    "usearch": ("vector_indexes", "Usearch"),
    "hnswlib": ("vector_indexes", "Hnswlib"),
    "numpy": ("vector_indexes", "Numpy"),
}
_NEEDS = {
    "waferdb": ("waferdb",),
    "rocksdb": ("rocksdict", "usearch"),
    "rocksdb-bare": ("rocksdict",),
    "lmdb": ("lmdb", "usearch"),
    "sqlite": ("apsw", "sqlite_vec"),
    "six": ("apsw", "usearch"),
    "lancedb": ("lancedb", "pyarrow"),
    "chroma": ("chromadb",),
    "usearch": ("usearch",),
    "hnswlib": ("hnswlib",),
    "numpy": ("numpy",),
}


def known() -> tuple[str, ...]:
    """All names, installed or not."""
    return tuple(_PEERS)


def missing(name: str) -> tuple[str, ...]:
    """The packages without which the peer cannot run here."""
    return tuple(need for need in _NEEDS[name] if importlib.util.find_spec(need) is None)


def peer(name: str) -> type[Peer]:
    """The adapter of that name. Raises `ImportError` if what it needs is not installed."""
    module, adapter = _PEERS[name]
    found: type[Peer] = getattr(importlib.import_module(f"{__name__}.{module}"), adapter)
    return found


def served(kind: str) -> tuple[str, ...]:
    """The installed peers that serve `kind`, waferdb first."""
    return tuple(name for name in _PEERS if not missing(name) and kind in peer(name).serves)
