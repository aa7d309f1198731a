"""GTID sets behave as sets do, and print as the server prints. A plain Python set is the oracle."""

from __future__ import annotations

from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from applier.errors import CorruptEvent, UsageError
from applier.events.gtid import GNO_MAX, Gtid, GtidSet

A = UUID("3e11fa47-71ca-11e1-9e33-c80aa9429562")
B = UUID("4e11fa47-71ca-11e1-9e33-c80aa9429562")

gtids = st.builds(Gtid, st.sampled_from([A, B]), st.sampled_from(["", "a", "tag_2"]), st.integers(1, 30))
plain_sets = st.frozensets(gtids, max_size=40)


def members(gtid_set: GtidSet) -> set[Gtid]:
    return {
        Gtid(uuid, tag, gno)
        for uuid, tag, intervals in gtid_set.sources()
        for start, end in intervals
        for gno in range(start, end)
    }


@given(plain_sets, plain_sets)
def test_arithmetic_is_that_of_plain_sets(a: frozenset[Gtid], b: frozenset[Gtid]) -> None:
    left, right = GtidSet(a), GtidSet(b)
    assert members(left | right) == a | b
    assert members(left - right) == a - b
    assert members(left & right) == a & b
    assert (left in right) == (a <= b) == (left <= right)
    assert (left == right) == (a == b)
    assert left.count == len(a)
    assert bool(left) == bool(a)


@given(plain_sets, gtids)
def test_membership_is_that_of_plain_sets(a: frozenset[Gtid], gtid: Gtid) -> None:
    assert (gtid in GtidSet(a)) == (gtid in a)


@given(plain_sets)
def test_text_and_bytes_carry_a_set_whole(a: frozenset[Gtid]) -> None:
    original = GtidSet(a)
    assert GtidSet.parse(str(original)) == original
    assert GtidSet.decode(original.encode()) == original


@given(plain_sets, plain_sets)
def test_operators_leave_their_operands_alone(a: frozenset[Gtid], b: frozenset[Gtid]) -> None:
    left, right = GtidSet(a), GtidSet(b)
    _ = left | right, left - right, left & right
    copy = left.copy()
    copy.update(right)
    assert (members(left), members(right), members(copy)) == (a, b, a | b)


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 8)), max_size=30))
def test_ranges_in_any_order_merge(ranges: list[tuple[int, int]]) -> None:
    merged = GtidSet()
    for first, more in ranges:
        merged.add_range(A.bytes, "", first, first + more)
    expected = {gno for first, more in ranges for gno in range(first, first + more + 1)}
    assert {gtid.gno for gtid in members(merged)} == expected
    intervals = [interval for _, _, found in merged.sources() for interval in found]
    assert all(before[1] < after[0] for before, after in pairwise(intervals))


@given(st.binary(max_size=120))
def test_random_bytes_decode_or_raise_our_error(data: bytes) -> None:
    try:
        decoded = GtidSet.decode(data)
    except CorruptEvent:
        return
    assert GtidSet.decode(decoded.encode()) == decoded


@given(st.text(alphabet="0123456789abcdef-:, \n_T" + str(A), max_size=80))
def test_random_text_parses_or_raises_our_error(text: str) -> None:
    try:
        parsed = GtidSet.parse(text)
    except UsageError:
        return
    assert GtidSet.parse(str(parsed)) == parsed


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("", ""),
        (f"{A}:1", f"{A}:1"),
        (f"{A}:1-1", f"{A}:1"),
        (f"{A}:5-6:1-2:3", f"{A}:1-3:5-6"),
        (f"{A}:1-5:3-9", f"{A}:1-9"),
        (f"{A}:9-3:1", f"{A}:1"),
        (str(A).upper() + ":7", f"{A}:7"),
        (f" {A} : 1 - 3 ,\n{B}:2 ", f"{A}:1-3,\n{B}:2"),
        (f"{B}:1,{A}:1,{B}:2", f"{A}:1,\n{B}:1-2"),
        (f"{A}:TAG_1:4:2:1-2", f"{A}:tag_1:1-2:4"),
        (f"{A}:b:1:a:2:3,{A}:9", f"{A}:9:a:2-3:b:1"),
        (f"{A}:{GNO_MAX}", f"{A}:{GNO_MAX}"),
        (f",{A}:1,,", f"{A}:1"),
    ],
)
def test_sets_print_as_the_server_prints_them(text: str, printed: str) -> None:
    assert str(GtidSet.parse(text)) == printed


@pytest.mark.parametrize(
    "text",
    ["x", "x:1", f"{A}:0", f"{A}:1-", f"{A}:-1", f"{A}:{GNO_MAX + 1}", f"{A}:1-{GNO_MAX + 1}",
     f"{A}:9tag:1", f"{A}:{'t' * 33}:1", f"{A}:1;2", f"{A}:1 2"],
)  # fmt: skip
def test_what_is_no_set_is_refused_with_the_reason(text: str) -> None:
    with pytest.raises(UsageError, match="GTID set"):
        GtidSet.parse(text)


def test_one_gtid_parses_and_prints() -> None:
    assert Gtid.parse(f"{A}:7") == Gtid(A, "", 7)
    assert str(Gtid.parse(f"{A}:Tag:7")) == f"{A}:tag:7"
    for text in ("", str(A), f"{A}:1-2", f"{A}:1,{B}:1", f"{A}:1:t:1"):
        with pytest.raises(UsageError):
            Gtid.parse(text)


def test_the_encodings_are_those_of_the_protocol() -> None:
    interval = (1).to_bytes(8, "little") + (4).to_bytes(8, "little")
    one = (1).to_bytes(8, "little")
    assert GtidSet.parse(f"{A}:1-3").encode() == one + A.bytes + one + interval
    tagged = GtidSet.parse(f"{A}:ab:1-3").encode()
    assert tagged == b"\1\1\0\0\0\0\0\1" + A.bytes + b"\4ab" + one + interval
    assert GtidSet().encode() == bytes(8)


def test_binary_sets_that_contradict_themselves_are_refused() -> None:
    whole = GtidSet.parse(f"{A}:1-3:x:5").encode()
    for at in range(len(whole)):
        with pytest.raises(CorruptEvent):
            GtidSet.decode(whole[:at])
    for bad in (
        whole + b"\0",
        b"\1\0\0\0\0\0\0\2",
        b"\1" + bytes(7) + A.bytes + b"\1" + bytes(7) + bytes(16),
    ):
        with pytest.raises(CorruptEvent):
            GtidSet.decode(bad)
