"""Documents as JSON and back, without loss.

JSON has neither bytes, times, NaN nor ranges; they are maps with one key that begins with `$`:

    bytes            {"$bytes": "<base64>"}
    datetime         {"$time": "2026-01-31T09:30:00.000000+00:00"}
    NaN, infinity    {"$float": "nan" | "inf" | "-inf"}
    float32 array    {"$f32": "<base64, little-endian>"}      read back as a numpy array
    range            {"$range": [low, high]}                  read only: `find --where`
    a map that would look like one of these: {"$map": {...}}
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

__all__ = ["dumps", "loads", "plain", "tagged", "untagged"]

_TAGS = frozenset({"$bytes", "$time", "$float", "$f32", "$range", "$map"})


def plain(value: Any) -> Any:
    """Result objects (dataclasses, named tuples) as maps; what is inside them alike."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: plain(getattr(value, name)) for name in names if not name.startswith("_")}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: plain(part) for name, part in value._asdict().items()}
    if isinstance(value, Mapping):
        return {_name(name): plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(part) for part in value]
    return value


def _name(name: Any) -> Any:
    return "/".join(map(str, name)) if isinstance(name, tuple) else name


def tagged(value: Any) -> Any:
    """A document as JSON types, with the tags above."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else {"$float": str(value)}
        case bytes() | bytearray() | memoryview():
            return {"$bytes": base64.b64encode(value).decode("ascii")}
        case datetime():
            return {"$time": value.astimezone(UTC).isoformat(timespec="microseconds")}
        case np.ndarray():
            raw = np.ascontiguousarray(value, dtype="<f4").tobytes()
            return {"$f32": base64.b64encode(raw).decode("ascii")}
        case np.generic():
            return tagged(value.item())
        case Mapping():
            inner = {str(name): tagged(part) for name, part in value.items()}
            return {"$map": inner} if len(inner) == 1 and _TAGS & inner.keys() else inner
        case list() | tuple():
            return [tagged(part) for part in value]
        case _:
            return str(value)


def untagged(value: Any) -> Any:
    """The inverse of `tagged`. Raises `ValueError` for a tag that holds something else."""
    if isinstance(value, list):
        return [untagged(part) for part in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        tag, inner = next(iter(value.items()))
        if tag in _TAGS:
            try:
                return _read_tag(tag, inner)
            except (TypeError, AttributeError, ValueError) as error:
                raise ValueError(
                    f"{json.dumps(value)[:80]} is not a valid {tag}: {error}"
                ) from None
    return {name: untagged(part) for name, part in value.items()}


def _read_tag(tag: str, inner: Any) -> Any:
    match tag:
        case "$bytes":
            return base64.b64decode(inner, validate=True)
        case "$time":
            moment = datetime.fromisoformat(inner)
            if moment.tzinfo is None:
                raise ValueError("it needs a time zone, such as a Z at its end")
            return moment
        case "$float":
            return float(inner)
        case "$f32":
            raw = base64.b64decode(inner, validate=True)
            return np.frombuffer(raw, dtype="<f4").astype(np.float32)
        case "$range":
            low, high = inner
            return (untagged(low), untagged(high))
        case _:
            return {name: untagged(part) for name, part in inner.items()}


def dumps(value: Any) -> str:
    """One line of JSON."""
    return json.dumps(tagged(plain(value)), ensure_ascii=False, allow_nan=False)


def loads(text: str | bytes) -> Any:
    """Reads one JSON document. Raises `ValueError` naming the place of a mistake."""
    try:
        return untagged(json.loads(text))
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise ValueError("not a document: nested too deeply") from None
