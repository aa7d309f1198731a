"""Where the source's log ends now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pymysql

from applier.connection import Connection, ServerAddress, error_code, error_message
from applier.errors import SourceError
from applier.events.gtid import GtidSet
from applier.source.refusal import source_error
from applier.source.registration import server_version


@dataclass(frozen=True, slots=True)
class SourcePosition:
    """The end of the source's log: a file, the next byte there, and all GTIDs up to it."""

    file: str
    position: int
    executed: GtidSet


def source_position(source: Connection[Any], address: ServerAddress) -> SourcePosition:
    """Raises SourceError when the source has no binary log, PreflightFailed when we may not ask, LinkLost."""
    try:
        with source.cursor() as cursor:
            cursor.execute("SELECT VERSION()")
            row = cursor.fetchone()
            assert row is not None
            # 8.2 renamed the statement, and 8.4 dropped the old name.
            renamed = server_version(str(row[0])) >= (8, 2)
            cursor.execute("SHOW BINARY LOG STATUS" if renamed else "SHOW MASTER STATUS")
            status = cursor.fetchone()
    except pymysql.err.MySQLError as error:
        raise source_error(address, error_code(error), error_message(error)) from error
    if status is None:
        raise SourceError(detail=f"{address.place} writes no binary log: start it with log_bin on")
    return SourcePosition(str(status[0]), int(status[1]), GtidSet.parse(str(status[4])))
