"""The compiled engine. Private: use the names `waferdb` exports.

Values cross this boundary encoded (msgpack or raw bytes), times as integer microseconds since the
epoch (UTC), durations as integer microseconds, sizes as bytes, structures as integer ids, schemas
as JSON text. Every method may raise the exceptions of `waferdb.errors`.
"""

import builtins
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias, final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer

_Key: TypeAlias = str | bytes
_Floats: TypeAlias = Buffer | NDArray[np.float32]  # contiguous float32

ENGINE_VERSION: Final[str]
FORMAT_VERSION: Final[int]
LIMITS: Final[dict[str, int]]

# One committed transaction: (lsn, time, durable, leaf hash or None, transaction id, groups of views
# that it made stale or None where it is not applied yet)
_Commit: TypeAlias = tuple[int, int, bool, bytes | None, str, list[tuple[int, bytes]] | None]
# Why a group is stale: (since, changed, removed, changes, time of since, bytes, whether any was of
# more than background priority)
_Stale: TypeAlias = tuple[int, int, int, int, int, int, bool]

@final
class Engine:
    """One open database."""

    @staticmethod
    def open(
        path: str | None,  # None: in memory, no files
        schema: str | None,  # JSON: what the caller declares; None: take what is stored
        *,
        mode: str,  # "rw" | "r"
        create: bool,
        durability: str,  # "sync" | "async"
        memory: int,
        memtable: int | None,  # None: 64 MiB, at most a quarter of the memory
        history: int | None,
        waf_budget: float | None,
        compression: str | None,  # "zstd"; None: values are stored as they are
        embedder: str | None,  # JSON identity of the embedder, checked against the stored one
        clock: int | None = None,  # a clock of its own that begins then, and no threads
    ) -> Engine: ...
    def schema(self) -> str: ...  # JSON: the stored schema in force, with ids
    def close(self) -> None: ...
    @property
    def closed(self) -> bool: ...
    @property
    def path(self) -> str: ...
    @property
    def writable(self) -> bool: ...
    @property
    def lsn(self) -> int: ...  # newest visible commit
    def begin(
        self,
        *,
        txn: str | None = None,
        priority: str = "routine",
        durability: str | None = None,
        actor: str | None = None,
        reason: str | None = None,
        serializable: bool = False,
        mode: str = "transaction",  # or "single" (one write), "batch" (no conflict checks)
    ) -> Transaction: ...
    def put(
        self,
        structure: int,
        key: _Key,
        value: builtins.bytes,
        if_version: int | None,
        if_absent: bool,
    ) -> _Commit: ...  # one row, as a transaction of mode "single"
    def reader(self) -> Reader: ...  # a strong read, at the newest LSN each time it is used
    def reader_at(self, lsn: int) -> Reader: ...  # as of a past LSN, pinned
    def reader_at_time(self, micros: int) -> Reader: ...
    def reader_now(self, at_least: int | None = None) -> Reader: ...  # pinned at the newest LSN
    def reader_for(
        self,
        structure: int,
        strong: bool = False,
        at_least: int | None = None,
        max_age: int | None = None,
        max_commits: int | None = None,
    ) -> Reader: ...  # pinned where one structure stands, or further on
    def wait(
        self, lsn: int, timeout: float | None = None, structures: list[int] | None = None
    ) -> None: ...
    def advance(self, micros: int) -> None: ...  # the clock it was opened with
    def now(self) -> int: ...
    def step(self) -> bool: ...
    def batch_scale(self) -> float: ...
    def is_idle(self) -> bool: ...
    def outcome(self, txn: str) -> str: ...  # "committed" | "absent"
    def flush(self) -> None: ...
    def drain(self, structures: list[int] | None) -> None: ...
    def stats(self) -> str: ...  # JSON
    def verify(self, deep: bool, progress: Callable[[int, int], None] | None) -> str: ...  # JSON
    def rebuild(self, structure: int, progress: Callable[[int, int], None] | None) -> None: ...
    def drop(self, name: str) -> None: ...
    def rename(self, old: str, new: str) -> None: ...
    def set_policy(self, name: str, policy: str) -> None: ...  # policy as JSON
    def backup(self, dst: str, progress: Callable[[int, int], None] | None) -> None: ...
    def changes(self, after: int) -> Changes: ...
    # The audit tree.
    def audit_head(self, structure: int) -> tuple[int, bytes]: ...
    def audit_entries(
        self, structure: int, after: int, actor: str | None, limit: int
    ) -> list[tuple[int, int, int, str | None, str | None, list[tuple[str, _Key, str]], bytes]]:
        """(lsn, index, time, actor, reason, changes as (structure, key, kind), leaf hash)."""
    def audit_leaf(self, structure: int, lsn: int) -> bytes: ...
    def audit_prove(
        self, structure: int, lsn: int, size: int | None
    ) -> tuple[int, int, bytes, list[bytes]]:
        """(index, size, leaf hash, path)."""
    def audit_prove_growth(
        self, structure: int, old_size: int, size: int | None
    ) -> tuple[int, int, list[bytes]]: ...

