"""What statements touch: run on a source, its log decoded with the keys read from it, dependencies by the index."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from applier.address import parse_url
from applier.connection import sqlalchemy_engine
from applier.events.rows import row_touches
from applier.events.table_map import TableMap
from applier.events.transaction import TransactionFlag
from applier.sandbox import Server
from tests.decoding import batches_of, decoded
from writeset.buckets import BucketIndex
from writeset.hashing import TablePlan
from writeset.keys import KeyReader

Touches = list[tuple[int, int]]


def read_plan(server: Server, schema: str, table: str, **options: bool) -> TablePlan | None:
    engine = sqlalchemy_engine(parse_url(server.url, "target", prompt=False))
    try:
        with engine.connect() as connection:
            return KeyReader(connection, **options).read_table(schema, table)
    finally:
        engine.dispose()


def log_of(source: Server, statements: Iterable[str]) -> bytes:
    """What the source logs for these statements, each committed by itself unless they say otherwise."""
    source.execute("FLUSH BINARY LOGS")
    with source.connect(autocommit=True) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    source.execute("FLUSH BINARY LOGS")
    files = [row[0] for row in source.execute("SHOW BINARY LOGS")]
    log: bytes = (source.datadir / files[-2]).read_bytes()
    return log


@dataclass
class Transaction:
    """touches is None when the transaction must be a barrier."""

    touches: Touches | None


def transactions_of(
    log: bytes, server: Server, *, like: tuple[str, str] | None = None, **options: bool
) -> list[Transaction]:
    """The transactions of a log with what they touch by the server's keys; by those of the table `like` if given."""

    def plan(table_map: TableMap, sequence_number: int) -> TablePlan:
        schema, table = like or (table_map.schema, table_map.table)
        found = read_plan(server, schema, table, **options)
        assert found is not None
        assert found.column_total == len(table_map.columns), "the plan counts other columns than the log"
        return found

    found: list[Transaction] = []
    for batch in decoded(batches_of(log), plan):
        for index in range(len(batch)):
            of = batch.transaction(index)
            if not of.row_count:
                continue
            rows = range(of.row_first, of.row_first + of.row_count)
            barrier = of.flags & TransactionFlag.KEYS_UNKNOWN
            touches = [touch for row in rows for touch in row_touches(batch, row)]
            found.append(Transaction(None if barrier else touches))
    return found


def last_committed(transactions: Sequence[Transaction]) -> list[int]:
    """By the bucket index alone; transactions are numbered from 1."""
    index = BucketIndex(bucket_bits=8)
    return [
        index.assign(transaction.touches or [], number, barrier=transaction.touches is None)
        for number, transaction in enumerate(transactions, start=1)
    ]


def conflict(one: Transaction, other: Transaction) -> bool:
    return last_committed([one, other])[1] == 1


def dependencies(source: Server, statements: Sequence[str], **options: bool) -> list[int]:
    """last_committed of each transaction that the statements make on the source."""
    return last_committed(transactions_of(log_of(source, statements), source, like=None, **options))
