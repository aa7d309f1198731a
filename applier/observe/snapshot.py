"""A `Status` of a run, from its observer."""

from __future__ import annotations

import itertools
import os
import resource
import socket
import time
from collections.abc import Mapping
from importlib.metadata import version

from applier.observe.causes import SLICE_SECONDS, WINDOW_SLICES
from applier.observe.counts import Counts
from applier.observe.histogram import LogHistogram
from applier.observe.observer import Observer, resident_bytes, unit_gtid
from applier.observe.status import (
    History,
    Index,
    Lag,
    Memory,
    Process,
    Queue,
    RelayLog,
    Settings,
    Source,
    Stage,
    StageTime,
    State,
    Status,
    Target,
    Totals,
    WorkerStatus,
)
from applier.pipeline import Pipeline
from applier.target.worker import Worker

VERSION = version("applier")
TURN = "waiting for its commit turn"


def snapshot(observer: Observer) -> Status:
    """Now. Takes about a millisecond."""
    pipeline = observer.replay.pipeline
    counts = observer.counts()
    return Status(
        at=time.time(),
        state=observer.state,
        error="" if observer.failure is None else str(observer.failure),
        process=_process(observer),
        settings=_settings(observer),
        source=_source(observer, pipeline),
        target=_target(observer, pipeline),
        lag=_lag(observer),
        rates=observer.rates(),
        totals=_totals(counts, pipeline),
        queues=queues_of(pipeline),
        stages=tuple(_stage_time(stage, times) for stage, times in _in_order(counts.stages)),
        workers=workers_of(pipeline, observer.last_gtids),
        hot_keys=observer.top_keys(),
        index=_index(pipeline),
        memory=memory_of(pipeline, observer.settings.pipeline.memory_bytes_max),
        relay_log=relay_log_of(observer),
        events=observer.recent.events(),
    )


def history(observer: Observer) -> History:
    """The last quarter of an hour, a point a second."""
    points = tuple(observer.history)
    rates = [
        (
            max(0, later.transactions - point.transactions) / (later.monotonic - point.monotonic),
            max(0, later.rows - point.rows) / (later.monotonic - point.monotonic),
        )
        for point, later in itertools.pairwise(points)
    ]
    points = points[1:]
    return History(
        at=[round(point.at, 3) for point in points],
        lag_seconds=[round(point.lag_seconds, 3) for point in points],
        lag_transactions=[point.lag_transactions for point in points],
        transactions_per_second=[round(transactions, 1) for transactions, _ in rates],
        rows_per_second=[round(rows, 1) for _, rows in rates],
        cause=[str(point.cause) for point in points],
        queue_fill=[round(point.queue_fill, 4) for point in points],
        workers_busy=[point.workers_busy for point in points],
        resident_bytes=[point.resident_bytes for point in points],
    )


def _process(observer: Observer) -> Process:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return Process(
        version=VERSION,
        host=socket.gethostname(),
        pid=os.getpid(),
        started=observer.started,
        cpu_seconds=round(usage.ru_utime + usage.ru_stime, 3),
        http=observer.http,
    )


def _settings(observer: Observer) -> Settings:
    settings = observer.settings
    flow = settings.pipeline
    return Settings(
        channel=settings.channel,
        workers=flow.workers,
        decoders=flow.decoders,
        commit_order="strict" if flow.ordered else "relaxed",
        group_transactions=flow.group.transactions_max,
        net_changes=flow.net_changes,
        target_gtids=flow.target_gtids,
        memory_bytes_max=flow.memory_bytes_max,
    )


def _source(observer: Observer, pipeline: Pipeline | None) -> Source:
    probe, address = observer.source_probe, observer.replay.sources.address
    reader = None if pipeline is None else pipeline.reader
    connected, silent = observer.source_link()
    return Source(
        place=address.place,
        user=address.user,
        connected=connected,
        server_id=probe.server_id,
        server_uuid=probe.server_uuid,
        version=probe.version,
        file="" if reader is None else reader.file,
        position=0 if reader is None else reader.position,
        executed_gtid_set=None if probe.executed is None else one_line(str(probe.executed)),
        received_gtid_set=None if reader is None else _received(pipeline),
        silent_seconds=round(silent, 3),
        reconnects=observer.source_reconnects,
        clock_offset_seconds=probe.clock_offset_seconds,
        round_trip_seconds=probe.round_trip_seconds,
    )


def _received(pipeline: Pipeline | None) -> str | None:
    try:
        return None if pipeline is None else one_line(str(pipeline.reader.received))
    except RuntimeError:  # changed by the reader while we looked
        return None


def one_line(gtid_set: str) -> str:
    return gtid_set.replace("\n", "").replace(" ", "")


def _target(observer: Observer, pipeline: Pipeline | None) -> Target:
    probe, address = observer.target_probe, observer.settings.target
    applied = None if probe.executed is None else one_line(str(probe.executed))
    file, position = ("", 0) if pipeline is None else pipeline.reader.marks.applied
    if probe.progress is not None:
        progress, file, position = probe.progress
        applied = one_line(progress)
    return Target(
        place=address.place,
        user=address.user,
        connected=pipeline is not None,
        server_uuid=probe.server_uuid,
        version=probe.version,
        applied_gtid_set=applied,
        file=file,
        position=position,
        reconnects=observer.target_reconnects,
        round_trip_seconds=probe.round_trip_seconds,
    )


