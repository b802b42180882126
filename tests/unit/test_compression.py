"""`compression="zstd"`: the same answers from fewer bytes, whatever the option at each opening."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

import waferdb
from waferdb import AgentMemory, Audit, Cache, Context, Database, Events, Rows

WORDS = ["yesterday", "camping", "with", "the", "kids", "was", "really", "fun", "painting"]
WORDS += ["classes", "support", "group", "adoption", "agencies", "next", "summer", "because"]
WORDS += ["friends", "encouraged", "me", "to", "go", "on", "writing", "letters", "and", "we"]


class Memory(Database):
    facts = Rows(indexes=["user"])
    blobs = Rows(codec="raw")
    session = Cache(ttl="1h")
    events = Events(capture=["facts"])
    audit = Audit()
    context = Context()


def document(n: int) -> dict[str, Any]:
    chosen = random.Random(n)
    text = " ".join(chosen.choice(WORDS) for _ in range(150))
    return {"user": f"user-{n % 5}", "n": n, "text": text}


def fill(db: Memory, numbers: range) -> None:
    with db.transaction() as tx:
        for n in numbers:
            tx.facts.put(f"k{n}", document(n))
            tx.session.put(f"k{n}", document(n))
            tx.events.append("seen", {"about": document(n)}, key=f"k{n}")
            tx.context.set("scope", f"k{n}", document(n))
            tx.blobs.put(b"k%d" % n, random.Random(n).randbytes(100) if n % 2 else b"ab" * 300)


def check(db: Memory, numbers: range) -> None:
    for n in numbers:
        assert db.facts[f"k{n}"] == document(n)
        assert db.session.get(f"k{n}") == document(n)
        assert db.context.get("scope", f"k{n}") == document(n)
    assert bytes(db.blobs[b"k0"]) == b"ab" * 300
    assert {doc["n"] for _, doc in db.facts.find({"user": "user-3"})} == {
        n for n in numbers if n % 5 == 3
    }
    assert db.verify(deep=True).ok


def size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


@pytest.mark.parametrize("bad", ["lz4", "", "ZSTD", True, 3])
def test_another_compression_is_refused(tmp_path: Path, bad: Any) -> None:
    for call in (
        lambda: Memory(tmp_path / "a", compression=bad),
        lambda: waferdb.open(tmp_path / "b", {"facts": Rows()}, compression=bad),
    ):
        with pytest.raises(ValueError, match="compression="):
            call()
    assert not list(tmp_path.iterdir())


def test_values_are_the_same_and_the_files_smaller(tmp_path: Path) -> None:
    numbers = range(400)
    options: dict[str, Literal["zstd"] | None] = {"plain": None, "small": "zstd"}
    for name, compression in options.items():
        with Memory(tmp_path / name, compression=compression) as db:
            fill(db, numbers)
            check(db, numbers)
            stats = db.stats()
            assert bool(stats.compression["values"]) == (compression is not None)
            if compression:
                assert stats.compression["bytes_out"] < stats.compression["bytes_in"]
        with Memory(tmp_path / name, mode="r") as db:
            assert db.facts["k7"] == document(7)
    assert size(tmp_path / "small") < 0.7 * size(tmp_path / "plain")


def test_a_dictionary_is_trained_meanwhile_and_outlives_the_option(tmp_path: Path) -> None:
    path = tmp_path / "agent.wafer"
    with Memory(path, compression="zstd") as db:
        fill(db, range(400))
        deadline = time.monotonic() + 30
        while db.stats().compression["dictionaries"] == 0:
            assert time.monotonic() < deadline, "no dictionary came"
            time.sleep(0.02)
        before = db.stats().compression
        fill(db, range(400, 600))
        after = db.stats().compression
        first = before["bytes_out"] / before["bytes_in"]
        given = after["bytes_in"] - before["bytes_in"]
        assert (after["bytes_out"] - before["bytes_out"]) / given < first
        check(db, range(600))
    options: tuple[Literal["zstd"] | None, ...] = (None, "zstd")
    for compression in options:
        with Memory(path, compression=compression) as db:
            assert db.stats().compression["dictionaries"] >= 1
            check(db, range(600))
            assert [change.value for change in next(iter(db.changes())).changes]


def test_in_a_transaction_and_through_agent_memory() -> None:
    class Fixed:
        name, dim = "fixed", 4

        def __call__(self, texts: list[str]) -> Any:
            return np.ones((len(texts), 4), np.float32)

    with waferdb.open(":memory:", {"facts": Rows()}, compression="zstd") as db:
        with db.transaction() as tx:
            tx.facts.put("k", document(1))
            assert tx.facts["k"] == document(1)
        assert db.facts["k"] == document(1)
    with AgentMemory(":memory:", embedder=Fixed(), compression="zstd") as memory:
        text = document(2)["text"]
        key = memory.remember(text, user="ann").key
        assert memory.facts[key]["text"] == text
        assert memory.stats().compression["bytes_out"] < memory.stats().compression["bytes_in"]
