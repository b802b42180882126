"""The command line: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("typer")

from typer.testing import CliRunner

import waferdb
from waferdb import AgentMemory, Graph, Rows
from waferdb.cli import jsonform
from waferdb.cli.app import app

MOMENT = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)


def run(*arguments: object, code: int = 0, stdin: str | None = None) -> Any:
    """Runs a command in this process; checks its exit code, and that no traceback is shown."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], input=stdin)
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    assert "Traceback" not in result.output
    return result


def documents(result: Any) -> list[Any]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def vector(seed: int) -> Any:
    return np.random.default_rng(seed).standard_normal(256).astype(np.float32)


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """Three memories of two users, with vectors of their own, so that no model is needed."""
    path = tmp_path / "agent.wafer"
    with AgentMemory(path) as memory:
        memory.remember(
            "Ann prefers email", user="ann", topic="contact", key="a", vector=vector(1), time=MOMENT
        )
        memory.remember("Ann likes tea", user="ann", key="b", vector=vector(2), fields={"n": 2})
        memory.remember("Bob plays chess", user="bob", key="c", vector=vector(3))
    return path


def lines(path: Path, *items: Any) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    return path


# reading


def test_stats(db: Path) -> None:
    assert "embeddings" in run("stats", "--db", db).stdout
    (found,) = documents(run("stats", "--db", db, "--json"))
    assert found["lsn"] == 3
    assert found["structures"]["facts"] == {"kind": "rows", "count": 3}
    assert found["structures"]["audit"]["count"] == 3
    assert found["structures"]["context"]["count"] == 3


def test_verify_of_a_sound_database(db: Path) -> None:
    assert "sound" in run("verify", "--db", db, "--deep").stdout
    (report,) = documents(run("verify", "--db", db, "--json"))
    assert (report["ok"], report["problems"]) == (True, [])


