"""The benchmarks run: every workload with every installed peer, at a size that takes seconds.

No figure is judged here; what is checked is that each store did what the workload asked, and that
the outputs say all of it.
"""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import waferdb
from benchmarks import compare, device, distributions, harness, outputs, pace, report, targets
from benchmarks.compare import PAIRS, Options, waferdb_engine
from benchmarks.compare.base import UnsupportedError
from benchmarks.device import Place
from benchmarks.sizes import SIZES
from benchmarks.targets import PROBE, SUBJECT, Row
from benchmarks.workloads import WORKLOADS, ycsb
from benchmarks.workloads.text import LOCOMO

TINY = SIZES["tiny"]


def run(tmp_path: Path, name: str, peers: tuple[str, ...], only: str | None = None) -> harness.Run:
    found = harness.Run(TINY, Place(tmp_path / "plain"), peers)
    found.workload(name, only)
    return found


def check(rows: list[Row]) -> None:
    for row in rows:
        assert row["refused"] or row["problem"] is None, row
        if not row["refused"]:
            assert row["found"].get("n_done", 1) > 0, row


@pytest.mark.parametrize("name", WORKLOADS)
def test_waferdb_does_every_case_of_each_workload(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOCOMO, str(_conversations(tmp_path)))
    found = run(tmp_path, name, (SUBJECT,))
    check(found.rows)
    assert {row["case"] for row in found.rows} == {c.name for c in WORKLOADS[name].cases(TINY)}
    made = report.made(found.facts, found.rows)
    written = outputs.write(made, tmp_path / "results")
    json.loads(written[0].read_text())
    for path in written[1:]:
        text = path.read_text()
        assert all(table.case in text.replace("&amp;", "&") for table in made.tables)
    page = written[2].read_text()
    assert not re.search(r"(src|href)=[\"'](?!#)|url\((?!#)|@import|<link", page)


@pytest.mark.parametrize("name", WORKLOADS)
def test_each_installed_peer_does_each_workload(tmp_path: Path, name: str) -> None:
    peers = tuple(peer for peer in harness.installed(None) if peer != SUBJECT)
    first = WORKLOADS[name].cases(TINY)[0]
    if first.only and not set(first.only) & set(peers):
        pytest.skip("of waferdb alone")
    found = run(tmp_path, name, peers, first.name)
    check(found.rows)
    serving = {p for p in peers if WORKLOADS[name].kind in compare.peer(p).serves}
    assert {row["peer"] for row in found.rows} == (
        serving & set(first.only) if first.only else serving
    )


def _conversations(directory: Path) -> Path:
    """A file of the form that the workloads of text read, with text of nobody's."""
    turns = [
        {"speaker": f"speaker {n % 2}", "dia_id": f"D1:{n}", "text": f"sentence number {n}. " * 9}
        for n in range(60)
    ]
    path = directory / "conversations.json"
    asked = [{"question": "sentence number 7?", "evidence": ["D1:7; D1:8", "D"]}]
    path.write_text(
        json.dumps([{"sample_id": "one", "conversation": {"session_1": turns}, "qa": asked}])
    )
    return path


def test_a_stall_counts_for_every_operation_that_was_due_meanwhile() -> None:
    stalled = []

    def do(number: int) -> None:
        if number == 0:
            time.sleep(0.05)
            stalled.append(number)

    done = pace.opened(do, range(100), rate=1_000, seconds=5)
    waited = int((done.nanos > 10_000_000).sum())
    # Operations 1 to 39 were due more than 10 ms before the stall ended.
    assert stalled == [0]
    assert waited >= 35


def test_what_was_not_served_counts_with_the_time_it_waited() -> None:
    done = pace.opened(lambda _: time.sleep(0.02), range(100), rate=1_000, seconds=0.06)
    assert done.operations < 10
    assert done.unserved > 40
    assert len(done.nanos) == done.operations + done.unserved


def test_the_hash_is_ycsbs() -> None:
    # FNV-1a over eight zero bytes, as a signed number without its sign.
    value = 0xCBF29CE484222325
    for _ in range(8):
        value = value * 1_099_511_628_211 % (1 << 64)
    signed = value - (1 << 64) if value >= 1 << 63 else value
    assert distributions.fnv(np.array([0]))[0] == abs(signed)


def test_zipfian_keys_are_as_skewed_as_published() -> None:
    drawn = distributions.scrambled_zipfian(np.random.default_rng(1), 1_000, 100_000)
    counts = np.sort(np.bincount(drawn, minlength=1_000))[::-1]
    # The most popular item of 10^10 has a share of 1 / zeta, a little more than its hash alone.
    assert 1 / 26.5 * 0.95 < counts[0] / 100_000 < 1 / 26.5 * 1.15
    newest = np.full(100_000, 999)
    distances = 999 - distributions.latest(np.random.default_rng(1), newest)
    zeta = float((1 / np.arange(1, 1_001) ** distributions.THETA).sum())
    assert abs((distances == 0).mean() - 1 / zeta) < 0.01
    assert distances.min() == 0
    assert distances.max() <= 999


@pytest.mark.parametrize("letter", ycsb.MIXES)
def test_each_mix_has_its_published_shares_and_never_reads_what_is_not_there(letter: str) -> None:
    mix = ycsb.MIXES[letter]
    done = ycsb.operations(mix, records=500, count=4_000)
    newest = 499
    for kind, number, length in done:
        newest += kind == ycsb.INSERT
        assert number <= newest
        assert 1 <= length <= 100
    for kind, share in mix.shares.items():
        assert abs(sum(k == kind for k, _, _ in done) / 4_000 - share) < 0.03


