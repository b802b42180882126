"""docs/testing.md names tests as proof of what it says: each must be there."""

from __future__ import annotations

import re
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
NAMED = re.compile(r"`((?:tests|engine)/[\w/]+\.(?:py|rs))::(\w+)`")


def test_every_test_that_the_fault_model_names_exists() -> None:
    text = (CHECKOUT / "docs" / "testing.md").read_text(encoding="utf-8")
    named = NAMED.findall(text)
    assert len(named) > 20
    missing = [f"{path}::{name}" for path, name in named if not _defines(CHECKOUT / path, name)]
    assert not missing, missing


def _defines(path: Path, name: str) -> bool:
    if not path.is_file():
        return False
    word = "fn" if path.suffix == ".rs" else "def"
    return re.search(rf"\b{word} {name}\(", path.read_text(encoding="utf-8")) is not None
