"""Values for messages: whatever the bytes, there is something to show."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from applier.events.json_value import decode_json, decode_json_diffs
from applier.events.table_map import Column
from applier.events.values import RowChange, RowKind, decode_value, image_text
from tests import every_type
from tests.decoding import batches_of, changes_of, decoded

CHANGES = changes_of(decoded(batches_of(every_type.log("full"))))
COLUMNS = [column for change in CHANGES[:1] for column in change.table_map.columns]


@settings(max_examples=2000)
@given(st.sampled_from(COLUMNS), st.binary(max_size=40))
def test_any_bytes_of_any_type_give_a_value(column: Column, data: bytes) -> None:
    assert repr(decode_value(column, data))


@settings(max_examples=1000)
@given(st.integers(0, 15), st.binary(max_size=60))
def test_any_bytes_are_json_or_refused(kind: int, data: bytes) -> None:
    for decode in (decode_json, decode_json_diffs):
        try:
            decode(bytes([kind]) + data)
        except ValueError as error:
            assert str(error)  # noqa: PT017 (both outcomes are right)


def test_a_document_that_contains_itself_is_refused() -> None:
    small_array, here = 2, 0
    with pytest.raises(ValueError, match="contains itself"):
        decode_json(
            bytes([small_array]) + struct.pack("<HHBHBH", 2, 10, small_array, here, small_array, here)
        )


def test_a_message_names_the_table_and_shows_both_images_shortened() -> None:
    change = next(c for c in CHANGES if c.kind is RowKind.UPDATE and c.table_map.table == "not_null")
    text = str(change)
    assert text.startswith("UPDATE types.not_null, before (id=")
    assert "after (id=" in text
    long = image_text({"note": "n" * 5000})
    assert len(long) < 200
    assert long.endswith("… (5002 characters))")


def test_columns_that_the_log_left_out_are_not_shown() -> None:
    inserted: RowChange = next(c for c in CHANGES if c.table_map.table == "keyless_defaults")
    assert str(inserted) == "INSERT types.keyless_defaults, after ()"
