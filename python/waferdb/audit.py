"""Proofs of the audit trail, and their verification without a database.

The trail is the append-only Merkle tree of RFC 6962 section 2.1 over SHA-256; verification is that
of RFC 9162, sections 2.1.3.2 and 2.1.4.2. Whoever keeps a `Head` can later be shown that one commit
is in the trail (`InclusionProof`, `verify`) and that the trail of then was only appended to
(`ConsistencyProof`, `verify_growth`). This module uses hashlib and nothing of the engine, so an
auditor may run it, or another implementation of the RFC, on the JSON forms alone.

A proof comes from elsewhere and is not trusted: whatever it contains, the answer is True or False.
Only a value of another Python type is an error (`TypeError`). Hashes are 32 bytes; in JSON they
are 64 lower-case hexadecimal digits. The whole life of a trail of two entries:

>>> from waferdb.audit import ConsistencyProof, InclusionProof, leaf_hash, node_hash
>>> from waferdb.audit import verify, verify_growth
>>> first, second = leaf_hash(b"first"), leaf_hash(b"second")
>>> root = node_hash(first, second)
>>> verify(InclusionProof(index=0, size=2, leaf_hash=first, path=(second,)), root, b"first")
True
>>> verify(InclusionProof(index=0, size=2, leaf_hash=first, path=(second,)), root, b"other")
False
>>> verify_growth(ConsistencyProof(old_size=1, size=2, path=(second,)), first, root)
True
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

__all__ = [
    "EMPTY_ROOT",
    "Change",
    "ConsistencyProof",
    "Entry",
    "Head",
    "InclusionProof",
    "leaf_hash",
    "node_hash",
    "verify",
    "verify_growth",
]

_HASH_BYTES: Final = 32
_SIZE_MAX: Final = 2**64 - 1
_PATH_MAX: Final = 65  # a tree of 2**64 - 1 leaves is 64 levels high; growth adds one hash
_HEX: Final = re.compile(r"[0-9a-f]{64}")

EMPTY_ROOT: Final[bytes] = hashlib.sha256(b"").digest()
"""The root of a trail without entries: SHA-256 of nothing (RFC 6962 section 2.1)."""


def leaf_hash(leaf: bytes) -> bytes:
    """Hashes the bytes of one leaf: SHA-256(0x00 || leaf), RFC 6962 section 2.1.

    Args:
        leaf: What `Audit.leaf(lsn)` returned, any length.

    Returns:
        32 bytes.

    Raises:
        TypeError: `leaf` is not bytes.

    >>> leaf_hash(b"").hex()
    '6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d'
    """
    return hashlib.sha256(b"\x00" + _bytes(leaf, "leaf")).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    r"""Hashes two subtrees into one: SHA-256(0x01 || left || right), RFC 6962 section 2.1.

    Args:
        left: Hash of the left subtree, 32 bytes.
        right: Hash of the right subtree, 32 bytes.

    Returns:
        32 bytes.

    Raises:
        TypeError: An argument is not bytes.

    >>> node_hash(leaf_hash(b""), leaf_hash(b"\x00")).hex()
    'fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125'
    """
    return hashlib.sha256(b"\x01" + _bytes(left, "left") + _bytes(right, "right")).digest()


@dataclass(frozen=True, slots=True)
class Head:
    """The state of a trail: what an auditor keeps, outside the database, to check against later.

    Attributes:
        size: Entries in the trail.
        root: Hash of the whole tree, 32 bytes.

    >>> Head.from_json(Head(0, EMPTY_ROOT).to_json()).size
    0
    """

    size: int
    root: bytes

    def to_json(self) -> str:
        """Returns `{"size": int, "root": hex}` as one line of JSON."""
        return json.dumps({"size": self.size, "root": self.root.hex()})

    @classmethod
    def from_json(cls, text: str) -> Head:
        """Reads what `to_json` wrote.

        Raises:
            ValueError: Malformed: not JSON, a field missing, unknown or out of range.
            TypeError: `text` is not str.
        """
        fields = _fields(text, "head", ("size", "root"))
        return cls(_size(fields, "size"), _hash(fields["root"], "root"))


@dataclass(frozen=True, slots=True)
class Change:
    """One operation of an audited commit.

    Attributes:
        structure: Name of the structure that changed.
        key: What changed in it, as the structure's keys are.
        kind: What was done to it, such as "put" or "delete".
    """

    structure: str
    key: str | bytes
    kind: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the trail: who changed what, when and why, in one commit.

    Attributes:
        lsn: Log sequence number of the commit.
        index: Place in the trail, from 0: the `index` of its inclusion proofs.
        time: Of the commit, aware, UTC.
        actor: Who, as the transaction stated it.
        reason: Why, as the transaction stated it.
        changes: The commit's operations, in order.
        leaf_hash: Hash of the leaf, 32 bytes.
    """

    lsn: int
    index: int
    time: datetime
    actor: str | None
    reason: str | None
    changes: tuple[Change, ...]
    leaf_hash: bytes


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """Shows that one leaf is in the trail (RFC 9162 section 2.1.3).

    Attributes:
        index: Place of the leaf, from 0.
        size: Entries of the trail that the proof refers to.
        leaf_hash: Hash of the leaf, 32 bytes.
        path: Hashes of the siblings, from the leaf upwards, 32 bytes each; about log2(size).

    >>> proof = InclusionProof(0, 1, leaf_hash(b""), ())
    >>> InclusionProof.from_json(proof.to_json()) == proof
    True
    """

    index: int
    size: int
    leaf_hash: bytes
    path: tuple[bytes, ...]

    def to_json(self) -> str:
        """Returns `{"index": int, "size": int, "leaf_hash": hex, "path": [hex]}` as JSON."""
        return json.dumps(
            {
                "index": self.index,
                "size": self.size,
                "leaf_hash": self.leaf_hash.hex(),
                "path": [step.hex() for step in self.path],
            }
        )

    @classmethod
    def from_json(cls, text: str) -> InclusionProof:
        """Reads what `to_json` wrote. A well-formed proof may still be false: see `verify`.

        Raises:
            ValueError: Malformed: not JSON, a field missing, unknown or out of range.
            TypeError: `text` is not str.
        """
        fields = _fields(text, "inclusion proof", ("index", "size", "leaf_hash", "path"))
        return cls(
            _size(fields, "index"),
            _size(fields, "size"),
            _hash(fields["leaf_hash"], "leaf_hash"),
            _path(fields["path"]),
        )


