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
    """What to measure: each number of decoders, one by one, in groups and with net changes, of plain and of
    compressed logs."""

    backlog: BacklogSpec
    decoders: tuple[int, ...] = (1, 2, 4)
    group_transactions: int = 100
    workers: int = 8
    rounds: int = 3
    compression: bool = True
    net_changes: bool = True

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
        """The one whose figures stand for all: in groups, plain, with the last number of decoders."""
        return FlowConfiguration(
            self.decoders[-1], self.group_transactions, self.workers, net_changes=self.net_changes
        )

    @property
    def ways(self) -> list[tuple[int, bool]]:
        """(transactions a group, net changes)."""
        ways = [(1, False), (self.group_transactions, False), (self.group_transactions, self.net_changes)]
        return list(dict.fromkeys(ways))


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
            for group, net_changes in bench.ways:
                seconds = flow.kernel_seconds(group, net_changes)
                chosen = [
                    FlowConfiguration(count, group, bench.workers, compressed, net_changes)
                    for count in bench.decoders
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
                        described = backlog.described()
    return {
        **described,
        **headline,
        "configuration": asdict(bench.headline),
        "kernel_nanoseconds_per_transaction": kernels,
        "rounds": bench.rounds,
        "runs": runs,
        "machine": machine(),
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
        f"{log:<10} groups of {facts['group_transactions']:<5} {'net' if facts['net_changes'] else '   '} "
        f"{facts['decoders']} decoders "
        f"{facts['transactions_per_second']:>9,} transactions/s"
    )
