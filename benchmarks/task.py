"""What a child is asked, and a store from its opening to its last byte on the device.

1. A measurement begins on an empty file system and counts everything from the creation of the store
   on; its bytes are read after drain, close and sync.
2. Times are of the work alone; draining is timed beside it.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import compare, device
from benchmarks.compare import Options, Peer
from benchmarks.meter import Meter, space_bytes


@dataclass(frozen=True)
class Task:
    """One phase of one case by one store."""

    workload: str
    case: str
    peer: str
    phase: str
    directory: str
    n: int
    seconds: float
    memtable_bytes: int
    counters: dict[str, str] | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """For the child."""
        return asdict(self)

    @property
    def store(self) -> Path:
        """Where the store is."""
        return Path(self.directory, "store")

    @property
    def log_bytes(self) -> int:
        """Of waferdb, once it is closed: its log is trimmed to its groups, which are whole
        sectors."""
        return sum(file.stat().st_size for file in (self.store / "agent.wafer" / "log").iterdir())


def opened(task: Task, kind: str, **options: Any) -> Peer:
    """The task's store, as the workload wants it."""
    wanted = {"memtable_bytes": task.memtable_bytes, **options}
    return compare.peer(task.peer)(task.store, Options(kind, **wanted))


class Session:
    """One store, metered."""

    def __init__(self, task: Task, kind: str, **options: Any) -> None:
        counters = device.from_json(task.counters)
        self._directory = task.store
        self._meter = Meter(Path(task.directory), counters)
        self.peer = opened(task, kind, **options)

    def finish(self, logical_bytes: int) -> dict[str, Any]:
        """Drains and closes; every byte count, and each per byte handed in."""
        started = time.perf_counter()
        self.peer.drain()
        drained = time.perf_counter() - started
        counted = self.peer.counted()
        self.peer.close()
        found: dict[str, Any] = {
            "logical_bytes": logical_bytes,
            "drain_seconds": drained,
            "space_bytes": space_bytes(self._directory),
            **self._meter.read(),
        }
        if counted.written_bytes is not None:
            found["engine_bytes"] = counted.written_bytes
        if counted.commits_per_sync is not None:
            found["commits_per_sync"] = counted.commits_per_sync
        if counted.merged_bytes is not None:
            found["merged_bytes"] = counted.merged_bytes
        for cause, count in counted.by.items():
            found[f"by_{cause}_bytes"] = count
        if counted.by:
            found.update(_graphs(counted.vectors_by, logical_bytes))
        for name in ("device", "journal", "wchar", "engine", "space"):
            if f"{name}_bytes" in found:
                found[f"{name}_per_logical"] = found[f"{name}_bytes"] / max(logical_bytes, 1)
        if self.peer.notes:
            found["notes"] = list(self.peer.notes)
        return found


def _graphs(by: dict[str, int], logical_bytes: int) -> dict[str, Any]:
    """What the vectors' own files took, beside their values in the log."""
    own = sum(by.get(cause, 0) for cause in ("seal", "merge", "flush"))
    return {"sealed": by.get("seal", 0) > 0, "vector_share": own / max(logical_bytes, 1)}