@dataclass(frozen=True, slots=True)
class ConsistencyProof:
    """Shows that a trail grew by appending only (RFC 9162 section 2.1.4).

    Attributes:
        old_size: Entries of the earlier trail.
        size: Entries of the later one.
        path: Hashes of subtrees, 32 bytes each; empty when the sizes are equal or `old_size` is 0.

    >>> proof = ConsistencyProof(0, 7, ())
    >>> ConsistencyProof.from_json(proof.to_json()) == proof
    True
    """

    old_size: int
    size: int
    path: tuple[bytes, ...]

    def to_json(self) -> str:
        """Returns `{"old_size": int, "size": int, "path": [hex]}` as JSON."""
        return json.dumps(
            {
                "old_size": self.old_size,
                "size": self.size,
                "path": [step.hex() for step in self.path],
            }
        )

    @classmethod
    def from_json(cls, text: str) -> ConsistencyProof:
        """Reads what `to_json` wrote. A well-formed proof may still be false: see `verify_growth`.

        Raises:
            ValueError: Malformed: not JSON, a field missing, unknown or out of range.
            TypeError: `text` is not str.
        """
        fields = _fields(text, "consistency proof", ("old_size", "size", "path"))
        return cls(_size(fields, "old_size"), _size(fields, "size"), _path(fields["path"]))


def verify(proof: InclusionProof, root: bytes, leaf: bytes | None = None) -> bool:
    """Whether the proof shows its leaf to be in the trail with this root (RFC 9162, 2.1.3.2).

    Take the root from a `Head` that you kept, whose size is `proof.size`. A root does not bind
    the size: compare the two where the size matters.

    Args:
        proof: From `Audit.prove`, or from JSON; not trusted.
        root: Of the trail, 32 bytes.
        leaf: The bytes of the leaf, if they too are to be what the trail holds.

    Returns:
        True only if the proof leads from the leaf to the root.

    Raises:
        TypeError: An argument, or a field of the proof, is of another type.

    >>> verify(InclusionProof(0, 1, leaf_hash(b"paid"), ()), leaf_hash(b"paid"), b"paid")
    True
    >>> verify(InclusionProof(1, 1, leaf_hash(b"paid"), ()), leaf_hash(b"paid"))
    False
    """
    if not isinstance(proof, InclusionProof):
        raise TypeError(f"expected an InclusionProof, not {type(proof).__name__}")
    index, size = _int(proof.index, "index"), _int(proof.size, "size")
    start, steps = _bytes(proof.leaf_hash, "leaf_hash"), _steps(proof.path)
    _bytes(root, "root")
    if leaf is not None and leaf_hash(leaf) != start:
        return False
    if not 0 <= index < size <= _SIZE_MAX or not _plausible(start, *steps):
        return False
    node, last, result = index, size - 1, start
    for step in steps:
        if last == 0:
            return False
        if node & 1 or node == last:
            result = node_hash(step, result)
            node, last = _skip_lone(node, last)
        else:
            result = node_hash(result, step)
        node, last = node >> 1, last >> 1
    return last == 0 and result == root


