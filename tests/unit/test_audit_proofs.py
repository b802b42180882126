"""Audit proofs: reference vectors, a model from the RFC's definition, and hostile input."""

from __future__ import annotations

import ast
import doctest
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waferdb import audit
from waferdb.audit import (
    EMPTY_ROOT,
    ConsistencyProof,
    Head,
    InclusionProof,
    leaf_hash,
    node_hash,
    verify,
    verify_growth,
)

# The sample tree of the certificate-transparency reference implementation.
INPUTS = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    bytes.fromhex(text)
    for text in (
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    )
]
INCLUSION: list[tuple[int, int, list[str]]] = [
    (0, 1, []),
    (
        5,
        8,
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
    (
        1,
        5,
        [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]
CONSISTENCY: list[tuple[int, int, list[str]]] = [
    (1, 1, []),
    (
        1,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        6,
        8,
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (
        2,
        5,
        [
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]

LEAVES = [leaf_hash(b"leaf %d" % number) for number in range(70)]


# The model: RFC 6962 section 2.1 word for word, over lists of leaf hashes.


def split(count: int) -> int:
    k = 1
    while k * 2 < count:
        k *= 2
    return k


def mth(d: list[bytes]) -> bytes:
    if not d:
        return hashlib.sha256(b"").digest()
    if len(d) == 1:
        return d[0]
    k = split(len(d))
    return node_hash(mth(d[:k]), mth(d[k:]))


def path(m: int, d: list[bytes]) -> list[bytes]:
    if len(d) == 1:
        return []
    k = split(len(d))
    if m < k:
        return [*path(m, d[:k]), mth(d[k:])]
    return [*path(m - k, d[k:]), mth(d[:k])]


def subproof(m: int, d: list[bytes], known: bool) -> list[bytes]:
    if m == len(d):
        return [] if known else [mth(d)]
    k = split(len(d))
    if m <= k:
        return [*subproof(m, d[:k], known), mth(d[k:])]
    return [*subproof(m - k, d[k:], False), mth(d[:k])]


def included(index: int, size: int) -> InclusionProof:
    return InclusionProof(index, size, LEAVES[index], tuple(path(index, LEAVES[:size])))


def grown(old: int, size: int) -> ConsistencyProof:
    return ConsistencyProof(old, size, tuple(subproof(old, LEAVES[:size], True)))


def flip(value: bytes, bit: int) -> bytes:
    changed = bytearray(value)
    changed[bit // 8] ^= 1 << (bit % 8)
    return bytes(changed)


def test_reference_roots() -> None:
    hashes = [leaf_hash(data) for data in INPUTS]
    assert ROOTS[0] == EMPTY_ROOT
    for size, root in enumerate(ROOTS):
        assert mth(hashes[:size]) == root


@pytest.mark.parametrize(("index", "size", "steps"), INCLUSION)
def test_reference_inclusion(index: int, size: int, steps: list[str]) -> None:
    hashes = tuple(bytes.fromhex(step) for step in steps)
    proof = InclusionProof(index, size, leaf_hash(INPUTS[index]), hashes)
    assert verify(proof, ROOTS[size], INPUTS[index])
    assert not verify(proof, ROOTS[size], INPUTS[index] + b"x")


@pytest.mark.parametrize(("old", "size", "steps"), CONSISTENCY)
def test_reference_consistency(old: int, size: int, steps: list[str]) -> None:
    proof = ConsistencyProof(old, size, tuple(bytes.fromhex(step) for step in steps))
    assert verify_growth(proof, ROOTS[old], ROOTS[size])


def test_every_proof_of_the_model_verifies() -> None:
    for size in range(1, 34):
        root = mth(LEAVES[:size])
        for index in range(size):
            assert verify(included(index, size), root, b"leaf %d" % index)
        for old in range(1, size + 1):
            assert verify_growth(grown(old, size), mth(LEAVES[:old]), root)


def test_empty_and_equal_trails() -> None:
    root, other = LEAVES[0], LEAVES[1]
    assert verify_growth(ConsistencyProof(0, 0, ()), EMPTY_ROOT, EMPTY_ROOT)
    assert verify_growth(ConsistencyProof(0, 3, ()), EMPTY_ROOT, root)
    assert verify_growth(ConsistencyProof(3, 3, ()), root, root)
    assert not verify_growth(ConsistencyProof(0, 0, ()), root, root)
    assert not verify_growth(ConsistencyProof(0, 3, ()), root, root)
    assert not verify_growth(ConsistencyProof(0, 3, (other,)), EMPTY_ROOT, root)
    assert not verify_growth(ConsistencyProof(3, 3, (other,)), root, root)
    assert not verify_growth(ConsistencyProof(3, 3, ()), root, other)
    assert not verify_growth(ConsistencyProof(3, 2, ()), root, root)
    assert not verify_growth(ConsistencyProof(2, 3, ()), root, root)
    assert not verify_growth(ConsistencyProof(3, 4, ()), root, root)


@given(st.data(), st.integers(2, 70), st.integers(0, 255))
def test_any_change_to_an_inclusion_proof_is_found(data: Any, size: int, bit: int) -> None:
    index = data.draw(st.integers(0, size - 1))
    root, proof = mth(LEAVES[:size]), included(index, size)
    at = data.draw(st.integers(0, len(proof.path) - 1))
    steps = list(proof.path)
    steps[at] = flip(steps[at], bit)
    leaf = proof.leaf_hash
    assert verify(proof, root)
    assert not verify(proof, flip(root, bit))
    assert not verify(InclusionProof(index, size, leaf, tuple(steps)), root)
    assert not verify(InclusionProof(index, size, flip(leaf, bit), proof.path), root)
    assert not verify(InclusionProof(index, size, leaf, proof.path[1:]), root)
    assert not verify(InclusionProof(index, size, leaf, proof.path[:-1]), root)
    assert not verify(InclusionProof(index, size, leaf, (*proof.path, root)), root)
    assert not verify(InclusionProof((index + 1) % size, size, leaf, proof.path), root)


@given(st.data(), st.integers(2, 70), st.integers(0, 255))
def test_any_change_to_a_consistency_proof_is_found(data: Any, size: int, bit: int) -> None:
    old = data.draw(st.integers(1, size - 1))
    before, after, proof = mth(LEAVES[:old]), mth(LEAVES[:size]), grown(old, size)
    at = data.draw(st.integers(0, len(proof.path) - 1))
    steps = list(proof.path)
    steps[at] = flip(steps[at], bit)
    assert verify_growth(proof, before, after)
    assert not verify_growth(proof, flip(before, bit), after)
    assert not verify_growth(proof, before, flip(after, bit))
    for changed in (tuple(steps), proof.path[1:], (*proof.path, after)):
        assert not verify_growth(ConsistencyProof(old, size, changed), before, after)


NUMBERS = st.one_of(
    st.integers(), st.integers(0, 70), st.sampled_from([2**63, 2**64 - 1, 2**64, 10**400])
)
PATHS = st.lists(st.binary(max_size=40) | st.sampled_from(LEAVES), max_size=80).map(tuple)
HASHES = st.binary(max_size=40) | st.sampled_from(LEAVES)


@given(NUMBERS, NUMBERS, HASHES, PATHS, HASHES)
def test_hostile_proofs_are_false(
    first: int, size: int, leaf: bytes, steps: tuple[bytes, ...], root: bytes
) -> None:
    if steps:  # without steps a proof of one leaf, or of no growth, can be true
        assert verify(InclusionProof(first, size, leaf, steps), root) is False
        assert verify_growth(ConsistencyProof(first, size, steps), leaf, root) is False


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((grown(2, 5), LEAVES[0]), "ConsistencyProof"),
        ((None, LEAVES[0]), "NoneType"),
        ((included(2, 5), "00"), "root"),
        ((included(2, 5), bytearray(32)), "root"),
        ((included(2, 5), LEAVES[0], "text"), "leaf"),
        ((InclusionProof("1", 5, LEAVES[0], ()), LEAVES[0]), "index"),  # type: ignore[arg-type]
        ((InclusionProof(True, 5, LEAVES[0], ()), LEAVES[0]), "index"),
        ((InclusionProof(1, 5.0, LEAVES[0], ()), LEAVES[0]), "size"),  # type: ignore[arg-type]
        ((InclusionProof(1, 5, None, ()), LEAVES[0]), "leaf_hash"),  # type: ignore[arg-type]
        ((InclusionProof(1, 5, LEAVES[0], []), LEAVES[0]), "path"),  # type: ignore[arg-type]
        ((InclusionProof(1, 5, LEAVES[0], ("x",)), LEAVES[0]), "path"),  # type: ignore[arg-type]
    ],
)
def test_other_types_are_type_errors(arguments: tuple[Any, ...], told: str) -> None:
    with pytest.raises(TypeError, match=told):
        verify(*arguments)


def test_other_types_are_type_errors_of_growth() -> None:
    root: Any = LEAVES[0]
    wrong: Any = included(2, 5)
    with pytest.raises(TypeError, match="InclusionProof"):
        verify_growth(wrong, root, root)
    with pytest.raises(TypeError, match="old_root"):
        verify_growth(grown(2, 5), root.hex(), root)
    with pytest.raises(TypeError, match="leaf"):
        leaf_hash(root.hex())


@given(st.integers(1, 70), st.data())
def test_json_round_trip(size: int, data: Any) -> None:
    inclusion = included(data.draw(st.integers(0, size - 1)), size)
    growth = grown(data.draw(st.integers(1, size)), size)
    head = Head(size, mth(LEAVES[:size]))
    assert InclusionProof.from_json(inclusion.to_json()) == inclusion
    assert ConsistencyProof.from_json(growth.to_json()) == growth
    assert Head.from_json(head.to_json()) == head


def test_json_form() -> None:
    proof = InclusionProof(1, 2, b"\xab" * 32, (b"\x01" * 32,))
    assert json.loads(proof.to_json()) == {
        "index": 1,
        "size": 2,
        "leaf_hash": "ab" * 32,
        "path": ["01" * 32],
    }
    assert json.loads(grown(1, 2).to_json()).keys() == {"old_size", "size", "path"}
    assert json.loads(Head(0, EMPTY_ROOT).to_json()) == {"size": 0, "root": EMPTY_ROOT.hex()}


GOOD = {"index": 0, "size": 2, "leaf_hash": "00" * 32, "path": ["11" * 32]}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        "{",
        "[" * 100_000,
        "1" * 5_000,
        '{"index": 0, "index": 1, "size": 2, "leaf_hash": "", "path": []}',
        json.dumps({**GOOD, "more": 1}),
        json.dumps({key: value for key, value in GOOD.items() if key != "path"}),
        json.dumps({**GOOD, "index": -1}),
        json.dumps({**GOOD, "index": True}),
        json.dumps({**GOOD, "index": 1.0}),
        json.dumps({**GOOD, "index": float("nan")}),
        json.dumps({**GOOD, "size": 2**64}),
        json.dumps({**GOOD, "size": "2"}),
        json.dumps({**GOOD, "leaf_hash": "00" * 31}),
        json.dumps({**GOOD, "leaf_hash": "00" * 32 + "\n"}),
        json.dumps({**GOOD, "leaf_hash": "0 " * 32}),
        json.dumps({**GOOD, "leaf_hash": "AB" * 32}),
        json.dumps({**GOOD, "leaf_hash": "\u0660" * 64}),
        json.dumps({**GOOD, "leaf_hash": None}),
        json.dumps({**GOOD, "path": {"0": "11" * 32}}),
        json.dumps({**GOOD, "path": "11" * 32}),
        json.dumps({**GOOD, "path": [1]}),
        json.dumps({**GOOD, "path": ["11" * 32] * 66}),
    ],
)
def test_malformed_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"inclusion proof|must be"):
        InclusionProof.from_json(text)
    with pytest.raises(ValueError, match=r"."):
        ConsistencyProof.from_json(text)
    with pytest.raises(ValueError, match=r"."):
        Head.from_json(text)


def test_json_of_another_type_is_a_type_error() -> None:
    data: Any = json.dumps(GOOD).encode()
    with pytest.raises(TypeError, match="str"):
        InclusionProof.from_json(data)


def test_proofs_are_immutable() -> None:
    with pytest.raises(AttributeError):
        included(0, 1).size = 2  # type: ignore[misc]


def test_needs_only_the_standard_library() -> None:
    tree = ast.parse(Path(audit.__file__).read_text(encoding="utf-8"))
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported.update(name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(node.module or "")
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names


def test_examples_run() -> None:
    assert doctest.testmod(audit).failed == 0
