"""The six writes of a memory as pairs of an ordered key-value store.

A row and its two index entries, the vector, an event, an audit entry, a cache and a context entry:
what a careful user of such a store would lay down. The document stands in row, cache and context,
for such a store has no references; it is encoded once.
"""

from __future__ import annotations

import itertools
import struct
import time
from collections.abc import Iterator

import msgpack

from benchmarks.workload import TTL_US, Item

from .base import Pair

FACT = b"f:"
_sequence = itertools.count()


def puts(item: Item) -> Iterator[Pair]:
    """What remembering writes."""
    key, user = item.key.encode(), item.user.encode()
    body = msgpack.packb(item.document)
    now = time.time_ns() // 1000
    order = struct.pack(">QQ", now, next(_sequence))
    yield FACT + key, body
    yield from ((index, b"") for index in _indexes(item, key, user))
    yield b"v:" + key, item.vector.tobytes()
    yield b"e:" + order, msgpack.packb(("memory.remembered", item.key, item.about))
    yield b"a:" + order, msgpack.packb(("agent", "remember", item.key))
    yield b"s:" + key, struct.pack(">Q", now + TTL_US) + body
    yield b"c:" + user + b"\0" + key, body


def deletes(item: Item) -> Iterator[bytes]:
    """The keys that deleting removes."""
    key, user = item.key.encode(), item.user.encode()
    yield FACT + key
    yield from _indexes(item, key, user)
    yield from (b"v:" + key, b"s:" + key, b"c:" + user + b"\0" + key)


def _indexes(item: Item, key: bytes, user: bytes) -> tuple[bytes, bytes]:
    return b"u:" + user + b"\0" + key, b"t:" + struct.pack(">Q", item.document["time"]) + key
