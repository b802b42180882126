"""What every test here ends with can fail: a database that lacks something is told apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kernel_check import Bounds, examine
from kernel_store import ROOMY, Model, commit

COUNT = 40


def written(path: Path, seed: int) -> Model:
    model = Model(seed, "w0")
    with ROOMY.open(path, seed) as db:
        for _ in range(COUNT):
            commit(db, model)
    return model


def found(path: Path, seed: int, least: int = COUNT, most: int = COUNT) -> list[str]:
    return examine(path, seed, {"w0": Bounds(least, most)}, ROOMY, thorough=True)[1]


@pytest.mark.parametrize("seed", [2, 3])
def test_a_sound_database_has_no_findings(path: Path, seed: int) -> None:
    written(path, seed)
    assert found(path, seed) == []


def test_a_lost_and_an_unheard_of_commit_are_findings(path: Path) -> None:
    written(path, 2)
    assert found(path, 2, COUNT + 1, COUNT + 1)[0].startswith("lost: w0")
    assert found(path, 2, 0, COUNT - 1)[0].startswith("wrong: w0")


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (lambda db, model: db.facts.delete(min(model.facts)), "facts"),
        (lambda db, model: db.session.delete(min(model.facts)), "session"),
        (lambda db, model: db.embeddings.delete(min(model.facts)), "embeddings"),
        (lambda db, model: db.events.append("said", key="w0/00"), "events"),
        (lambda db, model: db.context.delete(*min(model.context)), "context"),
        (lambda db, model: db.people.patch(min(model.people), {"age": 99}), "people"),
        (lambda db, model: db.entities.unlink(*min(model.links)), "entities"),
        (lambda db, model: db.points.delete(min(model.points)), "points"),
        (lambda db, model: db.people.delete(min(model.people)), "journal"),
    ],
)
def test_whatever_is_missing_or_too_much_is_a_finding(
    path: Path, harm: Callable[[Any, Model], object], named: str
) -> None:
    model = written(path, 2)
    with ROOMY.open(path, 2) as db:
        harm(db, model)
    assert any(problem.startswith(f"wrong: {named}:") for problem in found(path, 2))