@final
class Reader:
    """Every read, at one LSN (or the newest, or inside a transaction over its own writes)."""

    @property
    def lsn(self) -> int: ...
    @property
    def time(self) -> int: ...  # of that LSN's commit
    @property
    def behind(self) -> tuple[int, int]: ...  # commits, and microseconds since the first of them
    def close(self) -> None: ...
    # Views. A group is its key in bytes; `values` a msgpack list of the fields it is made of.
    def view_key(self, structure: int, values: bytes) -> bytes: ...
    def view_group(
        self, structure: int, group: bytes
    ) -> tuple[tuple[bytes, int, int, int] | None, _Stale | None]: ...  # document, lsn, input, time
    def view_inputs(
        self, structure: int, group: bytes
    ) -> list[tuple[bytes, bytes, int, int]]: ...  # key, document, lsn, time
    def view_keys(
        self, structure: int, after: bytes | None, limit: int
    ) -> tuple[list[bytes], bytes | None]: ...
    def view_stale(
        self, structure: int, prefix: bytes, after: bytes | None, limit: int
    ) -> tuple[list[tuple[bytes, _Stale]], bytes | None]: ...
    def view_stale_count(self, structure: int) -> int: ...
    # Keyed structures: rows, cache, vectors. Keys are str or bytes as the structure has them.
    def get(self, structure: int, key: _Key) -> bytes | None: ...
    def read(
        self, structure: int, key: _Key
    ) -> tuple[bytes, int, int] | None: ...  # value, version, time
    def get_many(self, structure: int, keys: Sequence[_Key]) -> list[bytes | None]: ...
    def contains(self, structure: int, key: _Key) -> bool: ...
    def count(self, structure: int) -> int: ...
    def scan(
        self,
        structure: int,
        prefix: _Key | None,
        start: _Key | None,
        end: _Key | None,
        after: _Key | None,
        limit: int | None,
        reverse: bool,
    ) -> Cursor: ...
    def find(
        self,
        structure: int,
        where: bytes,  # msgpack map: field -> ["=", v] | ["in", [v, ...]] | ["range", low, high]
        order: str | None,
        limit: int | None,
        after: _Key | None,
    ) -> Cursor: ...
    def explain(self, structure: int, where: bytes, order: str | None) -> str: ...  # JSON
    # Vectors: queries and results are float32.
    def search(
        self,
        structure: int,
        query: _Floats,
        k: int,
        exact: bool,
        ef: int | None,
        where: bytes | None,
    ) -> tuple[list[str], list[float]]: ...
    def search_many(
        self,
        structure: int,
        queries: _Floats,
        count: int,
        k: int,
        exact: bool,
        ef: int | None,
    ) -> list[tuple[list[str], list[float]]]: ...
    def explain_search(self, structure: int, where: bytes | None) -> tuple[str, int | None]: ...
    # Events: (lsn, index, time, kind, key, payload)
    def events(
        self,
        structure: int,
        after: tuple[int, int] | None,  # (lsn, index): exclusive
        until: tuple[int, int] | None,  # inclusive
        kind: str | None,
        key: str | None,
        limit: int | None,
        reverse: bool,
    ) -> Cursor: ...
    def lsn_at_time(self, micros: int) -> int: ...  # newest commit at or before, 0 if none
    # Context and graph.
    def context_get(
        self, structure: int, scope: str, name: str
    ) -> tuple[bytes, int, int] | None: ...
    def context_load(self, structure: int, scope: str) -> list[tuple[str, bytes]]: ...
    def context_scopes(self, structure: int) -> list[str]: ...
    def neighbors(
        self, structure: int, node: str, relation: str | None, direction: str, depth: int
    ) -> list[tuple[str, str, int, bytes | None]]: ...
    def edges(self, structure: int, node: str) -> list[tuple[str, str, str, bytes | None]]: ...

