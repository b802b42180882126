"""What a view's function gets, the functions that are built in, and the keys of groups.

1. What a function gets is its own: changing it changes nothing in the database.
2. A group's key is the value of the field it is grouped by, or a tuple of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from waferdb import _core, documents
from waferdb.errors import DocumentError, SchemaError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Count", "Group", "Latest", "Row", "Sum", "Top", "TopicClusters"]


@dataclass(frozen=True, slots=True)
class Row:
    """A document of a group: its key in the source, the LSN that wrote it, and when."""

    key: Any
    value: Any
    version: int
    time: datetime


class Group:
    """One group, as a view's function gets it.

    `key` is what its documents have in common: a value, or a tuple for several fields. `rows` are
    its documents in the order they were written, `previous` the last result (None at first).
    """

    __slots__ = ("_vectors", "key", "previous", "rows")

    key: Any
    rows: Sequence[Row]
    previous: documents.Document | None

    def __init__(
        self,
        key: Any,
        rows: Sequence[Row],
        previous: documents.Document | None = None,
        vectors: Callable[[str, list[str]], list[NDArray[np.float32] | None]] | None = None,
    ) -> None:
        self.key = key
        self.rows = rows
        self.previous = previous
        self._vectors = vectors

    def vectors(self, of: str, keys: list[str]) -> list[NDArray[np.float32] | None]:
        """The vectors of these keys in the structure `of`, as they are with the rows."""
        if self._vectors is None:
            raise TypeError("a group made by hand has no vectors")
        return self._vectors(of, keys)

    def __repr__(self) -> str:
        return f"Group({self.key!r}, {len(self.rows)} rows)"


Function = Callable[[Group], Any]


@dataclass(frozen=True, slots=True)
class Count:
    """How many documents a group has: `{"count": n}`."""

    def to_json(self) -> dict[str, Any]:
        """The stored form."""
        return {"name": "count"}


@dataclass(frozen=True, slots=True)
class Sum:
    """The sum of a field over the documents that have a number there: `{"sum": x, "count": n}`.

    It is exact whatever was added and taken away in whatever order, and rounded once, when read.
    """

    field: str

    def __post_init__(self) -> None:
        _check_field(self.field, "field")

    def to_json(self) -> dict[str, Any]:
        """The stored form."""
        return {"name": "sum", "field": self.field}


@dataclass(frozen=True, slots=True)
class Latest:
    """The `n` documents written last, newest first:
    `{"rows": [{"key", "version", "value"}, …]}`."""

    n: int = 1

    def __post_init__(self) -> None:
        _check_count(self.n)

    def to_json(self) -> dict[str, Any]:
        """The stored form."""
        return {"name": "latest", "n": self.n}


@dataclass(frozen=True, slots=True)
class Top:
    """The `n` documents with the highest values of the field `by`, highest first, ties by key; in
    the form of `Latest`."""

    n: int
    by: str

    def __post_init__(self) -> None:
        _check_count(self.n)
        _check_field(self.by, "by")

    def to_json(self) -> dict[str, Any]:
        """The stored form."""
        return {"name": "top", "n": self.n, "by": self.by}


Incremental = Count | Sum | Latest | Top
FUNCTIONS = (Count, Sum, Latest, Top)


def function_from_json(stored: dict[str, Any]) -> Incremental | None:
    """The built-in function of its stored form; None for one of the caller's."""
    match stored:
        case {"name": "count"}:
            return Count()
        case {"name": "sum", "field": field}:
            return Sum(field)
        case {"name": "latest", "n": n}:
            return Latest(n)
        case {"name": "top", "n": n, "by": by}:
            return Top(n, by)
        case _:
            return None


def _check_count(n: object) -> None:
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= 10_000:
        raise SchemaError(f"n={n!r}: it is an int from 1 to 10,000")


def _check_field(field: object, name: str) -> None:
    if not isinstance(field, str) or not field:
        raise SchemaError(f"{name}={field!r}: it names a field")


