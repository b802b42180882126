"""What the database says about itself, and its administration: meters, verify, wait, rebuild."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from wafer_support import Memory, contents, log_files, vector_of, whole_keys, write_memory

import waferdb
from waferdb import Rows, lazy

CAUSES = {"log", "flush", "merge", "seal", "checkpoint", "reclaim"}


def remember(db: Any, count: int) -> set[str]:
    keys = {f"k{n:03}" for n in range(count)}
    for key in sorted(keys):
        with db.transaction() as tx:
            write_memory(tx, key)
    return keys


def test_bytes_are_metered_by_structure_and_cause_and_add_up(db: Any) -> None:
    before = db.stats()
    remember(db, 50)
    db.flush()
    stats = db.stats()
    assert stats.logical_bytes > before.logical_bytes
    assert stats.physical_bytes >= stats.logical_bytes
    assert stats.waf == pytest.approx(stats.physical_bytes / stats.logical_bytes)
    assert sum(stats.by.values()) == stats.physical_bytes
    assert {cause for _, cause in stats.by} <= CAUSES
    assert any(cause == "log" and count > 0 for (_, cause), count in stats.by.items())


def test_logical_bytes_count_each_payload_once(db: Any) -> None:
    text = os.urandom(100_000)
    before = db.stats().logical_bytes
    with db.transaction() as tx:
        tx.facts.put("k", {"blob": text})
        tx.context.set("s", "n", {"blob": text})
    assert 100_000 <= db.stats().logical_bytes - before < 120_000


def test_commits_and_syncs_are_counted_since_opening(disk: Any) -> None:
    before = disk.stats()
    remember(disk, 20)
    after = disk.stats()
    assert after.commits - before.commits == 20
    assert after.syncs - before.syncs >= 20
    assert after.commits_per_sync == pytest.approx(after.commits / after.syncs)


def test_many_threads_share_syncs(disk: Any) -> None:
    import threading

    def work(name: int) -> None:
        for n in range(40):
            disk.facts.put(f"{name}-{n}", {"n": n})

    before = disk.stats()
    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = disk.stats()
    assert after.commits - before.commits == 320
    assert after.syncs - before.syncs < 320


def test_stats_tell_lag_files_latency_and_oldest_snapshot(disk: Any) -> None:
    remember(disk, 3)
    stats = disk.stats()
    assert {"facts", "embeddings", "events"} <= set(stats.lag)
    assert stats.files
    assert stats.latency
    assert stats.oldest_snapshot is None or stats.oldest_snapshot <= disk.lsn
    with disk.snapshot() as snapshot:
        lsn = snapshot.lsn
        disk.facts.put("later", {"n": 1})
        assert disk.stats().oldest_snapshot == lsn
    assert "waf" in repr(stats).lower()


def test_a_new_handle_counts_from_zero(path: Path) -> None:
    with Memory(path) as db:
        remember(db, 10)
    with Memory(path) as db:
        assert db.stats().commits == 0
        db.facts.put("k", {"n": 1})
        assert db.stats().commits == 1


@pytest.mark.parametrize("deep", [False, True])
def test_a_sound_database_verifies(db: Any, deep: bool) -> None:
    remember(db, 20)
    db.facts.delete("k003")
    db.facts.put("k004", {"user": "changed"})
    db.entities.unlink("nobody", "r", "nothing")
    report = db.verify(deep=deep)
    assert report.ok
    assert list(report.problems) == []


def test_verify_reports_progress(db: Any) -> None:
    remember(db, 20)
    calls: list[Any] = []
    assert db.verify(deep=True, progress=lambda *args: calls.append(args)).ok
    assert calls


def test_verify_finds_a_flipped_byte_of_a_value_and_names_the_file(path: Path) -> None:
    marker = b"find-me-" * 40
    with Memory(path) as db:
        db.facts.put("k", {"blob": marker})
        db.facts.put("after", {"n": 1})
    (log,) = log_files(path)
    data = bytearray(log.read_bytes())
    data[data.index(marker) + 100] ^= 1
    log.write_bytes(data)
    try:
        db = Memory(path, mode="r")
    except waferdb.CorruptionError as error:
        said = str(error)
    else:
        with db:
            with pytest.raises(waferdb.CorruptionError):
                db.facts.get("k")
            report = db.verify(deep=True)
            assert not report.ok
            said = str(report.problems)
    assert log.name in said


def test_verify_changes_nothing(path: Path) -> None:
    with Memory(path) as db:
        remember(db, 5)
    before = contents(path)
    with Memory(path, mode="r") as db:
        assert db.verify().ok
        assert db.verify(deep=True).ok
    assert contents(path) == before


def test_rebuild_makes_each_structure_again_from_the_log(db: Any) -> None:
    keys = remember(db, 15)
    lsn = db.lsn
    for name in ("facts", "embeddings", "session", "events", "audit", "context", "entities"):
        head = db.audit.head()
        db.rebuild(name)
        assert whole_keys(db) == keys
        assert db.audit.head() == head
        assert db.lsn == lsn
    assert [key for key, _ in db.facts.find({"user": db.facts["k001"]["user"]})]
    assert db.verify(deep=True).ok
    with pytest.raises((KeyError, waferdb.SchemaError), match="nothing"):
        db.rebuild("nothing")


def test_wait_returns_when_the_lsn_is_there_and_times_out_when_not(db: Any) -> None:
    lsn = db.facts.put("k", {"n": 1}).lsn
    db.wait(lsn)
    db.wait(lsn, "facts", "embeddings", timeout=1)
    with pytest.raises(TimeoutError):
        db.wait(lsn + 1, timeout=0.01)
    with pytest.raises(TimeoutError):
        db.wait(lsn + 1, "facts", timeout=0)


def test_wait_is_woken_by_a_commit_of_another_thread(db: Any) -> None:
    import threading

    target = db.lsn + 1
    woken = threading.Event()

    def waiter() -> None:
        db.wait(target, timeout=30)
        woken.set()

    thread = threading.Thread(target=waiter)
    thread.start()
    db.facts.put("k", {"n": 1})
    assert woken.wait(30)
    thread.join()


def test_flush_and_drain_lose_nothing_and_can_be_repeated(db: Any) -> None:
    keys = remember(db, 5)
    for _ in range(2):
        db.flush()
        db.drain()
        db.drain("facts")
    assert whole_keys(db) == keys


# Administration


def test_drop_takes_a_structure_away_and_its_name_may_begin_again(path: Path) -> None:
    with waferdb.open(path, {"facts": Rows(), "notes": Rows()}) as db:
        db["notes"].put("k", {"n": 1})
        db["facts"].put("k", {"n": 1})
        db.drop("notes")
        with pytest.raises((KeyError, waferdb.WaferError)):
            db["notes"]
    with waferdb.open(path) as db:
        with pytest.raises((KeyError, waferdb.WaferError)):
            db["notes"]
    with waferdb.open(path, {"notes": Rows()}) as db:
        assert db["notes"].count() == 0
        assert db["facts"]["k"] == {"n": 1}
        assert db.verify(deep=True).ok


def test_rename_keeps_content_under_the_new_name(path: Path) -> None:
    with waferdb.open(path, {"facts": Rows(indexes=["a"])}) as db:
        db["facts"].put("k", {"a": 1})
        db.rename("facts", "memories")
        assert db["memories"]["k"] == {"a": 1}
    with waferdb.open(path) as db:
        assert [key for key, _ in db["memories"].find({"a": 1})] == ["k"]
        with pytest.raises((KeyError, waferdb.WaferError)):
            db["facts"]


def test_a_policy_can_be_set_at_run_time(path: Path) -> None:
    with Memory(path) as db:
        db.set_policy("facts", lazy())
        db.facts.put("k", {"n": 1})
        assert db.facts["k"] == {"n": 1}
        with pytest.raises((KeyError, waferdb.SchemaError)):
            db.set_policy("nothing", lazy())
    with Memory(path) as db:
        assert db.facts["k"] == {"n": 1}


def test_a_backup_is_a_whole_database_of_one_moment(disk: Any, tmp_path: Path) -> None:
    keys = remember(disk, 10)
    copy = tmp_path / "copy.wafer"
    disk.backup(copy)
    disk.facts.put("later", {"n": 1})
    with Memory(copy) as db:
        assert whole_keys(db) == keys
        assert db.verify(deep=True).ok
        db.facts.put("own", {"n": 2})
    assert "own" not in disk.facts
    with pytest.raises((FileExistsError, waferdb.StorageError)):
        disk.backup(copy)


def test_the_vector_of_a_rebuilt_structure_is_bit_for_bit_the_same(db: Any) -> None:
    remember(db, 3)
    db.rebuild("embeddings")
    assert db.embeddings.get("k001").tobytes() == vector_of("k001").tobytes()
