"""Input that no call may take: what it is, the call, and the errors that it may raise."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
from api_zoo import DIM

from waferdb import (
    DocumentError,
    LimitError,
    VectorError,
    WaferError,
)


def deep(levels: int) -> Any:
    document: Any = {}
    for _ in range(levels):
        document = {"d": document}
    return document


def endless() -> Any:
    document: dict[str, Any] = {}
    document["self"] = document
    return document


NAIVE = datetime(2024, 1, 1)
REFUSED = (TypeError, ValueError)
REFUSED_AT_ALL = (*REFUSED, OverflowError, WaferError)
Bad = tuple[str, Callable[[Any], Any], Any]
BAD: list[Bad] = [
    ("a number as key", lambda to: to.things.put(5, {}), REFUSED),
    ("bytes as key", lambda to: to.things.put(b"a", {}), REFUSED),
    ("a lone surrogate as key", lambda to: to.things.put("\ud800", {}), REFUSED),
    ("an oversized key", lambda to: to.things.put("x" * 100_000, {}), LimitError),
    ("a list as document", lambda to: to.things.put("a", [1]), REFUSED),
    ("None as document", lambda to: to.things.put("a", None), REFUSED),
    ("a number as field", lambda to: to.things.put("a", {1: 2}), DocumentError),
    ("an object", lambda to: to.things.put("a", {"x": object()}), DocumentError),
    ("a set", lambda to: to.things.put("a", {"x": {1}}), DocumentError),
    ("a complex number", lambda to: to.things.put("a", {"x": 1j}), DocumentError),
    ("a lone surrogate", lambda to: to.things.put("a", {"x": "\ud800"}), REFUSED),
    ("a surrogate as field", lambda to: to.things.put("a", {"\udfff": 1}), REFUSED),
    ("a number above uint64", lambda to: to.things.put("a", {"x": 2**64}), REFUSED),
    ("a number below int64", lambda to: to.things.put("a", {"x": -(2**63) - 1}), REFUSED),
    ("a naive time", lambda to: to.things.put("a", {"x": NAIVE}), DocumentError),
    ("a deep document", lambda to: to.things.put("a", deep(400)), REFUSED),
    ("a very deep document", lambda to: to.things.put("a", deep(200_000)), REFUSED),
    ("an endless document", lambda to: to.things.put("a", endless()), REFUSED),
    ("NaN in an index", lambda to: to.things.put("a", {"n": float("nan")}), REFUSED),
    ("items of three", lambda to: to.things.put_many([("a", {}, 1)]), REFUSED),
    ("items of nothing", lambda to: to.things.put_many(None), REFUSED),
    (
        "bad among good",
        lambda to: to.things.put_many([("a", {"n": 1}), ("b", {"n": {1}})]),
        REFUSED,
    ),
    ("text for a raw key", lambda to: to.blobs.put("a", b""), REFUSED),
    ("text for raw bytes", lambda to: to.blobs.put(b"a", "x"), REFUSED),
    ("an oversized raw key", lambda to: to.blobs.put(b"x" * 100_000, b""), LimitError),
    ("a version of text", lambda to: to.things.put("a", {}, if_version="a"), REFUSED),
    (
        "both preconditions",
        lambda to: to.things.put("a", {}, if_version=1, if_absent=True),
        REFUSED_AT_ALL,
    ),
    ("a vector too short", lambda to: to.loose.put("a", [1.0]), VectorError),
    ("a vector too long", lambda to: to.loose.put("a", [1.0, 2.0, 3.0]), VectorError),
    ("no vector", lambda to: to.loose.put("a", []), VectorError),
    ("NaN in a vector", lambda to: to.loose.put("a", [1.0, float("nan")]), VectorError),
    ("infinity in a vector", lambda to: to.loose.put("a", [1.0, float("-inf")]), VectorError),
    ("beyond float32", lambda to: to.loose.put("a", [1.0, 1e300]), VectorError),
    ("a vector of text", lambda to: to.loose.put("a", ["x", "y"]), REFUSED),
    ("a vector of rows", lambda to: to.loose.put("a", [[1.0, 2.0]]), REFUSED),
    ("None as vector", lambda to: to.loose.put("a", None), REFUSED),
    ("rows of another shape", lambda to: to.loose.put_many(["a"], np.zeros((2, 2))), REFUSED),
    ("a query of another shape", lambda to: to.loose.search([1.0]), VectorError),
    ("a query of NaN", lambda to: to.loose.search([float("nan"), 0.0]), VectorError),
    ("k of nothing", lambda to: to.loose.search([1.0, 0.0], 0), REFUSED),
    ("k below nothing", lambda to: to.loose.search([1.0, 0.0], -1), REFUSED),
    ("k of text", lambda to: to.loose.search([1.0, 0.0], "a"), REFUSED),
    ("where without rows", lambda to: to.loose.search([1.0, 0.0], where={"a": 1}), REFUSED),
    ("a condition of text", lambda to: to.things.find("x"), REFUSED),
    ("a range of three", lambda to: to.things.find({"n": (1, 2, 3)}), REFUSED),
    ("a condition of a map", lambda to: to.things.find({"n": {"$gt": 1}}), REFUSED),
    ("a condition of NaN", lambda to: to.things.find({"n": float("nan")}), REFUSED),
    ("a negative limit", lambda to: to.things.find({}, limit=-1), REFUSED),
    ("an order of bytes", lambda to: to.things.find({}, order=b"n"), REFUSED),
    ("a prefix of numbers", lambda to: to.things.scan(prefix=5), REFUSED),
    ("a scan limit below 0", lambda to: to.things.scan(limit=-1), REFUSED),
    ("both times", lambda to: to.things.get("a", as_of=1, consistency="strong"), TypeError),
    ("a negative LSN", lambda to: to.things.get("a", as_of=-1), REFUSED_AT_ALL),
    ("an LSN of bool", lambda to: to.things.get("a", as_of=1.5), REFUSED),
    ("a time of words", lambda to: to.things.get("a", as_of="soon"), REFUSED),
    ("a naive as_of", lambda to: to.things.get("a", as_of=NAIVE), REFUSED),
    ("a future LSN", lambda to: to.things.get("a", as_of=1 << 60), REFUSED_AT_ALL),
    ("an LSN too wide", lambda to: to.things.get("a", as_of=1 << 70), REFUSED_AT_ALL),
    ("unknown consistency", lambda to: to.things.get("a", consistency="eventually"), REFUSED),
    ("an event of a number", lambda to: to.log.append(5), REFUSED),
    ("an event of an object", lambda to: to.log.append("x", object()), REFUSED),
    ("a kind with a surrogate", lambda to: to.log.append("\ud800"), REFUSED),
    ("after of nonsense", lambda to: to.log.scan(after=object()), REFUSED),
    ("a cached object", lambda to: to.temp.put("a", object()), REFUSED),
    ("a negative ttl", lambda to: to.temp.put("a", 1, ttl=-1), REFUSED),
    ("a ttl of words", lambda to: to.temp.put("a", 1, ttl="soon"), REFUSED),
    ("a ttl of NaN", lambda to: to.temp.put("a", 1, ttl=float("nan")), REFUSED),
    ("a ttl beyond time", lambda to: to.temp.put("a", 1, ttl=float("inf")), REFUSED_AT_ALL),
    ("a scope of a number", lambda to: to.notes.set(1, "a", 2), REFUSED),
    ("a name of bytes", lambda to: to.notes.set("a", b"a", 2), REFUSED),
    ("a scope with a surrogate", lambda to: to.notes.set("\ud800", "a", 2), REFUSED),
    ("a name of nothing", lambda to: to.notes.set("ann", "", 2), REFUSED),
    ("a node of a number", lambda to: to.graph.link(1, "knows", "x"), REFUSED),
    ("an unknown direction", lambda to: to.graph.neighbors("x", direction="up"), REFUSED),
    ("a depth of 0", lambda to: to.graph.neighbors("x", depth=0), REFUSED),
    ("a huge depth", lambda to: to.graph.neighbors("x", depth=1 << 40), REFUSED),
    ("an unknown priority", lambda to: to.transaction(priority="x").__enter__(), REFUSED_AT_ALL),
    ("an unknown isolation", lambda to: to.transaction(isolation="x").__enter__(), REFUSED_AT_ALL),
    ("a txn of a number", lambda to: to.transaction(txn=5).__enter__(), REFUSED_AT_ALL),
    ("an unknown structure", lambda to: to["nothing"], (LookupError, WaferError)),
    ("writing a view", lambda to: to.tally.put("ann", {}), AttributeError),
    ("an empty memory", lambda to: to.remember("", vector=[1.0] * DIM), REFUSED),
    ("a memory of NaN", lambda to: to.remember("x", vector=[float("nan")] * DIM), VectorError),
    (
        "a field that collides",
        lambda to: to.remember("x", vector=[1.0] * DIM, fields={"text": 1}),
        REFUSED,
    ),
]
