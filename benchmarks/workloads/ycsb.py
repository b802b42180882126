"""YCSB's core workloads A to F, by their published mixes, durable.

Cooper et al., SoCC 2010. Records are ten fields of 100 bytes under "user" and a hash. As in the
binding for key-value stores, an update reads the record and puts it back with one field changed,
and a read answers the whole record.
"""

from __future__ import annotations

import gc
import itertools
import time
from dataclasses import dataclass

import numpy as np

from benchmarks import distributions, pace
from benchmarks.compare import PAIRS, Peer
from benchmarks.sizes import Sizes
from benchmarks.task import Session, Task

from .base import RATE, Case, Column, Found, Leave, N, Workload

_FIELDS, _FIELD_BYTES = 10, 100
_PER_COMMIT = 1_000
_SCAN_LENGTH_MAX = 100
READ, UPDATE, INSERT, SCAN, MODIFY = "read", "update", "insert", "scan", "read-modify-write"


@dataclass(frozen=True)
class Mix:
    """One published workload: shares of the operations and the distribution of keys."""

    shares: dict[str, float]
    keys: str
    what: str


MIXES = {
    "A": Mix({READ: 0.5, UPDATE: 0.5}, "zipfian", "update heavy: 50 % reads, 50 % updates"),
    "B": Mix({READ: 0.95, UPDATE: 0.05}, "zipfian", "read mostly: 95 % reads, 5 % updates"),
    "C": Mix({READ: 1.0}, "zipfian", "read only"),
    "D": Mix({READ: 0.95, INSERT: 0.05}, "latest", "read latest: 95 % reads, 5 % inserts"),
    "E": Mix({SCAN: 0.95, INSERT: 0.05}, "zipfian", "short ranges: 95 % scans, 5 % inserts"),
    "F": Mix({READ: 0.5, MODIFY: 0.5}, "zipfian", "50 % reads, 50 % read-modify-writes"),
}

Operation = tuple[str, int, int]


def operations(mix: Mix, records: int, count: int, seed: int = 7) -> list[Operation]:
    """`count` operations: kind, number of the record, length of a scan."""
    random = np.random.default_rng(seed)
    kinds = random.choice(list(mix.shares), size=count, p=list(mix.shares.values()))
    newest = records - 1 + np.cumsum(kinds == INSERT)
    if mix.keys == "latest":
        numbers = distributions.latest(random, newest)
    else:
        # Drawn over what will be there in the end; what is not there yet is drawn again.
        expected = records + round(2 * count * mix.shares.get(INSERT, 0.0))
        numbers = distributions.scrambled_zipfian(random, expected, count)
        while (early := numbers > newest).any():
            again = distributions.scrambled_zipfian(random, expected, int(early.sum()))
            numbers[early] = again
    numbers = np.where(kinds == INSERT, newest, numbers)
    lengths = random.integers(1, _SCAN_LENGTH_MAX, count, endpoint=True)
    return list(zip(kinds.tolist(), numbers.tolist(), lengths.tolist(), strict=True))


class Ycsb(Workload):
    """The six core workloads."""

    name = "ycsb"
    what = (
        "Records of ten 100-byte fields, loaded and drained; then as many operations as records "
        "(zipfian constant 0.99, scrambled; latest; scan lengths uniform from 1 to 100), one "
        "thread, closed loop, every write its own durable commit."
    )
    denominator = "seconds; percentiles are service times of one kind of operation"
    kind = PAIRS
    columns = (
        N,
        Column("per_second", "operations/s", RATE),
        *(
            Column(f"{kind}_{name}_us", f"{kind} {name} µs", RATE)
            for kind in (READ, UPDATE, INSERT, SCAN, MODIFY)
            for name in ("p50", "p99")
        ),
    )

    def cases(self, sizes: Sizes) -> list[Case]:
        return [
            Case(f"{letter}: {mix.what}", sizes.records, sizes.seconds / 4, {"mix": letter})
            for letter, mix in MIXES.items()
        ]

    def run(self, task: Task, leave: Leave) -> Found:
        mix = MIXES[task.settings["mix"]]
        work = operations(mix, task.n, task.n)
        keys = _keys(max(task.n, 1 + max(number for _, number, _ in work)))
        session = Session(task, self.kind, durability=self.durability)
        client = Client(session.peer, keys)
        client.load(task.n)
        session.peer.drain()
        gc.collect()
        gc.freeze()
        done = pace.closed(client.do, work, task.seconds)
        found: Found = {"n_done": done.operations, "per_second": done.per_second}
        kinds = np.array([kind for kind, _, _ in work[: done.operations]])
        for kind in mix.shares:
            for name, value in pace.percentiles(done.nanos[kinds == kind]).items():
                found[f"{kind}_{name}"] = value
        logical = (task.n + client.written) * _FIELDS * _FIELD_BYTES
        return {**session.finish(logical), **found}


class Client:
    """The operations on one store."""

    def __init__(self, peer: Peer, keys: list[bytes]) -> None:
        self._peer, self._keys = peer, keys
        self._noise = np.random.default_rng(8).bytes(1 << 20)
        self.written = 0
        self._doers = {
            READ: self._read,
            UPDATE: self._update,
            INSERT: self._insert,
            SCAN: self._scan,
            MODIFY: self._modify,
        }

    def load(self, records: int) -> None:
        """The records, in the order of their numbers."""
        for start in range(0, records, _PER_COMMIT):
            some = range(start, min(start + _PER_COMMIT, records))
            self._peer.put_many([(self._keys[n], self._record(n)) for n in some])

    def do(self, operation: Operation) -> None:
        """One operation."""
        kind, number, length = operation
        self._doers[kind](number, length)

    def _record(self, seed: int, bytes_wanted: int = _FIELDS * _FIELD_BYTES) -> bytes:
        at = seed * 1_009 % (len(self._noise) - bytes_wanted)
        return self._noise[at : at + bytes_wanted]

    def _read(self, number: int, _: int) -> bytes:
        found = self._peer.get(self._keys[number])
        if found is None:
            raise AssertionError(f"record {number} is not there")
        return found

    def _update(self, number: int, length: int) -> None:
        found = self._read(number, length)
        at = length % _FIELDS * _FIELD_BYTES
        field = self._record(number + time.perf_counter_ns(), _FIELD_BYTES)
        self._peer.put(self._keys[number], found[:at] + field + found[at + _FIELD_BYTES :])
        self.written += 1

    def _insert(self, number: int, _: int) -> None:
        self._peer.put(self._keys[number], self._record(number))
        self.written += 1

    def _scan(self, number: int, length: int) -> None:
        for _ in itertools.islice(self._peer.scan(self._keys[number]), length):
            pass

    def _modify(self, number: int, length: int) -> None:
        self._read(number, length)
        self._update(number, length)


def _keys(count: int) -> list[bytes]:
    hashes = distributions.fnv(np.arange(count, dtype=np.int64))
    return [b"user%d" % number for number in hashes.tolist()]
