"""Opening: schema rules, modes, who holds a database, and handles where they do not belong."""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from wafer_support import (
    Memory,
    Plain,
    child_environment,
    contents,
    python,
    vector_of,
    whole_keys,
    write_memory,
)

import waferdb
from waferdb import Audit, Cache, Database, Events, Graph, Rows, Vectors, eager, hybrid, lazy


def test_a_database_is_a_directory_made_on_opening(path: Path) -> None:
    with Memory(path) as db:
        db.facts.put("k", {"n": 1})
    assert path.is_dir()


def test_a_path_may_be_text_or_a_path(path: Path) -> None:
    with Memory(str(path)) as db:
        db.facts.put("k", {"n": 1})
    with Memory(path) as db:
        assert db.facts["k"] == {"n": 1}


def test_open_with_a_schema_gives_structures_as_attributes_and_by_name(place: str) -> None:
    with waferdb.open(place, {"facts": Rows(), "events": Events()}) as db:
        assert isinstance(db, waferdb.DynamicDatabase)
        db.facts.put("k", {"n": 1})
        db["events"].append("kind")
        assert db["facts"]["k"] == {"n": 1}
        with pytest.raises((KeyError, waferdb.SchemaError), match="nothing"):
            db["nothing"]
        with pytest.raises(AttributeError):
            db.nothing  # noqa: B018


def test_open_without_a_schema_uses_the_stored_one(path: Path) -> None:
    with Memory(path) as db:
        with db.transaction() as tx:
            write_memory(tx, "k")
    with waferdb.open(path) as db:
        assert whole_keys(db) == {"k"}
        assert [key for key, _ in db.facts.find({"user": db.facts["k"]["user"]})] == ["k"]
        with db.transaction() as tx:
            write_memory(tx, "k2")
        with pytest.raises(waferdb.VectorError):
            db.embeddings.search([1.0, 2.0])
    with Memory(path) as db:
        assert whole_keys(db) == {"k", "k2"}


def test_nothing_there_is_file_not_found_unless_it_may_be_made(path: Path) -> None:
    for attempt in (
        lambda: waferdb.open(path),
        lambda: Memory(path, create=False),
        lambda: Memory(path, mode="r"),
    ):
        with pytest.raises(FileNotFoundError) as caught:
            attempt()
        assert isinstance(caught.value, waferdb.WaferError)
        assert str(path) in str(caught.value)
    assert not path.exists()


def test_in_memory_databases_are_apart_and_leave_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Memory(":memory:") as one, Memory(":memory:") as other:
        one.facts.put("k", {"n": 1})
        assert other.facts.count() == 0
    assert list(tmp_path.iterdir()) == []


def test_opening_many_times_changes_nothing(path: Path) -> None:
    with Memory(path) as db:
        with db.transaction() as tx:
            write_memory(tx, "k")
        lsn = db.lsn
    for _ in range(5):
        with Memory(path) as db:
            assert db.lsn == lsn
            assert whole_keys(db) == {"k"}


# Schema


def test_structures_and_indexes_may_be_added_and_are_built_from_the_log(path: Path) -> None:
    with waferdb.open(path, {"facts": Rows()}) as db:
        db.facts.put_many([(f"k{n}", {"user": f"u{n % 3}", "n": n}) for n in range(9)])
        db.facts.delete("k0")
    schema = {"facts": Rows(indexes=["user"]), "events": Events(), "links": Graph()}
    with waferdb.open(path, schema) as db:
        assert [key for key, _ in db.facts.find({"user": "u0"})] == ["k3", "k6"]
        assert "user" in str(db.facts.explain({"user": "u0"}))
        db.events.append("kind")
        db.links.link("a", "r", "b")
        assert db.verify(deep=True).ok
    with waferdb.open(path) as db:
        assert len(list(db.events.scan())) == 1
        assert [key for key, _ in db.facts.find({"user": "u1"})] == ["k1", "k4", "k7"]


def test_a_class_may_declare_a_subset_and_the_rest_is_kept(path: Path) -> None:
    class Subset(Database):
        facts = Rows(unique=["email"])

    with Memory(path) as db:
        with db.transaction() as tx:
            write_memory(tx, "k")
    with Subset(path) as db:
        assert db.facts["k"]
        db.facts.put("plain", {"n": 1})
        db.facts.delete("plain")
        db.facts.delete("k")
    with Memory(path) as db:
        assert db.facts.count() == db.embeddings.count() == 0
        assert db.verify(deep=True).ok


