"""Makes the source's schemas on the target: databases and tables first, indexes and code after the rows.

Everything can be done again: a table that has no rows yet is dropped and made anew, an index that is there is left
alone, code is dropped and made anew.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, Self

import pymysql

from applier.connection import Connection, connect, raw_socket
from applier.errors import DataError, Fenced, LinkLost
from applier.migrate.definitions import (
    Code,
    Definitions,
    create_statement,
    is_foreign_key,
    is_small,
    lines_of,
    split_create,
)
from applier.migrate.settings import MigrateSettings
from applier.migrate.snapshot import SnapshotLost
from applier.migrate.state import State, TableProgress, TableState
from applier.target.event_ddl import for_replica
from applier.verify.definitions import TableName, query, quoted
from applier.verify.expressions import CODECS
from applier.verify.sessions import SETTINGS
from applier.verify.work import Work

log = logging.getLogger(__name__)

EXISTS: Final = 1007
TABLE_EXISTS: Final = 1050
DUPLICATE: Final = frozenset({1061, 1826})  # the index or the foreign key is there already
LINK_CODES: Final = frozenset({0, 2006, 2013, 1053, 1927})
# The sort of an index build gets 1 MiB by default, for all its threads, and goes to disk with more.
INDEX_BUFFER_BYTES: Final = 32 << 20
# Some need a privilege that the account may not have; then what they are set against is refused by the server itself.
LENIENT: Final = (
    "SET SESSION innodb_strict_mode = OFF",
    "SET SESSION sql_require_primary_key = OFF",
    "SET SESSION sql_generate_invisible_primary_key = OFF",
    "SET SESSION show_gipk_in_create_table_and_information_schema = ON",
    f"SET SESSION innodb_ddl_buffer_size = {INDEX_BUFFER_BYTES}",
)


@contextlib.contextmanager
def ddl_session(settings: MigrateSettings) -> Iterator[Connection[Any]]:
    """A session for DDL on the target. Raises what `connect` raises, LinkLost, DataError."""
    session = connect(settings.target)
    try:
        query(session, SETTINGS)
        query(session, "SET SESSION foreign_key_checks = 0, unique_checks = 0")
        wanted = LENIENT if settings.target_binlog else (*LENIENT, "SET SESSION sql_log_bin = 0")
        for statement in wanted:
            with contextlib.suppress(pymysql.err.OperationalError, pymysql.err.InternalError):
                query(session, statement)
        yield session
    except pymysql.MySQLError as error:
        if error.args and error.args[0] in LINK_CODES:
            raise LinkLost(role="target", detail=str(error.args[-1])) from error
        raise DataError(detail=f"the target refused a definition: {error.args[-1]}") from error
    finally:
        with contextlib.suppress(pymysql.MySQLError, OSError):
            session.close()


def create_databases(settings: MigrateSettings, definitions: Definitions) -> None:
    with ddl_session(settings) as session:
        for statement in definitions.databases.values():
            try:
                query(session, statement)
            except pymysql.MySQLError as error:
                if error.args[0] != EXISTS:
                    raise


@dataclass(frozen=True, slots=True)
class NewTable:
    """To be made."""

    name: TableName
    statement: str


def note_tables(
    settings: MigrateSettings,
    state: State,
    definitions: Definitions,
    estimates: dict[TableName, tuple[int, int]],
) -> list[NewTable]:
    """Notes tables that the migration does not know yet, or knows otherwise, as pending, and drops those that are
    gone or other ones. Gives what is to be made: also what is noted and not there, as a process was killed between
    the two. Raises Fenced."""
    known = {table.name: table for table in state.tables()}
    wanted, noted = [], []
    with ddl_session(settings) as session:
        there = _tables_there(session, settings)
        outdated = list(set(known) - set(definitions.tables))
        for name, statement in definitions.tables.items():
            before = known.get(name)
            if before is not None and name in there and same_table(before.definition, statement):
                continue
            outdated.append(name)
            rows, size = estimates.get(name, (0, 0))
            split = split_create(statement, defer=settings.defer_indexes, small=is_small(rows, size))
            wanted.append(NewTable(name, split.now))
            noted.append(TableProgress(*name, TableState.PENDING, statement, split.later, rows, size))
        for name in outdated:
            if name in there:
                _drop(session, state, name)
            if name in known:
                state.remove_table(*name)
    # What is noted is of the definition that is noted, or not there: killed at any moment, the next run can tell.
    state.put_tables(noted)
    return wanted


class TableMaker:
    """Makes tables, in this order, in sessions of its own while the first of them are being filled: a CREATE TABLE
    waits for the disk most of its time (5 to 13 ms, measured, in however many sessions). A context manager.

    `wait` raises DataError when the target refuses one of them, LinkLost, Fenced.
    """

    def __init__(
        self, settings: MigrateSettings, state: State, tables: Sequence[NewTable], sessions: int
    ) -> None:
        self._settings = settings
        self._state = state
        self._made: dict[TableName, Future[None]] = {table.name: Future() for table in tables}
        self._work = Work(reversed(tables))
        self._workers = min(sessions, len(tables))
        self._sessions: list[Connection[Any]] = []
        self._thread = threading.Thread(target=self._run, name="table-maker", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *ignored: object) -> None:
        if kind is None or issubclass(kind, SnapshotLost):
            self._work.fail(Stopped())  # what is under way ends: the next snapshot's maker goes on from there
        else:
            self.stop()
        self._thread.join()

    def wait(self, name: TableName) -> None:
        """Until the table is there."""
        if name in self._made:
            self._made[name].result()

    def wait_for_all(self) -> None:
        """Until every table is there."""
        for name in self._made:
            self.wait(name)

    def stop(self) -> None:
        """Make no more, and do not wait for a statement that may wait for somebody's lock; who waits gets an error."""
        self._work.fail(Stopped())
        for session in list(self._sessions):
            with contextlib.suppress(OSError, AttributeError):
                raw_socket(session).shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        try:
            self._work.run([self._make] * self._workers, lambda: None)
        except BaseException as error:  # noqa: BLE001 - raised again by `wait`
            for made in self._made.values():
                if not made.done():
                    made.set_exception(error)

    def _make(self) -> None:
        with ddl_session(self._settings) as session:
            self._sessions.append(session)
            while (table := self._work.take()) is not None:
                try:
                    query(session, f"USE {quoted(table.name[0])}")
                    self._create(session, table)
                    self._made[table.name].set_result(None)
                finally:
                    self._work.done()

    def _create(self, session: Connection[Any], table: NewTable) -> None:
        try:
            query(session, table.statement)
        except pymysql.MySQLError as error:
            if error.args[0] != TABLE_EXISTS:
                raise
            # Of a process that was killed; its statement went on in the server.
            _drop(session, self._state, table.name)
            query(session, table.statement)


