"""Rows from one server into another: a result is read, turned into text by the kernel, and sent on, 1 MiB at a time.

While we send, the source goes on filling the socket's buffers, so both servers work at once; memory stays at a few MiB
whatever the table. LOAD DATA LOCAL turns errors into warnings and skips duplicates, so its own account of what it did
is checked: rows that it did not take, or changed, are an error here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import pymysql

from applier.address import ServerAddress
from applier.connection import connect, drop, send_command
from applier.errors import DataError, Fenced, LinkLost
from applier.migrate.chunks import CopyTable
from applier.migrate.row_text import RowText
from applier.migrate.state import Chunk, State, TableState
from applier.verify.definitions import Session, query

COM_QUERY: Final = 3
BUFFER_BYTES: Final = 1 << 20
PIECE_BYTES_MAX: Final = 64 << 20  # of a table without a key: committed one by one
INSERT_BYTES_MAX: Final = 1 << 20
TRUNCATED: Final = 1265  # also what the error value of an ENUM gets when it is copied faithfully
MISSHAPEN: Final = frozenset({1261, 1262})  # a line with too few or too many values
LOADED: Final = re.compile(rb"Records: (\d+)\s+Deleted: (\d+)\s+Skipped: (\d+)\s+Warnings: (\d+)")

WRITING = (
    # As lenient as the source may have been: what is in it must go into the target.
    "SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES', time_zone = '+00:00', foreign_key_checks = 0,"
    " unique_checks = 0, autocommit = 0, transaction_isolation = 'READ-COMMITTED', innodb_lock_wait_timeout = 50,"
    " net_read_timeout = 3600, net_write_timeout = 3600, wait_timeout = 604800"
)


class SourceFailed(Exception):
    """The source could not be read: `cause` is PyMySQL's error, `lost` whether its session and snapshot are gone."""

    def __init__(self, cause: BaseException, *, lost: bool) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.lost = lost


class RowSource:
    """Reads rows from a session whose snapshot is open. `bytes` counts what came."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.bytes = 0
        self._file: Any = None
        self._text: RowText | None = None

    def begin(self, statement: str, text: RowText) -> None:
        """Raises SourceFailed."""
        try:
            send_command(self.session, COM_QUERY, statement.encode())
            read_packet: Callable[[], Any] = self.session._read_packet
            columns = read_packet().read_length_encoded_integer()
            for _ in range(columns + 1):  # their definitions, and the end of them
                read_packet()
        except (pymysql.MySQLError, OSError) as error:
            raise _source_failed(error) from error
        self._file = vars(self.session)["_rfile"]
        self._text = text

    def read(self) -> bool:
        """More rows into the text; False when there are no more. Raises SourceFailed."""
        text = self._text
        if text is None or text.ended:
            return False
        try:
            # Not readinto1: with something in its buffer it waits for more, which may never come.
            data = self._file.read1(BUFFER_BYTES)
        except OSError as error:
            raise SourceFailed(error, lost=True) from error
        if not data:
            raise SourceFailed(LinkLost(role="source", detail="it closed the connection"), lost=True)
        self.bytes += len(data)
        text.feed(data, len(data))
        if text.error is not None:
            try:
                pymysql.err.raise_mysql_exception(text.error)
            except pymysql.MySQLError as error:
                raise _source_failed(error) from error
        return True

    def drain(self) -> None:
        """Reads to the end what nobody wants any more, so that the session and its snapshot can be used again."""
        text = self._text
        while text is not None and not text.ended:
            self.read()
            text.take_text()


def _source_failed(error: Exception) -> SourceFailed:
    lost = isinstance(error, OSError | pymysql.err.InterfaceError) or error.args[0] in (
        0,
        2006,
        2013,
        1053,
        1927,
    )
    return SourceFailed(error, lost=lost)


@dataclass(frozen=True, slots=True)
class WriteSettings:
    """How rows are written. `packet_bytes_max` is the target's max_allowed_packet."""

    load_data: bool = True
    binlog: bool = True
    packet_bytes_max: int = 64 << 20


class Loader(Protocol):
    """Takes the text of one statement's or several statements' rows."""

    text: RowText

    def send(self) -> None: ...

    def end(self) -> None: ...


