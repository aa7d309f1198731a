"""The server as judge: of decoded values, and of the packets that bring a target to the source's state."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from applier.address import ServerAddress
from applier.events.batch import Batch
from applier.events.column_types import ColumnType
from applier.events.statement import rows_packets, transaction_packet, transaction_packets
from applier.events.table_map import Column
from applier.events.transaction import TransactionFlag
from applier.events.values import RowKind
from applier.sandbox import Server
from applier.target.session import Session
from tests import every_type
from tests.decoding import batches_of, changes_of, decoded

Slices = list[tuple[Batch, int, int]]


def run_on(server: Server, statements: Iterable[str]) -> None:
    with server.connect() as connection, connection.cursor() as cursor:
        every_type.run(cursor, list(statements))


def log_of(source: Server, statements: Iterable[str]) -> bytes:
    """What the source logs for these statements."""
    source.execute("FLUSH BINARY LOGS")
    run_on(source, statements)
    source.execute("FLUSH BINARY LOGS")
    files = [row[0] for row in source.execute("SHOW BINARY LOGS")]
    return (source.datadir / files[-2]).read_bytes()


# --- values ---------------------------------------------------------------------------------------------


def expression(column: Column) -> str:
    """How to ask the server for the same value that we decode."""
    kind = column.type
    if kind in (ColumnType.BIT, ColumnType.YEAR):
        return f"{column.name} + 0"
    if kind is ColumnType.FLOAT:
        return f"CAST({column.name} AS DOUBLE)"
    if kind in (
        ColumnType.DATE,
        ColumnType.TIME2,
        ColumnType.DATETIME2,
        ColumnType.TIMESTAMP2,
        ColumnType.JSON,
    ):
        return f"CAST({column.name} AS CHAR)"
    if kind in (ColumnType.GEOMETRY, ColumnType.VECTOR):
        return f"HEX({column.name})"
    return str(column.name)


def comparable(column: Column, value: Any) -> Any:
    """Our value in the form that `expression` asks for."""
    if column.type is ColumnType.GEOMETRY and value is not None:
        return value.hex().upper()
    if column.type is ColumnType.VECTOR and value is not None:
        return struct.pack(f"<{len(value)}f", *value).hex().upper()
    if column.collation_id == 63 and column.type is ColumnType.STRING and value is not None:
        return value.ljust(8, b"\0")  # BINARY(8): the log leaves trailing zeros out
    return value


def test_decoded_values_are_what_the_source_selects(source: Server) -> None:
    source.execute("SET GLOBAL binlog_row_metadata = 'FULL'")
    run_on(source, every_type.definitions())
    inserts = [
        statement for statement in every_type.changes() if not statement.startswith("DELETE FROM every_type")
    ]
    first_other = next(i for i, s in enumerate(inserts) if s.startswith("INSERT INTO not_null"))
    vectors = [s for s in inserts if "INTO vectors" in s][:1]
    changes = changes_of(decoded(batches_of(log_of(source, inserts[:first_other] + vectors))))
    last = {(c.table_map.table, c.after["id"]): c for c in changes if c.after is not None}
    assert len(last) == 7
    for (table, key), change in last.items():
        columns = change.table_map.columns
        selected = select(
            source, f"SELECT {', '.join(map(expression, columns))} FROM types.{table} WHERE id = {key}"
        )
        assert change.after is not None
        for column, theirs in zip(columns, selected, strict=True):
            ours = comparable(column, change.after[column.label])
            if column.type is ColumnType.JSON and theirs is not None:
                theirs_parsed = json.loads(theirs)
                assert ours == theirs_parsed or json.loads(json.dumps(ours)) == unquoted(theirs_parsed), (
                    column
                )
            else:
                assert ours == theirs, column


def unquoted(document: Any) -> Any:
    """Decimals are numbers in the server's text, and text in ours."""
    if isinstance(document, list):
        return [f"{item:.3f}" if isinstance(item, float) else unquoted(item) for item in document]
    return document


def select(server: Server, sql: str) -> Any:
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET time_zone = '+00:00'")
        cursor.execute(sql)
        return cursor.fetchone()


# --- packets --------------------------------------------------------------------------------------------


@pytest.fixture
def session(target: Server) -> Iterator[Session]:
    opened = Session(ServerAddress(host=target.host, port=target.port, user="root"))
    opened.open()
    yield opened
    opened.close()


def prepare(source: Server, target: Server, definitions: Iterable[str]) -> None:
    """The same tables on both; the target does not know the source's GTIDs of them."""
    run_on(source, definitions)
    run_on(target, definitions)
    target.execute("RESET BINARY LOGS AND GTIDS")


# With a multi-valued index CHECKSUM TABLE gives another number each time, on one and the same server.
WITHOUT_CHECKSUM = {"computed"}


def assert_same(source: Server, target: Server) -> None:
    listing = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'types'"
    tables = {row[0] for row in source.execute(listing)}
    assert tables
    checksum = "CHECKSUM TABLE " + ", ".join(f"types.{table}" for table in sorted(tables - WITHOUT_CHECKSUM))
    assert target.execute(checksum) == source.execute(checksum)
    for table in tables & WITHOUT_CHECKSUM:
        rows = f"SELECT * FROM types.{table} ORDER BY id"
        assert target.execute(rows) == source.execute(rows)


def each_transaction(batches: Iterable[Batch]) -> Iterator[tuple[Batch, int]]:
    for batch in batches:
        for i in range(len(batch)):
            assert TransactionFlag.ROWS in batch.transaction(i).flags
            yield batch, i


