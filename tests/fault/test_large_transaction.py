"""Transactions larger than the memory that the applier may use."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from applier.sandbox import Server
from tests.replaying import executed

MEMORY_BYTES_MAX = 256 << 20  # as given to --memory-max
ROW_BYTES = 16_000


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
@pytest.mark.parametrize("group_transactions", ["1", "100"])
@pytest.mark.timeout(600)
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