class Writer:
    """A session on the target. Raises what PyMySQL raises, DataError for rows that the target would not take."""

    def __init__(self, target: ServerAddress, settings: WriteSettings) -> None:
        self._target = target
        self._settings = settings
        self._session: Session | None = None

    def session(self) -> Session:
        """Opened when needed, and again after `discard`."""
        if self._session is None:
            self._session = connect(self._target, local_files=self._settings.load_data)
            query(self._session, WRITING)
            if not self._settings.binlog:
                query(self._session, "SET SESSION sql_log_bin = 0")
        return self._session

    def discard(self) -> int | None:
        """The session's transaction is rolled back by the server; its number, if there was one."""
        session, self._session = self._session, None
        if session is None:
            return None
        drop(session)
        return int(session.thread_id())  # type: ignore[no-untyped-call]

    def loader(self, table: CopyTable) -> Loader:
        session = self.session()
        if self._settings.load_data:
            return _Load(session, table)
        return _Insert(session, table, min(INSERT_BYTES_MAX, self._settings.packet_bytes_max // 2))

    def copy(self, state: State, source: RowSource, table: CopyTable, where: str, chunk: Chunk) -> Chunk:
        """Copies rows, all but a table without a key in one transaction, which `commit` ends; gives the chunk with
        its counts. What such a table has is void until its last rows have their mark.

        Raises SourceFailed and Fenced too."""
        read_before = source.bytes
        loader = self.loader(table)
        source.begin(table.select(where), loader.text)
        piece = 0
        while source.read():
            piece += loader.text.ready
            loader.send()
            if piece > PIECE_BYTES_MAX and not table.has_key:
                loader.end()
                # Not behind another process, which has emptied the table and begun anew.
                self._run_owned(state, *state.owner_statement())
                query(self.session(), "COMMIT")
                piece = 0
        loader.send()
        loader.end()
        return replace(chunk, rows=loader.text.rows, bytes=source.bytes - read_before)

    def commit(self, state: State, chunk: Chunk, *, last: bool) -> None:
        """The rows, and that they are there; with the `last` ones, that the table is. Raises Fenced when another
        process has taken over."""
        self._run_owned(state, *state.chunk_statement(chunk))
        if last:
            query(self.session(), *state.table_statement(chunk.schema, chunk.table, TableState.COPIED))
        query(self.session(), "COMMIT")

    def _run_owned(self, state: State, statement: str, arguments: tuple[object, ...]) -> None:
        """A statement that finds or changes nothing when another process has taken over: raises Fenced then."""
        with self.session().cursor() as cursor:
            if not cursor.execute(statement, arguments):
                self.discard()
                raise Fenced(channel=state.name)


class _Load:
    """LOAD DATA LOCAL: begun with the first rows, ended by `end`, and begun again by more rows after that."""

    def __init__(self, session: Session, table: CopyTable) -> None:
        self.text = table.load_text()
        self._session = session
        self._statement = table.load_statement().encode()
        self._table = table
        self._open = False
        self._rows_before = 0
        self._facts = vars(session)

    def send(self) -> None:
        if not self._open and self.text.ready:
            send_command(self._session, COM_QUERY, self._statement)
            packet = self._session._read_packet()  # type: ignore[no-untyped-call]
            assert packet.is_load_local_packet(), "the server did not ask for the rows"
            self._open = True
        number = self._facts["_next_seq_id"]
        while packet := self.text.take(number):
            self._session._write_bytes(packet)  # type: ignore[attr-defined]
            number = (number + 1) % 256
        self._facts["_next_seq_id"] = number

    def end(self) -> None:
        if not self._open:
            return
        self._open = False
        self._session.write_packet(b"")
        answer = self._session._read_packet()  # type: ignore[no-untyped-call]
        wanted, self._rows_before = self.text.rows - self._rows_before, self.text.rows
        told = LOADED.search(answer.get_all_data())
        assert told is not None, "the server did not say what it loaded"
        records, _, skipped, warnings = map(int, told.groups())
        if records != wanted or skipped or warnings:
            complain(self._session, self._table, records, wanted, skipped)


class _Insert:
    """INSERT with many rows, for servers that take no local files."""

    def __init__(self, session: Session, table: CopyTable, bytes_max: int) -> None:
        self.text = table.insert_text()
        self._session = session
        self._table = table
        self._head = table.insert_head()
        self._bytes_max = bytes_max
        self._rows_before = 0

    def send(self) -> None:
        if self.text.ready >= self._bytes_max:
            self._insert()

    def end(self) -> None:
        if self.text.ready:
            self._insert()

    def _insert(self) -> None:
        wanted, self._rows_before = self.text.rows - self._rows_before, self.text.rows
        send_command(self._session, COM_QUERY, self._head + self.text.take_text()[:-1])
        records = self._session._read_query_result()  # type: ignore[attr-defined]
        warnings = vars(self._session)["_result"].warning_count
        if records != wanted or warnings:
            complain(self._session, self._table, records, wanted, 0)


def complain(session: Session, table: CopyTable, records: int, wanted: int, skipped: int) -> None:
    """Raises DataError, unless the warnings tell of nothing but error values of ENUMs, which were copied as such, and
    of generated columns, which the source warned of too when it computed them."""
    serious = [
        str(text) for _, code, text in query(session, "SHOW WARNINGS") if _is_serious(table, code, str(text))
    ]
    if serious or skipped or records != wanted:
        words = f": {serious[0]}" if serious else ""
        raise DataError(detail=f"the target took {records - skipped} of {wanted} rows unchanged{words}")


def _is_serious(table: CopyTable, code: int, text: str) -> bool:
    for column in table.columns:
        if f"'{column.name}'" in text:
            return column.data_type != "enum" or code != TRUNCATED
    # Of an expression's operands no column is told: `'7x' + 0` is "Truncated incorrect DOUBLE value".
    return code in MISSHAPEN or len(table.columns) == len(table.table.columns)
