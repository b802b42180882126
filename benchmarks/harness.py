"""Runs workloads: each measurement on an empty file system, in a process of its own.

1. A peer that fails or cannot do a case leaves a row that says so; the run goes on.
2. Within a round the probe runs just before waferdb, so that what slows the machine slows both.
   Peers run once, after the first round.
3. No measurement begins after the run's time is up; what was left out is a row that says so.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import compare
from benchmarks.device import Place
from benchmarks.machine import machine, probe
from benchmarks.sizes import Sizes
from benchmarks.targets import PROBE, SUBJECT, Row
from benchmarks.task import Task
from benchmarks.workloads import WORKLOADS, Case, Workload

_ROOT = Path(__file__).resolve().parent.parent
_SIZING = 500
# Of waferdb the stated n is wanted, so its loops may take this many times what a peer's may: more
# is written and merged, which makes nothing better. The tables say what n each store did.
_OWN_PATIENCE = 10
# A child that hangs is ended after this many times what its loops may take.
_PATIENCE = 10.0
_PATIENCE_SECONDS = 120.0
_COMPLAINT_CHARACTERS = 400

Shown = Callable[[Row], None]


@dataclass
class Run:
    """What to run, where, and what was found so far."""

    sizes: Sizes
    place: Place
    peers: tuple[str, ...]
    memtable_bytes: int = 8 << 20
    n: int | None = None
    shown: Shown = lambda row: None
    rows: list[Row] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    _ends: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._ends += self.sizes.minutes * 60
        directory = self.place.fresh()
        self.facts = {
            "machine": machine(directory),
            "place": self.place.described,
            "device": self.place.counters is not None,
            "size": self.sizes.name,
            "memtable_bytes": self.memtable_bytes,
            "peers": {name: compare.peer(name).title() for name in self.peers},
        }

    def workload(self, name: str, only: str | None = None) -> None:
        """All cases of a workload (or those whose name has `only` in it) by all peers."""
        workload = WORKLOADS[name]
        for case in workload.cases(self.sizes):
            if only is None or only in case.name:
                self._case(workload, case)

    def _case(self, workload: Workload, case: Case) -> None:
        peers = [
            name
            for name in self.peers
            if workload.kind in compare.peer(name).serves and (not case.only or name in case.only)
        ]
        group, layout = 0, self.sizes.probe_layout
        if case.probe and SUBJECT in peers:
            group = self._group_bytes(workload, case)
        for number in range(self.sizes.rounds if workload.repeated and not case.once else 1):
            if group:
                layout = self._probe(workload, case, number, group, layout)
            for peer in peers:
                if number == 0 or peer == SUBJECT:
                    self._measure(workload, case, peer, number)

    def _measure(self, workload: Workload, case: Case, peer: str, number: int) -> None:
        row = _row(workload, case, peer, number)
        if time.monotonic() > self._ends:
            row["problem"] = "left out: the run's time was up"
        else:
            directory = self.place.fresh()
            found: dict[str, Any] = {}
            for phase in workload.phases:
                task = self._task(workload, case, peer, phase, directory)
                # A later phase is told what the earlier ones found.
                task.settings["before"] = dict(found)
                task.settings["subject"] = self._subject(workload, case)
                part = self.child(task)
                refused = part.pop("unsupported", None)
                row["refused"] = refused is not None
                row["problem"] = refused or part.pop("problem", None)
                found.update(part)
                if row["problem"]:
                    break
            else:
                workload.derive(found)
            row["notes"] = found.pop("notes", [])
            row["found"] = found
        self._add(row)

    def _subject(self, workload: Workload, case: Case) -> dict[str, Any]:
        """What waferdb found in this case so far: nothing, while it has not done it."""
        here = (workload.name, case.name, SUBJECT)
        own = (r for r in self.rows if (r["workload"], r["case"], r["peer"]) == here)
        return dict(next(own, {"found": {}})["found"])

    def _add(self, row: Row) -> None:
        self.rows.append(row)
        self.shown(row)

    def _task(self, workload: Workload, case: Case, peer: str, phase: str, directory: Path) -> Task:
        counters = self.place.counters
        return Task(
            workload=workload.name,
            case=case.name,
            peer=peer,
            phase=phase,
            directory=str(directory),
            n=self.n or case.n,
            seconds=case.seconds * (1 if workload.paced or peer != SUBJECT else _OWN_PATIENCE),
            memtable_bytes=case.memtable_bytes or self.memtable_bytes,
            counters=None if counters is None else counters.to_json(),
            settings=dict(case.settings),
        )

    def _group_bytes(self, workload: Workload, case: Case) -> int:
        """Bytes of one commit's group, from a short run; 0 if that failed: its row will say so."""
        task = self._task(workload, case, SUBJECT, "run", self.place.fresh())
        few = min(task.n, _SIZING * int(case.settings.get("per_commit", 1)) // 5 or 1)
        found = self.child(Task(**{**task.to_json(), "n": few}))
        return round(float(found.get("group_bytes", 0)) / 512) * 512

    def _probe(self, workload: Workload, case: Case, number: int, group: int, layout: str) -> str:
        row = _row(workload, case, PROBE, number)
        seconds = self.sizes.probe_seconds
        try:
            raw = probe(self.place.fresh(), group, "--layout", layout, "--seconds", seconds)
        except (OSError, subprocess.CalledProcessError) as error:
            row["problem"] = str(error)
            self._add(row)
            return layout
        each = int(case.settings.get("per_commit", 1))
        row["notes"] = [f"{group:,} B an append, layout {raw['layout']}, its zeros not timed"]
        row["found"] = {
            # An append stands for a commit, and so for as many memories as the case commits.
            "n_done": raw["n"] * each,
            "per_second": raw["per_second"] * each,
            "commits_per_second": raw["per_second"],
            "p50_us": raw["p50_us"],
            "p99_us": raw["p99_us"],
            "fastest_layout": self.sizes.probe_layout == "best",
        }
        self._add(row)
        return str(raw["layout"])

    def child(self, task: Task) -> dict[str, Any]:
        """Does a task in a process of its own; its figures, or the `problem` there was."""
        patience = task.seconds * _PATIENCE + _PATIENCE_SECONDS
        with tempfile.TemporaryDirectory(prefix="waferdb-task-") as made:
            asked, answer = Path(made, "task.json"), Path(made, "result.json")
            asked.write_text(json.dumps(task.to_json()))
            command = [sys.executable, "-m", "benchmarks.child", str(asked), str(answer)]
            try:
                done = subprocess.run(
                    command, cwd=_ROOT, capture_output=True, text=True, timeout=patience
                )
            except subprocess.TimeoutExpired:
                return {"problem": f"ended after {patience:,.0f} s without an answer"}
            if done.returncode or not answer.exists():
                return {"problem": _complaint(done)}
            found: dict[str, Any] = json.loads(answer.read_text())
            return found


def _row(workload: Workload, case: Case, peer: str, number: int) -> Row:
    return {
        "workload": workload.name,
        "case": case.name,
        "peer": peer,
        "round": number,
        "found": {},
        "notes": [],
        "problem": None,
        "durable": peer == PROBE or compare.peer(peer).synced,
        "refused": False,  # the problem is that the store, or this build, cannot do it
    }


def _complaint(done: subprocess.CompletedProcess[str]) -> str:
    """The last line of what a failed child said."""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    if done.returncode < 0:
        lines.append(f"ended by {signal.Signals(-done.returncode).name}")
    return (lines[-1] if lines else f"exit code {done.returncode}")[:_COMPLAINT_CHARACTERS]


def installed(wanted: Iterable[str] | None) -> tuple[str, ...]:
    """The peers to run: those wanted, or all that are installed; waferdb first.

    Raises `ValueError` for one that is not known or not installed.
    """
    if wanted is None:
        return tuple(name for name in compare.known() if not compare.missing(name))
    names = tuple(wanted)
    for name in names:
        if name not in compare.known():
            raise ValueError(f"{name!r} is no peer: there are {', '.join(compare.known())}")
        if lacking := compare.missing(name):
            raise ValueError(f"{name}: not installed: {', '.join(lacking)}")
    return tuple(name for name in compare.known() if name in names)


def environment_ready() -> None:
    """Turns SIGTERM and SIGHUP into an exception, so that a mount is let go of."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    # Threads of numeric libraries would compete with the store's own.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
