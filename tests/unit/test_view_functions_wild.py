"""The wilder half of the function zoo: slow and endless functions, those that use the database, end
the process or close what they run in. Only their own group suffers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from view_support import (
    Blocked,
    Recorded,
    begun,
    eventually,
    fact,
    fresh_read,
    joined,
    opened,
    reason,
    stale_read,
    within,
)
from view_zoo import LONG, POLICIES, SHORT, each_policy, zoo
from wafer_support import python

import waferdb
from waferdb import StaleViewError, TransactionError, eager, hybrid, lazy

# It takes its time.


@pytest.fixture(params=["sleeps", "loops"])
def endless(request: pytest.FixtureRequest) -> Callable[[threading.Event], Any]:
    """A function that does not return before it is released, asleep or busy."""

    def sleeps(released: threading.Event) -> None:
        released.wait()

    def loops(released: threading.Event) -> None:
        while True:
            if released.is_set():
                break

    return sleeps if request.param == "sleeps" else loops


def strong_or_none(view: Any) -> Any:
    with suppress(StaleViewError):
        return view.get("ann", consistency="strong")
    return None


@each_policy
@pytest.mark.parametrize("on_error", ["stale", "raise"])
def test_beyond_its_timeout_nobody_waits_for_it(
    policy: Any, on_error: str, endless: Callable[[threading.Event], Any]
) -> None:
    def misbehave(group: Any) -> Any:
        endless(z.released)
        return joined(group)

    with zoo(misbehave, policy, timeout=SHORT, on_error=on_error) as z:
        receipt = within(lambda: z.db.facts.put("a2", fact("ann", "two")))
        assert z.db.facts["a2"] == fact("ann", "two")
        if policy == eager():
            assert "profile" in receipt.lagging
        if on_error == "stale":
            assert within(lambda: stale_read(z.db.profile, "ann", "strong")) == {"text": "one"}
        else:
            with pytest.raises(StaleViewError):
                within(lambda: z.db.profile.get("ann", consistency="strong"))
        assert stale_read(z.db.profile, "ann") == {"text": "one"}
        assert reason(z.db, "ann")
        assert z.db.profile.stale() == ["ann"]
        z.others_go_on()
        z.repair()
        within(lambda: z.db.facts.put("a3", fact("ann", "three")))
        assert eventually(lambda: strong_or_none(z.db.profile) == {"text": "one two three"})
        assert fresh_read(z.db.profile, "ann") == {"text": "one two three"}


@each_policy
def test_commits_beside_a_hanging_function_do_not_pile_up_calls(policy: Any) -> None:
    def misbehave(group: Any) -> Any:
        z.released.wait()
        return joined(group)

    with zoo(misbehave, policy, timeout="100ms") as z:
        before = len(z.function.calls)
        for n in range(10):
            within(partial(z.db.facts.put, "a2", fact("ann", str(n))))
            within(lambda: z.db.notes.put("n", {}))
        assert len(z.function.calls) - before <= 10
        assert threading.active_count() < 30
        z.others_go_on()


@each_policy
def test_readers_beside_a_hanging_function_do_not_hold_up_other_groups(policy: Any) -> None:
    def misbehave(group: Any) -> Any:
        z.released.wait()
        return joined(group)

    with zoo(misbehave, policy, timeout="100ms") as z:
        within(lambda: z.db.facts.put("a2", fact("ann", "two")))
        for _ in range(10):
            assert within(lambda: stale_read(z.db.profile, "ann", "strong")) == {"text": "one"}
        z.others_go_on()
        z.repair()
        assert eventually(lambda: strong_or_none(z.db.profile) == {"text": "one two"})


def test_a_hanging_function_holds_up_neither_other_groups_nor_other_views() -> None:
    """The worker's own business: nobody reads strongly, and its time is not over yet."""

    def misbehave(group: Any) -> Any:
        z.released.wait()
        return joined(group)

    with zoo(misbehave, hybrid(max_age="20ms"), timeout=LONG) as z:
        z.db.facts.put("a2", fact("ann", "two"))
        time.sleep(0.3)  # The worker is in the function by now.
        z.db.facts.put("b2", fact("bob", "dos"))
        assert eventually(lambda: z.db.other.get("ann") == {"text": "one two"}, 10)
        assert eventually(lambda: z.db.other.get("bob") == {"text": "uno dos"}, 10)
        assert eventually(lambda: z.db.profile.get("bob") == {"text": "uno dos"}, 10)


