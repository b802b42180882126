"""Policies of all structures: what an eventual read lacks, what others add, what is at once.

One case a kind of structure: how to declare it, write a thing of number `n` into it, and see which
numbers an answer has. Everything else is the same for all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from view_support import begun, eventually

import waferdb
from waferdb import (
    Cache,
    Context,
    Events,
    Graph,
    Rows,
    SchemaError,
    Vectors,
    bounded,
    eager,
    hybrid,
    lazy,
)


@dataclass(frozen=True)
class Kind:
    declare: Callable[..., Any]
    write: Callable[[Any, int], Any]
    numbers: Callable[..., set[int]]
    freshness: Callable[..., Any]
    delete: Callable[[Any, int], Any] | None = None


def circle(n: int) -> list[float]:
    return [1.0, n / 100]


KINDS = {
    "rows": Kind(
        lambda policy: Rows(indexes=["n"], policy=policy),
        lambda s, n: s.put(f"k{n:02}", {"n": n}),
        lambda s, **how: {document["n"] for _, document in s.scan(**how)},
        lambda s, **how: s.read("k00", **how).freshness,
        lambda s, n: s.delete(f"k{n:02}"),
    ),
    "vectors": Kind(
        lambda policy: Vectors(dim=2, metric="l2", policy=policy),
        lambda s, n: s.put(f"k{n:02}", circle(n)),
        lambda s, **how: {int(key[1:]) for key in s.search([1.0, 0.0], k=50, **how).keys},
        lambda s, **how: s.search([1.0, 0.0], k=1, **how).freshness,
        lambda s, n: s.delete(f"k{n:02}"),
    ),
    "events": Kind(
        lambda policy: Events(policy=policy),
        lambda s, n: s.append("kind", {"n": n}),
        lambda s, **how: {event.payload["n"] for event in s.scan(**how)},
        lambda s, **how: s.scan(**how).freshness,
    ),
    "cache": Kind(
        lambda policy: Cache(ttl="1h", policy=policy),
        lambda s, n: s.put(f"k{n:02}", n),
        lambda s, **how: {n for n in range(20) if s.get(f"k{n:02}", **how) == n},
        lambda s, **how: s.read("k00", **how).freshness,
        lambda s, n: s.delete(f"k{n:02}"),
    ),
    "context": Kind(
        lambda policy: Context(policy=policy),
        lambda s, n: s.set("scope", f"k{n:02}", n),
        lambda s, **how: set(s.load("scope", **how).values()),
        lambda s, **how: None,
        lambda s, n: s.delete("scope", f"k{n:02}"),
    ),
    "graph": Kind(
        lambda policy: Graph(policy=policy),
        lambda s, n: s.link("start", "to", str(n)),
        lambda s, **how: {int(found.node) for found in s.neighbors("start", **how)},
        lambda s, **how: None,
        lambda s, n: s.unlink("start", "to", str(n)),
    ),
}


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


def opened(path: Any, kind: Kind, policy: Any) -> Any:
    return waferdb.open(path, {"some": kind.declare(policy=policy), "other": Rows()})


def another(place: str, n: int) -> str:
    return place if place == ":memory:" else f"{place}-{n}"


EVENTUAL = {"consistency": "eventual"}


def test_an_eager_structure_lacks_nothing(place: str, kind: Kind) -> None:
    with opened(place, kind, eager()) as db:
        for n in range(3):
            receipt = kind.write(db.some, n)
            assert receipt.lagging == ()
            assert kind.numbers(db.some, **EVENTUAL) == set(range(n + 1))
        assert db.stats().lag["some"].commits == 0


def test_a_lazy_structure_waits_for_a_read_that_asks(place: str, kind: Kind) -> None:
    with opened(place, kind, lazy()) as db:
        for n in range(3):
            kind.write(db.some, n)
        with db.transaction(priority="critical") as tx:
            kind.write(tx.some, 3)
        assert kind.numbers(db.some, **EVENTUAL) == set()
        freshness = kind.freshness(db.some, **EVENTUAL)
        if freshness is not None:
            assert freshness.behind == 4
            assert freshness.stale
            assert freshness.age > timedelta(0)
            assert freshness.lsn < db.lsn
        assert db.stats().lag["some"].commits == 4
        assert kind.numbers(db.some) == {0, 1, 2, 3}
        assert kind.numbers(db.some, **EVENTUAL) == {0, 1, 2, 3}
        freshness = kind.freshness(db.some, **EVENTUAL)
        if freshness is not None:
            assert (freshness.behind, freshness.age) == (0, timedelta(0))
            assert not freshness.stale
        assert db.stats().lag["some"].commits == 0


def test_each_stronger_read_reflects_a_lazy_structure(place: str, kind: Kind) -> None:
    with opened(place, kind, lazy()) as db:
        for n, how in enumerate(
            [
                lambda: "strong",
                lambda: "session",
                lambda: db.lsn,
                lambda: bounded(max_commits=0),
                lambda: bounded("1h", max_commits=0),
                lambda: bounded("1us"),
            ]
        ):
            kind.write(db.some, n)
            assert kind.numbers(db.some, **EVENTUAL) == set(range(n))
            time.sleep(0.001)
            assert kind.numbers(db.some, consistency=how()) == set(range(n + 1)), how()


def test_bounds_that_are_met_leave_a_lazy_structure_as_it_is(place: str, kind: Kind) -> None:
    with opened(place, kind, lazy()) as db:
        kind.write(db.some, 0)
        kind.write(db.some, 1)
        for met in (bounded("1h"), bounded(max_commits=2), bounded("1h", max_commits=2)):
            assert kind.numbers(db.some, consistency=met) == set()
        assert kind.numbers(db.some, consistency=bounded("1h", max_commits=1)) == {0, 1}


def test_drain_and_wait_reflect_a_lazy_structure_where_it_is_named(place: str, kind: Kind) -> None:
    with opened(place, kind, lazy()) as db:
        kind.write(db.some, 0)
        db.drain()
        db.wait(db.lsn)
        assert kind.numbers(db.some, **EVENTUAL) == set()
        db.drain("some")
        assert kind.numbers(db.some, **EVENTUAL) == {0}
        receipt = kind.write(db.some, 1)
        db.wait(receipt.lsn, "some", timeout=30)
        assert kind.numbers(db.some, **EVENTUAL) == {0, 1}


def test_a_deletion_is_at_once_under_every_policy(place: str, kind: Kind) -> None:
    if kind.delete is None:
        pytest.skip("nothing is deleted from it")
    for n, policy in enumerate((eager(), hybrid(max_age="1h"), lazy())):
        with opened(another(place, n), kind, policy) as db:
            for n in range(3):
                kind.write(db.some, n)
            kind.numbers(db.some)
            kind.write(db.some, 3)
            kind.delete(db.some, 1)
            for how in ("eventual", bounded("1h"), "session", "strong"):
                assert kind.numbers(db.some, consistency=how) == {0, 2, 3}
            kind.write(db.some, 4)
            kind.delete(db.some, 4)
            assert kind.numbers(db.some, **EVENTUAL) == {0, 2, 3}


def test_a_hybrid_structure_follows_by_itself(place: str, kind: Kind) -> None:
    with opened(place, kind, hybrid(max_age="50ms")) as db:
        kind.write(db.some, 0)
        assert eventually(lambda: kind.numbers(db.some, **EVENTUAL) == {0})
        kind.write(db.some, 1)
        assert kind.numbers(db.some) == {0, 1}


def test_a_critical_commit_is_in_a_hybrid_structure_when_it_returns(place: str, kind: Kind) -> None:
    with opened(place, kind, hybrid(max_age="1h")) as db:
        kind.write(db.some, 0)
        with db.transaction(priority="critical") as tx:
            kind.write(tx.some, 1)
        assert tx.receipt.lagging == ()
        assert kind.numbers(db.some, **EVENTUAL) == {0, 1}, "in order: what came before it too"


def busy(db: Any, seconds: float) -> None:
    """Lets time pass while other structures are written to, so that the database is not idle."""
    from waferdb import _simulated

    for n in range(round(seconds * 20)):
        db.other.put("n", {"n": n})
        _simulated.advance(db, 0.05)


def test_a_hybrid_structure_keeps_its_bounds(kind: Kind) -> None:
    from waferdb import _simulated

    schema = {"some": kind.declare(policy=hybrid(max_age="10s", max_items=3)), "other": Rows()}
    with _simulated.open(schema) as db:
        kind.write(db.some, 0)
        busy(db, 9)
        assert kind.numbers(db.some, **EVENTUAL) == set()
        assert db.stats().lag["some"].commits == 1
        assert timedelta(seconds=9) <= db.stats().lag["some"].age < timedelta(seconds=10)
        busy(db, 1.1)
        assert kind.numbers(db.some, **EVENTUAL) == {0}, "as old as it may be"
        assert db.stats().lag["some"].commits == 0
        for n in range(1, 4):
            kind.write(db.some, n)
        busy(db, 1)
        assert kind.numbers(db.some, **EVENTUAL) == {0}
        kind.write(db.some, 4)
        busy(db, 0.05)
        assert kind.numbers(db.some, **EVENTUAL) == set(range(5)), "more than may wait"
        with db.transaction(priority="background") as tx:
            kind.write(tx.some, 5)
        busy(db, 1)
        assert kind.numbers(db.some, **EVENTUAL) == set(range(5))
        _simulated.advance(db, 1)
        assert kind.numbers(db.some, **EVENTUAL) == set(range(6)), "the database was idle"


def test_transactions_and_snapshots_see_everything_before_them(place: str, kind: Kind) -> None:
    with opened(place, kind, lazy()) as db:
        kind.write(db.some, 0)
        with db.transaction() as tx:
            kind.write(tx.some, 1)
            assert kind.numbers(tx.some) == {0, 1}
            tx.rollback()
        kind.write(db.some, 2)
        with db.snapshot() as held:
            kind.write(db.some, 3)
            assert kind.numbers(held.some) == {0, 2}
        with db.snapshot(as_of=1) as past:
            assert kind.numbers(past.some) == {0}
        assert kind.numbers(db.some) == {0, 2, 3}


@pytest.mark.parametrize("policy", [lazy(), hybrid(max_age="1h")], ids=["lazy", "hybrid"])
def test_after_opening_everything_in_the_log_is_reflected(
    path: Path, kind: Kind, policy: Any
) -> None:
    with opened(path, kind, policy) as db:
        for n in range(5):
            kind.write(db.some, n)
    with opened(path, kind, policy) as db:
        assert kind.numbers(db.some, **EVENTUAL) == set(range(5))
        assert db.stats().lag["some"].commits == 0
        assert db.verify(deep=True).ok
    with waferdb.open(path, mode="r") as db:
        assert kind.numbers(db.some, **EVENTUAL) == set(range(5))


def test_a_policy_set_at_run_time_holds_until_the_declaration_changes(
    path: Path, kind: Kind
) -> None:
    with opened(path, kind, lazy()) as db:
        kind.write(db.some, 0)
        db.set_policy("some", eager())
        kind.write(db.some, 1)
        assert kind.numbers(db.some, **EVENTUAL) == {0, 1}
    with opened(path, kind, lazy()) as db:
        kind.write(db.some, 2)
        assert kind.numbers(db.some, **EVENTUAL) == {0, 1, 2}, "the declaration has not changed"
        db.set_policy("some", lazy())
        kind.write(db.some, 3)
        assert kind.numbers(db.some, **EVENTUAL) == {0, 1, 2}
        db.set_policy("some", hybrid(max_age="20ms"))
        assert eventually(lambda: kind.numbers(db.some, **EVENTUAL) == {0, 1, 2, 3})
    with opened(path, kind, eager()) as db:
        kind.write(db.some, 4)
        assert kind.numbers(db.some, **EVENTUAL) == set(range(5))


def test_a_policy_that_there_is_not_is_refused(kind: Kind) -> None:
    for bad in ("lazy", 3, None):
        if bad is not None:
            with pytest.raises(SchemaError, match="policy"):
                kind.declare(policy=bad)
        with opened(":memory:", kind, lazy()) as db:
            with pytest.raises((ValueError, TypeError)):
                db.set_policy("some", bad)
            with pytest.raises((SchemaError, KeyError)):
                db.set_policy("nowhere", lazy())


def test_an_eventual_read_is_one_moment_of_the_whole_structure(place: str) -> None:
    """A put and the index entries of it come together, and commits come in their order."""
    with waferdb.open(place, {"some": Rows(indexes=["n"], policy=hybrid(max_age="1ms"))}) as db:

        def write() -> None:
            for n in range(150):
                with db.transaction() as tx:
                    tx.some.put("a", {"n": n})
                    tx.some.put("b", {"n": n})

        writing = begun(write)
        last = -1
        while last < 149:
            found = [document["n"] for _, document in db.some.scan(consistency="eventual")]
            assert len(set(found)) <= 1
            assert len(found) in (0, 2)
            if found:
                assert found[0] >= last
                last = found[0]
                by_index = list(db.some.find({"n": (0, None)}, consistency="eventual"))
                assert len(by_index) == 2
                assert by_index[0][1] == by_index[1][1]
        writing()


def test_preconditions_and_uniqueness_hold_under_every_policy(place: str) -> None:
    for n, policy in enumerate((lazy(), hybrid(max_age="1h"))):
        with waferdb.open(another(place, n), {"some": Rows(unique=["email"], policy=policy)}) as db:
            first = db.some.put("a", {"email": "a@x"})
            with pytest.raises(waferdb.PreconditionError):
                db.some.put("a", {"email": "b@x"}, if_absent=True)
            with pytest.raises(waferdb.UniqueError):
                db.some.put("b", {"email": "a@x"})
            db.some.put("a", {"email": "c@x"}, if_version=first.lsn)
            with pytest.raises(waferdb.PreconditionError):
                db.some.put("a", {"email": "d@x"}, if_version=first.lsn)
            db.some.patch("a", {"more": 1})
            assert db.some.get("a") == {"email": "c@x", "more": 1}


def test_many_commits_that_nobody_asked_for_are_there_when_asked(path: Path) -> None:
    with waferdb.open(path, {"some": Rows(indexes=["n"], policy=lazy())}) as db:
        with db.batch(every=500) as batch:
            for n in range(20_000):
                batch.some.put(f"k{n:05}", {"n": n % 7})
        assert db.stats().lag["some"].commits == 40
        assert db.some.count(consistency="eventual") == 0
        assert db.some.count() == 20_000
        assert len(list(db.some.find({"n": 3}))) == len(range(3, 20_000, 7))
        assert db.verify(deep=True).ok
