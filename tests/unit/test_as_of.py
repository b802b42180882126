"""Reading the past: by LSN, by time and by text, in every structure that keeps history."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from wafer_support import DIM, Memory, vector_of

import waferdb


def test_rows_answer_as_of_any_commit(db: Any) -> None:
    history: dict[int, dict[str, Any]] = {db.lsn: {}}
    state: dict[str, Any] = {}
    for n in range(12):
        key = f"k{n % 3}"
        if n % 5 == 4:
            lsn = db.facts.delete(key).lsn
            state.pop(key, None)
        else:
            state[key] = {"user": f"u{n % 2}", "n": n}
            lsn = db.facts.put(key, state[key]).lsn
        history[lsn] = dict(state)
    for lsn, expected in history.items():
        assert dict(db.facts.scan(as_of=lsn)) == expected
        assert db.facts.count(as_of=lsn) == len(expected)
        assert list(db.facts.get_many(["k0", "k1"], as_of=lsn)) == [
            expected.get("k0"),
            expected.get("k1"),
        ]
        for key in ("k0", "k1", "k2"):
            assert db.facts.get(key, as_of=lsn) == expected.get(key)
            assert db.facts.read(key, as_of=lsn).value == expected.get(key)
        for user in ("u0", "u1"):
            found = db.facts.find({"user": user}, as_of=lsn)
            assert dict(found) == {k: v for k, v in expected.items() if v["user"] == user}


def test_before_the_first_commit_there_was_nothing(db: Any) -> None:
    db.facts.put("k", {"n": 1})
    db.events.append("kind")
    assert db.facts.get("k", as_of=0) is None
    assert list(db.facts.scan(as_of=0)) == []
    assert list(db.events.scan(as_of=0)) == []


def test_as_of_a_commits_own_time_includes_it(db: Any) -> None:
    first = db.facts.put("k", {"n": 1})
    while db.facts.put("k", {"n": 2}).time == first.time:
        pass
    at_first = db.facts.get("k", as_of=first.time)
    assert at_first == {"n": 1} or db.facts.read("k", as_of=first.time).time == first.time
    assert db.facts.get("k", as_of=first.time.isoformat()) == at_first
    elsewhere = first.time.astimezone(west())
    assert db.facts.get("k", as_of=elsewhere) == at_first
    assert db.facts.get("k", as_of=first.time - timedelta(microseconds=1)) is None


def west() -> Any:
    from datetime import timezone

    return timezone(timedelta(hours=-7))


def test_as_of_now_is_the_present(db: Any) -> None:
    receipt = db.facts.put("k", {"n": 1})
    assert db.facts.get("k", as_of=max(receipt.time, datetime.now(UTC))) == {"n": 1}
    assert db.facts.get("k", as_of=db.lsn) == {"n": 1}


def test_the_future_is_a_history_error(db: Any) -> None:
    db.facts.put("k", {"n": 1})
    with pytest.raises(waferdb.HistoryError, match=str(db.lsn + 1)):
        db.facts.get("k", as_of=db.lsn + 1)
    with pytest.raises(waferdb.HistoryError):
        db.facts.scan(as_of=db.lsn + 1)
    with pytest.raises(waferdb.HistoryError):
        db.events.scan(as_of=db.lsn + 1)


def test_what_is_no_moment_is_refused(db: Any) -> None:
    db.facts.put("k", {"n": 1})
    with pytest.raises(ValueError):
        db.facts.get("k", as_of=datetime(2024, 1, 1))
    with pytest.raises(ValueError):
        db.facts.get("k", as_of="yesterday")
    with pytest.raises(ValueError):
        db.facts.get("k", as_of=-1)
    with pytest.raises(TypeError):
        db.facts.get("k", as_of=1.5)
    with pytest.raises(TypeError):
        db.facts.get("k", as_of=db.lsn, consistency="strong")
    with pytest.raises(ValueError):
        db.facts.get("k", consistency="perhaps")


def test_every_consistency_reads_what_this_handle_committed(db: Any) -> None:
    lsn = db.facts.put("k", {"n": 1}).lsn
    for consistency in ("strong", "session", lsn, waferdb.bounded("1h"), "eventual"):
        assert db.facts.get("k", consistency=consistency) == {"n": 1}
        assert db.facts.read("k", consistency=consistency).freshness.behind == 0
    bounded = waferdb.bounded(max_commits=5)
    assert db.facts.get("k", consistency=bounded) == {"n": 1}


def test_events_answer_as_of_a_commit(db: Any) -> None:
    lsns = [db.events.append("kind", {"n": n}).lsn for n in range(4)]
    for n, lsn in enumerate(lsns):
        events = list(db.events.scan(as_of=lsn))
        assert [event.payload["n"] for event in events] == list(range(n + 1))
    assert [e.payload["n"] for e in db.events.scan(as_of=lsns[2], after=lsns[0])] == [1, 2]


def test_vectors_answer_as_of_a_commit(plain: Any) -> None:
    near, far = np_full(0), np_full(9)
    first = plain.points.put("k", near).lsn
    second = plain.points.put("k", far).lsn
    third = plain.points.delete("k").lsn
    query = np_full(0)
    assert plain.points.search(query, as_of=first).distances[0] == 0
    assert plain.points.search(query, as_of=second).distances[0] > 1
    assert plain.points.search(query, as_of=third).keys == []
    assert plain.points.get("k", as_of=first)[0] == 0
    assert plain.points.get("k", as_of=second)[0] == 9
    assert plain.points.get("k") is None


def np_full(value: float) -> Any:
    import numpy as np

    return np.full(DIM, value, np.float32)


def test_a_deleted_rows_vector_is_still_answered_as_of_before(db: Any) -> None:
    with db.transaction() as tx:
        tx.facts.put("k", {"n": 1})
        tx.embeddings.put("k", vector_of("k"))
    before = tx.receipt.lsn
    db.facts.delete("k")
    (hit,) = db.embeddings.search(vector_of("k"), k=1, as_of=before)
    assert (hit.key, hit.row) == ("k", {"n": 1})


def test_context_and_graph_answer_as_of_a_commit(db: Any) -> None:
    first = db.context.set("ann", "n", 1).lsn
    second = db.context.set("ann", "n", 2).lsn
    third = db.entities.link("a", "r", "b").lsn
    fourth = db.entities.unlink("a", "r", "b").lsn
    assert db.context.get("ann", "n", as_of=first) == 1
    assert db.context.load("ann", as_of=second) == {"n": 2}
    assert list(db.context.scopes(as_of=0)) == []
    assert [n.node for n in db.entities.neighbors("a", as_of=third)] == ["b"]
    assert list(db.entities.neighbors("a", as_of=fourth)) == []
    assert list(db.entities.neighbors("a", as_of=second)) == []


def test_the_past_is_the_same_after_reopening(path: Any) -> None:
    with Memory(path) as db:
        lsns = [db.facts.put("k", {"n": n}).lsn for n in range(5)]
        time = db.facts.read("k", as_of=lsns[2]).time
        db.facts.delete("k")
    with Memory(path) as db:
        assert [db.facts.get("k", as_of=lsn)["n"] for lsn in lsns] == list(range(5))
        assert db.facts.get("k", as_of=time) is not None
        assert db.facts.read("k", as_of=lsns[3]).version == lsns[3]
        assert db.facts.get("k") is None


def test_keys_of_the_past_do_not_see_the_future_of_a_range(db: Any) -> None:
    db.facts.put_many([(f"a{n}", {"n": n}) for n in range(5)])
    then = db.lsn
    db.facts.put_many([(f"a{n}", {"n": -n}) for n in range(3, 9)])
    db.facts.delete_many(["a0", "a1"])
    assert [key for key, _ in db.facts.scan(prefix="a", as_of=then, limit=3)] == ["a0", "a1", "a2"]
    assert [k for k, _ in db.facts.scan(reverse=True, as_of=then, limit=2)] == ["a4", "a3"]
    assert list(db.facts.scan(start="a5", as_of=then)) == []
    assert "a0" not in db.facts