IDENTITY = [
    ("kind", {"x": Rows()}, {"x": Events()}),
    ("dim", {"x": Vectors(dim=4)}, {"x": Vectors(dim=5)}),
    ("metric", {"x": Vectors(dim=4, metric="l2")}, {"x": Vectors(dim=4, metric="dot")}),
    ("codec", {"x": Rows()}, {"x": Rows(codec="raw")}),
    ("unique", {"x": Rows()}, {"x": Rows(unique=["a"])}),
]


@pytest.mark.parametrize(("what", "first", "second"), IDENTITY, ids=[row[0] for row in IDENTITY])
def test_another_identity_is_a_schema_error_that_says_which(
    path: Path, what: str, first: Any, second: Any
) -> None:
    with waferdb.open(path, first):
        pass
    before = contents(path)
    with pytest.raises(waferdb.SchemaError) as caught:
        waferdb.open(path, second)
    assert isinstance(caught.value, ValueError)
    assert "x" in str(caught.value)
    assert what in str(caught.value).lower()
    assert set(contents(path)) == set(before)
    with waferdb.open(path, first):
        pass


def test_tuning_may_change_and_is_kept(path: Path) -> None:
    with waferdb.open(path, {"c": Cache(ttl="1h"), "f": Rows(policy=eager())}) as db:
        db.f.put("k", {"a": 1})
    with waferdb.open(path, {"c": Cache(ttl="2h"), "f": Rows(policy=lazy(), indexes=["a"])}) as db:
        assert [key for key, _ in db.f.find({"a": 1})] == ["k"]
    with waferdb.open(path, {"f": Rows(policy=hybrid(max_age="2s", max_items=10))}) as db:
        assert db.f["k"] == {"a": 1}


@pytest.mark.parametrize("name", ["close", "transaction", "lsn", "_hidden", "stats", "verify"])
def test_names_of_the_database_itself_and_private_ones_are_refused(name: str) -> None:
    with pytest.raises(waferdb.SchemaError, match=name):
        type("Bad", (Database,), {name: Rows()})
    with pytest.raises(waferdb.SchemaError, match=name):
        waferdb.open(":memory:", {name: Rows()})


def test_unknown_names_in_declarations_are_refused_at_class_creation() -> None:
    for bad in (
        {"v": Vectors(dim=2, rows="nowhere")},
        {"c": Cache(ttl="1m", source="nowhere")},
        {"e": Events(capture=["nowhere"])},
    ):
        with pytest.raises(waferdb.SchemaError, match="nowhere"):
            type("Bad", (Database,), dict(bad))


def test_declarations_also_accept_the_descriptor() -> None:
    class Linked(Database):
        facts = Rows()
        vectors = Vectors(dim=2, metric="l2", rows=facts)
        hot = Cache(ttl="1m", source=facts)
        journal = Events(capture=[facts])

    with Linked(":memory:") as db:
        with pytest.raises(waferdb.LinkError):
            db.vectors.put("k", [1.0, 2.0])
        db.facts.put("k", {"n": 1})
        assert db.hot.get("k") == {"n": 1}
        assert [event.kind for event in db.journal.scan()] == ["facts.put"]


def test_subclasses_inherit_structures() -> None:
    class Base(Database):
        facts = Rows()

    class More(Base):
        events = Events()

    with More(":memory:") as db:
        db.facts.put("k", {"n": 1})
        db.events.append("kind")
    with Base(":memory:") as db:
        with pytest.raises(AttributeError):
            db.events  # noqa: B018


@pytest.mark.parametrize(
    "options",
    [{"mode": "w"}, {"durability": "maybe"}, {"memory": "lots"}, {"memory": -1}],
    ids=["mode", "durability", "memory text", "memory negative"],
)
def test_bad_options_are_value_errors_and_make_nothing(path: Path, options: Any) -> None:
    with pytest.raises(ValueError):
        Memory(path, **options)
    assert not path.exists()


# Modes


