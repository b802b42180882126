"""Whether the default search finds in real conversations what an exact one finds.

LoCoMo's questions name the turns that answer them. A question is a hit if one of those is among the
first ten turns of its own conversation; questions that name no turn there is are left out.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import waferdb
from benchmarks.compare import VECTORS
from benchmarks.compare.base import UnsupportedError
from benchmarks.mixture import Floats
from benchmarks.sizes import Sizes
from benchmarks.targets import SUBJECT
from benchmarks.task import Task
from waferdb import Rows, Vectors

from .base import RATE, Case, Column, Found, Leave, Workload
from .text import samples

_K = 10
_TURN = re.compile(r"D\d+:\d+")


@dataclass(frozen=True)
class _Question:
    """What is asked of which conversation, and the turns that answer it."""

    conversation: str
    text: str
    evidence: frozenset[str]


class Locomo(Workload):
    """Evidence among the first ten."""

    name = "locomo"
    what = (
        "The turns of LoCoMo's conversations under 256-d WordLlama vectors, drained. Each question "
        "is searched in its own conversation, by default and with `exact=True`: in a database of "
        "its own, or in one database of all by `where=`. A hit has a turn of the question's "
        "evidence among the first ten."
    )
    denominator = "questions whose evidence names a turn of their conversation"
    kind = VECTORS
    plotted = ("hit_default", "hit@10, default search, %")
    columns = (
        Column("turns", "turns", RATE),
        Column("n_done", "questions", RATE),
        Column("hit_default", "hit@10 default, %"),
        Column("hit_exact", "hit@10 exact, %"),
        Column("difference", "difference, points"),
        Column("per_second", "searches/s", RATE),
    )

    def cases(self, sizes: Sizes) -> list[Case]:
        only = (SUBJECT,)
        return [
            Case("a database each", 1, sizes.seconds, {"filtered": False}, only=only),
            Case("one database, where=", 1, sizes.seconds, {"filtered": True}, only=only),
        ]

    def run(self, task: Task, leave: Leave) -> Found:
        turns, questions = _read()
        if not questions:
            raise UnsupportedError("no question names a turn of its conversation")
        vectors = _embedded([*turns.values(), *(question.text for question in questions)])
        own = dict(zip(turns, vectors[: len(turns)], strict=True))
        asked = list(zip(questions, vectors[len(turns) :], strict=True))
        task.store.mkdir()
        hits, seconds, sealed = {False: 0, True: 0}, 0.0, False
        filtered = task.settings["filtered"]
        for name, group in _groups(own, filtered):
            with _filled(task.store / f"{name}.wafer", group) as db:
                for question, query in asked:
                    if not filtered and question.conversation != name:
                        continue
                    where = {"conversation": question.conversation} if filtered else None
                    for exact in (False, True):
                        since = time.perf_counter()
                        found = db["embeddings"].search(query, _K, where=where, exact=exact)
                        seconds += 0.0 if exact else time.perf_counter() - since
                        keys = {key.partition("/")[2] for key in found.keys}
                        hits[exact] += bool(keys & question.evidence)
                sealed = sealed or db.stats().by.get(("embeddings", "seal"), 0) > 0
        share = {exact: 100 * count / len(asked) for exact, count in hits.items()}
        return {
            "turns": len(turns),
            "n_done": len(asked),
            "hit_default": share[False],
            "hit_exact": share[True],
            "difference": abs(share[True] - share[False]),
            "per_second": len(asked) / seconds,
            "sealed": sealed,
        }


Turns = dict[tuple[str, str], str]  # (conversation, turn) -> text


def _read() -> tuple[Turns, list[_Question]]:
    turns: Turns = {}
    questions = []
    for sample in samples():
        name = str(sample["sample_id"])
        for session in sample["conversation"].values():
            if isinstance(session, list):
                turns.update({(name, turn["dia_id"]): turn["text"] for turn in session})
        for asked in sample["qa"]:
            named = _TURN.findall(" ".join(asked.get("evidence", ())))
            evidence = frozenset(turn for turn in named if (name, turn) in turns)
            if evidence:
                questions.append(_Question(name, asked["question"], evidence))
    return turns, questions


def _embedded(texts: list[str]) -> Floats:
    try:
        from waferdb.embedders import WordLlama

        return WordLlama()(texts)
    except ImportError:
        raise UnsupportedError("no vectors: waferdb[embed] is not installed") from None


def _groups(
    own: dict[tuple[str, str], Any], filtered: bool
) -> Iterator[tuple[str, dict[tuple[str, str], Any]]]:
    """What goes into one database: all, or a conversation at a time."""
    if filtered:
        yield "all", own
        return
    for name in dict.fromkeys(conversation for conversation, _ in own):
        yield name, {turn: vector for turn, vector in own.items() if turn[0] == name}


@contextlib.contextmanager
def _filled(path: Path, group: dict[tuple[str, str], Any]) -> Iterator[Any]:
    """A database of these turns, sealed and merged."""
    dim = len(next(iter(group.values())))
    schema = {"turns": Rows(indexes=["conversation"]), "embeddings": Vectors(dim, rows="turns")}
    keys = ["/".join(turn) for turn in group]
    rows = [{"conversation": conversation} for conversation, _ in group]
    with waferdb.open(path, schema) as db:
        with db.transaction() as tx:
            tx["turns"].put_many(zip(keys, rows, strict=True))
            tx["embeddings"].put_many(keys, list(group.values()))
        db.drain("embeddings")
        yield db
