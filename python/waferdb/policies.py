"""When a structure reflects a commit, and how fresh a read must be.

A policy is declared with a structure and stored with the database; `db.set_policy` changes it.
Under every policy a strong read sees everything, and a deletion is reflected at once.
"""

from dataclasses import dataclass
from typing import Any, Literal

from waferdb import units
from waferdb.errors import SchemaError

__all__ = [
    "Bounded",
    "Consistency",
    "Eager",
    "Hybrid",
    "Lazy",
    "Policy",
    "bounded",
    "eager",
    "hybrid",
    "lazy",
]


@dataclass(frozen=True, slots=True)
class Eager:
    """Reflected before the commit returns."""

    def to_json(self) -> dict[str, Any]:
        """The stored form."""
        return {"kind": "eager"}


@dataclass(frozen=True, slots=True)
class Lazy:
    """Reflected when first read, or refreshed."""

    def to_json(self) -> dict[str, Any]:
        """The stored form."""
        return {"kind": "lazy"}


@dataclass(frozen=True, slots=True)
class Hybrid:
    """Critical commits at once, routine ones in batches bounded by age (microseconds), items and
    bytes."""

    max_age: int
    max_items: int
    max_bytes: int

    def to_json(self) -> dict[str, Any]:
        """The stored form."""
        return {
            "kind": "hybrid",
            "max_age": self.max_age,
            "max_items": self.max_items,
            "max_bytes": self.max_bytes,
        }


Policy = Eager | Lazy | Hybrid


@dataclass(frozen=True, slots=True)
class Bounded:
    """A read that may lack the last `max_age` (microseconds) or `max_commits` commits."""

    max_age: int | None
    max_commits: int | None


Consistency = Literal["strong", "session", "eventual"] | int | Bounded


def eager() -> Eager:
    """The policy that reflects each commit before it returns.

    >>> eager()
    Eager()
    """
    return Eager()


def lazy() -> Lazy:
    """The policy that reflects commits when the structure is read or refreshed.

    >>> lazy()
    Lazy()
    """
    return Lazy()


def hybrid(
    max_age: units.Duration = "1s", max_items: int = 4096, max_bytes: units.Size = "8MiB"
) -> Hybrid:
    """The policy that reflects critical commits at once and routine ones in bounded batches.

    `max_age` is a duration, `max_items` a count, `max_bytes` a size; whichever bound is reached
    first ends a batch. Raises `ValueError` or `TypeError` for a bad one.

    >>> hybrid(max_age="2s")
    Hybrid(max_age=2000000, max_items=4096, max_bytes=8388608)
    """
    if isinstance(max_items, bool) or not isinstance(max_items, int):
        raise TypeError(f"max_items is an int, not {type(max_items).__name__}")
    if max_items < 1:
        raise ValueError(f"max_items={max_items}: a batch holds at least one")
    bytes_max = units.size(max_bytes, "max_bytes")
    if bytes_max < 1:
        raise ValueError("max_bytes is zero; a batch holds at least one byte")
    return Hybrid(units.duration(max_age, "max_age"), max_items, bytes_max)


def bounded(max_age: units.Duration | None = None, *, max_commits: int | None = None) -> Bounded:
    """A consistency: the answer may lack what was committed in the last `max_age` (a duration), or
    the last `max_commits` commits; with both, both bounds hold.

    >>> bounded("5s")
    Bounded(max_age=5000000, max_commits=None)
    """
    if max_age is None and max_commits is None:
        raise ValueError("bounded() without a bound; give max_age= or max_commits=")
    if max_commits is not None:
        if isinstance(max_commits, bool) or not isinstance(max_commits, int):
            raise TypeError(f"max_commits is an int, not {type(max_commits).__name__}")
        if max_commits < 0:
            raise ValueError(f"max_commits={max_commits} is negative")
    return Bounded(None if max_age is None else units.duration(max_age, "max_age"), max_commits)


def check(policy: object) -> Policy:
    """A policy, else `SchemaError`."""
    if not isinstance(policy, Policy):
        raise SchemaError(f"policy={policy!r}: it is eager(), lazy() or hybrid(…)")
    return policy


def from_json(stored: dict[str, Any]) -> Policy:
    """The policy of its stored form."""
    match stored["kind"]:
        case "lazy":
            return Lazy()
        case "hybrid":
            return Hybrid(stored["max_age"], stored["max_items"], stored["max_bytes"])
        case _:
            return Eager()
