"""The named workloads, in the order in which a run does them."""

from __future__ import annotations

from .base import Case, Workload
from .churn import Churn
from .kv import Kv
from .kv_small import KvSmall
from .latency import Latency
from .merging import Merging
from .overwrite import Overwrite
from .remember import Remember
from .scan import Scan
from .text import Text
from .ycsb import Ycsb

__all__ = ["WORKLOADS", "Case", "Workload"]

WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        Remember(),
        KvSmall(),
        Kv(),
        Merging(),
        Text(),
        Overwrite(),
        Churn(),
        Latency(),
        Scan(),
        Ycsb(),
    )
}
