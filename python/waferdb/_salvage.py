"""Salvage: what is provably whole of a damaged database, in a new one; and what is not, told.

The work is the engine's; here are the call and the shape of its report.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from waferdb import _core

__all__ = ["Damage", "Gap", "Lost", "SalvageReport", "Salvaged", "salvage"]


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes of a file that are not what was written; `bytes` is how many, where that is known."""

    file: str
    offset: int
    bytes: int | None
    what: str


@dataclass(frozen=True, slots=True)
class Gap:
    """LSNs from `first` to `last` (None: to the end of the log, however many these were) of which
    no commit is left. Any key may have been changed or deleted in them."""

    first: int
    last: int | None


@dataclass(frozen=True, slots=True)
class Lost:
    """What was not written: the version `lsn` of a key, at `offset` of `file`, and why.

    `key` has the parts of the key (an event's: its kind, and its key if it has one). `older` is the
    LSN of the newest whole version before it, if there is one; `older_written` says whether that
    one was written, which it is only with `older=True`.
    """

    structure: str
    key: tuple[str, ...]
    lsn: int
    file: str
    offset: int
    why: str
    older: int | None
    older_written: bool


@dataclass(frozen=True, slots=True)
class Salvaged:
    """Of one structure: its kind, how many operations were written, how many are lost."""

    kind: str
    written: int
    lost: int


@dataclass(frozen=True, slots=True)
class SalvageReport:
    """What `salvage` found; true where nothing is lost.

    `whole` and `damaged` count commits, from LSN `first` to `last` of the old database; `lsn` is
    the newest of the new one, which has LSNs and times of its own. `missing` are the gaps,
    `unknown` the LSNs of damaged commits whose keys cannot be told for sure: any key may have been
    changed in those, too. `lost` lists the first 10,000 of `lost_count`, `damage` those of
    `damage_count`. `torn_tail` is what a crash left at the end of the log, never acknowledged and
    no loss. `notes` say what else differs from the old database.
    """

    ok: bool
    source: str
    destination: str
    whole: int
    damaged: int
    first: int
    last: int
    missing: tuple[Gap, ...]
    unknown: tuple[int, ...]
    structures: Mapping[str, Salvaged]
    lost: tuple[Lost, ...]
    lost_count: int
    damage: tuple[Damage, ...]
    damage_count: int
    torn_tail: str | None
    notes: tuple[str, ...]
    lsn: int

    @classmethod
    def _from_json(cls, text: str) -> SalvageReport:
        raw: dict[str, Any] = json.loads(text)
        commits = raw.pop("commits")
        lost = (Lost(**{**one, "key": tuple(one["key"])}) for one in raw.pop("lost"))
        return cls(
            **commits,
            missing=tuple(Gap(**gap) for gap in raw.pop("missing")),
            unknown=tuple(raw.pop("unknown")),
            structures={name: Salvaged(**one) for name, one in raw.pop("structures").items()},
            lost=tuple(lost),
            damage=tuple(Damage(**one) for one in raw.pop("damage")),
            notes=tuple(raw.pop("notes")),
            **raw,
        )

    def __bool__(self) -> bool:
        return self.ok


def salvage(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    older: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> SalvageReport:
    """Copies all that is provably whole of the database `src` to a new one at `dst`.

    For a database that `open` refuses with `CorruptionError`; one that opens is copied alike. `src`
    is not written to and may be on a read-only medium. `dst` is a new or an empty directory. A key
    whose newest version is damaged is lost, and an older version is not passed off as current:
    `older=True` writes the newest whole one before it. What was deleted or forgotten stays so, as
    far as that can be read; where LSNs are missing, nobody can know. LSNs, times, transaction ids
    and the audit tree begin anew, and results of views are computed again.

    `progress(done, total)` gets bytes read and to be read. Memory: about 80 B a key.

    Raises `PathNotFoundError` where `src` holds no database, `StorageError` where `dst` is not
    empty, `LockedError` while a writer has `src` open, `FormatError` for a newer format,
    `CorruptionError` where not even a declaration of the structures is whole.

    >>> import os, tempfile, waferdb
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     src, dst = os.path.join(directory, "a.wafer"), os.path.join(directory, "b.wafer")
    ...     with waferdb.open(src, {"facts": waferdb.Rows()}) as db:
    ...         receipt = db.facts.put("a", {"n": 1})
    ...     report = waferdb.salvage(src, dst)
    ...     with waferdb.open(dst) as db:
    ...         report.ok, report.structures["facts"].written, db.facts["a"]
    (True, 1, {'n': 1})
    """
    text = _core.salvage(os.fspath(src), os.fspath(dst), bool(older), progress)
    return SalvageReport._from_json(text)
