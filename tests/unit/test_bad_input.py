"""Bad input: each a typed error that names the thing and the way out, and nothing is lost.

The fixture `sound` holds a database with committed memories; after every test that uses it, they
must be there and whole: in the handle that saw the bad input, and again after reopening.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections import OrderedDict, UserDict
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wafer_support import (
    DIM,
    Memory,
    child_environment,
    contents,
    log_files,
    python,
    vector_of,
    whole_keys,
    write_memory,
)

import waferdb
from waferdb import Rows

KEPT = {f"kept-{n}" for n in range(5)}
LONGEST_KEY = 65_536


def said(error: BaseException, *names: str) -> str:
    """The message of a typed error, after checking that it names one of `names`."""
    assert isinstance(error, waferdb.WaferError), repr(error)
    assert isinstance(error.code, str)
    assert error.code
    message = str(error)
    assert len(message) >= 20, f"says too little: {message!r}"
    if names:
        lowered = message.lower()
        assert any(name.lower() in lowered for name in names), f"{message!r} names none of {names}"
    return message


@pytest.fixture
def sound(path: Path) -> Iterator[Any]:
    db = Memory(path)
    for key in sorted(KEPT):
        with db.transaction() as tx:
            write_memory(tx, key)
    yield db
    assert whole_keys(db) == KEPT
    lsn = db.lsn
    db.close()
    with Memory(path) as again:
        assert whole_keys(again) == KEPT
        assert again.lsn == lsn
        report = again.verify(deep=True)
        assert report.ok, report.problems


# Keys

KEYED: dict[str, Callable[[Any, str], Any]] = {
    "row": lambda db, key: db.facts.put(key, {"n": 1}),
    "row of many": lambda db, key: db.facts.put_many([("fine", {"n": 1}), (key, {"n": 1})]),
    "vector": lambda db, key: db.embeddings.put(key, vector_of("x")),
    "cache": lambda db, key: db.session.put(key, 1),
    "context name": lambda db, key: db.context.set("scope", key, 1),
    "graph source": lambda db, key: db.entities.link(key, "r", "b"),
    "graph relation": lambda db, key: db.entities.link("a", key, "b"),
    "graph target": lambda db, key: db.entities.link("a", "r", key),
    "event key": lambda db, key: db.events.append("kind", None, key=key),
}


@pytest.mark.parametrize("write", KEYED.values(), ids=KEYED.keys())
@pytest.mark.parametrize("length", [0, LONGEST_KEY + 1])
def test_a_key_too_short_or_too_long_is_a_limit_error(
    sound: Any, write: Callable[[Any, str], Any], length: int
) -> None:
    with pytest.raises(waferdb.LimitError) as caught:
        write(sound, "k" * length)
    assert isinstance(caught.value, ValueError)
    said(caught.value, "key", "name", "scope", "node", "relation")
    with pytest.raises(waferdb.LimitError), sound.transaction() as tx:
        write_memory(tx, "together")
        write(tx, "k" * length)


@pytest.mark.parametrize("length", [0, LONGEST_KEY + 1])
def test_the_limit_counts_bytes_and_is_named(sound: Any, length: int) -> None:
    with pytest.raises(waferdb.LimitError) as caught:
        sound.facts.put("k" * length, {"n": 1})
    said(caught.value, "65536", "65,536", "64 KiB")
    with pytest.raises(waferdb.LimitError):
        sound.facts.put("é" * (LONGEST_KEY // 2 + 1), {"n": 1})


SURROGATE = "bad \ud800 text"


@pytest.mark.parametrize("write", KEYED.values(), ids=KEYED.keys())
def test_a_lone_surrogate_in_a_key_is_refused(sound: Any, write: Callable[[Any, str], Any]) -> None:
    with pytest.raises((waferdb.DocumentError, waferdb.LimitError, ValueError)) as caught:
        write(sound, SURROGATE)
    said(caught.value, "surrogate", "utf-8", "unicode")


def test_a_lone_surrogate_asked_for_is_refused_or_not_found(sound: Any) -> None:
    try:
        assert sound.facts.get(SURROGATE) is None
    except waferdb.WaferError as error:
        said(error, "surrogate", "utf-8", "unicode")


# Documents


def cyclic_map() -> Any:
    document: dict[str, Any] = {"a": {}}
    document["a"]["again"] = document
    return document


def cyclic_list() -> Any:
    cycle: list[Any] = []
    cycle.append(cycle)
    return {"list": cycle}


def deep(levels: int, kind: str) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"d": value} if kind == "map" else [value]
    return {"deep": value}


UNSUPPORTED: dict[str, tuple[Any, tuple[str, ...]]] = {
    "object": (object(), ("object",)),
    "set": ({1, 2}, ("set",)),
    "complex": (1j, ("complex",)),
    "decimal": (Decimal("1.5"), ("Decimal",)),
    "function": (len, ("builtin", "function")),
    "class": (int, ("type",)),
    "generator": ((n for n in range(3)), ("generator",)),
    "naive time": (datetime(2024, 1, 1), ("naive", "aware", "timezone")),
    "int beyond uint64": (2**64, ("uint64", "64", "int")),
    "int below int64": (-(2**63) - 1, ("int64", "64", "int")),
    "map with int keys": ({1: 2}, ("str", "int")),
    "map with bytes keys": ({b"a": 2}, ("str", "bytes")),
    "array": (np.ones(3), ("ndarray", "numpy")),
    "surrogate": (SURROGATE, ("surrogate", "utf-8", "unicode")),
    "surrogate in a map key": ({SURROGATE: 1}, ("surrogate", "utf-8", "unicode")),
}

VALUED: dict[str, Callable[[Any, Any], Any]] = {
    "row": lambda db, value: db.facts.put("bad", {"field": value}),
    "row, nested": lambda db, value: db.facts.put("bad", {"a": [{"field": value}]}),
    "patch": lambda db, value: db.facts.patch("kept-0", {"field": value}),
    "cache": lambda db, value: db.session.put("bad", value),
    "context": lambda db, value: db.context.set("scope", "bad", value),
    "event": lambda db, value: db.events.append("kind", {"field": value}),
    "graph": lambda db, value: db.entities.link("a", "r", "b", {"field": value}),
}


@pytest.mark.parametrize("write", VALUED.values(), ids=VALUED.keys())
@pytest.mark.parametrize(("value", "names"), UNSUPPORTED.values(), ids=UNSUPPORTED.keys())
def test_an_unsupported_value_is_a_document_error(
    sound: Any, write: Callable[[Any, Any], Any], value: Any, names: tuple[str, ...]
) -> None:
    before = sound.lsn
    with pytest.raises(waferdb.DocumentError) as caught:
        write(sound, value)
    assert isinstance(caught.value, TypeError)
    said(caught.value, *names)
    assert sound.lsn == before


def test_the_field_of_an_unsupported_value_is_named(sound: Any) -> None:
    with pytest.raises(waferdb.DocumentError) as caught:
        sound.facts.put("bad", {"fine": 1, "tags": {1, 2}})
    said(caught.value, "tags")


@pytest.mark.parametrize("document", [None, 1, "text", [1], b"bytes", [("a", 1)]])
def test_a_row_that_is_no_map_is_a_document_error(sound: Any, document: Any) -> None:
    with pytest.raises(waferdb.DocumentError) as caught:
        sound.facts.put("bad", document)
    said(caught.value)


@pytest.mark.parametrize("make", [cyclic_map, cyclic_list])
def test_a_cycle_is_refused(sound: Any, make: Callable[[], Any]) -> None:
    for write in (
        lambda: sound.facts.put("bad", make()),
        lambda: sound.events.append("kind", make()),
        lambda: sound.context.set("s", "n", make()),
    ):
        with pytest.raises((waferdb.DocumentError, waferdb.LimitError)) as caught:
            write()
        said(caught.value, "cycle", "itself", "deep", "depth", "levels", "nest")


@pytest.mark.parametrize("kind", ["map", "list"])
@pytest.mark.parametrize("levels", [129, 10_000, 100_000])
def test_a_document_too_deep_is_refused(sound: Any, kind: str, levels: int) -> None:
    with pytest.raises((waferdb.DocumentError, waferdb.LimitError)) as caught:
        sound.facts.put("bad", deep(levels, kind))
    said(caught.value, "deep", "depth", "levels", "nest")
    with pytest.raises((waferdb.DocumentError, waferdb.LimitError)):
        sound.events.append("kind", deep(levels, kind))


def test_a_document_of_a_hundred_levels_is_welcome(db: Any) -> None:
    document = deep(100, "map")
    db.facts.put("k", document)
    assert db.facts.get("k") == document


def test_a_document_beyond_the_limit_is_a_limit_error(sound: Any) -> None:
    blob = bytes(33 << 20)
    with pytest.raises(waferdb.LimitError) as caught:
        sound.facts.put("bad", {"blob": blob})
    said(caught.value, "32 MiB", "33554432", "33,554,432", "bytes")
    with pytest.raises(waferdb.LimitError):
        sound.events.append("kind", blob)
    with pytest.raises(waferdb.LimitError):
        sound.facts.put("bad", {"text": "x" * (33 << 20)})


def test_subclasses_of_supported_types_are_stored_or_refused_but_never_changed(db: Any) -> None:
    class Text(str):
        pass

    class Number(int):
        pass

    values = [OrderedDict(a=1), UserDict(a=1), Text("t"), Number(7), np.float64(1.5), np.int64(3)]
    for value in values:
        try:
            db.facts.put("k", {"field": value})
        except waferdb.DocumentError as error:
            said(error)
        else:
            assert db.facts["k"]["field"] == value


def test_an_object_whose_methods_raise_leaves_nothing_behind(sound: Any) -> None:
    class Hostile(dict):  # type: ignore[type-arg]
        def items(self) -> Any:
            raise RuntimeError("hostile")

        def __iter__(self) -> Any:
            raise RuntimeError("hostile")

    try:
        sound.facts.put("hostile", Hostile(a=1))
    except (RuntimeError, waferdb.DocumentError):
        assert "hostile" not in sound.facts
    else:
        sound_document = sound.facts["hostile"]
        receipt = sound.facts.delete("hostile")
        assert sound_document == {"a": 1}
        assert receipt.lsn == sound.lsn


def test_nan_in_an_indexed_field_is_refused(sound: Any) -> None:
    with pytest.raises((waferdb.DocumentError, ValueError)) as caught:
        sound.facts.put("bad", {"user": float("nan")})
    said(caught.value, "nan")
    with pytest.raises((waferdb.DocumentError, ValueError, TypeError)):
        list(sound.facts.find({"user": float("nan")}, limit=1))


def test_names_and_notes_beyond_their_limits_are_limit_errors(sound: Any) -> None:
    for write in (
        lambda: sound.events.append("k" * 256),
        lambda: sound.transaction(txn="t" * 256).__enter__(),
        lambda: waferdb.open(":memory:", {"n" * 256: Rows()}),
    ):
        with pytest.raises((waferdb.LimitError, waferdb.SchemaError)) as caught:
            write()
        said(caught.value)
    with pytest.raises(waferdb.LimitError), sound.transaction(actor="a" * 1025) as tx:
        tx.facts.put("bad", {"n": 1})


# Vectors

VECTORS = {
    "dimension": (np.ones(DIM + 1, np.float32), ("dimension", "components")),
    "nan": (np.full(DIM, np.nan, np.float32), ("nan", "finite")),
    "infinity": (np.full(DIM, np.inf, np.float32), ("inf", "finite")),
    "zero": (np.zeros(DIM, np.float32), ("zero", "norm")),
    "text": ("vector", ("float", "array", "vector")),
    "objects": (np.array([object()] * DIM), ("float", "dtype", "object", "vector")),
    "complex": (np.ones(DIM, np.complex64), ("float", "dtype", "complex", "vector")),
}


@pytest.mark.parametrize(("vector", "names"), VECTORS.values(), ids=VECTORS.keys())
def test_a_bad_vector_is_a_vector_error_and_refuses_the_whole(
    sound: Any, vector: Any, names: tuple[str, ...]
) -> None:
    with pytest.raises(waferdb.VectorError) as caught:
        sound.embeddings.put("kept-0", vector)
    assert isinstance(caught.value, ValueError)
    said(caught.value, *names)
    with pytest.raises(waferdb.VectorError), sound.transaction() as tx:
        write_memory(tx, "together")
        tx.embeddings.put("together", vector)


# Paths


def test_a_path_that_is_a_file_is_not_a_directory(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("precious")
    for attempt in (
        lambda: Memory(file),
        lambda: Memory(file, mode="r"),
        lambda: waferdb.open(file),
        lambda: Memory(file / "below"),
    ):
        with pytest.raises(NotADirectoryError) as caught:
            attempt()
        said(caught.value, str(file))
    assert file.read_text() == "precious"


def test_a_missing_parent_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "agent.wafer"
    with pytest.raises(FileNotFoundError) as caught:
        Memory(path)
    said(caught.value, "nowhere")
    assert not path.parent.exists()


def test_a_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("precious")
    with pytest.raises(waferdb.FormatError) as caught:
        waferdb.open(tmp_path)
    said(caught.value, str(tmp_path))
    with pytest.raises(waferdb.FormatError):
        Memory(tmp_path)
    assert contents(tmp_path) == {"notes.txt": b"precious"}


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_a_path_that_cannot_be_is_refused(path: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, OSError)):
        Memory(path)
    assert list(tmp_path.iterdir()) == []


AS_SOMEBODY = """
import os, sys
from wafer_support import Memory
import waferdb
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
path, mode = sys.argv[1:]
try:
    with Memory(path, mode=mode) as db:
        print("opened", db.facts.count())
