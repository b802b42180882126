"""Rows: documents by key, versions, preconditions, unique values, scans and finds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from wafer_support import Memory, locomo_turns

import waferdb

EVERY_TYPE = {
    "none": None,
    "yes": True,
    "no": False,
    "least": -(2**63),
    "most": 2**64 - 1,
    "zero": 0,
    "whole float": 1.0,
    "fraction": 0.1,
    "text": "naïve 日本 \0 😀",
    "empty": "",
    "bytes": b"\x00\xff",
    "when": datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=UTC),
    "list": [1, "two", [3.0, {"four": None}]],
    "map": {"a": {"b": {"c": []}}},
    "": "an empty field name",
}


def test_a_document_of_every_type_comes_back_equal_and_of_the_same_types(db: Any) -> None:
    db.facts.put("k", EVERY_TYPE)
    got = db.facts.get("k")
    assert got == EVERY_TYPE
    assert {name: type(value) for name, value in got.items()} == {
        name: type(value) for name, value in EVERY_TYPE.items()
    }


def test_an_empty_document_is_not_an_absent_one(db: Any) -> None:
    db.facts.put("k", {})
    assert db.facts.get("k") == {}
    assert "k" in db.facts


def test_a_tuple_comes_back_as_a_list(db: Any) -> None:
    db.facts.put("k", {"pair": (1, (2, 3))})
    assert db.facts["k"] == {"pair": [1, [2, 3]]}


def test_a_time_keeps_its_instant_to_the_microsecond_and_comes_back_aware(db: Any) -> None:
    tokyo = datetime(2024, 5, 1, 9, 0, 0, 1, tzinfo=timezone(timedelta(hours=9)))
    early = datetime(1, 1, 2, tzinfo=UTC)
    late = datetime(9999, 12, 30, 23, 59, 59, 999999, tzinfo=UTC)
    db.facts.put("k", {"tokyo": tokyo, "early": early, "late": late})
    got = db.facts["k"]
    assert got == {"tokyo": tokyo, "early": early, "late": late}
    assert all(value.utcoffset() == timedelta(0) for value in got.values())


def test_a_missing_key_is_default_none_or_key_error(db: Any) -> None:
    assert db.facts.get("nobody") is None
    assert db.facts.get("nobody", default={"d": 1}) == {"d": 1}
    assert "nobody" not in db.facts
    with pytest.raises(KeyError, match="nobody"):
        db.facts["nobody"]
    read = db.facts.read("nobody")
    assert (read.value, read.version) == (None, None)


def test_deleting_an_absent_key_is_no_error(db: Any) -> None:
    db.facts.delete("nobody")
    assert db.facts.count() == 0


def test_read_tells_the_version_and_time_of_the_commit_that_wrote(db: Any) -> None:
    receipt = db.facts.put("k", {"n": 1})
    db.facts.put("other", {"n": 2})
    read = db.facts.read("k")
    assert read.value == {"n": 1}
    assert read.version == receipt.lsn
    assert read.time == receipt.time
    assert read.time.utcoffset() == timedelta(0)
    assert isinstance(read.freshness.age, timedelta)
    assert (read.freshness.lsn, read.freshness.behind) == (db.lsn, 0)
    assert read.freshness.stale is False


def test_put_replaces_and_a_delete_removes(db: Any) -> None:
    db.facts.put("k", {"a": 1, "b": 2})
    db.facts.put("k", {"a": 3})
    assert db.facts.get("k") == {"a": 3}
    db.facts.delete("k")
    assert db.facts.get("k") is None
    assert db.facts.count() == 0


def test_a_stored_document_does_not_follow_later_changes_of_the_object(db: Any) -> None:
    document = {"tags": ["a"]}
    db.facts.put("k", document)
    document["tags"].append("b")
    assert db.facts.get("k") == {"tags": ["a"]}
    db.facts.get("k")["tags"].append("c")
    assert db.facts.get("k") == {"tags": ["a"]}


def test_a_document_changed_between_two_puts_of_one_commit_is_two_values(db: Any) -> None:
    document = {"text": "x" * 100, "n": 1}
    with db.transaction() as tx:
        tx.facts.put("first", document)
        document["n"] = 2
        tx.facts.put("second", document)
    assert db.facts["first"]["n"] == 1
    assert db.facts["second"]["n"] == 2


def test_put_many_is_one_commit_and_get_many_is_aligned(db: Any) -> None:
    before = db.lsn
    receipt = db.facts.put_many([(f"k{n}", {"n": n}) for n in range(10)])
    assert receipt.lsn == db.lsn == before + 1
    asked = ["k3", "nobody", "k0", "k3"]
    assert list(db.facts.get_many(asked)) == [{"n": 3}, None, {"n": 0}, {"n": 3}]


def test_delete_many_is_one_commit(db: Any) -> None:
    db.facts.put_many([(f"k{n}", {"n": n}) for n in range(5)])
    before = db.lsn
    db.facts.delete_many(["k1", "k3", "nobody"])
    assert db.lsn == before + 1
    assert list(db.facts) == ["k0", "k2", "k4"]


def test_patch_changes_the_named_fields_and_keeps_the_others(db: Any) -> None:
    db.facts.put("k", {"a": 1, "b": {"x": 1}, "user": "ann"})
    db.facts.patch("k", {"b": 2, "c": 3, "user": "bob"})
    assert db.facts["k"] == {"a": 1, "b": 2, "c": 3, "user": "bob"}
    assert list(db.facts.find({"user": "ann"})) == []
    assert [key for key, _ in db.facts.find({"user": "bob"})] == ["k"]


def test_patch_of_an_absent_key_is_a_key_error(db: Any) -> None:
    with pytest.raises(KeyError, match="nobody"):
        db.facts.patch("nobody", {"a": 1})
    assert "nobody" not in db.facts


def test_if_absent_refuses_a_key_that_is_there(db: Any) -> None:
    db.facts.put("k", {"n": 1}, if_absent=True)
    with pytest.raises(waferdb.PreconditionError, match="k"):
        db.facts.put("k", {"n": 2}, if_absent=True)
    assert db.facts["k"] == {"n": 1}
    db.facts.delete("k")
    db.facts.put("k", {"n": 3}, if_absent=True)
    assert db.facts["k"] == {"n": 3}


def test_if_version_accepts_only_the_version_read(db: Any) -> None:
    first = db.facts.put("k", {"n": 1}).lsn
    second = db.facts.put("k", {"n": 2}, if_version=first).lsn
    with pytest.raises(waferdb.PreconditionError):
        db.facts.put("k", {"n": 3}, if_version=first)
    assert db.facts["k"] == {"n": 2}
    db.facts.put("k", {"n": 4}, if_version=second)
    with pytest.raises(waferdb.PreconditionError):
        db.facts.put("nobody", {"n": 1}, if_version=first)


def test_a_unique_value_belongs_to_one_key_until_it_is_given_up(db: Any) -> None:
    db.facts.put("ann", {"email": "a@x"})
    with pytest.raises(waferdb.UniqueError, match="email"):
        db.facts.put("imposter", {"email": "a@x"})
    assert "imposter" not in db.facts
    db.facts.put("ann", {"email": "a@x", "again": True})
    db.facts.put("ann", {"email": "a@y"})
    db.facts.put("heir", {"email": "a@x"})
    db.facts.delete("heir")
    db.facts.put("next", {"email": "a@x"})
    with pytest.raises(waferdb.UniqueError):
        db.facts.patch("ann", {"email": "a@x"})


def test_documents_without_the_field_are_outside_unique(db: Any) -> None:
    db.facts.put("a", {"n": 1})
    db.facts.put("b", {"n": 2})
    assert db.facts.count() == 2


def test_two_keys_with_one_unique_value_in_one_transaction_are_refused_whole(db: Any) -> None:
    with pytest.raises(waferdb.UniqueError), db.transaction() as tx:
        tx.facts.put("before", {"n": 1})
        tx.facts.put("a", {"email": "same"})
        tx.facts.put("b", {"email": "same"})
    assert db.facts.count() == 0


def test_a_unique_value_can_move_between_keys_in_one_transaction(db: Any) -> None:
    db.facts.put("a", {"email": "e"})
    with db.transaction() as tx:
        tx.facts.delete("a")
        tx.facts.put("b", {"email": "e"})
    assert dict(db.facts.scan()) == {"b": {"email": "e"}}


@pytest.fixture
def lettered(db: Any) -> Any:
    db.facts.put_many(
        [(key, {"k": key}) for key in ["b", "a/2", "a/1", "a/10", "é", "a", "a/", "c"]]
    )
    return db


def keys_of(cursor: Any) -> list[str]:
    return [key for key, _ in cursor]


def test_scan_yields_pairs_in_key_order(lettered: Any) -> None:
    assert list(lettered.facts.scan()) == [
        (key, {"k": key}) for key in ["a", "a/", "a/1", "a/10", "a/2", "b", "c", "é"]
    ]


def test_scan_by_prefix_range_after_limit_and_reverse(lettered: Any) -> None:
    scan = lettered.facts.scan
    assert keys_of(scan(prefix="a/")) == ["a/", "a/1", "a/10", "a/2"]
    assert keys_of(scan(start="a/10", end="c")) == ["a/10", "a/2", "b"]
    assert keys_of(scan(after="a/10", limit=2)) == ["a/2", "b"]
    assert keys_of(scan(after="zzz")) == ["é"]
    assert keys_of(scan(limit=0)) == []
    assert keys_of(scan(reverse=True, limit=3)) == ["é", "c", "b"]
    assert keys_of(scan(prefix="a/", reverse=True)) == ["a/2", "a/10", "a/1", "a/"]
    assert keys_of(scan(prefix="nothing")) == []


def test_scan_backwards_continues_after_a_key_towards_the_start(lettered: Any) -> None:
    assert keys_of(lettered.facts.scan(after="a/10", reverse=True)) == ["a/1", "a/", "a"]


def test_a_key_may_be_anything_that_utf8_holds(db: Any) -> None:
    keys = ["\0", "a\0b", "a", "\U0010ffff", "\ud7ff", "\ue000", " ", "k" * 65_536]
    for key in keys:
        db.facts.put(key, {"k": key})
    assert list(db.facts) == sorted(keys)
    assert all(db.facts[key] == {"k": key} for key in keys)


def test_keys_count_in_and_iteration_agree(lettered: Any) -> None:
    facts = lettered.facts
    assert list(facts.keys()) == list(facts) == keys_of(facts.scan())
    assert facts.count() == 8
    assert all(key in facts for key in facts)


def test_a_cursor_keeps_the_snapshot_of_its_call(lettered: Any) -> None:
    cursor = lettered.facts.scan()
    lettered.facts.delete("b")
    lettered.facts.put("aa", {"late": True})
    lettered.facts.put("c", {"changed": True})
    assert list(cursor) == [
        (key, {"k": key}) for key in ["a", "a/", "a/1", "a/10", "a/2", "b", "c", "é"]
    ]


def test_a_cursor_closes_and_tells_its_freshness(lettered: Any) -> None:
    with lettered.facts.scan() as cursor:
        assert cursor.freshness.lsn == lettered.lsn
        assert next(cursor)[0] == "a"
    with pytest.raises(waferdb.ClosedError):
        next(cursor)
    cursor.close()


def test_a_cursor_ends_with_its_transaction(lettered: Any) -> None:
    with lettered.transaction() as tx:
        cursor = tx.facts.scan()
        assert next(cursor)[0] == "a"
    with pytest.raises(waferdb.ClosedError):
        next(cursor)


def test_a_cursor_ends_in_the_middle_of_a_page(path: Any) -> None:
    db = waferdb.open(path, {"facts": waferdb.Rows(), "blobs": waferdb.Rows(codec="raw")})
    db["facts"].put_many({f"k{n}": {"n": n} for n in range(9)})
    db["blobs"].put_many({b"%d" % n: b"v" for n in range(9)})
    sibling = db.connect()
    live = [handle[name].scan() for handle in (db, sibling) for name in ("facts", "blobs")]
    with pytest.raises(waferdb.ClosedError), sibling.transaction() as tx, db.snapshot() as snapshot:
        cursors = [*live, tx["facts"].scan(), snapshot["blobs"].scan()]
        for cursor in cursors:
            next(cursor)
        db.close()
        for cursor in cursors:
            with pytest.raises(waferdb.ClosedError):
                next(cursor)
        raise waferdb.ClosedError("as the transaction would")


def test_a_siblings_cursors_end_with_it_alone(db: Any) -> None:
    db.facts.put_many({"a": {}, "b": {}, "c": {}})
    sibling = db.connect()
    own, others = sibling.facts.scan(), db.facts.scan()
    assert next(own) == next(others)
    sibling.close()
    with pytest.raises(waferdb.ClosedError):
        next(own)
    assert [key for key, _ in others] == ["b", "c"]


def test_scan_and_find_refuse_bad_arguments_when_called(db: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        db.facts.scan(limit=-1)
    with pytest.raises(TypeError):
        db.facts.scan(nonsense=1)
    with pytest.raises((TypeError, ValueError)):
        db.facts.find({"user": object()})
    with pytest.raises(TypeError):
        db.facts.find("user = 'ann'")
    with pytest.raises(TypeError):
        db.facts.find({1: 2})


def people(db: Any) -> None:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    db.facts.put_many(
        [
            (
                f"p{n:02}",
                {
                    "user": ["ann", "bob", "eve"][n % 3],
                    "topic": f"t{n % 4}",
                    "time": start + timedelta(days=n),
                    "n": n,
                },
            )
            for n in range(24)
        ]
    )
    db.facts.put("anonymous", {"n": 99})


def test_find_by_value_list_and_range(db: Any) -> None:
    people(db)
    find = db.facts.find
    assert keys_of(find({"user": "ann"})) == [f"p{n:02}" for n in range(0, 24, 3)]
    assert keys_of(find({"user": ["ann", "eve"]})) == [f"p{n:02}" for n in range(24) if n % 3 != 1]
    assert keys_of(find({"n": (5, 8)})) == ["p05", "p06", "p07"]
    assert keys_of(find({"n": (None, 2)})) == ["p00", "p01"]
    assert keys_of(find({"n": (22, None)})) == ["anonymous", "p22", "p23"]
    assert keys_of(find({"user": "ann", "topic": "t0"})) == ["p00", "p12"]
    assert keys_of(find({"user": "nobody"})) == []
    assert len(list(find({}))) == 25


def test_find_orders_limits_and_continues(db: Any) -> None:
    people(db)
    find = db.facts.find
    ann = [f"p{n:02}" for n in range(0, 24, 3)]
    assert keys_of(find({"user": "ann"}, order="-time")) == ann[::-1]
    assert keys_of(find({"user": "ann"}, order="time", limit=3)) == ann[:3]
    assert keys_of(find({"user": "ann"}, limit=3, after=ann[2])) == ann[3:6]
    assert keys_of(find({"user": "ann"}, order="-time", limit=3, after=ann[5])) == ann[4:1:-1]
    assert keys_of(find({}, order="user"))[0] == "anonymous"
    assert keys_of(find({}, order="-user"))[-1] == "anonymous"


def test_find_follows_changes_of_the_indexed_field(db: Any) -> None:
    db.facts.put("k", {"user": "ann"})
    db.facts.put("k", {"user": "bob"})
    assert keys_of(db.facts.find({"user": "ann"})) == []
    assert keys_of(db.facts.find({"user": "bob"})) == ["k"]
    db.facts.put("k", {"other": 1})
    assert keys_of(db.facts.find({"user": "bob"})) == []
    db.facts.put("k", {"user": "bob"})
    db.facts.delete("k")
    assert keys_of(db.facts.find({"user": "bob"})) == []


def test_find_tells_types_apart(db: Any) -> None:
    values: list[Any] = [
        None,
        False,
        True,
        0,
        1,
        1.5,
        "",
        "1",
        b"1",
        datetime(2024, 1, 1, tzinfo=UTC),
    ]
    db.facts.put_many([(f"k{n}", {"user": value}) for n, value in enumerate(values)])
    for n, value in enumerate(values):
        assert keys_of(db.facts.find({"user": value})) == [f"k{n}"], value
    assert keys_of(db.facts.find({"user": 1.0})) == ["k4"]
    assert keys_of(db.facts.find({}, order="user")) == [
        "k0", "k1", "k2", "k3", "k4", "k5", "k9", "k6", "k7", "k8"
    ]  # fmt: skip


def test_explain_says_which_index_is_used(db: Any) -> None:
    people(db)
    assert "user" in str(db.facts.explain({"user": "ann"}))
    assert str(db.facts.explain({"user": "ann"})) != str(db.facts.explain({"n": 1}))


def test_raw_rows_take_bytes_and_nothing_else(plain: Any) -> None:
    plain.raw.put(b"\x00\xff", b"\x80" * 100)
    plain.raw.put(b"\x00", b"")
    assert plain.raw.get(b"\x00\xff") == b"\x80" * 100
    assert plain.raw.get(b"\x00") == b""
    assert list(plain.raw.scan(prefix=b"\x00")) == [(b"\x00", b""), (b"\x00\xff", b"\x80" * 100)]
    with pytest.raises((TypeError, waferdb.DocumentError)):
        plain.raw.put(b"k", {"a": 1})
    with pytest.raises(TypeError):
        plain.raw.put("k", b"v")


def test_a_text_key_is_asked_for_where_another_type_is_given(db: Any) -> None:
    for key in (b"bytes", 1, None, ("a",)):
        with pytest.raises(TypeError):
            db.facts.put(key, {"a": 1})
        with pytest.raises(TypeError):
            db.facts.get(key)


def test_everything_is_there_after_reopening(path: Any) -> None:
    with Memory(path) as db:
        people(db)
        db.facts.put("k", EVERY_TYPE)
        db.facts.delete("p00")
        version = db.facts.read("p05").version
        before = dict(db.facts.scan())
    with Memory(path) as db:
        assert dict(db.facts.scan()) == before
        assert db.facts.read("p05").version == version
        assert len(keys_of(db.facts.find({"user": "ann"}))) == 7
        with pytest.raises(waferdb.PreconditionError):
            db.facts.put("k", {}, if_absent=True)


def test_real_conversations_are_found_by_speaker(path: Any, locomo: Any) -> None:
    turns = list(locomo_turns(locomo))
    with Memory(path) as db:
        db.facts.put_many([(key, {"user": who, "text": text}) for key, who, text in turns])
    with Memory(path, mode="r") as db:
        assert db.facts.count() == len(turns)
        speaker = turns[0][1]
        found = list(db.facts.find({"user": speaker}))
        expected = sorted(key for key, who, _ in turns if who == speaker)
        assert [key for key, _ in found] == expected
        assert dict(found)[turns[0][0]]["text"] == turns[0][2]
