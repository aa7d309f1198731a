"""The snapshot copy: N readers and N writers take chunks off one stack until nothing is left.

A chunk and the mark that it is copied are one transaction on the target, so a process that is killed leaves whole
chunks or nothing. A chunk that cannot be copied is tried again, in the same snapshot; what fails for good is noted with
its keys, and everything else goes on. A reader whose session broke gives its chunk back: its snapshot is gone, the
other readers still have theirs.
"""

from __future__ import annotations

import contextlib
import logging
import random
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

import pymysql

from applier.connection import raw_socket
from applier.errors import ApplierError, DataError, Fenced, LinkLost
from applier.migrate.chunks import Part
from applier.migrate.load import RowSource, SourceFailed, Writer, WriteSettings
from applier.migrate.progress import CopyProgress
from applier.migrate.schema_copy import TableMaker
from applier.migrate.settings import MigrateSettings
from applier.migrate.snapshot import CHANGED, SnapshotLost
from applier.migrate.state import Chunk, State, TableState
from applier.migrate.throttle import Throttle
from applier.verify.definitions import Session, TableName, qualified
from applier.verify.sessions import read
from applier.verify.work import Work

log = logging.getLogger(__name__)

FIRST_ROWS: Final = 20_000
ROWS_MAX: Final = 2_000_000
GROWTH_MAX: Final = 2.0  # from one chunk of a table to the next
RETRY_PAUSE_SECONDS: Final = 0.2


@dataclass(slots=True)
class _TableWork:
    """What is under way of one table."""

    parts: int = 1
    rows_per_chunk: int = field(default_factory=lambda: FIRST_ROWS)
    failed: bool = False
    noted: bool = False  # as copied, with its last chunk
    lock: threading.Lock = field(default_factory=threading.Lock)