@final
class Cursor:
    """Pages of a scan; holds its snapshot, never a lock."""

    @property
    def lsn(self) -> int: ...
    def page(self, count: int) -> list[Any]: ...  # empty at the end
    def close(self) -> None: ...

@final
class Changes:
    """Commits in LSN order, read from the log: (lsn, time, txn, actor, reason, changes), each
    change (structure name, kind, key parts, encoded value or None)."""

    def page(
        self, count: int
    ) -> list[
        tuple[
            int,
            int,
            str,
            str | None,
            str | None,
            list[tuple[str, str, tuple[_Key, ...], bytes | None]],
        ]
    ]: ...

@final
class Transaction:
    @property
    def txn(self) -> str: ...
    @property
    def lsn(self) -> int: ...  # the snapshot it reads at
    @property
    def operations(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    def reader(self) -> Reader: ...  # sees its own writes
    def put(
        self,
        structure: int,
        key: _Key,
        value: builtins.bytes,
        if_version: int | None = None,
        if_absent: bool = False,
    ) -> None: ...
    def put_many(
        self, structure: int, keys: Sequence[_Key], values: Sequence[builtins.bytes]
    ) -> None: ...
    def delete(self, structure: int, key: _Key) -> None: ...  # rows, vectors, cache
    def delete_many(self, structure: int, keys: Sequence[_Key]) -> None: ...
    def watch(self, structure: int, key: _Key) -> None: ...  # for_update: conflict if it changes
    def vector_put(self, structure: int, key: str, vector: _Floats) -> None: ...
    def vector_put_many(self, structure: int, keys: Sequence[str], vectors: _Floats) -> None: ...
    def append(
        self, structure: int, kind: str, payload: builtins.bytes | None, key: str | None
    ) -> None: ...
    def cache_put(
        self, structure: int, key: str, value: builtins.bytes, ttl: int | None
    ) -> None: ...
    def context_set(self, structure: int, scope: str, name: str, value: builtins.bytes) -> None: ...
    def context_delete(self, structure: int, scope: str, name: str | None) -> None: ...
    def link(
        self, structure: int, src: str, relation: str, dst: str, props: builtins.bytes | None
    ) -> None: ...
    def unlink(self, structure: int, src: str, relation: str, dst: str) -> None: ...
    def forget(self, structure: int, key: Sequence[_Key]) -> None:
        """Masks every version of a key up to this commit, at every LSN: rows, vectors, cache,
        events (key,), context (scope, name), graph (src, relation, dst)."""
    def put_result(
        self, structure: int, group: _Key, document: _Key, input: int, covered: int
    ) -> None: ...
    def note(self, actor: str | None, reason: str | None) -> None: ...
    def commit(self) -> _Commit: ...
    def rollback(self) -> None: ...

def group_parts(group: bytes) -> list[bytes]:
    """The fields of a group's key, each as it is encoded."""

def group_values(group: bytes) -> bytes:
    """The values of a group's key, as a msgpack list."""

def salvage(
    src: str, dst: str, older: bool, progress: Callable[[int, int], None] | None
) -> str: ...  # JSON
def exceptions_module(name: str) -> None:
    """Tells the engine which module its exception classes live in."""
