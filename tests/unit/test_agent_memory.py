"""AgentMemory: six structures in one commit, recall, and the barrier of forget."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from numpy.typing import NDArray

import waferdb
from waferdb import AgentMemory, Graph, Vectors, embedders
from waferdb.errors import (
    DocumentError,
    LimitError,
    ReadOnlyError,
    SchemaError,
    TransactionError,
    VectorError,
)

DIM = 32


class Words:
    """A vector per text: each word adds one direction, so texts that share words are near."""

    name = "words"
    dim = DIM

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, texts: list[str], /) -> NDArray[np.float32]:
        self.calls.append(len(texts))
        out = np.zeros((len(texts), DIM), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                out[row] += np.random.default_rng(crc32(word.encode())).standard_normal(DIM)
        return out


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[AgentMemory]:
    with AgentMemory(tmp_path / "agent.wafer", embedder=Words()) as opened:
        yield opened


def places(memory: Any, key: str, user: str = "") -> dict[str, bool]:
    """Which of the structures that answer by key hold this memory."""
    return {
        "facts": memory.facts.get(key) is not None,
        "embeddings": memory.embeddings.get(key) is not None,
        "session": memory.session.get(key) is not None,
        "events": any(True for _ in memory.events.scan(key=key)),
        "context": key in memory.load(user),
    }


# remember


def test_a_memory_is_in_all_six_structures_by_one_commit(memory: AgentMemory) -> None:
    before = memory.lsn
    done = memory.remember(
        "Ann prefers email over Slack", user="ann", topic="contact", key="pref:1", fields={"n": 1}
    )
    assert done.key == "pref:1"
    assert done.receipt.lsn == memory.lsn == before + 1
    row = memory.facts["pref:1"]
    assert row["text"] == "Ann prefers email over Slack"
    assert (row["user"], row["topic"], row["n"]) == ("ann", "contact", 1)
    assert row["time"].tzinfo is not None
    assert memory.embeddings.get("pref:1") is not None
    assert memory.session.get("pref:1") == row
    assert memory.context.get("ann", "pref:1") == row
    assert memory.load("ann") == {"pref:1": row}
    (event,) = memory.events.scan(kind="memory.remembered")
    assert (event.key, event.lsn) == ("pref:1", done.receipt.lsn)
    assert "email" not in repr(event.payload)
    (entry,) = (e for e in memory.audit.entries() if e.lsn == done.receipt.lsn)
    assert entry.actor == "ann"
    assert {change.structure for change in entry.changes} >= {"facts", "embeddings", "context"}


def test_the_document_of_a_memory_is_logged_once(memory: AgentMemory) -> None:
    text = "x" * 100_000
    before = memory.stats().logical_bytes
    memory.remember(text)
    assert memory.stats().logical_bytes - before < 110_000


def test_keys_made_here_are_unique_and_sort_by_time(memory: AgentMemory) -> None:
    keys = [memory.remember(f"fact number {n}").key for n in range(50)]
    assert keys == sorted(set(keys))


def test_keys_of_many_threads_are_unique() -> None:
    from waferdb._memories import new_key

    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: new_key(), range(5_000)))
    assert len(set(keys)) == len(keys)
    assert {len(key) for key in keys} == {26}


def test_remembering_a_key_again_replaces_it_everywhere(memory: AgentMemory) -> None:
    memory.remember("Ann likes tea", user="ann", key="k")
    memory.remember("Bob likes coffee", user="bob", key="k")
    assert memory.facts["k"]["text"] == "Bob likes coffee"
    assert memory.session.get("k") == memory.facts["k"]
    assert memory.load("ann") == {}
    assert memory.load("bob") == {"k": memory.facts["k"]}
    assert [r.text for r in memory.recall("tea coffee", 5)] == ["Bob likes coffee"]


def test_a_vector_and_a_time_of_the_caller_are_kept(memory: AgentMemory) -> None:
    vector = np.arange(1, DIM + 1, dtype=np.float32)
    moment = datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)
    memory.remember("dated", key="k", vector=vector, time=moment)
    stored = memory.embeddings.get("k")
    assert stored is not None
    np.testing.assert_array_equal(stored, vector)
    assert memory.facts["k"]["time"] == moment
    assert memory.recall(vector, 1)[0].time == moment


def test_a_given_vector_needs_no_embedder(memory: AgentMemory) -> None:
    assert isinstance(memory.embedder, Words)
    memory.remember("no call", vector=[1.0] * DIM)
    assert memory.embedder.calls == []


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"text": ""}, ValueError),
        ({"text": "  \n"}, ValueError),
        ({"text": 7}, TypeError),
        ({"text": "a\ud800b"}, DocumentError),
        ({"text": "a", "user": ""}, ValueError),
        ({"text": "a", "user": 1}, TypeError),
        ({"text": "a", "key": ""}, ValueError),
        ({"text": "a", "key": "k" * (64 * 1024 + 1)}, LimitError),
        ({"text": "a", "vector": [1.0] * (DIM - 1)}, VectorError),
        ({"text": "a", "vector": [float("nan")] * DIM}, VectorError),
        ({"text": "a", "vector": "not numbers"}, VectorError),
        ({"text": "a", "fields": {"text": "b"}}, ValueError),
        ({"text": "a", "fields": {"time": 1}}, ValueError),
        ({"text": "a", "fields": ["b"]}, TypeError),
        ({"text": "a", "fields": {"b": object()}}, DocumentError),
        ({"text": "a", "time": datetime(2020, 1, 1)}, ValueError),
        ({"text": "a", "time": "now"}, TypeError),
        ({"text": "a", "priority": "soon"}, ValueError),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(
    memory: AgentMemory, arguments: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        memory.remember(**arguments)
    assert memory.lsn == 0
    assert memory.facts.count() == 0


# remember_many


def test_many_are_one_embedder_call_and_one_commit_per_chunk(memory: AgentMemory) -> None:
    assert isinstance(memory.embedder, Words)
    done = memory.remember_many(f"memory number {n}" for n in range(300))
    assert len(done) == 300
    assert memory.embedder.calls == [256, 44]
    assert memory.lsn == 2
    assert {d.receipt.lsn for d in done} == {1, 2}
    assert memory.facts.count() == memory.embeddings.count() == memory.session.count() == 300


def test_many_take_texts_and_mappings(memory: AgentMemory) -> None:
    done = memory.remember_many(
        ["plain", {"text": "full", "user": "ann", "key": "k", "topic": "t"}]
    )
    assert done[1].key == "k"
    assert memory.facts["k"]["user"] == "ann"


def test_many_with_the_same_key_twice_keep_the_last(memory: AgentMemory) -> None:
    memory.remember_many(
        [{"text": "one", "key": "k", "user": "ann"}, {"text": "two", "key": "k", "user": "bob"}]
    )
    assert memory.facts["k"]["text"] == "two"
    assert memory.load("ann") == {}


def test_a_bad_item_is_named_and_those_before_it_stay(memory: AgentMemory) -> None:
    with pytest.raises(ValueError, match="empty") as caught:
        memory.remember_many(["good", "", "never seen"])
    assert any("item 1" in note for note in caught.value.__notes__)
    assert [row["text"] for _, row in memory.facts.scan()] == ["good"]
    with pytest.raises(ValueError, match="unknown name 'txet'"):
        memory.remember_many([{"txet": "typo"}])


ZERO = np.zeros(DIM, np.float32)
CHAIN: dict[str, Any] = {"d": 1}
for _ in range(200):
    CHAIN = {"d": CHAIN}


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({"vector": ZERO}, VectorError),
        ({"key": "k" * (64 * 1024 + 1)}, LimitError),
        ({"key": "a\ud800b"}, DocumentError),
        ({"fields": CHAIN}, LimitError),
        ({"fields": {"b": object()}}, DocumentError),
        ({"fields": {1: 2}}, DocumentError),
        ({"user": "u" * 1025}, LimitError),
    ],
)
@pytest.mark.parametrize("within", [False, True])
def test_an_item_that_only_the_engine_refuses_is_named_and_those_before_it_stay(
    memory: AgentMemory, bad: dict[str, Any], error: type[Exception], within: bool
) -> None:
    items = ["good", "better", {"text": "bad", **bad}, "never seen"]
    if within:
        with memory.transaction() as tx:
            with pytest.raises(error) as caught:
                tx.remember_many(items)
            tx.rollback()
        assert memory.facts.count() == 0
    else:
        with pytest.raises(error) as caught:
            memory.remember_many(items)
        assert sorted(row["text"] for _, row in memory.facts.scan()) == ["better", "good"]
        assert memory.events.scan(kind="memory.remembered").__next__().lsn == 1
        assert len(list(memory.events.scan())) == memory.session.count() == 2
        assert memory.verify(deep=True).ok
    assert type(caught.value) is error
    assert [note for note in caught.value.__notes__ if "item 2 of remember_many" in note]


def test_items_too_large_for_one_commit_are_commits_of_their_own(memory: AgentMemory) -> None:
    done = memory.remember_many(
        {"text": f"large {n}", "fields": {"blob": bytes(9 << 20)}} for n in range(3)
    )
    assert len({item.key for item in done}) == memory.facts.count() == 3


@pytest.mark.parametrize("items", ["abc", b"abc", {"text": "one"}])
def test_one_item_is_not_taken_for_many(memory: AgentMemory, items: Any) -> None:
    with pytest.raises(TypeError, match="takes a list of items"):
        memory.remember_many(items)
    assert memory.lsn == 0


def test_a_user_too_long_is_called_the_user(memory: AgentMemory) -> None:
    with pytest.raises(LimitError, match="user has at most 1024 bytes, this one has 2000"):
        memory.remember("text", user="u" * 2000)
    with pytest.raises(LimitError, match="user has at most"):
        memory.remember_many([{"text": "x", "user": "ann"}, {"text": "x", "user": "é" * 513}])
    memory.remember("text", user="u" * 1024)
    assert memory.facts.count() == 2


# recall


def test_recall_finds_by_meaning_with_score_and_version(memory: AgentMemory) -> None:
    memory.remember("Ann prefers email over Slack", user="ann", topic="contact", fields={"n": 1})
    done = memory.remember("Bob plays the violin on Sundays", user="bob")
    first, second = memory.recall("the violin", 5)
    assert (first.text, first.user, first.version) == (
        "Bob plays the violin on Sundays",
        "bob",
        done.receipt.lsn,
    )
    assert 1.0 >= first.score > second.score >= -1.0
    assert second.fields == {"n": 1}
    assert second.topic == "contact"


def test_recall_filters_by_user_and_fields(memory: AgentMemory) -> None:
    for user in ("ann", "bob"):
        for n in range(3):
            memory.remember(f"{user} likes thing {n}", user=user, fields={"n": n})
    assert {r.user for r in memory.recall("likes", 10, user="ann")} == {"ann"}
    assert len(memory.recall("likes", 10)) == 6
    (only,) = memory.recall("likes", 10, user="bob", where={"n": 2})
    assert only.text == "bob likes thing 2"
    with pytest.raises(ValueError, match="differ"):
        memory.recall("likes", user="ann", where={"user": "bob"})


def test_recall_of_nothing(memory: AgentMemory) -> None:
    assert list(memory.recall("anything")) == []
    with pytest.raises(ValueError, match="not empty"):
        memory.recall(" ")
    with pytest.raises(VectorError):
        memory.recall([1.0] * (DIM + 1))


# transactions


def test_methods_work_in_a_transaction_with_other_writes(tmp_path: Path) -> None:
    class Team(AgentMemory):
        people = Graph()

    with Team(tmp_path / "team.wafer", embedder=Words()) as team:
        with team.transaction(actor="planner") as tx:
            done = tx.remember("Ann leads the team", user="ann", key="k")
            tx.people.link("ann", "leads", "team")
            assert [r.text for r in tx.recall("leads", 1)] == ["Ann leads the team"]
        assert done.receipt.lsn == team.lsn == 1
        assert all(places(team, "k", "ann").values())
        (entry,) = team.audit.entries()
        assert entry.actor == "planner"


def test_a_rolled_back_memory_is_nowhere(memory: AgentMemory) -> None:
    with memory.transaction() as tx:
        tx.remember("never", key="k")
        tx.rollback()
    assert not any(places(memory, "k").values())
    assert memory.lsn == 0


def test_a_batch_cannot_split_a_memory(memory: AgentMemory) -> None:
    with memory.batch(every=2) as batch, pytest.raises(TransactionError, match="one commit"):
        batch.remember("six writes")
    assert memory.lsn == 0


def test_many_threads_remember_the_same_key(memory: AgentMemory) -> None:
    texts = [f"version {n}" for n in range(40)]
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda text: memory.remember(text, key="k", user=text), texts))
    assert sorted(d.receipt.lsn for d in done) == list(range(1, 41))
    row = memory.facts["k"]
    assert memory.session.get("k") == row
    assert [scope for scope in memory.context.scopes() if memory.load(scope)] == [row["user"]]


# forget


def test_a_forgotten_memory_is_answered_by_no_call_at_any_lsn(tmp_path: Path) -> None:
    path = tmp_path / "agent.wafer"
    with AgentMemory(path, embedder=Words()) as memory:
        written = memory.remember("Ann has a secret garden", user="ann", key="k").receipt
        moment = written.time + timedelta(microseconds=1)
        memory.remember("Ann has a cat", user="ann", key="other")
        receipt = memory.forget("k")
        assert receipt.lsn == memory.lsn
    with AgentMemory(path, embedder=Words()) as memory:
        for past in (None, written.lsn, moment):
            view = memory.snapshot(as_of=past)
            with view:
                assert not any(places(view, "k", "ann").values())
                assert "secret" not in repr(view.recall("secret garden", 10, user="ann"))
                assert "k" not in set(view.facts.keys())
        assert memory.facts.get("k", as_of=written.lsn) is None
        assert "secret" not in repr(list(memory.changes()))
        assert places(memory, "other", "ann") == dict.fromkeys(places(memory, "other"), True)
        proof = memory.audit.prove(written.lsn)
        assert waferdb.audit.verify(proof, memory.audit.head().root)
        assert memory.verify(deep=True).ok


def test_forget_says_so_in_an_event_that_names_no_key(memory: AgentMemory) -> None:
    memory.remember("secret", key="the-key")
    memory.forget("the-key")
    (event,) = memory.events.scan()
    assert event.kind == "memory.forgotten"
    assert "the-key" not in repr(event)


def test_forget_reaches_the_scopes_of_former_users(memory: AgentMemory) -> None:
    first = memory.remember("moved", user="ann", key="k").receipt.lsn
    second = memory.remember("moved", user="bob", key="k").receipt.lsn
    memory.facts.delete("k")
    memory.forget("k")
    for lsn in (first, second, memory.lsn):
        with memory.snapshot(as_of=lsn) as past:
            assert past.load("ann") == past.load("bob") == {}


def test_what_is_remembered_after_forget_stands(memory: AgentMemory) -> None:
    memory.remember("old", user="ann", key="k")
    memory.forget("k")
    memory.remember("new", user="ann", key="k")
    assert all(places(memory, "k", "ann").values())
    assert [r.text for r in memory.recall("old new", 5)] == ["new"]
    assert len(list(memory.events.scan(key="k"))) == 1


def test_forget_works_in_a_transaction(memory: AgentMemory) -> None:
    memory.remember("old", key="k")
    with memory.transaction() as tx:
        tx.forget("k")
        tx.remember("why it went", key="reason")
    assert not any(places(memory, "k").values())
    assert memory.lsn == 2


def test_forgetting_what_is_not_there_is_no_error(memory: AgentMemory) -> None:
    memory.forget("never")
    with pytest.raises(ValueError, match="not empty"):
        memory.forget("")


def test_recall_does_not_take_what_is_forgotten_under_it_for_damage(
    memory: AgentMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(4):
        memory.remember(f"ann likes tea {n}", key=f"k{n}")
    search = Vectors.search
    forgotten: list[str] = []

    def then_forget(self: Vectors, *args: Any, **kwargs: Any) -> Any:
        hits = search(self, *args, **kwargs)
        if len(forgotten) < 2:
            forgotten.append(hits.keys[0])
            memory.forget(hits.keys[0])
        return hits

    monkeypatch.setattr(Vectors, "search", then_forget)
    found = memory.recall("ann likes tea", k=2)
    assert len(forgotten) == 2
    assert len(found) == 2
    assert not {memory.key for memory in found} & set(forgotten)


def test_recall_and_search_beside_forget(memory: AgentMemory) -> None:
    keys = [f"k{n}" for n in range(120)]
    memory.remember_many({"text": f"ann likes tea {key}", "key": key} for key in keys)
    done = threading.Event()

    def look() -> int:
        looks = 0
        while not done.is_set():
            for found in memory.recall("ann likes tea", k=20):
                assert found.text == f"ann likes tea {found.key}"
            query = memory.embedder(["ann likes tea"])[0]
            assert all(hit.row is not None for hit in memory.embeddings.search(query, k=20))
            looks += 1
        return looks

    with ThreadPoolExecutor(3) as pool:
        looking = [pool.submit(look) for _ in range(2)]
        try:
            for key in keys:
                memory.forget(key)
        finally:
            done.set()
        assert all(future.result() > 0 for future in looking)
    assert memory.recall("ann likes tea") == []


# the embedder


def test_a_database_refuses_another_embedder(tmp_path: Path) -> None:
    class Other(Words):
        name = "other words"

    class Longer(Words):
        dim = DIM * 2

    with AgentMemory(tmp_path / "a.wafer", embedder=Words()) as memory:
        memory.remember("mine")
    for other in (Other(), Longer()):
        with pytest.raises(SchemaError):
            AgentMemory(tmp_path / "a.wafer", embedder=other)
    with AgentMemory(tmp_path / "a.wafer", embedder=Words(), mode="r") as memory:
        assert len(memory.recall("mine")) == 1
        with pytest.raises(ReadOnlyError):
            memory.remember("no")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ([[0.0] * DIM], "not a numpy array"),
        (np.zeros((1, DIM)), "float64"),
        (np.zeros((2, DIM), dtype=np.float32), "shape"),
        (np.full((1, DIM), np.nan, dtype=np.float32), "NaN"),
    ],
)
def test_what_an_embedder_returns_is_checked(tmp_path: Path, answer: Any, says: str) -> None:
    class Bad(Words):
        def __call__(self, texts: list[str], /) -> Any:
            return answer

    with AgentMemory(":memory:", embedder=Bad()) as memory:
        with pytest.raises(VectorError, match=says):
            memory.remember("text")
        assert memory.lsn == 0


def test_an_embedder_is_a_name_a_dim_and_a_call() -> None:
    assert isinstance(Words(), embedders.Embedder)
    assert isinstance(embedders.WordLlama(), embedders.Embedder)
    with pytest.raises(TypeError, match="Embedder"):
        AgentMemory(":memory:", embedder=object())  # type: ignore[arg-type]


def test_wordllama_is_offline_deterministic_and_the_same_as_its_own_embed() -> None:
    package = pytest.importorskip("wordllama")
    logging_before = (list(logging.getLogger().handlers), logging.getLogger().level)
    ours = embedders.WordLlama()
    texts = ["one", "a much longer text about loops and their ends", "é \N{SNOWMAN}"]
    answers: list[NDArray[np.float32]] = []
    threads = [threading.Thread(target=lambda: answers.append(ours(texts))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (list(logging.getLogger().handlers), logging.getLogger().level) == logging_before
    model = package.WordLlama.load(cache_dir=Path(package.__file__).parent, disable_download=True)
    for answer in answers:
        assert answer.dtype == np.float32
        np.testing.assert_array_equal(answer, answers[0])
        np.testing.assert_allclose(answer, model.embed(texts), atol=1e-5)
    np.testing.assert_array_equal(ours(texts[:1])[0], answers[0][0])


def test_without_wordllama_the_error_names_the_extra() -> None:
    script = (
        "import sys; sys.modules['wordllama'] = None\n"
        "from waferdb.embedders import WordLlama\n"
        "try: WordLlama()(['x'])\n"
        "except ImportError as e: print(e)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "pip install 'waferdb[embed]'" in done.stdout