def verify_growth(proof: ConsistencyProof, old_root: bytes, root: bytes) -> bool:
    """Whether the later trail begins with the earlier one, entry by entry (RFC 9162, 2.1.4.2).

    Every trail begins with the empty one and with itself, by an empty proof.

    Args:
        proof: From `Audit.prove_growth`, or from JSON; not trusted.
        old_root: Of the earlier trail, with `proof.old_size` entries, 32 bytes.
        root: Of the later trail, with `proof.size` entries, 32 bytes.

    Returns:
        True only if the proof leads to both roots.

    Raises:
        TypeError: An argument, or a field of the proof, is of another type.

    >>> verify_growth(ConsistencyProof(0, 1, ()), EMPTY_ROOT, leaf_hash(b"paid"))
    True
    >>> verify_growth(ConsistencyProof(1, 1, ()), leaf_hash(b"paid"), leaf_hash(b"unpaid"))
    False
    """
    if not isinstance(proof, ConsistencyProof):
        raise TypeError(f"expected a ConsistencyProof, not {type(proof).__name__}")
    old, new = _int(proof.old_size, "old_size"), _int(proof.size, "size")
    steps = _steps(proof.path)
    _bytes(old_root, "old_root")
    _bytes(root, "root")
    if not 0 <= old <= new <= _SIZE_MAX or not _plausible(old_root, root, *steps):
        return False
    if old == 0 and old_root != EMPTY_ROOT:
        return False
    if old == new:
        return not steps and old_root == root
    if old == 0:
        return not steps
    if old & (old - 1) == 0:  # a complete subtree: the verifier knows its hash already
        steps = (old_root, *steps)
    return _climb(old, new, steps) == (old_root, root)


def _climb(old: int, new: int, steps: tuple[bytes, ...]) -> tuple[bytes, bytes] | None:
    """The roots of both trails that the steps lead to, None where they do not fit the sizes."""
    if not steps:
        return None
    node, last = old - 1, new - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old_result = result = steps[0]
    for step in steps[1:]:
        if last == 0:
            return None
        if node & 1 or node == last:
            old_result, result = node_hash(step, old_result), node_hash(step, result)
            node, last = _skip_lone(node, last)
        else:
            result = node_hash(result, step)
        node, last = node >> 1, last >> 1
    return (old_result, result) if last == 0 else None


def _skip_lone(node: int, last: int) -> tuple[int, int]:
    """Climbs past the levels at which a node on the right edge has no sibling."""
    while node and not node & 1:
        node, last = node >> 1, last >> 1
    return node, last


def _plausible(*hashes: bytes) -> bool:
    return len(hashes) <= _PATH_MAX + 2 and all(len(step) == _HASH_BYTES for step in hashes)


def _int(value: object, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be int, not {type(value).__name__}")
    return value


def _bytes(value: object, name: str) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"{name} must be bytes, not {type(value).__name__}")
    return value


def _steps(value: object) -> tuple[bytes, ...]:
    if not isinstance(value, tuple):
        raise TypeError(f"path must be a tuple of bytes, not {type(value).__name__}")
    return tuple(_bytes(step, "each hash of path") for step in value)


def _fields(text: str, what: str, names: tuple[str, ...]) -> dict[str, Any]:
    """The object in `text`, which has exactly these fields."""
    if not isinstance(text, str):
        raise TypeError(f"the JSON of a {what} must be str, not {type(text).__name__}")
    try:
        fields = json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError(f"not the JSON of a {what}: nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"not the JSON of a {what}: {error}") from None
    if not isinstance(fields, dict):
        raise ValueError(f"not the JSON of a {what}: expected an object")
    if fields.keys() != set(names):
        raise ValueError(f"a {what} has the fields {', '.join(names)} and no others")
    return fields


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field appears twice")
    return fields


def _size(fields: dict[str, Any], name: str) -> int:
    value = fields[name]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _SIZE_MAX:
        raise ValueError(f"{name} must be an integer from 0 to {_SIZE_MAX}")
    return value


def _hash(value: object, name: str) -> bytes:
    if not isinstance(value, str) or not _HEX.fullmatch(value):
        raise ValueError(f"{name} must be a hash of 64 lower-case hexadecimal digits")
    return bytes.fromhex(value)


def _path(value: object) -> tuple[bytes, ...]:
    if not isinstance(value, list) or len(value) > _PATH_MAX:
        raise ValueError(f"path must be a list of at most {_PATH_MAX} hashes")
    return tuple(_hash(step, "each hash of path") for step in value)