def test_mode_r_reads_everything_and_writes_nothing_at_all(path: Path) -> None:
    with Memory(path) as db:
        with db.transaction() as tx:
            write_memory(tx, "k")
    before = contents(path)
    stamps = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    with Memory(path, mode="r") as db:
        assert whole_keys(db) == {"k"}
        assert db.verify(deep=True).ok
        for attempt in (
            lambda: db.facts.put("k2", {"n": 1}),
            lambda: db.facts.delete("k"),
            lambda: db.embeddings.put("k", vector_of("k")),
            lambda: db.events.append("kind"),
            lambda: db.session.put("k", 1),
            lambda: db.context.set("s", "n", 1),
            lambda: db.entities.link("a", "r", "b"),
        ):
            with pytest.raises(waferdb.ReadOnlyError):
                attempt()
        with pytest.raises(waferdb.ReadOnlyError), db.transaction() as tx:
            tx.facts.put("k2", {"n": 1})
        assert whole_keys(db) == {"k"}
    assert contents(path) == before
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == stamps


def test_many_readers_or_one_writer(path: Path) -> None:
    with Memory(path) as db:
        db.facts.put("k", {"n": 1})
        with pytest.raises(waferdb.LockedError):
            Memory(path, mode="r")
    with Memory(path, mode="r") as one, Memory(path, mode="r") as other:
        assert one.facts["k"] == other.facts["k"] == {"n": 1}
        with pytest.raises(waferdb.LockedError):
            Memory(path)
    with Memory(path) as db:
        db.facts.put("k", {"n": 2})


# Who holds it