def test_packets_bring_the_target_to_the_same_state_with_the_same_gtids(
    source: Server, target: Server, session: Session
) -> None:
    prepare(source, target, every_type.definitions())
    for batch, i in each_transaction(batches_of(log_of(source, every_type.changes()))):
        session.use_format_description(batch.format_description)
        packet, owed = transaction_packet(batch, i, commit=True)
        session.execute(packet, owed)
    assert_same(source, target)
    missing = source.execute("SELECT GTID_SUBTRACT(@@gtid_executed, %s)", [gtid_executed(target)])[0][0]
    created = len(every_type.definitions())
    assert missing.endswith(f":1-{created}"), "only the statements that made the tables are missing"


def gtid_executed(server: Server) -> str:
    return str(server.execute("SELECT @@gtid_executed")[0][0]).replace("\n", "")


def test_many_transactions_in_one_statement_bring_the_target_to_the_same_state(
    source: Server, target: Server, session: Session
) -> None:
    prepare(source, target, every_type.definitions())
    batches = batches_of(log_of(source, every_type.changes()))
    session.use_format_description(batches[0].format_description)
    ((packet, owed),) = rows_packets([(b, 0, len(b)) for b in batches], b"BEGIN", 1, b"COMMIT", 1)
    session.execute(packet, owed)
    assert_same(source, target)


def many_rows() -> tuple[list[str], list[str]]:
    """Definitions, and one transaction of three statements on two tables, some 8,000 rows."""
    definitions = [
        "CREATE DATABASE types",
        "CREATE TABLE types.a (id INT PRIMARY KEY, n INT, text VARCHAR(100))",
        "CREATE TABLE types.b (id INT PRIMARY KEY, n INT, UNIQUE (n))",
    ]
    numbers = "WITH RECURSIVE s (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 3000) SELECT"
    return definitions, [
        "SET SESSION cte_max_recursion_depth = 10000",
        "BEGIN",
        f"INSERT INTO types.a {numbers} i, i, REPEAT('x', i % 100) FROM s",
        f"INSERT INTO types.b {numbers} i, -i FROM s",
        "UPDATE types.a, types.b SET a.n = a.n + 1, b.n = b.n - 10000 WHERE a.id = b.id",
        "COMMIT",
    ]


@pytest.mark.parametrize("packet_bytes_max", [20_000, 200_000])
def test_a_transaction_cut_into_packets_brings_the_target_to_the_same_state(
    source: Server, target: Server, session: Session, packet_bytes_max: int
) -> None:
    definitions, changes = many_rows()
    prepare(source, target, definitions)
    ((batch, i),) = each_transaction(batches_of(log_of(source, changes)))
    session.use_format_description(batch.format_description)
    packets = transaction_packets(batch, i, commit=True, packet_bytes_max=packet_bytes_max)
    assert len(packets) > 2
    for packet, owed in packets:
        assert len(packet) <= packet_bytes_max
        session.execute(packet, owed)
    assert_same(source, target)
    subset = target.execute("SELECT GTID_SUBSET(%s, @@gtid_executed)", [batch.transaction(i).gtid])
    assert subset == ((1,),)


def test_parts_of_a_transaction_bring_the_target_to_the_same_state(
    source: Server, target: Server, session: Session
) -> None:
    definitions, changes = many_rows()
    prepare(source, target, definitions)
    parts = list(
        each_transaction(batches_of(log_of(source, changes), part_bytes_max=30_000, batch_bytes_max=30_000))
    )
    assert len(parts) > 3
    for batch, i in parts:
        flags = batch.transaction(i).flags
        is_first, is_last = TransactionFlag.FIRST_PART in flags, TransactionFlag.LAST_PART in flags
        session.use_format_description(batch.format_description)
        session.execute(*transaction_packet(batch, i, gtid=is_first, begin=is_first, commit=is_last))
    assert_same(source, target)


def test_a_packet_beyond_16_megabytes_arrives(source: Server, target: Server, session: Session) -> None:
    prepare(
        source, target, ["CREATE DATABASE types", "CREATE TABLE types.a (id INT PRIMARY KEY, b LONGBLOB)"]
    )
    inserts = [
        f"INSERT INTO types.a VALUES ({i}, REPEAT(CHAR({i} + 64), {i * 1_500_000}))" for i in range(1, 6)
    ]
    log = log_of(source, ["BEGIN", *inserts, "COMMIT"])
    ((batch, i),) = each_transaction(batches_of(log, part_bytes_max=1 << 30, batch_bytes_max=1 << 30))
    session.use_format_description(batch.format_description)
    packet, owed = transaction_packet(batch, i, commit=True)
    assert len(packet) > 0xFFFFFF
    session.execute(packet, owed)
    assert_same(source, target)


def test_the_log_of_the_target_holds_the_same_rows(source: Server, target: Server, session: Session) -> None:
    target.execute("SET GLOBAL binlog_row_image = 'FULL'")
    prepare(source, target, every_type.definitions())
    log = log_of(source, [s for s in every_type.changes() if "SESSION binlog" not in s])
    target.execute("FLUSH BINARY LOGS")
    for batch, i in each_transaction(batches_of(log)):
        session.use_format_description(batch.format_description)
        session.execute(*transaction_packet(batch, i, commit=True))
    target.execute("FLUSH BINARY LOGS")
    files = [row[0] for row in target.execute("SHOW BINARY LOGS")]
    applied = (target.datadir / files[-2]).read_bytes()
    theirs = [(c.kind, str(c.table_map), c.before, c.after) for c in changes_of(decoded(batches_of(log)))]
    ours = [(c.kind, str(c.table_map), c.before, c.after) for c in changes_of(decoded(batches_of(applied)))]
    assert ours == theirs
    assert {kind for kind, *_ in ours} == set(RowKind)
