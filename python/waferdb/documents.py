"""Documents to bytes and back: msgpack, with refusals that name the field.

A value is None, bool, int (int64 to uint64), float, str, bytes, an aware `datetime`, a list or a
map with `str` keys of these. A tuple comes back as a list, a `datetime` in UTC, an instance of a
subclass of these types as its base type. numpy scalars and arrays are refused: say `.item()` or
`.tolist()`.

A packer is used by one call at a time and again by later ones: to make one takes longer than to
pack a document. It is fast and says little when it fails, so a refused value is walked once more to
find where. Map keys, depth and size are checked by the engine, which trusts no caller.
"""

import datetime
from collections.abc import Callable
from typing import Any

import msgpack

from waferdb._core import LIMITS
from waferdb.errors import DocumentError, LimitError

__all__ = ["Document", "decode", "encode", "encode_document", "encode_raw"]

Document = dict[str, Any]

_unpackb: Callable[..., Any] = msgpack.unpackb


def _plain(value: Any) -> Any:
    """What a value of no exactly known type is stored as; called by the packer."""
    kind = type(value)
    if kind is tuple:
        return list(value)
    if kind.__module__.partition(".")[0] != "numpy":
        if isinstance(value, tuple):
            return list(value)
        if isinstance(value, dict):
            return dict(value)
        if isinstance(value, list):
            return list(value)
        # The base type's own conversion: an enum's `str()` would be its name.
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, int):
            return int.__int__(value)
        if isinstance(value, float):
            return float.__float__(value)
        if isinstance(value, bytes):
            return bytes.__bytes__(value)
    raise DocumentError(f"a {kind.__module__}.{kind.__qualname__} cannot be stored")


def _packer() -> Callable[[Any], bytes]:
    packer: Any = msgpack.Packer(default=_plain, datetime=True, strict_types=True)
    pack: Callable[[Any], bytes] = packer.pack
    return pack


# The packers that no call is using. Taking from a list and adding to it are one step each.
_idle = [_packer()]
# A packer keeps room for the longest value it has packed: beyond this it is let go.
_KEPT_BYTES_MAX = 1 << 20


def encode(value: Any) -> bytes:
    """The bytes of any storable value. Raises `DocumentError`, or `LimitError` for its depth."""
    try:
        pack = _idle.pop()
    except IndexError:
        pack = _packer()
    try:
        raw = pack(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as cause:
        raise _refusal(value, cause) from None
    if len(raw) <= _KEPT_BYTES_MAX:
        _idle.append(pack)
    return raw


def encode_document(value: Any) -> bytes:
    """The bytes of a row's document: a map."""
    if not isinstance(value, dict):
        raise DocumentError(
            f"a document is a dict with str keys, not {type(value).__name__}; nothing was written"
        )
    return encode(value)


def encode_raw(value: Any) -> bytes:
    """The bytes of a value under `codec="raw"`: bytes-like, as given."""
    if type(value) is bytes:
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise DocumentError(
        f'under codec="raw" a value is bytes, not {type(value).__name__}; nothing was written'
    )


def decode(raw: bytes) -> Any:
    """The value of its bytes."""
    return _unpackb(raw, timestamp=3, strict_map_key=True, raw=False)


def decode_raw(raw: bytes) -> bytes:
    """The bytes of a raw value: themselves."""
    return raw


def _refusal(value: Any, cause: Exception) -> Exception:
    """Why a value cannot be stored, and at which field."""
    depth_max = LIMITS["document_depth_max"]
    walk: list[tuple[Any, str, frozenset[int]]] = [(value, "", frozenset())]
    while walk:
        item, path, above = walk.pop()
        at = f" at {path}" if path else ""
        if isinstance(item, dict | list | tuple):
            if id(item) in above:
                return DocumentError(f"the value contains itself{at}; nothing was written")
            if len(above) > depth_max:
                cycle = _cycle(value)
                if cycle is not None:
                    return DocumentError(
                        f"the value contains itself at {cycle}; nothing was written"
                    )
                return LimitError(
                    f"the value is nested deeper than {depth_max} levels; nothing was written"
                )
            inside = above | {id(item)}
            if isinstance(item, dict):
                for key in item:
                    if not isinstance(key, str):
                        return DocumentError(
                            f"a map key{at} is {type(key).__name__}, not str; nothing was written"
                        )
                    reason = _scalar_fault(key)
                    if reason:
                        return DocumentError(f"a map key{at} {reason}; nothing was written")
                pairs = [(f"{path}.{key}" if path else key, part) for key, part in item.items()]
            else:
                pairs = [(f"{path}[{index}]", part) for index, part in enumerate(item)]
            walk.extend((part, name, inside) for name, part in reversed(pairs))
            continue
        reason = _scalar_fault(item)
        if reason:
            return DocumentError(f"the value{at} {reason}; nothing was written")
    return DocumentError(f"the value cannot be stored: {cause}; nothing was written")


def _cycle(value: Any) -> str | None:
    """Where a deep value meets itself, if it does: follows containers only, without recursion."""
    open_ids: set[int] = set()
    done: set[int] = set()
    walk: list[tuple[Any, str, bool]] = [(value, "", False)]
    while walk:
        item, path, leaving = walk.pop()
        if leaving:
            open_ids.discard(id(item))
            done.add(id(item))
            continue
        if id(item) in open_ids:
            return path[:200]
        if id(item) in done or not isinstance(item, dict | list | tuple):
            continue
        open_ids.add(id(item))
        walk.append((item, path, True))
        if isinstance(item, dict):
            walk.extend((part, f"{path}.{key}"[-200:], False) for key, part in item.items())
        else:
            walk.extend((part, f"{path}[{i}]"[-200:], False) for i, part in enumerate(item))
    return None


def _scalar_fault(item: Any) -> str | None:
    kind = type(item)
    if kind.__module__.partition(".")[0] == "numpy":
        return f"is a numpy.{kind.__name__}; use .item() or .tolist()"
    if isinstance(item, str):
        try:
            item.encode()
        except UnicodeEncodeError:
            return "has a lone surrogate, which UTF-8 cannot hold"
        return None
    if isinstance(item, int):
        if -(2**63) <= item < 2**64:
            return None
        return "is an int outside -2**63 to 2**64-1; store it as text"
    if isinstance(item, datetime.datetime):
        if item.utcoffset() is None:
            return "is a datetime without time zone; use an aware one"
        if kind is not datetime.datetime:
            return f"is a {kind.__module__}.{kind.__qualname__}; use datetime.datetime"
        return None
    if item is None or isinstance(item, float | bytes | bytearray | memoryview):
        return None
    return f"is a {kind.__module__}.{kind.__qualname__}, which is not a type of documents"
