"""Declarations: what is refused when a class is created, and what is stored."""

import json
from typing import Any

import pytest

import waferdb
from waferdb import (
    Audit,
    Cache,
    Context,
    Database,
    Events,
    Graph,
    Rows,
    SchemaError,
    Vectors,
    hybrid,
    schema,
)


def test_the_stored_form() -> None:
    class Memory(Database):
        facts = Rows(indexes=["user", ("user", "time")], unique=["email"])
        embeddings = Vectors(dim=3, rows=facts, policy=hybrid(max_age="2s"))
        session = Cache(ttl="30m", source="facts")
        events = Events(capture=[facts])
        audit = Audit()
        context = Context()
        entities = Graph()

    stored = {
        item.pop("name"): item
        for item in json.loads(schema.to_json(Memory._structures))["structures"]
    }
    assert stored["facts"]["indexes"] == [["user"], ["user", "time"]]
    assert stored["facts"]["unique"] == [["email"]]
    assert stored["embeddings"]["rows"] == "facts"
    assert stored["embeddings"]["policy"]["max_age"] == 2_000_000
    assert stored["session"] == {
        "kind": "cache",
        "ttl": 1_800_000_000,
        "source": "facts",
        "capacity": None,
        "policy": {"kind": "eager"},
    }
    at_once = {"policy": {"kind": "eager"}}
    assert stored["events"] == {"kind": "events", "capture": ["facts"]} | at_once
    assert [stored[name] for name in ("audit", "context", "entities")] == [
        {"kind": "audit"},
        {"kind": "context"} | at_once,
        {"kind": "graph"} | at_once,
    ]


@pytest.mark.parametrize(
    "declared",
    [
        Rows(indexes=["a", ("b", "c")], unique=["d"], policy=waferdb.lazy()),
        Rows(codec="raw"),
        Vectors(dim=3, metric="dot", model="m", codes="f32"),
        Events(),
        Audit(),
        Context(),
        Graph(),
        Cache(ttl="1us", capacity=3),
    ],
)
def test_a_declaration_survives_its_stored_form(declared: Any) -> None:
    once = schema.to_json({"s": declared})
    again = type(declared)._from_json(json.loads(once)["structures"][0])
    assert schema.to_json({"s": again}) == once


@pytest.mark.parametrize("name", ["transaction", "close", "lsn", "stats", "receipt", "_mine"])
def test_names_of_members_are_reserved(name: str) -> None:
    with pytest.raises(SchemaError, match=name):
        type("Memory", (Database,), {name: Rows()})
    with pytest.raises(SchemaError, match=name):
        waferdb.open(":memory:", {name: Rows()})


@pytest.mark.parametrize(
    "make",
    [
        lambda: Vectors(dim=3, rows="nowhere"),
        lambda: Cache(ttl=1, source="nowhere"),
        lambda: Events(capture=["nowhere"]),
        lambda: Vectors(dim=3, rows=Rows()),
        lambda: Vectors(dim=3, rows="others"),
        lambda: Vectors(dim=3, rows="blobs"),
        lambda: Events(capture=["others"]),
    ],
)
def test_references_are_checked_at_class_creation(make: Any) -> None:
    with pytest.raises(SchemaError, match=r"rows|source|capture"):
        type("Memory", (Database,), {"s": make(), "others": Context(), "blobs": Rows(codec="raw")})


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Rows(indexes="user"), "indexes"),
        (lambda: Rows(indexes=[()]), "indexes"),
        (lambda: Rows(indexes=["a", "a"]), "twice"),
        (lambda: Rows(indexes=[("a", "a")]), "twice"),
        (lambda: Rows(indexes=[3]), "indexes"),
        (lambda: Rows(codec="json"), "codec"),
        (lambda: Rows(codec="raw", indexes=["a"]), "raw"),
        (lambda: Rows(policy="eager"), "policy"),
        (lambda: Vectors(dim=0), "dim"),
        (lambda: Vectors(dim=3.0), "dim"),
        (lambda: Vectors(dim=65_537), "dim"),
        (lambda: Vectors(dim=3, metric="cos"), "metric"),
        (lambda: Vectors(dim=3, codes="i4"), "codes"),
        (lambda: Cache(ttl=1, capacity=0), "capacity"),
        (lambda: Events(capture="facts"), "capture"),
    ],
)
def test_bad_arguments_are_refused_where_they_stand(make: Any, says: str) -> None:
    with pytest.raises(SchemaError, match=says):
        make()


@pytest.mark.parametrize("ttl", ["soon", 0, -1])
def test_a_bad_ttl_is_a_value_error(ttl: Any) -> None:
    with pytest.raises(ValueError, match="ttl"):
        Cache(ttl=ttl)


def test_one_object_is_one_structure() -> None:
    shared = Rows()
    with pytest.raises(SchemaError, match="one object"):
        type("Memory", (Database,), {"a": shared, "b": shared})


def test_subclasses_inherit_and_replace() -> None:
    class Base(Database):
        facts = Rows()
        extra = Context()

    class More(Base):
        facts = Rows(indexes=["user"])
        events = Events(capture=["facts"])

    assert list(More._structures) == ["facts", "extra", "events"]
    assert More.facts.indexes == (("user",),)
    assert Base.facts.indexes == ()


def test_a_declaration_says_how_to_use_it() -> None:
    class Memory(Database):
        facts = Rows(indexes=["user"])

    assert repr(Memory.facts) == "Rows(indexes=['user'])"
    with pytest.raises(TypeError, match="open database"):
        Memory.facts.put("a", {})
    with pytest.raises(TypeError, match="open database"):
        Memory.facts.get("a")


@pytest.mark.parametrize("schema_", [{"facts": 3}, {3: Rows()}, {"": Rows()}, [Rows()]])
def test_bad_schemas(schema_: Any) -> None:
    with pytest.raises(SchemaError):
        waferdb.open(":memory:", schema_)


def test_a_structure_does_not_replace_a_method_of_a_base() -> None:
    for name in ("remember", "recall", "load", "forget", "embedder"):
        with pytest.raises(waferdb.SchemaError, match="AgentMemory has a member of that name"):
            type("Mine", (waferdb.AgentMemory,), {name: waferdb.Rows()})
    type("Mine", (waferdb.AgentMemory,), {"facts": waferdb.Rows(indexes=["user", "topic"])})


def test_structures_come_from_all_bases() -> None:
    class First(waferdb.Database):
        f = waferdb.Rows()
        both = waferdb.Rows()

    class Second(waferdb.Database):
        g = waferdb.Rows()
        both = waferdb.Events()

    class Mixed:
        h = waferdb.Events()

    class All(First, Second, Mixed):
        own = waferdb.Rows()

    with All(":memory:") as db:
        assert set(db.structures) == {"f", "g", "h", "own", "both"}
        db.g.put("a", {"n": 1})
        db.h.append("kind")
        assert isinstance(db.both, waferdb.Rows)

    class Fewer(All):
        g = None  # type: ignore[assignment]

    assert "g" not in Fewer(":memory:").structures
    with pytest.raises(waferdb.SchemaError, match="AgentMemory has a member of that name"):
        type("Mine", (type("Other", (), {"recall": waferdb.Rows()}), waferdb.AgentMemory), {})


def test_a_structure_used_before_the_database_is_open_says_so() -> None:
    class Early(waferdb.Database):
        facts = waferdb.Rows()

        def __init__(self) -> None:
            self.facts.put("a", {})

    with pytest.raises(AttributeError, match="not open yet"):
        Early()
