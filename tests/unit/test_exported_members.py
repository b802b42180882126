"""The public names: sorted, present, documented, and no more than meant."""

import types

import waferdb


def test_all_is_sorted_without_repetition() -> None:
    assert len(set(waferdb.__all__)) == len(waferdb.__all__)
    assert set(waferdb.__all__) <= set(vars(waferdb))


def test_nothing_public_is_missing_from_all() -> None:
    public = {
        name
        for name, value in vars(waferdb).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert public <= set(waferdb.__all__)


def test_everything_callable_is_documented() -> None:
    for name in waferdb.__all__:
        value = getattr(waferdb, name)
        if not callable(value):
            continue
        assert value.__doc__, name
        if isinstance(value, type) and not issubclass(value, BaseException):
            for member, function in vars(value).items():
                if member.startswith("_"):
                    continue
                if isinstance(function, types.FunctionType | property):
                    assert function.__doc__, f"{name}.{member}"


def test_the_names_of_the_contract() -> None:
    names = """Database DynamicDatabase Rows Vectors Events Audit Cache Context Graph
    eager lazy hybrid bounded open get_include AgentMemory
    WaferError ConflictError PreconditionError UniqueError
    CorruptionError ClosedError FailedError LockedError ForkedError ReadOnlyError FormatError
    UnknownOutcomeError PendingError TransactionError HistoryError SnapshotExpiredError
    StaleViewError LinkError SchemaError LimitError VectorError DocumentError StorageError FullError
    Receipt Read Freshness Hit Hits Event Neighbor Edge Commit Stats Report"""
    assert set(names.split()) <= set(waferdb.__all__)
    assert waferdb.audit.verify is not None
    assert waferdb.audit.verify_growth is not None


def test_the_package_is_typed() -> None:
    from importlib.resources import files

    assert files(waferdb).joinpath("py.typed").is_file()
