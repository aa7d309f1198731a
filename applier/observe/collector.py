"""The metrics of the catalogue, made when they are scraped; `process_…` and `python_…` come from the client library."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from applier.observe import catalogue
from applier.observe.histogram import LogHistogram
from applier.observe.observer import Observer
from applier.observe.snapshot import VERSION, activity_of, memory_of, queues_of, relay_log_of
from applier.observe.status import Cause, Stage

STAGE_BUCKETS: Final = 25  # up to 33.6 s
GROUP_BUCKETS: Final = 17  # up to 131,072 transactions

Values = Mapping[str, float]  # by the value of the metric's label; "" without one


class ApplierCollector(Collector):
    """Reads an observer. A scrape takes about a millisecond and no lock of the flow."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not scrape."""
        return ()

    def collect(self) -> Iterator[Metric]:
        observer = self._observer
        counts = observer.counts()
        values = self._plain() | self._of_links() | self._of_flow()
        for metric in catalogue.METRICS:
            short = metric.name.removeprefix("applier_").removesuffix("_total")
            if metric.kind == "info":
                yield InfoMetricFamily(
                    metric.name.removesuffix("_info"),
                    metric.help,
                    {"version": VERSION, "channel": observer.settings.channel},
                )
            elif metric.kind == "histogram":
                yield _histogram(metric, counts.stages, counts.unit_transactions)
            else:
                yield _family(metric, values[short])

    def _plain(self) -> dict[str, Values]:
        observer = self._observer
        counts = observer.counts()
        seconds, transactions = observer.lag()
        shares = {share.cause: share.share for share in observer.causes()}
        run = observer.sampler.causes.run
        state = observer.state
        return {
            "state": {name: float(name == state) for name in catalogue.STATES},
            "lag_seconds": {"": seconds},
            "lag_transactions": {"": transactions},
            "lag_cause_ratio": {cause: shares.get(cause, 0.0) for cause in Cause},
            "lag_cause_seconds": {cause: run.get(cause, 0.0) for cause in Cause},
            "last_progress_timestamp_seconds": {"": observer.last_progress},
            "transactions": {"": counts.transactions},
            "rows": {"": counts.rows},
            "rows_decoded": {
                "insert": counts.inserts,
                "update": counts.updates,
                "delete": counts.deletes,
            },
            "read_bytes": {"": counts.bytes_read},
            "net_rows_in": {"": counts.rows_folded},
            "net_rows_saved": {"": counts.rows_saved},
            "barriers": _of(catalogue.BARRIER_REASONS, counts.barriers),
            "index_checkpoints": _of(catalogue.CHECKPOINT_REASONS, counts.checkpoints),
            "index_touches": {"": counts.touches},
            "retries": _of(catalogue.RETRY_REASONS, counts.retries),
            "lock_waits": _of(catalogue.LOCK_WAIT_RESOLUTIONS, counts.lock_waits),
            "rolled_back": {"": counts.rolled_back},
            "log_messages": _of(catalogue.LEVELS, observer.recent.totals),
        }

    def _of_links(self) -> dict[str, Values]:
        observer = self._observer
        pipeline = observer.replay.pipeline
        source, target = observer.source_probe, observer.target_probe
        connected, silent = observer.source_link()
        return {
            "link_up": {
                "source": float(connected),
                "target": float(pipeline is not None),
            },
            "reconnects": {
                "source": observer.source_reconnects,
                "target": observer.target_reconnects,
            },
            "round_trip_seconds": {
                "source": source.round_trip_seconds or 0.0,
                "target": target.round_trip_seconds or 0.0,
            },
            "source_silent_seconds": {"": silent},
            "source_clock_offset_seconds": {"": source.clock_offset_seconds or 0.0},
        }

    def _of_flow(self) -> dict[str, Values]:
        observer = self._observer
        pipeline = observer.replay.pipeline
        queues = {queue.name: queue for queue in queues_of(pipeline)}
        memory = memory_of(pipeline, observer.settings.pipeline.memory_bytes_max)
        relay = relay_log_of(observer)
        index = None if pipeline is None else pipeline.dependencies.index
        workers = dict.fromkeys(catalogue.ACTIVITIES, 0.0)
        for worker in () if pipeline is None else pipeline.workers:
            activity = activity_of(worker)
            workers[activity if activity in workers else "executing"] += 1
        return {
            "low_water_mark": {"": 0 if pipeline is None else pipeline.clock.low_water_mark},
            "read_sequence_number": {"": 0 if pipeline is None else pipeline.reader.next_sequence_number - 1},
            "queue_items": {name: queues[name].items if queues else 0 for name in catalogue.QUEUES},
            "queue_items_limit": {"undecoded": (queues["undecoded"].items_max or 0) if queues else 0},
            "queue_bytes": {name: queues[name].bytes if queues else 0 for name in catalogue.QUEUES},
            "queue_bytes_limit": {name: queues[name].bytes_max if queues else 0 for name in catalogue.QUEUES},
            "workers": workers,
            "index_entries": {"": 0 if index is None else index.entry_total},
            "index_entries_limit": {
                "": 0 if index is None else (1 << index.bucket_bits) * index.bucket_entries
            },
            "memory_budget_bytes": {"": memory.budget_bytes},
            "memory_queued_bytes": {"": memory.queued_bytes},
            "relay_log_bytes": {"": 0 if relay is None else relay.bytes},
            "relay_log_bytes_limit": {"": 0 if relay is None else relay.bytes_max or 0},
            "relay_log_files": {"": 0 if relay is None else relay.files},
        }


def registry_of(observer: Observer) -> CollectorRegistry:
    """One registry a run."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ApplierCollector(observer))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def _of(names: Iterable[str], counted: Mapping[str, float]) -> dict[str, float]:
    return {name: counted.get(name, 0) for name in names}


def _family(metric: catalogue.Metric, values: Values) -> Metric:
    labels = list(metric.labels)
    name = metric.name.removesuffix("_total")
    family = (CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily)(
        name, metric.help, labels=labels
    )
    for value, number in values.items():
        family.add_metric([value] if labels else [], number)
    return family


def _histogram(
    metric: catalogue.Metric, stages: Mapping[Stage, LogHistogram], units: LogHistogram
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(metric.name, metric.help, labels=list(metric.labels))
    if metric.labels:
        for stage in Stage:
            times = stages.get(stage, LogHistogram())
            family.add_metric([stage], _buckets(times, STAGE_BUCKETS), times.total)
    else:
        family.add_metric([], _buckets(units, GROUP_BUCKETS), units.total)
    return family


def _buckets(histogram: LogHistogram, highest: int) -> list[tuple[str, float]]:
    return [
        ("+Inf" if bound == float("inf") else f"{bound:.12g}", count)
        for bound, count in histogram.bounds(highest)
    ]
