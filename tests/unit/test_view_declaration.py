"""Declaring views: what is refused at the declaration, at opening, and while others need them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from view_support import Recorded, fact, fresh_read, joined, opened, stale_read

import waferdb
from waferdb import (
    Audit,
    Cache,
    Context,
    Count,
    Database,
    Events,
    Graph,
    Latest,
    Rows,
    SchemaError,
    Sum,
    Top,
    Vectors,
    View,
    eager,
    lazy,
)


@pytest.mark.parametrize(
    "make",
    [
        lambda: View(joined, source="facts", by=""),
        lambda: View(joined, source="facts", by=()),
        lambda: View(joined, source="facts", by=("user", "user")),
        lambda: View(joined, source="facts", by=("user", 3)),
        lambda: View(joined, source="facts", by=3),
        lambda: View(joined, source="facts", by=None),
        lambda: View("joined", source="facts", by="user"),
        lambda: View(joined, source="facts", by="user", policy="lazy"),
        lambda: View(joined, source="facts", by="user", version=-1),
        lambda: View(joined, source="facts", by="user", version="1"),
        lambda: View(joined, source="facts", by="user", version=True),
        lambda: View(joined, source="facts", by="user", timeout="soon"),
        lambda: View(joined, source="facts", by="user", timeout=0),
        lambda: View(joined, source="facts", by="user", timeout=-1),
        lambda: View(joined, source="facts", by="user", on_error="ignore"),
        lambda: Sum(""),
        lambda: Sum(3),
        lambda: Latest(0),
        lambda: Latest("3"),
        lambda: Top(0, by="score"),
        lambda: Top(3, by=""),
    ],
)
def test_bad_arguments_are_refused_where_they_stand(make: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        make()


SOURCES: list[Any] = ["nowhere", "", 3, None, Rows()]
SOURCES += ["blobs", "points", "events", "audit", "session", "context", "graph"]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("function", [joined, Count()], ids=["function", "built in"])
def test_a_source_is_rows_of_documents_or_a_view_of_the_same_database(
    source: Any, function: Any
) -> None:
    others = {
        "blobs": Rows(codec="raw"),
        "points": Vectors(dim=2),
        "events": Events(),
        "audit": Audit(),
        "session": Cache(ttl=1),
        "context": Context(),
        "graph": Graph(),
    }
    view = View(function, source=source, by="user")
    with pytest.raises(SchemaError, match="source"):
        type("Memory", (Database,), {**others, "profile": view})
    with pytest.raises(SchemaError, match="source"):
        waferdb.open(":memory:", {**others, "profile": View(function, source=source, by="user")})


def test_a_view_is_not_its_own_source() -> None:
    with pytest.raises(SchemaError, match="profile"):
        type("Memory", (Database,), {"profile": View(joined, source="profile", by="user")})
    circle = {
        "facts": Rows(),
        "one": View(joined, source="two", by="user"),
        "two": View(joined, source="three", by="user"),
        "three": View(joined, source="one", by="user"),
    }
    with pytest.raises(SchemaError):
        waferdb.open(":memory:", circle)


def test_the_order_of_declarations_does_not_matter(place: str) -> None:
    class Memory(Database):
        users = View(lambda group: {"n": len(group.rows)}, source="days", by="user")
        days = View(joined, source="facts", by=("user", "day"))
        facts = Rows()

    with Memory(place) as db:
        db.facts.put("k", fact("ann", "x", day="mon"))
        assert fresh_read(db.users, "ann") == {"n": 1}


def test_a_declaration_says_what_it_is_and_how_to_use_it() -> None:
    class Memory(Database):
        facts = Rows()
        profile = View(joined, source="facts", by="user")

    assert "View(" in repr(Memory.profile)
    assert "facts" in repr(Memory.profile)
    with pytest.raises(TypeError, match="open database"):
        Memory.profile.get("ann")


def test_one_function_may_serve_many_views(place: str) -> None:
    schema = {
        "facts": Rows(),
        "by_user": View(joined, source="facts", by="user"),
        "by_text": View(joined, source="facts", by="text"),
    }
    with waferdb.open(place, schema) as db:
        db.facts.put("k", fact("ann", "x"))
        assert fresh_read(db.by_user, "ann") == fresh_read(db.by_text, "x") == {"text": "x"}


# An existing database.


def test_tuning_is_applied_and_identity_is_kept(path: Path) -> None:
    with opened(path, joined) as db:
        db.facts.put("a1", fact("ann", "one"))
        fresh_read(db.profile, "ann")
    with opened(path, joined, policy=eager(), timeout="5s", on_error="raise") as db:
        db.facts.put("a2", fact("ann", "two"))
        assert fresh_read(db.profile, "ann", "eventual") == {"text": "one two"}
    with pytest.raises(SchemaError, match="profile"):
        waferdb.open(path, {"facts": Rows(indexes=["user"]), "profile": Rows()})
    with opened(path, joined) as db:
        assert db.profile.get("ann") == {"text": "one two"}


def test_another_grouping_never_serves_results_of_the_old_one(path: Path) -> None:
    """Either it is another identity, or all groups are made anew."""
    with opened(path, joined) as db:
        db.facts.put("a1", fact("ann", "one"))
        fresh_read(db.profile, "ann")
    try:
        db = opened(path, joined, by="text")
    except SchemaError:
        return
    with db:
        assert db.profile.get("ann") is None
        assert fresh_read(db.profile, "one") == {"text": "one"}


def test_a_source_is_not_dropped_while_a_view_needs_it(path: Path) -> None:
    with opened(path, joined) as db:
        db.facts.put("a1", fact("ann", "one"))
        fresh_read(db.profile, "ann")
        with pytest.raises(SchemaError, match="profile"):
            db.drop("facts")
        assert db.facts.count() == 1
        assert db.profile.get("ann") == {"text": "one"}
        db.drop("profile")
        db.drop("facts")
        assert "facts" not in db
    with waferdb.open(path) as db:
        assert set(db.structures) == {"notes"}


def test_a_view_is_not_dropped_while_a_view_over_it_needs_it(place: str) -> None:
    schema = {
        "facts": Rows(),
        "days": View(joined, source="facts", by=("user", "day")),
        "users": View(joined, source="days", by="user"),
    }
    with waferdb.open(place, schema) as db:
        with pytest.raises(SchemaError, match="users"):
            db.drop("days")
        db.drop("users")
        db.drop("days")
        db.facts.put("k", fact("ann", "x", day="mon"))


def test_a_view_that_was_dropped_and_declared_again_begins_anew(path: Path) -> None:
    with opened(path, joined) as db:
        db.facts.put("a1", fact("ann", "one"))
        fresh_read(db.profile, "ann")
        db.drop("profile")
    function = Recorded(lambda group: {"new": True})
    with opened(path, function) as db:
        assert stale_read(db.profile, "ann") is None
        assert fresh_read(db.profile, "ann") == {"new": True}


def test_a_view_follows_its_source_to_a_new_name(path: Path) -> None:
    with opened(path, joined) as db:
        db.facts.put("a1", fact("ann", "one"))
        fresh_read(db.profile, "ann")
        db.rename("facts", "things")
        db["things"].put("a2", fact("ann", "two"))
        assert stale_read(db.profile, "ann") == {"text": "one"}
    renamed = {
        "things": Rows(indexes=["user"]),
        "profile": View(joined, source="things", by="user", policy=lazy()),
    }
    with waferdb.open(path, renamed) as db:
        assert fresh_read(db.profile, "ann") == {"text": "one two"}


def test_a_view_may_be_renamed(path: Path) -> None:
    with opened(path, joined) as db:
        db.facts.put("a1", fact("ann", "one"))
        fresh_read(db.profile, "ann")
        db.rename("profile", "portrait")
        assert db["portrait"].get("ann") == {"text": "one"}
    with waferdb.open(path) as db:
        assert db.portrait.get("ann") == {"text": "one"}
        assert "profile" not in db


def test_names_of_the_contract_are_exported() -> None:
    names = {"View", "Count", "Sum", "Latest", "Top", "TopicClusters", "Group", "Row"}
    assert names <= set(waferdb.__all__)
