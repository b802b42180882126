"""Sizes of the benchmarks, where they write, and the report they leave in results/.

WAFERDB_BENCH: "tiny" shows in seconds that everything runs, "small" (default) ends within five
minutes, "full" is what published tables state. WAFERDB_BENCH_DIR: where databases are made; by
default pytest's temporary directory, whose file system the report names.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "compare")]

import report as reporting  # noqa: E402 - the path above comes first
from sizes import SIZES, Sizes  # noqa: E402


@pytest.fixture(scope="session")
def sizes() -> Sizes:
    """The sizes that WAFERDB_BENCH names."""
    name = os.environ.get("WAFERDB_BENCH", "small")
    if name not in SIZES:
        raise pytest.UsageError(f"WAFERDB_BENCH={name!r}: it is one of {', '.join(SIZES)}")
    return SIZES[name]


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """An empty directory on the file system that is measured."""
    given = os.environ.get("WAFERDB_BENCH_DIR")
    if given is None:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=given) as made:
        yield Path(made)


@pytest.fixture(scope="session")
def report(sizes: Sizes) -> Iterator[reporting.Report]:
    """What the benchmarks found; written when the last one has ended.

    A tiny run writes only where WAFERDB_BENCH_RESULTS says: its figures mean nothing.
    """
    found = reporting.Report(sizes.name)
    yield found
    given = os.environ.get("WAFERDB_BENCH_RESULTS")
    if found.tables and (given or sizes.name != "tiny"):
        found.write(Path(given) if given else HERE / "results")
    _shown.append(found.markdown())


_shown: list[str] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The report, below pytest-benchmark's own table."""
    for text in _shown:
        terminalreporter.write_line("\n" + text)
