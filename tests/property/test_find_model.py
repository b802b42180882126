"""`find` against brute force: any documents, any condition, order, limit and continuation.

The same documents are kept without an index, with indexes on each field and on both, and with the
last changes still uncommitted; all must give the answer of the model, which follows the contract:
conditions match values of the same type only (numbers among each other), a document without the
field (or with a list or map there) matches no condition on it, and an order puts documents without
the field first, then None, booleans, numbers, times, text and bytes.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

import waferdb
from waferdb import Rows

TIMES = st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2100, 1, 1)).flatmap(
    lambda naive: st.sampled_from(
        [naive.replace(tzinfo=UTC), naive.replace(tzinfo=timezone(timedelta(hours=5, minutes=30)))]
    )
)
INTEGERS = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)]),
)
FLOATS = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, 1.5, -1.5, 2.0**53, 2.0**63, 2.0**64, 1e300, 5e-324]),
    st.sampled_from([float("inf"), float("-inf")]),
    st.floats(allow_nan=False),
)
NUMBERS = st.one_of(INTEGERS, FLOATS)
TEXTS = st.one_of(
    st.sampled_from(["", "a", "aa", "ab", "b", "a\0", "a\0b", "é", "\uffff", "\U00010000"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
)
BYTES = st.one_of(
    st.sampled_from([b"", b"\0", b"\0\0", b"\xff", b"\xff\xff", b"a"]), st.binary(max_size=3)
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TIMES, TEXTS, BYTES)
NESTED = st.one_of(st.lists(st.integers(0, 2), max_size=2), st.just({"a": 1}))
FIELDS = ("a", "b")
DOCUMENTS = st.fixed_dictionaries(
    {}, optional={"a": SCALARS, "b": st.sampled_from(["x", "y", 1, None]), "c": NESTED}
)
KEYS = st.sampled_from([f"k{n:02}" for n in range(24)])
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, DOCUMENTS),
        st.tuples(st.just("put"), KEYS, DOCUMENTS),
        st.tuples(st.just("patch"), KEYS, DOCUMENTS),
        st.tuples(st.just("delete"), KEYS, st.just({})),
    ),
    max_size=40,
)


@st.composite
def ranges(draw: st.DrawFn) -> tuple[Any, Any]:
    values = draw(st.sampled_from([NUMBERS, TIMES, TEXTS, BYTES]))
    low, high = draw(st.none() | values), draw(st.none() | values)
    if low is None and high is None:
        low = draw(values)
    return (low, high)


CONDITIONS = st.one_of(SCALARS, st.lists(SCALARS, max_size=4), ranges())
WHERES = st.fixed_dictionaries(
    {},
    optional={
        "a": CONDITIONS,
        "b": st.one_of(st.sampled_from(["x", "y", 1, None]), st.just(["x", 1])),
        "c": st.sampled_from([1, None, "a"]),
    },
)

RANKS: list[tuple[type | tuple[type, ...], int]] = [
    (bool, 2),
    ((int, float), 3),
    (datetime, 4),
    (str, 5),
    (bytes, 6),
]


def rank(value: Any) -> int:
    if value is None:
        return 1
    for kind, number in RANKS:
        if isinstance(value, kind):
            return number
    return 0


def comparable(value: Any) -> Any:
    """The value as Python orders it within its rank (text by code points, as UTF-8 does)."""
    return 0 if value is None else value


def same(value: Any, wanted: Any) -> bool:
    return rank(value) == rank(wanted) and bool(comparable(value) == comparable(wanted))


def matches(document: dict[str, Any], where: dict[str, Any]) -> bool:
    for field, condition in where.items():
        if field not in document or isinstance(document[field], list | dict):
            return False
        value = document[field]
        if isinstance(condition, tuple):
            low, high = condition
            kind = rank(low if low is not None else high)
            if rank(value) != kind:
                return False
            if low is not None and value < low:
                return False
            if high is not None and value >= high:
                return False
        elif isinstance(condition, list):
            if not any(same(value, wanted) for wanted in condition):
                return False
        elif not same(value, condition):
            return False
    return True


def ordered(model: dict[str, Any], where: dict[str, Any], order: str | None) -> list[str]:
    keys = [key for key in sorted(model) if matches(model[key], where)]
    if order is None:
        return keys
    field = order.removeprefix("-")

    def position(key: str) -> tuple[int, Any]:
        if field not in model[key]:
            return (0, 0)
        value = model[key][field]
        return (rank(value), comparable(value))

    # A stable sort keeps ties in key order, also when it descends.
    return sorted(keys, key=position, reverse=order.startswith("-"))


class Subject(waferdb.Database):
    bare = Rows()
    single = Rows(indexes=["a", "b"])
    joint = Rows(indexes=[("b", "a"), ("a", "b")])


def apply(rows: Any, model: dict[str, Any] | None, change: tuple[str, str, dict[str, Any]]) -> None:
    kind, key, document = change
    if kind == "put":
        rows.put(key, document)
        if model is not None:
            model[key] = document
    elif kind == "delete":
        rows.delete(key)
        if model is not None:
            model.pop(key, None)
    elif key in rows:
        rows.patch(key, document)
        if model is not None:
            model[key] = {**model[key], **document}


def check(db: Any, model: dict[str, Any], question: tuple[Any, ...]) -> None:
    where, order, limit, continued = question
    expected = ordered(model, where, order)
    for structure in (db.bare, db.single, db.joint):
        found = list(structure.find(where, order=order))
        assert [key for key, _ in found] == expected
        assert all(document == model[key] for key, document in found)
        limited = structure.find(where, order=order, limit=limit)
        assert [key for key, _ in limited] == expected[:limit]
        if expected:
            place = continued % len(expected)
            rest = structure.find(where, order=order, after=expected[place], limit=limit)
            assert [key for key, _ in rest] == expected[place + 1 :][:limit]


QUESTIONS = st.lists(
    st.tuples(
        WHERES,
        st.sampled_from([None, "a", "-a", "b", "-b"]),
        st.integers(0, 8),
        st.integers(0, 30),
    ),
    min_size=1,
    max_size=5,
)


@given(committed=CHANGES, pending=CHANGES, questions=QUESTIONS)
@example(
    committed=[
        ("put", "k00", {"a": 2**53}),
        ("put", "k01", {"a": 2.0**53}),
        ("put", "k02", {"a": 2**53 + 1}),
        ("put", "k03", {"a": True}),
        ("put", "k04", {"a": 1}),
        ("put", "k05", {"a": -0.0}),
        ("put", "k06", {"a": 0}),
    ],
    pending=[],
    questions=[
        ({"a": 2**53}, None, 1, 0),
        ({"a": (1, 2**53 + 1)}, "-a", 2, 1),
        ({"a": 1}, "a", 3, 0),
        ({"a": 0.0}, "a", 3, 0),
    ],
)
@example(
    committed=[("put", "k00", {"a": "a\0b"}), ("put", "k01", {"a": "a"}), ("put", "k02", {})],
    pending=[("put", "k01", {"a": "a\0"}), ("delete", "k00", {}), ("put", "k00", {"a": "a"})],
    questions=[({"a": ("a", "a\0b")}, "a", 5, 0), ({}, "-a", 5, 1), ({"a": []}, None, 5, 0)],
)
def test_find_answers_as_brute_force_does_with_and_without_indexes(
    committed: list[Any], pending: list[Any], questions: list[Any]
) -> None:
    model: dict[str, Any] = {}
    with Subject(":memory:") as db:
        names = ("bare", "single", "joint")
        for number, change in enumerate(committed):
            for name in names:
                apply(db[name], model if name == names[-1] else None, change)
            if number == len(committed) // 2:
                middle = (db.lsn, dict(model))
        for question in questions:
            check(db, model, question)
        if committed:
            with db.snapshot(as_of=middle[0]) as past:
                for question in questions:
                    check(past, middle[1], question)
        with db.transaction() as tx:
            uncommitted = dict(model)
            for change in pending:
                for name in names:
                    apply(tx[name], uncommitted if name == names[-1] else None, change)
            for question in questions:
                check(tx, uncommitted, question)
        for question in questions:
            check(db, uncommitted, question)
        assert db.verify(deep=True).ok


@given(documents=st.lists(DOCUMENTS, max_size=20), where=WHERES)
def test_an_index_added_later_gives_the_same_answers(
    documents: list[dict[str, Any]], where: dict[str, Any], tmp_path_factory: Any
) -> None:
    path = tmp_path_factory.mktemp("late") / "db"
    model = {f"k{n:02}": document for n, document in enumerate(documents)}
    with waferdb.open(path, {"rows": Rows()}) as db:
        if model:
            db["rows"].put_many(list(model.items()))
    with waferdb.open(path, {"rows": Rows(indexes=["a", "b", ("b", "a")])}) as db:
        for order in (None, "a", "-a"):
            found = [key for key, _ in db["rows"].find(where, order=order)]
            assert found == ordered(model, where, order)
