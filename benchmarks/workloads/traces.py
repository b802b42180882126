"""What happens to an agent's memory, and when: changes and reads with times of their own.

1. A trace is data: the same in each run, at times in seconds from its beginning, in order.
2. Facts are numbered in the order in which they are written; a summary says which was its newest,
   so that anybody can tell what it does not reflect yet.
3. Summaries are what a cheap function makes of their inputs: as long as real ones, and another text
   for each change.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from waferdb import documents

from .text import samples

FACTS, TURNS = "facts", "turns"
_VOCABULARY = (
    "prefers email over slack meeting budget quarter review launch partner pricing travel window "
    "seat contract renewal legal draft roadmap sprint retro allergy peanuts birthday october"
)
_WORDS = _VOCABULARY.split()


@dataclass(frozen=True)
class Put:
    """A row, one commit."""

    at: float
    structure: str
    key: str
    document: dict[str, Any]

    @property
    def logical_bytes(self) -> int:
        """Key and document, encoded."""
        return len(self.key) + len(documents.encode(self.document))


@dataclass(frozen=True)
class Ask:
    """A read of one summary of the last level."""

    at: float
    key: Any


@dataclass(frozen=True)
class Level:
    """A view: a summary for each group of its source's rows."""

    name: str
    source: str
    by: tuple[str, ...]
    characters: int

    @property
    def declared_by(self) -> str | tuple[str, ...]:
        """As views want it."""
        return self.by[0] if len(self.by) == 1 else self.by

    def key(self, fact: dict[str, Any]) -> Any:
        """The group that a fact is in, here or further up."""
        values = tuple(fact[field] for field in self.by)
        return values[0] if len(values) == 1 else values

    def summarise(self, group: Any) -> dict[str, Any]:
        """The beginnings of the newest inputs, newest first, as many as there is room for."""
        inputs = [row.value for row in group.rows]
        inputs.sort(key=lambda value: value["number"], reverse=True)
        parts, room = [], self.characters
        for value in inputs:
            part = f"{value['number']}: {value['text'][: self.characters // 6]}"[:room]
            parts.append(part)
            room -= len(part)
            if room <= 0:
                break
        return {
            "text": "; ".join(parts),
            "number": inputs[0]["number"],
            "inputs": len(inputs),
        }


PROFILES = Level("profiles", FACTS, ("user",), 1_000)
HIERARCHY = (
    Level("episodes", FACTS, ("user", "day", "episode"), 400),
    Level("days", "episodes", ("user", "day"), 600),
    dataclasses.replace(PROFILES, source="days"),
)


@dataclass(frozen=True)
class Trace:
    """Changes and reads, and the views over them."""

    name: str
    what: str
    moments: Sequence[Put | Ask]
    levels: tuple[Level, ...] = (PROFILES,)

    @property
    def seconds(self) -> float:
        """How long it takes."""
        return self.moments[-1].at

    @property
    def puts(self) -> list[Put]:
        """The changes."""
        return [moment for moment in self.moments if isinstance(moment, Put)]

    @property
    def logical_bytes(self) -> int:
        """What is handed in."""
        return sum(put.logical_bytes for put in self.puts)


def _fact(number: int, user: str, text: str, **more: Any) -> dict[str, Any]:
    return {"text": text, "user": user, "number": number, "source": "conversation", **more}


def _words(number: int, characters: int = 200) -> str:
    words = (_WORDS[(number * 7 + place * (number % 11 + 1)) % len(_WORDS)] for place in range(40))
    return f"{number:06} {' '.join(words)}"[:characters]


def _trace(name: str, what: str, moments: list[Put | Ask], **more: Any) -> Trace:
    return Trace(name, what, sorted(moments, key=lambda moment: moment.at), **more)


# chat

_EPISODE_TURNS = 10
_TURN_SECONDS, _CHARACTERS_PER_SECOND = 1.5, 25.0
_FACT_SECONDS = 0.05  # what an embedding of it takes
_BETWEEN_SESSIONS_SECONDS = 30.0


