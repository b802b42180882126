"""A fault at every system call that a script makes on its database's files, one run for each.

For each script, each call by name and each fault that the call may meet, the N-th one is struck for
N = 1, 2, … until a run ends without having come so far. `WAFERDB_SYSCALLS=all` does so for every
script (`make crash`); otherwise a sample of one. The report names what replays a finding:
`WAFERDB_FAULT=<script>:<call>:<fault>:<N> pytest -s tests/kernel/test_syscalls.py`.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from kernel_campaign import side_by_side
from kernel_check import Bounds
from kernel_children import HungError, Server
from kernel_lives import Told
from kernel_scripts import SEEDS, WRITER
from kernel_seccomp import FAULTS, Injection, missing, supervised
from kernel_store import ROOMY

pytestmark = [
    pytest.mark.crash,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]

SCRIPTS = ("create", "commits", "merge", "recover", "backup", "seal")
ALL = os.environ.get("WAFERDB_SYSCALLS") == "all"
ONLY = os.environ.get("WAFERDB_FAULT")
WORKERS = 2
_DIED = ("kill", "torn")
_SYNCS = ("fsync", "fdatasync")


@dataclass
class Row:
    """One line of the table."""

    runs: int = 0
    lost: int = 0
    wrong: int = 0


@dataclass
class Table:
    """What was struck, and what was found."""

    rows: dict[tuple[str, str, str], Row] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, key: tuple[str, str, str], number: int, problems: list[str]) -> None:
        with self.lock:
            row = self.rows.setdefault(key, Row())
            row.runs += 1
            row.lost += any(problem.startswith("lost") for problem in problems)
            row.wrong += any(not problem.startswith("lost") for problem in problems)
            where = ":".join((*key, str(number)))
            self.problems += [f"WAFERDB_FAULT={where}: {problem}" for problem in problems]

    def line(self, script: str, call: str, fault: str) -> str:
        row = self.rows.get((script, call, fault), Row())
        return f"{script:9}{call:17}{fault:8}{row.runs:5}{row.lost:6}{row.wrong:7}"

    def __str__(self) -> str:
        lines = [f"{'script':9}{'call':17}{'fault':8}{'N':>5}{'lost':>6}{'wrong':>7}"]
        lines += [self.line(*key) for key in sorted(self.rows)]
        total = Row(
            sum(row.runs for row in self.rows.values()),
            sum(row.lost for row in self.rows.values()),
            sum(row.wrong for row in self.rows.values()),
        )
        lines.append(f"{total.runs:,} runs: {total.lost} lost, {total.wrong} wrong")
        return "\n".join(lines)


@dataclass
class Bench:
    """One script and the database it begins with."""

    script: str
    template: Path
    count: int

    def strike(self, server: Server, folder: Path, injection: Injection) -> list[str]:
        """One run, and what is wrong with how it went and with what it left."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        path = folder / "agent.wafer"
        if self.template.exists():
            shutil.copytree(self.template, path)
        injection.below = str(folder)
        function = f"kernel_scripts:{self.script}"
        try:
            given = (server, injection, function, str(path), SEEDS[self.script], self.count)
            lines, status, errors = supervised(*given)
        except HungError as hung:
            return [f"wrong: {hung}"]
        told = Told()
        for line in lines:
            told.hear(line)
        problems = [f"wrong: {line[2:]}" for line in lines if line.startswith("? ")]
        problems += self._manners(injection, lines, told, status)
        if errors:
            problems.append(f"wrong: on standard error: {errors}")
        bounds = {
            WRITER: Bounds(
                max(told.durable.get(WRITER, 0), self.count if self.script != "recover" else 0),
                max(told.begun.get(WRITER, 0), self.count) + 1,
            )
        }
        given_check = (str(path), SEEDS[self.script], bounds, ROOMY, True)
        problems += server.call("kernel_check:examine", *given_check)[1]
        if self.script == "backup":
            least = [int(line.split()[1]) for line in lines if line.startswith("copied")]
            given_copy = (
                str(folder / "copy.wafer"),
                SEEDS[self.script],
                max(least, default=0),
            )
            problems += server.call("kernel_scripts:copied", *given_copy)
        return problems

    def _manners(
        self, injection: Injection, lines: list[str], told: Told, status: int
    ) -> Iterator[str]:
        """The process lives unless it was killed, says what is wrong in types, and then refuses."""
        if injection.hit and injection.fault in _DIED:
            if status != -signal.SIGKILL:
                yield f"wrong: the process ended with {status}, not by the kill"
            return
        if status or "end" not in lines:
            yield f"wrong: the process ended with {status} and {lines[-1:]}"
        for error in told.errors:
            if error.split()[2] == "-":
                yield f"wrong: an error of no type: {error}"
        if not injection.hit and told.errors:
            yield f"wrong: nothing was struck, and yet: {told.errors[:3]}"
        failed = [n for n, line in enumerate(lines) if line.startswith("! commit FailedError")]
        later = lines[failed[0] :] if failed else []
        if any(line.startswith("+") for line in later) and self.script != "recover":
            yield "wrong: a commit was acknowledged behind a FailedError"
        if (injection.call in _SYNCS and injection.fault == "EIO" and injection.hit
                and "/agent.wafer/log/" in injection.hit and injection.hit.endswith(".wal")
                and not failed and "! open" not in "\n".join(lines)
                and "! close" not in "\n".join(lines)):  # fmt: skip
            yield f"wrong: the sync of {injection.hit} failed and no write was refused: {lines}"


