"""What all structures share: being declared, being bound to a scope, and being read page by page.

A structure is one class in two states. Declared (in a class body or a schema dict) it holds its
arguments; reached through a database, transaction or snapshot it is a copy bound to that scope.
Binding copies only what the calls need: a transaction binds each structure it touches anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, Self, TypeVar, overload

from waferdb import _core, policies, units
from waferdb.errors import ClosedError, SchemaError, TransactionError
from waferdb.results import Freshness, Key, Read, Receipt
from waferdb.scope import UNBOUND, AsOf, Scope

if TYPE_CHECKING:
    from waferdb.database import Database
    from waferdb.policies import Consistency, Policy

D = TypeVar("D")
K = TypeVar("K", str, bytes)
T = TypeVar("T")

_new = object.__new__
_PAGE_ITEMS = 256
_LSN_MAX = 2**63


class Structure:
    """The base of all structures."""

    __slots__ = ("_id", "_name", "_receipt", "_scope", "_tx", "policy")

    KIND: ClassVar[str] = ""

    _id: int
    _name: str
    _receipt: Receipt
    _scope: Scope
    _tx: _core.Transaction | None
    policy: Policy

    def __init__(self, policy: Policy = policies.Eager()) -> None:  # noqa: B008 - immutable
        self.policy = policies.check(policy)
        self._id = -1
        self._name = ""
        self._receipt = UNBOUND.receipt
        self._scope = UNBOUND
        self._tx = None

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: Database, owner: type) -> Self: ...
    def __get__(self, instance: Database | None, owner: type) -> Self:
        if instance is None:
            return self
        try:
            bound: Any = instance._bound.get(self._name)
        except AttributeError:
            raise AttributeError(
                f"{type(instance).__name__} is not open yet: call super().__init__(path) before "
                f"{self._name!r} is used"
            ) from None
        return bound if bound is not None else instance._bind(self._name)  # type: ignore[return-value]

    def __set__(self, instance: Database, value: object) -> NoReturn:
        raise AttributeError(
            f"{self._name!r} is a structure of the database; write into it instead"
        )

    @property
    def name(self) -> str:
        """The structure's name in its database; empty while it has none."""
        return self._name

    def _bind(self, scope: Scope, name: str, structure_id: int) -> Self:
        """A copy for one scope."""
        bound = _new(type(self))
        bound._tx = scope.core
        bound._id = structure_id
        bound._name = name
        bound._receipt = scope.receipt
        bound._scope = scope
        bound.policy = self.policy
        return bound

    def _arguments(self) -> dict[str, Any]:
        """The declared arguments that differ from nothing, for `repr`."""
        return {}

    def _to_json(self, name_of: Callable[[str | Structure, str], str]) -> dict[str, Any]:
        """The stored form without name; `name_of` resolves references to other structures."""
        raise NotImplementedError

    @classmethod
    def _from_json(cls, stored: dict[str, Any]) -> Self:
        """The declaration of its stored form."""
        raise NotImplementedError

    def _check_links(self, name: str, structures: dict[str, Structure], link: _Linker) -> None:
        """Raises `SchemaError` for a reference that cannot be."""

    def _reader(self, consistency: Consistency | None, as_of: AsOf | None) -> _core.Reader:
        """The reader of a call that does not report its freshness."""
        scope = self._scope
        if consistency is None and as_of is None:
            plain = scope.plain
            return scope.strong() if plain is None else plain
        return scope.reader(consistency, as_of, self._id)

    def _forget(self, *key: Key) -> Receipt:
        """Masks every version of a key, at every LSN."""
        return self._scope.write(_core.Transaction.forget, self._id, key)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} cannot be pickled or copied; pass keys or values instead, "
            'and open the database in the other process with mode="r"'
        )

    def __repr__(self) -> str:
        kind = type(self).__name__
        if self._scope is UNBOUND:
            shown = ", ".join(f"{name}={value!r}" for name, value in self._arguments().items())
            return f"{kind}({shown})"
        return f"<{kind} {self._name!r} of {self._scope.shared.label}>"


_Linker = Callable[["str | Structure", str], str]


