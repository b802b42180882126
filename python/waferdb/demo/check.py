"""All or nothing, seen from outside: is each memory in all six structures, or in none?

Reads every structure by its public face at one LSN and compares them with each other, with what
was submitted and with what was acknowledged.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from ..agent_memory import REMEMBERED, AgentMemory
from ..embedders import Vectors32
from .corpus import Item

_SHOWN = 3


def census(memory: AgentMemory) -> dict[str, set[str]]:
    """The keys of the memories in each of the six structures."""
    audited = (change for entry in memory.audit.entries() for change in entry.changes)
    scopes = memory.context.scopes()
    return {
        "facts": set(memory.facts.keys()),
        "embeddings": set(memory.embeddings.keys()),
        "session": set(memory.session.keys()),
        "events": {str(event.key) for event in memory.events.scan(kind=REMEMBERED)},
        "audit": {str(change.key) for change in audited if change.structure == "facts"},
        "context": {name for scope in scopes for name in memory.context.load(scope)},
    }


def problems(
    memory: AgentMemory,
    submitted: Mapping[str, Item],
    acknowledged: Collection[str],
    vectors: Mapping[str, Vectors32],
) -> list[str]:
    """What is wrong, one line each; empty if every memory is whole and none is lost."""
    found = census(memory)
    present = found["facts"]
    wrong = [_difference("acknowledged, but lost", set(acknowledged) - present)]
    wrong.append(_difference("in facts, but never submitted", present - submitted.keys()))
    for name, keys in found.items():
        wrong.append(_difference(f"in facts, but not in {name}", present - keys))
        wrong.append(_difference(f"in {name}, but not in facts", keys - present))
    wrong.append(_difference("different content", _altered(memory, present, submitted, vectors)))
    return [line for line in wrong if line]


def _altered(
    memory: AgentMemory,
    present: set[str],
    submitted: Mapping[str, Item],
    vectors: Mapping[str, Vectors32],
) -> set[str]:
    loaded: dict[str, dict[str, object]] = {}
    altered = set()
    for key in sorted(present & submitted.keys()):
        item, row, vector = submitted[key], memory.facts.get(key), memory.embeddings.get(key)
        user = item["user"]
        if user not in loaded:
            loaded[user] = memory.load(user)
        said = row is not None and {name: row[name] for name in ("text", "user", "topic")} == {
            "text": item["text"],
            "user": user,
            "topic": item["topic"],
        }
        same = row == memory.session.get(key) == loaded[user].get(key)
        if not said or not same or vector is None or not np.array_equal(vector, vectors[key]):
            altered.add(key)
    return altered


def _difference(what: str, keys: set[str]) -> str:
    if not keys:
        return ""
    some = ", ".join(sorted(keys)[:_SHOWN])
    return f"{len(keys)} memories {what}: {some}{', …' if len(keys) > _SHOWN else ''}"