except waferdb.WaferError as error:
    print(type(error).__name__, isinstance(error, PermissionError), error)
"""


@pytest.fixture
def common() -> Iterator[Path]:
    """A directory that every user can reach, unlike pytest's own."""
    directory = Path(tempfile.mkdtemp(prefix="waferdb-test-"))
    directory.chmod(0o755)
    yield directory
    for folder in [directory, *directory.rglob("*")]:
        if folder.is_dir():
            folder.chmod(0o755)
    shutil.rmtree(directory)


def as_somebody(path: Path, mode: str) -> str:
    result = python(AS_SOMEBODY, path, mode)
    if "No module named" in result.stderr:
        pytest.skip("an unprivileged user cannot read this installation")
    assert result.returncode == 0, result.stderr
    return result.stdout


def set_modes(path: Path, directory: int, file: int) -> None:
    for entry in [*path.rglob("*"), path]:
        entry.chmod(directory if entry.is_dir() else file)


def test_no_permission_is_a_permission_error(common: Path) -> None:
    path = common / "agent.wafer"
    with Memory(path) as db:
        db.facts.put("k", {"n": 1})
    before = contents(path)
    set_modes(path, 0o700 if os.geteuid() == 0 else 0, 0o600 if os.geteuid() == 0 else 0)
    for mode in ("rw", "r"):
        answer = as_somebody(path, mode)
        assert " True " in answer, answer
        assert str(path) in answer
    set_modes(path, 0o700, 0o600)
    assert contents(path) == before
    with Memory(path) as db:
        assert db.facts["k"] == {"n": 1}


