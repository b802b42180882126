"""What a workload asks of a store: one adapter class a store, three kinds of work.

1. A store is opened as durable as the workload says: "sync" means that a returned call is on the
   device, "async" that it has reached the store's own log or buffers. `durable` says how.
2. `drain` does all work that the store has put off (memtables, compactions, checkpoints, vector
   files), so that the bytes counted after it are all it owes.
3. What a store cannot do it refuses with `UnsupportedError`, and the report says so.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.mixture import Floats
from benchmarks.workload import DIM, Item
from waferdb.policies import Policy

MEMORIES = "memories"
PAIRS = "pairs"
VECTORS = "vectors"

Pair = tuple[bytes, bytes]


class UnsupportedError(Exception):
    """This store, or this build of it, cannot do what was asked."""


@dataclass(frozen=True)
class Options:
    """How a workload wants its store."""

    kind: str
    durability: str = "sync"
    memtable_bytes: int = 8 << 20
    dim: int = DIM
    compression: str | None = None
    count_merges: bool = False
    # When waferdb builds graphs over its vectors; None: never (`lazy()`).
    policy: Policy | None = None


@dataclass(frozen=True)
class Durable:
    """What a returned call means, in words: under "sync" and under "async"."""

    sync: str
    unsynced: str = ""


@dataclass
class Counted:
    """What a store says of itself; None where it does not."""

    logical_bytes: int | None = None
    written_bytes: int | None = None
    commits_per_sync: float | None = None
    log_bytes: int | None = None
    merged_bytes: int | None = None
    by: dict[str, int] = field(default_factory=dict)  # bytes by cause
    vectors_by: dict[str, int] = field(default_factory=dict)  # of them the vectors' own


class Peer(ABC):
    """One open store in `directory`."""

    serves: ClassVar[frozenset[str]]
    # How a commit is durable, by the workload's durability.
    durable: ClassVar[Durable]
    # Whether "sync" means what it says; a store without syncs is no peer of equal durability.
    synced: ClassVar[bool] = True
    # Where vectors are, and when what is built over them is durable.
    vectors: ClassVar[str] = ""

    def __init__(self, directory: Path, options: Options) -> None:
        self.directory, self.options = directory, options
        self.notes: list[str] = []
        directory.mkdir(parents=True, exist_ok=True)
        self.open()

    @staticmethod
    @abstractmethod
    def title() -> str:
        """The store with its version."""

    @abstractmethod
    def open(self) -> None:
        """Opens or creates what the options ask for."""

    @abstractmethod
    def drain(self) -> None:
        """Returns when nothing is put off any more."""

    @abstractmethod
    def close(self) -> None:
        """Closes in order."""

    def counted(self) -> Counted:
        """The store's own counters."""
        return Counted()

    def lagging(self) -> str:
        """What the store has put off by now, in words; nothing where it does not say."""
        return ""

    def merged_bytes(self) -> int:
        """Bytes written by merges so far; cheap enough to be asked often."""
        raise UnsupportedError(f"{type(self).__name__} does not count what it merges")

    # Memories.

    def remember(self, item: Item) -> None:
        """The six writes of one memory, in as few commits as the store can; again: in its place."""
        self.remember_many([item])

    def remember_many(self, items: Sequence[Item]) -> None:
        """The same of each of `items`, in as few commits as the store can."""
        raise UnsupportedError(f"{type(self).__name__} keeps no memories")

    def delete_many(self, items: Sequence[Item]) -> None:
        """Deletes the memories: row, vector, cache and context; events and audit stay."""
        raise UnsupportedError(f"{type(self).__name__} keeps no memories")

    def count(self) -> int:
        """How many memories or pairs there are."""
        raise UnsupportedError(f"{type(self).__name__} does not count")

    # Pairs.

    def put(self, key: bytes, value: bytes) -> Any:
        """One pair, one commit."""
        raise UnsupportedError(f"{type(self).__name__} keeps no pairs")

    def put_many(self, pairs: Iterable[Pair]) -> None:
        """Many pairs, one commit."""
        raise UnsupportedError(f"{type(self).__name__} keeps no pairs")

    def get(self, key: bytes) -> bytes | None:
        """The value of a key."""
        raise UnsupportedError(f"{type(self).__name__} keeps no pairs")

    def putter(self) -> Callable[[bytes, bytes], Any]:
        """`put`, by the shortest way through Python that the store has."""
        return self.put

    def getter(self) -> Callable[[bytes], bytes | None]:
        """`get`, by the shortest way; valid until the next write."""
        return self.get

    def scan(self, start: bytes | None = None) -> Iterator[Pair]:
        """Pairs in key order, from `start` on."""
        raise UnsupportedError(f"{type(self).__name__} keeps no pairs")

    # Vectors of length 1, by the key of their number: `vector_key(n)`.

    def add(self, keys: Sequence[str], vectors: Floats) -> Any:
        """Stores vectors, shape `(len(keys), dim)`; one commit."""
        raise UnsupportedError(f"{type(self).__name__} keeps no vectors")

    def near(self, query: Floats, k: int) -> Any:
        """The `k` nearest to one query by cosine, as the store answers: `numbers` reads it."""
        raise UnsupportedError(f"{type(self).__name__} searches no vectors")

    def near_many(self, queries: Floats, k: int) -> Any:
        """The same for each of many queries, in one call: `numbers_many` reads it."""
        raise UnsupportedError(f"{type(self).__name__} searches no vectors")

    def numbers(self, found: Any) -> list[int]:
        """The vectors' numbers in what `near` answered, nearest first."""
        raise UnsupportedError(f"{type(self).__name__} searches no vectors")

    def numbers_many(self, found: Any) -> list[list[int]]:
        """The same of what `near_many` answered."""
        raise UnsupportedError(f"{type(self).__name__} searches no vectors")

    def set_breadth(self, breadth: int) -> None:
        """How many candidates a search of a graph keeps (ef, expansion)."""
        raise UnsupportedError(f"{type(self).__name__} has no breadth to set")


def vector_key(number: int) -> str:
    """The key of vector `number`."""
    return f"{number:010}"
