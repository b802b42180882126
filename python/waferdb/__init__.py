"""waferdb: an embedded database for agents. One log, one commit, any number of structures.

Declare structures in a class, open it, and write to all of them in one transaction:

>>> from waferdb import Database, Events, Rows, Vectors
>>> class Memory(Database):
...     facts = Rows(indexes=["user"])
...     embeddings = Vectors(dim=2, rows="facts")
...     events = Events()
>>> with Memory(":memory:") as db:
...     with db.transaction(actor="planner") as tx:
...         _ = tx.facts.put("pref:1", {"user": "ann", "text": "prefers email over Slack"})
...         _ = tx.embeddings.put("pref:1", [0.6, 0.8])
...         _ = tx.events.append("preference.learned", {"key": "pref:1"})
...     db.embeddings.search([0.6, 0.8], k=1)[0].row["text"]
'prefers email over Slack'
"""

from pathlib import Path as _Path

from waferdb import _core, audit, errors
from waferdb._core import LIMITS
from waferdb._salvage import Damage, Gap, Lost, Salvaged, SalvageReport, salvage
from waferdb.agent_memory import AgentMemory, Recollection, Remembered
from waferdb.audit import ConsistencyProof, Entry, Head, InclusionProof
from waferdb.database import Database, DynamicDatabase, open
from waferdb.errors import (
    ClosedError,
    ConflictError,
    CorruptionError,
    DocumentError,
    FailedError,
    ForkedError,
    FormatError,
    FullError,
    HistoryError,
    LimitError,
    LinkError,
    LockedError,
    PathNotDirectoryError,
    PathNotFoundError,
    PathPermissionError,
    PendingError,
    PreconditionError,
    ReadOnlyError,
    SchemaError,
    SnapshotExpiredError,
    StaleViewError,
    StorageError,
    TransactionError,
    UniqueError,
    UnknownFormatError,
    UnknownOutcomeError,
    VectorError,
    WaferError,
)
from waferdb.groups import Count, Group, Latest, Row, Sum, Top, TopicClusters
from waferdb.policies import Policy, bounded, eager, hybrid, lazy
from waferdb.results import (
    Change,
    Commit,
    Controller,
    Edge,
    Event,
    Freshness,
    Hit,
    Hits,
    Lag,
    Latency,
    Neighbor,
    Plan,
    Problem,
    Read,
    Receipt,
    Recent,
    Report,
    Stats,
    VectorPlan,
    ViewStats,
    Watched,
)
from waferdb.structures import Audit, Cache, Context, Cursor, Events, Graph, Rows, Vectors, View

__all__ = [
    "LIMITS",
    "AgentMemory",
    "Audit",
    "Cache",
    "Change",
    "ClosedError",
    "Commit",
    "ConflictError",
    "ConsistencyProof",
    "Context",
    "Controller",
    "CorruptionError",
    "Count",
    "Cursor",
    "Damage",
    "Database",
    "DocumentError",
    "DynamicDatabase",
    "Edge",
    "Entry",
    "Event",
    "Events",
    "FailedError",
    "ForkedError",
    "FormatError",
    "Freshness",
    "FullError",
    "Gap",
    "Graph",
    "Group",
    "Head",
    "HistoryError",
    "Hit",
    "Hits",
    "InclusionProof",
    "Lag",
    "Latency",
    "Latest",
    "LimitError",
    "LinkError",
    "LockedError",
    "Lost",
    "Neighbor",
    "PathNotDirectoryError",
    "PathNotFoundError",
    "PathPermissionError",
    "PendingError",
    "Plan",
    "Policy",
    "PreconditionError",
    "Problem",
    "Read",
    "ReadOnlyError",
    "Receipt",
    "Recent",
    "Recollection",
    "Remembered",
    "Report",
    "Row",
    "Rows",
    "SalvageReport",
    "Salvaged",
    "SchemaError",
    "SnapshotExpiredError",
    "StaleViewError",
    "Stats",
    "StorageError",
    "Sum",
    "Top",
    "TopicClusters",
    "TransactionError",
    "UniqueError",
    "UnknownFormatError",
    "UnknownOutcomeError",
    "VectorError",
    "VectorPlan",
    "Vectors",
    "View",
    "ViewStats",
    "WaferError",
    "Watched",
    "__version__",
    "audit",
    "bounded",
    "eager",
    "errors",
    "get_include",
    "hybrid",
    "lazy",
    "open",
    "salvage",
]

__version__ = _core.ENGINE_VERSION


def get_include() -> str:
    """The directory of `waferdb.h` and `capi.pxd`, for compiling against the C API."""
    return str(_Path(__file__).resolve().parent)
