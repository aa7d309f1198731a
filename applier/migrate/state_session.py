"""The session on the target that a migration's state is read and written in, safe for several threads."""

from __future__ import annotations

import contextlib
import threading
from types import TracebackType
from typing import Any, Final, Self

import pymysql

from applier.address import ServerAddress
from applier.connection import Connection, connect, connection_error
from applier.errors import LinkLost, PreflightFailed
from applier.verify.definitions import MIGRATION_SCHEMA as SCHEMA

LINK_CODES: Final = frozenset({0, 2006, 2013, 2014, 1053, 3169, 4031})


class StateSession:
    """Opened by `with`. Raises what `connect` raises, LinkLost when the connection breaks, PreflightFailed for what the
    server refuses."""

    def __init__(self, target: ServerAddress) -> None:
        self.target = target
        self._connection: Connection[Any] | None = None
        self._lock_session = threading.RLock()

    def __enter__(self) -> Self:
        self._connection = connect(self.target, read_timeout_seconds=60.0, write_timeout_seconds=60.0)
        try:
            self._run("SET SESSION wait_timeout = 31536000, time_zone = '+00:00'")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """The lock, if held, is given up with it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(pymysql.err.MySQLError, OSError):
                connection.close()

    def _rows_if_there(self, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
        """Nothing when our schema is not there, or is being made: `chunks` is the last of its tables."""
        if not self._rows(
            "SELECT 1 FROM information_schema.tables WHERE table_schema = %s AND table_name = 'chunks'",
            SCHEMA,
        ):
            return []
        return self._rows(statement, *arguments)

    def _rows(self, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
        return self._execute(statement, arguments)[1]

    def _run(self, statement: str, *arguments: object) -> int:
        """Rows changed."""
        return self._execute(statement, arguments)[0]

    def _execute(self, statement: str, arguments: tuple[object, ...]) -> tuple[int, list[tuple[Any, ...]]]:
        with self._lock_session:
            connection = self._connection
            if connection is None:
                raise LinkLost(role="target", detail="the connection of the migration's state is closed")
            try:
                with connection.cursor() as cursor:
                    count = cursor.execute(statement, arguments or None)
                    return count, list(cursor.fetchall())
            except (pymysql.err.InterfaceError, OSError) as error:
                raise LinkLost(role="target", detail=str(error)) from error
            except pymysql.err.MySQLError as error:
                if error.args and error.args[0] in LINK_CODES:
                    raise LinkLost(role="target", detail=str(error)) from error
                known = connection_error(self.target, error)
                raise PreflightFailed(detail=f"the state of the migration cannot be kept: {known}") from error
