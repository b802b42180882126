"""The public types: mypy --strict accepts right uses of handles and sees each wrong one."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def mypy(file: Path, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--config-file=",
            f"--cache-dir={tmp_path / 'cache'}",
            str(file),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
        check=False,
    )


def test_handles_are_typed_and_wrong_uses_are_seen(tmp_path: Path) -> None:
    result = mypy(HERE / "handles.py", tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_check_itself_can_fail(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text(
        "from waferdb import Database, Rows\n\n\nclass M(Database):\n    facts = Rows()\n\n\n"
        "def f(db: M) -> str:\n    return db.facts.count()\n"
    )
    result = mypy(bad, tmp_path)
    assert result.returncode == 1
    assert "return-value" in result.stdout, result.stdout
