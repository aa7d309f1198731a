"""No parser fails in another way than it says, hangs, or takes memory that nobody sent: seconds of what
`python -m tests.fuzz` does for hours."""

from __future__ import annotations

import struct
import tracemalloc
from itertools import product

import pytest

from tests.fuzz import records, seeds
from tests.fuzz.campaign import attempt, run
from tests.fuzz.records import Record
from tests.fuzz.targets import TARGETS

FINDINGS = sorted((path.parent.name, path.name) for path in seeds.FINDINGS.glob("*/*"))
MEMORY_TIMES_MAX, MEMORY_BYTES = 64, 4 << 20
INPUTS = {"stream": 1000, "raw_stream": 2000, "rows": 2500, "relay": 1500, "log_file": 150, "json": 1000}
INPUTS_OTHERS = 5000

FLOOD_BYTES = 20_000
BEGINNINGS = ("", "CREATE EVENT e ", "CREATE ", "DROP TABLE ", "CREATE INDEX i ON ", "ALTER DEFINER=")
REPEATED = (
    *("/* ", "/**/", "/*/", "-- ", "#", "'", "''", "'\\", '"\\', "`", "``", "`a`.", "a,", "a ", " "),
    *("\\", "(", "=", "DEFINER=a ", "OR REPLACE ", "IF "),
)


@pytest.mark.parametrize(("target", "name"), FINDINGS)
def test_what_was_found_once_is_mended(target: str, name: str) -> None:
    data = (seeds.FINDINGS / target / name).read_bytes()
    tracemalloc.start()
    try:
        found = attempt(target, data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found is None
    assert peak < MEMORY_TIMES_MAX * len(data) + MEMORY_BYTES


@pytest.mark.parametrize("target", TARGETS)
def test_changed_inputs_raise_only_what_is_documented(target: str) -> None:
    assert list(run(target, INPUTS.get(target, INPUTS_OTHERS))) == []


@pytest.mark.parametrize("target", TARGETS)
def test_real_inputs_pass(target: str) -> None:
    assert [found for data in seeds.of(target) if (found := attempt(target, data))] == []


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_a_flood_of_one_token_takes_no_time(beginning: str) -> None:
    for token, ending in product(REPEATED, ("", "x")):
        text = beginning + token * (FLOOD_BYTES // len(token)) + ending
        assert attempt("statement_text", text.encode()) is None, f"{beginning}{token}…"


def test_intervals_from_the_highest_down_take_no_time() -> None:
    intervals = [struct.pack("<qq", start, start + 1) for start in range(60_000, 0, -2)]
    found = struct.pack("<Q", 1) + bytes(16) + struct.pack("<Q", len(intervals)) + b"".join(intervals)
    assert attempt("gtid_binary", found) is None
    text = "f4389e8f-e545-11f1-b20b-02fc00000001:" + ":".join(map(str, range(60_000, 0, -2)))
    assert attempt("gtid_text", text.encode()) is None


def test_a_large_document_takes_time_by_its_length() -> None:
    count = 40_000
    texts = b"\x0aabcdefghij" * count
    entries = b"".join(b"\x0c" + struct.pack("<I", 8 + 5 * count + 11 * i) for i in range(count))
    document = b"\x03" + struct.pack("<II", count, 8 + len(entries) + len(texts)) + entries + texts
    assert attempt("json", document) is None


def test_a_payload_never_gives_more_than_it_announces() -> None:
    bomb = records.payload([Record(30, bytes(65_000))] * 500).body
    lying = bomb.replace(struct.pack("<Q", 500 * 65_019), struct.pack("<Q", 1000))
    assert len(lying) == len(bomb) < 20_000
    tracemalloc.start()
    try:
        assert attempt("payload", bomb) is None
        assert attempt("payload", lying) is None
        assert tracemalloc.get_traced_memory()[1] < MEMORY_BYTES
    finally:
        tracemalloc.stop()
