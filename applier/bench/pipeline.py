"""`bench pipeline`: every wanted way through the flow, several rounds in turn, and the kernels alone beside it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from applier.bench.backlog import BacklogSpec, Say, opened
from applier.bench.flow import FlowBench, FlowConfiguration, FlowRun
from applier.bench.log_files import plans_of
from applier.bench.machine import machine
from applier.errors import UsageError

COMPRESSION = {"binlog_transaction_compression": "ON"}


@dataclass(frozen=True, slots=True)
class PipelineBench:
    """What to measure: each number of decoders, one by one and in groups, of plain and of compressed logs."""

    backlog: BacklogSpec
    decoders: tuple[int, ...] = (1, 2, 4)
    group_transactions: int = 100
    workers: int = 8
    rounds: int = 3
    compression: bool = True

    def __post_init__(self) -> None:
        if not self.decoders or min(self.decoders) < 1:
            raise UsageError(detail="bench pipeline needs one decoder at least")

    @property
    def logs(self) -> list[tuple[bool, BacklogSpec]]:
        """(compressed, backlog)."""
        plain = [(False, self.backlog)]
        if not self.compression:
            return plain
        return [
            *plain,
            (True, replace(self.backlog, source_options={**self.backlog.source_options, **COMPRESSION})),
        ]

    @property
    def headline(self) -> FlowConfiguration:
        """The one whose figures stand for all: in groups, plain, with the most decoders."""
        return FlowConfiguration(self.decoders[-1], self.group_transactions, self.workers)


def bench_pipeline(
    bench: PipelineBench,
    *,
    folder: Path | None = None,
    mysqld: Path | None = None,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """For JSON; of several rounds the one with the median rate. Raises what the pipeline raises."""
    runs: list[dict[str, Any]] = []
    kernels: dict[str, Any] = {}
    headline: dict[str, Any] = {}
    for compressed, spec in bench.logs:
        with opened(spec, folder, mysqld=mysqld, say=say) as backlog, plans_of(backlog.source) as plans:
            flow = FlowBench(backlog, plans)
            for group in dict.fromkeys((1, bench.group_transactions)):
                seconds = flow.kernel_seconds(group)
                chosen = [
                    FlowConfiguration(count, group, bench.workers, compressed) for count in bench.decoders
                ]
                for configuration, run in _median_runs(flow, chosen, bench.rounds).items():
                    facts = run.as_dict(sum(seconds.values()))
                    say(_line(facts))
                    runs.append(facts)
                    if configuration == bench.headline:
                        headline = facts
                        kernels = {
                            stage: round(spent * 1e9 / run.transactions) for stage, spent in seconds.items()
                        }
                        size = backlog.facts
    return {
        "workload": bench.backlog.workload,
        "parameters": dict(bench.backlog.parameters),
        "transactions": size.transactions,
        "rows": size.rows,
        "bytes": size.bytes,
        **headline,
        "configuration": asdict(bench.headline),
        "kernel_nanoseconds_per_transaction": kernels,
        "rounds": bench.rounds,
        "runs": runs,
        "machine": machine(),
        "mysql_version": size.mysql_version,
    }


def _median_runs(
    flow: FlowBench, configurations: list[FlowConfiguration], rounds: int
) -> dict[FlowConfiguration, FlowRun]:
    found: dict[FlowConfiguration, list[FlowRun]] = {one: [] for one in configurations}
    for _ in range(rounds):
        for one in configurations:
            found[one].append(flow.run(one))
    return {
        one: sorted(runs, key=lambda run: run.transactions_per_second)[len(runs) // 2]
        for one, runs in found.items()
    }


def _line(facts: dict[str, Any]) -> str:
    log = "compressed" if facts["compressed"] else "plain"
    return (
        f"{log:<10} groups of {facts['group_transactions']:<5} {facts['decoders']} decoders "
        f"{facts['transactions_per_second']:>9,} transactions/s"
    )