def test_a_read_only_directory_refuses_writers_and_serves_readers(common: Path) -> None:
    path = common / "agent.wafer"
    with Memory(path) as db:
        db.facts.put("k", {"n": 1})
    before = contents(path)
    set_modes(path, 0o555, 0o444)
    answer = as_somebody(path, "rw")
    assert " True " in answer, answer
    assert str(path) in answer
    assert as_somebody(path, "r") == "opened 1\n"
    set_modes(path, 0o755, 0o644)
    assert contents(path) == before
    with Memory(path) as db:
        assert db.facts["k"] == {"n": 1}


def test_a_database_cannot_be_made_in_a_read_only_directory(common: Path) -> None:
    common.chmod(0o555)
    answer = as_somebody(common / "agent.wafer", "rw")
    assert " True " in answer, answer
    assert "agent.wafer" in answer
    assert stat.S_IMODE(common.stat().st_mode) == 0o555
    assert list(common.iterdir()) == []


# Segments


@pytest.fixture(scope="module")
def segmented(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """A closed database whose log has three segments at least, and the keys of its rows."""
    path = tmp_path_factory.mktemp("segmented") / "agent.wafer"
    keys: set[str] = set()
    with Memory(path, durability="async") as db:
        for number in range(40):
            blob = np.random.default_rng(number).bytes(4 << 20)
            db.facts.put(f"big-{number:03}", {"blob": blob})
            keys.add(f"big-{number:03}")
            if len(log_files(path)) > 3:
                break
    if len(log_files(path)) < 3:
        pytest.skip("the log did not rotate within 160 MiB")
    return path, keys


@pytest.fixture
def broken(segmented: tuple[Path, set[str]], tmp_path: Path) -> Path:
    copy = tmp_path / "broken.wafer"
    shutil.copytree(segmented[0], copy)
    return copy


def refused(path: Path, keys: set[str], *names: str, sealed: bool = True) -> None:
    """Opening or reading is refused by name, nothing is changed, and no answer is wrong."""
    before = contents(path)
    for attempt in (lambda: Memory(path, mode="r"), lambda: Memory(path)):
        try:
            with attempt() as db:
                assert {key for key, _ in db.facts.scan()} == keys
        except waferdb.CorruptionError as error:
            said(error, *names)
        else:
            assert not sealed, "a damaged sealed segment was accepted"
            return
        assert contents(path) == before, "a refused database was changed"


def restored(path: Path, keys: set[str]) -> None:
    with Memory(path, mode="r") as db:
        assert {key for key, _ in db.facts.scan()} == keys
        assert len(db.facts["big-000"]["blob"]) == 4 << 20


@pytest.mark.parametrize("which", [0, 1, -1])
def test_a_missing_segment_is_corruption_that_names_it(
    broken: Path, segmented: tuple[Path, set[str]], which: int
) -> None:
    victim = log_files(broken)[which]
    kept = victim.rename(broken.parent / "kept")
    refused(broken, segmented[1], victim.name, victim.stem)
    kept.rename(victim)
    restored(broken, segmented[1])


@pytest.mark.parametrize("which", [0, 1, -1])
def test_an_empty_segment_is_corruption_that_names_it(
    broken: Path, segmented: tuple[Path, set[str]], which: int
) -> None:
    victim = log_files(broken)[which]
    bytes_before = victim.read_bytes()
    victim.write_bytes(b"")
    refused(broken, segmented[1], victim.name)
    victim.write_bytes(bytes_before)
    restored(broken, segmented[1])


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("part", [0.0001, 0.5, 0.9999])
def test_a_truncated_sealed_segment_is_corruption_that_names_it(
    broken: Path, segmented: tuple[Path, set[str]], which: int, part: float
) -> None:
    victim = log_files(broken)[which]
    os.truncate(victim, int(victim.stat().st_size * part))
    refused(broken, segmented[1], victim.name)


def test_swapped_segments_are_corruption(broken: Path, segmented: tuple[Path, set[str]]) -> None:
    first, second = log_files(broken)[:2]
    aside = broken.parent / "aside"
    first.rename(aside)
    second.rename(first)
    aside.rename(second)
    refused(broken, segmented[1], first.name, second.name)
    first.rename(aside)
    second.rename(first)
    aside.rename(second)
    restored(broken, segmented[1])


def test_a_segment_of_another_database_is_corruption(
    broken: Path, segmented: tuple[Path, set[str]], tmp_path: Path
) -> None:
    with Memory(tmp_path / "other.wafer") as other:
        other.facts.put("foreign", {"n": 1})
    victim = log_files(broken)[1]
    shutil.copyfile(log_files(tmp_path / "other.wafer")[0], victim)
    refused(broken, segmented[1], victim.name)


def small(path: Path) -> None:
    with Memory(path) as db:
        for key in sorted(KEPT):
            with db.transaction() as tx:
                write_memory(tx, key)


@pytest.mark.parametrize("part", [0.1, 0.25, 0.5, 0.75, 0.9])
def test_the_only_segment_truncated_after_closing_is_not_taken_for_a_torn_tail(
    path: Path, part: float
) -> None:
    small(path)
    (victim,) = log_files(path)
    os.truncate(victim, int(victim.stat().st_size * part))
    before = contents(path)
    for mode in ("r", "rw"):
        with pytest.raises(waferdb.CorruptionError) as caught:
            Memory(path, mode=mode)
        said(caught.value, victim.name)
        assert contents(path) == before


@pytest.mark.parametrize("how", ["missing", "empty"])
def test_the_only_segment_gone_is_not_taken_for_a_new_database(path: Path, how: str) -> None:
    small(path)
    (victim,) = log_files(path)
    if how == "missing":
        victim.unlink()
    else:
        victim.write_bytes(b"")
    with pytest.raises(waferdb.WaferError):
        waferdb.open(path)


def test_a_newer_format_is_a_format_error_that_says_so(path: Path) -> None:
    """The version stands in the first 64 bytes of a segment; one of them, raised, must say so."""
    small(path)
    (victim,) = log_files(path)
    original = victim.read_bytes()
    newer = 0
    for offset in range(64):
        for value in (original[offset] + 1, 0x7F):
            changed = bytearray(original)
            changed[offset] = value & 0xFF
            if changed == original:
                continue
            victim.write_bytes(changed)
            for mode in ("r", "rw"):
                try:
                    with Memory(path, mode=mode) as db:
                        assert whole_keys(db) == KEPT
                except waferdb.FormatError as error:
                    message = said(error)
                    newer += "newer" in message.lower()
                except waferdb.CorruptionError as error:
                    said(error, victim.name)
                assert victim.read_bytes()[:64] == bytes(changed[:64])
    assert newer > 0, "no byte of the header is told apart as the format's version"
    victim.write_bytes(original)
    with Memory(path) as db:
        assert whole_keys(db) == KEPT


# A full disk

FILL = """
import sys, json, os
import numpy as np
from pathlib import Path
import waferdb
from wafer_support import Memory, write_memory, whole_keys
disk = Path(sys.argv[1])
ballast = disk / "ballast"
ballast.write_bytes(os.urandom(2 << 20))
path = disk / "agent.wafer"
acknowledged, failed = [], None
db = Memory(path)
for n in range(10_000):
    try:
        with db.transaction() as tx:
            tx.facts.put(f"k{n}", {"blob": np.random.default_rng(n).bytes(50_000), "n": n})
            tx.events.append("put", {"n": n}, key=f"k{n}")
        acknowledged.append(n)
    except waferdb.StorageError as error:
        failed = error
        break
def check(db):
    rows = {value["n"] for _, value in db.facts.scan()}
    events = {event.payload["n"] for event in db.events.scan()}
    assert rows == events, "rows and events differ"
    assert set(acknowledged) <= rows, "an acknowledged row is gone"
    assert rows <= {*acknowledged, len(acknowledged)}
    for n in rows:
        assert db.facts[f"k{n}"]["blob"] == np.random.default_rng(n).bytes(50_000)
assert failed is not None, "the disk never filled"
check(db)
ballast.unlink()
db.close()
with Memory(path) as db:
    check(db)
    db.facts.put("again", {"n": len(acknowledged) + 1})
    assert db.verify(deep=True).ok
    db.facts.delete("again")
    check(db)
print(json.dumps([type(failed).__name__, str(failed), failed.code, len(acknowledged)]))
"""


def test_a_full_disk_in_mid_commit_loses_nothing_acknowledged(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    unshare, mount = shutil.which("unshare"), shutil.which("mount")
    if not unshare or not mount:
        pytest.skip("needs unshare and mount to make a small disk")
    root = [] if os.geteuid() == 0 else ["--map-root-user"]
    apart = [unshare, "--mount", *root, "sh", "-c"]
    small_disk = f'mount -t tmpfs -o size=12m waferdb-test "{disk}"'
    if subprocess.run([*apart, small_disk], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine does not let the test mount a small disk")
    result = subprocess.run(
        [*apart, f'{small_disk} && exec "$0" -c "$1" "$2"', sys.executable, FILL, str(disk)],
        capture_output=True,
        text=True,
        timeout=120,
        env=child_environment(),
        check=False,
    )
    assert result.returncode == 0, result.stderr
    import json

    name, message, code, acknowledged = json.loads(result.stdout)
    assert (name, code) == ("FullError", "full"), message
    assert "space" in message.lower()
    assert acknowledged > 10


# Handles


def test_a_second_opener_is_refused_and_the_first_goes_on(sound: Any, path: Path) -> None:
    with pytest.raises(waferdb.LockedError) as caught:
        Memory(path)
    said(caught.value, str(os.getpid()))


def test_use_after_close_names_the_way_out(path: Path) -> None:
    db = Memory(path)
    db.facts.put("k", {"n": 1})
    db.close()
    with pytest.raises(waferdb.ClosedError) as caught:
        db.facts.put("late", {"n": 1})
    said(caught.value, "open")
    with Memory(path) as again:
        assert list(again.facts) == ["k"]


# Keys of another type, and calls on what does not have them


def test_bytes_are_no_key_of_a_structure_of_text(plain: Any) -> None:
    plain.facts.put("a", {"n": 1})
    plain.points.put("a", vector_of("a"))
    assert b"a" not in plain.facts
    assert b"a" not in plain.points
    assert "a" in plain.facts
    assert "a" in plain.points
    with pytest.raises(TypeError, match="'facts' is str, not bytes"):
        plain.facts.get(b"a")
    points = plain.points
    for call in (
        lambda: points.get(b"a"),
        lambda: points.read(b"a"),
        lambda: points[b"a"],
        lambda: points.get_many(["a", b"a"]),
        lambda: points.put(b"a", vector_of("a")),
        lambda: points.put_many([b"a"], [vector_of("a")]),
        lambda: points.delete(b"a"),
    ):
        with pytest.raises(TypeError, match="'points' is str, not bytes"):
            call()
    assert list(points) == ["a"]


def test_text_is_no_key_of_a_structure_of_bytes(plain: Any) -> None:
    plain.raw.put(b"a", b"1")
    assert b"a" in plain.raw
    assert "a" not in plain.raw


def test_bytes_are_no_key_of_a_cache(db: Any) -> None:
    db.session.put("a", 1)
    assert b"a" not in db.session
    for call in (
        lambda: db.session.get(b"a"),
        lambda: db.session.read(b"a"),
        lambda: db.session[b"a"],
        lambda: db.session.put(b"a", 2),
        lambda: db.session.delete(b"a"),
    ):
        with pytest.raises(TypeError, match="'session' is str, not bytes"):
            call()
    assert db.session["a"] == 1


@pytest.mark.parametrize("policy", ["lazy", None, waferdb.lazy])
def test_a_policy_that_is_none_is_a_type_error(db: Any, policy: Any) -> None:
    with pytest.raises(TypeError, match=r"eager\(\), lazy\(\) or hybrid"):
        db.set_policy("facts", policy)


def test_every_structure_takes_a_policy(db: Any) -> None:
    for name in ("facts", "audit", "session", "events", "context", "entities"):
        db.set_policy(name, waferdb.lazy())
        assert db.stats().policies[name]["in_force"] == "lazy"
        db.set_policy(name, waferdb.eager())


@pytest.mark.parametrize("dst", ["", ":memory:", "a\0b"])
def test_a_backup_to_no_directory_is_refused(
    db: Any, dst: str, tmp_path: Path, monkeypatch: Any
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ValueError, match="dst="):
        db.backup(dst)
    with pytest.raises(TypeError, match="dst is text"):
        db.backup(b"bytes")
    assert list((tmp_path / "here").iterdir()) == []


def test_a_transaction_on_a_reader_names_the_snapshot(path: Path) -> None:
    with Memory(path) as db:
        db.facts.put("k", {"n": 1})
    with Memory(path, mode="r") as reader:
        with pytest.raises(waferdb.ReadOnlyError) as caught:
            reader.transaction()
        said(caught.value, "snapshot()")
        with pytest.raises(waferdb.ReadOnlyError, match="snapshot"):
            reader.retry(lambda tx: tx.facts.get("k"))
        with reader.snapshot() as snapshot:
            assert snapshot.facts["k"] == {"n": 1}
    with pytest.raises(waferdb.ClosedError):
        reader.transaction()


@pytest.mark.parametrize("budget", ["x", True, [2]])
def test_a_write_budget_that_is_no_number_is_named(budget: Any) -> None:
    with pytest.raises(TypeError, match="waf_budget is a number"):
        Memory(":memory:", waf_budget=budget)
    with pytest.raises(ValueError, match="waf_budget"):
        Memory(":memory:", waf_budget=float("nan"))


def test_memory_has_nothing_to_read() -> None:
    with pytest.raises(ValueError, match=":memory:"):
        Memory(":memory:", mode="r")


def test_a_lone_surrogate_in_the_name_of_a_structure_is_named(sound: Any) -> None:
    with pytest.raises(waferdb.SchemaError) as caught:
        waferdb.open(":memory:", {SURROGATE: Rows()})
    said(caught.value, repr(SURROGATE))
    with pytest.raises(waferdb.SchemaError) as caught:
        sound.rename("facts", SURROGATE)
    said(caught.value, repr(SURROGATE))


def test_one_key_is_not_taken_for_many(plain: Any) -> None:
    plain.facts.put_many({"a": {}, "b": {}})
    for call in (
        lambda: plain.facts.delete_many("ab"),
        lambda: plain.facts.get_many("ab"),
        lambda: plain.raw.get_many(b"ab"),
        lambda: plain.points.get_many("ab"),
        lambda: plain.points.put_many("ab", np.ones((2, DIM), np.float32)),
    ):
        with pytest.raises(TypeError, match="several keys are a list"):
            call()
    assert list(plain.facts) == ["a", "b"]
