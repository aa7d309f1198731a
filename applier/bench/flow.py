"""`bench pipeline`: the whole flow but for the servers: captured bytes at its start, acknowledging sinks at its end.

Everything between is the real pipeline: reader, decoders, scheduler, queues, workers, encoding, commit turns. What
each of its threads uses of a processor is what the kernel says of the thread when it ends.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from applier.address import parse_url
from applier.bench.backlog import Backlog
from applier.bench.capture import CapturedStream, captured
from applier.bench.log_files import Plans, inflate_all
from applier.bench.machine import peak_rss_bytes
from applier.bench.sink import SinkSession
from applier.events.assembler import StreamAssembler
from applier.events.batch import Batch
from applier.events.hand_off import split
from applier.events.net_changes import fold
from applier.events.net_events import folded_packets
from applier.events.rows import RowDecoder
from applier.events.scheduling import Dependencies
from applier.events.statement import rows_packets, transaction_packets
from applier.observe.sampling import Sampler
from applier.pipeline import Pipeline, PipelineSettings
from applier.target.checkpoint import Checkpoint, GtidMode
from applier.target.groups import Groups
from scheduler.grouping import GroupLimits
from writeset.buckets import BucketIndex
from writeset.hashing import TablePlan

STAGES = ("reader", "decoder", "scheduler", "worker")


@dataclass(frozen=True, slots=True)
class FlowConfiguration:
    """One way through the flow."""

    decoders: int
    group_transactions: int
    workers: int
    compressed: bool = False
    net_changes: bool = False


@dataclass(frozen=True, slots=True)
class FlowRun:
    """One pass of a backlog through the flow. `stage_seconds`: processor time of the stage's threads together;
    `limits`: share of the time that a stage was the one the others waited for."""

    configuration: FlowConfiguration
    transactions: int
    rows: int
    bytes: int
    seconds: float
    stage_seconds: dict[str, float]
    limits: dict[str, float]
    peak_rss_bytes: int

    @property
    def cpu_seconds(self) -> float:
        return sum(self.stage_seconds.values())

    @property
    def transactions_per_second(self) -> float:
        return self.transactions / self.seconds

    def as_dict(self, kernel_seconds: float) -> dict[str, Any]:
        """For JSON. `kernel_seconds`: what the compiled kernels alone need for the same transactions."""
        count, cpu = self.transactions, self.cpu_seconds
        return {
            **asdict(self.configuration),
            "seconds": round(self.seconds, 4),
            "transactions_per_second": round(self.transactions_per_second),
            "rows_per_second": round(self.rows / self.seconds),
            "bytes_per_second": round(self.bytes / self.seconds),
            "transactions_per_second_per_core": round(count / cpu),
            "nanoseconds_per_transaction": round(cpu * 1e9 / count),
            "python_microseconds_per_transaction": round(max(0.0, cpu - kernel_seconds) * 1e6 / count, 2),
            "peak_rss_bytes": self.peak_rss_bytes,
            "stages": {
                stage: {
                    "cpu_seconds": round(seconds, 4),
                    "nanoseconds_per_transaction": round(seconds * 1e9 / count),
                    "transactions_per_second_per_core": round(count / seconds) if seconds else None,
                    "bytes_per_second_per_core": round(self.bytes / seconds) if seconds else None,
                    "busy_share": round(seconds / self.seconds, 3),
                    "limit_share": self.limits.get(_LIMIT_NAMES.get(stage, stage), 0.0),
                }
                for stage, seconds in self.stage_seconds.items()
            },
        }


_LIMIT_NAMES = {"decoder": "decoders", "worker": "workers"}


class FlowBench:
    """Measures one backlog; `plans` are the keys of its tables."""

    def __init__(self, backlog: Backlog, plans: Plans) -> None:
        self.backlog = backlog
        self.capture = captured(backlog)
        self._plans = plans
        self._tables: dict[tuple[str, str], TablePlan] = {}
        self._learn()

    def _learn(self) -> None:
        """Reads the keys now, so that no query is measured; and the file, so that it is cached."""
        for batch in self._batches():
            RowDecoder().decode(batch, self._plans)
            for table_map, plan in batch.tables:
                self._tables[table_map.schema, table_map.table] = plan

    def run(self, configuration: FlowConfiguration) -> FlowRun:
        """Raises the pipeline's failure."""
        gc.collect()
        pipeline = self._pipeline(configuration)
        spent = _measured(pipeline.threads)
        started = time.perf_counter()
        with Sampler(lambda: pipeline) as sampler:
            pipeline.start()
            pipeline.join()
            seconds = time.perf_counter() - started
        if pipeline.failure is not None:
            raise pipeline.failure
        return FlowRun(
            configuration,
            transactions=pipeline.clock.low_water_mark,
            rows=sum(worker.state.rows for worker in pipeline.workers),
            bytes=pipeline.reader.bytes,
            seconds=seconds,
            stage_seconds={
                stage: sum(cpu for name, cpu in spent.items() if name.partition("-")[0] == stage)
                for stage in STAGES
            },
            limits=sampler.attribution().stages,
            peak_rss_bytes=peak_rss_bytes(),
        )

    def _pipeline(self, configuration: FlowConfiguration) -> Pipeline:
        start = self.backlog.start_gtids
        address = parse_url(self.backlog.source.url, "target", prompt=False)
        groups = None
        if configuration.group_transactions > 1:
            # Never entered: it makes commit packets, and nobody asks it for more.
            groups = Groups(Checkpoint(address, GtidMode.OWN, "bench"), start)
        pipeline = Pipeline(
            PipelineSettings(
                workers=configuration.workers,
                decoders=configuration.decoders,
                group=GroupLimits(transactions_max=configuration.group_transactions),
                target_gtids="own" if groups else "preserve",
                net_changes=configuration.net_changes,
            ),
            open_stream=lambda received: CapturedStream(self.capture),
            target=address,
            read_table=lambda schema, table: self._tables[schema, table],
            executed=start,
            until=self.backlog.end_gtids,
            groups=groups,
        )
        for worker in pipeline.workers:
            worker.session = SinkSession()
        return pipeline

    # --- kernels ---------------------------------------------------------------------------------

    def kernel_seconds(self, group_transactions: int, net_changes: bool) -> dict[str, float]:
        """Processor time of the compiled kernels, called one after the other by one thread, a batch at a time."""
        decoder, dependencies = RowDecoder(), Dependencies(BucketIndex())
        seconds = dict.fromkeys(("assemble", "decode", "schedule", "encode"), 0.0)
        batches = self._batches()
        while True:
            marks = [time.thread_time()]
            batch = next(batches, None)
            marks.append(time.thread_time())
            seconds["assemble"] += marks[1] - marks[0]
            if batch is None:
                return seconds
            decoder.decode(batch, self._plans)
            marks.append(time.thread_time())
            dependencies.schedule(batch, max(0, batch.first_sequence_number - 1))
            marks.append(time.thread_time())
            _encode(batch, group_transactions, net_changes)
            marks.append(time.thread_time())
            for stage, begin, end in zip(
                ("decode", "schedule", "encode"), marks[1:], marks[2:], strict=False
            ):
                seconds[stage] += end - begin

    def _batches(self) -> Iterator[Batch]:
        """Inflated."""
        stream, assembler = CapturedStream(self.capture), StreamAssembler(self.backlog.start_gtids)
        try:
            while (count := stream.read_into(assembler.writable(), 0.0)) > 0:
                assembler.received(count)
                while (batch := assembler.take(not stream.has_more())) is not None:
                    inflate_all(batch)
                    if len(batch):
                        yield batch
        finally:
            stream.close()


def _encode(batch: Batch, group_transactions: int, net_changes: bool) -> None:
    if group_transactions == 1:
        for number in range(len(batch)):
            transaction_packets(batch, number)
        return
    for first in range(0, len(batch), group_transactions):
        group = [(batch, first, min(first + group_transactions, len(batch)))]
        if net_changes:
            folded = fold(group)
            split(folded, batch.last_sequence_number)  # nothing is held: all in one part
            folded_packets(folded)
        else:
            rows_packets(group)


def _measured(threads: list[threading.Thread]) -> dict[str, float]:
    """Lets each thread note its own processor time when it ends. Call before they start."""
    spent: dict[str, float] = {}

    def noting(thread: threading.Thread, run: Callable[[], None]) -> Callable[[], None]:
        def body() -> None:
            try:
                run()
            finally:
                spent[thread.name] = time.thread_time()

        return body

    for thread in threads:
        thread.run = noting(thread, thread.run)  # type: ignore[method-assign]
    return spent
