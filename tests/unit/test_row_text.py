"""Result rows → LOAD DATA lines or VALUES, however the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from applier.migrate.row_text import RowText

PACKET_MAX = 0xFFFFFF
END = b"\xfe\x00\x00\x02\x00"
ESCAPED = {b"\\": b"\\\\", b"\0": b"\\0", b"\t": b"\\t", b"\n": b"\\n", b"'": b"\\'"}

Row = list[bytes | None]


def length_encoded(value: bytes | None) -> bytes:
    if value is None:
        return b"\xfb"
    count = len(value)
    if count < 251:
        return bytes([count]) + value
    if count < 1 << 16:
        return b"\xfc" + count.to_bytes(2, "little") + value
    if count < 1 << 24:
        return b"\xfd" + count.to_bytes(3, "little") + value
    return b"\xfe" + count.to_bytes(8, "little") + value


def packet(payload: bytes) -> bytes:
    out = b""
    while True:
        part, payload = payload[:PACKET_MAX], payload[PACKET_MAX:]
        out += len(part).to_bytes(3, "little") + b"\x07" + part
        if len(part) < PACKET_MAX:
            return out


def wire(rows: list[Row], end: bytes = END) -> bytes:
    return b"".join(packet(b"".join(map(length_encoded, row))) for row in rows) + packet(end)


def escaped(value: bytes) -> bytes:
    for byte, text in ESCAPED.items():  # the backslash first
        value = value.replace(byte, text)
    return value


def line(row: Row) -> bytes:
    return b"\t".join(b"\\N" if value is None else escaped(value) for value in row) + b"\n"


def lines_of(text: RowText, data: bytes, step: int) -> bytes:
    out = b""
    for at in range(0, len(data), step):
        piece = data[at : at + step]
        text.feed(piece, len(piece))
        out += text.take_text()
    return out


VALUES = st.none() | st.binary(max_size=300)


@given(rows=st.lists(st.lists(VALUES, min_size=3, max_size=3), max_size=8), step=st.integers(1, 64))
def test_rows_become_lines_wherever_they_are_cut(rows: list[Row], step: int) -> None:
    text = RowText([b""] * 3, [b""] * 3)
    assert lines_of(text, wire(rows), step) == b"".join(map(line, rows))
    assert (text.rows, text.ended, text.error) == (len(rows), True, None)


@pytest.mark.parametrize("length", [PACKET_MAX - 5, PACKET_MAX - 4, PACKET_MAX, 2 * PACKET_MAX + 17])
def test_a_row_goes_on_in_the_next_packet(length: int) -> None:
    rows: list[Row] = [[b"v" * length, b"a"], [None, b"b"]]
    text = RowText([b""] * 2, [b""] * 2)
    assert lines_of(text, wire(rows), 1 << 20) == b"".join(map(line, rows))
    assert text.ended


def test_values_of_an_insert() -> None:
    text = RowText([b"", b"_binary'"], [b"", b"'"], between=b",", null=b"NULL", row_begin=b"(", row_end=b"),")
    data = wire([[b"1", b"it's"], [None, None], [b"2", b""]])
    assert lines_of(text, data, 5) == b"(1,_binary'it\\'s'),(NULL,NULL),(2,_binary''),"


def test_packets_to_send_hold_whole_rows_and_their_number() -> None:
    text = RowText([b""], [b""])
    data = wire([[b"abc"], [b"def"]])
    text.feed(data, 4 + 4 + 4 + 2)  # the second row is cut
    assert text.take(9) == b"\x04\x00\x00\x09abc\n"
    assert text.take(10) == b""
    text.feed(data[14:], len(data) - 14)
    assert text.take(10) == b"\x04\x00\x00\x0adef\n"


def test_an_error_of_the_source_is_kept() -> None:
    text = RowText([b""], [b""])
    lines_of(text, wire([[b"1"]], end=b"\xff\x84\x05#HY000Table definition has changed"), 3)
    assert text.ended
    assert text.error == b"\xff\x84\x05#HY000Table definition has changed"


def test_more_bytes_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="5 bytes of 3"):
        RowText([b""], [b""]).feed(b"abc", 5)
