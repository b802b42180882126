"""Graph: typed edges between nodes, walked in either direction to a depth."""

from __future__ import annotations

from typing import Any

import pytest
from wafer_support import Memory


def nodes(neighbors: Any) -> dict[str, int]:
    return {neighbor.node: neighbor.depth for neighbor in neighbors}


@pytest.fixture
def family(db: Any) -> Any:
    with db.transaction() as tx:
        tx.entities.link("ann", "knows", "bob", {"since": 2020})
        tx.entities.link("bob", "knows", "eve")
        tx.entities.link("eve", "knows", "ann")
        tx.entities.link("ann", "likes", "tea")
        tx.entities.link("eve", "likes", "tea")
    return db


def test_neighbors_by_relation_direction_and_depth(family: Any) -> None:
    neighbors = family.entities.neighbors
    assert nodes(neighbors("ann")) == {"bob": 1, "tea": 1}
    assert nodes(neighbors("ann", "knows")) == {"bob": 1}
    assert nodes(neighbors("tea")) == {}
    assert nodes(neighbors("tea", direction="in")) == {"ann": 1, "eve": 1}
    assert nodes(neighbors("ann", direction="both")) == {"bob": 1, "tea": 1, "eve": 1}
    assert nodes(neighbors("ann", "knows", depth=2)) == {"bob": 1, "eve": 2}
    assert nodes(neighbors("tea", direction="in", depth=2)) == {"ann": 1, "eve": 1, "bob": 2}
    assert nodes(neighbors("nobody")) == {}


def test_a_cycle_ends_and_the_start_is_not_its_own_neighbor(family: Any) -> None:
    assert nodes(family.entities.neighbors("ann", "knows", depth=50)) == {"bob": 1, "eve": 2}
    family.entities.link("ann", "knows", "ann")
    assert "ann" not in nodes(family.entities.neighbors("ann", depth=3))


def test_each_node_comes_once_with_its_least_depth(family: Any) -> None:
    family.entities.link("ann", "likes", "bob")
    found = list(family.entities.neighbors("ann", direction="both", depth=3))
    assert len(found) == len({neighbor.node for neighbor in found}) == 3
    assert nodes(found) == {"bob": 1, "tea": 1, "eve": 1}


def test_a_neighbor_tells_relation_and_props(family: Any) -> None:
    (neighbor,) = family.entities.neighbors("ann", "knows")
    assert (neighbor.node, neighbor.relation, neighbor.depth) == ("bob", "knows", 1)
    assert neighbor.props == {"since": 2020}
    (neighbor,) = family.entities.neighbors("bob", "knows")
    assert not neighbor.props


def test_edges_of_a_node(family: Any) -> None:
    edges = {(edge.src, edge.relation, edge.dst) for edge in family.entities.edges("ann")}
    assert {("ann", "knows", "bob"), ("ann", "likes", "tea")} <= edges
    assert all("ann" in (src, dst) for src, _, dst in edges)


def test_linking_again_replaces_the_props(family: Any) -> None:
    family.entities.link("ann", "knows", "bob", {"since": 2024})
    (neighbor,) = family.entities.neighbors("ann", "knows")
    assert neighbor.props == {"since": 2024}
    assert nodes(family.entities.neighbors("bob", "knows", direction="in")) == {"ann": 1}


def test_unlink_removes_one_edge_from_both_ends(family: Any) -> None:
    family.entities.unlink("ann", "likes", "tea")
    family.entities.unlink("ann", "likes", "tea")
    family.entities.unlink("nobody", "likes", "tea")
    assert nodes(family.entities.neighbors("ann")) == {"bob": 1}
    assert nodes(family.entities.neighbors("tea", direction="in")) == {"eve": 1}


def test_names_never_run_together(db: Any) -> None:
    db.entities.link("a", "bc", "d")
    db.entities.link("ab", "c", "d")
    db.entities.link("a\0", "b", "d")
    assert [n.relation for n in db.entities.neighbors("a")] == ["bc"]
    assert [n.relation for n in db.entities.neighbors("ab")] == ["c"]
    assert [n.relation for n in db.entities.neighbors("a\0")] == ["b"]
    assert nodes(db.entities.neighbors("d", direction="in")) == {"a": 1, "ab": 1, "a\0": 1}


def test_a_transaction_walks_its_own_edges_and_can_roll_back(family: Any) -> None:
    with pytest.raises(RuntimeError), family.transaction() as tx:
        tx.entities.link("tea", "grows_in", "assam")
        tx.entities.unlink("ann", "knows", "bob")
        assert nodes(tx.entities.neighbors("ann", depth=2)) == {"tea": 1, "assam": 2}
        raise RuntimeError
    assert nodes(family.entities.neighbors("ann", depth=1)) == {"bob": 1, "tea": 1}
    assert nodes(family.entities.neighbors("tea")) == {}


def test_bad_directions_and_depths_are_refused(family: Any) -> None:
    for bad in ({"direction": "up"}, {"depth": 0}, {"depth": -1}, {"depth": 65}):
        with pytest.raises(ValueError):
            family.entities.neighbors("ann", **bad)


def test_it_is_there_after_reopening(path: Any) -> None:
    with Memory(path) as db:
        db.entities.link("ann", "knows", "bob", {"since": 2020})
        db.entities.link("ann", "knows", "eve")
        db.entities.unlink("ann", "knows", "eve")
    with Memory(path) as db:
        (neighbor,) = db.entities.neighbors("ann", depth=3)
        assert (neighbor.node, neighbor.props) == ("bob", {"since": 2020})
        assert nodes(db.entities.neighbors("eve", direction="both")) == {}
