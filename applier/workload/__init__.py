"""Load for a source: TPC-C, OLTP in sysbench's shapes, and the special cases that hurt replicas, all seeded.

workload = workload_named("tpcc", warehouses=4, terminals=8, scale=0.1, seed=1)
workload.prepare(connection_factory)
result = workload.run(connection_factory, seconds=30)
"""

from applier.workload.model import ConnectionFactory, Counters, Settings, Workload, WorkloadResult
from applier.workload.registry import WORKLOADS, parameters_from_text, workload_named

__all__ = [
    "WORKLOADS",
    "ConnectionFactory",
    "Counters",
    "Settings",
    "Workload",
    "WorkloadResult",
    "parameters_from_text",
    "workload_named",
]