def chat(turns: int) -> Trace:
    """LoCoMo's conversations. Raises `UnsupportedError` without their file."""
    moments: list[Put | Ask] = []
    conversations = samples()
    share = -(-turns // len(conversations))
    for place, sample in enumerate(conversations):
        moments += _conversation(sample, share, 7.0 * place)
    moments.sort(key=lambda moment: moment.at)
    what = (
        "LoCoMo's conversations side by side, each turn as long after the one before as its text "
        f"takes to type, {_BETWEEN_SESSIONS_SECONDS:.0f} s between sessions. Every turn is stored "
        f"and asks for its user's profile. After {_EPISODE_TURNS} turns, or with the session, an "
        "episode ends, and a fact of each of its turns is stored, one commit each, "
        f"{_FACT_SECONDS * 1e3:.0f} ms apart. Three levels: an episode's facts, a day's episodes, "
        "a user's days."
    )
    return Trace("chat", what, _renumbered(moments), HIERARCHY)


def _conversation(sample: dict[str, Any], most: int, start: float) -> Iterator[Put | Ask]:
    """Its first turns; facts are numbered later, when all conversations are in order."""
    user, now = str(sample["sample_id"]), start
    said = 0
    for name, turns in sample["conversation"].items():
        if not isinstance(turns, list) or said >= most:
            continue
        day = str(sample["conversation"].get(f"{name}_date_time", name)).partition(" on ")[2]
        turns = turns[: most - said]
        said += len(turns)
        for first in range(0, len(turns), _EPISODE_TURNS):
            episode = turns[first : first + _EPISODE_TURNS]
            about = {"user": user, "day": day or name, "episode": f"{name}:{first}"}
            for turn in episode:
                now += _TURN_SECONDS + len(turn["text"]) / _CHARACTERS_PER_SECOND
                key = f"{user}/{turn['dia_id']}"
                yield Put(now, TURNS, key, {**about, "text": turn["text"], "by": turn["speaker"]})
                yield Ask(now, user)
            for place, turn in enumerate(episode):
                fact = _fact(0, text=f"{turn['speaker']}: {turn['text']}", **about)
                yield Put(now + place * _FACT_SECONDS, FACTS, f"{user}/{turn['dia_id']}", fact)
        now += _BETWEEN_SESSIONS_SECONDS


def _renumbered(moments: list[Put | Ask]) -> list[Put | Ask]:
    """With the facts of all conversations numbered as they come."""
    numbers = itertools.count()
    found: list[Put | Ask] = []
    for moment in moments:
        if isinstance(moment, Put) and moment.structure == FACTS:
            fact = {**moment.document, "number": next(numbers)}
            moment = dataclasses.replace(moment, document=fact)
        found.append(moment)
    return found


# burst

_BURST, _BURST_FACT_SECONDS, _BURST_EVERY_SECONDS = 200, 0.01, 30.0
_BURST_USERS = 8


def burst(facts: int) -> Trace:
    """Imports of many facts at once, with quiet between them."""
    drawn = random.Random(1)
    moments: list[Put | Ask] = []
    for number in range(facts):
        which, place = divmod(number, _BURST)
        at = 5.0 + which * _BURST_EVERY_SECONDS + place * _BURST_FACT_SECONDS
        user = f"user:{drawn.randrange(_BURST_USERS)}"
        moments.append(Put(at, FACTS, f"fact:{number:06}", _fact(number, user, _words(number))))
    ends = int(moments[-1].at) + 10
    users = [f"user:{drawn.randrange(_BURST_USERS)}" for _ in range(ends)]
    moments += [Ask(second + 0.5, user) for second, user in enumerate(users)]
    what = (
        f"{_BURST} facts of {_BURST_USERS} users, one commit each, "
        f"{_BURST_FACT_SECONDS * 1e3:.0f} ms apart, every {_BURST_EVERY_SECONDS:.0f} s; one read a "
        "second."
    )
    return _trace("burst", what, moments)


# hot key

_HOT_RATE, _HOT_FACTS, _HOT_UPDATES_PER_READ = 20.0, 20, 500


def hot_key(updates: int) -> Trace:
    """One user, updated again and again and hardly read."""
    moments: list[Put | Ask] = []
    for number in range(updates):
        at = (number + 1) / _HOT_RATE
        fact = _fact(number, "ann", _words(number))
        moments.append(Put(at, FACTS, f"fact:{number % _HOT_FACTS:02}", fact))
        if (number + 1) % _HOT_UPDATES_PER_READ == 0:
            moments.append(Ask(at + 0.5 / _HOT_RATE, "ann"))
    what = (
        f"One user's {_HOT_FACTS} facts, {_HOT_RATE:.0f} updates a second in turn, one read per "
        f"{_HOT_UPDATES_PER_READ} updates."
    )
    return _trace("hot key", what, moments)


# read heavy

_UPDATES, _READS, _READ_USERS = 2.0, 20.0, 50


def read_heavy(facts: int) -> Trace:
    """Ten reads for each change."""
    drawn = random.Random(2)
    # Popular as 1 / rank.
    weights = [1 / (rank + 1) for rank in range(_READ_USERS)]
    names = [f"user:{number:02}" for number in range(_READ_USERS)]
    reads = round(facts * _READS / _UPDATES)
    owners = drawn.choices(names, weights, k=facts)
    moments: list[Put | Ask] = [
        Put((n + 1) / _UPDATES, FACTS, f"fact:{n:06}", _fact(n, owner, _words(n)))
        for n, owner in enumerate(owners)
    ]
    asked = drawn.choices(names, weights, k=reads)
    moments += [Ask(drawn.random() * facts / _UPDATES, name) for name in asked]
    what = (
        f"{_UPDATES:.0f} facts a second of {_READ_USERS} users and {_READS:.0f} reads a second, "
        "users popular as 1 / rank."
    )
    return _trace("read heavy", what, moments)


TRACES = {"chat": chat, "burst": burst, "hot key": hot_key, "read heavy": read_heavy}
