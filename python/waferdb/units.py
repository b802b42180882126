"""Durations, sizes and times as people write them, turned into the integers the engine takes.

Durations become microseconds, sizes bytes, times microseconds since the epoch (UTC). A naive
`datetime` has no place on that line and is refused. Nothing is rounded down to nothing: a positive
duration is at least one microsecond.
"""

import math
import re
from datetime import UTC, datetime, timedelta

__all__ = [
    "Duration",
    "Size",
    "Time",
    "duration",
    "is_int",
    "positive_duration",
    "size",
    "time",
    "to_datetime",
]

Duration = str | int | float | timedelta
Size = str | int
Time = datetime | str

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_INT64_MAX = 2**63 - 1
_NUMBER_UNIT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-zµ]+)\s*", re.ASCII)

_MICROS = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "min": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
_BYTES = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}


def is_int(value: object) -> bool:
    """Whether it is an `int`; a `bool` is none here, whatever Python says."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_float(value: object) -> bool:
    return isinstance(value, float)


def duration(value: Duration, name: str = "duration") -> int:
    """Microseconds of `"30m"`, `"250ms"`, a number of seconds or a `timedelta`.

    Raises `ValueError` for text it does not know, negative and non-finite values, `TypeError` for
    other types.

    >>> duration("30m"), duration(1.5), duration(timedelta(seconds=2))
    (1800000000, 1500000, 2000000)
    """
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zµ]+)\s*", value)
        unit = _MICROS.get(match[2].replace("µ", "u")) if match else None
        if match is None or unit is None:
            raise ValueError(
                f"{name}={value!r} is no duration: write a number and one of "
                f'{", ".join(_MICROS)}, as in "30m"'
            )
        micros = float(match[1]) * unit if "." in match[1] else int(match[1]) * unit
    elif isinstance(value, timedelta):
        micros = value // _MICROSECOND
    elif is_int(value) or _is_float(value):
        if not math.isfinite(value):
            raise ValueError(f"{name}={value!r} is not finite")
        micros = value * 1_000_000
    else:
        raise TypeError(
            f"{name} is text, a number of seconds or a timedelta, not {type(value).__name__}"
        )
    if micros < 0:
        raise ValueError(f"{name}={value!r} is negative")
    if micros > _INT64_MAX:
        raise ValueError(f"{name}={value!r} is longer than 292,000 years")
    return max(round(micros), 1) if micros else 0


def positive_duration(value: Duration, name: str) -> int:
    """As `duration`, and zero is a `ValueError` too."""
    micros = duration(value, name)
    if micros == 0:
        raise ValueError(f"{name} is zero; it must be longer")
    return micros


def size(value: Size, name: str = "size") -> int:
    """Bytes of `"8MiB"`, `"1.5 GB"` or an `int`.

    Raises `ValueError` for text it does not know and negative values, `TypeError` for other types.

    >>> size("8MiB"), size("1kB"), size(512)
    (8388608, 1000, 512)
    """
    if isinstance(value, str):
        match = _NUMBER_UNIT.fullmatch(value)
        unit = _BYTES.get(match[2].upper()) if match else None
        if match is None or unit is None:
            raise ValueError(
                f"{name}={value!r} is no size: write a number and one of "
                'B, KiB, MiB, GiB, TiB, kB, MB, GB, TB, as in "8MiB"'
            )
        count = round(float(match[1]) * unit) if "." in match[1] else int(match[1]) * unit
    elif is_int(value):
        count = value
    else:
        raise TypeError(f"{name} is text or a number of bytes, not {type(value).__name__}")
    if count < 0:
        raise ValueError(f"{name}={value!r} is negative")
    if count > _INT64_MAX:
        raise ValueError(f"{name}={value!r} is larger than any machine")
    return count


def time(value: Time, name: str = "time") -> int:
    """Microseconds since the epoch of an aware `datetime` or of ISO 8601 text with an offset.

    >>> time("1970-01-01T00:00:01Z")
    1000000
    """
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(
                f'{name}={value!r} is no ISO 8601 time, as in "2026-01-31T12:00:00Z"'
            ) from None
    elif isinstance(value, datetime):
        moment = value
    else:
        raise TypeError(f"{name} is a datetime or ISO 8601 text, not {type(value).__name__}")
    if moment.utcoffset() is None:
        raise ValueError(
            f"{name}={value!r} has no time zone; say which, as in datetime.now(timezone.utc)"
        )
    return (moment - _EPOCH) // _MICROSECOND


def to_datetime(micros: int) -> datetime:
    """The aware UTC `datetime` of microseconds since the epoch."""
    return _EPOCH + timedelta(microseconds=micros)
