"""One memory as `AgentMemory` writes it: checked, keyed and cut into commits.

1. A `Memory` that exists is sound: its text is not empty, its fields collide with nothing, its
   vector (if given) fits.
2. Keys made here sort by the time they were made, and no two are equal, also across processes.
3. A chunk is one commit: of one priority, no key twice, bounded in items and bytes.

It embeds nothing and writes nothing.
"""

from __future__ import annotations

import os
import threading
import time as clock
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from ._core import LIMITS
from .database import Priority
from .embedders import as_vector
from .errors import DocumentError, LimitError

Vectors32 = NDArray[np.float32]

CHUNK_ITEMS = 256
CHUNK_BYTES = 4 << 20

_NAMES = frozenset({"text", "user", "topic", "key", "vector", "fields", "priority", "time"})
_RESERVED = frozenset({"text", "user", "topic", "time"})
_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


@dataclass(frozen=True, slots=True)
class Memory:
    """One memory, ready to be written except for the vector it may still lack."""

    key: str
    key_given: bool
    document: dict[str, Any]
    vector: Vectors32 | None
    priority: Priority

    @property
    def text(self) -> str:
        return cast(str, self.document["text"])

    @property
    def user(self) -> str | None:
        return cast("str | None", self.document["user"])

    @property
    def topic(self) -> str | None:
        return cast("str | None", self.document["topic"])


class ItemError(Exception):
    """An item that cannot be remembered; `.error` is what its caller is to see."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def from_item(item: str | Mapping[str, Any], dim: int, priority: Priority) -> Memory:
    """A memory from a text or a mapping with the names of `AgentMemory.remember`.

    Raises `ValueError`, `TypeError`, `VectorError` or `DocumentError`, saying what is wrong.
    """
    given: Mapping[str, Any] = {"text": item} if isinstance(item, str) else item
    if not isinstance(given, Mapping):
        raise TypeError(f"an item is a text or a mapping, not {type(item).__name__}")
    if unknown := sorted(set(map(str, given)) - _NAMES):
        raise ValueError(
            f"unknown name {unknown[0]!r} in an item: it has {', '.join(sorted(_NAMES))}; "
            "your own fields go into 'fields'"
        )
    text = given.get("text")
    if not isinstance(text, str):
        raise TypeError(f"a memory's text is a str, not {type(text).__name__}")
    if not text.strip():
        raise ValueError("a memory's text must not be empty")
    if (chosen := given.get("priority") or priority) not in get_args(Priority):
        raise ValueError(f"priority is one of {', '.join(get_args(Priority))}, not {chosen!r}")
    vector, key = given.get("vector"), _label("key", given.get("key"))
    document = {
        "text": text,
        "user": _label("user", given.get("user")),
        "topic": _label("topic", given.get("topic")),
        "time": _moment(given.get("time")),
        **_fields(given.get("fields")),
    }
    for name in ("text", "user", "topic"):
        _check_text(name, document[name])
    _check_text("key", key)
    _check_bytes("key", key, LIMITS["key_bytes_max"])
    # The audit trail names the user as the actor.
    _check_bytes("user", document["user"], LIMITS["actor_bytes_max"])
    return Memory(
        key=new_key() if key is None else key,
        key_given=key is not None,
        document=document,
        vector=None if vector is None else as_vector(vector, dim),
        priority=chosen,
    )


def chunks(
    items: Iterable[str | Mapping[str, Any]], dim: int, priority: Priority
) -> Iterator[list[Memory]]:
    """Cuts items into commits; those before a bad item come out before its error."""
    chunk: list[Memory] = []
    keys: set[str] = set()
    size = 0
    for item in items:
        try:
            memory = from_item(item, dim, priority)
        except (ValueError, TypeError) as error:
            if chunk:
                yield chunk
            raise ItemError(error) from None
        weight = len(memory.text) + 4 * dim
        full = len(chunk) >= CHUNK_ITEMS or size + weight > CHUNK_BYTES
        if chunk and (full or memory.key in keys or memory.priority != chunk[0].priority):
            yield chunk
            chunk, keys, size = [], set(), 0
        chunk.append(memory)
        keys.add(memory.key)
        size += weight
    if chunk:
        yield chunk


def _label(name: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError(f"{name} is a str or None, not {type(value).__name__}")
    if not value:
        raise ValueError(f"{name} must not be empty: leave it out, or pass None")
    return value


def _check_bytes(name: str, value: str | None, bytes_max: int) -> None:
    if value is not None and len(value) * 4 > bytes_max:
        length = len(value.encode())
        if length > bytes_max:
            raise LimitError(
                f"{name} has at most {bytes_max} bytes, this one has {length}; nothing was written"
            )


def _moment(value: object) -> datetime:
    if value is None:
        return datetime.now(UTC)
    if not isinstance(value, datetime):
        raise TypeError(f"time is a datetime or None, not {type(value).__name__}")
    if value.tzinfo is None:
        raise ValueError("time needs a time zone: datetime.now(UTC), or .replace(tzinfo=UTC)")
    return value


def _fields(value: object) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"fields is a mapping, not {type(value).__name__}")
    if taken := sorted(_RESERVED.intersection(value)):
        raise ValueError(f"field {taken[0]!r} is the memory's own: give your field another name")
    return dict(value)


def _check_text(name: str, value: object) -> None:
    try:
        str(value).encode()
    except UnicodeEncodeError as error:
        raise DocumentError(
            f"{name} holds a lone surrogate at {error.start}, which is not text: nothing was "
            "written; clean it with  text.encode('utf-8', 'replace').decode()"
        ) from None


class _Keys:
    """26 characters: 48 bits of milliseconds, 80 random bits, counted up within a millisecond."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0
        os.register_at_fork(after_in_child=self._after_fork)

    def new(self) -> str:
        with self._lock:
            fresh = ((clock.time_ns() // 1_000_000) << 80) | int.from_bytes(os.urandom(10))
            same_or_earlier = (fresh >> 80) <= (self._last >> 80)
            # The random step keeps two processes apart that counted from the same millisecond.
            step = 1 + int.from_bytes(os.urandom(4))
            self._last = value = self._last + step if same_or_earlier else fresh
        return "".join(_CROCKFORD[(value >> shift) & 31] for shift in range(125, -1, -5))

    def _after_fork(self) -> None:
        self._lock = threading.Lock()


_keys = _Keys()


def new_key() -> str:
    """A key that no other call returned, and that sorts after those made before it."""
    return _keys.new()