HOLDER = """
import sys
from wafer_support import Memory
db = Memory(sys.argv[1])
db.facts.put("held", {"n": 1})
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_told_who_holds_the_database(path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=child_environment(),
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "ready\n"
        with pytest.raises(waferdb.LockedError) as caught:
            Memory(path)
        message = str(caught.value)
        assert str(holder.pid) in message
        assert socket.gethostname() in message
        assert str(path) in message
        with pytest.raises(waferdb.LockedError, match=str(holder.pid)):
            waferdb.open(path, mode="r")
    finally:
        holder.kill()
        holder.wait()
        holder.stdin.close()
        holder.stdout.close()
    with Memory(path) as db:
        assert db.facts["held"] == {"n": 1}


def test_a_second_opener_in_the_same_process_is_told_too(path: Path) -> None:
    with Memory(path) as db:
        with pytest.raises(waferdb.LockedError, match=str(os.getpid())):
            Memory(path)
        db.facts.put("k", {"n": 1})
    with Memory(path) as db:
        assert db.facts["k"] == {"n": 1}


def test_another_name_of_the_same_directory_is_the_same_database(
    path: Path, tmp_path: Path
) -> None:
    with Memory(path):
        (tmp_path / "alias").symlink_to(path)
        with pytest.raises(waferdb.LockedError):
            Memory(tmp_path / "alias")


def test_a_failed_opening_holds_nothing(path: Path) -> None:
    with waferdb.open(path, {"x": Rows()}):
        pass
    for _ in range(3):
        with pytest.raises(waferdb.SchemaError):
            waferdb.open(path, {"x": Graph()})
    with waferdb.open(path, {"x": Rows()}) as db:
        db.x.put("k", {"n": 1})


# Handles where they do not belong


def in_forked_child(action: Any) -> Any:
    """What `action` returns or raises in a forked child, as JSON."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            try:
                result = ["returned", repr(action())]
            except BaseException as error:  # noqa: BLE001 - it is reported to the parent
                result = [type(error).__name__, str(error)]
            os.write(write, json.dumps(result).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        answer = pipe.read()
    assert os.waitpid(pid, 0)[1] == 0
    return json.loads(answer)


def test_after_fork_the_childs_handle_refuses_and_the_parents_goes_on(disk: Any) -> None:
    disk.facts.put("k", {"n": 1})
    for action in (
        lambda: disk.facts.get("k"),
        lambda: disk.facts.put("k", {"n": 2}),
        lambda: disk.transaction().__enter__(),
        lambda: list(disk.events.scan()),
        lambda: disk.stats(),
    ):
        name, message = in_forked_child(action)
        assert name == "ForkedError", message
        assert "open" in message.lower()
    disk.facts.put("after", {"n": 3})
    assert disk.facts["k"] == {"n": 1}


def test_after_fork_a_cursor_in_the_middle_of_a_page_refuses(disk: Any) -> None:
    disk.facts.put_many({"a": {}, "b": {}, "c": {}})
    cursor = disk.facts.scan()
    next(cursor)
    for action in (lambda: next(cursor), lambda: disk.close(), lambda: disk.closed):
        assert in_forked_child(action)[0] == "ForkedError"
    assert [key for key, _ in cursor] == ["b", "c"]


def test_a_forked_child_neither_unlocks_nor_damages_the_database(path: Path) -> None:
    db = Memory(path)
    db.facts.put("k", {"n": 1})
    holder: list[Any] = [db]

    def drop() -> None:
        import gc

        holder.clear()
        gc.collect()

    in_forked_child(drop)
    in_forked_child(lambda: db.close())
    with pytest.raises(waferdb.LockedError):
        Memory(path)
    db.facts.put("after", {"n": 2})
    db.close()
    with Memory(path) as again:
        assert list(again.facts) == ["after", "k"]
        assert again.verify(deep=True).ok


def test_a_forked_child_may_open_a_database_of_its_own(disk: Any, tmp_path: Path) -> None:
    def work() -> Any:
        with Memory(tmp_path / "child.wafer") as db:
            db.facts.put("k", {"n": 1})
            return db.facts["k"]

    assert in_forked_child(work) == ["returned", "{'n': 1}"]
    with Memory(tmp_path / "child.wafer") as db:
        assert db.facts["k"] == {"n": 1}


def test_pickling_a_handle_is_a_type_error_that_names_the_fix(db: Any) -> None:
    for handle in (db, db.facts):
        with pytest.raises(TypeError, match="(?i)open"):
            pickle.dumps(handle)


def test_a_closed_handle_refuses_every_call(db: Any) -> None:
    db.facts.put("k", {"n": 1})
    cursor = db.facts.scan()
    facts = db.facts
    db.close()
    db.close()
    for attempt in (
        lambda: facts.get("k"),
        lambda: facts.put("k", {"n": 2}),
        lambda: facts.count(),
        lambda: list(facts),
        lambda: db.facts.find({}),
        lambda: db.embeddings.search(vector_of("k")),
        lambda: db.events.append("kind"),
        lambda: db.session.get("k"),
        lambda: db.context.load("s"),
        lambda: db.entities.neighbors("a"),
        lambda: db.audit.head(),
        lambda: db.transaction().__enter__(),
        lambda: db.snapshot().__enter__(),
        lambda: db.stats(),
        lambda: db.verify(),
        lambda: db.flush(),
        lambda: next(cursor),
    ):
        with pytest.raises(waferdb.ClosedError):
            attempt()
    assert "closed" in repr(db)


def test_closing_inside_anothers_transaction_loses_only_that(path: Path) -> None:
    db = Memory(path)
    db.facts.put("kept", {"n": 1})
    with pytest.raises((waferdb.ClosedError, waferdb.TransactionError)), db.transaction() as tx:
        tx.facts.put("lost", {"n": 1})
        db.close()
        tx.facts.put("lost too", {"n": 1})
    with Memory(path) as again:
        assert list(again.facts) == ["kept"]


def test_leaving_the_interpreter_without_close_loses_nothing(path: Path) -> None:
    source = """
import sys
from wafer_support import Memory, write_memory
db = Memory(sys.argv[1])
with db.transaction() as tx:
    write_memory(tx, "k")
db.facts.put("last", {"n": 1}, if_absent=True)
db.facts.delete("last")
"""
    result = python(source, path)
    assert result.returncode == 0, result.stderr
    with Memory(path) as db:
        assert whole_keys(db) == {"k"}


def test_repr_tells_what_is_inside(db: Any) -> None:
    db.facts.put("k", {"n": 1})
    assert "Memory" in repr(db)
    for name in ("facts", "embeddings", "events"):
        assert name in repr(db)
        assert name in db._repr_html_()
    assert "<" in db._repr_html_()
    assert "facts" in repr(db.facts)


def test_a_name_that_looks_like_html_is_escaped(tmp_path: Path) -> None:
    with Memory(tmp_path / "<script>alert(1)") as db:
        assert "<script>" not in db._repr_html_()


def test_two_classes_open_one_file_one_after_the_other(path: Path) -> None:
    with waferdb.open(path, {"facts": Rows(indexes=["user", "topic"]), "audit": Audit()}) as db:
        db.facts.put("k", {"user": "ann"})
    with Plain(path) as db:
        assert db.facts["k"] == {"user": "ann"}
        assert list(db.journal.scan()) == [] or [e.key for e in db.journal.scan()] == ["k"]