def test_verify_exits_1_with_the_problems(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from waferdb.results import Problem, Report

    problem = Problem("facts", 2, "checksum differs", "one document")
    report = Report(False, (problem,), {"segments": 1})
    monkeypatch.setattr(waferdb.Database, "verify", lambda *_, **__: report)
    assert "checksum differs" in run("verify", "--db", db, code=1).stdout
    (found,) = documents(run("verify", "--db", db, "--json", code=1))
    assert found["problems"][0]["lost"] == "one document"


def test_verify_of_a_damaged_database_is_json_too(db: Path) -> None:
    for segment in (db / "log").glob("*.wal"):
        damaged = bytearray(segment.read_bytes())
        damaged[len(damaged) // 2] ^= 0xFF
        segment.write_bytes(damaged[:-1])
    (found,) = documents(run("verify", "--db", db, "--json", code=1))
    assert found["ok"] is False
    assert len(found["problems"]) == 1
    assert found["problems"][0]["what"]
    assert found["problems"][0]["lost"]
    assert "1 problem" in run("verify", "--db", db, code=1).stdout


def test_get_shows_the_time_of_the_document_apart_from_that_of_its_commit(db: Path) -> None:
    names = [
        line.split()[1]
        for line in run("get", "facts", "a", "--db", db).stdout.splitlines()
        if line.startswith("│")
    ]
    assert names.count("time") == 1
    assert "commit's" in names


def test_what_a_structure_is_instead_reads_well(db: Path) -> None:
    assert "events is of kind Events" in run("find", "events", "--db", db, code=2).stderr
    said = run("events", "--structure", "audit", "--db", db, code=2).stderr
    assert "of kind Audit" in said


def test_errors_of_the_command_line_name_its_own_ways_out(tmp_path: Path) -> None:
    missing = tmp_path / "missing.wafer"
    for command in (("stats",), ("verify", "--json"), ("search", "x"), ("export",)):
        said = run(*command, "--db", missing, code=2).stderr
        assert f"waferdb import FILE --db {missing}" in said
        assert "create=True" not in said


def test_search_of_what_is_no_memory_asks_for_no_change_to_it(tmp_path: Path) -> None:
    path = tmp_path / "other.wafer"
    waferdb.open(path, {"blobs": Rows(codec="raw")}).close()
    assert "holds no memories" in run("search", "x", "--db", path, code=2).stderr


def test_get_of_a_raw_key_that_is_no_text(tmp_path: Path) -> None:
    path, key = tmp_path / "other.wafer", b"\xff\xfe"
    with waferdb.open(path, {"blobs": Rows(codec="raw")}) as base:
        base.blobs.put(key, b"value")
    result = subprocess.run(
        [sys.executable, "-m", "waferdb", "get", "blobs", key, "--db", str(path), "--json"],
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_tail_shows_the_last_commits_in_order(db: Path) -> None:
    found = documents(run("tail", "--db", db, "--limit", 2, "--json"))
    assert [commit["lsn"] for commit in found] == [2, 3]
    assert found[1]["actor"] == "bob"
    assert {"structure": "facts", "kind": "put", "key": "c"} in found[1]["changes"]
    assert "chess" not in json.dumps(found)
    assert "bob" in run("tail", "--db", db).stdout


def test_get(db: Path) -> None:
    (found,) = documents(run("get", "facts", "a", "--db", db, "--json"))
    assert found["value"]["text"] == "Ann prefers email"
    assert found["value"]["time"] == {"$time": "2026-01-31T09:30:00.000000+00:00"}
    assert found["version"] == 1
    assert "Ann prefers email" in run("get", "facts", "a", "--db", db).stdout
    (context,) = documents(run("get", "context", "ann", "b", "--db", db, "--json"))
    assert context["value"]["n"] == 2
    (scope,) = documents(run("get", "context", "ann", "--db", db, "--json"))
    assert set(scope["value"]) == {"a", "b"}
    (stored,) = documents(run("get", "embeddings", "a", "--db", db, "--json"))
    np.testing.assert_array_equal(jsonform.untagged(stored["value"]), vector(1))
    assert "256 components" in run("get", "embeddings", "a", "--db", db).stdout


def test_get_of_what_is_not_there(db: Path) -> None:
    assert "facts has no 'nope'" in run("get", "facts", "nope", "--db", db, code=1).stderr
    run("get", "context", "nobody", "x", "--db", db, code=1)
    wrong = run("get", "fact", "a", "--db", db, code=2).stderr
    assert "no structure 'fact'" in wrong
    assert "embeddings" in wrong
    assert "waferdb events" in run("get", "events", "a", "--db", db, code=2).stderr


def test_get_of_a_graph_and_of_raw_rows(tmp_path: Path) -> None:
    path = tmp_path / "other.wafer"
    with waferdb.open(path, {"blobs": Rows(codec="raw"), "people": Graph()}) as base:
        base.blobs.put(b"k", b"\x00\x01")
        base.people.link("ann", "knows", "bob")
    (blob,) = documents(run("get", "blobs", "k", "--db", path, "--json"))
    assert blob["value"] == {"$bytes": "AAE="}
    (edges,) = documents(run("get", "people", "ann", "--db", path, "--json"))
    assert edges["value"]["edges"][0]["dst"] == "bob"
    assert "no memories" in run("export", "--db", path, code=2).stderr


def test_find(db: Path) -> None:
    where = json.dumps({"user": "ann"})
    found = documents(run("find", "facts", "--where", where, "--db", db, "--json"))
    assert [row["key"] for row in found] == ["a", "b"]
    early = json.dumps({"user": "ann", "time": {"$range": [None, {"$time": "2026-02-01T00:00Z"}]}})
    (only,) = documents(run("find", "facts", "--where", early, "--db", db, "--json"))
    assert only["key"] == "a"
    newest = run("find", "facts", "--order=-time", "--limit", 1, "--db", db, "--json")
    assert documents(newest)[0]["key"] in {"b", "c"}
    assert "Bob plays chess" in run("find", "facts", "--db", db).stdout
    run("find", "facts", "--where", '{"user": "zoe"}', "--db", db, code=1)
    assert "not JSON" in run("find", "facts", "--where", "{", "--db", db, code=2).stderr
    run("find", "facts", "--where", "[]", "--db", db, code=2)
    assert "reads rows" in run("find", "events", "--db", db, code=2).stderr


def test_events(db: Path) -> None:
    found = documents(run("events", "--db", db, "--json"))
    assert [event["key"] for event in found] == ["a", "b", "c"]
    assert found[0]["kind"] == "memory.remembered"
    newest = documents(run("events", "--db", db, "--limit", 1, "--json"))
    assert [event["key"] for event in newest] == ["c"]
    first = documents(run("events", "--db", db, "--after", 1, "--limit", 1, "--json"))
    assert [event["key"] for event in first] == ["b"]
    assert documents(run("events", "--db", db, "--kind", "other", "--json")) == []
    assert "memory.remembered" in run("events", "--db", db).stdout


def test_search_by_meaning(tmp_path: Path) -> None:
    pytest.importorskip("wordllama")
    path = tmp_path / "agent.wafer"
    with AgentMemory(path) as memory:
        memory.remember("Ann prefers email over Slack", user="ann")
        memory.remember("Bob plays the violin", user="bob")
    found = documents(run("search", "which instrument?", "--db", path, "-k", 1, "--json"))
    assert [memory["text"] for memory in found] == ["Bob plays the violin"]
    table = run("search", "how to reach Ann", "--db", path, "--user", "ann").stdout
    assert "email" in table
    assert "violin" not in table
    run("search", "anything", "--db", path, "--user", "zoe", code=1)


def test_what_is_stored_does_not_drive_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "a.wafer"
    with AgentMemory(path) as memory:
        memory.remember("[bold]\x1b[2Jgone\x07", key="k", vector=vector(1))
    shown = run("find", "facts", "--db", path).stdout
    assert "\x1b" not in shown
    assert "[bold]" in shown


# import and export


def test_export_and_import_give_the_same_memories(db: Path, tmp_path: Path) -> None:
    file, copy = tmp_path / "out.jsonl", tmp_path / "copy.wafer"
    run("export", "--db", db, "--output", file)
    (done,) = documents(run("import", file, "--db", copy, "--json"))
    assert (done["imported"], done["skipped"]) == (3, 0)
    with AgentMemory(db, mode="r") as old, AgentMemory(copy, mode="r") as new:
        assert list(old.facts.scan()) == list(new.facts.scan())
        for key in old.embeddings:
            np.testing.assert_array_equal(old.embeddings[key], new.embeddings[key])
        assert new.load("ann").keys() == {"a", "b"}


def test_export_to_standard_output(db: Path) -> None:
    plain = documents(run("export", "--db", db, "--no-vectors", "--user", "bob"))
    assert [(line["key"], line["text"]) for line in plain] == [("c", "Bob plays chess")]
    assert "vector" not in plain[0]
    assert "$f32" in documents(run("export", "--db", db))[0]["vector"]


def test_import_goes_on_where_it_was(tmp_path: Path) -> None:
    items = [
        {"text": f"memory {n}", "key": f"k{n:04}", "vector": vector(n).tolist()} for n in range(600)
    ]
    db, part = tmp_path / "a.wafer", lines(tmp_path / "part.jsonl", *items[:400])
    run("import", part, "--db", db)
    everything = lines(tmp_path / "all.jsonl", *items)
    (done,) = documents(run("import", everything, "--db", db, "--json"))
    assert (done["imported"], done["skipped"], done["lines"]) == (200, 400, 600)
    (again,) = documents(run("import", everything, "--db", db, "--json"))
    assert (again["imported"], again["skipped"]) == (0, 600)
    with AgentMemory(db, mode="r") as memory:
        assert memory.facts.count() == 600


def test_lines_without_a_key_are_imported_once(tmp_path: Path) -> None:
    item = {"text": "no key", "vector": vector(1).tolist()}
    file, db = lines(tmp_path / "a.jsonl", item, item), tmp_path / "a.wafer"
    (done,) = documents(run("import", file, "--db", db, "--json"))
    assert (done["imported"], done["skipped"]) == (1, 1)
    assert "1 were already there" in run("import", "-", "--db", db, stdin=json.dumps(item)).stdout


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("{", "not JSON"),
        ("[]", "a JSON object"),
        ('{"user": "ann"}', "text"),
        ('{"text": ""}', "empty"),
        ('{"text": "x", "vector": [1.0]}', "shape"),
        ('{"text": "x", "time": "yesterday"}', "$time"),
        ('{"text": "x", "colour": "red"}', "fields"),
        ("[" * 100_000, ""),
    ],
)
def test_a_bad_line_is_named_and_what_came_before_it_stays(
    tmp_path: Path, bad: str, says: str
) -> None:
    file, db = tmp_path / "a.jsonl", tmp_path / "a.wafer"
    good = json.dumps({"text": "good", "key": "k", "vector": vector(1).tolist()})
    file.write_text(f"{good}\n\n{bad}\n", encoding="utf-8")
    said = run("import", file, "--db", db, code=2).stderr
    assert f"{file}:3: " in said
    assert says in said
    assert len(said.splitlines()) == 1
    with AgentMemory(db, mode="r") as memory:
        assert list(memory.facts) == ["k"]


def test_a_line_that_only_the_engine_refuses_is_named_too(tmp_path: Path) -> None:
    good = {"text": "good", "key": "a", "vector": vector(1).tolist()}
    for number, bad in enumerate(
        (
            {"text": "x", "key": "k" * 70_000, "vector": vector(2).tolist()},
            {"text": "x", "key": "a\ud800b", "vector": vector(2).tolist()},
            {"text": "x", "key": "z", "vector": [0.0] * 256},
            {"text": "x", "user": "u" * 2000, "vector": vector(2).tolist()},
        )
    ):
        file, db = tmp_path / f"{number}.jsonl", tmp_path / f"{number}.wafer"
        lines(file, good, good, {**good, "key": "b"}, bad, {**good, "key": "late"})
        said = run("import", file, "--db", db, code=2).stderr
        assert f"{file}:4" in said
        assert "2 memories were imported" in said
        assert len(said.splitlines()) == 1
        with AgentMemory(db, mode="r") as memory:
            assert list(memory.facts) == ["a", "b"]


# errors


def test_errors_are_one_line_with_the_way_out(tmp_path: Path) -> None:
    for command in (("stats",), ("verify",), ("tail",), ("events",), ("get", "facts", "a")):
        said = run(*command, "--db", tmp_path / "missing.wafer", code=2).stderr
        assert said.startswith("error: ")
        assert "missing.wafer" in said
        assert len(said.splitlines()) == 1
    assert not (tmp_path / "missing.wafer").exists()
    run("search", "x", "--db", tmp_path / "missing.wafer", code=2)
    assert not (tmp_path / "missing.wafer").exists()
    run("import", tmp_path / "missing.jsonl", "--db", tmp_path / "new.wafer", code=2)
    assert not (tmp_path / "new.wafer").exists()


def test_usage_errors_exit_2() -> None:
    run("stats", code=2)
    run("no-such-command", code=2)
    run("find", "facts", "--limit", "many", "--db", "x", code=2)
    for command in ("demo", "import", "export", "stats", "verify", "tail", "get", "find", "search"):
        assert "--json" in run(command, "--help").stdout


def test_python_m_waferdb_and_a_missing_package(db: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "waferdb", "stats", "--db", str(db), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["lsn"] == 3
    script = "import sys; sys.modules['typer'] = None; from waferdb.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "pip install 'waferdb[cli]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


# documents as JSON


@pytest.mark.parametrize(
    "value",
    [
        None,
        {"a": [1, 2.5, True, "é", b"\x00\xff"], "t": MOMENT},
        {"$bytes": "not bytes"},
        {"$map": {"$time": 1}},
        {"$time": 1, "more": 2},
        [float("inf"), float("-inf")],
        {"deep": {"$bytes": {"$f32": b""}}},
    ],
)
def test_documents_survive_json(value: Any) -> None:
    assert jsonform.loads(jsonform.dumps(value)) == value


def test_bad_tags_are_named() -> None:
    for text in ('{"$bytes": 1}', '{"$time": "2026-01-01T00:00"}', '{"$range": [1]}'):
        with pytest.raises(ValueError, match="is not a valid"):
            jsonform.loads(text)


# the demo


def test_the_check_of_the_demo_sees_what_is_lost_torn_or_altered(tmp_path: Path) -> None:
    from waferdb.demo import check
    from waferdb.demo.corpus import Item

    items = {
        key: Item(key=key, text=f"text of {key}", user="ann", topic="t") for key in ("a", "b", "c")
    }
    vectors = {key: vector(n) for n, key in enumerate(items)}
    with AgentMemory(tmp_path / "a.wafer") as memory:
        for key, item in items.items():
            memory.remember(item["text"], user="ann", topic="t", key=key, vector=vectors[key])
        assert check.problems(memory, items, {"a", "b", "c"}, vectors) == []
        lost = check.problems(memory, items, {"a", "d"}, vectors)
        assert lost == ["1 memories acknowledged, but lost: d"]
        memory.session.delete("a")
        memory.context.delete("ann", "b")
        memory.facts.patch("c", {"text": "altered"})
        found = check.problems(memory, {"a": items["a"], "b": items["b"]}, {"a"}, vectors)
        assert found == [
            "1 memories in facts, but never submitted: c",
            "1 memories in facts, but not in session: a",
            "1 memories in facts, but not in context: b",
            "2 memories different content: a, b",
        ]
        altered = check.problems(memory, items, items, vectors)
        assert altered[-1] == "3 memories different content: a, b, c"


def test_demo_kills_its_writer_and_finds_every_memory_whole(tmp_path: Path) -> None:
    pytest.importorskip("wordllama")
    keep = tmp_path / "kept"
    result = run("demo", "--count", 300, "--kills", 2, "--keep", keep, "--json")
    (found,) = documents(result)
    assert found["ok"], found["problems"]
    assert [r["ended"] for r in found["rounds"]] == ["killed", "killed", "done"]
    assert found["rounds"][-1]["present"] == 300
    assert found["forgetting"]["before"] == ["Ann prefers email over Slack"]
    assert found["forgetting"]["after"] == found["forgetting"]["as_of_before"] == []
    assert {m["memories"] for m in found["measures"]} == {300}
    assert all(len(answers) == 3 for answers in found["answers"].values())
    with AgentMemory(keep / "agent.wafer", mode="r") as memory:
        assert memory.facts.count() == 300
    assert "not empty" in run("demo", "--keep", keep, code=2).stderr
