"""Draws what a propagation trace does next: writes that are possible now, and policies."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from propagation_checks import DAYS, DIM, KEYS, USERS
from propagation_model import STRUCTURES, Document, Model, Operation, identity_of

from waferdb import eager, hybrid, lazy

AMOUNTS = (1, 2, -3, 0.1, 0.25, 1e16, -1e16, "many")


class Draw:
    """Everything comes from one `random.Random`; texts are never the same twice."""

    def __init__(self, rng: Random, model: Model) -> None:
        self.rng = rng
        self.model = model
        self.serial = 0

    def policy(self) -> Any:
        kind = self.rng.choice((eager, lazy, lazy, hybrid))
        if kind is not hybrid:
            return kind()
        return hybrid(
            max_age=self.rng.choice(("50ms", "1s", "10s")),
            max_items=self.rng.choice((1, 3, 4096)),
            max_bytes=self.rng.choice((64, "8MiB")),
        )

    def operations(self) -> list[Operation]:
        """Some that do not meddle with each other, so that their order inside a commit is nobody's
        concern."""
        drawn: list[Operation] = []
        claimed: set[Any] = set()
        for _ in range(self.rng.choice((1, 1, 1, 2, 3, 5))):
            operation = self.operation()
            if operation is not None and not claimed & (claims := self.claims(operation)):
                claimed |= claims
                drawn.append(operation)
        return drawn

    def claims(self, operation: Operation) -> set[Any]:
        found: set[Any] = set()
        if operation.name == "forget":
            found |= {(name, operation.args[0]) for name in STRUCTURES}
            found |= {("context", (scope, operation.args[0])) for scope in USERS}
        for structure, _, args, named in operation.calls():
            place = args[:2] if structure in ("context", "graph") else named.get("key", args[0])
            found.add((structure, place))
            if structure in ("facts", "vectors"):
                found.add(("facts", place))
                found |= self.identities(place, args[1:])
        return found

    def identities(self, key: str, args: tuple[Any, ...]) -> set[Any]:
        """What a row is about before a write, and after it."""
        documents = [arg for arg in args if isinstance(arg, dict)]
        if key in self.model.newest.facts:
            now = self.model.newest.facts[key].document
            documents += [now, *({**now, **changes} for changes in documents)]
        return {identity_of(document) for document in documents} - {None}

    def operation(self) -> Operation | None:
        """One write that is possible now; None if what was drawn is not."""
        rng, state = self.rng, self.model.newest
        key, user = rng.choice(KEYS), rng.choice(USERS)
        edge = (key, rng.choice(("knows", "likes")), rng.choice(KEYS))
        possible: dict[str, tuple[int, bool, Callable[[], tuple[Any, ...]]]] = {
            "facts.put": (6, True, lambda: (key, self.document())),
            "put with vector": (3, True, lambda: (key, self.document(), self.vector())),
            "facts.patch": (2, key in state.facts, lambda: (key, self.changes())),
            "facts.delete": (3, key in state.facts, lambda: (key,)),
            "vectors.put": (2, key in state.facts, lambda: (key, self.vector())),
            "vectors.delete": (1, key in state.vectors, lambda: (key,)),
            "append": (2, True, lambda: (rng.choice(("seen", "said")), self.text(), key)),
            "session.put": (2, True, lambda: (key, self.text())),
            "session.delete": (1, key in state.session, lambda: (key,)),
            "context.set": (2, True, lambda: (user, key, self.text())),
            "context.delete": (1, (user, key) in state.context, lambda: (user, key)),
            "graph.link": (2, True, lambda: (*edge, {"text": self.text()})),
            "graph.unlink": (1, edge in state.graph, lambda: edge),
            "forget": (1, True, lambda: self.forgetting(key)),
        }
        (name,) = rng.choices(
            list(possible), weights=[weight for weight, _, _ in possible.values()]
        )
        _, allowed, arguments = possible[name]
        if not allowed:
            return None
        args = arguments()
        return Operation(name, args) if args else None

    def forgetting(self, key: str) -> tuple[Any, ...]:
        """Of one key, all that there ever was."""
        ever = [name for name in ("vectors", "facts", "session") if self.ever(name, key)]
        told = [name for name in ("events", "journal") if self.ever_told(name, key)]
        scopes = [
            scope
            for scope in USERS
            if any((scope, key) in state.context for state in self.model.history.values())
        ]
        return (key, (*ever, *told), tuple(scopes)) if ever or told or scopes else ()

    def ever(self, name: str, key: str) -> bool:
        return any(key in getattr(state, name) for state in self.model.history.values())

    def ever_told(self, name: str, key: str) -> bool:
        return any(event.key == key for event in getattr(self.model.newest, name))

    def document(self) -> Document:
        rng = self.rng
        if self.model.newest.facts and rng.random() < 0.1:
            # An equal document under another key supersedes nothing.
            return rng.choice(list(self.model.newest.facts.values())).document
        made: Document = {"user": rng.choice(USERS), "n": rng.randrange(10), "text": self.text()}
        if rng.random() < 0.85:
            made["day"] = rng.choice(DAYS)
        if rng.random() < 0.6:
            made["amount"] = rng.choice(AMOUNTS)
        if rng.random() < 0.5:
            made |= {"subject": rng.choice(USERS), "attribute": rng.choice(("diet", "contact"))}
        return made

    def changes(self) -> Document:
        changed: Document = {"text": self.text()}
        if self.rng.random() < 0.5:
            changed["user"] = self.rng.choice(USERS)
        return changed

    def text(self) -> str:
        self.serial += 1
        return f"t{self.serial}"

    def vector(self) -> list[float]:
        return [float(self.rng.randrange(-4, 5)) for _ in range(DIM)]