@each_policy
def test_one_commit_for_a_hanging_group_and_a_sound_one_computes_the_sound_one(policy: Any) -> None:
    def misbehave(group: Any) -> Any:
        z.released.wait()
        return joined(group)

    with zoo(misbehave, policy, timeout=SHORT) as z:
        with z.db.transaction(priority="critical") as tx:
            tx.facts.put("a2", fact("ann", "two"))
            tx.facts.put("b2", fact("bob", "dos"))
        if policy == lazy():
            within(z.db.profile.refresh)
        assert fresh_read(z.db.profile, "bob", "eventual") == {"text": "uno dos"}
        assert reason(z.db, "bob") == ""
        assert z.db.profile.stale() == ["ann"]


def test_commits_at_once_do_not_queue_up_behind_a_hanging_function() -> None:
    """Each of them may wait for its time, but not for that of those before it as well."""

    def misbehave(group: Any) -> Any:
        z.released.wait()
        return joined(group)

    seconds: list[float] = []

    def commit(n: int) -> None:
        started = time.monotonic()
        z.db.facts.put(f"a{n}", fact("ann", str(n)))
        seconds.append(time.monotonic() - started)

    with zoo(misbehave, eager(), timeout="2s") as z:
        for result in [begun(partial(commit, n)) for n in range(8)]:
            result()
        assert max(seconds) < 5


LOOPING = """
import sys
from view_support import fact, opened
from waferdb import StaleViewError, eager, hybrid, lazy

def profile(group):
    while group.key == "ann":
        pass
    return {"n": len(group.rows)}

policy = {"lazy": lazy(), "hybrid": hybrid(max_age="20ms"), "eager": eager()}[sys.argv[2]]
with opened(sys.argv[1], profile, policy=policy, timeout="300ms") as db:
    receipt = db.facts.put("a1", fact("ann", "one"))
    assert ("profile" in receipt.lagging) == (sys.argv[2] == "eager"), receipt.lagging
    try:
        db.profile.get("ann", consistency="strong")
    except StaleViewError:
        print("refused")
    db.facts.put("b1", fact("bob", "uno"))
    assert db.profile.get("bob", consistency="strong") == {"n": 1}
print("closed", flush=True)
"""


@pytest.mark.parametrize("policy", POLICIES)
def test_a_process_with_a_function_that_never_returns_closes_and_ends(
    path: Path, policy: str
) -> None:
    done = python(LOOPING, path, policy)
    assert done.stdout.split() == ["refused", "closed"], done.stderr
    assert done.returncode == 0, done.stderr
    with opened(path, joined, policy=POLICIES[policy]) as db:
        assert sorted(db.facts.keys()) == ["a1", "b1"]
        assert fresh_read(db.profile, "ann") == {"text": "one"}
        assert db.verify(deep=True).ok


def test_a_slow_function_takes_what_it_saw_and_does_not_run_after_the_writer() -> None:
    function = Blocked()
    with opened(":memory:", function, timeout=LONG) as db:
        db.facts.put("a1", fact("ann", "one"))
        reading = begun(lambda: db.profile.read("ann", consistency="strong"))
        assert function.started.wait(30)
        for n in range(5):
            db.facts.put(f"later{n}", fact("ann", "later"))
        function.released.set()
        read = reading()
        assert read.value == {"text": "one"}
        assert len(function.calls) == 1, "the reader asked for what was there when it began"
        assert stale_read(db.profile, "ann") == {"text": "one"}
        assert db.profile.read("ann").freshness.behind == 5
        assert db.profile.lineage("ann") == [db.facts.read("a1").version]
        assert fresh_read(db.profile, "ann")["text"] == "one" + " later" * 5


def test_a_slow_function_on_a_busy_group_makes_progress_and_is_not_called_in_a_loop() -> None:
    def slow(group: Any) -> Any:
        time.sleep(0.03)
        return {"n": len(group.rows)}

    function = Recorded(slow)
    with opened(":memory:", function, policy=hybrid(max_age="10ms")) as db:
        seen: set[int] = set()
        written = 0

        def write_and_look() -> bool:
            nonlocal written
            db.facts.put(f"a{written}", fact("ann", "x"))
            written += 1
            stored = db.profile.get("ann")
            seen.update([stored["n"]] if stored else [])
            return len(seen) >= 3

        assert eventually(write_and_look), "no result while the group was busy"
        assert eventually(lambda: not db.profile.read("ann").freshness.stale)
        assert db.profile.get("ann") == {"n": written}
        calls = len(function.calls)
        assert calls <= written + 1
        time.sleep(0.3)
        assert len(function.calls) == calls, "nothing changed, and yet it was called"


def test_commits_of_many_threads_on_one_eager_group_leave_it_fresh() -> None:
    function = Recorded(lambda group: {"n": len(group.rows)})
    with opened(":memory:", function, policy=eager()) as db:

        def write(thread: int) -> None:
            for n in range(10):
                db.facts.put(f"{thread}-{n}", fact("ann", "x"))

        for result in [begun(partial(write, thread)) for thread in range(4)]:
            result()
        assert fresh_read(db.profile, "ann", "eventual") == {"n": 40}
        assert len(function.calls) <= 80


