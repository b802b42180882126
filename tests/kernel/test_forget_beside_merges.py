"""A forgotten key came back into views with the next opening.

A merge dropped what a `forget` hid, also where that `forget` was in the log and in memory only.
The next opening replayed it over runs that no longer held the row, so that no view was told: a
count went on counting it, and `verify` found a member without a document.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from waferdb import Count, Database, Rows, View, _simulated, lazy

_RUNS_OF_A_MERGE = 8


def texts_of(group: Any) -> dict[str, Any]:
    return {"texts": [row.value["text"] for row in group.rows]}


class Forgetful(Database):
    facts = Rows()
    counts = View(Count(), source="facts", by="topic")
    texts = View(texts_of, source="facts", by="topic", policy=lazy())


def killed_after_a_forget(path: Path, copy: Path, steps: int) -> None:
    """Leaves in `copy` what a kill would, so many background steps behind a `forget`."""
    db = _simulated.open(Forgetful, path, memory=1 << 20, memtable=16 << 10)
    engine = db._scope.shared.engine
    db.facts.put("k", {"topic": "secret", "text": "to be forgotten"})
    assert db.texts.get("secret", consistency="strong") is not None
    flushes, runs = 0, 0
    for number in range(10_000):
        db.facts.put(f"filler {number}", {"topic": "filler", "text": "x"})
        while flushes < _RUNS_OF_A_MERGE and engine.step():
            now = sum(name.startswith("runs/") for name in db.stats().files)
            flushes, runs = flushes + (now > runs), now
        if flushes == _RUNS_OF_A_MERGE:
            break
    with db.transaction() as tx:
        tx.facts._forget("k")
    for _ in range(steps):
        engine.step()
    shutil.copytree(path, copy)
    db.close()


@pytest.mark.parametrize("steps", [0, 40])
def test_what_was_forgotten_before_a_merge_stays_out_of_views(tmp_path: Path, steps: int) -> None:
    copy = tmp_path / "killed.wafer"
    killed_after_a_forget(tmp_path / "agent.wafer", copy, steps)
    with Forgetful(copy) as db:
        assert "k" not in db.facts
        assert db.texts.get("secret") is None
        assert not (db.counts.get("secret") or {}).get("count")
        assert db.verify(deep=True).ok
