"""Salvage of a damaged database: what is written, what is told, with which exit code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import waferdb
from waferdb import Cache, Context, Events, Graph, LockedError, Rows, StorageError, Vectors

SCHEMA = {
    "facts": Rows(indexes=["user"], unique=["slug"]),
    "blobs": Rows(codec="raw"),
    "embeddings": Vectors(dim=2, metric="l2", rows="facts"),
    "events": Events(capture=["facts"]),
    "session": Cache(ttl="1h"),
    "context": Context(),
    "entities": Graph(),
}
MARK = "find me in the log, please, for I am a value of some length"


def made(path: Path, **options: Any) -> Path:
    """A closed database with something deleted and something forgotten in it."""
    with waferdb.open(path, SCHEMA, **options) as db:
        with db.transaction() as tx:
            tx.facts.put("a", {"user": "ann", "slug": "s", "text": "x" * 100})
            tx.embeddings.put("a", [1.0, 0.0])
            tx.events.append("seen", {"n": 1}, key="a")
        db.facts.put("a", {"user": "ann", "slug": "t", "text": "y" * 100})
        db.facts.put("b", {"user": "bob", "slug": "s", "text": MARK})
        db.facts.put("c", {"user": "bob", "text": "forgotten " * 9})
        with db.transaction() as tx:
            tx.facts._forget("c")
        db.facts.put("d", {"user": "bob", "text": "deleted " * 9})
        db.facts.delete("d")
        db.blobs.put(b"\xff", b"raw")
        db.session.put("s", {"turn": 1})
        db.context.set("ann", "tone", "short")
        db.entities.link("ann", "knows", "bob", {"since": 3})
    return path


def answers(path: Path) -> dict[str, Any]:
    with waferdb.open(path, mode="r") as db:
        assert db.verify(deep=True).ok
        hits = db.embeddings.search([1.0, 0.0], k=5)
        return {
            "facts": list(db.facts.scan()),
            "ann": list(db.facts.find({"user": "ann"})),
            "bob": list(db.facts.find({"user": "bob"})),
            "blobs": list(db.blobs.scan()),
            "hits": [(hit.key, hit.distance) for hit in hits],
            "events": [(one.kind, one.key, one.payload) for one in db.events.scan()],
            "session": db.session.get("s"),
            "context": db.context.load("ann"),
            "entities": [(n.node, n.relation, n.props) for n in db.entities.neighbors("ann")],
        }


def damage(path: Path, what: bytes = MARK.encode()) -> Path:
    """Alters one byte of a value in the log."""
    (segment,) = (path / "log").glob("*.wal")
    raw = bytearray(segment.read_bytes())
    raw[raw.index(what)] ^= 1
    segment.write_bytes(raw)
    return path


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_a_sound_database_answers_the_same(tmp_path: Path, compression: str | None) -> None:
    src = made(tmp_path / "src", compression=compression)
    seen: list[tuple[int, int]] = []
    report = waferdb.salvage(src, tmp_path / "dst", progress=lambda *step: seen.append(step))
    assert report
    assert (report.damaged, report.missing, report.lost, report.damage) == (0, (), (), ())
    assert (report.first, report.last) == (1, report.whole)
    assert answers(tmp_path / "dst") == answers(src)
    assert seen == sorted(seen)
    assert seen[-1][0] <= seen[-1][1]
    log = b"".join(part.read_bytes() for part in (tmp_path / "dst/log").iterdir())
    assert b"forgotten" not in log


def test_a_damaged_value_is_lost_and_told_and_nothing_else(tmp_path: Path) -> None:
    src = damage(made(tmp_path / "src"))
    with pytest.raises(waferdb.CorruptionError):
        waferdb.open(src).close()
    before = {part: part.read_bytes() for part in src.rglob("*") if part.is_file()}
    report = waferdb.salvage(src, tmp_path / "dst")
    assert before == {part: part.read_bytes() for part in src.rglob("*") if part.is_file()}
    assert not report
    (lost,) = report.lost
    assert (lost.structure, lost.key, lost.lsn, lost.older) == ("facts", ("b",), 3, None)
    assert (report.damaged, report.missing, report.unknown) == (1, (), ())
    assert report.structures["facts"].lost == 1
    assert report.damage[0].file == lost.file
    found = answers(tmp_path / "dst")
    assert [key for key, _ in found["facts"]] == ["a"]
    assert found["hits"] == [("a", 0.0)]


def test_an_older_version_is_no_current_one(tmp_path: Path) -> None:
    src = made(tmp_path / "src")
    with waferdb.open(src) as db:
        db.blobs.put(b"k", b"old " * 20)
        db.blobs.put(b"k", b"new " * 20)
        db.flush()
    damage(src, b"new " * 20)
    report = waferdb.salvage(src, tmp_path / "dst")
    (lost,) = report.lost
    assert (lost.key, lost.older, lost.older_written) == (("k",), lost.lsn - 1, False)
    with waferdb.open(tmp_path / "dst") as db:
        assert db.blobs.get(b"k") is None
    report = waferdb.salvage(src, tmp_path / "older", older=True)
    assert [one.older_written for one in report.lost] == [True]
    with waferdb.open(tmp_path / "older") as db:
        assert db.blobs[b"k"] == b"old " * 20


def test_a_directory_that_cannot_be_written_is_read(tmp_path: Path) -> None:
    src = made(tmp_path / "src")
    for part in [*src.rglob("*"), src]:
        part.chmod(0o555 if part.is_dir() else 0o444)
    try:
        assert waferdb.salvage(src, tmp_path / "dst").ok
    finally:
        for part in [src, *src.rglob("*")]:
            part.chmod(0o755)
        shutil.rmtree(src)


def test_what_it_refuses(tmp_path: Path) -> None:
    src = made(tmp_path / "src")
    with pytest.raises(FileNotFoundError):
        waferdb.salvage(tmp_path / "nothing", tmp_path / "dst")
    with pytest.raises(StorageError, match="not empty"):
        waferdb.salvage(src, made(tmp_path / "other"))
    for inside in (src, src / "inside"):
        with pytest.raises(ValueError, match="within src"):
            waferdb.salvage(src, inside)
    with waferdb.open(src), pytest.raises(LockedError):
        waferdb.salvage(src, tmp_path / "dst")
    assert not (tmp_path / "dst").exists()


def run(*arguments: object, code: int) -> Any:
    testing = pytest.importorskip("typer.testing")
    from waferdb.cli.app import app

    result = testing.CliRunner().invoke(app, ["salvage", *map(str, arguments)])
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


def test_the_command(tmp_path: Path) -> None:
    src = made(tmp_path / "src")
    assert "nothing is lost" in run(src, tmp_path / "one", code=0).stdout
    damage(src)
    told = run(src, tmp_path / "two", code=1)
    assert "something is lost" in told.stdout
    (report,) = map(json.loads, run(src, tmp_path / "three", "--json", code=1).stdout.splitlines())
    assert report["lost"][0]["key"] == ["b"]
    assert (report["ok"], report["lost_count"]) == (False, 1)
    assert "not empty" in run(src, tmp_path / "two", code=2).stderr
    assert "no database" in run(tmp_path / "nothing", tmp_path / "four", code=2).stderr
