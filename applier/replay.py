"""A run of the applier: pipelines one after the other, each starting from what the target has executed.

A lost link to the target ends a pipeline; the next one asks the target what it has and goes on from there. So nothing
is ever guessed: a transaction whose COMMIT was sent but not answered is in the target's gtid_executed or is not, and
`SET gtid_next` waits for a session of ours that is still committing it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pymysql

from applier.address import ServerAddress
from applier.backoff import Backoff
from applier.connection import connect
from applier.errors import LinkLost, PreflightFailed, RelayLogFailed, SourceChanged, TargetLost, Unreachable
from applier.events.gtid import GtidSet
from applier.pipeline import Pipeline
from applier.preflight import Requirements, preflight
from applier.reader import Stream
from applier.settings import RunSettings
from applier.source.failover import Candidate, SourceFacts, Sources, one_line
from applier.source.position import source_position
from applier.source.registration import ReplicaIdentity
from applier.source.relay.session import Relaying
from applier.target.checkpoint import Checkpoint, GtidMode, applied_before
from applier.target.groups import Groups
from applier.target.keeper import CheckpointKeeper

log = logging.getLogger(__name__)

JOIN_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Progress:
    """A moment of a run. Counts are since its start; `transactions_behind` is what was read and not yet committed."""

    transactions: int = 0
    rows: int = 0
    bytes_read: int = 0
    retries: int = 0
    reconnects: int = 0
    transactions_behind: int = 0
    lag_seconds: float = 0.0
    queue_fill: float = 0.0  # of the memory budget; above 1 when one transaction needs more
    workers_busy: int = 0
    workers: int = 0

    def after(self, earlier: Progress) -> Progress:
        """Counts added up over pipelines; the rest as it is now."""
        return Progress(
            self.transactions + earlier.transactions,
            self.rows + earlier.rows,
            self.bytes_read + earlier.bytes_read,
            self.retries + earlier.retries,
            self.reconnects + earlier.reconnects,
            self.transactions_behind,
            self.lag_seconds,
            self.queue_fill,
            self.workers_busy,
            self.workers,
        )


def progress_of(pipeline: Pipeline) -> Progress:
    states = [worker.state for worker in pipeline.workers]
    mark = pipeline.clock.low_water_mark
    return Progress(
        transactions=mark,
        rows=sum(state.rows for state in states),
        bytes_read=pipeline.reader.bytes,
        retries=sum(state.retries for state in states),
        reconnects=pipeline.reader.reconnects,
        transactions_behind=max(0, pipeline.reader.next_sequence_number - 1 - mark),
        lag_seconds=pipeline.reader.marks.lag_seconds(mark),
        queue_fill=pipeline.budget.used / pipeline.budget.limit,
        workers_busy=sum(state.activity not in ("idle", "starting", "stopped") for state in states),
        workers=len(states),
    )


class Replay:
    """`run` in one thread; `drain`, `abort` and `progress` from any."""

    def __init__(self, settings: RunSettings) -> None:
        self.settings = settings
        self.pipeline: Pipeline | None = None
        self._earlier = Progress()
        self._stopping = threading.Event()
        self.aborted = False
        self.reached_the_end = False  # the wanted end, not a drain
        self.attributes: dict[str, str] = {}  # what the target's session tells of us, see observe.last_known
        self._progress_at_failure = 0
        self._gtids_lack = False  # the target has committed groups of which its GTIDs do not tell
        self._facts = SourceFacts()
        self._source_executed = GtidSet()  # at the start
        self._relaying: Relaying | None = None
        self.sources = Sources(
            [settings.source, *settings.standby_sources],
            on_use=self._source_used,
            verify=settings.relay_log is not None,
        )

    # --- control ---------------------------------------------------------------------------------

    def drain(self) -> None:
        """Commits what workers have begun, then ends."""
        self._stopping.set()
        if self.pipeline is not None:
            self.pipeline.drain()

    def abort(self) -> None:
        """Ends now; the target rolls back what is not committed."""
        self._stopping.set()
        self.aborted = True
        if self.pipeline is not None:
            self.pipeline.abort()

    @property
    def relaying(self) -> Relaying | None:
        """The relay log of this run, once it has one."""
        return self._relaying

    @property
    def stopping(self) -> bool:
        """It was asked to end."""
        return self._stopping.is_set()

    def progress(self) -> Progress:
        pipeline = self.pipeline
        now = progress_of(pipeline).after(self._earlier) if pipeline is not None else self._earlier
        receiver = None if self._relaying is None else self._relaying.receiver
        if receiver is None:
            return now
        return dataclasses.replace(now, reconnects=now.reconnects + receiver.reconnects)

    # --- the run ---------------------------------------------------------------------------------

    def run(self) -> Progress:
        """Returns when the wanted end is reached or after `drain`. Raises ApplierError."""
        if self.settings.relay_log is None:
            return self._run()
        self._relaying = Relaying(self.settings.relay_log, self.settings.reconnect_attempts_max)
        with contextlib.closing(self._relaying):
            return self._run()

    def _run(self) -> Progress:
        settings = self.settings
        until = self._prepare()
        backoff = Backoff(attempts_max=settings.reconnect_attempts_max)
        while not self._stopping.is_set():
            try:
                self._run_once(until)
                self.reached_the_end = not self._stopping.is_set()
                break
            except SourceChanged as change:
                log.warning("reading tables again", extra={"detail": str(change)})
            except (LinkLost, Unreachable) as error:
                if self._stopping.is_set():
                    break
                if self._earlier.transactions > self._progress_at_failure:
                    backoff.reset()
                self._progress_at_failure = self._earlier.transactions
                log.warning("target link lost", extra={"detail": str(error), "attempt": backoff.attempts + 1})
                if not backoff.wait(self._stopping):
                    raise TargetLost(attempts=backoff.attempts, detail=str(error)) from error
            # The last pipeline is a circle of references: its index of last writers and its buffers are megabytes.
            gc.collect()
        if self._gtids_lack and not self.aborted:
            lack = "its gtid_executed lacks the last groups, start once more before another replica goes on there"
            raise TargetLost(attempts=backoff.attempts, detail=lack)
        return self.progress()

    def _prepare(self) -> GtidSet | None:
        """Chooses the source, checks both sides; what to apply, None: everything that ever comes."""
        settings, sources = self.settings, self.sources
        if settings.pipeline.record_schedule is not None:  # one recording for all pipelines of this run
            settings.pipeline.record_schedule.unlink(missing_ok=True)
        with _connected(settings.target) as target:
            executed, sources.foreign, sources.target_uuid = applied_before(
                target, settings.pipeline.gtid_mode, settings.channel
            )
            received = executed if self._relaying is None else self._relaying.take_over(executed)
            address = sources.choose(received)
            with _connected(address) as source:
                if settings.check:
                    wanted = Requirements(
                        gtids=settings.pipeline.gtid_mode.value,
                        received=one_line(received),
                        channel=settings.channel,
                    )
                    report = preflight(source, target, wanted)
                    for finding in report.warnings:
                        log.warning("check", extra={"finding": finding.name, "detail": finding.detail})
                    report.raise_on_failure()
                with target.cursor() as cursor:
                    cursor.execute("SELECT @@GLOBAL.server_id")
                    (target_server_id,) = cursor.fetchone()
                with source.cursor() as cursor:
                    cursor.execute("SELECT @@GLOBAL.binlog_row_image")
                    (row_image,) = cursor.fetchone()
                self._facts = SourceFacts(full_images=row_image == "FULL")
                sources.identity = ReplicaIdentity.choose(
                    source, address, [int(target_server_id)], settings.server_id
                )
                self._source_executed = source_position(source, address).executed
                if settings.until_gtid_set is not None:
                    return GtidSet.parse(settings.until_gtid_set)
                return self._source_executed if settings.stop_at_end else None

    def _source_used(self, candidate: Candidate) -> None:
        """Before anything is read from a source: what it logs decides about the keys of its transactions."""
        facts = self._facts.and_of(candidate.facts)
        if facts == self._facts:
            return
        if self._relaying is not None and self._relaying.receiver is not None:
            self._relaying.save_facts(facts)
        self._facts = facts
        if self.pipeline is not None:
            self.pipeline.fail(SourceChanged(role="source", place=candidate.address.place))

    def _run_once(self, until: GtidSet | None) -> None:
        settings = self.settings
        mode = settings.pipeline.gtid_mode
        with Checkpoint(settings.target, mode, settings.channel, attributes=self.attributes) as checkpoint:
            self._gtids_lack = False
            if settings.skip_gtid_set is not None:
                checkpoint.skip(GtidSet.parse(settings.skip_gtid_set))
            executed = checkpoint.executed()
            if until is not None and until <= executed:
                return
            if mode is GtidMode.KEPT:
                self._refuse_to_double(checkpoint.untold() & self._source_executed)
            groups = (
                None
                if mode is GtidMode.KEPT
                else Groups(checkpoint, executed, net_changes=settings.pipeline.net_changes)
            )
            self._run_pipeline(executed, until, checkpoint, groups)

    def _refuse_to_double(self, untold: GtidSet) -> None:
        """The check before the start says the same, but it can be left out, and it does not hold the channel: after it
        a killed run's last group may still commit."""
        if untold:
            raise PreflightFailed(
                detail=f"an earlier run has applied transactions that gtid_executed lacks: {one_line(untold)}; keeping "
                "GTIDs one by one would apply them again. Go on as that run was begun"
            )

    def _run_pipeline(
        self,
        executed: GtidSet,
        until: GtidSet | None,
        checkpoint: Checkpoint,
        groups: Groups | None,
    ) -> None:
        # Not at the top: it takes half a second, as it brings SQLAlchemy, and a run with nothing to apply needs none.
        from applier.target.keys import TargetKeys

        settings = self.settings
        open_stream: Callable[[GtidSet], Stream] = self.sources.open
        if self._relaying is not None:
            self._facts = self._relaying.start(self.sources.open, executed, self._facts)
            open_stream = self._relaying.open_stream
        facts = self._facts
        with TargetKeys(
            settings.target,
            images_may_lack_columns=not facts.full_images,
        ) as keys:
            pipeline = Pipeline(
                settings.pipeline,
                open_stream=open_stream,
                target=checkpoint.address,
                read_table=keys.read_table,
                executed=executed,
                until=until,
                groups=groups,
                packet_bytes_max=checkpoint.packet_bytes_max(),
                selection=settings.selection,
            )
            newest = groups.to_add if groups is not None else lambda: None
            keeper = CheckpointKeeper(checkpoint, newest, pipeline.fail)
            keeper.start()
            self.pipeline = pipeline
            pipeline.start()
            if self._stopping.is_set():  # asked to stop while we were starting
                pipeline.abort() if self.aborted else pipeline.drain()
            if self._facts != facts:  # the receiver has found another source meanwhile
                pipeline.fail(SourceChanged(role="source", place=self.sources.address.place))
            while not pipeline.join(JOIN_SECONDS):
                self._purge_relay_log(pipeline)
            self._purge_relay_log(pipeline)
            self._earlier = progress_of(pipeline).after(self._earlier)
            self.pipeline = None
            try:
                keeper.end()
            finally:
                self._gtids_lack = not keeper.complete
        if pipeline.failure is not None and not self.aborted:
            raise pipeline.failure

    def _purge_relay_log(self, pipeline: Pipeline) -> None:
        if self._relaying is not None:
            try:
                self._relaying.purge(pipeline.clock.low_water_mark)
            except RelayLogFailed as error:
                pipeline.fail(error)


@contextlib.contextmanager
def _connected(address: ServerAddress) -> Iterator[pymysql.Connection[Any]]:
    connection = connect(address, read_timeout_seconds=60.0, write_timeout_seconds=60.0)
    try:
        yield connection
    except pymysql.err.OperationalError as error:
        raise LinkLost(role=address.role, detail=str(error)) from error
    finally:
        with contextlib.suppress(pymysql.err.MySQLError, OSError):
            connection.close()
