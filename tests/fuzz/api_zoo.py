"""The database under test, what is drawn for it, and how answers are compared."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np

from waferdb import AgentMemory, Cache, Context, Count, Events, Graph, Rows, Vectors, View, lazy

DIM = 4
TTL_SECONDS = 5.0
KEYS = ("a", "b", "aa", "ab", "é", "\U0001f600", "z\x00z", "k1", "k2", "k10")
USERS = ("ann", "bob", "Zoë")
NODES = ("ann", "bob", "x", "y")
RELATIONS = ("knows", "likes")
TAGS: tuple[Any, ...] = (None, True, False, 1, 1.5, -3, "x", "", b"y", b"", 2**63)
BLOBS = (b"", b"\x00", b"\x00\xff", b"b", b"bb", b"\xff")
VALUES: tuple[Any, ...] = (
    None, 7, -(2**63), 2**64 - 1, 1.5, "text", "long " * 40, b"\x00", [1, [2, {"a": None}]],
    {"nested": {"deep": [True, "x"]}}, datetime(2024, 2, 29, 12, 0, 0, 5, tzinfo=UTC),
)  # fmt: skip


class Embedder:
    """Made of the text's letters: the same text, the same vector."""

    name = "letters"
    dim = DIM

    def __call__(self, texts: list[str]) -> Any:
        rows = [
            [float(1 + sum(map(ord, text[at::DIM])) % 97) for at in range(DIM)] for text in texts
        ]
        return np.array(rows, dtype=np.float32).reshape(len(texts), DIM)


def names(group: Any) -> dict[str, Any]:
    """A view's function: the keys and the sum of the group."""
    keys = sorted(row.key for row in group.rows)
    return {"keys": keys, "sum": sum(row.value.get("n", 0) for row in group.rows)}


class Zoo(AgentMemory):
    # A database on a clock of its own is opened without __init__, which would set this.
    _embed_with = Embedder()
    embeddings = Vectors(dim=DIM, rows="facts")
    things = Rows(indexes=["user", "n", ("user", "n"), "tag"], unique=["slug"])
    blobs = Rows(codec="raw")
    vectors = Vectors(dim=3, metric="l2", rows="things", codes="f32")
    loose = Vectors(dim=2, metric="dot", codes="f32")
    log = Events(capture=["things"])
    temp = Cache(TTL_SECONDS)
    warm = Cache("1h", source="things")
    notes = Context()
    graph = Graph()
    tally = View(Count(), source="things", by="user", policy=lazy())
    digest = View(names, source="things", by="user", version=1, policy=lazy())


class MismatchError(AssertionError):
    """The database and the model differ."""


def same(found: Any, expected: Any, what: str) -> None:
    if found != expected or (isinstance(found, bool) != isinstance(expected, bool)):
        raise MismatchError(f"{what}: {found!r}, not {expected!r}")
