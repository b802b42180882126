"""Any flipped byte of a closed database: the right answer or `CorruptionError`, never wrong data.

Every seventh byte and all bytes of the headers by default; every byte with `WAFERDB_FLIP_ALL=1`.
Each byte is flipped with one bit or all of them, as its offset says, in processes of their own.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from flipper import observe
from wafer_support import Memory, child_environment, whole_keys, write_memory

pytestmark = [pytest.mark.crash, pytest.mark.slow]

WORKERS = 2
FLIPPER = Path(__file__).with_name("flipper.py")
ALL = os.environ.get("WAFERDB_FLIP_ALL") == "1"
HEADER_BYTES = 512
STRIDE = 7
FLIPS_OF_ONE_PROCESS = 2_000


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A closed database of about 64 KiB, and what it answers."""
    folder = tmp_path_factory.mktemp("flip")
    path = folder / "agent.wafer"
    keys = [f"memory/{n:02}" for n in range(34)]
    with Memory(path) as db:
        for key in keys[:24]:
            with db.transaction(actor="tester", reason=f"to remember {key}") as tx:
                write_memory(tx, key)
        with db.transaction() as tx:
            for key in keys[24:]:
                write_memory(tx, key)
        for n in range(12):
            db.facts.put("big", {"user": "big", "blob": bytes([n]) * 2_000})
        db.facts.delete("big")
        assert whole_keys(db) == set(keys)
    answers = observe(path, keys)
    assert answers == observe(path, keys)
    expected = folder / "expected.pickle"
    expected.write_bytes(pickle.dumps((keys, answers)))
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    assert 24 << 10 <= size <= 256 << 10, f"{size} bytes are not about 64 KiB"
    return path, expected


def mask_of(offset: int) -> int:
    return (1, 2, 4, 8, 16, 32, 64, 128, 0xFF)[offset % 9]


def flips(path: Path, mode: str, stride: int) -> list[str]:
    work = []
    for file in sorted(path.rglob("*")):
        if not file.is_file():
            continue
        name = file.relative_to(path)
        work.extend(
            f"{name} {offset} {mask_of(offset)} {mode}"
            for offset in range(file.stat().st_size)
            if offset < HEADER_BYTES or offset % stride == 0
        )
    return work


def run(path: Path, expected: Path, work: list[str], name: str, problems: list[Any]) -> None:
    """Gives `work` to processes of one worker, in pieces, and collects what went wrong."""
    copy = path.parent / f"copy-{name}"
    shutil.copytree(path, copy)
    progress = path.parent / f"progress-{name}"
    for start in range(0, len(work), FLIPS_OF_ONE_PROCESS):
        piece = work[start : start + FLIPS_OF_ONE_PROCESS]
        child = subprocess.run(
            [sys.executable, str(FLIPPER), str(copy), str(expected), str(progress)],
            input="\n".join(piece) + "\n",
            capture_output=True,
            text=True,
            timeout=1_800,
            env=child_environment(),
            check=False,
        )
        reports = [json.loads(line) for line in child.stdout.splitlines()]
        counts = [report["counts"] for report in reports if "counts" in report]
        problems.extend(report for report in reports if "counts" not in report)
        if child.returncode != 0 or not counts:
            problems.append(
                {
                    "died": child.returncode,
                    "flip": progress.read_text().strip(),
                    "stderr": child.stderr[-2_000:],
                }
            )
            return
        assert sum(counts[0].values()) == len(piece)
        print(name, counts[0])


def flip_all(path: Path, expected: Path, work: list[str], label: str) -> None:
    problems: list[Any] = []
    threads = [
        threading.Thread(
            target=run, args=(path, expected, work[n::WORKERS], f"{label}-{n}", problems)
        )
        for n in range(WORKERS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems, f"{len(problems)} flips went wrong, the first: {problems[:3]}"


def test_any_flipped_byte_is_noticed_or_harmless_when_reading(closed: tuple[Path, Path]) -> None:
    path, expected = closed
    flip_all(path, expected, flips(path, "r", 1 if ALL else STRIDE), "r")


def test_any_flipped_byte_is_noticed_or_harmless_when_opening_to_write(
    closed: tuple[Path, Path],
) -> None:
    path, expected = closed
    flip_all(path, expected, flips(path, "rw", 1 if ALL else STRIDE * 11), "rw")


def test_the_expectation_itself_can_fail(closed: tuple[Path, Path], tmp_path: Path) -> None:
    """A database with one memory less is told apart by the same questions."""
    from flipper import judge

    path, expected = closed
    keys, answers = pickle.loads(expected.read_bytes())
    other = tmp_path / "other.wafer"
    shutil.copytree(path, other)
    with Memory(other) as db:
        db.facts.delete(keys[3])
    _, wrong = judge(other, answers, keys, "r")
    assert any(line.startswith("facts.scan: wrong data") for line in wrong)