class Stopped(Exception):
    """Tables are not made any more: somebody else failed first."""


def _tables_there(session: Connection[Any], settings: MigrateSettings) -> set[TableName]:
    condition, arguments = settings.selection.condition("table_schema")
    rows = query(
        session,
        f"SELECT table_schema, table_name FROM information_schema.tables WHERE {condition}",
        arguments,
    )
    return {(str(schema), str(table)) for schema, table in rows}


def same_table(one: str, other: str) -> bool:
    """Two SHOW CREATE TABLE but for the AUTO_INCREMENT counter, which rows move on."""
    return _without_counter(one) == _without_counter(other)


def _without_counter(statement: str) -> list[str]:
    lines = statement.split("\n")
    return [
        " ".join(word for word in line.split(" ") if not word.startswith("AUTO_INCREMENT="))
        if line.startswith(")")
        else line
        for line in lines
    ]


def _drop(session: Connection[Any], state: State, name: TableName) -> None:
    if state.fenced():  # it may have been filled by who has taken over
        raise Fenced(channel=state.name)
    query(session, f"DROP TABLE IF EXISTS {quoted(name[0])}.{quoted(name[1])}")


# --- indexes -----------------------------------------------------------------------------------------------


def build_indexes(settings: MigrateSettings, state: State, told: Callable[[str], None]) -> None:
    """Indexes of all tables, several tables at once, the largest first; then the foreign keys. `told` hears of each.

    Raises DataError, LinkLost."""
    tables = [table for table in state.tables() if table.state is TableState.COPIED]
    indexes = {
        table.name: [clause for clause in table.deferred if not is_foreign_key(clause)]
        for table in sorted(tables, key=lambda table: table.bytes_copied)
    }
    waiting = [(name, clauses) for name, clauses in indexes.items() if clauses]
    work = Work(waiting)
    lock = threading.Lock()

    def worker() -> None:
        with ddl_session(settings) as session:
            while (one := work.take()) is not None:
                try:
                    name, clauses = one
                    for together in _at_once(clauses):
                        _alter(session, name, together)
                    with lock:
                        told(".".join(name))
                finally:
                    work.done()

    work.run([worker] * min(settings.threads, len(waiting)), lambda: None)
    with ddl_session(settings) as session:
        for table in tables:
            foreign_keys = [clause for clause in table.deferred if is_foreign_key(clause)]
            if foreign_keys:
                _alter(session, table.name, foreign_keys)
    state.set_tables([table.name for table in tables], TableState.READY)


