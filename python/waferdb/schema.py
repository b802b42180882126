"""Declarations checked and turned into the stored schema, and back.

1. Every name and reference is checked when the class is created, before any file is touched.
2. The stored schema is the authority on ids and on what exists; a declaration may be a part of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from waferdb import policies
from waferdb.errors import SchemaError
from waferdb.groups import decode_key
from waferdb.policies import Policy
from waferdb.scope import names_of
from waferdb.structures import Audit, Cache, Context, Events, Graph, Rows, Structure, Vectors, View

__all__ = ["Catalog", "Member", "check", "check_name", "to_json"]

_KINDS: dict[str, type[Structure]] = {
    kind.KIND: kind for kind in (Rows, Vectors, Events, Audit, Cache, Context, Graph, View)
}


def check(structures: Mapping[str, Structure], reserved: frozenset[str], owner: str) -> None:
    """Raises `SchemaError` for a name or a reference that cannot be."""
    seen: dict[int, str] = {}
    for name, structure in structures.items():
        check_name(name, reserved, owner)
        if not isinstance(structure, Structure):
            raise SchemaError(
                f"{owner}.{name} is {structure!r}; a structure is Rows(…), Vectors(…) and so on"
            )
        other = seen.setdefault(id(structure), name)
        if other != name:
            raise SchemaError(
                f"{owner}: {other} and {name} are one object; declare each on its own"
            )
    known = dict(structures)
    for name, structure in structures.items():
        structure._check_links(name, known, _linker(known, f"{owner}.{name}"))


def check_name(name: object, reserved: frozenset[str], owner: str) -> None:
    """Raises `SchemaError` for what cannot be the name of a structure."""
    if not isinstance(name, str) or not name:
        raise SchemaError(f"{owner}: the name of a structure is text, not {name!r}")
    if name.startswith("_"):
        raise SchemaError(f"{owner}.{name}: names beginning with _ are reserved; choose another")
    if name in reserved:
        raise SchemaError(f"{owner}.{name}: Database has a member of that name; choose another")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise SchemaError(
            f"{owner}: the name {name!r} has a lone surrogate, which UTF-8 cannot hold; "
            "choose another"
        ) from None


def to_json(structures: Mapping[str, Structure]) -> str:
    """The schema as the engine takes it."""
    known = dict(structures)
    return json.dumps(
        {
            "structures": [
                {"name": name, **structure._to_json(_linker(known, name))}
                for name, structure in known.items()
            ]
        }
    )


def _linker(structures: dict[str, Structure], owner: str) -> Any:
    def name_of(target: str | Structure, argument: str) -> str:
        if isinstance(target, str):
            if target in structures:
                return target
        elif isinstance(target, Structure):
            for name, structure in structures.items():
                if structure is target:
                    return name
            if target.name in structures and type(structures[target.name]) is type(target):
                return target.name
        else:
            raise SchemaError(f"{owner}: {argument}={target!r} is neither a name nor a structure")
        raise SchemaError(
            f"{owner}: {argument}={target!r} is not declared here; there are: "
            f"{names_of(structures)}"
        )

    return name_of


class Member:
    """One structure of an open database."""

    __slots__ = ("declaration", "id", "name", "policy", "source")

    def __init__(
        self,
        name: str,
        structure_id: int,
        declaration: Structure,
        policy: Policy,
    ) -> None:
        self.name = name
        self.id = structure_id
        self.declaration = declaration
        self.policy = policy  # in force
        self.source: int | None = None  # of a view


class Catalog:
    """The structures of an open database by name: as declared where declared, else as stored."""

    __slots__ = ("_declared", "_links", "_sources", "entries")

    def __init__(self, declared: Mapping[str, Structure], stored: str) -> None:
        self._declared = dict(declared)
        self.entries: dict[str, Member] = {}
        self._links: dict[str, str] = {}
        self._sources: dict[str, str] = {}
        for item in json.loads(stored)["structures"]:
            name = item["name"]
            kind = _KINDS.get(item["kind"])
            if kind is None:
                raise SchemaError(
                    f"{name} is of kind {item['kind']!r}, which this version does not know; "
                    "nothing is lost, open it with a newer version"
                )
            declaration = self._declared.get(name)
            if declaration is None or type(declaration).KIND != kind.KIND:
                declaration = kind._from_json(item)
            policy = item.get("policy_override") or item["policy"]
            member = Member(name, item["id"], declaration, policies.from_json(policy))
            self.entries[name] = member
            if item.get("rows") is not None:
                self._links[name] = item["rows"]
            if kind is View:
                self._sources[name] = item["source"]
        for name, source in self._sources.items():
            self.entries[name].source = self.entries[source].id

    def link_of(self, name: str) -> Member | None:
        """The rows that vectors are linked to."""
        target = self._links.get(name)
        return None if target is None else self.entries.get(target)

    def source_of(self, name: str) -> Member:
        """What a view is a view of."""
        return self.entries[self._sources[name]]

    def key(self, structure: str, key: Any) -> Any:
        """A key as its structure's users know it: of a view the group's own."""
        member = self.entries.get(structure)
        if member is not None and isinstance(member.declaration, View) and isinstance(key, bytes):
            return decode_key(key)
        return key

    def reloaded(self, stored: str) -> Catalog:
        """The catalog of a schema that changed."""
        return Catalog(self._declared, stored)
