"""The server as judge of narrow row images: every type, NULLs, large values, and a target that logs them itself."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
from pymysql.cursors import Cursor

from applier.address import ServerAddress
from applier.events.net_changes import fold
from applier.events.net_events import folded_packets
from applier.events.rows import row_cells
from applier.sandbox import Server
from applier.target.session import Session
from tests.live.test_net_changes_live import logged, scheduled

COLUMNS = {
    "t1": ("TINYINT UNSIGNED", ("0", "255", "NULL")),
    "b": ("BIT(13)", ("0", "8191", "NULL")),
    "d": ("DECIMAL(30,10)", ("0", "-12345678901234567890.0123456789", "NULL")),
    "f": ("FLOAT", ("0e0", "-0e0", "3.4e38", "1e-40")),
    "e": ("DOUBLE", ("0e0", "-0e0", "1.7976931348623157e308", "NULL")),
    "c": ("CHAR(10)", ("''", "'ä€😀'", "NULL")),
    "v": ("VARCHAR(300) CHARACTER SET latin1", ("''", "'x'", "REPEAT('y', 300)", "NULL")),
    "x": ("LONGTEXT", ("''", "REPEAT('é', 30000)", "'short'", "NULL")),
    "y": ("BLOB", ("x''", "REPEAT(x'00ff', 9000)", "NULL")),
    "bi": ("BINARY(5)", ("x''", "x'00'", "x'6162630000'")),
    "en": ("ENUM('a','b','c')", ("'a'", "'c'", "NULL")),
    "se": ("SET('a','b','c')", ("''", "'a,c'", "NULL")),
    "ts": ("TIMESTAMP(6) NULL", ("'2024-02-29 01:02:03.000001'", "NULL")),
    "dt": ("DATETIME(3)", ("'0000-00-00 00:00:00'", "'9999-12-31 23:59:59.999'", "NULL")),
    "ti": ("TIME(2)", ("'-838:59:59'", "'00:00:00.01'", "NULL")),
    "ye": ("YEAR", ("2155", "0", "NULL")),
    "j": ("JSON", ("'{}'", "'[1, null, \"x\"]'", "NULL")),
    "g": ("GEOMETRY", ("ST_GeomFromText('POINT(1 2)')", "ST_GeomFromText('LINESTRING(0 0,1 1)')", "NULL")),
    "ve": ("VECTOR(4)", ("STRING_TO_VECTOR('[1,2,3,4]')", "STRING_TO_VECTOR('[0]')", "NULL")),
    "st": ("TIMESTAMP(3) NULL ON UPDATE CURRENT_TIMESTAMP(3)", ("NULL", "'2024-01-01 00:00:00.5'")),
}
KEYS = 12


def table(columns: list[str]) -> str:
    definitions = ", ".join(f"{name} {COLUMNS[name][0]}" for name in columns)
    return (
        f"CREATE TABLE d.t (w SMALLINT, {definitions}, id BIGINT UNSIGNED, PRIMARY KEY (id, w), KEY (c),"
        " KEY (v(5), en))"
    )


@pytest.fixture
def session(target: Server) -> Iterator[Session]:
    """Logs what it does, as with GTIDs of the target's own."""
    opened = Session(ServerAddress(host=target.host, port=target.port, user="root"))
    opened.open()
    yield opened
    opened.close()


def write_some(cursor: Cursor, columns: list[str], seed: int) -> None:
    random = Random(seed)

    def value(column: str) -> str:
        return random.choice(COLUMNS[column][1])

    for _ in range(400):
        key = f"id = {random.randrange(KEYS)} AND w = {random.randrange(2)}"
        changed = random.sample(columns, random.choice((1, 1, 2, 5)))
        kind = random.random()
        if kind < 0.75:
            assignments = ", ".join(f"{column} = {value(column)}" for column in changed)
            cursor.execute(f"UPDATE IGNORE d.t SET {assignments} WHERE {key}")
        elif kind < 0.85:
            cursor.execute(f"DELETE FROM d.t WHERE {key}")
        else:
            values = ", ".join(value(column) for column in columns)
            cursor.execute(
                f"INSERT IGNORE INTO d.t VALUES ({random.randrange(2)}, {values}, {random.randrange(KEYS)})"
            )
        cursor.execute("COMMIT")


@pytest.mark.parametrize("divided", [False, True], ids=["whole", "divided"])
def test_values_of_every_type_arrive_and_the_target_logs_whole_images(
    source: Server, target: Server, session: Session, divided: bool
) -> None:
    columns = [name for name in COLUMNS if not (divided and name == "g")]  # no geometry in partitions
    for server in (source, target):
        server.execute("CREATE DATABASE d")
        server.execute(table(columns) + (" PARTITION BY HASH (w) PARTITIONS 2" if divided else ""))
    batches = scheduled(logged(source, lambda cursor: write_some(cursor, columns, seed=1)), target)
    target.execute("FLUSH BINARY LOGS")
    singles = [(batch, i, i + 1) for batch in batches for i in range(len(batch))]
    folded = 0
    for at in range(0, len(singles), 40):
        group = fold(singles[at : at + 40])
        assert group.tables_unfolded == {}
        folded += group.rows_in - group.rows_out
        session.use_format_description(batches[0].format_description)
        for packet, owed in folded_packets(group, b"BEGIN", 1, b"COMMIT", 1):
            session.execute(packet, owed)
    assert folded > 50
    assert int(source.execute("SELECT COUNT(*) FROM d.t")[0][0]) > 5
    assert target.execute("CHECKSUM TABLE d.t") == source.execute("CHECKSUM TABLE d.t")
    assert_images_are_whole(target)


def assert_images_are_whole(target: Server) -> None:
    """A consumer of the target's log finds what it would find in the source's."""
    target.execute("FLUSH BINARY LOGS")
    file = target.execute("SHOW BINARY LOGS")[-2][0]
    rows = 0
    for batch in scheduled((target.datadir / str(file)).read_bytes(), target):
        for i in range(batch.row_total):
            _, table_map, before, after = row_cells(batch, i)
            for image in (before, after):
                assert image is None or all(state != 2 for state, _ in image), table_map
            rows += 1
    assert rows > 50
