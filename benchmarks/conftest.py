"""What the tests of the benchmarks share. Sizes are tiny unless WAFERDB_BENCH says otherwise."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.sizes import SIZES, Sizes


@pytest.fixture(scope="session")
def sizes() -> Sizes:
    """The sizes that WAFERDB_BENCH names."""
    name = os.environ.get("WAFERDB_BENCH", "tiny")
    if name not in SIZES:
        raise pytest.UsageError(f"WAFERDB_BENCH={name!r}: it is one of {', '.join(SIZES)}")
    return SIZES[name]
