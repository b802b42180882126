"""How much each workload does, by name.

"tiny" shows in seconds that everything runs, "small" is `make bench`, "full" is what published
tables state. A store that has not done its `memories` when `seconds` are over stops there, and the
table says how many it did.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """One size of all workloads."""

    name: str
    rounds: int  # of waferdb and of the probe where figures vary; a peer runs once
    memories: int
    small_pairs: int  # kv-small
    pairs: int  # kv, scan
    records: int  # ycsb
    vectors: int  # vector-search, vector-reopen, vector-put
    queries: int  # vector-search
    large_vectors: int  # vector-large; 0: it is left to a larger size
    seconds: float  # most that one closed loop takes
    paced_seconds: float  # each open loop
    stream_seconds: float  # vector-stream
    trace_changes: int  # frontier, each trace
    queued_changes: int  # propagation-drain
    merge_bytes: int
    merge_seconds: float
    probe_seconds: float
    probe_layout: str  # "best": found by trials, which take seconds
    image_bytes: int
    minutes: float  # no measurement begins later


SIZES = {
    size.name: size
    for size in (
        Sizes(
            name="tiny",
            rounds=1,
            memories=200,
            small_pairs=2_000,
            pairs=1_000,
            records=100,
            vectors=1_000,
            queries=50,
            large_vectors=1_000,
            seconds=2.0,
            paced_seconds=0.2,
            stream_seconds=2.0,
            trace_changes=60,
            queued_changes=2_000,
            merge_bytes=1 << 10,
            merge_seconds=0.3,
            probe_seconds=0.05,
            probe_layout="growing",
            image_bytes=192 << 20,
            minutes=5.0,
        ),
        Sizes(
            name="small",
            rounds=2,
            memories=100_000,
            small_pairs=1_000_000,
            pairs=200_000,
            records=10_000,
            vectors=100_000,
            queries=1_000,
            large_vectors=0,
            seconds=4.0,
            paced_seconds=3.0,
            stream_seconds=60.0,
            trace_changes=10_000,
            queued_changes=200_000,
            merge_bytes=256 << 20,
            merge_seconds=24.0,
            probe_seconds=1.0,
            probe_layout="best",
            image_bytes=4 << 30,
            minutes=13.5,
        ),
        Sizes(
            name="full",
            rounds=5,
            memories=1_000_000,
            small_pairs=1_000_000,
            pairs=200_000,
            records=200_000,
            vectors=100_000,
            queries=1_000,
            large_vectors=1_000_000,
            seconds=600.0,
            paced_seconds=30.0,
            stream_seconds=60.0,
            trace_changes=10_000,
            queued_changes=1_000_000,
            merge_bytes=256 << 20,
            merge_seconds=120.0,
            probe_seconds=3.0,
            probe_layout="best",
            image_bytes=24 << 30,
            minutes=24 * 60.0,
        ),
    )
}
