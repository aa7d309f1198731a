"""What a row touches: forms of values, kinds of rows, minimal images."""

from __future__ import annotations

import random
import struct
from collections import Counter
from types import EllipsisType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from writeset.definitions import Access, Form, KeyColumnDefinition, KeyDefinition, RowKind, TableDefinition
from writeset.hashing import TablePlan, hash_name, hash_of

EXCLUSIVE, SHARED, OVER_SHARED = Access.EXCLUSIVE, Access.SHARED, Access.EXCLUSIVE_OVER_SHARED
INSERT, UPDATE, DELETE = RowKind.INSERT, RowKind.UPDATE, RowKind.DELETE
ABSENT = ...
CASE_FOLD = bytes(
    byte - 32 if 0x61 <= byte <= 0x7A else byte if 0x20 <= byte < 0x7F else 0 for byte in range(256)
)

Touches = list[tuple[int, Access]]
Value = bytes | EllipsisType | None


def key(
    *columns: KeyColumnDefinition, name: str = "k", access: Access = EXCLUSIVE, guarded: bool = False
) -> KeyDefinition:
    return KeyDefinition(("d", "t", name), columns, access, guarded, name)


def plan(*keys: KeyDefinition, columns: int = 4, identity: bool = True, **flags: bool) -> TablePlan:
    return TablePlan(TableDefinition("d", "t", columns, keys, identity, **flags))


def touches_of(
    of: TablePlan, kind: RowKind, before: list[Value] | None, after: list[Value] | None
) -> Touches:
    found = of.touches(kind, before, after)
    assert found is not None, "a barrier"
    return found


def one_column(form: Form, **more: object) -> TablePlan:
    guarded = form in (Form.FOLDED, Form.FOLDED_TRIMMED)
    return plan(key(KeyColumnDefinition(0, form, **more), guarded=guarded), columns=1)  # type: ignore[arg-type]


def same(of: TablePlan, one: bytes, other: bytes) -> bool:
    return touches_of(of, INSERT, None, [one])[0] == touches_of(of, INSERT, None, [other])[0]


# --- the hash --------------------------------------------------------------------------------------------


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_different_bytes_have_different_hashes(one: bytes, other: bytes) -> None:
    assert (hash_of(one) == hash_of(other)) == (one == other)


def test_every_bit_of_the_hash_is_used_evenly() -> None:
    """Small integers, the most usual keys of all: buckets (top 16 bits) and tags (low 48) must both spread."""
    hashes = [hash_of(struct.pack("<I", number)) for number in range(200_000)]
    for bit in range(64):
        ones = sum(value >> bit & 1 for value in hashes)
        assert abs(ones - 100_000) < 1_500
    buckets = Counter(value >> 48 for value in hashes)
    assert max(buckets.values()) < 20, "a mean of 3 a bucket"
    assert len({value & 0xFFFFFFFFFFFF for value in hashes}) >= 199_990


def test_one_flipped_bit_changes_half_of_the_hash() -> None:
    rng = random.Random(1)
    for length in (1, 3, 4, 8, 12, 16, 17, 33, 64):
        flips = []
        for _ in range(200):
            data = bytearray(rng.randbytes(length))
            before = hash_of(bytes(data))
            data[rng.randrange(length)] ^= 1 << rng.randrange(8)
            flips.append((before ^ hash_of(bytes(data))).bit_count())
        assert 28 < sum(flips) / len(flips) < 36, length


def test_names_keep_their_boundaries() -> None:
    assert hash_name("ab", "c") != hash_name("a", "bc")


def test_column_boundaries_count() -> None:
    two = plan(key(KeyColumnDefinition(0), KeyColumnDefinition(1)), columns=2)
    assert touches_of(two, INSERT, None, [b"ab", b"c"]) != touches_of(two, INSERT, None, [b"a", b"bc"])


def test_keys_of_two_indexes_differ_for_one_value() -> None:
    of = plan(key(KeyColumnDefinition(0), name="a"), key(KeyColumnDefinition(0), name="b"), columns=1)
    first, second = touches_of(of, INSERT, None, [b"x"])
    assert first != second


