"""What the workloads of vectors judge by: truth, recall, live sets, counts of seals."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import waferdb
from benchmarks import compare, harness, mixture
from benchmarks.compare import VECTORS, Options
from benchmarks.compare.base import UnsupportedError, vector_key
from benchmarks.device import Place
from benchmarks.mixture import BLOCK, Mixture
from benchmarks.sizes import SIZES
from benchmarks.targets import SUBJECT, TARGETS, judge
from benchmarks.workloads import WORKLOADS, text
from benchmarks.workloads.vector_search import SEARCHERS, K, batches, smallest
from benchmarks.workloads.vector_stream import Looks, Stream, schedule

DIM = 16


def test_truth_on_a_circle_is_the_nearest_angles() -> None:
    angles = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    asked = np.array([10.2, 359.9]) * np.pi / 180
    queries = np.stack([np.cos(asked), np.sin(asked)], axis=1).astype(np.float32)
    # In blocks of 100, so that neighbours of 359.9 come from the first and from the last.
    blocks = [(start, circle[start : start + 100]) for start in range(0, 360, 100)]
    found = mixture.truth(blocks, queries, 5)
    assert found.tolist() == [[10, 11, 9, 12, 8], [0, 359, 1, 358, 2]]
    few = mixture.truth([(0, circle[:2])], queries, 3)
    assert few.tolist() == [[1, 0, -1], [0, 1, -1]]


def test_recall_is_the_share_of_true_neighbours() -> None:
    true = np.array([[1, 2, 3, 4], [5, 6, -1, -1]])
    assert mixture.recall([[4, 9, 1], [6, 5]], true) == pytest.approx(4 / 6)
    assert mixture.recall([[], []], true) == 0
    with pytest.raises(ValueError):
        mixture.recall([[1]], true)


def test_truth_in_blocks_is_the_truth_of_all() -> None:
    mixed = Mixture(DIM, centres=50)
    vectors, queries = mixed.vectors(BLOCK + 500), mixed.queries(20)
    whole = np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :K]
    assert mixture.truth(mixture.in_blocks(vectors), queries, K).tolist() == whole.tolist()


def test_a_vector_is_the_same_however_it_is_drawn() -> None:
    mixed = Mixture(DIM)
    every = mixed.vectors(BLOCK + 10)
    assert np.array_equal(Mixture(DIM).vectors(BLOCK + 5, BLOCK - 5), every[BLOCK - 5 : BLOCK + 5])
    assert np.allclose(np.linalg.norm(every, axis=1), 1, atol=1e-5)
    # Neighbours are of the same centre: much nearer than vectors are on average.
    products = mixed.queries(20) @ every.T
    assert np.sort(products, axis=1)[:, -1].mean() > products.mean() + 0.5


@pytest.mark.parametrize("wanted", [10, 11, 500, 1_024])
def test_the_smallest_breadth_is_found(wanted: int) -> None:
    asked: list[int] = []

    def reached(breadth: int) -> bool:
        asked.append(breadth)
        return breadth >= wanted

    assert smallest(reached, 10, 1_024) == wanted
    assert len(asked) <= 12
    assert smallest(lambda _: False, 10, 1_024) is None


@pytest.mark.parametrize("name", SEARCHERS)
def test_every_searcher_finds_the_truth_of_a_small_set(tmp_path: Path, name: str) -> None:
    if compare.missing(name):
        pytest.skip(f"{name} is not installed")
    mixed = Mixture(DIM, centres=20)
    vectors, queries = mixed.vectors(500), mixed.queries(20)
    true = mixture.truth(mixture.in_blocks(vectors), queries, K)
    peer = compare.peer(name)(tmp_path / name, Options(VECTORS, dim=DIM, policy=waferdb.hybrid()))
    for batch in batches(vectors):
        peer.add(*batch)
    peer.drain()
    assert peer.count() == 500
    if name in ("usearch", "hnswlib"):
        peer.set_breadth(200)
    else:
        with pytest.raises(UnsupportedError):
            peer.set_breadth(200)
    single = [peer.numbers(peer.near(query, K)) for query in queries]
    assert mixture.recall(single, true) > 0.99
    assert mixture.recall(peer.numbers_many(peer.near_many(queries, K)), true) > 0.99
    assert all(len(found) == K for found in single)
    peer.close()


def test_a_schedule_deletes_a_tenth_of_what_is_live() -> None:
    writes = schedule(before=40, inserts=200)
    live = set(range(40))
    for put, number in writes:
        if put:
            live.add(number)
        else:
            live.remove(number)
    assert sum(put for put, _ in writes) == 200
    assert len(live) == 40 + 200 - 20


class Hits:
    """An answer that a test makes up."""

    def __init__(self, numbers: list[int], lsn: int) -> None:
        self.keys = [vector_key(number) for number in numbers]
        self.freshness = waferdb.Freshness(lsn)


def test_a_stream_is_judged_by_what_was_live_at_the_lsn_of_each_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed = Mixture(DIM, centres=5)
    vectors, queries = mixed.vectors(60), mixed.queries(25)
    options = Options(VECTORS, dim=DIM)
    peer = compare.peer(SUBJECT)(tmp_path / "store", options)
    stream = Stream(peer, vectors)
    stream.put([vector_key(n) for n in range(50)], vectors[:50])
    before = stream.acknowledged
    stream.search(queries[0])
    nearest = stream.searches[0].numbers[0]
    stream.write((False, nearest))
    stream.write((True, 55))
    for query in queries[1:]:
        stream.search(query)
    found = stream.judged(queries)
    assert found == {"recall_min": 1.0, "recall": 1.0, "deleted_returned": 0, "stale": 0}

    # An answer as of before the deletion has the vector, and is late: it was acknowledged.
    answer = Hits(stream.searches[0].numbers, before)
    monkeypatch.setattr(stream, "structure", Answering(answer))
    stream.searches.clear()
    stream.search(queries[0])
    found = stream.judged(queries[:1])
    assert (found["deleted_returned"], found["stale"], found["recall"]) == (1, 1, 1.0)
    # One that claims to be current is judged by what is live now.
    answer.freshness = waferdb.Freshness(stream.acknowledged)
    stream.searches.clear()
    stream.search(queries[0])
    found = stream.judged(queries[:1])
    assert (found["deleted_returned"], found["stale"]) == (1, 0)
    assert found["recall"] == pytest.approx(0.9)
    peer.close()


class Answering:
    """A structure with one answer."""

    def __init__(self, answer: Hits) -> None:
        self._answer = answer

    def search(self, _query: Any, _k: int) -> Hits:
        return self._answer


class Growing:
    """A database whose vectors were sealed to these sizes."""

    def __init__(self, *sizes: int) -> None:
        self._sizes = list(sizes)
        self.db = self
        self.by: dict[tuple[str, str], int] = {}

    def stats(self) -> Growing:
        self.by = {("embeddings", "seal"): self._sizes.pop(0), ("facts", "merge"): len(self._sizes)}
        return self


def test_a_seal_that_is_seen_growing_twice_is_one() -> None:
    looks, stop = Looks(Growing(0, 5, 9, 9, 12, 12, 12, 13)), threading.Event()
    stop.set()
    for _ in range(8):
        looks.until(stop)
    assert looks.bursts("seal") == 3
    assert looks.bursts("merge") == 0


def test_without_a_seal_there_is_nothing_to_judge_of_graphs() -> None:
    rows: list[dict[str, Any]] = []
    for workload in ("locomo", "vector-stream"):
        cases = WORKLOADS[workload].cases(SIZES["tiny"])
        found = {"difference": 0.0, "sealed": False, "enough_sealed": False, "n_done": 1}
        for case in cases:
            rows.append({"workload": workload, "case": case.name, "peer": SUBJECT, "round": 0})
            rows[-1].update(found=found, notes=[], problem=None, durable=True, refused=False)
    verdicts = judge(rows)
    assert len(verdicts) == sum(t.workload in ("locomo", "vector-stream") for t in TARGETS)
    assert {(v.word, v.note) for v in verdicts} == {
        ("not judged", "sealed: no"),
        ("not judged", "enough sealed: no"),
    }


def test_commits_are_not_judged_beside_a_lazy_stream_that_fell_behind() -> None:
    found = {"enough_sealed": True, "lazy_kept_pace": False, "commit_ratio": 1.0, "recall_min": 1.0}
    case = WORKLOADS["vector-stream"].cases(SIZES["tiny"])[0].name
    row = {"workload": "vector-stream", "case": case, "peer": SUBJECT, "round": 0, "found": found}
    verdicts = judge([{**row, "notes": [], "problem": None, "durable": True, "refused": False}])
    words = {v.target.figure: (v.word, v.note) for v in verdicts}
    assert words["commit_ratio"] == ("not judged", "lazy kept pace: no")
    assert words["recall_min"] == ("met", "")


def test_a_peer_is_told_what_waferdb_found(tmp_path: Path) -> None:
    run = harness.Run(SIZES["tiny"], Place(tmp_path), (SUBJECT, "usearch"))
    run.workload("vector-search")
    own, theirs = (row["found"] for row in run.rows)
    assert theirs["equal_recall"] >= own["recall"] - 0.002
    assert own["equal_per_second"] == own["per_second"]


def test_questions_without_text_are_refused_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(text.LOCOMO, str(tmp_path / "not there.json"))
    run = harness.Run(SIZES["tiny"], Place(tmp_path), (SUBJECT,))
    run.workload("locomo")
    assert all(row["refused"] and "no text" in row["problem"] for row in run.rows)
