"""The named workloads, in the order in which a run does them."""

from __future__ import annotations

from .base import Case, Workload
from .churn import Churn
from .frontier import Frontier
from .kv import Kv
from .kv_small import KvSmall
from .latency import Latency
from .locomo import Locomo
from .merging import Merging
from .overwrite import Overwrite
from .propagation import Propagation, PropagationCritical, PropagationDrain
from .remember import Remember
from .scan import Scan
from .text import Text
from .vector_large import VectorLarge
from .vector_put import VectorPut
from .vector_reopen import VectorReopen
from .vector_search import VectorSearch
from .vector_stream import VectorStream
from .ycsb import Ycsb

__all__ = ["WORKLOADS", "Case", "Workload"]

WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        Remember(),
        VectorSearch(),
        VectorReopen(),
        VectorPut(),
        VectorStream(),
        Locomo(),
        Frontier(),
        Propagation(),
        PropagationCritical(),
        PropagationDrain(),
        KvSmall(),
        Kv(),
        Merging(),
        Text(),
        Overwrite(),
        Churn(),
        Latency(),
        Scan(),
        Ycsb(),
        VectorLarge(),
    )
}