def _at_once(clauses: Sequence[str]) -> Iterator[list[str]]:
    """One pass over the table builds all its B-trees; a FULLTEXT or SPATIAL index wants a statement of its own."""
    alone = [clause for clause in clauses if clause.startswith(("ADD FULLTEXT", "ADD SPATIAL"))]
    together = [clause for clause in clauses if clause not in alone]
    if together:
        yield together
    yield from ([clause] for clause in alone)


def _alter(session: Connection[Any], name: TableName, clauses: Iterable[str]) -> None:
    while True:
        there = lines_of(create_statement(session, name))
        missing = [clause for clause in clauses if clause not in there]
        if not missing:
            return
        query(session, f"USE {quoted(name[0])}")  # a foreign key names its parent without the schema
        try:
            query(session, f"ALTER TABLE {quoted(name[1])} {', '.join(missing)}")
        except pymysql.MySQLError as error:
            # An ALTER of a process that was killed went on in the server: look again.
            if error.args[0] not in DUPLICATE or not set(missing) & lines_of(create_statement(session, name)):
                raise
        else:
            return


# --- code --------------------------------------------------------------------------------------------------


def create_code(settings: MigrateSettings, code: Sequence[Code]) -> None:
    """Routines, views, triggers, events; events disabled until somebody enables them. Raises DataError, LinkLost."""
    waiting, errors = list(code), {}
    while waiting:
        left = []
        for one in waiting:
            try:
                with ddl_session(settings) as session:
                    _create(session, one)
            except DataError as error:
                left.append(one)
                errors[one] = error
        if len(left) == len(waiting):  # a view may need another view or a routine, but something must go on
            one = left[0]
            raise DataError(
                detail=f"{one.kind.lower()} {one.schema}.{one.name}: {errors[one].facts['detail']}"
            )
        waiting = left


def _create(session: Connection[Any], one: Code) -> None:
    query(session, f"USE {quoted(one.schema)}")
    query(session, f"DROP {one.kind} IF EXISTS {quoted(one.schema)}.{quoted(one.name)}")
    query(session, "SET SESSION sql_mode = %s", (one.sql_mode,))
    if one.time_zone:
        query(session, "SET SESSION time_zone = %s", (one.time_zone,))
    codec = CODECS.get(one.charset, "utf-8")
    if codec.startswith("utf-16") or codec.startswith("utf-32"):
        codec = "utf-8"  # no client can have these
    text = one.statement.encode(codec, "strict")
    charset = one.charset if one.charset in CODECS and codec != "utf-8" else "utf8mb4"
    collation = f", collation_connection = {one.collation}" if one.collation else ""
    query(session, f"SET SESSION character_set_client = {charset}{collation}")
    session.query(for_replica(text, None) if one.kind == "EVENT" else text)


def drop_everything(schemas: Iterable[str], settings: MigrateSettings) -> None:
    """The schemas that a migration has made."""
    with ddl_session(settings) as session:
        for schema in schemas:
            query(session, f"DROP DATABASE IF EXISTS {quoted(schema)}")
