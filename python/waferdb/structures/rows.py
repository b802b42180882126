"""Rows: documents (or raw bytes) by key, with secondary indexes.

Documents are encoded once, here; the engine reads the indexed fields out of the encoded bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, cast, overload

from waferdb import _core, documents, policies
from waferdb.errors import ConflictError, DocumentError, PreconditionError, SchemaError
from waferdb.policies import Consistency, Policy
from waferdb.results import Plan, Read, Receipt
from waferdb.scope import AsOf, Scope
from waferdb.structures.base import (
    Cursor,
    Keyed,
    Structure,
    check_limit,
    check_text,
    choice,
    freshness_of,
    in_chunks,
    key_list,
    read_of,
)

if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    K = TypeVarWithDefault("K", str, bytes, default=str)
    V = TypeVarWithDefault("V", default=documents.Document)
else:
    K = TypeVar("K", str, bytes)
    V = TypeVar("V")
D = TypeVar("D")

Fields = Sequence[str | tuple[str, ...]]
Where = Mapping[str, Any]

_PATCH_ATTEMPTS = 64


class Rows(Keyed[K], Generic[K, V]):
    """Documents by key.

    `indexes` and `unique` name top-level fields, alone or as tuples of fields. Keys are `str` and
    documents maps with `str` keys; under `codec="raw"` keys and values are `bytes` and there are no
    indexes. `policy` says when a commit is reflected.

    `supersede` names the fields that say what a row is about, as `("subject", "attribute")`: a row
    that is put takes the place, at the same LSN, of the current rows about the same that say
    otherwise, with their vectors and cached values, and each of them leaves a `"contradiction"`
    event with the keys and versions of both. `as_of` reads still find it.

    Raises `SchemaError` for arguments that cannot be.

    >>> import waferdb
    >>> db = waferdb.open(":memory:", {"facts": Rows(indexes=["user"])})
    >>> receipt = db.facts.put("pref:1", {"user": "ann", "text": "prefers email"})
    >>> db.facts.get("pref:1")["text"], receipt.lsn == db.facts.read("pref:1").version
    ('prefers email', True)
    """

    __slots__ = ("_decode", "_encode", "_key_type", "codec", "indexes", "supersede", "unique")

    KIND = "rows"

    indexes: tuple[tuple[str, ...], ...]
    unique: tuple[tuple[str, ...], ...]
    supersede: tuple[str, ...]
    codec: str

    @overload
    def __init__(
        self: Rows[str, documents.Document],
        indexes: Fields = (),
        unique: Fields = (),
        codec: Literal["msgpack"] = "msgpack",
        policy: Policy = ...,
        supersede: Sequence[str] = (),
    ) -> None: ...
    @overload
    def __init__(
        self: Rows[bytes, bytes],
        indexes: Fields = (),
        unique: Fields = (),
        *,
        codec: Literal["raw"],
        policy: Policy = ...,
    ) -> None: ...
    def __init__(
        self,
        indexes: Fields = (),
        unique: Fields = (),
        codec: str = "msgpack",
        policy: Policy = policies.Eager(),  # noqa: B008 - immutable
        supersede: Sequence[str] = (),
    ) -> None:
        super().__init__(policy)
        self.indexes = _fields(indexes, "indexes")
        self.unique = _fields(unique, "unique")
        self.codec = choice(codec, "codec", ("msgpack", "raw"))
        self.supersede = _names(supersede)
        if codec == "raw" and (self.indexes or self.unique or self.supersede):
            raise SchemaError('codec="raw" stores bytes, which have no fields to index')
        self._wire()

    def _wire(self) -> None:
        raw = self.codec == "raw"
        self._key_type = bytes if raw else str
        self._encode: Callable[[Any], bytes] = (
            documents.encode_raw if raw else documents.encode_document
        )
        self._decode: Callable[[bytes], Any] = documents.decode_raw if raw else documents.decode

    def _bind(self, scope: Scope, name: str, structure_id: int) -> Self:
        bound = super()._bind(scope, name, structure_id)
        bound._key_type = self._key_type
        bound._encode = self._encode
        bound._decode = self._decode
        bound.codec = self.codec
        bound.indexes = self.indexes
        bound.unique = self.unique
        bound.supersede = self.supersede
        return bound

    def _arguments(self) -> dict[str, Any]:
        shown = {"indexes": _shown(self.indexes), "unique": _shown(self.unique)}
        codec: dict[str, Any] = {} if self.codec == "msgpack" else {"codec": self.codec}
        if self.supersede:
            codec["supersede"] = self.supersede
        return {name: fields for name, fields in shown.items() if fields} | codec

    def _to_json(self, name_of: Callable[[str | Structure, str], str]) -> dict[str, Any]:
        return {
            "kind": "rows",
            "indexes": [list(fields) for fields in self.indexes],
            "unique": [list(fields) for fields in self.unique],
            "codec": self.codec,
            "supersede": list(self.supersede),
            "policy": self.policy.to_json(),
        }

    @classmethod
    def _from_json(cls, stored: dict[str, Any]) -> Self:
        # What codec it has, and so what its keys are, is known only when the program runs.
        make: Any = cls
        declared = make(
            [tuple(fields) for fields in stored["indexes"]],
            [tuple(fields) for fields in stored["unique"]],
            stored["codec"],
            policies.from_json(stored["policy"]),
            stored.get("supersede", ()),
        )
        return cast("Self", declared)

    # Writing.

    def put(
        self, key: K, doc: V, *, if_version: int | None = None, if_absent: bool = False
    ) -> Receipt:
        """Stores `doc` under `key`, in place of what is there.

        `if_version`: only if the stored version is this LSN; `if_absent`: only if there is none;
        else `PreconditionError`. Raises `UniqueError`, `DocumentError` (naming the field) or
        `LimitError`; nothing is written then.

        >>> import waferdb
        >>> db = waferdb.open(":memory:", {"facts": Rows()})
        >>> first = db.facts.put("a", {"n": 1}, if_absent=True)
        >>> second = db.facts.put("a", {"n": 2}, if_version=first.lsn)
        >>> db.facts["a"]
        {'n': 2}
        """
        if key.__class__ is not self._key_type:
            self._check_key(key)
        tx = self._tx
        if tx is None:
            return self._scope.put(self._id, key, self._encode(doc), if_version, if_absent)
        tx.put(self._id, key, self._encode(doc), if_version, if_absent)
        return self._receipt

    def put_many(self, items: Mapping[K, V] | Iterable[tuple[K, V]]) -> Receipt:
        """Stores many: a mapping, or pairs of key and document. One commit (in a batch: one per
        `every` rows); returns its receipt, of the last one in a batch."""
        keys: list[K] = []
        values: list[bytes] = []
        encode, kind = self._encode, self._key_type
        pairs = cast(
            "Iterable[tuple[K, V]]", items.items() if isinstance(items, Mapping) else items
        )
        for key, doc in pairs:
            if key.__class__ is not kind:
                self._check_key(key)
            keys.append(key)
            values.append(encode(doc))
        step = self._scope.chunk
        receipt = self._receipt
        for some, bodies in zip(in_chunks(keys, step), in_chunks(values, step), strict=True):
            receipt = self._scope.write(_core.Transaction.put_many, self._id, some, bodies)
        return receipt

    def patch(self, key: K, changes: Mapping[str, Any]) -> Receipt:
        """Replaces some top-level fields of a document and keeps the others.

        None sets a field to None; to remove a field, `put` the document without it. Raises
        `KeyError` if there is no such key, `ConflictError` if others keep changing it.

        >>> import waferdb
        >>> db = waferdb.open(":memory:", {"facts": Rows()})
        >>> _ = db.facts.put("a", {"n": 1, "user": "ann"})
        >>> _ = db.facts.patch("a", {"n": 2})
        >>> db.facts["a"]
        {'n': 2, 'user': 'ann'}
        """
        if self.codec == "raw":
            raise TypeError('patch is for documents; under codec="raw" put the whole value')
        if not isinstance(changes, Mapping):
            raise DocumentError(f"changes are a map of fields, not {type(changes).__name__}")
        for _ in range(_PATCH_ATTEMPTS):
            found = self.read(key)
            if found.value is None:
                raise KeyError(key)
            merged = cast("V", {**cast("documents.Document", found.value), **changes})
            if self._tx is not None:
                return self.put(key, merged)
            try:
                return self.put(key, merged, if_version=found.version)
            except PreconditionError as error:
                if error.code != PreconditionError.code:
                    raise
        raise ConflictError(
            f"{key!r} was changed by others {_PATCH_ATTEMPTS} times in a row; nothing was written"
        )

    def delete(self, key: K) -> Receipt:
        """Deletes a key; no error if it is not there. Linked vectors and cache entries go too."""
        if key.__class__ is not self._key_type:
            self._check_key(key)
        return self._scope.write(_core.Transaction.delete, self._id, key)

    def delete_many(self, keys: Iterable[K]) -> Receipt:
        """Deletes many keys, in one commit."""
        gone = key_list(keys)
        for key in gone:
            self._check_key(key)
        receipt = self._receipt
        for some in in_chunks(gone, self._scope.chunk):
            receipt = self._scope.write(_core.Transaction.delete_many, self._id, some)
        return receipt

    # Reading.

    @overload
    def get(
        self,
        key: K,
        default: None = None,
        *,
        for_update: bool = False,
        consistency: Consistency | None = None,
        as_of: AsOf | None = None,
    ) -> V | None: ...
    @overload
    def get(
        self,
        key: K,
        default: D,
        *,
        for_update: bool = False,
        consistency: Consistency | None = None,
        as_of: AsOf | None = None,
    ) -> V | D: ...
    def get(
        self,
        key: K,
        default: Any = None,
        *,
        for_update: bool = False,
        consistency: Consistency | None = None,
        as_of: AsOf | None = None,
    ) -> Any:
        """The document under `key`, or `default`.

        `for_update` (inside a transaction): the commit raises `ConflictError` if another one
        changes the key meanwhile. `consistency=` or `as_of=` (an LSN, an aware `datetime`, ISO 8601
        text) choose what is read; both at once are a `TypeError`.
        """
        if key.__class__ is not self._key_type:
            self._check_key(key)
        if for_update:
            self._watch(key)
        reader = self._scope.plain
        if reader is None or consistency is not None or as_of is not None:
            reader = self._reader(consistency, as_of)
        raw = reader.get(self._id, key)
        if raw is None:
            return default
        return raw if self._key_type is bytes else self._decode(raw)

    def get_many(
        self,
        keys: Iterable[K],
        *,
        consistency: Consistency | None = None,
        as_of: AsOf | None = None,
    ) -> list[V | None]:
        """The documents of `keys` at one LSN, in their order, None where there is none."""
        wanted = key_list(keys)
        for key in wanted:
            self._check_key(key)
        reader = self._scope.reader(consistency, as_of, self._id)
        decode = self._decode
        return [None if raw is None else decode(raw) for raw in reader.get_many(self._id, wanted)]

    def read(
        self,
        key: K,
        *,
        for_update: bool = False,
        consistency: Consistency | None = None,
        as_of: AsOf | None = None,
    ) -> Read[V]:
        """The document with its version, time and freshness; absent: a `Read` of None."""
        if key.__class__ is not self._key_type:
            self._check_key(key)
        if for_update:
            self._watch(key)
        reader = self._scope.reader(consistency, as_of, self._id)
        return read_of(reader.read(self._id, key), self._decode, freshness_of(reader))

    def __getitem__(self, key: K) -> V:
        if key.__class__ is not self._key_type:
            self._check_key(key)
        raw = self._scope.strong().get(self._id, key)
        if raw is None:
            raise KeyError(key)
        return cast("V", self._decode(raw))

    def scan(
        self,
        *,
        prefix: K | None = None,
        start: K | None = None,
        end: K | None = None,
        after: K | None = None,
        limit: int | None = None,
        reverse: bool = False,
        consistency: Consistency | None = None,
        as_of: AsOf | None = None,
    ) -> Cursor[tuple[K, V]]:
        """The rows in key order: those beginning with `prefix`, from `start` (inclusive) to `end`
        (exclusive), behind `after` (in the direction of the scan), at most `limit`.

        >>> import waferdb
        >>> db = waferdb.open(":memory:", {"facts": Rows()})
        >>> _ = db.facts.put_many({"a": {}, "b": {}, "c": {}})
        >>> [key for key, doc in db.facts.scan(start="b")]
        ['b', 'c']
        """
        for bound in (prefix, start, end, after):
            if bound is not None:
                self._check_key(bound)
        check_limit(limit)
        reader = self._scope.reader(consistency, as_of, self._id)
        core = reader.scan(self._id, prefix, start, end, after, limit, bool(reverse))
        return self._cursor(reader, core)

    def find(
        self,
        where: Where | None = None,
        *,
        order: str | None = None,
        limit: int | None = None,
        after: K | None = None,
        consistency: Consistency | None = None,
        as_of: AsOf | None = None,
    ) -> Cursor[tuple[K, V]]:
        """The rows whose top-level fields match `where`.

        A value means equal, a list any of its values, a 2-tuple a half-open range `(from, to)` with
        None for open. `order` names a field (`"-time"`: descending); without it rows come in the
        order of the index or key. `after` continues behind the row of that key. Uses an index where
        one fits; `explain(where)` says which.

        >>> import waferdb
        >>> db = waferdb.open(":memory:", {"facts": Rows(indexes=["user"])})
        >>> _ = db.facts.put_many({"a": {"user": "ann", "n": 1}, "b": {"user": "bob", "n": 2}})
        >>> [key for key, doc in db.facts.find({"user": ["ann", "bob"], "n": (2, None)})]
        ['b']
        """
        condition = encode_where(where)
        if order is not None:
            check_text(order, "order=")
        if after is not None:
            self._check_key(after)
        check_limit(limit)
        reader = self._scope.reader(consistency, as_of, self._id)
        core = reader.find(self._id, condition, order, limit, after)
        return self._cursor(reader, core)

    def explain(self, where: Where | None = None, *, order: str | None = None) -> Plan:
        """How `find(where, order=order)` would be answered.

        >>> import waferdb
        >>> db = waferdb.open(":memory:", {"facts": Rows(indexes=["user"])})
        >>> db.facts.explain({"user": "ann"}).index
        ('user',)
        """
        reader = self._scope.strong()
        return Plan._from_json(reader.explain(self._id, encode_where(where), order))

    def _cursor(self, reader: _core.Reader, core: _core.Cursor) -> Cursor[tuple[K, V]]:
        decode = self._decode

        def decoded(item: tuple[K, bytes]) -> tuple[K, V]:
            return (item[0], decode(item[1]))

        as_stored = self.codec == "raw"
        decode_item = None if as_stored else decoded
        return Cursor(self._scope, core.page, core.close, freshness_of(reader), decode_item)


def encode_where(where: Where | None) -> bytes:
    """The engine's form of a condition."""
    if where is None:
        where = {}
    if not isinstance(where, Mapping):
        raise TypeError(f"where is a map of fields to values, not {type(where).__name__}")
    tests: dict[str, list[Any]] = {}
    for field, wanted in where.items():
        check_text(field, "a field in where")
        if isinstance(wanted, tuple):
            if len(wanted) != 2:
                raise ValueError(
                    f"where {field!r}: a range is (from, to), this tuple has {len(wanted)} items; "
                    "for any of several values use a list"
                )
            tests[field] = ["range", *wanted]
        elif isinstance(wanted, list):
            tests[field] = ["in", wanted]
        else:
            tests[field] = ["=", wanted]
    return documents.encode(tests)