# --- forms -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "one", "other", "equal"),
    [
        (Form.RAW, b"a", b"a ", False),
        (Form.PAD_TRIMMED, b"a", b"a  ", True),
        (Form.PAD_TRIMMED, b"", b"  ", True),
        (Form.PAD_TRIMMED, b" a", b"a", False),
        (Form.ZERO_TRIMMED, b"a\0\0", b"a", True),
        (Form.ZERO_TRIMMED, b"a ", b"a", False),
        (Form.FLOAT, struct.pack("<f", 0.0), struct.pack("<f", -0.0), True),
        (Form.FLOAT, struct.pack("<f", 1.0), struct.pack("<f", -1.0), False),
        (Form.DOUBLE, struct.pack("<d", 0.0), struct.pack("<d", -0.0), True),
        (Form.DOUBLE, struct.pack("<d", 5e-324), struct.pack("<d", -5e-324), False),
        (Form.ANY, b"a", b"b", True),
    ],
)
def test_forms_are_equal_where_the_server_says_so(form: Form, one: bytes, other: bytes, equal: bool) -> None:
    assert same(one_column(form), one, other) is equal


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=700))
def test_folding_is_upper_case_however_long_the_text(text: str) -> None:
    of = one_column(Form.FOLDED_TRIMMED, fold=CASE_FOLD)
    assert same(of, text.encode(), text.swapcase().encode() + b"  ")
    assert not same(of, text.encode(), text.encode() + b"x")


@pytest.mark.parametrize("value", [b"na\xc3\xafve", b"tab\there", b"\x00", b"x" * 300 + b"\xff"])
def test_unknown_character_is_any_value_of_the_index(value: bytes) -> None:
    of = one_column(Form.FOLDED, fold=CASE_FOLD)
    known = touches_of(of, INSERT, None, [b"plain"])
    unknown = touches_of(of, INSERT, None, [value])
    assert [access for _, access in known] == [EXCLUSIVE, SHARED]
    assert unknown == [(known[1][0], OVER_SHARED)]


@pytest.mark.parametrize(
    ("unit", "little", "codec"), [(2, False, "utf-16-be"), (2, True, "utf-16-le"), (4, False, "utf-32-be")]
)
def test_wide_characters_fold_and_trim_by_code_unit(unit: int, little: bool, codec: str) -> None:
    folded = one_column(Form.FOLDED_TRIMMED, fold=CASE_FOLD, code_unit_bytes=unit, little_endian=little)
    trimmed = one_column(Form.PAD_TRIMMED, code_unit_bytes=unit, little_endian=little)
    assert same(folded, "aB ".encode(codec), "Ab".encode(codec))
    assert same(trimmed, "ab ".encode(codec), "ab".encode(codec))
    assert not same(trimmed, "ab†".encode(codec), "ab".encode(codec)), "U+2020 is no space"
    assert touches_of(folded, INSERT, None, ["š".encode(codec)])[0][1] == OVER_SHARED
    assert touches_of(folded, INSERT, None, ["ab".encode(codec)[:-1]])[0][1] == OVER_SHARED, (
        "half a character"
    )


@given(st.text(max_size=12), st.text(max_size=12), st.integers(1, 5))
def test_utf8_prefix_ends_at_a_character(one: str, other: str, characters: int) -> None:
    of = one_column(Form.RAW, prefix_characters=characters, character_bytes_max=4, utf8=True)
    assert same(of, one.encode(), other.encode()) == (one[:characters] == other[:characters])


@given(st.text(max_size=8), st.text(max_size=8), st.integers(1, 4))
def test_prefix_of_other_multi_byte_texts_is_never_finer(one: str, other: str, characters: int) -> None:
    of = one_column(Form.PAD_TRIMMED, prefix_characters=characters, character_bytes_max=4)
    if one[:characters].rstrip(" ") == other[:characters].rstrip(" "):
        assert same(of, one.encode("gb18030"), other.encode("gb18030"))


def test_prefix_is_cut_before_spaces_are_trimmed() -> None:
    of = one_column(Form.PAD_TRIMMED, prefix_characters=3, utf8=True)
    assert same(of, b"ab c", b"ab")


# --- rows ------------------------------------------------------------------------------------------------

IDENTITY = key(KeyColumnDefinition(0), name="PRIMARY")
UNIQUE = key(KeyColumnDefinition(1), KeyColumnDefinition(2), name="u")


def test_null_in_a_unique_key_touches_nothing() -> None:
    of = plan(IDENTITY, UNIQUE)
    assert len(touches_of(of, INSERT, None, [b"1", b"x", None, b""])) == 1
    assert len(touches_of(of, INSERT, None, [b"1", b"x", b"y", None])) == 2


