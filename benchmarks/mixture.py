"""Embeddings that lie as those of text do: a seeded Gaussian mixture, and the exact truth about it.

1. A vector is a centre plus noise of the centre's own spread (one of a few), of length 1. Vectors
   that are independent of each other would have no neighbours worth finding.
2. Vector n is the same in every process and whatever is drawn before it. Queries are new draws from
   the same mixture, never among the vectors.
3. Truth compares every vector, in blocks. Vectors have length 1, so the largest product is the
   nearest by cosine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Longs = NDArray[np.int64]

BLOCK = 4_096
_CENTRES = 1_000
_SPREADS = (0.3, 0.6, 0.9)  # lengths of the noise, of centres of length 1
_SEED = 384


class Mixture:
    """An endless row of vectors of `dim` components, by number."""

    def __init__(self, dim: int, centres: int = _CENTRES, seed: int = _SEED) -> None:
        random = np.random.default_rng((seed, dim))
        self.dim, self._seed = dim, seed
        self._centres = _normalised(random.standard_normal((centres, dim), dtype=np.float32))
        lengths = random.choice(np.array(_SPREADS, dtype=np.float32), centres)
        self._spreads = lengths / np.float32(np.sqrt(dim))

    def vectors(self, stop: int, start: int = 0) -> Floats:
        """Vectors number `start` to `stop`, shape `(stop - start, dim)`."""
        found = np.empty((stop - start, self.dim), dtype=np.float32)
        for at, block in self.blocks(stop, start):
            found[at - start : at - start + len(block)] = block
        return found

    def blocks(self, stop: int, start: int = 0) -> Iterator[tuple[int, Floats]]:
        """The same by blocks: the number of the first, and at most BLOCK vectors."""
        for number in range(start // BLOCK, -(-stop // BLOCK)):
            first = max(start, number * BLOCK)
            own = self._draw(BLOCK, 0, number)
            yield first, own[first - number * BLOCK : stop - number * BLOCK]

    def queries(self, count: int) -> Floats:
        """`count` new draws."""
        return self._draw(count, 1, 0)

    def _draw(self, count: int, stream: int, number: int) -> Floats:
        random = np.random.default_rng((self._seed, self.dim, stream, number))
        which = random.integers(0, len(self._centres), count)
        noise = random.standard_normal((count, self.dim), dtype=np.float32)
        noise *= self._spreads[which, None]
        return _normalised(noise + self._centres[which])


def _normalised(vectors: Floats) -> Floats:
    found: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return found


def truth(blocks: Iterable[tuple[int, Floats]], queries: Floats, k: int) -> Longs:
    """The numbers of the `k` vectors nearest to each query, nearest first.

    Where there are fewer vectors than `k`, the rest of a row is -1.
    """
    near = np.full((len(queries), k), -np.inf, dtype=np.float32)
    numbers = np.full((len(queries), k), -1, dtype=np.int64)
    for first, block in blocks:
        products = queries @ block.T
        best = _largest(products, k)
        near = np.concatenate([near, np.take_along_axis(products, best, axis=1)], axis=1)
        numbers = np.concatenate([numbers, best + first], axis=1)
        kept = _largest(near, k)
        near = np.take_along_axis(near, kept, axis=1)
        numbers = np.take_along_axis(numbers, kept, axis=1)
    order = np.argsort(-near, axis=1, kind="stable")
    found: Longs = np.take_along_axis(numbers, order, axis=1)
    return found


def _largest(values: Floats, k: int) -> Longs:
    """Where the `k` largest of each row are (all, if there are fewer), in no order."""
    if values.shape[1] <= k:
        return np.broadcast_to(np.arange(values.shape[1]), values.shape)
    return np.argpartition(values, -k, axis=1)[:, -k:]


def in_blocks(vectors: Floats) -> Iterator[tuple[int, Floats]]:
    """Vectors that are there already, as `truth` takes them."""
    for start in range(0, len(vectors), BLOCK):
        yield start, vectors[start : start + BLOCK]


def recall(found: Sequence[Iterable[int]], true: Longs) -> float:
    """The share of the true neighbours that were found, over all queries."""
    pairs = zip(found, true.tolist(), strict=True)
    hit = there = 0
    for own, wanted in pairs:
        real = {number for number in wanted if number >= 0}
        hit += len(real.intersection(own))
        there += len(real)
    return hit / max(there, 1)
