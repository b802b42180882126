"""The bytes on disk, read by a second reader that knows docs/format.md and not the engine.

The fixtures under tests/fixtures are databases as earlier builds wrote them; each must open and
answer the same for ever. They are opened from copies, since a writer changes what it opens.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import log_reader
import msgpack
import numpy as np
import pytest
from log_reader import Log, NotTheFormatError, read_log
from make_fixture import Fixture, answers
from wafer_support import DIM, Memory, owner_of, vector_of, write_memory

import waferdb
from waferdb import Audit, Rows

TESTS = Path(__file__).resolve().parent.parent
FIXTURES = TESTS / "fixtures"
FORMATS = sorted(folder.name for folder in FIXTURES.glob("format-*"))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A closed database of three sessions over all structures, and what it answered."""
    path = tmp_path_factory.mktemp("format") / "agent.wafer"
    with Memory(path) as db:
        for n in range(10):
            with db.transaction(actor="tester", reason=f"because {n}", txn=f"own-{n}") as tx:
                write_memory(tx, f"k{n}")
    with Memory(path) as db, db.transaction(priority="critical") as tx:
        for n in range(10, 20):
            write_memory(tx, f"k{n}")
    with Memory(path) as db:
        db.facts.put("big", {"blob": bytes(100_000)})
        db.facts.delete("k0")
        db.context.delete(owner_of("k1"))
        head = db.audit.head()
        told = {
            "lsn": db.lsn,
            "rows": {key: db.facts.read(key) for key in db.facts},
            "changes": list(db.changes()),
            "head": head,
            "leaves": [db.audit.leaf(entry.lsn) for entry in db.audit.entries()],
        }
    return path, told


@pytest.fixture(scope="module")
def log(written: tuple[Path, dict[str, Any]]) -> Log:
    return read_log(written[0])


def test_a_second_reader_reads_every_group_record_and_value(
    log: Log, written: tuple[Path, dict[str, Any]]
) -> None:
    told = written[1]
    assert [commit.lsn for commit in log.commits] == list(range(1, told["lsn"] + 1))
    assert [group.number for group in log.groups] == list(range(1, len(log.groups) + 1))
    kinds = [control.kind for control in log.controls if control.kind != "idle"]
    # A reopening writes over the close, so one stands at the end only.
    assert kinds == ["checkpoint"] * 3 + ["close"]
    for commit, change in zip(log.commits, told["changes"], strict=True):
        assert commit.txn == change.txn
        assert (commit.actor, commit.reason) == (change.actor, change.reason)
        assert waferdb.units.to_datetime(commit.time) == change.time


def test_rows_are_what_the_log_says(log: Log, written: tuple[Path, dict[str, Any]]) -> None:
    facts = log.structure("facts")["id"]
    rows: dict[str, tuple[Any, int]] = {}
    for commit in log.commits:
        for operation in commit.operations:
            if operation.structure != facts:
                continue
            key = operation.key.decode()
            if operation.operation == "put":
                assert operation.codec == "msgpack"
                assert operation.value is not None
                rows[key] = (msgpack.unpackb(operation.value), commit.lsn)
            else:
                del rows[key]
    assert rows == {key: (read.value, read.version) for key, read in written[1]["rows"].items()}


def test_vectors_are_float32_and_equal_values_are_stored_once(log: Log) -> None:
    ids = {name: log.structure(name)["id"] for name in ("facts", "embeddings", "session")}
    for commit in log.commits[:10]:
        by_structure = {operation.structure: operation for operation in commit.operations}
        vector = by_structure[ids["embeddings"]]
        assert (vector.codec, vector.form) == ("float32", log_reader.STORED)
        assert vector.value is not None
        found = np.frombuffer(vector.value, dtype="<f4")
        assert found.shape == (DIM,)
        assert np.array_equal(found, vector_of(vector.key.decode()))
        cached, row = by_structure[ids["session"]], by_structure[ids["facts"]]
        assert cached.form == log_reader.BACK
        assert commit.operations[cached.owner or 0] is row
        assert cached.value == row.value
        assert int.from_bytes(cached.meta, "little") > commit.time


def test_epochs_follow_the_sessions(log: Log) -> None:
    *_, newest = log.checkpoints
    assert [number for number, _, _ in newest.epochs] == [1, 2, 3]
    assert [first for _, _, first in newest.epochs] == [1, 11, 12]
    assert len({incarnation for _, incarnation, _ in newest.epochs}) == 3
    assert [commit.epoch for commit in log.commits] == [1] * 10 + [2] + [3] * 3
    generated = [commit.txn for commit in log.commits[11:]]
    assert generated == [f"{newest.epochs[2][1]:016x}-{n}" for n in range(1, 4)]