def test_update_that_leaves_a_unique_key_alone_touches_the_identity_only() -> None:
    of = plan(IDENTITY, UNIQUE)
    row: list[Value] = [b"1", b"x", b"y", b"old"]
    assert touches_of(of, UPDATE, row, [*row[:3], b"new"]) == touches_of(of, INSERT, None, row)[:1]


def test_update_of_a_unique_key_touches_the_freed_and_the_taken_value() -> None:
    of = plan(IDENTITY, UNIQUE)
    before: list[Value] = [b"1", b"x", b"y", b""]
    after: list[Value] = [b"1", b"x", b"z", b""]
    identity, freed, taken = touches_of(of, UPDATE, before, after)
    assert touches_of(of, INSERT, None, before) == [identity, freed]
    assert touches_of(of, INSERT, None, after) == [identity, taken]


def test_null_that_becomes_an_empty_value_is_a_change() -> None:
    of = plan(IDENTITY, key(KeyColumnDefinition(1), name="u"))
    null: list[Value] = [b"1", None, b"", b""]
    empty: list[Value] = [b"1", b"", b"", b""]
    taken = touches_of(of, INSERT, None, empty)[1]
    assert touches_of(of, UPDATE, null, empty)[1:] == [taken]
    assert touches_of(of, UPDATE, empty, null)[1:] == [taken]


def test_update_of_the_identity_touches_both_the_old_one_first() -> None:
    of = plan(IDENTITY, UNIQUE)
    before: list[Value] = [b"1", b"x", b"y", b""]
    after: list[Value] = [b"2", b"x", b"y", b""]
    found = touches_of(of, UPDATE, before, after)
    assert found == [touches_of(of, INSERT, None, row)[0] for row in (before, after)]


def test_values_of_one_form_that_differ_in_bytes_are_a_change() -> None:
    """A coarse form says "unchanged" where the key has moved; then the freed value would be lost."""
    coarse = key(KeyColumnDefinition(1, Form.RAW, prefix_characters=1), name="u")
    of = plan(IDENTITY, coarse)
    assert len(touches_of(of, UPDATE, [b"1", b"ab", b"", b""], [b"1", b"ac", b"", b""])) == 2


def test_expression_in_a_key_is_left_out_and_the_rest_still_tells_rows_apart() -> None:
    of = plan(IDENTITY, key(KeyColumnDefinition(0, Form.ANY), KeyColumnDefinition(1), name="u"))
    row: list[Value] = [b"1", b"x", b"", b""]
    assert touches_of(of, INSERT, None, row)[1] != touches_of(of, INSERT, None, [b"2", b"y", b"", b""])[1]
    assert len(touches_of(of, UPDATE, row, [b"1", b"x", b"", b"changed"])) == 2, (
        "the expression may have changed"
    )


def test_table_without_identity_is_shared_by_inserts_and_excluded_by_the_rest() -> None:
    of = plan(identity=False)
    row: list[Value] = [b"1", None, None, None]
    (inserted,) = touches_of(of, INSERT, None, row)
    (deleted,) = touches_of(of, DELETE, row, None)
    (updated,) = touches_of(of, UPDATE, row, row)
    assert inserted[1] == SHARED
    assert deleted == updated == (inserted[0], OVER_SHARED)


def test_nullable_unique_key_of_a_table_without_identity_still_counts_for_inserts() -> None:
    of = plan(UNIQUE, identity=False)
    row: list[Value] = [b"1", b"x", b"y", None]
    assert len(touches_of(of, INSERT, None, row)) == 2
    assert len(touches_of(of, DELETE, row, None)) == 1, "the table itself is excluded"


# --- minimal and noblob images ---------------------------------------------------------------------------


def test_absent_in_the_after_image_means_unchanged() -> None:
    of = plan(IDENTITY, UNIQUE)
    full = touches_of(of, UPDATE, [b"1", b"x", b"y", b""], [b"1", b"x", b"y", b"new"])
    assert touches_of(of, UPDATE, [b"1", ABSENT, ABSENT, ABSENT], [ABSENT, ABSENT, ABSENT, b"new"]) == full


def test_part_of_a_key_that_is_absent_from_the_after_image_is_the_old_one() -> None:
    of = plan(IDENTITY, UNIQUE)
    before: list[Value] = [b"1", b"x", b"y", b""]
    whole = touches_of(of, UPDATE, before, [b"1", b"x", b"z", b""])
    assert touches_of(of, UPDATE, before, [ABSENT, ABSENT, b"z", ABSENT]) == whole


