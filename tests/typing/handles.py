"""Checked by mypy --strict, never run: handles have types, and wrong uses are seen.

Each `type: ignore` marks a mistake. mypy warns of an unused one, so a handle that had become `Any`
would fail here.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import waferdb
from waferdb import (
    Audit,
    Cache,
    Context,
    Count,
    Database,
    Events,
    Graph,
    Group,
    Rows,
    Vectors,
    View,
    hybrid,
    lazy,
)


def summarise(group: Group) -> dict[str, Any]:
    return {"text": "; ".join(row.value["text"] for row in group.rows)}


class Memory(Database):
    facts = Rows(indexes=["user", ("user", "time")], unique=["email"])
    embeddings = Vectors(dim=8, rows="facts", policy=hybrid(max_age="2s"))
    session = Cache(ttl="30m")
    events = Events(capture=["facts"])
    audit = Audit()
    context = Context()
    entities = Graph()
    profile = View(summarise, source="facts", by="user", policy=lazy())
    profiles = View(Count(), source=profile, by=("user",))

    def remember(self, key: str, text: str) -> int:
        return self.facts.put(key, {"text": text}).lsn


def right(path: str, vector: NDArray[np.float32]) -> None:
    with Memory(path) as db:
        assert_type(db, Memory)
        assert_type(db.facts, Rows)
        assert_type(db.events, Events)
        assert_type(db.lsn, int)
        assert_type(db.remember("k", "text"), int)
        document: Mapping[str, Any] | None = db.facts.get("k")
        print(document)
        with db.transaction(priority="critical") as tx:
            assert_type(tx, Memory)
            assert_type(tx.facts, Rows)
            assert_type(tx.remember("k", "text"), int)
            assert_type(tx.txn, str)
        assert_type(tx.receipt, waferdb.Receipt)
        assert_type(tx.receipt.lsn, int)
        assert_type(tx.receipt.time, datetime)
        assert_type(tx.receipt.leaf, bytes | None)
        assert_type(tx.receipt.lagging, tuple[str, ...])
        assert_type(db.profile, View)
        assert_type(db.profile.get("ann"), dict[str, Any] | None)
        assert_type(db.profile.read("ann").freshness, waferdb.Freshness)
        assert_type(db.profile.refresh(), int)
        assert_type(db.profiles.lineage("ann"), list[int])
        hits = db.embeddings.search(vector, k=3)
        assert_type(hits, waferdb.Hits)
        assert_type([hit.key for hit in hits], list[str])
        assert_type([event.kind for event in db.events.scan()], list[str])
        assert_type(db.audit.head().root, bytes)
        assert_type([neighbor.node for neighbor in db.entities.neighbors("a")], list[str])
        assert_type(db.retry(lambda tx: tx.facts.put("k", {}).lsn), int)
        with db.snapshot() as snapshot:
            assert_type(snapshot, Memory)
        with db.connect() as sibling:
            assert_type(sibling, Memory)


def wrong(db: Memory) -> None:
    db.facts.fetch("k")  # type: ignore[attr-defined]
    db.nothing  # type: ignore[attr-defined]  # noqa: B018
    db.facts.put("k")  # type: ignore  # noqa: PGH003
    db.facts.put("k", 7)  # type: ignore  # noqa: PGH003
    db.facts.scan(limit="many")  # type: ignore  # noqa: PGH003
    db.transaction(priority="urgent")  # type: ignore  # noqa: PGH003
    db.entities.neighbors("a", direction="up")  # type: ignore  # noqa: PGH003
    number: int = db.facts.get("k")  # type: ignore  # noqa: PGH003
    text: str = db.lsn  # type: ignore  # noqa: PGH003
    print(number, text)
    Vectors(metric="cosine")  # type: ignore  # noqa: PGH003
    Vectors(dim=8, metric="euclid")  # type: ignore  # noqa: PGH003
    Memory("path", mode="w")  # type: ignore  # noqa: PGH003