def test_audit_leaves_and_root_follow_from_the_log(
    log: Log, written: tuple[Path, dict[str, Any]]
) -> None:
    told = written[1]
    created = log.structure("audit")["created"]
    leaves = [log_reader.leaf(commit) for commit in log.commits if commit.lsn > created]
    assert leaves == told["leaves"]
    assert all(commit.salt is not None for commit in log.commits)
    assert (len(leaves), log_reader.merkle_root(leaves)) == (told["head"].size, told["head"].root)


def test_an_audit_declared_later_begins_behind_what_was_there(path: Path) -> None:
    with waferdb.open(path, {"facts": Rows()}) as db:
        db.facts.put("a", {})
        db.facts.put("b", {})
    with waferdb.open(path, {"facts": Rows(), "audit": Audit()}) as db:
        db.facts.put("c", {"text": "long enough to be stored by pointer and not inline"})
        head = db.audit.head()
    log = read_log(path)
    assert log.structure("audit")["created"] == 2
    leaves = [log_reader.leaf(commit) for commit in log.commits if commit.lsn > 2]
    assert [commit.salt is None for commit in log.commits] == [True, True, False]
    assert (head.size, head.root) == (1, log_reader.merkle_root(leaves))


def test_segments_follow_each_other_by_their_seals(path: Path) -> None:
    with waferdb.open(path, {"blobs": Rows(codec="raw")}) as db:
        for n in range(40):
            db.blobs.put(b"%d" % n, bytes([n]) * 100_000)
    log = read_log(path)
    assert len(log.segments) > 1
    seals = [control for control in log.controls if control.kind == "seal"]
    assert len(seals) == len(log.segments) - 1
    assert len({segment.salt for segment in log.segments}) == len(log.segments)
    for segment in log.segments[1:]:
        first = next(group for group in log.groups if group.segment == segment.number)
        assert segment.first_group <= first.number
        assert segment.first_lsn <= first.first_lsn
    assert [commit.operations[0].value for commit in log.commits] == [
        bytes([n]) * 100_000 for n in range(40)
    ]


def test_the_second_reader_notices_what_it_should(
    written: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """A checker that passes everything would prove nothing."""
    path = tmp_path / "copy"
    shutil.copytree(written[0], path)
    file = path / "log" / "00000001.wal"
    sound = file.read_bytes()
    for offset in range(0, len(sound), 997):
        damaged = bytearray(sound)
        damaged[offset] ^= 0x40
        file.write_bytes(damaged)
        with pytest.raises((NotTheFormatError, UnicodeDecodeError)):
            read_log(path)


@pytest.mark.parametrize("version", FORMATS)
def test_a_database_of_an_earlier_build_answers_the_same(version: str, tmp_path: Path) -> None:
    path = tmp_path / "copy"
    shutil.copytree(FIXTURES / version / "sound", path)
    expected = json.loads((FIXTURES / version / "expected.json").read_text(encoding="utf-8"))
    assert answers(path) == expected["answers"]
    files = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
    assert files - {"LOCK"} == set(expected["files"]), "a reader writes nothing"
    with Fixture(path) as db:
        assert db.verify(deep=True).ok
        db.facts.put("new", {"user": "ann"})
    assert answers(path)["lsn"] == expected["answers"]["lsn"] + 1
    if version == FORMATS[-1]:
        assert read_log(path).commits[-1].lsn == expected["answers"]["lsn"] + 1


@pytest.mark.parametrize("version", FORMATS)
@pytest.mark.parametrize("mode", ["r", "rw"])
def test_a_damaged_database_of_an_earlier_build_is_refused_untouched(
    version: str, mode: Any, tmp_path: Path
) -> None:
    path = tmp_path / "copy"
    shutil.copytree(FIXTURES / version / "damaged", path)
    before = (path / "log" / "00000001.wal").read_bytes()
    with pytest.raises(waferdb.CorruptionError, match="nothing was changed"):
        Fixture(path, mode=mode)
    assert (path / "log" / "00000001.wal").read_bytes() == before


def test_fixtures_are_there_and_as_they_were_committed() -> None:
    import hashlib

    assert "format-1" in FORMATS
    for version in FORMATS:
        folder = FIXTURES / version
        expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
        for name, digest in expected["files"].items():
            data = (folder / "sound" / name).read_bytes()
            assert hashlib.sha256(data).hexdigest() == digest, f"{version}: {name} was changed"