@dataclass(frozen=True, slots=True)
class TopicClusters:
    """Clusters of a group's documents by their vectors in the structure `of`, at most `k`:
    `{"clusters": [{"size", "keys", "centroid"}, …]}`, largest first, `centroid` float32 bytes.

    Documents that came since the last result join the nearest cluster, or begin one while its
    cosine similarity is below `similarity`; those that went leave theirs. Only vectors of what
    came, and of clusters that something left, are looked at (sequential leader clustering,
    Hartigan, Clustering Algorithms, 1975, chapter 3); a deletion drops the previous result, so
    after one all are. Documents without a vector are in none.
    """

    of: str
    k: int = 8
    similarity: float = 0.5

    name: ClassVar[str] = "clusters"

    def __post_init__(self) -> None:
        _check_field(self.of, "of")
        _check_count(self.k)

    def __call__(self, group: Group) -> documents.Document:
        """The clusters of a group, from those of its previous result."""
        versions = {row.key: row.version for row in group.rows}
        before = group.previous or {"clusters": [], "version": 0}
        clusters = [
            _Cluster.left_of(cluster, versions, before["version"]) for cluster in before["clusters"]
        ]
        kept = {key for cluster in clusters for key in cluster.keys}
        fresh = [key for key in versions if key not in kept]
        asked = [key for cluster in clusters if cluster.total is None for key in cluster.keys]
        found = group.vectors(self.of, [*asked, *fresh])
        vectors = dict(zip([*asked, *fresh], found, strict=True))
        for cluster in clusters:
            cluster.add_up(vectors)
        clusters = [cluster for cluster in clusters if cluster.keys]
        for key in fresh:
            vector = vectors[key]
            if vector is not None:
                self._join(clusters, key, vector)
        clusters.sort(key=lambda cluster: -len(cluster.keys))
        newest = max(versions.values(), default=0)
        return {"clusters": [cluster.shown() for cluster in clusters], "version": newest}

    def _join(self, clusters: list[_Cluster], key: str, vector: NDArray[np.float32]) -> None:
        near = max(clusters, key=lambda cluster: cluster.similarity(vector), default=None)
        alone = near is None or near.similarity(vector) < self.similarity
        if near is None or (alone and len(clusters) < self.k):
            near = _Cluster([], np.zeros(len(vector)))
            clusters.append(near)
        near.join(key, vector)


class _Cluster:
    """Keys, and the sum of their vectors; None until it is added up."""

    __slots__ = ("keys", "total")

    def __init__(self, keys: list[str], total: NDArray[np.float64] | None) -> None:
        self.keys = keys
        self.total = total

    @classmethod
    def left_of(cls, stored: dict[str, Any], versions: dict[str, int], known: int) -> _Cluster:
        """What is left of a stored cluster: rows that went or were written again left it."""
        keys = [key for key in stored["keys"] if versions.get(key, known + 1) <= known]
        if len(keys) < len(stored["keys"]):
            return cls(keys, None)
        centroid = np.frombuffer(stored["centroid"], dtype="<f4").astype(np.float64)
        return cls(keys, centroid * len(keys))

    def add_up(self, vectors: dict[str, NDArray[np.float32] | None]) -> None:
        """Its sum, where keys left it."""
        if self.total is None:
            there = {key: v for key in self.keys if (v := vectors[key]) is not None}
            self.keys = list(there)
            self.total = np.sum([v.astype(np.float64) for v in there.values()], axis=0)

    def join(self, key: str, vector: NDArray[np.float32]) -> None:
        self.keys.append(key)
        self.total = np.asarray(self.total) + vector

    def similarity(self, vector: NDArray[np.float32]) -> float:
        """Cosine, to its centroid."""
        total = np.asarray(self.total)
        scale = float(np.linalg.norm(total) * np.linalg.norm(vector))
        return float(total @ vector) / scale if scale else 0.0

    def shown(self) -> dict[str, Any]:
        centroid = np.asarray(self.total) / len(self.keys)
        return {
            "size": len(self.keys),
            "keys": self.keys,
            "centroid": centroid.astype("<f4").tobytes(),
        }


def encode_key(key: Any, fields: int) -> bytes:
    """A group's key as the engine takes it. `TypeError` for a key that no group can have."""
    values = list(key) if fields > 1 and isinstance(key, tuple) else [key]
    if len(values) != fields:
        raise TypeError(f"a group of this view has a key of {fields} fields, not {key!r}")
    try:
        return documents.encode(values)
    except DocumentError as error:
        raise TypeError(f"{key!r} cannot be the key of a group: {error}") from None


def decode_key(group: bytes) -> Any:
    """The value or tuple of a group's key."""
    values = documents.decode(_core.group_values(group))
    return values[0] if len(values) == 1 else tuple(values)


def rows_of(
    inputs: list[tuple[bytes, bytes, int, int]],
    nested: bool,
    to_datetime: Callable[[int], datetime],
) -> Iterator[Row]:
    """The documents of a group, decoded for one call."""
    for key, document, version, time in inputs:
        name = decode_key(key) if nested else key.decode()
        yield Row(name, documents.decode(document), version, to_datetime(time))
