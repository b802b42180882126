"""Vectors: distances, links to rows, filters, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from wafer_support import DIM, Memory, vector_of

import waferdb
from waferdb import Rows, Vectors

METRICS = ["cosine", "l2", "dot"]


def distances(metric: str, matrix: Any, query: Any) -> Any:
    matrix, query = matrix.astype(np.float64), query.astype(np.float64)
    if metric == "cosine":
        norms = np.linalg.norm(matrix, axis=1) * np.linalg.norm(query)
        return 1 - matrix @ query / norms
    if metric == "l2":
        return np.linalg.norm(matrix - query, axis=1)
    return -(matrix @ query)


def filled(db: Any, count: int = 50) -> list[str]:
    keys = [f"v{n:03}" for n in range(count)]
    with db.transaction() as tx:
        for n, key in enumerate(keys):
            tx.facts.put(key, {"user": "ann" if n % 10 == 0 else "bob", "n": n})
            tx.embeddings.put(key, vector_of(key))
    return keys


@pytest.mark.parametrize("metric", METRICS)
def test_search_gives_the_nearest_in_order_with_their_true_distances(metric: str) -> None:
    keys = [f"v{n:03}" for n in range(200)]
    matrix = np.stack([vector_of(key, 33) for key in keys])
    query = vector_of("query", 33)
    with waferdb.open(":memory:", {"points": Vectors(dim=33, metric=metric)}) as db:
        db["points"].put_many(keys, matrix)
        hits = db["points"].search(query, k=20)
        exact = db["points"].search(query, k=20, exact=True)
    truth = distances(metric, matrix, query)
    nearest = sorted(range(200), key=lambda n: (truth[n], keys[n]))[:20]
    assert list(exact.keys) == [keys[n] for n in nearest]
    np.testing.assert_allclose(exact.distances, truth[nearest], rtol=1e-4, atol=1e-5)
    assert len(set(hits.keys) & set(exact.keys)) >= 19
    assert list(hits.distances) == sorted(hits.distances)


def test_hits_are_a_sequence_with_keys_distances_rows_and_freshness(db: Any) -> None:
    keys = filled(db)
    hits = db.embeddings.search(vector_of(keys[7]), k=3)
    assert len(hits) == 3
    assert isinstance(hits.keys, list)
    assert isinstance(hits.distances, np.ndarray)
    first = hits[0]
    assert first.key == keys[7]
    assert first.distance == pytest.approx(0, abs=1e-5)
    assert first.row == {"user": "bob", "n": 7}
    assert [hit.key for hit in hits] == hits.keys
    assert hits.freshness.lsn == db.lsn
    assert hits.freshness.behind == 0


def test_ties_are_in_key_order(plain: Any) -> None:
    same = np.ones(DIM, dtype=np.float32)
    for key in ["c", "a", "d", "b"]:
        plain.points.put(key, same)
    assert plain.points.search(same, k=3).keys == ["a", "b", "c"]


def test_fewer_than_k_are_all_there_are(plain: Any) -> None:
    assert plain.points.search(np.zeros(DIM, dtype=np.float32), k=10).keys == []
    plain.points.put("only", np.zeros(DIM, dtype=np.float32))
    assert plain.points.search(np.zeros(DIM, dtype=np.float32), k=10).keys == ["only"]


def test_a_filter_gives_the_nearest_among_the_rows_that_match(db: Any) -> None:
    keys = filled(db, 100)
    query = vector_of("query")
    hits = db.embeddings.search(query, k=5, where={"user": "ann"})
    wanted = keys[::10]
    truth = distances("cosine", np.stack([vector_of(key) for key in wanted]), query)
    assert hits.keys == [wanted[n] for n in np.argsort(truth)[:5]]
    assert len(db.embeddings.search(query, k=50, where={"user": "ann"}).keys) == 10
    assert db.embeddings.search(query, k=5, where={"user": "nobody"}).keys == []


def test_search_many_answers_each_query_as_search_does(db: Any) -> None:
    filled(db)
    queries = np.stack([vector_of(f"q{n}") for n in range(4)])
    many = db.embeddings.search_many(queries, k=3)
    assert [hits.keys for hits in many] == [
        db.embeddings.search(query, k=3).keys for query in queries
    ]


def test_get_gives_the_vector_as_given_and_read_only(plain: Any) -> None:
    vector = vector_of("k")
    plain.points.put("k", vector)
    got = plain.points.get("k")
    assert got.dtype == np.float32
    assert got.shape == (DIM,)
    assert np.array_equal(got, vector)
    with pytest.raises(ValueError, match="read-only"):
        got[0] = 1
    assert plain.points.get("nobody") is None


def test_a_stored_vector_does_not_follow_later_changes_of_the_array(plain: Any) -> None:
    vector = vector_of("k")
    kept = vector.copy()
    with plain.transaction() as tx:
        tx.points.put("k", vector)
        vector[:] = 0
    assert np.array_equal(plain.points.get("k"), kept)


def test_a_view_that_is_not_contiguous_is_stored_by_value(plain: Any) -> None:
    matrix = np.arange(4 * DIM, dtype=np.float32).reshape(DIM, 4)
    plain.points.put("column", matrix[:, 1])
    assert np.array_equal(plain.points.get("column"), matrix[:, 1])
    plain.points.put_many(["a", "b"], matrix.T[1:3])
    assert np.array_equal(plain.points.get("b"), matrix[:, 2])


def test_put_replaces_a_vector_and_the_old_one_is_found_no_more(plain: Any) -> None:
    far, near = np.full(DIM, 100, np.float32), np.zeros(DIM, np.float32)
    plain.points.put("k", near)
    plain.points.put("k", far)
    hits = plain.points.search(near, k=5)
    assert hits.keys == ["k"]
    assert hits.distances[0] == pytest.approx(100 * np.sqrt(DIM), rel=1e-5)


def test_a_deleted_vector_is_found_no_more(plain: Any) -> None:
    plain.points.put("k", vector_of("k"))
    plain.points.delete("k")
    plain.points.delete("k")
    assert plain.points.search(vector_of("k")).keys == []
    assert plain.points.get("k") is None
    assert "k" not in plain.points


def test_keys_count_in_and_iteration_agree(db: Any) -> None:
    keys = filled(db, 5)
    assert sorted(db.embeddings.keys()) == sorted(db.embeddings) == keys
    assert db.embeddings.count() == 5
    assert keys[0] in db.embeddings
    assert "nobody" not in db.embeddings


def test_a_vector_without_a_row_is_refused_with_the_whole_transaction(db: Any) -> None:
    with pytest.raises(waferdb.LinkError, match="orphan"), db.transaction() as tx:
        tx.facts.put("other", {"n": 1})
        tx.embeddings.put("orphan", vector_of("orphan"))
    assert db.facts.count() == 0
    with pytest.raises(waferdb.LinkError):
        db.embeddings.put("orphan", vector_of("orphan"))
    assert db.embeddings.count() == 0


def test_the_row_may_come_after_its_vector_in_the_transaction(db: Any) -> None:
    with db.transaction() as tx:
        tx.embeddings.put("k", vector_of("k"))
        tx.facts.put("k", {"n": 1})
    assert "k" in db.embeddings


def test_deleting_the_row_deletes_the_vector_at_the_same_lsn(db: Any) -> None:
    filled(db, 3)
    before = db.lsn
    receipt = db.facts.delete("v001")
    assert receipt.lsn == db.lsn == before + 1
    assert "v001" not in db.embeddings
    assert "v001" not in db.embeddings.search(vector_of("v001"), k=3).keys
    assert db.verify(deep=True).ok


def test_a_row_written_again_does_not_bring_its_old_vector_back(db: Any) -> None:
    filled(db, 3)
    db.facts.delete("v001")
    db.facts.put("v001", {"user": "ann"})
    assert db.embeddings.get("v001") is None


def test_a_vector_whose_row_is_deleted_meanwhile_is_not_left_without_it(db: Any) -> None:
    filled(db, 3)
    with pytest.raises((waferdb.ConflictError, waferdb.LinkError)), db.transaction() as tx:
        tx.embeddings.put("v001", vector_of("new"))
        db.facts.delete("v001")
    assert "v001" not in db.embeddings
    assert db.verify(deep=True).ok


def test_vectors_are_there_after_reopening(path: Any) -> None:
    with Memory(path) as db:
        filled(db)
        before = db.embeddings.search(vector_of("query"), k=10)
    with Memory(path) as db:
        after = db.embeddings.search(vector_of("query"), k=10)
        assert after.keys == before.keys
        np.testing.assert_allclose(after.distances, before.distances, rtol=1e-6)
        assert np.array_equal(db.embeddings.get("v003"), vector_of("v003"))


BAD = [
    (np.zeros(DIM + 1, np.float32) + 1, "dimension|shape|component"),
    (np.zeros(0, np.float32), "dimension|shape|component"),
    (np.ones((1, DIM), np.float32), "dimension|shape|component"),
    (np.array([np.nan] + [1] * (DIM - 1), np.float32), "(?i)nan|finite"),
    (np.array([np.inf] + [1] * (DIM - 1), np.float32), "(?i)inf|finite"),
    (np.array([-np.inf] + [1] * (DIM - 1), np.float32), "(?i)inf|finite"),
    (np.array([1e300] + [1] * (DIM - 1), np.float64), "(?i)inf|finite|range|large"),
    (np.zeros(DIM, np.float32), "(?i)zero|norm|length"),
]


@pytest.mark.parametrize(("vector", "says"), BAD)
def test_a_bad_vector_is_refused_on_put_and_as_a_query(db: Any, vector: Any, says: str) -> None:
    db.facts.put("k", {"n": 1})
    before = db.lsn
    with pytest.raises(waferdb.VectorError, match=says):
        db.embeddings.put("k", vector)
    with pytest.raises(waferdb.VectorError, match=says):
        db.embeddings.search(vector)
    assert db.lsn == before
    assert db.embeddings.count() == 0


def test_the_wrong_dimension_names_both(db: Any) -> None:
    with pytest.raises(waferdb.VectorError) as caught:
        db.embeddings.search(np.ones(DIM + 3, np.float32))
    assert str(DIM) in str(caught.value)
    assert str(DIM + 3) in str(caught.value)


def test_one_bad_vector_among_many_refuses_all(plain: Any) -> None:
    matrix = np.ones((3, DIM), np.float32)
    matrix[1, 0] = np.nan
    with pytest.raises(waferdb.VectorError):
        plain.points.put_many(["a", "b", "c"], matrix)
    with pytest.raises((waferdb.VectorError, ValueError)):
        plain.points.put_many(["a", "b"], np.ones((3, DIM), np.float32))
    assert plain.points.count() == 0


def test_a_zero_vector_is_welcome_where_the_metric_has_a_meaning_for_it(plain: Any) -> None:
    plain.points.put("zero", np.zeros(DIM, np.float32))
    assert plain.points.search(np.zeros(DIM, np.float32)).distances[0] == 0


def test_more_results_than_the_limit_are_refused(plain: Any) -> None:
    with pytest.raises(ValueError):
        plain.points.search(np.ones(DIM, np.float32), k=10_001)
    with pytest.raises(ValueError):
        plain.points.search(np.ones(DIM, np.float32), k=-1)


def test_other_number_types_are_converted(plain: Any) -> None:
    plain.points.put("ints", np.arange(DIM))
    plain.points.put("doubles", np.arange(DIM, dtype=np.float64))
    assert np.array_equal(plain.points.get("ints"), np.arange(DIM, dtype=np.float32))
    assert np.array_equal(plain.points.get("doubles"), np.arange(DIM, dtype=np.float32))


def test_vectors_without_rows_have_no_row_in_their_hits() -> None:
    schema = {"points": Vectors(dim=2, metric="dot"), "facts": Rows()}
    with waferdb.open(":memory:", schema) as db:
        db["points"].put("k", np.ones(2, np.float32))
        (hit,) = db["points"].search(np.ones(2, np.float32), k=1)
        assert (hit.key, hit.row) == ("k", None)
        assert hit.distance == pytest.approx(-2)
