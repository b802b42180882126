"""What a document may hold, and how a refusal names the place."""

import array
import enum
import math
from collections import OrderedDict
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from waferdb import DocumentError, LimitError, documents

_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary()
    | st.datetimes(timezones=st.just(UTC))
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
)


@given(_VALUES)
def test_values_come_back_as_they_were(value: Any) -> None:
    back = documents.decode(documents.encode(value))
    assert back == value
    assert type(back) is type(value)


def test_what_was_refused_or_long_leaves_nothing_in_the_next_value() -> None:
    expected = documents.encode({"n": [1]})
    with pytest.raises(DocumentError):
        documents.encode({"text": "left behind", "n": [2, object()]})
    assert documents.encode({"n": [1]}) == expected
    documents.encode("x" * (2 << 20))
    assert documents.encode({"n": [1]}) == expected


class Point(NamedTuple):
    x: int
    y: int


class Topic(enum.StrEnum):
    CONTACT = "contact"


class Level(enum.IntEnum):
    HIGH = 3


@pytest.mark.parametrize(
    ("given_", "back"),
    [
        ((1, (2,)), [1, [2]]),
        (Point(1, 2), [1, 2]),
        (OrderedDict(a=1), {"a": 1}),
        (Topic.CONTACT, "contact"),
        (Level.HIGH, 3),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
        (
            datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))),
            datetime(2026, 1, 1, tzinfo=UTC),
        ),
    ],
)
def test_relatives_are_stored_as_their_base_type(given_: Any, back: Any) -> None:
    found = documents.decode(documents.encode({"v": given_}))["v"]
    assert found == back
    assert type(found) is type(back)


def test_nan_is_a_value_of_documents() -> None:
    assert math.isnan(documents.decode(documents.encode(math.nan)))


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({1, 2}, "set"),
        (Decimal(1), "Decimal"),
        (1j, "complex"),
        (object(), "object"),
        (np.float64(1), "numpy.float64"),
        (np.float32(1), "numpy.float32"),
        (np.int64(1), "numpy.int64"),
        (np.str_("x"), "numpy.str_"),
        (np.zeros(2), "numpy.ndarray"),
        (array.array("d", [1.0]), "array"),
        (datetime(2026, 1, 1), "time zone"),
        ("\ud800", "surrogate"),
        (2**64, "int outside"),
        (-(2**63) - 1, "int outside"),
    ],
)
def test_a_refusal_names_the_field(bad: Any, says: str) -> None:
    with pytest.raises(DocumentError, match=r"a\.b\[1\]") as caught:
        documents.encode_document({"first": 1, "a": {"b": [0, bad]}, "z": 2})
    assert says in str(caught.value)


def test_surrogates_in_keys_are_refused() -> None:
    with pytest.raises(DocumentError, match="surrogate"):
        documents.encode_document({"a": {"\udfff": 1}})


def test_cycles_are_refused_short_and_long() -> None:
    short: dict[str, Any] = {}
    short["self"] = [short]
    with pytest.raises(DocumentError, match=r"itself at self\[0\]"):
        documents.encode_document(short)
    top: list[Any] = []
    inner = top
    for _ in range(1000):
        inner.append([])
        inner = inner[0]
    inner.append(top)
    with pytest.raises(DocumentError, match="itself"):
        documents.encode(top)


def test_ten_thousand_levels_are_beyond_the_limit() -> None:
    deep: Any = "bottom"
    for _ in range(10_000):
        deep = {"in": deep}
    with pytest.raises(LimitError, match="deeper"):
        documents.encode_document(deep)


@pytest.mark.parametrize("bad", [None, [], "text", 3, b"raw"])
def test_a_row_is_a_map(bad: Any) -> None:
    with pytest.raises(DocumentError, match="dict"):
        documents.encode_document(bad)


def test_raw_values_are_bytes() -> None:
    assert documents.encode_raw(bytearray(b"x")) == b"x"
    assert documents.encode_raw(memoryview(b"xyz")[1:]) == b"yz"
    with pytest.raises(DocumentError, match="bytes"):
        documents.encode_raw("text")
