"""The exceptions: their tree, their codes, and how the engine's errors become them."""

import errno
import pickle

import pytest

from waferdb import errors

_BUILTIN_BASES = {
    errors.SchemaError: ValueError,
    errors.LimitError: ValueError,
    errors.VectorError: ValueError,
    errors.DocumentError: TypeError,
    errors.StorageError: OSError,
    errors.FullError: OSError,
    errors.PathNotFoundError: FileNotFoundError,
    errors.PathPermissionError: PermissionError,
    errors.PathNotDirectoryError: NotADirectoryError,
}
_ALL = [getattr(errors, name) for name in errors.__all__]


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [kind.code for kind in _ALL]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("kind", _ALL)
def test_every_error_is_made_from_its_code(kind: type[errors.WaferError]) -> None:
    made = errors._make(kind.code, "what happened", None, None)
    assert type(made) is kind
    assert str(made) == "what happened"
    assert isinstance(made, errors.WaferError)
    assert isinstance(made, _BUILTIN_BASES.get(kind, Exception))


def test_the_tree_is_drawn_in_full() -> None:
    assert errors.__doc__ is not None
    for name in errors.__all__:
        assert name in errors.__doc__


def test_conflicts_nest() -> None:
    assert issubclass(errors.UniqueError, errors.PreconditionError)
    assert issubclass(errors.PreconditionError, errors.ConflictError)


def test_storage_errors_carry_errno() -> None:
    made = errors._make("storage", "cannot write x", errno.EIO, None)
    assert isinstance(made, OSError)
    assert (made.errno, str(made)) == (errno.EIO, "cannot write x")
    full = errors._make("full", "cannot write x", None, None)
    assert isinstance(full, OSError)
    assert full.errno == errno.ENOSPC


def test_an_unknown_outcome_names_its_transaction() -> None:
    made = errors._make("unknown_outcome", "the sync failed", None, "t-1")
    assert isinstance(made, errors.UnknownOutcomeError)
    assert (made.txn, str(made)) == ("t-1", "the sync failed")


def test_arguments_and_timeouts_are_builtin_errors() -> None:
    assert type(errors._make("argument", "m", None, None)) is ValueError
    assert type(errors._make("timeout", "m", None, None)) is TimeoutError


def test_a_code_of_a_newer_engine_is_not_lost() -> None:
    made = errors._make("novel", "m", None, None)
    assert type(made) is errors.WaferError
    assert str(made) == "novel: m"


@pytest.mark.parametrize("kind", _ALL)
def test_errors_survive_pickling(kind: type[errors.WaferError]) -> None:
    made = errors._make(kind.code, "m", 5, "t-1")
    copy = pickle.loads(pickle.dumps(made))
    assert type(copy) is kind
    assert (str(copy), vars(copy)) == (str(made), vars(made))


def test_storage_errors_keep_their_errno_when_pickled() -> None:
    for code in ("storage", "full", "not_found"):
        made = errors._make(code, "cannot write x", 5, None)
        copy = pickle.loads(pickle.dumps(made))
        assert (copy.errno, str(copy), copy.args) == (5, "cannot write x", made.args)
