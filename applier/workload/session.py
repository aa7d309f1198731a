"""One connection of a workload, in autocommit mode, that repeats what a deadlock has undone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import pymysql
from pymysql.constants import COMMAND

from applier.connection import error_code, error_message, send_command
from applier.errors import ApplierError, SourceError, SourceLost, Temporary
from applier.workload.model import ConnectionFactory

LOCK_WAIT_TIMEOUT, DEADLOCK, CHECKREAD = 1205, 1213, 1020
RETRIED = frozenset({LOCK_WAIT_TIMEOUT, DEADLOCK, CHECKREAD})
LOST = frozenset({0, 1053, 2006, 2013, 2014, 2055, 3169, 4031})
ATTEMPTS_MAX = 100
MULTI_STATEMENTS_ON = b"\x00\x00"  # the argument of COM_SET_OPTION


class Session:
    """A connection made by `connection_factory`, used by one thread at a time."""

    def __init__(self, connection_factory: ConnectionFactory, database: str | None = None) -> None:
        self._multi_statements = False
        self._connection = connection_factory()
        try:
            self._connection.autocommit(True)
            if database is not None:
                self.use(database)
        except BaseException:
            self.close()
            raise

    def use(self, database: str) -> None:
        """Makes it the default database. Raises SourceError when there is none of that name."""
        try:
            self._connection.select_db(database)
        except pymysql.err.MySQLError as error:
            raise as_source_error(error) from error

    def execute(self, statement: str) -> int:
        """Executes one statement and returns the number of rows it changed."""
        connection: Any = self._connection  # affected_rows() has no types
        self.execute_all([statement])
        return int(connection.affected_rows())

    def execute_all(
        self,
        statements: Sequence[str],
        answered: Callable[[int], None] = lambda _: None,
        retried: Callable[[], None] = lambda: None,
    ) -> None:
        """Executes transactions in one round trip; `answered` gets the index of each when it is done.

        A statement is a whole transaction. One that fails by a deadlock or a lock wait time-out is counted by
        `retried` and sent again, with those behind it: the server does not execute what follows an error.
        Raises SourceError, SourceLost, and Temporary after ATTEMPTS_MAX failures in a row.
        """
        if len(statements) > 1 and not self._multi_statements:
            self._allow_multi_statements()
        done = failures = 0
        while done < len(statements):
            try:
                self._connection.query(";".join(statements[done:]))
                while True:
                    answered(done)
                    done += 1
                    failures = 0
                    if done == len(statements):
                        break
                    self._connection.next_result()
            except (pymysql.err.MySQLError, OSError) as error:
                if error_code(error) not in RETRIED or isinstance(error, OSError):
                    raise as_source_error(error) from error
                failures += 1
                if failures == ATTEMPTS_MAX:
                    raise Temporary(attempts=failures, detail=error_message(error)) from error
                retried()

    def existing_tables(self, database: str, tables: Sequence[str]) -> list[str]:
        """Those of `tables` that the database has, in the given order."""
        with self._connection.cursor() as cursor:
            cursor.execute(
                "SELECT table_name FROM information_schema.tables WHERE table_schema = %s", (database,)
            )
            present = {row[0] for row in cursor.fetchall()}
        return [table for table in tables if table in present]

    def close(self) -> None:
        """Closes the connection; does nothing when it is closed or lost already."""
        if self._connection.open:
            self._connection.close()

    def _allow_multi_statements(self) -> None:
        """PyMySQL offers this at connect time only, and the connection is made by somebody else."""
        connection: Any = self._connection
        try:
            send_command(connection, COMMAND.COM_SET_OPTION, MULTI_STATEMENTS_ON)
            connection._read_packet()  # the answer is an EOF packet: not one that read_ok() would take
        except (pymysql.err.MySQLError, OSError) as error:
            raise as_source_error(error) from error
        self._multi_statements = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def as_source_error(error: Exception) -> ApplierError:
    """What an error of the driver means: the source is gone, or it refused."""
    code = error_code(error)
    if isinstance(error, OSError) or code in LOST:
        return SourceLost(attempts=1, detail=error_message(error))
    return SourceError(detail=f"{error_message(error)} (error {code})")