def prepared(server: Server, folder: Path, script: str) -> Bench:
    """The database that `script` begins with; for `recover` one that was killed in a write."""
    place = folder / script / "template.wafer"
    place.parent.mkdir(parents=True)
    bench = Bench(script, place, server.call("kernel_scripts:template", str(place), script))
    if script == "recover":
        injection = Injection(str(place), "pwrite64", 30, "torn")
        given = (server, injection, "kernel_scripts:torn", str(place), SEEDS[script], bench.count)
        lines, status, errors = supervised(*given)
        assert injection.hit, (injection.seen, errors)
        assert status == -signal.SIGKILL
        told = Told()
        for line in lines:
            told.hear(line)
        bench.count = told.durable[WRITER]
        assert bench.count > 60
    return bench


def struck(bench: Bench, table: Table, server: Server, folder: Path, call: str, fault: str) -> None:
    """Every N of one call and one fault."""
    number, past = 0, 0
    while past < 2:  # Threads make a call more in one run than in another.
        number += 1
        injection = Injection("", call, number, fault)
        problems = bench.strike(server, folder, injection)
        past = 0 if injection.hit else past + 1
        if injection.hit or problems:
            table.add((bench.script, call, fault), number, problems)
    print(table.line(bench.script, call, fault), flush=True)


def counted(bench: Bench, server: Server, folder: Path) -> Counter[str]:
    """How many calls of each name a run without a fault makes."""
    injection = Injection("")
    problems = bench.strike(server, folder, injection)
    assert not problems, f"{bench.script} without any fault: {problems}"
    return injection.seen


def test_a_fault_at_every_system_call_loses_nothing_and_is_told_in_types(tmp_path: Path) -> None:
    table = Table()
    work: list[tuple[Bench, str, str]] = []
    with Server() as server:
        scripts = SCRIPTS if ALL else ("create",)
        if ONLY is not None:
            scripts = (ONLY.split(":")[0],)
        for script in scripts:
            bench = prepared(server, tmp_path, script)
            seen = counted(bench, server, tmp_path / script / "run")
            print(f"{script}: {dict(sorted(seen.items()))}")
            work += [
                (bench, call, fault)
                for call in sorted(seen)
                for fault, may in FAULTS.items()
                # A failed close of the directory would keep its lock, which no kernel does.
                if may(call) and not (call == "close" and fault == "EIO")
            ]
            if ONLY is None and not ALL:
                for place, (call, number) in enumerate(sorted(seen.items())):
                    fault = ("EIO", "kill")[place % 2]
                    if call == "close":
                        continue
                    injection = Injection("", call, 1 + number // 2, fault)
                    problems = bench.strike(server, tmp_path / script / "run", injection)
                    table.add((script, call, fault), injection.number, problems)
                work = []
        if ONLY is not None:
            script, call, fault, number_text = ONLY.split(":")
            injection = Injection("", call, int(number_text), fault)
            problems = work[0][0].strike(server, tmp_path / script / "run", injection)
            print(f"struck: {injection.hit or 'nothing'}")
            table.add((script, call, fault), injection.number, problems)
            work = []
    side_by_side(
        WORKERS,
        lambda server, item: struck(
            item[0], table, server, tmp_path / "-".join((item[0].script, *item[1:])), *item[1:]
        ),
        iter(work),
    )
    print(table)
    assert not table.problems, "\n".join([str(table), *table.problems[:20]])
