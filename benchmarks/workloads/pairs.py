"""Keys and values of the key-value workloads: the same in each run, and little to hold."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from benchmarks.compare.base import Pair

_NOISE_BYTES = 1 << 20


class Pairs:
    """`count` pairs by number. Values are noise, so that no compression shrinks them."""

    def __init__(self, count: int, value_bytes: int, key_bytes: int = 16, seed: int = 1) -> None:
        self.count, self.value_bytes, self.key_bytes = count, value_bytes, key_bytes
        random = np.random.default_rng(seed)
        self._keys = random.bytes(count * key_bytes)
        self._noise = random.bytes(_NOISE_BYTES + value_bytes)

    @property
    def pair_bytes(self) -> int:
        """Logical bytes of one pair."""
        return self.key_bytes + self.value_bytes

    def key(self, number: int) -> bytes:
        """A random key; the same number has the same key."""
        return self._keys[number * self.key_bytes : (number + 1) * self.key_bytes]

    def value(self, number: int, version: int = 0) -> bytes:
        """A value, another one for each version."""
        at = (number * 7_919 + version * 104_729) % _NOISE_BYTES
        return self._noise[at : at + self.value_bytes]

    def batches(
        self, order: NDArray[np.int64], size: int, version: int = 0
    ) -> Iterator[list[Pair]]:
        """The pairs of `order`, `size` at a time."""
        for start in range(0, len(order), size):
            some = order[start : start + size].tolist()
            yield [(self.key(number), self.value(number, version)) for number in some]
