"""Real conversations, with and without compression.

The text is LoCoMo's ("Evaluating Very Long-Term Conversational Memory of LLM Agents", ACL 2024),
which is not part of this project: WAFERDB_LOCOMO or `--locomo` says where its JSON file is, else it
is looked for in `shared/data` beside the checkout. Where there are fewer texts than memories wanted
they come again, in the same order and under new keys; one commit never holds the same text twice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import pace
from benchmarks.compare import MEMORIES
from benchmarks.compare.base import UnsupportedError
from benchmarks.sizes import Sizes
from benchmarks.task import Session, Task
from benchmarks.workload import Item

from .base import BYTES, RATE, Case, Column, Found, Leave, N, Workload
from .remember import average_bytes, chunks

_PER_COMMIT = 100
_CHARACTERS_MIN, _CHARACTERS_MAX = 1_000, 2_000
LOCOMO = "WAFERDB_LOCOMO"
_BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data" / "locomo-5.json"


class Text(Workload):
    """Turns of conversations, one by one and joined."""

    name = "text"
    what = (
        "Turns of LoCoMo's conversations as documents, alone or joined within a session to 1,000 "
        "to 2,000 characters, with 256-d WordLlama vectors; 100 memories per commit, one thread."
    )
    denominator = "document and vector once, uncompressed"
    kind = MEMORIES
    plotted = ("device_per_logical", "device bytes per logical byte")
    columns = (
        N,
        Column("texts", "distinct texts", RATE),
        Column("document_bytes", "bytes a document", RATE),
        Column("per_second", "memories/s", RATE),
        *BYTES,
    )

    def cases(self, sizes: Sizes) -> list[Case]:
        return [
            Case(
                f"{shape}, {compression or 'no compression'}",
                sizes.memories // 2,
                sizes.seconds,
                {"shape": shape, "compression": compression},
                only=("waferdb",),
            )
            for shape in ("documents of 1 to 2 KB", "single turns")
            for compression in ("zstd", None)
        ]

    def run(self, task: Task, leave: Leave) -> Found:
        texts = _texts(joined=task.settings["shape"] != "single turns")
        some = _items(texts, task.n)
        per_commit = min(_PER_COMMIT, len(texts))
        options = {"dim": len(some[0].vector), "compression": task.settings["compression"]}
        session = Session(task, self.kind, durability=self.durability, **options)
        done = pace.closed(session.peer.remember_many, chunks(some, per_commit), task.seconds)
        count = min(done.operations * per_commit, task.n)
        logical = sum(item.logical_bytes for item in some[:count])
        return {
            **session.finish(logical),
            "n_done": count,
            "texts": len(texts),
            "document_bytes": average_bytes(some) - some[0].vector.nbytes,
            "per_second": count / done.seconds,
        }


Line = tuple[str, str, str]  # speaker, session, text


def samples() -> list[dict[str, Any]]:
    """LoCoMo's conversations with their questions. Raises `UnsupportedError` without the file."""
    path = Path(os.environ.get(LOCOMO) or _BESIDE)
    if not path.exists():
        raise UnsupportedError(f"no text: set {LOCOMO} to the path of LoCoMo's JSON file")
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _texts(joined: bool) -> list[Line]:
    found: list[Line] = []
    for sample in samples():
        for session, turns in sample["conversation"].items():
            if isinstance(turns, list):
                lines = [(turn["speaker"], turn["text"]) for turn in turns]
                name = f"{sample['sample_id']}:{session}"
                found += _joined(name, lines) if joined else [(s, name, t) for s, t in lines]
    return found


def _joined(session: str, lines: list[tuple[str, str]]) -> Iterator[Line]:
    """Turns of one session put together until they are long enough; a short rest is left out."""
    text = ""
    for speaker, said in lines:
        text = f"{text}\n{speaker}: {said}"[-_CHARACTERS_MAX:].lstrip()
        if len(text) >= _CHARACTERS_MIN:
            yield speaker, session, text
            text = ""


def _items(texts: list[Line], count: int) -> list[Item]:
    try:
        from waferdb.embedders import WordLlama

        vectors = WordLlama()([text for _, _, text in texts])
    except ImportError:
        raise UnsupportedError("no vectors: waferdb[embed] is not installed") from None
    return [_item(number, *texts[number % len(texts)], vectors) for number in range(count)]


def _item(number: int, speaker: str, session: str, text: str, vectors: Any) -> Item:
    document = {
        "text": text,
        "user": speaker,
        "topic": session,
        "time": 1_760_000_000_000_000 + number,
    }
    about = {"user": speaker, "topic": session}
    vector = np.asarray(vectors[number % len(vectors)], dtype=np.float32)
    return Item(number, f"memory:{number:010}", speaker, document, about, vector)
