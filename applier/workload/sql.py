"""The SQL that several workloads share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

ROWS_PER_INSERT = 500  # a transaction of 30 to 300 KB


def inserts(table: str, rows: Iterable[str], rows_per_insert: int = ROWS_PER_INSERT) -> Iterator[str]:
    """Multi-row INSERT statements for rows that are given as `(value,value,…)`, all columns in order."""
    rows = iter(rows)
    while chunk := list(islice(rows, rows_per_insert)):
        yield f"INSERT INTO {table} VALUES " + ",".join(chunk)


def transaction(
    name: str, parameters: str, body: str, declarations: str = "", *, read_committed: bool = False
) -> str:
    """CREATE PROCEDURE for a procedure that is one transaction: it commits, or leaves nothing behind.

    `read_committed`: without gap locks; else at the session's isolation level. The exit handler is needed
    because a lock wait time-out undoes only its statement. The invoker's rights make the procedure work on a
    replica that lacks the account which defined it.
    """
    isolation = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED;\n" if read_committed else ""
    return f"""CREATE PROCEDURE {name}({parameters})
SQL SECURITY INVOKER
BEGIN
{declarations}
DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN ROLLBACK; RESIGNAL; END;
{isolation}START TRANSACTION;
{body}
COMMIT;
END"""
