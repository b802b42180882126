"""Durations, sizes and times as people write them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from waferdb import bounded, eager, hybrid, lazy, policies, units


@pytest.mark.parametrize(
    ("given", "micros"),
    [
        ("30m", 1_800_000_000),
        ("250ms", 250_000),
        ("10us", 10),
        ("10µs", 10),
        ("1.5 h", 5_400_000_000),
        ("2d", 172_800_000_000),
        ("1w", 604_800_000_000),
        ("3min", 180_000_000),
        (0, 0),
        (2, 2_000_000),
        (0.25, 250_000),
        (1e-9, 1),
        (timedelta(milliseconds=3), 3_000),
    ],
)
def test_durations(given: units.Duration, micros: int) -> None:
    assert units.duration(given) == micros


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "30",
        "m",
        "-3s",
        "3 parsecs",
        "1e3s",
        "3S",
        "٣s",
        -1,
        float("nan"),
        float("inf"),
        timedelta(seconds=-1),
        "99999999999999w",
        1e30,
    ],
)
def test_bad_durations_name_the_argument(bad: units.Duration) -> None:
    with pytest.raises(ValueError, match="ttl"):
        units.duration(bad, "ttl")


@pytest.mark.parametrize("bad", [None, True, b"3s", [3]])
def test_durations_of_other_types(bad: object) -> None:
    with pytest.raises(TypeError):
        units.duration(bad)  # type: ignore[arg-type]


def test_zero_is_no_positive_duration() -> None:
    with pytest.raises(ValueError, match="zero"):
        units.positive_duration("0s", "ttl")


@pytest.mark.parametrize(
    ("given", "count"),
    [("8MiB", 8 << 20), ("1.5 GB", 1_500_000_000), ("512B", 512), ("1kb", 1000), (77, 77), (0, 0)],
)
def test_sizes(given: units.Size, count: int) -> None:
    assert units.size(given) == count


@pytest.mark.parametrize("bad", ["", "8", "MiB", "-8MiB", "8 miles", -1, "9999999999TiB"])
def test_bad_sizes_name_the_argument(bad: units.Size) -> None:
    with pytest.raises(ValueError, match="memory"):
        units.size(bad, "memory")


@pytest.mark.parametrize("bad", [None, 1.5, True, b"8MiB"])
def test_sizes_of_other_types(bad: object) -> None:
    with pytest.raises(TypeError):
        units.size(bad)  # type: ignore[arg-type]


def test_times_of_any_zone_are_one_line() -> None:
    there = datetime(2026, 1, 31, 14, tzinfo=timezone(timedelta(hours=2)))
    assert units.time(there) == units.time("2026-01-31T12:00:00Z")
    assert units.to_datetime(units.time(there)) == there
    assert units.to_datetime(0) == datetime(1970, 1, 1, tzinfo=UTC)


def test_times_keep_microseconds_also_before_the_epoch() -> None:
    moment = datetime(1931, 3, 4, 5, 6, 7, 891_011, tzinfo=UTC)
    assert units.to_datetime(units.time(moment)) == moment


@pytest.mark.parametrize(
    "bad", ["yesterday", "2026-01-31", "2026-01-31T12:00:00", datetime(2026, 1, 1)]
)
def test_times_without_zone_are_refused(bad: units.Time) -> None:
    with pytest.raises(ValueError, match="as_of"):
        units.time(bad, "as_of")


def test_policies_and_their_stored_form() -> None:
    for policy in (eager(), lazy(), hybrid(max_age="2s", max_items=7, max_bytes="1KiB")):
        assert policies.from_json(policy.to_json()) == policy
    assert hybrid("2s").to_json()["max_age"] == 2_000_000


@pytest.mark.parametrize(
    "arguments", [{"max_age": "soon"}, {"max_items": 0}, {"max_bytes": 0}, {"max_bytes": "8"}]
)
def test_bad_policies(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="max_"):
        hybrid(**arguments)  # type: ignore[arg-type]


def test_bounded_needs_a_bound() -> None:
    assert bounded("5s").max_age == 5_000_000
    assert bounded(max_commits=0).max_commits == 0
    with pytest.raises(ValueError, match="bound"):
        bounded()
    with pytest.raises(ValueError, match="max_commits"):
        bounded(max_commits=-1)
