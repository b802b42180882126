"""The structures a database is declared with."""

from waferdb.structures.audit import Audit
from waferdb.structures.base import Cursor, Structure
from waferdb.structures.cache import Cache
from waferdb.structures.context import Context
from waferdb.structures.events import Events
from waferdb.structures.graph import Graph
from waferdb.structures.rows import Rows
from waferdb.structures.vectors import Vectors
from waferdb.structures.view import View

__all__ = [
    "Audit",
    "Cache",
    "Context",
    "Cursor",
    "Events",
    "Graph",
    "Rows",
    "Structure",
    "Vectors",
    "View",
]
