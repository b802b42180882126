"""Every exception of waferdb. Each has `.code`, stable text for programs.

WaferError
 ├─ ConflictError                      another commit came first: run the transaction again
 │   └─ PreconditionError              `if_version` or `if_absent` does not hold: do not retry
 │       └─ UniqueError                a unique value belongs to another key
 ├─ CorruptionError                    stored bytes are not what was written
 ├─ ClosedError                        the handle, or what it came from, is closed
 ├─ FailedError                        a sync failed: reads go on, writes need a reopening
 ├─ LockedError                        another process has the database open
 ├─ ForkedError                        the handle was opened in the parent process
 ├─ ReadOnlyError                      a write on `mode="r"` or on a snapshot
 ├─ FormatError                        not a database, or one of a newer format
 │   └─ UnknownFormatError             (CorruptionError too) a newer format, or damage to its number
 ├─ UnknownOutcomeError                `.txn`: ask `db.outcome(txn)` after reopening
 ├─ PendingError                       a receipt read before its commit
 ├─ TransactionError                   not possible inside (or only inside) a transaction
 ├─ HistoryError                       older than the history kept, or not yet committed
 ├─ SnapshotExpiredError               a cursor or snapshot outlived its lease
 ├─ StaleViewError                     a view's result cannot be computed here
 ├─ LinkError                          a vector without its row
 ├─ SchemaError       (ValueError)     a declaration that cannot be, or differs from what is stored
 ├─ LimitError        (ValueError)     beyond a bound of docs/limits.md
 ├─ VectorError       (ValueError)     wrong shape, or not finite
 ├─ DocumentError     (TypeError)      a value that cannot be stored
 └─ StorageError      (OSError)        the operating system refused
     ├─ FullError                      no space left
     ├─ PathNotFoundError              (FileNotFoundError)
     ├─ PathPermissionError            (PermissionError)
     └─ PathNotDirectoryError          (NotADirectoryError)

An argument that no call could accept is a plain `ValueError` or `TypeError`; a wait that ran out of
time is a plain `TimeoutError`.
"""

import errno as _errno
from typing import Any, ClassVar

__all__ = [
    "ClosedError",
    "ConflictError",
    "CorruptionError",
    "DocumentError",
    "FailedError",
    "ForkedError",
    "FormatError",
    "FullError",
    "HistoryError",
    "LimitError",
    "LinkError",
    "LockedError",
    "PathNotDirectoryError",
    "PathNotFoundError",
    "PathPermissionError",
    "PendingError",
    "PreconditionError",
    "ReadOnlyError",
    "SchemaError",
    "SnapshotExpiredError",
    "StaleViewError",
    "StorageError",
    "TransactionError",
    "UniqueError",
    "UnknownFormatError",
    "UnknownOutcomeError",
    "VectorError",
    "WaferError",
]


class WaferError(Exception):
    """The base of every error that waferdb defines."""

    code: ClassVar[str] = "error"


class ConflictError(WaferError):
    """Another commit changed what this transaction wrote or checked. Nothing was written; run the
    transaction again, as `db.retry` does."""

    code = "conflict"


class PreconditionError(ConflictError):
    """`if_version` or `if_absent` does not hold. Nothing was written; retrying will not help."""

    code = "precondition"


class UniqueError(PreconditionError):
    """A value of a `unique` index belongs to another key. Nothing was written."""

    code = "unique"


class CorruptionError(WaferError):
    """Stored bytes are not what was written. The files are left as they are."""

    code = "corruption"


class ClosedError(WaferError):
    """The handle, cursor or transaction has ended."""

    code = "closed"


class FailedError(WaferError):
    """A sync failed earlier: durable data is readable, writes are refused until the database is
    opened again."""

    code = "failed"


class LockedError(WaferError):
    """Another process has the database open; the message names its pid, host and start."""

    code = "locked"


class ForkedError(WaferError):
    """The handle was opened before `os.fork`; open the database again in the child."""

    code = "forked"


class ReadOnlyError(WaferError):
    """A write on a snapshot or on a database opened with `mode="r"`."""

    code = "read_only"


class FormatError(WaferError):
    """The directory is no waferdb database, or one of a newer format."""

    code = "format"


class UnknownFormatError(FormatError, CorruptionError):
    """The log names a newer format, but its header is not whole: of a newer format, or damaged."""

    code = "unknown_format"


class UnknownOutcomeError(WaferError):
    """Whether the commit is durable is not known: ask `db.outcome(error.txn)` after reopening."""

    code = "unknown_outcome"

    def __init__(self, message: str = "", txn: str | None = None) -> None:
        super().__init__(message, txn)
        self.txn = txn

    def __str__(self) -> str:
        return str(self.args[0])


class PendingError(WaferError):
    """A receipt's field was read before its transaction committed."""

    code = "pending"


class TransactionError(WaferError):
    """The call is not possible in this scope: inside a transaction, after its end, or outside."""

    code = "transaction"


class HistoryError(WaferError):
    """The moment asked for is older than the history that is kept, or not committed yet."""

    code = "history"


class SnapshotExpiredError(WaferError):
    """A cursor or snapshot was held longer than its lease; take a new one."""

    code = "snapshot_expired"


class StaleViewError(WaferError):
    """A view's result is stale and cannot be computed here."""

    code = "stale_view"


class LinkError(WaferError):
    """A vector was written whose key has no row in the linked structure."""

    code = "link"


class SchemaError(WaferError, ValueError):
    """A declaration that cannot be, or that differs from the stored one in its identity."""

    code = "schema"


class LimitError(WaferError, ValueError):
    """A key, document, commit or argument beyond its bound."""

    code = "limit"


class VectorError(WaferError, ValueError):
    """A vector of the wrong dimension, with NaN or infinity, or zero under cosine."""

    code = "vector"


class DocumentError(WaferError, TypeError):
    """A value that cannot be stored; the message names the field."""

    code = "document"


class StorageError(WaferError, OSError):
    """The operating system refused; `.errno` says why."""

    code = "storage"
    _errno: ClassVar[int | None] = None

    def __init__(self, message: str = "", errno: int | None = None) -> None:
        super().__init__(message)
        self.errno = errno if errno is not None else self._errno

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.errno), self.__dict__


class FullError(StorageError):
    """No space left. Nothing acknowledged is lost; free some space and try again."""

    code = "full"
    _errno = _errno.ENOSPC


class PathNotFoundError(StorageError, FileNotFoundError):
    """There is nothing at the path."""

    code = "not_found"
    _errno = _errno.ENOENT


class PathPermissionError(StorageError, PermissionError):
    """The path may not be read or written."""

    code = "permission_denied"
    _errno = _errno.EACCES


class PathNotDirectoryError(StorageError, NotADirectoryError):
    """The path, or a part of it, is no directory."""

    code = "not_a_directory"
    _errno = _errno.ENOTDIR


def _tree(root: type[WaferError]) -> dict[str, type[WaferError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found |= _tree(child)
    return found


_BY_CODE: dict[str, type[Exception]] = {
    **_tree(WaferError),
    "argument": ValueError,
    "timeout": TimeoutError,
}


def _make(code: str, message: str, errno: int | None, txn: str | None) -> BaseException:
    """The exception for an error of the engine; the engine raises what this returns."""
    kind = _BY_CODE.get(code)
    if kind is None:
        return WaferError(f"{code}: {message}")
    if issubclass(kind, StorageError):
        return kind(message, errno)
    if issubclass(kind, UnknownOutcomeError):
        return kind(message, txn)
    return kind(message)
