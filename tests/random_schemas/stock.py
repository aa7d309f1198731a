"""The server's own replica as the arbiter: what it cannot apply either is wrong in the log, not in our replay of it.

Seen with MySQL 9.7: REPLACE of a row that others refer to, and a cascade in a circle of rows, are logged so that a
replica fails; a primary key over a prefix of a text lets InnoDB find duplicates where there are none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from applier.sandbox import Server
from tests.random_schemas.comparison import assert_same_rows
from tests.waiting import wait_until

FAILURES = """
SELECT last_error_number, last_error_message, applying_transaction
FROM performance_schema.replication_applier_status_by_worker WHERE last_error_number <> 0
"""


@dataclass(frozen=True, slots=True)
class StockFailure:
    """`code` and `number` (of the GTID): 0 when all was applied, and the rows are not the source's all the same.

    `message`: then what `assert_same_rows` says, else the server's words."""

    code: int
    number: int
    message: str

    def explains(self, error: str, group: int) -> bool:
        """Whether an error of ours is about the same transaction, or the group of up to `group` that begins there; or
        our rows differ from the source's in just the same way."""
        if not self.code:
            return self.message in error
        numbers = (int(number) for number in re.findall(r"[:'](\d+)[ :]", error))
        return str(self.code) in error and any(0 <= self.number - number < group for number in numbers)


def stock_failure(source: Server, target: Server) -> StockFailure | None:
    """How a replica with one worker fails at the source's log; None when it has the source's rows in the end.

    The target must be empty, and stays a replica that has stopped."""
    target.execute("SET GLOBAL replica_parallel_workers = 1")
    target.execute(
        "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = %s, SOURCE_USER = 'root',"
        " SOURCE_AUTO_POSITION = 1, GET_SOURCE_PUBLIC_KEY = 1",
        (source.port,),
    )
    target.execute("START REPLICA")
    wanted = source.execute("SELECT @@GLOBAL.gtid_executed")[0][0]

    def ended() -> bool:
        return bool(
            target.execute(FAILURES)
            or target.execute("SELECT GTID_SUBSET(%s, @@GLOBAL.gtid_executed)", (wanted,))[0][0]
        )

    wait_until(ended, 60.0, "the stock replica has applied everything, or failed")
    failures = target.execute(FAILURES)
    target.execute("STOP REPLICA")
    if not failures:
        try:
            assert_same_rows(source, target)
        except AssertionError as error:
            return StockFailure(0, 0, str(error))
        return None
    code, message, gtid = failures[0]
    return StockFailure(int(code), int(gtid.rpartition(":")[2]), message)
