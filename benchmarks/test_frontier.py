"""What the frontier is judged by: staleness from answers, what is compared, and how it is shown."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks import outputs, report
from benchmarks.targets import SUBJECT, Row, judge
from benchmarks.workloads import frontier
from benchmarks.workloads.traces import FACTS, HIERARCHY, PROFILES, TRACES, Ask, Level, Put


def put(number: int, at: float, user: str = "ann", **more: str) -> Put:
    fact = {"number": number, "text": f"fact {number}", "user": user, **more}
    return Put(at, FACTS, f"fact:{number}", fact)


def test_a_summary_is_as_stale_as_the_oldest_fact_that_it_lacks() -> None:
    watch = frontier.Watch((PROFILES,))
    for number, at in enumerate((1.0, 2.0, 4.0)):
        watch.changed(put(number, at))
    assert watch.answered("profiles", "ann", None, 5.0) == 4.0
    assert watch.answered("profiles", "ann", {"number": 0}, 5.0) == 3.0
    assert watch.answered("profiles", "ann", {"number": 1}, 5.0) == 1.0
    assert watch.answered("profiles", "ann", {"number": 2}, 5.0) == 0.0
    assert watch.answered("profiles", "ann", {"number": 2}, 9.0) == 0.0
    assert watch.answered("profiles", "bob", None, 9.0) == 0.0


def test_a_view_is_as_stale_as_its_stalest_summary() -> None:
    watch = frontier.Watch(HIERARCHY)
    for number, (user, episode) in enumerate((("ann", "1"), ("ann", "2"), ("bob", "1"))):
        watch.changed(put(number, float(number), user, day="monday", episode=episode))
    stored: dict[Any, Any] = {("ann", "monday", "1"): {"number": 0}}
    assert watch.looked("episodes", stored.get, 10.0) == 9.0
    assert watch.looked("days", {("ann", "monday"): {"number": 1}}.get, 10.0) == 8.0
    assert watch.looked("profiles", {"ann": {"number": 1}, "bob": {"number": 2}}.get, 10.0) == 0.0


class Group:
    """Inputs of a summary."""

    def __init__(self, *values: dict[str, Any]) -> None:
        self.rows = [type("Row", (), {"value": value}) for value in values]


@pytest.mark.parametrize("level", HIERARCHY, ids=lambda level: str(level.name))
def test_a_summary_tells_its_newest_input_and_is_no_longer_than_it_may_be(level: Level) -> None:
    facts = [{"number": n, "text": f"fact {n} " * 50} for n in range(30)]
    summary = level.summarise(Group(*facts[10:], *facts[:10]))
    assert summary["number"] == 29
    assert summary["text"].startswith("29: fact 29")
    assert level.characters <= len(summary["text"]) <= level.characters * 1.2
    assert summary != level.summarise(Group(*facts[:29]))


@pytest.mark.parametrize("name", ["burst", "hot key", "read heavy"])
def test_a_trace_is_the_same_each_time_and_in_order(name: str) -> None:
    trace = TRACES[name](1_000)
    assert trace == TRACES[name](1_000)
    times = [moment.at for moment in trace.moments]
    assert times == sorted(times)
    numbers = [moment.document["number"] for moment in trace.puts]
    assert numbers == list(range(1_000))
    assert any(isinstance(moment, Ask) for moment in trace.moments)


def test_one_user_is_read_once_per_500_updates() -> None:
    kinds = Counter(type(moment) for moment in TRACES["hot key"](10_000).moments)
    assert kinds == {Put: 10_000, Ask: 20}


def lines(**changed: tuple[int, float]) -> dict[str, dict[str, Any]]:
    """Bytes and mean staleness of each setting."""
    found = {
        "eager": (1_000, 0.0),
        "hybrid 0.1 s": (700, 0.05),
        "hybrid 0.3 s": (400, 0.15),
        "hybrid 1 s": (200, 0.5),
        "hybrid 3 s": (150, 1.5),
        "hybrid 10 s": (120, 5.0),
        "lazy": (110, 9.0),
        "controller, 1 s": (210, 0.45),
        "controller, 10 s": (215, 0.6),
        **{name.replace("_", " "): value for name, value in changed.items()},
    }
    return {
        name: {"written_bytes": written, "derived_bytes": written - 100, "stale_mean_s": stale}
        for name, (written, stale) in found.items()
    }


def test_the_controller_is_beside_the_cheapest_setting_that_is_as_good() -> None:
    found = {name: (of, to) for name, _, of, to in frontier.compared(lines())}
    assert found == {
        "hybrid_per_eager": ("hybrid 1 s", "eager"),
        "lazy_per_eager": ("lazy", "eager"),
        "controller_per_best": ("controller, 1 s", "hybrid 1 s"),
        "controller_per_as_fresh": ("controller, 10 s", "hybrid 1 s"),
    }
    # Where a fresher setting happens to write less, that one is the best.
    cheap = {name: to for name, _, _, to in frontier.compared(lines(eager=(150, 0.0)))}
    assert cheap["controller_per_best"] == cheap["controller_per_as_fresh"] == "eager"


def test_a_controller_that_does_nothing_is_not_judged_by_the_setting_that_it_is() -> None:
    for calls, word in ((100, "not judged"), (400, "met")):
        some = lines()
        for name in some:
            some[name].update(calls=100, decided="scale 0.5")
        some["controller, 10 s"]["calls"] = calls
        notes: list[str] = []
        found = {"n_done": 1, **frontier.judged(some, notes)}
        row = {"workload": "frontier", "case": "burst", "peer": SUBJECT, "round": 0, "notes": []}
        verdicts = judge([{**row, "found": found, "problem": None, "durable": True}])
        words = {v.target.figure: v.word for v in verdicts if v.target.case == "burst"}
        assert words == {"controller_per_best": "met", "controller_per_as_fresh": word}
        assert "result bytes: hybrid 1 s 100 / eager 900 = 0.1111" in notes


def test_each_setting_is_a_line_of_the_table_and_a_point_of_the_plot(tmp_path: Path) -> None:
    shown = {
        name: {**found, "derived_per_logical": found["derived_bytes"] / 100}
        for name, found in lines().items()
    }
    shown["hybrid 1 s"]["joined"] = shown["hybrid 3 s"]["joined"] = True
    row: Row = {
        "workload": "frontier",
        "case": "hot key",
        "peer": SUBJECT,
        "round": 0,
        "found": {"lines": shown, "lazy_per_eager": 0.02, "n_done": 10},
        "notes": ["what is said once"],
        "problem": None,
        "durable": True,
        "refused": False,
    }
    facts = {
        "machine": dict.fromkeys(("cpu", "cores", "kernel", "file_system", "python", "load"), 1),
        "place": "nowhere",
        "size": "tiny",
        "memtable_bytes": 1,
        "device": False,
        "peers": {},
    }
    made = report.made(facts, [row])
    (table,) = made.tables
    assert [cells[0] for cells in table.rows] == list(shown)
    # The last column has multiples of eager's result bytes.
    assert {cells[0]: cells[-1] for cells in table.rows}["hybrid 0.3 s"] == "0.33"
    assert table.notes == ["what is said once"]
    words = {verdict.target.figure: verdict.word for verdict in judge([row])}
    assert words["lazy_per_eager"] == "missed"
    html = outputs.write(made, tmp_path)[2].read_text()
    plot = html[html.index("<svg") : html.index("</svg>")]
    assert all(f">{name}</text>" in plot for name in shown)
