"""What waferdb is to reach, as data, and what a run says of it.

A target is judged from the rows of its own run: a figure of waferdb's, or its ratio to a peer's or
to the raw probe's. Figures are medians of the rounds; a ratio to the probe is taken within each
round first. The best peer is the best of those as durable as waferdb. What cannot be judged says
why; nothing is left out.
"""

from __future__ import annotations

import operator
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

BEST = "best peer"
PROBE = "probe"
SUBJECT = "waferdb"
NO_FIGURE = "not measured in this run"

Row = dict[str, Any]
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Target:
    """One line of what is promised."""

    workload: str
    case: str  # a case whose name begins so
    figure: str
    what: str
    bound: float
    than: str = "<="
    to: str | None = None  # a peer, PROBE or BEST: the ratio to its figure
    stated_n: int | None = None  # the n for which it is stated
    needs: tuple[str, ...] = ()  # figures that must be true


@dataclass(frozen=True)
class Verdict:
    """What became of a target."""

    target: Target
    case: str | None  # the case it was judged by
    value: float | None
    note: str = ""

    @property
    def word(self) -> str:
        """met, missed or not judged."""
        if self.value is None:
            return "not judged"
        return "met" if _COMPARE[self.target.than](self.value, self.target.bound) else "missed"


_DEVICE = "device_per_logical"
_RATE = "per_second"
_EQUAL = "equal_per_second"
_GRAPHS = "with graphs"
_ENOUGH = ("enough_sealed",)
_N, _PAIRS = 100_000, 200_000

TARGETS = (
    Target("remember", "100 per commit", _DEVICE, "device/logical", 1.25, stated_n=_N),
    Target("remember", "100 per commit", _RATE, "memories/s", 40_000, ">=", stated_n=_N),
    Target(
        "remember", "100 per commit", _RATE, "x RocksDB+usearch", 8, ">=", "rocksdb", stated_n=_N
    ),
    Target("remember", "1 per commit, 16 threads", _DEVICE, "device/logical", 2.0, stated_n=_N),
    Target(
        "remember",
        "1 per commit, 16 threads",
        "commits_per_sync",
        "commits/sync",
        12,
        ">=",
        stated_n=_N,
    ),
    Target(
        "remember", "1 per commit, 16 threads", _RATE, "x best peer", 10, ">=", BEST, stated_n=_N
    ),
    Target("remember", "1 per commit, 1 thread", _DEVICE, "device/logical", 2.7, stated_n=_N),
    Target(
        "remember",
        "1 per commit, 1 thread",
        _RATE,
        "of the raw probe",
        0.85,
        ">=",
        PROBE,
        stated_n=_N,
    ),
    Target("remember", _GRAPHS, _DEVICE, "device/logical", 1.32, stated_n=_N, needs=("sealed",)),
    Target(
        "remember",
        _GRAPHS,
        "vector_share",
        "vectors' files/logical",
        0.08,
        stated_n=_N,
        needs=("sealed",),
    ),
    Target("vector-search", "", "recall", "recall@10", 0.99, ">=", stated_n=_N),
    Target("vector-search", "", _RATE, "x usearch f32", 2, ">=", "usearch", stated_n=_N),
    Target("vector-search", "", _EQUAL, "x usearch, equal recall", 2, ">=", "usearch", stated_n=_N),
    Target(
        "vector-search", "", _EQUAL, "x hnswlib, equal recall", 0.85, ">=", "hnswlib", stated_n=_N
    ),
    Target(
        "vector-search",
        "",
        "built_per_second",
        "sealed vectors/s",
        10_000,
        ">=",
        stated_n=_N,
        needs=("sealed",),
    ),
    Target("vector-reopen", "", "reopen_ms", "first search, ms", 500, stated_n=_N),
    Target("vector-reopen", "", "reopen_tail_ms", "with tail, ms", 1_500, stated_n=_N),
    Target("vector-put", "", _RATE, "vectors/s", 60_000, ">=", stated_n=_N),
    Target("vector-stream", "", "recall_min", "recall@10, worst", 0.95, ">=", needs=_ENOUGH),
    Target("vector-stream", "", "deleted_returned", "deleted returned", 0, needs=_ENOUGH),
    Target("vector-stream", "", "search_p99_ratio", "p99, x idle", 3, needs=_ENOUGH),
    Target(
        "vector-stream",
        "",
        "commit_ratio",
        "commit p50, x lazy",
        1.2,
        needs=(*_ENOUGH, "lazy_kept_pace"),
    ),
    Target("locomo", "a database each", "difference", "points", 0.5, needs=("sealed",)),
    Target("locomo", "one database", "difference", "points", 0.5, needs=("sealed",)),
    Target("frontier", "chat", "hybrid_per_eager", "result bytes, hybrid 1 s / eager", 0.2),
    Target("frontier", "hot key", "lazy_per_eager", "result bytes, lazy / eager", 0.01),
    *(
        Target("frontier", trace, f"controller_per_{of}", what, 1.15, needs=needs)
        for trace in ("chat", "burst", "hot key", "read heavy")
        for of, what, needs in (
            ("best", "bytes, controller / best within its bound", ("controlled",)),
            ("as_fresh", "bytes, controller / best as fresh", ("controller_acted",)),
        )
    ),
    Target("propagation", "", "p50_ratio", "commit p50, x log alone", 1.15),
    Target("propagation-critical", "", "behind_max", "commits behind at return", 0),
    Target(
        "propagation-drain",
        "all wait: drain",
        _RATE,
        "changes/s",
        300_000,
        ">=",
        stated_n=1_000_000,
    ),
    Target("vector-large", "", "recall", "recall@10", 0.95, ">=", stated_n=1_000_000),
    Target("vector-large", "", "peak_bytes", "peak RSS, bytes", 4 << 30, stated_n=1_000_000),
    Target("kv-small", "", "peak_bytes", "peak RSS, bytes", 300e6, stated_n=3_000_000),
    Target(
        "kv-small", "", "device_bytes", "x RocksDB's bytes", 0.5, to="rocksdb", stated_n=3_000_000
    ),
    Target("kv-small", "", "reopen_ms", "reopen, ms", 150, stated_n=3_000_000),
    Target("kv-small", "", "tail_mb_per_second", "tail, MB/s", 500, ">=", stated_n=3_000_000),
    Target("kv", "single put", _RATE, "x RocksDB", 1.0, ">=", "rocksdb", stated_n=_PAIRS),
    Target("kv", "batch put", _RATE, "x RocksDB", 1.0, ">=", "rocksdb", stated_n=_PAIRS),
    Target("kv", "point get from runs", _RATE, "x RocksDB", 1.5, ">=", "rocksdb", stated_n=_PAIRS),
    Target("kv", "point get from runs", _RATE, "x LMDB", 0.5, ">=", "lmdb", stated_n=_PAIRS),
    Target(
        "kv", "point get from memory", _RATE, "x RocksDB", 1.5, ">=", "rocksdb", stated_n=_PAIRS
    ),
    Target("kv", "point get from memory", _RATE, "x LMDB", 0.8, ">=", "lmdb", stated_n=_PAIRS),
    Target(
        "kv",
        "scan, keys written in order",
        _RATE,
        "x RocksDB",
        1.0,
        ">=",
        "rocksdb",
        stated_n=_PAIRS,
    ),
    Target(
        "kv",
        "scan, keys written at random",
        _RATE,
        "x RocksDB",
        0.5,
        ">=",
        "rocksdb",
        stated_n=_PAIRS,
    ),
    Target("merging", "", "p99_ratio", "p99 while / without", 3.0, needs=("enough_merged",)),
    Target("text", "documents of 1 to 2 KB, zstd", _DEVICE, "device/logical", 1.0, "<"),
)