class Keyed(Structure, Generic[K]):
    """Structures whose entries are found by a key."""

    __slots__ = ()

    _key_type: type[str | bytes] = str

    def count(self, *, consistency: Consistency | None = None, as_of: AsOf | None = None) -> int:
        """How many keys there are.

        >>> import waferdb
        >>> db = waferdb.open(":memory:", {"facts": waferdb.Rows()})
        >>> db.facts.count()
        0
        """
        self._check_past(as_of)
        return self._reader(consistency, as_of).count(self._id)

    def keys(
        self, *, consistency: Consistency | None = None, as_of: AsOf | None = None
    ) -> Cursor[K]:
        """The keys in order, as a cursor over the snapshot taken now."""
        self._check_past(as_of)
        reader = self._scope.reader(consistency, as_of, self._id)
        core = reader.scan(self._id, None, None, None, None, None, False)
        return Cursor(self._scope, core.page, core.close, freshness_of(reader), _first)

    def __iter__(self) -> Iterator[K]:
        return self.keys()

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, self._key_type):
            return False
        return self._scope.strong().contains(self._id, key)

    def _check_key(self, key: object) -> None:
        """Raises `TypeError` for a key of another type; the engine itself takes both."""
        if not isinstance(key, self._key_type):
            raise TypeError(
                f"a key of {self._name!r} is {self._key_type.__name__}, not {type(key).__name__}"
            )

    def _check_past(self, as_of: AsOf | None) -> None:
        """Raises `TypeError` where a structure keeps no history."""

    def _watch(self, key: Key) -> None:
        if self._tx is None:
            raise TransactionError("for_update=True is for reads inside a transaction")
        self._tx.watch(self._id, key)


def _no_page(count: int) -> Sequence[Any]:
    return ()


def _first(item: tuple[Any, ...]) -> Any:
    return item[0]


class Cursor(Generic[T]):
    """The items of a scan over one snapshot, fetched page by page; holds no lock.

    An iterator and a context manager. It ends with its transaction or database (`ClosedError`) and
    when its lease runs out (`SnapshotExpiredError`). `freshness` says which LSN it reads.
    """

    __slots__ = ("_close", "_decode", "_fetch", "_items", "_scope", "freshness")

    freshness: Freshness

    def __init__(
        self,
        scope: Scope,
        fetch: Callable[[int], Sequence[Any]],
        close: Callable[[], None],
        freshness: Freshness,
        decode: Callable[[Any], T] | None,  # None: items are as they come
    ) -> None:
        self._scope = scope
        self._fetch: Callable[[int], Sequence[Any]] | None = fetch
        self._close = close
        self._decode = decode
        self._items: Iterator[T] = iter(())
        self.freshness = freshness

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        scope = self._scope
        if not (scope.over or scope.base.over):
            for item in self._items:
                return item
        return self._turn()

    def _turn(self) -> T:
        """The first item of the next page."""
        if self._scope.ended:
            raise ClosedError("the cursor ended with its transaction or database; scan again")
        if self._fetch is None:
            raise ClosedError("the cursor is closed; scan again")
        page = self._fetch(_PAGE_ITEMS)
        if not page:
            # Nothing more is read, so nothing old is kept for it; another `next` ends again.
            self._fetch = _no_page
            self._close()
            raise StopIteration
        decode = self._decode
        self._items = iter(page) if decode is None else map(decode, page)
        return next(self._items)

    def close(self) -> None:
        """Lets the snapshot go; a second call does nothing."""
        fetch, self._fetch = self._fetch, None
        if fetch is not None and fetch is not _no_page:
            self._items = iter(())
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Cursor at LSN {self.freshness.lsn}{', closed' if self._fetch is None else ''}>"


def freshness_of(reader: _core.Reader) -> Freshness:
    """What a reader's answers reflect."""
    behind, age = reader.behind
    if not behind:
        return Freshness(reader.lsn)
    return Freshness(reader.lsn, behind, timedelta(microseconds=age), True)


def read_of(
    found: tuple[bytes, int, int] | None, decode: Callable[[bytes], T], freshness: Freshness
) -> Read[T]:
    """The `Read` of what the engine found."""
    if found is None:
        return Read(None, None, None, freshness)
    raw, version, time = found
    # What the reading transaction wrote itself has no version before its commit.
    own = version > _LSN_MAX
    return Read(decode(raw), None if own else version, units.to_datetime(time), freshness)


def check_limit(limit: int | None) -> None:
    """Raises for a limit that is no count."""
    if limit is not None:
        if isinstance(limit, bool) or not isinstance(limit, int):
            raise TypeError(f"limit= is an int, not {type(limit).__name__}")
        if limit < 0:
            raise ValueError(f"limit={limit} is negative")


def key_list(keys: Iterable[T]) -> list[T]:
    """Several keys as a list; `TypeError` for one, whose letters would be taken for keys."""
    if isinstance(keys, str | bytes):
        raise TypeError(f"several keys are a list, not one {type(keys).__name__}")
    return list(keys)


def check_text(value: object, what: str) -> None:
    """Raises `TypeError` unless `value` is text."""
    if not isinstance(value, str):
        raise TypeError(f"{what} is a str, not {type(value).__name__}")


def choice(value: str, name: str, allowed: Sequence[str]) -> str:
    """`value`, if it is one of those allowed; else `SchemaError`."""
    if value not in allowed:
        raise SchemaError(f"{name}={value!r}: it is one of {', '.join(map(repr, allowed))}")
    return value


def in_chunks(items: list[T], count: int) -> Iterable[list[T]]:
    """The items in lists of `count`; all at once for 0."""
    if not count or len(items) <= count:
        return (items,)
    return (items[start : start + count] for start in range(0, len(items), count))
