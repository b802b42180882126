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
    cosine similarity is below `similarity`; those that went leave theirs. Only clusters that
    changed are computed again (sequential leader clustering, Hartigan, Clustering Algorithms, 1975,
    chapter 3). Documents without a vector are in none.
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
        known = before["version"]
        clusters = [
            [key for key in cluster["keys"] if versions.get(key, known + 1) <= known]
            for cluster in before["clusters"]
        ]
        kept = {key for cluster in clusters for key in cluster}
        fresh = [key for key in versions if key not in kept]
        wanted = [*kept, *fresh]
        vectors = dict(zip(wanted, group.vectors(self.of, wanted), strict=True))
        members = [[v for key in keys if (v := vectors[key]) is not None] for keys in clusters]
        for key in fresh:
            vector = vectors[key]
            if vector is not None:
                self._join(clusters, members, key, vector)
        shown = [
            {
                "size": len(keys),
                "keys": keys,
                "centroid": np.mean(vectors_of, axis=0).astype("<f4").tobytes(),
            }
            for keys, vectors_of in zip(clusters, members, strict=True)
            if vectors_of
        ]
        shown.sort(key=lambda cluster: -len(cluster["keys"]))
        newest = max(versions.values(), default=0)
        return {"clusters": shown, "version": newest}

    def _join(
        self,
        clusters: list[list[str]],
        members: list[list[NDArray[np.float32]]],
        key: str,
        vector: NDArray[np.float32],
    ) -> None:
        best, best_similarity = -1, -2.0
        for number, vectors in enumerate(members):
            if vectors:
                similarity = _cosine(np.mean(vectors, axis=0), vector)
                if similarity > best_similarity:
                    best, best_similarity = number, similarity
        if best < 0 or (best_similarity < self.similarity and len(clusters) < self.k):
            clusters.append([key])
            members.append([vector])
        else:
            clusters[best].append(key)
            members[best].append(vector)


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    scale = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / scale if scale else 0.0


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
