"""Table maps that MySQL 9.7 wrote, with little and with all optional metadata, and damaged ones."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from applier.events.column_types import ColumnType, Layout, layout, read_metadata
from applier.events.table_map import TableMap, parse_table_map
from tests import every_type
from tests.decoding import batches_of

TABLE_MAP = 19
CONTENT = 25  # header and table id come before it


def contents(metadata: str) -> dict[str, bytes]:
    """Table map content by table name."""
    found = {}
    for batch in batches_of(every_type.log(metadata)):
        for kind, data in map(batch.event, range(batch.event_total)):
            if kind == TABLE_MAP:
                found[parse_table_map(data[CONTENT:]).table] = data[CONTENT:]
    return found


FULL = contents("full")
MINIMAL = contents("minimal")


def full(table: str) -> TableMap:
    return parse_table_map(FULL[table])


NUMBERS = {
    "TINYINT": ColumnType.TINY,
    "SMALLINT": ColumnType.SHORT,
    "MEDIUMINT": ColumnType.INT24,
    "INT": ColumnType.LONG,
    "BIGINT": ColumnType.LONGLONG,
    "YEAR": ColumnType.YEAR,
    "FLOAT": ColumnType.FLOAT,
    "DOUBLE": ColumnType.DOUBLE,
    "DECIMAL": ColumnType.NEWDECIMAL,
}
TYPES = NUMBERS | {
    "BIT": ColumnType.BIT,
    "DATE": ColumnType.DATE,
    "TIME": ColumnType.TIME2,
    "DATETIME": ColumnType.DATETIME2,
    "TIMESTAMP": ColumnType.TIMESTAMP2,
    "CHAR": ColumnType.STRING,
    "BINARY": ColumnType.STRING,
    "VARCHAR": ColumnType.VARCHAR,
    "VARBINARY": ColumnType.VARCHAR,
    "TINYBLOB": ColumnType.BLOB,
    "BLOB": ColumnType.BLOB,
    "MEDIUMBLOB": ColumnType.BLOB,
    "LONGBLOB": ColumnType.BLOB,
    "TINYTEXT": ColumnType.BLOB,
    "TEXT": ColumnType.BLOB,
    "MEDIUMTEXT": ColumnType.BLOB,
    "LONGTEXT": ColumnType.BLOB,
    "ENUM": ColumnType.ENUM,
    "SET": ColumnType.SET,
    "JSON": ColumnType.JSON,
    "GEOMETRY": ColumnType.GEOMETRY,
    "POINT": ColumnType.GEOMETRY,
}


def test_names_types_and_signs_are_those_of_the_create_statement() -> None:
    table = full("every_type")
    assert (table.schema, table.table, str(table)) == ("types", "every_type", "types.every_type")
    assert [column.name for column in table.columns] == ["id", *(name for name, _, _ in every_type.COLUMNS)]
    for column, (name, declared, _) in zip(table.columns[1:], every_type.COLUMNS, strict=True):
        word = re.split(r"\W", declared, maxsplit=1)[0]
        assert column.nullable, name
        assert column.type is TYPES[word], name
        assert column.unsigned is (("UNSIGNED" in declared or word == "YEAR") if word in NUMBERS else None), (
            name
        )


def test_collations_tell_binary_from_text_and_one_character_set_from_another() -> None:
    collations = {column.name: column.collation_id for column in full("every_type").columns}
    utf8mb4_0900_ai_ci, latin1_swedish_ci, ascii_bin, binary = 255, 8, 65, 63
    assert collations["ch"] == collations["txt"] == collations["e"] == utf8mb4_0900_ai_ci
    assert collations["ch_latin"] == collations["vc_latin"] == collations["medt"] == latin1_swedish_ci
    assert collations["vc_ascii"] == ascii_bin
    assert collations["bin"] == collations["vb"] == collations["longb"] == binary
    assert collations["i"] is None


def test_enum_and_set_values_geometry_types_and_dimensions() -> None:
    columns = {column.name: column for column in full("every_type").columns}
    assert columns["e"].values == (b"a", b"b'c", "ü".encode())
    assert columns["e_large"].values == tuple(b"v%d" % i for i in range(300))
    assert columns["s"].values == (b"x", b"y", b"z")
    assert columns["s_large"].values == tuple(b"m%d" % i for i in range(64))
    assert (columns["g"].geometry_type, columns["p"].geometry_type) == (0, 1)
    assert [column.dimensions for column in full("vectors").columns] == [None, 3, 16383, None]
    assert [column.unsigned for column in full("vectors").columns] == [False, None, None, True]
    assert [column.collation_id for column in full("vectors").columns] == [None, 63, 63, None]


def enum_table(values: int, name: bytes = b"t") -> bytes:
    """One ENUM column of values of a letter."""
    texts = b"\xfd" + values.to_bytes(3, "little") + b"\1a" * values
    named = b"\1d\0" + bytes([len(name)]) + name + b"\0"
    return bytes(2) + named + b"\1\xfe\2\xf7\1\xff" + b"\6\xfd" + len(texts).to_bytes(3, "little") + texts


def test_more_values_than_an_enum_can_have_are_refused() -> None:
    assert parse_table_map(enum_table(65_535)).columns[0].values == (b"a",) * 65_535
    with pytest.raises(ValueError, match="65536 values"):
        parse_table_map(enum_table(65_536))


def test_a_primary_key_of_more_parts_than_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="more parts than the 1 columns"):
        parse_table_map(bytes(2) + b"\1d\0\1t\0" + b"\1\3\0\xff" + b"\x08\2\0\0")


def test_table_maps_of_many_values_are_forgotten_sooner() -> None:
    """Each takes a megabyte or more: 4096 of them were remembered."""
    found = parse_table_map(enum_table(60_000))
    assert parse_table_map(enum_table(60_000)) is found
    for n in range(20):
        parse_table_map(enum_table(60_000, b"t%d" % n))
    assert parse_table_map(enum_table(60_000)) is not found


@pytest.mark.parametrize("names", ["", "04 06 01 76 01 61 01 62 0c 01 e0"], ids=["minimal", "full"])
def test_a_vector_has_a_place_among_the_collations(names: str) -> None:
    """t (v VECTOR(3), a VARCHAR(3) COLLATE latin1_bin, b VARCHAR(3) COLLATE utf8mb4_bin), as 9.7 writes it."""
    table = "01 00 01 64 00 01 74 00 03 f2 0f 0f 05 04 03 00 0c 00 07 03 03 3f 2f 2e 0d 01 03"
    found = parse_table_map(bytes.fromhex(table + names))
    assert [column.collation_id for column in found.columns] == [63, 47, 46]


def test_primary_keys_and_visibility() -> None:
    assert full("not_null").primary_key == ((1, 0), (0, 0))
    assert full("keyless").primary_key is None
    assert [column.visible for column in full("invisible").columns] == [True, True, False]


def test_a_primary_key_over_prefixes() -> None:
    table = full("prefixed")
    assert table.primary_key == ((1, 5), (0, 0))


def test_columns_of_functional_indexes_are_not_in_the_log() -> None:
    names = [column.name for column in full("computed").columns]
    assert names == ["id", "a", "twice", "thrice", "doc"]


def test_little_metadata_leaves_names_out_but_not_signs_and_collations() -> None:
    full_map, little = parse_table_map(FULL["every_type"]), parse_table_map(MINIMAL["every_type"])
    assert {column.name for column in little.columns} == {None}
    assert little.columns[2].label == "@3"
    assert little.primary_key is None
    for named, unnamed in zip(full_map.columns, little.columns, strict=True):
        assert (named.type, named.metadata, named.layout) == (unnamed.type, unnamed.metadata, unnamed.layout)
        assert named.unsigned == unnamed.unsigned
        if named.type not in (ColumnType.ENUM, ColumnType.SET):
            assert named.collation_id == unnamed.collation_id


def test_equal_contents_are_one_object() -> None:
    content = FULL["every_type"]
    assert parse_table_map(content) is parse_table_map(bytes(bytearray(content)))


def test_optional_metadata_of_an_unknown_kind_are_skipped() -> None:
    content = FULL["keyless"] + bytes([200, 3]) + b"new"
    assert parse_table_map(content).columns == full("keyless").columns


@pytest.mark.parametrize("table", sorted(FULL))
def test_every_cut_is_refused_or_ends_between_optional_metadata(table: str) -> None:
    content = FULL[table]
    if len(content) > 1000:
        content = MINIMAL[table]
    whole = 0
    for length in range(len(content)):
        try:
            cut = parse_table_map(content[:length])
        except ValueError:
            continue
        whole += 1
        assert len(cut.columns) == len(full(table).columns)
    assert whole <= 12


@settings(max_examples=1000)
@given(st.sampled_from(sorted(MINIMAL)), st.data())
def test_damaged_table_maps_are_refused_or_parsed(table: str, data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from([FULL, MINIMAL]))[table])
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        parsed = parse_table_map(bytes(content))
    except ValueError:
        return
    assert all(column.layout.fixed_bytes <= 256 for column in parsed.columns)


# --- lengths --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "block", "expected"),
    [
        pytest.param(254, b"\xfe\x14", (ColumnType.STRING, 20, Layout(1, 0)), id="CHAR(5)"),
        pytest.param(254, b"\xce\xfc", (ColumnType.STRING, 1020, Layout(2, 0)), id="CHAR(255) of four bytes"),
        pytest.param(254, b"\xee\xfd", (ColumnType.STRING, 509, Layout(2, 0)), id="a length above 255"),
        pytest.param(254, b"\xf7\x02", (ColumnType.ENUM, 2, Layout(0, 2)), id="ENUM hidden in STRING"),
        pytest.param(254, b"\xf8\x08", (ColumnType.SET, 8, Layout(0, 8)), id="SET hidden in STRING"),
        pytest.param(15, b"\xff\x00", (ColumnType.VARCHAR, 255, Layout(1, 0)), id="VARCHAR of 255 bytes"),
        pytest.param(15, b"\x00\x01", (ColumnType.VARCHAR, 256, Layout(2, 0)), id="VARCHAR of 256 bytes"),
        pytest.param(246, b"\x41\x1e", (ColumnType.NEWDECIMAL, 0x411E, Layout(0, 30)), id="DECIMAL(65,30)"),
        pytest.param(246, b"\x0a\x02", (ColumnType.NEWDECIMAL, 0x0A02, Layout(0, 5)), id="DECIMAL(10,2)"),
        pytest.param(16, b"\x01\x01", (ColumnType.BIT, 0x0101, Layout(0, 2)), id="BIT(9)"),
        pytest.param(16, b"\x00\x08", (ColumnType.BIT, 0x0800, Layout(0, 8)), id="BIT(64)"),
        pytest.param(19, b"\x06", (ColumnType.TIME2, 6, Layout(0, 6)), id="TIME(6)"),
        pytest.param(18, b"\x03", (ColumnType.DATETIME2, 3, Layout(0, 7)), id="DATETIME(3)"),
        pytest.param(17, b"\x00", (ColumnType.TIMESTAMP2, 0, Layout(0, 4)), id="TIMESTAMP"),
        pytest.param(242, b"\x04", (ColumnType.VECTOR, 4, Layout(4, 0)), id="VECTOR"),
        pytest.param(20, b"\x08", (ColumnType.TYPED_ARRAY, 8, Layout(4, 0)), id="array of BIGINT"),
        pytest.param(
            20, b"\x0f\xff\x00\x00", (ColumnType.TYPED_ARRAY, 0xFF0F, Layout(4, 0)), id="array of VARCHAR"
        ),
        pytest.param(
            20, b"\x12\x06", (ColumnType.TYPED_ARRAY, 0x0612, Layout(4, 0)), id="array of DATETIME(6)"
        ),
    ],
)
def test_metadata_and_length(code: int, block: bytes, expected: tuple[ColumnType, int, Layout]) -> None:
    kind, metadata, end = read_metadata(code, block + b"rest", 0)
    assert (kind, metadata, layout(kind, metadata)) == expected
    assert end == len(block)


@pytest.mark.parametrize(
    ("kind", "metadata"),
    [
        (ColumnType.DECIMAL, 0),
        (ColumnType.BLOB, 0),
        (ColumnType.BLOB, 5),
        (ColumnType.TIME2, 7),
        (ColumnType.NEWDECIMAL, 0x0203),
        (ColumnType.NEWDECIMAL, 0x0000),
        (ColumnType.FLOAT, 8),
    ],
)
def test_metadata_that_no_server_writes_are_refused(kind: ColumnType, metadata: int) -> None:
    with pytest.raises(ValueError, match="column"):
        layout(kind, metadata)


def test_table_maps_of_one_table_differ_only_in_their_id() -> None:
    seen: dict[str, set[bytes]] = {}
    for batch in batches_of(every_type.log("full")):
        for (kind, data), _ in pairwise(map(batch.event, range(batch.event_total))):
            if kind == TABLE_MAP:
                seen.setdefault(parse_table_map(data[CONTENT:]).table, set()).add(data[CONTENT:])
    assert {len(contents) for contents in seen.values()} == {1}
