"""The main job, shown on real text: remember, be killed, come back whole, recall, forget, measure.

1. Writers run in a child process and are killed with SIGKILL while their threads are writing; an
   acknowledgement counts once it has come through the pipe.
2. After each kill every structure is read and compared (`check`), and the database verified.
3. The figures are of this machine and this run: waferdb and the usual stores do the same memories,
   each in a fresh process and directory, and their bytes are counted by the same counter.

`run` decides nothing about printing: it takes a `Watch` and returns a `Result`.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import audit
from ..agent_memory import AgentMemory
from ..embedders import Vectors32, WordLlama, embed
from . import check, corpus
from .corpus import QUESTIONS, Item
from .process import SAVE_EVERY, Child, figures

__all__ = ["Measure", "Result", "Round", "Watch", "run"]

THREADS = 8
Watch = Callable[[str, int, int], None]
"""Called as `watch(stage, done, total)`."""


@dataclass(frozen=True, slots=True)
class Round:
    """One life of the writer: what it acknowledged, how it ended, what was found afterwards."""

    number: int
    ended: str
    acknowledged: int
    present: int
    in_flight: int
    recovery_seconds: float
    problems: list[str]


@dataclass(frozen=True, slots=True)
class Measure:
    """One way of doing the work; bytes are per byte remembered (text and vector, once)."""

    name: str
    memories: int
    seconds: float
    commits_per_sync: float | None
    metered_per_byte: float | None
    wchar_per_byte: float | None
    note: str = ""

    @property
    def per_second(self) -> float:
        return self.memories / self.seconds if self.seconds else 0.0


@dataclass(slots=True)
class Result:
    """Everything the demo found. `ok` is False if any check failed."""

    directory: str
    file_system: str
    memories: int
    rounds: list[Round] = field(default_factory=list)
    verified: list[str] = field(default_factory=list)
    answers: dict[str, list[tuple[float, str, str]]] = field(default_factory=dict)
    forgetting: dict[str, Any] = field(default_factory=dict)
    measures: list[Measure] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def problems(self) -> list[str]:
        """What went wrong, one line each."""
        rounds = [f"round {r.number}: {line}" for r in self.rounds for line in r.problems]
        return rounds + self.verified + list(self.forgetting.get("problems", []))

    @property
    def ok(self) -> bool:
        return not self.problems


def run(directory: Path, count: int, kills: int, watch: Watch) -> Result:
    """Runs the demo in `directory`, which must be empty.

    Raises `ImportError` if the embedder is missing, `ValueError` for a count this Python has no
    text for, `RuntimeError` if a child fails by itself.
    """
    started = time.perf_counter()
    watch("read the text", 0, 1)
    items = corpus.memories(count)
    vectors = dict(
        zip(
            (item["key"] for item in items),
            embed(WordLlama(), [item["text"] for item in items]),
            strict=True,
        )
    )
    result = Result(str(directory), _file_system(directory), len(items))
    path = directory / "agent.wafer"
    _crash_rounds(result, path, items, vectors, kills, watch)
    watch("verify, search, forget", 0, 1)
    with AgentMemory(path) as memory:
        report = memory.verify(deep=True)
        result.verified = [f"verify: {p.where}: {p.what}" for p in report.problems]
        for question in QUESTIONS:
            found = memory.recall(question, 3)
            result.answers[question] = [(r.score, r.topic or "", r.text) for r in found]
        result.forgetting = _forget(memory)
    watch("verify, search, forget", 1, 1)
    _measure(result, directory, items, watch)
    result.seconds = time.perf_counter() - started
    return result


def _crash_rounds(
    result: Result,
    path: Path,
    items: list[Item],
    vectors: dict[str, Vectors32],
    kills: int,
    watch: Watch,
) -> None:
    submitted = {item["key"]: item for item in items}
    acknowledged: set[str] = set()
    pending = items
    for number in range(1, kills + 2):
        # A kill falls after its share of all memories; the last round runs to its end.
        goal = len(items) * number // (kills + 1) if number <= kills else None
        ended, fresh = _one_life(path, pending, goal, acknowledged, watch, len(items))
        opened = time.perf_counter()
        with AgentMemory(path) as memory:
            seconds = time.perf_counter() - opened
            wrong = check.problems(memory, submitted, acknowledged, vectors)
            wrong += [f"verify: {p.where}: {p.what}" for p in memory.verify().problems]
            present = set(memory.facts.keys())
        if number > kills and present != submitted.keys():
            wrong.append(f"{len(submitted.keys() - present)} memories never came in")
        extra = len(present - acknowledged)
        result.rounds.append(Round(number, ended, fresh, len(present), extra, seconds, wrong))
        # What was in flight and is wholly there counts as remembered from now on.
        acknowledged |= present & submitted.keys()
        pending = [item for item in items if item["key"] not in present]


def _one_life(
    path: Path,
    pending: list[Item],
    goal: int | None,
    acknowledged: set[str],
    watch: Watch,
    total: int,
) -> tuple[str, int]:
    """Writes until `goal` memories are acknowledged in all, then kills; or to the end."""
    before = len(acknowledged)
    killed = False
    arguments = [str(path), str(THREADS), "acks"]
    with Child("waferdb.demo.writer", arguments, pending) as child:
        for answer in child.answers():
            if answer[0] != "ack":
                continue
            acknowledged.add(answer[1])
            if len(acknowledged) % 20 == 0:
                watch("remember, kill, reopen", len(acknowledged), total)
            if goal is not None and not killed and len(acknowledged) >= goal:
                # Answers already in the pipe are still read: they were given before the kill.
                child.kill()
                killed = True
        if not killed:
            child.check_ended()
    return "killed" if killed else "done", len(acknowledged) - before


def _forget(memory: AgentMemory) -> dict[str, Any]:
    """Remembers one thing, recalls it, forgets it, and looks for it everywhere and in the past."""
    text, question = "Ann prefers email over Slack", "how should I contact Ann?"
    done = memory.remember(text, user="ann", topic="contact")
    key, lsn = done.key, done.receipt.lsn
    before = [found.text for found in memory.recall(question, 1, user="ann")]
    memory.forget(key)
    after = [found.text for found in memory.recall(question, 1, user="ann")]
    with memory.snapshot(as_of=lsn) as past:
        then = [found.text for found in past.recall(question, 1, user="ann")]
        kept = _traces(memory, key) + [f"{place} as of LSN {lsn}" for place in _traces(past, key)]
    wrong = [] if before == [text] else [f"recall before forget found {before}"]
    wrong += [f"forgotten, but recalled afterwards: {got}" for got in after]
    wrong += [f"forgotten, but recalled as of LSN {lsn}: {got}" for got in then]
    wrong += [f"forgotten, but still in {place}" for place in kept]
    if not audit.verify(memory.audit.prove(lsn), memory.audit.head().root):
        wrong.append(f"the audit leaf of LSN {lsn} cannot be proven after forget")
    return {
        "text": text,
        "question": question,
        "before": before,
        "after": after,
        "as_of_before": then,
        "problems": wrong,
    }


def _traces(memory: AgentMemory, key: str) -> list[str]:
    """The structures that still answer with this memory."""
    answers = {
        "facts": memory.facts.get(key),
        "embeddings": memory.embeddings.get(key),
        "session": memory.session.get(key),
        "events": next(iter(memory.events.scan(key=key)), None),
        "context": memory.load("ann").get(key),
    }
    return [name for name, value in answers.items() if value is not None]


def _measure(result: Result, directory: Path, items: list[Item], watch: Watch) -> None:
    remembered = sum(len(item["text"].encode()) + 4 * WordLlama.dim for item in items)
    ways = [
        (f"waferdb, {THREADS} threads", "writer", ["wide.wafer", str(THREADS), "quiet"], ""),
        ("waferdb, 1 thread", "writer", ["narrow.wafer", "1", "quiet"], ""),
    ]
    if importlib.util.find_spec("usearch") is None:
        result.remarks.append(
            "usearch is not installed, so the usual way is left out: pip install usearch"
        )
    else:
        sqlite = "1 thread, WAL, synchronous=FULL"
        saved = f"vectors saved every {SAVE_EVERY} memories: a crash loses up to {SAVE_EVERY}"
        one, four = f"{sqlite}; {saved}", f"{sqlite}, each file commits alone; {saved}"
        ways += [
            ("SQLite + usearch, one file", "usual", ["usual-1", "1"], one),
            ("SQLite + usearch, four files", "usual", ["usual-4", "4"], four),
        ]
    for place, (name, module, (folder, *rest), note) in enumerate(ways):
        watch("measure", place, len(ways))
        arguments = [str(directory / folder), *rest]
        done = figures(f"waferdb.demo.{module}", arguments, items)
        syncs, metered, wchar = done.get("syncs"), done.get("metered"), done["wchar"]
        result.measures.append(
            Measure(
                name=name,
                memories=done["memories"],
                seconds=done["seconds"],
                commits_per_sync=done["commits"] / syncs if syncs else None,
                metered_per_byte=metered / remembered if metered is not None else None,
                wchar_per_byte=wchar / remembered if wchar is not None else None,
                note=note,
            )
        )
    watch("measure", len(ways), len(ways))


def _file_system(directory: Path) -> str:
    """The kind of file system under a directory; on a tmpfs a sync costs nothing."""
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown"
    place, best, kind = str(directory.resolve()), "", "unknown"
    for line in mounts:
        _, point, name, *_ = line.split()
        inside = place == point or place.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, name
    return kind