def _names(supersede: object) -> tuple[str, ...]:
    """The fields that say what a row is about."""
    names = () if isinstance(supersede, str) or not isinstance(supersede, Iterable) else supersede
    fields = tuple(names)
    if isinstance(supersede, str) or not all(isinstance(name, str) and name for name in fields):
        raise SchemaError(f'supersede={supersede!r}: it is fields, as in ("subject", "attribute")')
    return fields


def _fields(given: Fields, name: str) -> tuple[tuple[str, ...], ...]:
    """Field names as tuples, one per index."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise SchemaError(f'{name}={given!r}: it is a list of fields, as in ["user"]')
    found: list[tuple[str, ...]] = []
    for entry in given:
        fields: tuple[str, ...] = entry if isinstance(entry, tuple | list) else (entry,)
        fields = tuple(fields)
        if not fields or not all(map(_is_name, fields)):
            raise SchemaError(f"{name}: {entry!r} is neither a field nor a tuple of fields")
        if len(set(fields)) != len(fields):
            raise SchemaError(f"{name}: {entry!r} names a field twice")
        if fields in found:
            raise SchemaError(f"{name}: {entry!r} is there twice")
        found.append(fields)
    return tuple(found)


def _is_name(field: object) -> bool:
    return isinstance(field, str) and bool(field)


def _shown(indexes: tuple[tuple[str, ...], ...]) -> list[str | tuple[str, ...]]:
    return [fields[0] if len(fields) == 1 else fields for fields in indexes]


__all__ = ["Rows"]