def test_many_strong_readers_of_one_stale_group_all_get_the_new_value() -> None:
    function = Blocked()
    with opened(":memory:", function, timeout=LONG) as db:
        db.facts.put("a1", fact("ann", "one"))
        reading = [begun(lambda: fresh_read(db.profile, "ann")) for _ in range(4)]
        assert function.started.wait(30)
        function.released.set()
        assert [result() for result in reading] == [{"text": "one"}] * 4


@pytest.mark.parametrize("delete", [True, False], ids=["deleted", "overwritten"])
def test_a_result_made_of_what_was_deleted_meanwhile_is_not_kept(delete: bool) -> None:
    function = Blocked()
    with opened(":memory:", function, timeout=LONG) as db:
        db.facts.put("a1", fact("ann", "harmless"))
        db.facts.put("a2", fact("ann", "secret"))
        reading = begun(lambda: db.profile.get("ann", consistency="strong"))
        assert function.started.wait(30)
        if delete:
            db.facts.delete("a2")
        else:
            db.facts.put("a2", fact("ann", "other"))
        function.released.set()
        with suppress(StaleViewError):
            assert not delete or "secret" not in str(reading())
        if delete:
            assert "secret" not in str(db.profile.read("ann").value)
        assert "secret" not in fresh_read(db.profile, "ann")["text"]


def test_closing_does_not_wait_for_a_function_beyond_its_timeout() -> None:
    function = Blocked()
    db = opened(":memory:", function, timeout="2s")
    db.facts.put("a1", fact("ann", "one"))
    reading = begun(lambda: db.profile.get("ann", consistency="strong"))
    assert function.started.wait(30)
    within(db.close)
    with pytest.raises((StaleViewError, waferdb.ClosedError)):
        reading()
    function.released.set()


# It uses the database.


@each_policy
def test_it_may_read_the_database(policy: Any) -> None:
    answers: list[Any] = []

    def reads(group: Any) -> Any:
        with db.snapshot() as snapshot:
            answers.append(
                (
                    db.facts.count() >= len(group.rows),
                    [key for key, _ in db.facts.find({"user": group.key})][:1],
                    db.notes.get("n"),
                    snapshot.notes.get("n"),
                    db.profile.get("nobody"),
                    db.profile.get(group.key) == group.previous,
                    db.stats().lsn > 0,
                )
            )
        return joined(group)

    with opened(":memory:", reads, policy=policy) as db:
        db.notes.put("n", {"n": 1})
        within(lambda: db.facts.put("a1", fact("ann", "one")))
        assert within(lambda: fresh_read(db.profile, "ann")) == {"text": "one"}
        assert answers[-1] == (True, ["a1"], {"n": 1}, {"n": 1}, None, True, True)


def in_a_transaction(db: Any) -> None:
    with db.transaction() as tx:
        tx.notes.put("n", {})


def in_a_batch(db: Any) -> None:
    with db.batch() as batch:
        batch.notes.put("n", {})


FORBIDDEN: dict[str, Callable[[Any], Any]] = {
    "writes": lambda db: db.notes.put("n", {}),
    "deletes its input": lambda db: db.facts.delete("a1"),
    "commits a transaction": in_a_transaction,
    "writes in a batch": in_a_batch,
    "writes through a sibling": lambda db: db.connect().notes.put("n", {}),
    "retries": lambda db: db.retry(lambda tx: tx.notes.put("n", {})),
    "reads its own group": lambda db: db.profile.get("ann", consistency="strong"),
    "refreshes its own group": lambda db: db.profile.refresh("ann"),
}


