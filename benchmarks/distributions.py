"""Which key comes next: the distributions of YCSB, by its published generators, made in bulk.

Cooper et al., "Benchmarking Cloud Serving Systems with YCSB", SoCC 2010, and the generators of its
reference implementation: zipfian by Gray et al.'s rejection-free method with constant 0.99,
scrambled over 10^10 items by FNV hashing, and "latest" as a zipfian distance from the newest.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Longs = NDArray[np.int64]

THETA = 0.99
# The reference implementation draws from this many items and hashes into those there are.
_SCRAMBLED_ITEMS = 10_000_000_000
_SCRAMBLED_ZETA = 26.46902820178302
_FNV_OFFSET = np.uint64(0xCBF29CE484222325)
_FNV_PRIME = np.uint64(1_099_511_628_211)


def uniform(random: np.random.Generator, items: int, count: int) -> Longs:
    """`count` numbers below `items`, each as likely as any other."""
    return random.integers(0, items, count, dtype=np.int64)


def scrambled_zipfian(random: np.random.Generator, items: int, count: int) -> Longs:
    """`count` numbers below `items`: a few are very popular, and they lie anywhere."""
    ranks = _zipfian(random.random(count), float(_SCRAMBLED_ITEMS), _SCRAMBLED_ZETA)
    return fnv(ranks) % items


def latest(random: np.random.Generator, newest: Longs) -> Longs:
    """For each `newest` number, one at a zipfian distance below it; none is negative."""
    items = newest.astype(np.float64) + 1
    zetas = np.cumsum(1 / np.arange(1, int(newest.max(initial=0)) + 2) ** THETA)
    ranks = _zipfian(random.random(len(newest)), items, zetas[newest])
    found: Longs = np.maximum(newest - ranks, 0)
    return found


def fnv(numbers: Longs) -> Longs:
    """The 64-bit FNV hash of each number's eight bytes, without its sign."""
    left = numbers.astype(np.uint64)
    found = np.full(len(numbers), _FNV_OFFSET, dtype=np.uint64)
    for _ in range(8):
        found = (found ^ (left & np.uint64(0xFF))) * _FNV_PRIME
        left >>= np.uint64(8)
    # The most negative number has no positive twin.
    return np.abs(np.maximum(found.view(np.int64), -np.iinfo(np.int64).max))


def _zipfian(
    chance: NDArray[np.float64],
    items: float | NDArray[np.float64],
    zeta: float | NDArray[np.float64],
) -> Longs:
    """Ranks from 0, by Gray et al., "Quickly Generating Billion-Record Synthetic Databases"."""
    two = 1 + 0.5**THETA
    eta = (1 - (2 / np.maximum(items, 2)) ** (1 - THETA)) / np.where(zeta > two, 1 - two / zeta, 1)
    far = items * np.maximum(eta * chance - eta + 1, 0) ** (1 / (1 - THETA))
    where = chance * zeta
    ranks = np.where(where < 1, 0, np.where(where < two, 1, far)).astype(np.int64)
    found: Longs = np.minimum(ranks, np.asarray(items, dtype=np.float64).astype(np.int64) - 1)
    return found
