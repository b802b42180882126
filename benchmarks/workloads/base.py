"""What a workload is: named cases, and how one store does one of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from benchmarks.sizes import Sizes
from benchmarks.targets import SUBJECT
from benchmarks.task import Task

Found = dict[str, Any]
Leave = Callable[[Found], None]


@dataclass(frozen=True)
class Case:
    """One variant of a workload: a table of the report."""

    name: str
    n: int
    seconds: float
    settings: dict[str, Any] = field(default_factory=dict)
    probe: bool = False  # whether the raw probe of the same bytes runs beside it
    only: tuple[str, ...] = ()  # the peers it makes sense for; () for all
    memtable_bytes: int | None = None  # where the case is about it
    once: bool = False  # in one round, also of a workload that is repeated


@dataclass(frozen=True)
class Column:
    """One figure of a table."""

    key: str
    heading: str
    form: str = "{:,.2f}"
    scale: float = 1.0

    def shown(self, found: Found) -> str:
        """The figure, or nothing where there is none."""
        value = found.get(self.key)
        return "" if value is None else self.form.format(value * self.scale)


RATE = "{:,.0f}"
N = Column("n_done", "n", RATE)
BYTES = (
    Column("device_per_logical", "device/logical"),
    Column("journal_per_logical", "of it journal, at least"),
    Column("wchar_per_logical", "wchar/logical"),
    Column("engine_per_logical", "engine's meter/logical"),
    Column("space_per_logical", "space/logical"),
)


class Workload(ABC):
    """One named workload."""

    name: ClassVar[str]
    what: ClassVar[str]
    denominator: ClassVar[str]
    kind: ClassVar[str]
    durability: ClassVar[str] = "sync"
    phases: ClassVar[tuple[str, ...]] = ("run",)
    columns: ClassVar[tuple[Column, ...]]
    # Whether waferdb does it in every round of the size, for figures that vary; else once.
    repeated: ClassVar[bool] = False
    # Whether it keeps to a schedule, so that its time is the same for all.
    paced: ClassVar[bool] = False
    # The figure that the page draws, and what it is called.
    plotted: ClassVar[tuple[str, str]] = ("per_second", "per second")
    # The line of a table whose multiples the others are shown as.
    beside: ClassVar[str] = SUBJECT
    # Where a table's lines are points of one curve: figures and names of x and y.
    curve: ClassVar[tuple[str, str, str, str] | None] = None

    @abstractmethod
    def cases(self, sizes: Sizes) -> list[Case]:
        """The cases of a size."""

    @abstractmethod
    def run(self, task: Task, leave: Leave) -> Found:
        """Does one phase and returns its figures; a phase that dies leaves them before."""

    def derive(self, found: Found) -> None:
        """Adds figures that rest on more than one phase."""
        return
