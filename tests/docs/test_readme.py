"""The README's examples, run as a new user would: pasted into a file, in an empty directory.

A block that imports waferdb begins a file; a block that does not continues the file before it.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[2] / "README.md"
BLOCK = re.compile(r"^```python[^\n]*\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)
IMPORT = re.compile(r"^\s*(import waferdb|from waferdb)", re.MULTILINE)


def programs() -> list[str]:
    found: list[str] = []
    text = README.read_text(encoding="utf-8") if README.is_file() else ""
    for block in BLOCK.findall(text):
        if IMPORT.search(block) or not found:
            found.append(block)
        else:
            found[-1] += block
    return found


def test_the_readme_has_an_example_of_about_twenty_lines() -> None:
    assert programs(), f"{README} has no python example"
    lines = [line for line in programs()[0].splitlines() if line.strip()]
    assert 5 <= len(lines) <= 40, f"the first example has {len(lines)} lines"


@pytest.mark.parametrize("number", range(len(programs())))
def test_each_example_runs_when_pasted_into_a_file(number: int, tmp_path: Path) -> None:
    program = programs()[number]
    needs_embedder = "AgentMemory(" in program and "embedder=" not in program
    if needs_embedder and importlib.util.find_spec("wordllama") is None:
        pytest.skip("the example needs waferdb[embed]")
    file = tmp_path / "example.py"
    file.write_text(program, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for run in ("first", "second, on the database it left"):
        result = subprocess.run(
            [sys.executable, str(file)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert result.returncode == 0, f"{run} run of README example {number}:\n{result.stderr}"