def test_unknown_freed_value_is_a_barrier_or_excludes_the_guarded_index() -> None:
    before: list[Value] = [b"1", ABSENT, ABSENT, ABSENT]
    after: list[Value] = [ABSENT, ABSENT, b"z", ABSENT]
    assert plan(IDENTITY, UNIQUE).touches(UPDATE, before, after) is None
    assert plan(IDENTITY, UNIQUE).touches(DELETE, before) is None
    guarded = KeyDefinition(UNIQUE.seed_name, UNIQUE.columns, EXCLUSIVE, guarded=True)
    of = plan(IDENTITY, guarded)
    guard = touches_of(of, INSERT, None, [b"2", b"x", b"y", b""])[2]
    assert guard[1] == SHARED
    assert touches_of(of, DELETE, before, None)[1:] == [(guard[0], OVER_SHARED)]
    assert touches_of(of, UPDATE, before, after)[1:] == [(guard[0], OVER_SHARED)]


def test_known_null_settles_it_even_if_other_parts_are_absent() -> None:
    assert plan(IDENTITY, UNIQUE).touches(DELETE, [b"1", None, ABSENT, ABSENT]) is not None


# --- foreign keys and barriers ---------------------------------------------------------------------------


def test_child_shares_the_key_that_the_parent_writes() -> None:
    parent_key = KeyDefinition(("d", "parent", "id"), (KeyColumnDefinition(0),), OVER_SHARED)
    child_key = KeyDefinition(("d", "parent", "id"), (KeyColumnDefinition(1),), SHARED)
    parent, child = plan(parent_key, columns=1), plan(IDENTITY, child_key, columns=2)
    written = touches_of(parent, INSERT, None, [b"7"])[0]
    row: list[Value] = [b"1", b"7"]
    assert touches_of(child, INSERT, None, row)[1] == (written[0], SHARED)
    assert len(touches_of(child, INSERT, None, [b"1", None])) == 1, "NULL refers to nothing"
    assert len(touches_of(child, DELETE, row, None)) == 2
    assert len(touches_of(child, UPDATE, row, [b"1", b"8"])) == 3


def test_cascade_that_the_source_does_not_log_is_a_barrier_only_where_it_can_cascade() -> None:
    parent_key = KeyDefinition(("d", "parent", "id"), (KeyColumnDefinition(0),), OVER_SHARED)
    of = plan(parent_key, columns=2, cascades=True)
    assert of.touches(INSERT, None, [b"1", b"x"], cascades_logged=False) is not None
    assert of.touches(UPDATE, [b"1", b"x"], [b"1", b"y"], cascades_logged=False) is not None
    assert of.touches(UPDATE, [b"1", b"x"], [b"2", b"x"], cascades_logged=False) is None
    assert of.touches(UPDATE, [b"1", b"x"], [b"2", b"x"]) is not None
    assert of.touches(DELETE, [b"1", b"x"], cascades_logged=False) is None
    assert of.touches(DELETE, [b"1", b"x"]) is not None


def test_always_barrier_is_one_for_every_row() -> None:
    assert plan(IDENTITY, always_barrier=True).touches(INSERT, None, [b"1", b"", b"", b""]) is None


# --- definitions -----------------------------------------------------------------------------------------


def test_forms_of_the_kernel_and_of_python_are_numbered_alike() -> None:
    """ANY is the last: a plan takes it, and leaves the column out."""
    assert plan(
        key(KeyColumnDefinition(3, Form.ANY)), key(KeyColumnDefinition(1), name="u")
    ).wanted_columns == (1,)


@pytest.mark.parametrize(
    "keys",
    [
        (key(KeyColumnDefinition(9)),),
        (key(),),
        (key(KeyColumnDefinition(0, Form.FOLDED, fold=CASE_FOLD)),),
        (key(KeyColumnDefinition(0, Form.FOLDED), guarded=True),),
        (key(KeyColumnDefinition(0, code_unit_bytes=3)),),
        (),
    ],
)
def test_definition_that_contradicts_itself_is_refused(keys: tuple[KeyDefinition, ...]) -> None:
    with pytest.raises(ValueError, match=r"^t: "):
        plan(*keys)


def test_image_of_the_wrong_width_is_refused() -> None:
    with pytest.raises(ValueError, match="4 columns"):
        plan(IDENTITY).touches(INSERT, None, [b"1"])
