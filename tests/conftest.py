"""Fixtures of the whole suite: temporary databases, in memory and on disk, and the LoCoMo text."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

TESTS = Path(__file__).resolve().parent
sys.path[:0] = [str(TESTS / "support"), str(TESTS / "crash"), str(TESTS / "kernel")]

settings.register_profile(
    "default",
    deadline=None,
    print_blob=True,
    max_examples=60,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile("thorough", settings.get_profile("default"), max_examples=2000)
settings.load_profile(os.environ.get("WAFERDB_HYPOTHESIS", "default"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a database may be made; nothing is there yet."""
    return tmp_path / "agent.wafer"


@pytest.fixture(params=["memory", "disk"])
def place(request: pytest.FixtureRequest, path: Path) -> str:
    """`":memory:"` and a path on disk, in turn."""
    return ":memory:" if request.param == "memory" else str(path)


@pytest.fixture
def db(place: str) -> Iterator[Any]:
    """A database with all six structures and the graph, empty."""
    from wafer_support import Memory

    with Memory(place) as database:
        yield database


@pytest.fixture
def plain(place: str) -> Iterator[Any]:
    """A database whose structures are not linked to each other, empty."""
    from wafer_support import Plain

    with Plain(place) as database:
        yield database


@pytest.fixture
def disk(path: Path) -> Iterator[Any]:
    """As `db`, always on disk."""
    from wafer_support import Memory

    with Memory(path) as database:
        yield database


@pytest.fixture
def reopen(path: Path) -> Iterator[Callable[..., Any]]:
    """Opens the database at `path` again, having closed the one it opened before."""
    from wafer_support import Memory

    opened: list[Any] = []

    def again(cls: Any = Memory, **options: Any) -> Any:
        while opened:
            opened.pop().close()
        opened.append(cls(path, **options))
        return opened[-1]

    yield again
    while opened:
        opened.pop().close()


@pytest.fixture(scope="session")
def locomo() -> Path:
    """The LoCoMo conversations: `$WAFERDB_LOCOMO`, else `shared/data` beside the checkout."""
    named = os.environ.get("WAFERDB_LOCOMO")
    file = Path(named) if named else TESTS.parent.parent / "shared" / "data" / "locomo-5.json"
    if not file.is_file():
        pytest.skip(f"no LoCoMo text at {file}; set WAFERDB_LOCOMO to locomo-5.json")
    return file
