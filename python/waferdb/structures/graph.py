"""Graph: nodes joined by directed, named relations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Self

from waferdb import _core, documents, policies
from waferdb.policies import Consistency, Policy
from waferdb.results import Edge, Neighbor, Receipt
from waferdb.scope import AsOf
from waferdb.structures.base import Structure

_DIRECTIONS = ("out", "in", "both")


class Graph(Structure):
    """Edges `(src, relation, dst)` with props; a node is whatever an edge names.

    >>> import waferdb
    >>> db = waferdb.open(":memory:", {"entities": Graph()})
    >>> _ = db.entities.link("ann", "works_at", "acme", {"since": 2020})
    >>> [(n.node, n.relation, n.props) for n in db.entities.neighbors("ann")]
    [('acme', 'works_at', {'since': 2020})]
    """

    __slots__ = ()

    KIND = "graph"

    def __init__(self, policy: Policy = policies.Eager()) -> None:  # noqa: B008 - immutable
        super().__init__(policy)

    def _to_json(self, name_of: Callable[[str | Structure, str], str]) -> dict[str, Any]:
        return {"kind": "graph", "policy": self.policy.to_json()}

    @classmethod
    def _from_json(cls, stored: dict[str, Any]) -> Self:
        return cls(policies.from_json(stored["policy"]))

    def link(
        self, src: str, relation: str, dst: str, props: dict[str, Any] | None = None
    ) -> Receipt:
        """Joins two nodes, or replaces the props of an edge that is there."""
        encoded = None if props is None else documents.encode_document(props)
        return self._scope.write(_core.Transaction.link, self._id, src, relation, dst, encoded)

    def unlink(self, src: str, relation: str, dst: str) -> Receipt:
        """Removes an edge; no error if there is none."""
        return self._scope.write(_core.Transaction.unlink, self._id, src, relation, dst)

    def neighbors(
        self,
        node: str,
        relation: str | None = None,
        *,
        direction: Literal["out", "in", "both"] = "out",
        depth: int = 1,
        consistency: Consistency | None = None,
        as_of: AsOf | None = None,
    ) -> list[Neighbor]:
        """The nodes within `depth` steps over `relation` (any, if None), each once, without the
        start. Raises `LimitError` for a depth beyond its bound."""
        if direction not in _DIRECTIONS:
            raise ValueError(f'direction={direction!r}: it is "out", "in" or "both"')
        if isinstance(depth, bool) or not isinstance(depth, int):
            raise TypeError(f"depth is an int, not {type(depth).__name__}")
        if depth < 1:
            raise ValueError(f"depth={depth}: a walk has at least one step")
        reader = self._reader(consistency, as_of)
        found = reader.neighbors(self._id, node, relation, direction, depth)
        return [Neighbor(name, via, steps, _props(raw)) for name, via, steps, raw in found]

    def edges(
        self,
        node: str,
        *,
        consistency: Consistency | None = None,
        as_of: AsOf | None = None,
    ) -> list[Edge]:
        """The edges that begin or end at a node."""
        found = self._reader(consistency, as_of).edges(self._id, node)
        return [Edge(src, relation, dst, _props(raw)) for src, relation, dst, raw in found]


def _props(raw: bytes | None) -> Any:
    return None if raw is None else documents.decode(raw)


__all__ = ["Graph"]
