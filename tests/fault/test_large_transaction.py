"""Transactions larger than the memory that the applier may use, and errors in the middle of one."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from applier.sandbox import Server
from tests.replaying import assert_same_data, executed, outcome, run_all, session

MEMORY_BYTES_MAX = 256 << 20  # as given to --memory-max
ROW_BYTES = 16_000

in_groups_and_alone = pytest.mark.parametrize("group_transactions", ["1", "100"])


def write_one_transaction(source: Server, size_bytes: int) -> None:
    rows = size_bytes // ROW_BYTES
    source.execute("CREATE DATABASE d")
    source.execute("CREATE TABLE d.big (id INT AUTO_INCREMENT PRIMARY KEY, filler BLOB NOT NULL)")
    with source.connect() as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SET cte_max_recursion_depth = 1000000")
        cursor.execute(
            "INSERT INTO d.big (filler) WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE"
            f" i < {rows}) SELECT REPEAT(CHAR(i % 256), {ROW_BYTES}) FROM n"
        )
        cursor.execute("UPDATE d.big SET filler = CONCAT('x', filler) WHERE id % 100 = 0")
        cursor.execute("COMMIT")


@pytest.mark.parametrize(
    "size_bytes",
    [pytest.param(300 << 20, id="300MB"), pytest.param(2 << 30, id="2GB", marks=pytest.mark.long)],
)
@in_groups_and_alone
@pytest.mark.timeout(1800)
def test_transaction_larger_than_memory_passes(
    source: Server, target: Server, size_bytes: int, group_transactions: str
) -> None:
    write_one_transaction(source, size_bytes)
    # Not getrusage: its maximum survives exec, so it would be that of the process that runs the tests.
    code = (
        "import re, sys\n"
        "from applier.cli import main\n"
        "try:\n    main()\n"
        "finally:\n    print(re.search('VmHWM.*', open('/proc/self/status').read())[0], file=sys.stderr)\n"
    )
    done = subprocess.run(
        [
            *(sys.executable, "-c", code, "run", "--source", source.url, "--target", target.url),
            *("--stop-at-end", "--no-check", "--group-transactions", group_transactions),
            *("--memory-max", "256"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert executed(target) == executed(source)
    checksum = "SELECT COUNT(*), SUM(CRC32(filler)), SUM(LENGTH(filler)) FROM d.big"
    assert target.execute(checksum) == source.execute(checksum)
    peak = re.search(r"VmHWM:\s*(\d+) kB", done.stderr)
    assert peak is not None
    assert int(peak[1]) * 1024 < MEMORY_BYTES_MAX, f"{int(peak[1]) >> 10} MiB"


# --- errors ------------------------------------------------------------------------------------------


def parts_outcome(source: Server, target: Server, group_transactions: str) -> tuple[int, str]:
    """Exit code and messages of a run that cuts transactions into parts of a megabyte."""
    limits = ("--group-transactions", group_transactions, "--memory-max", "64")
    run = outcome(source, target, "--stop-at-end", "--no-check", *limits)
    return run.process.returncode, run.errors


@in_groups_and_alone
def test_data_error_in_a_part_stops_before_the_whole_transaction(
    source: Server, target: Server, group_transactions: str
) -> None:
    """Parts that were executed before the bad one leave nothing behind, and what is behind it does not run."""
    run_all(source, ["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, b MEDIUMBLOB)"])
    assert parts_outcome(source, target, group_transactions)[0] == 0
    with session(target, "SET sql_log_bin = 0") as run_on_target:
        run_on_target("INSERT INTO d.t VALUES (200, 'of somebody else')")
    run_all(source, ["INSERT INTO d.t VALUES (0, 'before')"])
    before = executed(source)
    rows = ", ".join(f"({number}, REPEAT('x', {ROW_BYTES}))" for number in range(1, 300))
    run_all(source, [f"INSERT INTO d.t VALUES {rows}", "INSERT INTO d.t VALUES (300, 'behind')"])

    code, errors = parts_outcome(source, target, group_transactions)
    assert code == 4, errors
    assert all(text in errors for text in ("1062", "--skip-gtid", "d.t", "@1=200")), errors
    assert executed(target) == before
    assert target.execute("SELECT id FROM d.t ORDER BY id") == ((0,), (200,))

    with session(target, "SET sql_log_bin = 0") as run_on_target:
        run_on_target("DELETE FROM d.t WHERE id = 200")
    assert parts_outcome(source, target, group_transactions)[0] == 0
    assert_same_data(source, target)


@in_groups_and_alone
def test_row_larger_than_a_packet_of_the_target_stops_with_exit_code_4(
    source: Server, target: Server, group_transactions: str
) -> None:
    """The server only closes the link: without a look of our own that would be tried again and again."""
    run_all(source, ["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, b LONGBLOB)"])
    run_all(source, ["INSERT INTO d.t VALUES (1, 'before')"])
    before = executed(source)
    run_all(
        source, ["INSERT INTO d.t VALUES (2, REPEAT('x', 8000000))", "INSERT INTO d.t VALUES (3, 'behind')"]
    )
    target.execute("SET GLOBAL max_allowed_packet = 4 << 20")

    code, errors = parts_outcome(source, target, group_transactions)
    assert code == 4, errors
    assert all(text in errors for text in ("max_allowed_packet", "--skip-gtid", "d.t")), errors
    assert executed(target) == before

    target.execute("SET GLOBAL max_allowed_packet = 64 << 20")
    assert parts_outcome(source, target, group_transactions)[0] == 0
    assert_same_data(source, target)