@each_policy
@pytest.mark.parametrize("forbidden", FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_what_it_may_not_do_is_refused_and_stalls_its_group_alone(
    policy: Any, forbidden: Callable[[Any], Any]
) -> None:
    refused: list[BaseException] = []

    def misbehave(group: Any) -> Any:
        try:
            forbidden(z.db)
        except waferdb.WaferError as error:
            refused.append(error)
            raise
        return {"text": "it was let through"}

    with zoo(misbehave, policy) as z:
        within(lambda: z.db.facts.put("a2", fact("ann", "two")))
        assert within(lambda: stale_read(z.db.profile, "ann", "strong")) == {"text": "one"}
        assert refused
        assert all(isinstance(error, StaleViewError | TransactionError) for error in refused)
        assert reason(z.db, "ann")
        assert z.db.notes.count() == 0
        assert "a1" in z.db.facts
        z.others_go_on()
        z.repair()
        assert within(lambda: fresh_read(z.db.profile, "ann")) == {"text": "one two"}


@each_policy
@pytest.mark.parametrize("forbidden", FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_what_it_may_not_do_is_not_done_where_it_ignores_the_refusal(
    policy: Any, forbidden: Callable[[Any], Any]
) -> None:
    def stubborn(group: Any) -> Any:
        with suppress(waferdb.WaferError):
            forbidden(z.db)
        return joined(group)

    with zoo(stubborn, policy) as z:
        within(lambda: z.db.facts.put("a2", fact("ann", "two")))
        within(lambda: z.db.profile.get("ann", consistency="strong"))
        assert z.db.notes.count() == 0
        assert "a1" in z.db.facts
        z.others_go_on()


@each_policy
def test_a_thread_that_it_starts_may_use_the_database(policy: Any) -> None:
    hung: list[bool] = []

    def starts(group: Any) -> Any:
        def work() -> None:
            db.facts.count()
            db.notes.put(f"of {group.key}", {"n": 1})
            with db.transaction() as tx:
                tx.notes.put("n", {"n": len(list(tx.facts))})

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(20)
        hung.append(thread.is_alive())
        return joined(group)

    with opened(":memory:", starts, policy=policy, timeout=LONG) as db:
        within(lambda: db.facts.put("a1", fact("ann", "one")))
        assert within(lambda: fresh_read(db.profile, "ann")) == {"text": "one"}
        assert hung == [False] * len(hung)
        assert hung
        assert sorted(db.notes) == ["n", "of ann"]


@each_policy
def test_it_cannot_close_the_database_under_others(path: Path, policy: Any) -> None:
    def closes(group: Any) -> Any:
        db.close()
        return joined(group)

    db = opened(path, closes, policy=policy, timeout="5s")
    db.facts.put("b1", {"text": "of nobody"})
    with suppress(StaleViewError, TransactionError, waferdb.ClosedError):
        within(lambda: db.facts.put("a1", fact("ann", "one")))
        within(lambda: db.profile.get("ann", consistency="strong"))
    within(db.close)
    with opened(path, joined, policy=policy) as db:
        assert sorted(db.facts.keys()) == ["a1", "b1"]
        assert fresh_read(db.profile, "ann") == {"text": "one"}
        assert db.verify(deep=True).ok


# It ends the process.

EXITING = """
import os, sys, time
from view_support import fact, opened
from waferdb import eager, hybrid, lazy

def profile(group):
    os._exit(7)

policy = {"lazy": lazy(), "hybrid": hybrid(max_age="20ms"), "eager": eager()}[sys.argv[2]]
db = opened(sys.argv[1], profile, policy=policy)
for n in range(3):
    print("trying", f"a{n}", flush=True)
    db.facts.put(f"a{n}", fact("ann", str(n)))
    print("done", f"a{n}", flush=True)
if sys.argv[2] == "lazy":
    db.profile.get("ann", consistency="strong")
time.sleep(60)
"""

LOOKING = """
import os, sys, time
from view_support import opened
db = opened(sys.argv[1], lambda group: os._exit(7))
print(sorted(db.facts), db.profile.get("ann"), db.profile.stale())
time.sleep(0.5)
db.close()
"""


@pytest.mark.parametrize("policy", POLICIES)
def test_what_was_acknowledged_outlives_a_function_that_ends_the_process(
    path: Path, policy: str
) -> None:
    died = python(EXITING, path, policy)
    assert died.returncode == 7, died.stderr
    lines = [line.split() for line in died.stdout.splitlines()]
    tried = {key for word, key in lines if word == "trying"}
    acknowledged = {key for word, key in lines if word == "done"}
    with opened(path, joined, policy=POLICIES[policy]) as db:
        kept = set(db.facts.keys())
        assert acknowledged <= kept <= tried
        assert kept, "the function runs after what it is called for is durable"
        expected = " ".join(key[1:] for key in sorted(kept))
        assert fresh_read(db.profile, "ann") == {"text": expected}
        assert db.verify(deep=True).ok


def test_a_lazy_view_does_not_call_it_again_when_the_database_is_opened(path: Path) -> None:
    assert python(EXITING, path, "lazy").returncode == 7
    looked = python(LOOKING, path)
    assert looked.returncode == 0, looked.stderr
    assert looked.stdout.strip() == "['a0', 'a1', 'a2'] None ['ann']"
    function = Recorded()
    with opened(path, function) as db:
        assert db.profile.stale() == ["ann"]
        time.sleep(0.3)
        assert function.calls == []
        assert fresh_read(db.profile, "ann") == {"text": "0 1 2"}
        assert function.calls == ["ann"]
