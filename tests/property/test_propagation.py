"""Propagation under random policies: no answer is older than it says, or than it may be.

Histories of all structures and of views over views, under random and changing policies, are judged
at every step by a model that is always eager (`propagation_model`). A history that fails prints the
one command that runs it again.
"""

from __future__ import annotations

import os
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from propagation_checks import EVENTUAL, Judge
from propagation_model import STRUCTURES, VIEWS, Model, Operation
from propagation_trace import Trace

from waferdb import lazy
from waferdb.results import Freshness

VARIABLE = "WAFERDB_PROPAGATION_SEED"
SEEDS = range(40)
STEPS = 40
THREADED_SEEDS = range(1000, 1004)


def chosen(seeds: range) -> list[int]:
    """The seeds to run: all, or the one that the environment names."""
    named = os.environ.get(VARIABLE)
    return list(seeds) if named is None else [int(named)]


def run(seed: int, folder: Path | None, test: str, *, steady: bool = True) -> Counter[str]:
    """One history; its failure says how to repeat it."""
    try:
        return Trace(Random(seed), folder, steady=steady).run(STEPS)
    except BaseException as failure:
        failure.add_note(
            f"run it again: {VARIABLE}={seed} .venv/bin/python -m pytest "
            f"tests/property/test_propagation.py -k {test}"
        )
        raise


@pytest.mark.parametrize("seed", chosen(SEEDS))
def test_a_history_in_memory(seed: int) -> None:
    run(seed, None, "in_memory")


@pytest.mark.parametrize("seed", chosen(SEEDS))
def test_a_history_with_reopenings_and_kills(seed: int, tmp_path: Path) -> None:
    run(seed, tmp_path, "reopenings")


@pytest.mark.parametrize("seed", chosen(THREADED_SEEDS))
def test_a_history_with_background_threads(seed: int, tmp_path: Path) -> None:
    run(seed, tmp_path, "background_threads", steady=False)


@settings(max_examples=20)
@given(rng=st.randoms(use_true_random=False))
def test_a_drawn_history(rng: Random) -> None:
    Trace(rng).run(15)


def test_the_histories_see_lag_staleness_and_loss() -> None:
    """A suite whose reads are never behind would pass whatever the policies do."""
    seen: Counter[str] = Counter()
    for seed in range(10):
        seen += run(seed, None, "see_lag")
    for name in STRUCTURES:
        for policy in ("Lazy", "Hybrid"):
            assert seen[f"{name} behind, {policy}"], f"{name} was never behind under {policy}"
    for view in VIEWS:
        assert seen[f"{view} stale"] > 10
        assert seen[f"{view} fresh"] > 10
    assert seen["removed"] > 20
    assert seen["superseded"] > 5


# The oracle itself, on histories short enough to be checked by eye.

ANN = {"user": "ann", "day": 1, "n": 1, "text": "slack", "subject": "ann", "attribute": "contact"}
EMAIL = {**ANN, "text": "email"}


def model_of(*commits: Operation) -> Model:
    model = Model()
    for lsn, operation in enumerate(commits, start=1):
        model.commit(lsn, datetime(2024, 1, 1, tzinfo=UTC), "routine", [operation])
    return model


def put(key: str, document: dict[str, Any]) -> Operation:
    return Operation("facts.put", (key, document))


def test_the_model_supersedes_another_key_and_keeps_the_past() -> None:
    model = model_of(put("a", ANN), put("b", EMAIL))
    assert list(model.newest.facts) == ["b"]
    assert list(model.at(1).facts) == ["a"]
    (told,) = (event for event in model.newest.journal if event.kind == "contradiction")
    assert (told.lsn, told.key) == (2, "b")
    assert told.payload == {
        "older": {"key": "a", "version": 1},
        "newer": {"key": "b", "version": 2},
    }
    assert (model.barriers["facts"], model.gone) == (2, {"a": 2})


def test_the_model_answers_views_over_views_as_eager_would() -> None:
    model = model_of(put("a", ANN), put("b", {**ANN, "day": 2, "subject": "bob", "n": 2}))
    seen = [[1, "a", "slack"], [2, "b", "slack"]]
    assert model.answers("by_user") == {"ann": {"seen": seen, "total": 3}}
    assert model.answers("of_user")["ann"]["days"] == [1, 2]
    assert model.answers("of_parity") == {1: {"seen": seen, "users": ["ann"]}}
    assert list(model.answers("of_parity", 1)) == [1]


def test_the_model_forgets_at_every_lsn() -> None:
    model = model_of(put("a", ANN), Operation("forget", ("a", ("facts", "journal"), ())))
    assert not any(state.facts or state.journal for state in model.history.values())
    assert model.waiting_group("by_user", "ann", 0) == [1, 2]


def test_the_judge_refuses_an_answer_that_is_older_than_it_may_be() -> None:
    model = model_of(put("a", ANN), Operation("facts.delete", ("a",)), put("b", ANN))
    judge = Judge(model, dict.fromkeys(STRUCTURES, lazy()), steady=True)

    judge.db = SimpleNamespace(lsn=3)
    judge.claim("facts", Freshness(2, 1), EVENTUAL)
    for lsn, behind in ((2, 0), (1, 2), (4, 0)):
        with pytest.raises(AssertionError):
            judge.claim("facts", Freshness(lsn, behind), EVENTUAL)
    with pytest.raises(AssertionError):
        judge.nothing_gone({"seen": [[1, "a", "slack"]]}, "by_user")
