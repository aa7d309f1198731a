"""The batches of a whole log: files, or what a source has now. Payloads are not inflated, rows not decoded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pymysql

from applier.address import ServerAddress
from applier.connection import Connection, connect, error_code, error_message
from applier.errors import CorruptEvent, SourceError, UsageError
from applier.events.assembler import StreamAssembler
from applier.events.batch import Batch
from applier.events.headers import HEADER_BYTES, MAGIC, EventHeader
from applier.source.dump import FromFile
from applier.source.files import LogFiles, files_of_index
from applier.source.refusal import source_error
from applier.source.registration import ReplicaIdentity
from applier.source.stream import DumpStream

READ_BYTES = 1 << 20
READ_TIMEOUT_SECONDS = 5.0
RELAY_LOG = 0x40
"""Flag of events that a replica wrote about its own relay log (LOG_EVENT_RELAY_LOG_F)."""


def batches_of_files(paths: Sequence[Path]) -> Iterator[Batch]:
    """Of binary log files in log order, of an index file that names them, or of relay log files.

    Files are opened, and looked at, before this returns. Raises UsageError (no such file), EncryptedLog, SourceError
    (not a log). While it is iterated: CorruptEvent, also when the last file ends too early; UnsupportedEvent.
    """
    files = [file for path in paths for file in (files_of_index(path) if path.suffix == ".index" else [path])]
    if not files:
        raise UsageError(detail="no binary log files were given")
    if len({file.name for file in files}) < len(files):
        raise UsageError(detail="two of the binary log files have the same name: each must be given once")
    return _read_files(LogFiles(files), {file.name: file for file in files})


def _read_files(log: LogFiles, paths: dict[str, Path]) -> Iterator[Batch]:
    assembler = StreamAssembler(packets=False)
    chunk = memoryview(bytearray(READ_BYTES))
    file = ""
    with log:
        while (count := log.read_into(chunk)) > 0:
            if log.file != file:
                _check_end(assembler, file)
                file = log.file
                relay_log = is_relay_log(paths[file])
                if file and not relay_log:
                    _check_transaction(assembler, file)
                assembler.begin_file(None if relay_log else file)
            assembler.feed(chunk[:count])
            yield from _taken(assembler, flush=False)
    yield from _taken(assembler, flush=True)
    _check_end(assembler, file)
    _check_transaction(assembler, file)


def is_relay_log(path: Path) -> bool:
    """By the flag in the file's first event."""
    with path.open("rb") as file:
        head = file.read(len(MAGIC) + HEADER_BYTES)
    return len(head) == len(MAGIC) + HEADER_BYTES and bool(
        EventHeader.parse(head[len(MAGIC) :]).flags & RELAY_LOG
    )


def _check_end(assembler: StreamAssembler, file: str) -> None:
    if file and (left := assembler.finish()):
        raise CorruptEvent(
            place=f"the end of {file}",
            detail=f"the file is cut off: its last {left} bytes are not a whole event",
        )


def _check_transaction(assembler: StreamAssembler, file: str) -> None:
    if assembler.in_transaction:
        raise CorruptEvent(
            place=f"the end of {file}", detail="the file is cut off: its last transaction does not end in it"
        )


def _taken(assembler: StreamAssembler, *, flush: bool) -> Iterator[Batch]:
    while (batch := assembler.take(flush)) is not None:
        failure = batch.failure
        if len(batch):
            yield batch
        if failure is not None:
            raise failure


# --- a live source -------------------------------------------------------------------------------------


def batches_of_source(address: ServerAddress, first_file: str | None = None) -> Iterator[Batch]:
    """Of everything in the source's binary logs now, or of `first_file` and those after it.

    Raises what `connect` and `DumpStream.open` raise, SourceError, UsageError when there is no such file;
    LinkLost, CorruptEvent and UnsupportedEvent while it is iterated.
    """
    with contextlib.closing(connect(address, read_timeout_seconds=60.0)) as connection:
        files = binary_logs(connection, address)
        identity = ReplicaIdentity.choose(connection, address)
    if first_file is not None and first_file not in files:
        raise UsageError(
            detail=f"the source has no binary log {first_file}; it has {files[0]} to {files[-1]}"
        )
    return _read_source(address, FromFile(first_file or files[0]), identity)


def binary_logs(source: Connection[Any], address: ServerAddress) -> list[str]:
    """Names of the files, oldest first. Raises SourceError, PreflightFailed (a privilege is missing), LinkLost."""
    try:
        with source.cursor() as cursor:
            cursor.execute("SHOW BINARY LOGS")
            files = [str(row[0]) for row in cursor.fetchall()]
    except pymysql.err.MySQLError as error:
        raise source_error(address, error_code(error), error_message(error)) from error
    if not files:
        raise SourceError(detail=f"{address.place} writes no binary log: start it with log_bin on")
    return files


def _read_source(address: ServerAddress, start: FromFile, identity: ReplicaIdentity) -> Iterator[Batch]:
    assembler = StreamAssembler()
    with DumpStream.open(address, start, identity, non_blocking=True) as stream:
        while not assembler.ended:
            count = stream.read_into(assembler.writable(), READ_TIMEOUT_SECONDS)
            assembler.received(count)
            yield from _taken(assembler, flush=False)
        yield from _taken(assembler, flush=True)


def first(batches: Iterable[Batch], transactions_max: int) -> Iterator[Batch]:
    """Batches up to so many transactions; the last one may go a little beyond."""
    seen = 0
    for batch in batches:
        yield batch
        seen += len(batch)
        if seen >= transactions_max:
            return