def _lag(observer: Observer) -> Lag:
    seconds, transactions = observer.lag()
    return Lag(
        seconds=round(seconds, 3),
        transactions=transactions,
        growing=observer.growing(),
        cause=observer.cause(),
        because=observer.because(),
        window_seconds=SLICE_SECONDS * WINDOW_SLICES,
        causes=observer.causes(),
        run_causes=observer.causes(whole_run=True),
    )


def _totals(counts: Counts, pipeline: Pipeline | None) -> Totals:
    return Totals(
        low_water_mark=0 if pipeline is None else pipeline.clock.low_water_mark,
        read=0 if pipeline is None else pipeline.reader.next_sequence_number - 1,
        transactions=counts.transactions,
        rows=counts.rows,
        units=counts.units,
        bytes_read=counts.bytes_read,
        inserts=counts.inserts,
        updates=counts.updates,
        deletes=counts.deletes,
        statements=counts.barriers["ddl"] + counts.barriers["statement"],
        net_rows_in=counts.rows_folded,
        net_rows_saved=counts.rows_saved,
        retries=dict(counts.retries),
        barriers=dict(counts.barriers),
        lock_waits=dict(counts.lock_waits),
    )


def queues_of(pipeline: Pipeline | None) -> tuple[Queue, ...]:
    if pipeline is None:
        return ()
    undecoded, decoded, work = pipeline.undecoded, pipeline.decoded, pipeline.work
    return (
        Queue("undecoded", len(undecoded), undecoded.items_max, undecoded.bytes, undecoded.bytes_max),
        Queue("decoded", len(decoded), None, decoded.bytes, decoded.bytes_max),
        Queue("work", work.batches, None, work.bytes, work.bytes_max, work.transactions),
    )


def _in_order(stages: Mapping[Stage, LogHistogram]) -> list[tuple[Stage, LogHistogram]]:
    return [(stage, stages[stage]) for stage in Stage if stage in stages]


def _stage_time(stage: Stage, times: LogHistogram) -> StageTime:
    count = times.count
    return StageTime(
        stage,
        count,
        round(times.total, 6),
        round(times.total / count, 9) if count else 0.0,
        times.quantile(0.5),
        times.quantile(0.99),
    )


def workers_of(pipeline: Pipeline | None, last_gtids: Mapping[int, str]) -> tuple[WorkerStatus, ...]:
    if pipeline is None:
        return ()
    now = time.monotonic()
    return tuple(_worker(worker, last_gtids.get(worker.state.number, ""), now) for worker in pipeline.workers)


def activity_of(worker: Worker) -> str:
    """What it does, told more exactly: at its turn it is committing."""
    activity = worker.state.activity
    return "committing" if activity == TURN and worker.session.released_at else activity


def _worker(worker: Worker, last_gtid: str, now: float) -> WorkerStatus:
    state = worker.state
    unit, activity = state.unit, activity_of(worker)
    since = worker.session.released_at if activity == "committing" else state.since
    gtid = unit_gtid(unit) or ""
    return WorkerStatus(
        number=state.number,
        activity=activity,
        activity_seconds=round(max(0.0, now - since), 6) if since else 0.0,
        sequence_number=0 if unit is None else unit.sequence_first,
        transactions_in_unit=0 if unit is None else unit.transactions,
        gtid=gtid,
        waits_for=state.waits_for if activity.startswith("waiting for a dep") or "rows" in activity else 0,
        attempts=state.failed_attempts,
        last_applied_gtid=last_gtid if last_gtid != gtid else "",
        transactions=state.transactions,
        rows=state.rows,
        units=state.units,
        retries=state.retries,
        rolled_back_for_others=state.rolled_back_for_others,
        last_error=state.last_error,
        last_error_number=state.last_code,
    )


def _index(pipeline: Pipeline | None) -> Index | None:
    if pipeline is None:
        return None
    index = pipeline.dependencies.index
    return Index(
        entries=index.entry_total,
        entries_max=(1 << index.bucket_bits) * index.bucket_entries,
        checkpoints=dict(index.checkpoints),
        touches=index.touch_total,
    )


def memory_of(pipeline: Pipeline | None, budget_bytes: int) -> Memory:
    now, most = resident_bytes()
    return Memory(now, most, budget_bytes, 0 if pipeline is None else pipeline.budget.used)


def relay_log_of(observer: Observer) -> RelayLog | None:
    settings = observer.settings.relay_log
    relaying = observer.replay.relaying
    if settings is None or relaying is None or relaying.relay is None:
        return None
    relay = relaying.relay
    return RelayLog(
        folder=str(settings.directory),
        bytes=relay.bytes,
        bytes_max=settings.space_bytes_max or None,
        files=len(relay.files),
    )


__all__ = ["State", "history", "snapshot"]
