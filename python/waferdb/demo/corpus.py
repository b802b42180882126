"""Real text that every machine with Python has: the language's own help topics.

Sentences of `pydoc_data.topics` first; if more are wanted, sentences of the standard library's
docstrings. The same interpreter gives the same memories in the same order.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics
from typing import TypedDict

QUESTIONS = (
    "what does the garbage collector do with objects nobody uses?",
    "how do I leave a loop early?",
    "what happens when I divide two integers?",
    "how do I set a breakpoint in the debugger?",
)

_CHARACTERS_MIN = 20
_UNDERLINE = re.compile(r"[*=~^-]{4,}")
_BETWEEN = re.compile(r"(?<=[.!?:;])\s+(?=[A-Z\"(`*])")


class Item(TypedDict):
    """One memory, with the names of `AgentMemory.remember`."""

    key: str
    text: str
    user: str
    topic: str


def memories(count: int) -> list[Item]:
    """The first `count` memories. Raises `ValueError` if this Python has less text than that."""
    seen: set[str] = set()
    found: list[Item] = []
    for topic, text in _passages():
        for sentence in _sentences(text):
            if sentence in seen:
                continue
            seen.add(sentence)
            user = f"reader-{len(found) % 7}"
            key = f"{topic}:{len(found):05}"
            found.append(Item(key=key, text=sentence, user=user, topic=topic))
            if len(found) == count:
                return found
    raise ValueError(f"this Python has text for {len(found):,} memories: use --count {len(found)}")


def _passages() -> Iterator[tuple[str, str]]:
    yield from sorted(topics.items())
    for path in sorted(Path(os.__file__).parent.glob("*.py")):
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError, OSError):
            # One module more or less changes nothing: there is text enough, or we say so.
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                yield path.stem, ast.get_docstring(node) or ""


def _sentences(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text):
        flat = " ".join(_UNDERLINE.sub(" ", paragraph).split())
        yield from (s for s in _BETWEEN.split(flat) if len(s) >= _CHARACTERS_MIN)
