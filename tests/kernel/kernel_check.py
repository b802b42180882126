"""Says what is wrong with a database after a fault, by comparing all of it with the model.

A finding is `lost: …` where something acknowledged is missing, else `wrong: …`. Every structure is
read whole, so a commit that is there in part shows wherever its missing part belongs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from kernel_store import (
    DIM,
    POINT_DIM,
    PROGRESS,
    Model,
    Options,
    model_at,
    standing,
    topics,
    vector_of,
)

import waferdb


@dataclass(frozen=True)
class Bounds:
    """Of one writer: at least and at most this many commits may stand."""

    least: int
    most: int


def examine(
    path: Path | str, seed: int, bounds: Mapping[str, Bounds], options: Options, thorough: bool
) -> tuple[dict[str, int], list[str]]:
    """Opens the database and gives how many commits of each writer stand, and what is wrong."""
    try:
        with options.open(path, seed, durability="sync") as db:
            return compare(db, seed, bounds, thorough)
    except Exception as error:  # noqa: BLE001 - whatever it raises is the finding
        return {}, [f"wrong: {type(error).__name__} from opening or reading: {error}"]


def compare(
    db: Any, seed: int, bounds: Mapping[str, Bounds], thorough: bool
) -> tuple[dict[str, int], list[str]]:
    """As `examine`, of an open database."""
    found = standing(db)
    problems = []
    for writer in sorted({*bounds, *found}):
        count, bound = found.get(writer, 0), bounds.get(writer, Bounds(0, 0))
        if count < bound.least:
            problems.append(f"lost: {writer} acknowledged {bound.least} commits, {count} stand")
        if count > bound.most:
            problems.append(f"wrong: {writer} began {bound.most} commits, {count} stand")
    models = [model_at(seed, writer, count) for writer, count in sorted(found.items())]
    for name, compared in _COMPARISONS.items():
        try:
            problems += [f"wrong: {name}: {text}" for text in compared(db, models)]
        except Exception as error:  # noqa: BLE001 - whatever it raises is the finding
            problems.append(f"wrong: {name}: {type(error).__name__}: {error}")
    if thorough:
        report = db.verify(deep=True)
        if not report.ok:
            problems.append(f"wrong: verify: {report.problems}")
    return found, problems


def _differences(found: Mapping[Any, Any], expected: Mapping[Any, Any]) -> Iterator[str]:
    for key in sorted(found.keys() - expected.keys(), key=str)[:3]:
        yield f"{key!r} should not be there: {str(found[key])[:80]}"
    for key in sorted(expected.keys() - found.keys(), key=str)[:3]:
        yield f"{key!r} is missing"
    for key in sorted(expected.keys() & found.keys(), key=str):
        if found[key] != expected[key]:
            yield f"{key!r} is {str(found[key])[:80]}, not {str(expected[key])[:80]}"
            return


def _facts(db: Any, models: list[Model]) -> Iterator[str]:
    expected = {key: row for model in models for key, row in model.facts.items()}
    yield from _differences(dict(db.facts.scan()), expected)
    users = {row["user"] for row in expected.values()}
    by_index = {key: row for user in users for key, row in db.facts.find({"user": user})}
    yield from _differences(by_index, expected)


def _embeddings(db: Any, models: list[Model]) -> Iterator[str]:
    expected = {key: row["text"] for model in models for key, row in model.facts.items()}
    yield from _vectors(db.embeddings, expected, DIM)
    for key in sorted(expected)[:2]:
        hits = db.embeddings.search(vector_of(expected[key], DIM), k=3)
        if not hits or not expected.keys() >= set(hits.keys) or key not in hits.keys:
            yield f"a search for {key!r} gives {hits.keys}"


def _points(db: Any, models: list[Model]) -> Iterator[str]:
    expected = {key: name for model in models for key, name in model.points.items()}
    yield from _vectors(db.points, expected, POINT_DIM)
    if expected:
        query = vector_of("query", POINT_DIM)
        distances = {
            key: float(np.linalg.norm(vector_of(name, POINT_DIM).astype(np.float64) - query))
            for key, name in expected.items()
        }
        nearest = sorted(distances, key=lambda key: (distances[key], key))[:5]
        hits = db.points.search(query, k=5, exact=True)
        if not np.allclose(hits.distances, [distances[key] for key in nearest], rtol=1e-4):
            yield f"an exact search gives {hits.keys}, not {nearest}"
        if not expected.keys() >= set(db.points.search(query, k=50).keys):
            yield "a search gives keys that are not there"


def _vectors(structure: Any, expected: Mapping[str, str], dim: int) -> Iterator[str]:
    keys = set(structure.keys())
    if keys != expected.keys():
        yield f"keys differ: {sorted(keys ^ expected.keys())[:5]}"
    for key in sorted(keys & expected.keys()):
        if not np.array_equal(structure.get(key), vector_of(expected[key], dim)):
            yield f"vector {key!r} is not what was written"
            return


def _session(db: Any, models: list[Model]) -> Iterator[str]:
    expected = {key: row for model in models for key, row in model.facts.items()}
    yield from _differences({key: db.session.get(key) for key in db.session}, expected)


def _events(db: Any, models: list[Model]) -> Iterator[str]:
    # Which writer an event without a key is of stands in no field: they are counted by digest.
    events = list(db.events.scan())
    keyless = sorted(str(event.payload) for event in events if event.key is None)
    if keyless != sorted(str(e[2]) for model in models for e in model.events if e[1] is None):
        yield "the events of what was forgotten differ"
    for model in models:
        mine = [
            (event.kind, event.key, event.payload)
            for event in events
            if event.key is not None and event.key.startswith(f"{model.writer}/")
        ]
        expected = [event for event in model.events if event[1] is not None]
        if mine != expected:
            yield f"{len(mine)} events of {model.writer}, not {len(expected)}, or others"
    if len(events) != sum(len(model.events) for model in models):
        yield "there are events of nobody"


def _journal(db: Any, models: list[Model]) -> Iterator[str]:
    events = [(event.kind, event.key) for event in db.journal.scan()]
    for model in models:
        mine = [event for event in events if event[1].startswith(f"{model.writer}/")]
        if mine != model.journal:
            yield f"{len(mine)} captured changes of {model.writer}, not {len(model.journal)}"
    if len(events) != sum(len(model.journal) for model in models):
        yield "there are captured changes of nobody"


def _context(db: Any, models: list[Model]) -> Iterator[str]:
    expected = {at: row for model in models for at, row in model.context.items()}
    found = {
        (scope, name): value
        for scope in db.context.scopes()
        if scope != PROGRESS
        for name, value in db.context.load(scope).items()
    }
    yield from _differences(found, expected)


def _people(db: Any, models: list[Model]) -> Iterator[str]:
    expected = {key: row for model in models for key, row in model.people.items()}
    yield from _differences(dict(db.people.scan()), expected)
    for city in sorted({row["city"] for row in expected.values()}):
        young = {
            key: row for key, row in expected.items() if row["city"] == city and row["age"] < 45
        }
        yield from _differences(dict(db.people.find({"city": city, "age": (None, 45)})), young)
    for key, row in sorted(expected.items())[:2]:
        if [k for k, _ in db.people.find({"email": row["email"]})] != [key]:
            yield f"the unique field does not find {key!r}"
        try:
            with db.transaction() as tx:
                tx.people.put("impostor", {"email": row["email"], "city": "x", "age": 1})
        except waferdb.UniqueError:
            continue
        yield f"the email of {key!r} could be given a second time"


def _entities(db: Any, models: list[Model]) -> Iterator[str]:
    expected = {edge: props for model in models for edge, props in model.links.items()}
    found = {
        (edge.src, edge.relation, edge.dst): edge.props
        for topic in sorted({edge[2] for edge in expected} | {f"topic{n}" for n in range(4)})
        for edge in db.entities.edges(topic)
    }
    yield from _differences(found, expected)


def _views(db: Any, models: list[Model]) -> Iterator[str]:
    for topic, count in topics(models).items():
        if db.per_topic.get(topic, consistency="strong") != {"count": count}:
            yield f"{topic} is counted {db.per_topic.get(topic)}, not {count}"
    groups: dict[str, list[str]] = {}
    for model in models:
        for row in model.facts.values():
            groups.setdefault(row["user"], []).append(row["text"])
    for user, texts in sorted(groups.items())[:2]:
        if db.digests.get(user, consistency="strong") != {"texts": sorted(texts)}:
            yield f"the digest of {user} is another"
    if extra := set(db.digests.keys()) - groups.keys():
        yield f"there are digests of users without facts: {sorted(extra)[:3]}"


def _log(db: Any, models: list[Model]) -> Iterator[str]:
    """The commits of the log, of the audit structure and of `outcome` are the same ones."""
    names: dict[str, list[int]] = {}
    lsn_of: dict[str, int] = {}
    for change in db.changes():
        lsn_of[change.txn] = change.lsn
        if change.actor is not None:
            names.setdefault(change.actor, []).append(int(change.reason))
    leaves: dict[str, list[int]] = {}
    # Views may be stored meanwhile, by commits of nobody.
    before = db.audit.head().size
    entries = list(db.audit.entries())
    after = db.audit.head().size
    for entry in entries:
        if entry.actor is not None:
            leaves.setdefault(entry.actor, []).append(int(entry.reason))
    if not before <= len(entries) <= after:
        yield f"the audit tree has {before} to {after} leaves and {len(entries)} entries"
    for model in models:
        everything = list(range(model.count))
        if names.get(model.writer, []) != everything:
            yield f"changes() of {model.writer} are not 0 to {model.count}, each once"
        if leaves.get(model.writer, []) != everything:
            yield f"audit entries of {model.writer} are not 0 to {model.count}, each once"
        if db.outcome(model.txn(model.count)) != "absent":
            yield f"{model.txn(model.count)} stands nowhere and is not absent"
        if model.count and db.outcome(model.txn(model.count - 1)) != "committed":
            yield f"{model.txn(model.count - 1)} stands and is not committed"
        yield from _past(db, model, lsn_of)


def _past(db: Any, model: Model, lsn_of: Mapping[str, int]) -> Iterator[str]:
    """As of the middle of the history: what stood then, without what was forgotten since."""
    if model.count < 2:
        return
    middle = model.count // 2
    then = model_at(model.seed, model.writer, middle + 1)
    lsn = lsn_of[model.txn(middle)]
    expected = {
        key: row for key, row in then.facts.items() if model.forgotten.get(key, -1) <= middle
    }
    found = dict(db.facts.scan(prefix=f"{model.writer}/", as_of=lsn))
    yield from (f"as of {lsn}: {text}" for text in _differences(found, expected))
    for key in then.facts.keys() - expected.keys():
        if db.embeddings.get(key, as_of=lsn) is not None:
            yield f"the vector of {key!r} is answered as of {lsn}, forgotten later"


_COMPARISONS: dict[str, Callable[[Any, list[Model]], Iterator[str]]] = {
    "facts": _facts,
    "embeddings": _embeddings,
    "points": _points,
    "session": _session,
    "events": _events,
    "journal": _journal,
    "context": _context,
    "people": _people,
    "entities": _entities,
    "views": _views,
    "log": _log,
}
