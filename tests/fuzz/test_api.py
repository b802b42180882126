"""The public API against a model: random steps, bad input among them, of a seed of their own.

It shares nothing with `tests/property/test_model.py`: another generator and another model, written
from the contract alone. `WAFERDB_FUZZ_STEPS` sets how many steps there are, `WAFERDB_FUZZ_SEED` the
first seed; a failure names seed and steps, and `WAFERDB_FUZZ_REPLAY=seed:step,step,…` plays those.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from api_driver import RULES, play, shortened

STEPS_OF_ONE = 300
STEPS = int(os.environ.get("WAFERDB_FUZZ_STEPS", "1500"))
SEED = int(os.environ.get("WAFERDB_FUZZ_SEED", "1"))
REPLAY = os.environ.get("WAFERDB_FUZZ_REPLAY")
# Taking steps away plays what is left again; so often at most.
SHORTEN_PLAYS = 200


def directory(seed: int, base: Path) -> Path | None:
    """Every other seed is played on disk."""
    if seed % 2:
        return None
    base.mkdir(parents=True, exist_ok=True)
    return base


def failing(seed: int, error: BaseException, base: Path) -> str:
    """What replays it: as few steps as were found to raise the same."""
    plays = 0

    def fails(steps: list[int]) -> bool:
        nonlocal plays
        plays += 1
        if plays > SHORTEN_PLAYS:
            return False
        try:
            play(seed, steps, directory(seed, base / f"again-{plays}"))
        except BaseException as again:  # noqa: BLE001 - a panic is none of Exception
            return type(again) is type(error)
        return False

    steps = shortened(fails, list(range(STEPS_OF_ONE)))
    return f"WAFERDB_FUZZ_REPLAY={seed}:{','.join(map(str, steps))} pytest tests/fuzz/test_api.py"


@pytest.mark.skipif(REPLAY is not None, reason="a failure is replayed")
def test_random_steps_answer_as_the_model_does(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    seed = SEED
    while sum(counts.values()) < STEPS:
        try:
            counts += play(seed, range(STEPS_OF_ONE), directory(seed, tmp_path / str(seed)))
        except BaseException as error:
            error.add_note(failing(seed, error, tmp_path / f"shorter-{seed}"))
            raise
        seed += 1
    print(f"\n{sum(counts.values())} steps, seeds {SEED} to {seed - 1}:")
    print(", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    assert STEPS < 1500 or counts.keys() == RULES.keys(), "every rule has run"


@pytest.mark.skipif(REPLAY is None, reason="WAFERDB_FUZZ_REPLAY names nothing to replay")
def test_replay(tmp_path: Path) -> None:
    assert REPLAY is not None
    seed, _, steps = REPLAY.partition(":")
    play(int(seed), [int(step) for step in steps.split(",")], directory(int(seed), tmp_path / "db"))