class Copier:
    """Copies `parts`, each a table or what is left of one. `run` returns when nothing is left to be tried."""

    def __init__(
        self,
        settings: MigrateSettings,
        state: State,
        write: WriteSettings,
        progress: CopyProgress,
        throttle: Throttle,
        made: TableMaker,
    ) -> None:
        self.progress = progress
        self._settings = settings
        self._state = state
        self._write = write
        self._throttle = throttle
        self._made = made
        self._tables: dict[TableName, _TableWork] = {}
        self._readers = 0
        self._lock = threading.Lock()
        self.stopping = threading.Event()
        self._lost: BaseException | None = None

    def run(self, sessions: Sequence[Session], parts: Sequence[Part]) -> None:
        """In this order. Raises SnapshotLost when another snapshot is needed; Fenced, LinkLost and ApplierError."""
        for part in parts:
            known = self._tables.setdefault(part.table.name, _TableWork(parts=0))
            known.parts += 1
        work = Work(reversed(parts))
        self._readers = len(sessions)
        writers = [Writer(self._settings.target, self._write) for _ in sessions]

        def cut_off() -> None:
            self.stopping.set()
            self._made.stop()
            for session in sessions:
                with contextlib.suppress(OSError, AttributeError):
                    raw_socket(session).shutdown(socket.SHUT_RDWR)

        jobs = [
            partial(self._worker, work, RowSource(session), writer)
            for session, writer in zip(sessions, writers, strict=True)
        ]
        try:
            work.run(jobs, cut_off)
        finally:
            for writer in writers:
                writer.discard()
        if self._lost is not None and self._readers == 0:
            raise SnapshotLost(str(self._lost)) from self._lost

    def _worker(self, work: Work[Part], source: RowSource, writer: Writer) -> None:
        while (part := work.take()) is not None:
            try:
                if self.stopping.is_set():
                    return
                self._made.wait(part.table.name)
                self._throttle.wait()
                self._take(work, source, writer, part)
            except SourceFailed as error:
                if not error.lost and error.cause.args[0] not in CHANGED:
                    raise ApplierError(detail=f"the source could not be read: {error.cause}") from error
                log.warning("reader lost", extra={"detail": str(error)})
                self._give_up_reader(error)
                if not error.lost:
                    raise SnapshotLost(str(error.cause)) from error
                if self._readers == 0:
                    raise SnapshotLost(str(error.cause)) from error
                return
            finally:
                work.done()

    def _give_up_reader(self, error: BaseException) -> None:
        with self._lock:
            self._readers -= 1
            self._lost = error

    # --- one chunk -------------------------------------------------------------------------------------

    def _take(self, work: Work[Part], source: RowSource, writer: Writer, part: Part) -> None:
        table = self._tables[part.table.name]
        chunk = part
        try:
            if part.head:
                chunk, rest = self._cut(source, part, table)
                if rest is not None:
                    with table.lock:
                        table.parts += 1
                    work.add([rest])
            self._copy(source, writer, chunk, table)
        except SourceFailed as error:
            if error.lost:
                work.add([chunk])
            raise
        self._finished_part(chunk, table)

    def _cut(self, source: RowSource, part: Part, table: _TableWork) -> tuple[Part, Part | None]:
        if not part.table.has_key:
            return part.cut(None)
        rows_max = max(1, self._settings.chunk_bytes_max // part.table.row_bytes)
        try:
            found = read(source.session, part.table.boundary(part.where, min(table.rows_per_chunk, rows_max)))
        except (pymysql.MySQLError, OSError) as error:
            raise SourceFailed(
                error, lost=isinstance(error, OSError) or error.args[0] in (0, 2006, 2013)
            ) from error
        return part.cut(tuple(_text(value) for value in found[0]) if found else None)

    def _copy(self, source: RowSource, writer: Writer, part: Part, table: _TableWork) -> None:
        attempts = 0
        while True:
            began = time.monotonic()
            try:
                done = writer.copy(self._state, source, part.table, part.where, part.as_chunk())
                done = replace(done, seconds=round(time.monotonic() - began, 4))
                with table.lock:
                    # Nobody adds a part any more: only a head does, and this is no head.
                    last = table.parts == 1 and not table.failed
                writer.commit(self._state, done, last=last)
                table.noted = last
            except Fenced:
                raise
            except (pymysql.MySQLError, OSError, DataError) as error:
                session = writer.discard()
                source.drain()
                if session is not None and isinstance(error, pymysql.MySQLError | OSError):
                    # It may have committed, or be committing: never guess.
                    self._state.end_session(session)
                    if self._state.has_chunk(part.as_chunk()):
                        return
                attempts += 1
                if attempts >= self._settings.attempts_max or self.stopping.is_set():
                    self._failed(part, table, error)
                    return
                with self.progress.lock:
                    self.progress.retries += 1
                self._before_retry(part, error, attempts)
                continue
            except SourceFailed:
                writer.discard()
                raise
            self._adapt(table, done, time.monotonic() - began)
            self.progress.copied(done.rows, done.bytes)
            return

    def _before_retry(self, part: Part, error: BaseException, attempts: int) -> None:
        log.warning("chunk is tried again", extra={"table": str(part.table.table), "detail": str(error)})
        if not part.table.has_key:
            # Its first pieces are committed: away with them, if they are still ours.
            if self._state.fenced():
                raise Fenced(channel=self._state.name)
            writer = Writer(self._settings.target, self._write)
            try:
                with writer.session().cursor() as cursor:
                    cursor.execute(f"TRUNCATE TABLE {qualified(part.table.table)}")
            except (pymysql.MySQLError, OSError) as again:
                raise LinkLost(role="target", detail=str(again)) from again
            finally:
                writer.discard()
        self.stopping.wait(random.uniform(0.5, 1.0) * RETRY_PAUSE_SECONDS * 2**attempts)

    def _failed(self, part: Part, table: _TableWork, error: BaseException) -> None:
        """The chunk is left out; whoever runs the migration again tries it again."""
        if isinstance(error, OSError) or (error.args and error.args[0] in (2003, 2006, 2013)):
            raise LinkLost(role="target", detail=str(error)) from error
        table.failed = True
        with self.progress.lock:
            self.progress.chunks_failed += 1
        words = str(error.args[-1]) if isinstance(error, pymysql.MySQLError) else str(error)
        self._state.add_failed(replace(part.as_chunk(), error=words))
        log.error(
            "chunk failed",
            extra={
                "table": str(part.table.table),
                "above": part.lower,
                "up_to": part.upper,
                "detail": words,
            },
        )

    def _adapt(self, table: _TableWork, done: Chunk, seconds: float) -> None:
        """The next chunk of the table is to take `chunk_seconds`."""
        if not done.rows:
            return
        wanted = done.rows / max(seconds, 1e-3) * self._settings.chunk_seconds
        with table.lock:
            limit = table.rows_per_chunk
            table.rows_per_chunk = int(
                min(ROWS_MAX, max(limit / GROWTH_MAX, min(wanted, limit * GROWTH_MAX), 1))
            )

    def _finished_part(self, part: Part, table: _TableWork) -> None:
        with table.lock:
            table.parts -= 1
            ended = table.parts == 0
        if not ended:
            return
        if not table.noted:
            state = TableState.FAILED if table.failed else TableState.COPIED
            self._state.set_table(*part.table.name, state)
        with self.progress.lock:
            self.progress.tables_done += not table.failed


def in_order(parts: Iterable[Part]) -> list[Part]:
    """What cannot be cut goes first, then what is large."""
    return sorted(
        parts,
        key=lambda part: (part.table.has_key, -part.table.table.rows_estimated * part.table.row_bytes),
    )


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
