"""Native callers: compiled against waferdb.h, run without the GIL, checked from Python."""

import importlib.util
import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import waferdb
from waferdb import capi, errors

CALLER = Path(__file__).parent / "capi_caller"
PUTS = 1_000


def load(name: str, directory: Path) -> ModuleType:
    (binary,) = directory.glob(f"{name}.*.so")
    spec = importlib.util.spec_from_file_location(name, binary)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("capi") / "caller"
    shutil.copytree(CALLER, directory)
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


@pytest.fixture(scope="session")
def native(built: Path) -> Any:
    return load("cython_caller", built)


@pytest.fixture
def db() -> Iterator[Any]:
    with waferdb.open(":memory:", {"facts": waferdb.Rows(codec="raw")}) as database:
        yield database


def test_puts_gets_and_deletes(native: Any, db: Any) -> None:
    before = db.lsn
    assert native.put(db, "facts", 0, PUTS) == before + PUTS == db.lsn
    assert native.count(db, "facts", 0, PUTS) == PUTS
    assert all(db.facts.get(b"key:%d" % n) == b"value:%d" % n for n in range(PUTS))
    assert native.delete(db, "facts", 0, PUTS // 2) == db.lsn
    assert native.count(db, "facts", 0, PUTS) == PUTS - PUTS // 2
    assert db.facts.get(b"key:0") is None


def test_batch_is_one_commit(native: Any, db: Any) -> None:
    before = db.lsn
    assert native.batch(db, "facts", PUTS, 10) == (before + 1, 0)
    assert db.lsn == before + 1
    assert native.count(db, "facts", 0, PUTS) == PUTS - 10


def test_a_dropped_batch_writes_nothing(native: Any, db: Any) -> None:
    before = db.lsn
    native.abandon(db, "facts")
    assert db.lsn == before
    assert db.facts.get(b"abandoned") is None


def test_threads_share_the_engine(native: Any, db: Any) -> None:
    def work(part: int) -> None:
        native.put(db, "facts", part * 250, part * 250 + 250)

    threads = [threading.Thread(target=work, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert native.count(db, "facts", 0, PUTS) == PUTS


def test_plain_c_from_a_thread_python_does_not_know(built: Path, db: Any) -> None:
    caller: Any = load("c_caller", built)
    assert caller.write(db._engine, "facts", PUTS) == db.lsn
    assert db.facts.get(b"thread:999") == b"thread:999"
    with pytest.raises(RuntimeError, match="schema: "):
        caller.write(db._engine, "absent", 1)
    with pytest.raises(TypeError):
        caller.write(object(), "facts", 1)


def test_what_python_wrote_is_read(native: Any, db: Any) -> None:
    db.facts.put(b"from python", b"text")
    db.facts.put(b"empty", b"")
    handle = capi.Handle(db)
    number = native.structure(handle, "facts")
    assert native.get_bytes(handle, number, b"from python") == b"text"
    assert native.get_bytes(handle, number, b"empty") == b""
    assert native.get_bytes(handle, number, b"absent") is None


def test_failures_are_the_typed_errors(native: Any, db: Any) -> None:
    handle = capi.Handle(db)
    number = native.structure(handle, "facts")
    with pytest.raises(errors.SchemaError, match="absent"):
        native.structure(handle, "absent")
    with pytest.raises(ValueError, match="."):  # a text cut inside a character would not decode
        native.structure(handle, "é" * 1_000)
    with pytest.raises(errors.LimitError):
        native.put_bytes(handle, number, b"", b"value")
    with pytest.raises(errors.LimitError):
        native.put_bytes(handle, number, b"k" * 65_537, b"value")
    with pytest.raises(ValueError, match="null pointer"):
        native.null_key(handle, number)
    assert native.error_without_a_place(handle, number) == -1
    assert native.error_on_null() == (-1, "argument")


def test_a_full_batch_refuses_and_names_the_way_out(native: Any, db: Any) -> None:
    handle = capi.Handle(db)
    taken, refusal = native.overfill(handle, native.structure(handle, "facts"), 16 << 20)
    assert taken == 3
    assert isinstance(refusal, errors.LimitError)
    assert "commit the batch" in str(refusal)


def test_a_closed_database_stays_closed(native: Any, db: Any) -> None:
    handle = capi.Handle(db)
    number = native.structure(handle, "facts")
    db.close()
    with pytest.raises(errors.ClosedError):
        native.put_bytes(handle, number, b"key", b"value")
    with pytest.raises(errors.ClosedError):
        native.get_bytes(handle, number, b"key")
    with pytest.raises(errors.ClosedError):
        capi.Handle(db)


def test_the_child_of_a_fork_is_refused(native: Any, db: Any) -> None:
    handle = capi.Handle(db)
    number = native.structure(handle, "facts")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            native.put_bytes(handle, number, b"key", b"value")
        except errors.ForkedError:
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert native.put_bytes(handle, number, b"key", b"value") == db.lsn


def test_handles_are_of_one_process(db: Any) -> None:
    handle = capi.Handle(db)
    with pytest.raises(TypeError, match="open the database"):
        pickle.dumps(handle)
    with pytest.raises(TypeError, match="commit it"):
        pickle.dumps(capi.Batch(handle))
    with pytest.raises(TypeError):
        capi.Handle(object())


def test_the_table_is_the_one_in_the_header(native: Any, db: Any) -> None:
    version, size, compiled = native.table_sizes(capi.Handle(db))
    assert version == capi.C_API_VERSION
    assert size == compiled
