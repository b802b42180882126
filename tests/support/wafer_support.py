"""What the tests share: one database class over all structures, and values derived from keys.

A test writes "a memory" under one key into every structure. Everything written follows from the
key, so that a reader in another process, after any crash, can say whether what it finds is whole.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waferdb import Audit, Cache, Context, Database, Events, Graph, Rows, Vectors

SUPPORT = Path(__file__).resolve().parent
TESTS = SUPPORT.parent
CHECKOUT = TESTS.parent
DIM = 8


class Memory(Database):
    """All six structures and the graph."""

    facts = Rows(indexes=["user", "topic", ("user", "time")], unique=["email"])
    embeddings = Vectors(dim=DIM, metric="cosine", rows="facts")
    session = Cache(ttl="1h")
    events = Events()
    audit = Audit()
    context = Context()
    entities = Graph()


class Plain(Database):
    """Structures without links between them, for tests of one structure at a time."""

    facts = Rows(indexes=["user", "topic"])
    raw = Rows(codec="raw")
    points = Vectors(dim=DIM, metric="l2")
    events = Events()
    journal = Events(capture=["facts"])
    audit = Audit()


def document_of(key: str) -> dict[str, Any]:
    digest = hashlib.sha256(key.encode()).hexdigest()
    return {"user": digest[:1], "topic": digest[1:2], "text": f"{key}: {digest}", "n": len(key)}


def vector_of(key: str, dim: int = DIM) -> NDArray[np.float32]:
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
    vector = np.random.default_rng(seed).standard_normal(dim)
    return vector.astype(np.float32)


def owner_of(key: str) -> str:
    return "owner:" + hashlib.sha256(key.encode()).hexdigest()[:1]


def write_memory(tx: Any, key: str) -> None:
    """One memory: the same key in every structure, all values derived from it."""
    document = document_of(key)
    tx.facts.put(key, document)
    tx.embeddings.put(key, vector_of(key))
    tx.events.append("remembered", {"text": document["text"]}, key=key)
    tx.context.set(owner_of(key), key, document["text"])
    tx.session.put(key, document)
    tx.entities.link(key, "belongs_to", owner_of(key), {"n": document["n"]})


def whole_keys(db: Any) -> set[str]:
    """The keys present, after asserting that each is whole in every structure."""
    rows = dict(db.facts.scan())
    for key, document in rows.items():
        assert document == document_of(key), f"row {key!r} is not what was written"
    keys = set(rows)
    vectors = set(db.embeddings.keys())
    assert vectors == keys, f"vectors and rows differ: {sorted(vectors ^ keys)[:5]}"
    for key in keys:
        assert np.array_equal(db.embeddings.get(key), vector_of(key)), f"vector {key!r}"
    events = list(db.events.scan())
    assert len(events) == len(keys), f"{len(events)} events for {len(keys)} memories"
    for event in events:
        assert event.kind == "remembered"
        assert event.key in keys
        assert event.payload == {"text": document_of(event.key)["text"]}
    assert {event.key for event in events} == keys
    learned = {
        (scope, name): value
        for scope in db.context.scopes()
        for name, value in db.context.load(scope).items()
    }
    assert learned == {(owner_of(key), key): document_of(key)["text"] for key in keys}
    cached = set(db.session.keys())
    assert cached == keys, f"cache and rows differ: {sorted(cached ^ keys)[:5]}"
    for key in keys:
        assert db.session.get(key) == document_of(key), f"cache {key!r}"
        (neighbor,) = db.entities.neighbors(key)
        assert (neighbor.node, neighbor.relation) == (owner_of(key), "belongs_to")
        assert neighbor.props == {"n": document_of(key)["n"]}
    linked = {
        neighbor.node
        for owner in {owner_of(key) for key in keys}
        for neighbor in db.entities.neighbors(owner, direction="in")
    }
    assert linked == keys, f"graph and rows differ: {sorted(linked ^ keys)[:5]}"
    return keys


def python(
    source: str,
    *arguments: object,
    timeout: float = 60,
    cwd: Path | None = None,
    prefix: Iterable[str] = (),
) -> subprocess.CompletedProcess[str]:
    """Runs `source` in a fresh interpreter that can import this module."""
    return subprocess.run(
        [*prefix, sys.executable, "-c", source, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=cwd,
        env=child_environment(),
        check=False,
    )


def child_environment() -> dict[str, str]:
    environment = dict(os.environ)
    paths = [str(SUPPORT), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return environment


def log_files(path: Path) -> list[Path]:
    return sorted((path / "log").glob("*.wal"))


def contents(path: Path) -> dict[str, bytes]:
    """Every file below `path` and its bytes."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


def locomo_turns(path: Path) -> Iterator[tuple[str, str, str]]:
    """(key, speaker, text) of every turn of the LoCoMo conversations."""
    import json

    for sample in json.loads(path.read_text(encoding="utf-8")):
        for name, turns in sample["conversation"].items():
            if isinstance(turns, list):
                for turn in turns:
                    key = f"{sample['sample_id']}/{name}/{turn['dia_id']}"
                    yield key, turn["speaker"], turn["text"]
