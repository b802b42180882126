"""What once went wrong with views, superseded rows and index entries that are put off, each test
named by the failure."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import waferdb
from waferdb import (
    ConflictError,
    Rows,
    Vectors,
    View,
    _simulated,
    documents,
    eager,
    hybrid,
    lazy,
)


def joined(group: Any) -> dict[str, Any]:
    return {"text": "; ".join(row.value["text"] for row in group.rows)}


@pytest.mark.parametrize("policy", [lazy(), hybrid("1h", max_items=10**9)], ids=["lazy", "hybrid"])
def test_a_recovery_that_flushed_lost_index_entries(tmp_path: Path, policy: Any) -> None:
    schema = {"facts": Rows(indexes=["user"], policy=policy)}
    count = 12_000
    with waferdb.open(tmp_path / "a", schema) as db:
        with db.batch(every=1000) as batch:
            for n in range(count):
                batch.facts.put(f"{n:05}", {"user": f"u{n % 10}", "text": "x" * 40})
        db.flush()
        shutil.copytree(tmp_path / "a", tmp_path / "killed")
    # A budget so small that the replay fills it.
    waferdb.open(tmp_path / "killed", schema, memtable="1MiB").close()
    with waferdb.open(tmp_path / "killed", schema) as db:
        assert sum(1 for _ in db.facts.find({"user": "u3"})) == count // 10
        assert db.verify(deep=True).ok


@pytest.mark.parametrize("how", ["delete", "supersede"])
def test_a_late_first_result_brought_back_what_was_gone(how: str) -> None:
    begun, go = threading.Event(), threading.Event()

    def slowly(group: Any) -> dict[str, Any]:
        if not begun.is_set():
            begun.set()
            go.wait(30)
        return joined(group)

    schema = {
        "facts": Rows(supersede=("subject",)),
        "profile": View(slowly, source="facts", by="user"),
    }
    with waferdb.open(":memory:", schema) as db:
        db.facts.put("k", {"user": "ann", "subject": "s", "text": "secret"})
        reader = threading.Thread(target=lambda: db.profile.get("ann", consistency="strong"))
        reader.start()
        assert begun.wait(30)
        if how == "delete":
            db.facts.delete("k")
        db.facts.put("j", {"user": "ann", "subject": "s", "text": "new"})
        go.set()
        reader.join(30)
        assert db.profile.read("ann").value in (None, {"text": "new"})
        assert db.profile.get("ann", consistency="strong") == {"text": "new"}


def test_a_forget_behind_the_history_left_a_group_the_row_had_left() -> None:
    schema = {"facts": Rows(), "profile": View(joined, source="facts", by="user")}
    db = _simulated.open(schema, history="10s")
    db.facts.put("anchor", {"user": "ann", "text": "anchor"})
    db.facts.put("k", {"user": "ann", "text": "secret"})
    assert "secret" in db.profile.get("ann", consistency="strong")["text"]
    for text in ("moved", "again", "and again"):
        db.facts.put("k", {"user": "bob", "text": text})
        _simulated.advance(db, 30)
        db.drain()
    db.facts._forget("k")
    assert "secret" not in str(db.profile.read("ann").value)
    assert not any("secret" in str(commit) for commit in db.changes())
    db.close()


def test_a_row_superseded_behind_a_snapshot_kept_its_vector() -> None:
    schema = {"facts": Rows(supersede=("s",)), "vectors": Vectors(dim=2, rows="facts")}
    with waferdb.open(":memory:", schema) as db:
        db.facts.put("a", {"s": "other"})
        with pytest.raises(ConflictError), db.transaction() as first:
            first.facts.put("b", {"s": "x", "v": 1})
            db.facts.put("z", {"s": "x", "v": 2})
        with db.transaction() as second:
            assert second.facts.get("z", for_update=True) == {"s": "x", "v": 2}
            second.vectors.put("z", np.array([1, 0], dtype=np.float32))
        assert db.verify(deep=True).ok


def test_an_interrupted_reader_kept_its_group_from_everybody() -> None:
    schema = {"facts": Rows(), "profile": View(joined, source="facts", by="user")}
    with waferdb.open(":memory:", schema) as db:
        db.facts.put("k", {"user": "ann", "text": "one"})
        computing = db._scope.shared.refresher._computing
        group = db._scope.strong().view_key(db.profile._id, documents.encode(["ann"]))
        started = computing.begin((db.profile._id, group), 0, time.monotonic() + 60)
        assert started is not None

        def interrupt(_: float) -> bool:
            raise KeyboardInterrupt

        done = started.call.done
        returned, done.wait = done.wait, interrupt
        with pytest.raises(KeyboardInterrupt):
            computing.result(started)
        assert returned(30)
        assert db.profile.get("ann", consistency="strong") == {"text": "one"}
        assert db.stats().oldest_snapshot is None


def test_one_row_that_toggles_grew_a_list_without_end() -> None:
    schema = {"facts": Rows(), "profile": View(joined, source="facts", by="user")}
    with waferdb.open(":memory:", schema) as db:
        for n in range(600):
            db.facts.put("k", {"user": f"u{n % 2}", "text": str(n)})
        # Beside the versions of the row itself; it was 3 MB.
        assert db.stats().lag["profile"].memtable_bytes < 1_000_000


def test_a_transaction_that_wrote_nothing_called_functions() -> None:
    calls: list[Any] = []

    def failing(group: Any) -> dict[str, Any]:
        calls.append(group.key)
        raise ValueError("no")

    schema = {"facts": Rows(), "profile": View(failing, source="facts", by="user", policy=eager())}
    with waferdb.open(":memory:", schema) as db:
        assert db.facts.put("k", {"user": "ann", "text": "one"}).lagging == ("profile",)
        calls.clear()
        with db.transaction() as tx:
            tx.facts.get("k")
        assert (tx.receipt.lagging, calls) == ((), [])


def test_results_together_were_more_than_a_commit_holds() -> None:
    large = "x" * (15 << 20)
    schema = {"facts": Rows(), "profile": View(lambda _: {"t": large}, source="facts", by="user")}
    with waferdb.open(":memory:", schema) as db:
        db.set_policy("profile", eager())
        with db.transaction() as tx:
            for n in range(6):
                tx.facts.put(str(n), {"user": f"u{n}", "text": "one"})
        assert tx.receipt.lagging == ()
        assert db.profile.count() == 6


def test_a_put_of_a_row_counted_as_a_change_of_its_vectors() -> None:
    schema = {
        "facts": Rows(),
        "vectors": Vectors(dim=2, rows="facts", policy=lazy()),
        "hot": waferdb.Cache(ttl="1h", source="facts", policy=lazy()),
    }
    with waferdb.open(":memory:", schema) as db:
        db.facts.put("k", {"n": 1})
        assert db.stats().lag["vectors"].commits == 0
        assert db.stats().lag["hot"].commits == 1
        db.vectors.put("k", [1.0, 0.0])
        assert db.stats().lag["vectors"].commits == 1
        db.facts.delete("k")
        assert db.stats().lag["vectors"].commits == db.stats().lag["hot"].commits == 0


def test_two_functions_that_read_each_other_waited_out_their_time() -> None:
    both = threading.Barrier(2, timeout=30)

    def reads(other: str) -> Any:
        def function(group: Any) -> dict[str, Any]:
            with contextlib.suppress(threading.BrokenBarrierError):
                both.wait()
            both.abort()
            return {"text": str(db[other].get("ann", consistency="strong"))}

        return function

    schema = {
        "facts": Rows(),
        "one": View(reads("two"), source="facts", by="user", timeout="60s"),
        "two": View(reads("one"), source="facts", by="user", timeout="60s"),
    }
    with waferdb.open(":memory:", schema) as db:
        db.facts.put("k", {"user": "ann", "text": "one"})
        errors: list[Exception] = []

        def ask(name: str) -> None:
            try:
                db[name].get("ann", consistency="strong")
            except waferdb.StaleViewError as error:
                errors.append(error)

        readers = [threading.Thread(target=ask, args=(name,)) for name in ("one", "two")]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(30)
        assert not any(reader.is_alive() for reader in readers)
        assert errors