class _NotJudged(Exception):  # noqa: N818 - it is no error: it carries the reason
    """Why a target cannot be judged."""


def judge(rows: list[Row]) -> list[Verdict]:
    """Each target whose workload is among the rows."""
    there = {row["workload"] for row in rows}
    return [_judge(target, rows) for target in TARGETS if target.workload in there]


def _judge(target: Target, rows: list[Row]) -> Verdict:
    case = _case(target, rows)
    here = [r for r in rows if (r["workload"], r["case"]) == (target.workload, case)]
    own = [row for row in here if row["peer"] == SUBJECT]
    try:
        for need in target.needs:
            if not all(row["found"].get(need, True) for row in own):
                raise _NotJudged(f"{need.replace('_', ' ')}: no")
        if target.to == PROBE:
            value, note = _to_probe(own, here), ""
        elif target.to is None:
            value, note = _median(target, own), ""
        else:
            peer = _best(target, here) if target.to == BEST else target.to
            theirs = [row for row in here if row["peer"] == peer]
            value = _median(target, own) / max(_median(target, theirs, peer), 1e-9)
            note = f"best peer: {peer}" if target.to == BEST else ""
    except _NotJudged as reason:
        return Verdict(target, case, None, str(reason))
    return Verdict(target, case, value, "; ".join(filter(None, (note, *_reserves(target, own)))))


def _case(target: Target, rows: list[Row]) -> str | None:
    """The first case whose name begins as the target says."""
    names = (row["case"] for row in rows if row["workload"] == target.workload)
    return next((name for name in names if name.startswith(target.case)), None)


def _median(target: Target, rows: list[Row], whose: str = "") -> float:
    values = [row["found"][target.figure] for row in rows if target.figure in row["found"]]
    if values:
        return float(statistics.median(values))
    reason = next((row["problem"] for row in rows if row["problem"]), None)
    if reason is None and rows and target.figure == _DEVICE:
        reason = "no device of its own, so no device bytes"
    raise _NotJudged(": ".join(filter(None, (whose, reason or NO_FIGURE))))


def _to_probe(own: list[Row], here: list[Row]) -> float:
    """Commits for each append of the probe in the same round."""
    probes = {
        row["round"]: row["found"]["commits_per_second"]
        for row in here
        if row["peer"] == PROBE and "commits_per_second" in row["found"]
    }
    ratios = [
        row["found"]["commits_per_second"] / probes[row["round"]]
        for row in own
        if row["round"] in probes and "commits_per_second" in row["found"]
    ]
    if not ratios:
        raise _NotJudged(f"{PROBE}: {NO_FIGURE}")
    if not all(row["found"].get("fastest_layout") for row in here if row["peer"] == PROBE):
        raise _NotJudged(f"{PROBE}: its layout was given, not found to be the fastest")
    return float(statistics.median(ratios))


def _best(target: Target, here: list[Row]) -> str:
    """The peer with the highest figure among those as durable as waferdb."""
    peers = [
        row
        for row in here
        if row["peer"] not in (SUBJECT, PROBE) and row["durable"] and target.figure in row["found"]
    ]
    if not peers:
        raise _NotJudged(f"peers: {NO_FIGURE}")
    best: str = max(peers, key=lambda row: float(row["found"][target.figure]))["peer"]
    return best


def _reserves(target: Target, own: list[Row]) -> list[str]:
    """What to bear in mind: fewer than the target's n, rounds that failed."""
    found = []
    done = min(int(row["found"].get("n_done", 0)) for row in own)
    if target.stated_n is not None and done < target.stated_n:
        found.append(f"at n = {done:,}; stated for {target.stated_n:,}")
    if failed := sum(row["problem"] is not None for row in own):
        found.append(f"{failed} of {len(own)} rounds failed")
    return found