def row(workload: str, case: str, peer: str, number: int = 0, **found: float) -> Row:
    return {
        "workload": workload,
        "case": case,
        "peer": peer,
        "round": number,
        "found": found,
        "notes": [],
        "problem": None,
        "durable": peer != "lancedb",
        "refused": False,
    }


def words(rows: list[Row]) -> dict[str, tuple[str, float | None]]:
    return {v.target.what: (v.word, v.value) for v in targets.judge(rows)}


def test_a_target_is_judged_by_medians_and_by_the_probe_of_its_own_round() -> None:
    case = "1 per commit, 1 thread"
    rows = [
        row("remember", case, PROBE, 0, commits_per_second=100.0, fastest_layout=True),
        row("remember", case, SUBJECT, 0, per_second=90.0, commits_per_second=90.0, n_done=1),
        row("remember", case, PROBE, 1, commits_per_second=50.0, fastest_layout=True),
        row("remember", case, SUBJECT, 1, per_second=40.0, commits_per_second=40.0, n_done=1),
        row("remember", case, PROBE, 2, commits_per_second=200.0, fastest_layout=True),
        row("remember", case, SUBJECT, 2, per_second=120.0, commits_per_second=120.0, n_done=1),
    ]
    # Within the rounds 0.9, 0.8 and 0.6; the medians of both would give 0.9.
    word, value = words(rows)["of the raw probe"]
    assert (word, round(value or 0, 6)) == ("missed", 0.8)


def test_the_best_peer_is_one_that_is_as_durable() -> None:
    case = "1 per commit, 16 threads"
    rows = [
        row("remember", case, SUBJECT, per_second=1_000.0, n_done=1),
        row("remember", case, "sqlite", per_second=80.0),
        row("remember", case, "lancedb", per_second=900.0),
    ]
    assert words(rows)["x best peer"] == ("met", 12.5)


def test_what_was_not_measured_is_not_judged_and_says_why() -> None:
    rows = [row("kv", "single put", SUBJECT, per_second=1.0)]
    found = {v.target.case: v for v in targets.judge(rows)}["single put"]
    assert (found.word, found.value) == ("not judged", None)
    assert "rocksdb" in found.note


def test_merging_is_not_judged_unless_enough_was_merged() -> None:
    rows = [
        row("merging", "256 MiB merged", SUBJECT, p99_ratio=1.0, n_done=1, enough_merged=False),
    ]
    verdict = targets.judge(rows)[0]
    assert (verdict.word, verdict.note) == ("not judged", "enough merged: no")


def test_a_round_that_failed_is_told_beside_the_verdict() -> None:
    rows = [row("kv", "single put", peer, per_second=2.0) for peer in (SUBJECT, "rocksdb")]
    rows.append({**row("kv", "single put", SUBJECT, 1), "problem": "it broke"})
    found = {v.target.case: v for v in targets.judge(rows)}["single put"]
    assert found.word == "met"
    assert found.note.endswith("1 of 2 rounds failed")


def test_a_store_that_fails_leaves_a_row_that_says_so(tmp_path: Path) -> None:
    class Nowhere(Place):
        def fresh(self) -> Path:
            return tmp_path / "not there"

    found = harness.Run(TINY, Nowhere(tmp_path), (SUBJECT,))
    found.workload("remember", "1 thread")
    assert found.rows
    for each in found.rows:
        assert "No such file" in each["problem"]
    assert "failed" in outputs.markdown(report.made(found.facts, found.rows))


def test_options_are_passed_to_a_build_that_accepts_them_and_to_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, Any]] = []

    def record(path: Path, schema: Any, **options: Any) -> Any:
        given.append(options)
        kept = {k: v for k, v in options.items() if k not in ("memtable", "compression")}
        return real(path, schema, **kept)

    real = waferdb.open
    monkeypatch.setattr(waferdb, "open", record)
    wanted = Options(PAIRS, memtable_bytes=1 << 20, compression="zstd")
    monkeypatch.setattr(waferdb_engine, "_ACCEPTED", {"memtable", "compression"})
    waferdb_engine.Wafer(tmp_path / "new", wanted).close()
    assert (given[-1]["memtable"], given[-1]["compression"]) == (1 << 20, "zstd")
    monkeypatch.setattr(waferdb_engine, "_ACCEPTED", set())
    with pytest.raises(UnsupportedError, match="compression"):
        waferdb_engine.Wafer(tmp_path / "old", wanted)
    older = waferdb_engine.Wafer(tmp_path / "old", Options(PAIRS))
    older.close()
    assert set(given[-1]) == {"durability"}
    assert "memtable" in older.notes[0]


def test_the_peers_are_pinned_to_the_versions_of_constraints() -> None:
    root = Path(__file__).resolve().parents[1]
    pins = {
        name: {line.strip() for line in (root / name).read_text().splitlines() if "==" in line}
        for name in ("constraints.txt", "benchmarks/compare/requirements.txt")
    }
    assert pins["benchmarks/compare/requirements.txt"] <= pins["constraints.txt"]


@pytest.mark.skipif(os.geteuid() != 0, reason="a loop device needs root")
def test_a_device_is_let_go_of_when_a_run_fails() -> None:
    image = 64 << 20
    with pytest.raises(ZeroDivisionError), device.place(image) as where:
        made = where.fresh()
        if where.counters is None:
            pytest.skip("no loop device here")
        stat = Path(where.counters.stat)
        before = where.counters.written_bytes()
        (made / "file").write_bytes(os.urandom(1 << 20))
        device.settle(made, where.counters)
        # The file, and at most as much again for journal and metadata.
        assert 1 << 20 <= where.counters.written_bytes() - before <= 2 << 20
        mount = where.directory
        raise ZeroDivisionError
    assert not os.path.ismount(mount)
    assert str(mount) not in Path("/proc/self/mounts").read_text()
    assert not (stat.parent / "loop" / "backing_file").exists()
