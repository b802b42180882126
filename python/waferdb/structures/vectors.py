"""Vectors: float32 vectors by key, searched by distance.

Arrays cross the boundary as contiguous little-endian float32 without a copy where they have that
layout; the engine checks dimension, finiteness and norm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import compress
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from waferdb import _core, documents, policies, units
from waferdb.errors import LimitError, SchemaError, VectorError
from waferdb.policies import Consistency, Policy
from waferdb.results import Hits, Plan, Read, Receipt, VectorPlan
from waferdb.scope import AsOf, Scope
from waferdb.structures.base import (
    Keyed,
    Structure,
    choice,
    freshness_of,
    in_chunks,
    key_list,
    read_of,
)
from waferdb.structures.rows import Rows, Where, encode_where

if TYPE_CHECKING:
    from waferdb.structures.base import _Linker

D = TypeVar("D")
Vector = NDArray[np.float32]

_F4 = np.dtype("<f4")
_METRICS = ("cosine", "l2", "dot")
_CODES = ("i8", "bf16", "f32")
_HYBRID = policies.hybrid()
# How often a search begins again because hits were forgotten under it; then it answers with fewer.
_SEARCHES = 8


class Vectors(Keyed[str]):
    """Vectors of `dim` float32 components by key.

    `metric` is `"cosine"` (1 - cos), `"l2"` (Euclidean) or `"dot"` (-x·y): smaller is nearer. With
    `rows` (the name of a `Rows`, or its descriptor) every vector belongs to the row of its key: a
    vector without a row is `LinkError` at commit, and goes with its row. `model` is a note on what
    made the vectors, `codes` how a graph holds them in memory. Raises `SchemaError` for arguments
    that cannot be.

    >>> import waferdb
    >>> db = waferdb.open(":memory:", {"vecs": Vectors(dim=2, metric="l2")})
    >>> _ = db.vecs.put_many(["a", "b"], [[0.0, 0.0], [3.0, 4.0]])
    >>> [(hit.key, hit.distance) for hit in db.vecs.search([0.0, 0.0], k=2)]
    [('a', 0.0), ('b', 5.0)]
    """

    __slots__ = ("_rows", "codes", "dim", "metric", "model", "policy", "rows")

    KIND = "vectors"

    dim: int
    metric: str
    model: str | None
    codes: str
    policy: Policy

    def __init__(
        self,
        dim: int,
        metric: Literal["cosine", "l2", "dot"] = "cosine",
        rows: str | Rows[Any, Any] | None = None,
        model: str | None = None,
        codes: Literal["i8", "bf16", "f32"] = "i8",
        policy: Policy = _HYBRID,
    ) -> None:
        super().__init__(policy)
        dim_max = _core.LIMITS["vector_dim_max"]
        if not units.is_int(dim) or not 1 <= dim <= dim_max:
            raise SchemaError(f"dim={dim!r}: it is an int from 1 to {dim_max}")
        if model is not None and not isinstance(model, str):
            raise SchemaError(f"model={model!r}: it is text")
        self.dim = dim
        self.metric = choice(metric, "metric", _METRICS)
        self.rows: str | Rows[Any, Any] | None = rows
        self.model = model
        self.codes = choice(codes, "codes", _CODES)
        self._rows: int | None = None

    def _bind(self, scope: Scope, name: str, structure_id: int) -> Self:
        bound = super()._bind(scope, name, structure_id)
        bound.dim = self.dim
        bound.metric = self.metric
        bound.model = self.model
        bound.codes = self.codes
        bound.policy = self.policy
        linked = scope.shared.catalog.link_of(name)
        bound.rows = None if linked is None else linked.name
        bound._rows = None if linked is None else linked.id
        return bound

    def _arguments(self) -> dict[str, Any]:
        linked = self.rows.name if isinstance(self.rows, Structure) else self.rows
        rows = {} if linked is None else {"rows": linked}
        return {"dim": self.dim, "metric": self.metric} | rows

    def _to_json(self, name_of: Callable[[str | Structure, str], str]) -> dict[str, Any]:
        return {
            "kind": "vectors",
            "dim": self.dim,
            "metric": self.metric,
            "rows": None if self.rows is None else name_of(self.rows, "rows"),
            "model": self.model,
            "codes": self.codes,
            "policy": self.policy.to_json(),
        }

    @classmethod
    def _from_json(cls, stored: dict[str, Any]) -> Self:
        return cls(
            stored["dim"],
            stored["metric"],
            stored["rows"],
            stored["model"],
            stored["codes"],
            policies.from_json(stored["policy"]),
        )

    def _check_links(self, name: str, structures: dict[str, Structure], link: _Linker) -> None:
        if self.rows is not None:
            target = structures[link(self.rows, "rows")]
            if not isinstance(target, Rows) or target.codec != "msgpack":
                raise SchemaError(f'{name}: rows= names a Rows with codec="msgpack"')

    # Writing.

    def put(self, key: str, vector: ArrayLike) -> Receipt:
        """Stores a vector, shape `(dim,)`, under `key`.

        Raises `VectorError` for another shape, NaN, infinity, or zero under cosine.
        """
        if key.__class__ is not str:
            self._check_key(key)
        array = self._array(vector, 1)
        tx = self._tx
        if tx is None:
            return self._scope.write(_core.Transaction.vector_put, self._id, key, array)
        tx.vector_put(self._id, key, array)
        return self._receipt

    def put_many(self, keys: Iterable[str], vectors: ArrayLike) -> Receipt:
        """Stores many: `vectors` has shape `(len(keys), dim)`. One commit (in a batch: one per
        `every` vectors)."""
        names = self._keys(keys)
        array = self._array(vectors, 2)
        if len(names) != len(array):
            raise VectorError(f"{len(names)} keys for {len(array)} vectors; nothing was written")
        receipt = self._receipt
        start = 0
        for some in in_chunks(names, self._scope.chunk):
            part = array[start : start + len(some)]
            start += len(some)
            receipt = self._scope.write(_core.Transaction.vector_put_many, self._id, some, part)
        return receipt

    def delete(self, key: str) -> Receipt:
        """Deletes the vector of a key; no error if there is none."""
        if key.__class__ is not str:
            self._check_key(key)
        return self._scope.write(_core.Transaction.delete, self._id, key)

    # Reading.

    def get(
        self,
        key: str,
        default: D | None = None,
        *,
        for_update: bool = False,
        consistency: Consistency | None = None,
        as_of: AsOf | None = None,
    ) -> Vector | D | None:
        """The vector as it was given: a read-only float32 array of shape `(dim,)`; or `default`."""
        if key.__class__ is not str:
            self._check_key(key)
        if for_update:
            self._watch(key)
        raw = self._reader(consistency, as_of).get(self._id, key)
        return default if raw is None else decode_vector(raw)

    def get_many(
        self,
        keys: Iterable[str],
        *,
        consistency: Consistency | None = None,
        as_of: AsOf | None = None,
    ) -> list[Vector | None]:
        """The vectors of `keys` at one LSN, in their order, None where there is none."""
        raws = self._scope.reader(consistency, as_of, self._id).get_many(self._id, self._keys(keys))
        return [None if raw is None else decode_vector(raw) for raw in raws]

    def read(
        self,
        key: str,
        *,
        consistency: Consistency | None = None,
        as_of: AsOf | None = None,
    ) -> Read[Vector]:
        """The vector with its version, time and freshness; absent: a `Read` of None."""
        if key.__class__ is not str:
            self._check_key(key)
        reader = self._scope.reader(consistency, as_of, self._id)
        return read_of(reader.read(self._id, key), decode_vector, freshness_of(reader))

    def __getitem__(self, key: str) -> Vector:
        if key.__class__ is not str:
            self._check_key(key)
        raw = self._scope.strong().get(self._id, key)
        if raw is None:
            raise KeyError(key)
        return decode_vector(raw)

    def search(
        self,
        vector: ArrayLike,
        k: int = 10,
        *,
        where: Where | None = None,
        exact: bool = False,
        ef: int | None = None,
        consistency: Consistency | None = None,
        as_of: AsOf | None = None,
    ) -> Hits:
        """The `k` nearest vectors to `vector`, shape `(dim,)`, nearest first, ties by key.

        The newest vectors are compared one by one, sealed ones are found through graphs; distances
        are those of the float32 vectors as given. `ef` is how many candidates each graph gives (by
        default 64, 24 more with each doubling of a graph beyond 65,536 vectors, 3 for each result
        if that is more; at least `k`): more find more and take longer. Small graphs are scanned
        unless it is given. `exact` compares every vector. `where` (with `rows=`) keeps those whose
        row matches, as in `Rows.find`; `explain` tells the way it is taken. There are `k` hits
        where so many vectors exist. Rows and vectors are read at one LSN: `Hits.freshness`.
        """
        query = self._array(vector, 1)
        _check_search(k, ef)
        condition = self._condition(where)
        reader = self._scope.reader(consistency, as_of, self._id)
        for _ in range(_SEARCHES):
            keys, distances = reader.search(self._id, query, k, exact, ef, condition)
            hits = self._hits(reader, keys, distances)
            if len(hits) == len(keys):
                break
        return hits

    def search_many(
        self,
        vectors: ArrayLike,
        k: int = 10,
        *,
        exact: bool = False,
        ef: int | None = None,
        consistency: Consistency | None = None,
        as_of: AsOf | None = None,
    ) -> list[Hits]:
        """`search` for each row of `vectors`, shape `(n, dim)`, at one LSN; many rows are searched
        on all cores."""
        queries = self._array(vectors, 2)
        _check_search(k, ef)
        reader = self._scope.reader(consistency, as_of, self._id)
        found = reader.search_many(self._id, queries, len(queries), k, exact, ef)
        return [self._hits(reader, keys, distances) for keys, distances in found]

    def explain(self, where: Where | None = None) -> VectorPlan:
        """How a search with this filter would be answered.

        >>> import waferdb
        >>> db = waferdb.open(":memory:", {"vecs": Vectors(dim=2)})
        >>> db.vecs.explain().access
        'exact'
        """
        condition = self._condition(where)
        reader = self._scope.strong()
        plan = None
        if condition is not None and self._rows is not None:
            plan = Plan._from_json(reader.explain(self._rows, condition, None))
        access, matching = reader.explain_search(self._id, condition)
        return VectorPlan(access, reader.count(self._id), plan, matching)

    def _keys(self, keys: Iterable[str]) -> list[str]:
        names = key_list(keys)
        for key in names:
            if key.__class__ is not str:
                self._check_key(key)
        return names

    def _hits(self, reader: _core.Reader, keys: list[str], distances: list[float]) -> Hits:
        """The hits; without those that were forgotten since they were found, at any LSN."""
        rows = None if self._rows is None else reader.get_many(self._rows, keys)
        if rows is not None and None in rows:
            there = [
                row is not None or reader.contains(self._id, key)
                for key, row in zip(keys, rows, strict=True)
            ]
            keys = list(compress(keys, there))
            distances = list(compress(distances, there))
            rows = list(compress(rows, there))
        return Hits(keys, distances, rows, documents.decode, freshness_of(reader))

    def _condition(self, where: Where | None) -> bytes | None:
        if where is None:
            return None
        if self._rows is None:
            raise TypeError(f"{self._name!r} has no rows to filter by; declare it with rows=")
        return encode_where(where)

    def _array(self, vectors: ArrayLike, axes: int) -> Vector:
        """The engine's form of one vector (`axes` 1) or several (2)."""
        # NumPy has one object for each of its own types; another equal one takes the longer way.
        if type(vectors) is np.ndarray and vectors.dtype is _F4 and vectors.flags.c_contiguous:
            array = vectors
        else:
            array = self._converted(vectors)
        if array.ndim != axes or array.shape[-1] != self.dim:
            shape = f"({self.dim},)" if axes == 1 else f"(n, {self.dim})"
            if axes == 2 and array.size == 0:
                return array.reshape(0, self.dim)
            raise VectorError(
                f"{self._name!r} has dimension {self.dim} and takes float32 of shape {shape}, "
                f"not {array.shape}; nothing was written"
            )
        return array

    def _converted(self, vectors: ArrayLike) -> Vector:
        try:
            given = np.asarray(vectors)
        except (ValueError, TypeError) as cause:
            raise VectorError(f"{self._name!r}: no array of numbers: {cause}") from None
        if given.size and given.dtype.kind not in "fiu":
            raise VectorError(f"{self._name!r} takes numbers, not an array of {given.dtype}")
        # A float64 beyond float32 becomes infinity here, which the engine refuses.
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(given, dtype=_F4)


def decode_vector(raw: bytes) -> Vector:
    """A stored vector, read-only."""
    return np.frombuffer(raw, dtype=_F4)


def _check_search(k: int, ef: int | None) -> None:
    k_max = _core.LIMITS["search_k_max"]
    for name, value in (("k", k), ("ef", ef)):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise TypeError(f"{name} is an int, not {type(value).__name__}")
        if value < 1:
            raise ValueError(f"{name}={value}: it is at least 1")
        if name == "k" and value > k_max:
            raise LimitError(f"k={value}: at most {k_max} results are possible; search for fewer")


__all__ = ["Vectors"]
