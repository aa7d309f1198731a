"""Copy speed against `mysqldump | mysql` and mydumper/myloader: the same rows, the same pair of servers, one run.

    python -m tests.bench.migrate_speed [--rows 10000000] [--rounds 2] [--threads 4]

mysqldump and mysql are those of the sandbox's installation or of PATH; mydumper and myloader (of 0.10 or later) are
those of PATH, or of --mydumper DIR. Everything is verified. Load on the machine falsifies it: only the ratios count.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from applier.sandbox import Sandbox, Server
from applier.verify import Selection, VerifyOptions, verify
from tests.replaying import address

SCHEMA = "moved"


@dataclass(frozen=True, slots=True)
class DataSet:
    """Tables that are all alike: `columns`, and what to select for them of n, the row's number."""

    columns: str
    values: str
    tables: int = 1
    share: float = 1.0  # of the rows that are asked for


DATA_SETS = {
    "narrow": DataSet(
        "id INT PRIMARY KEY, k INT NOT NULL, c CHAR(20) NOT NULL, d DECIMAL(10,2), ts DATETIME NOT NULL, KEY (k)",
        "n, n * 7919 % 1000003, CONCAT('row ', n), n / 7, '2024-01-01' + INTERVAL n SECOND",
    ),
    "indexed": DataSet(
        "id BIGINT PRIMARY KEY, a INT, b INT, c VARCHAR(40), d DATETIME, KEY (a), KEY (b, a), KEY (c), KEY (d)",
        "n, n * 7919 % 1000003, n * 104729 % 999983, LEFT(SHA2(n, 256), 40),"
        " '2024-01-01' + INTERVAL n * 31 % 99991 SECOND",
        share=0.3,
    ),
    "wide": DataSet(
        "id INT PRIMARY KEY, k INT NOT NULL, pad VARCHAR(255) NOT NULL, body TEXT, j JSON, KEY (k)",
        "n, n * 7919 % 1000003, REPEAT(SHA2(n, 256), 2), REPEAT(SHA2(n + 1, 256), 10), JSON_OBJECT('n', n)",
        share=0.1,
    ),
    "tables": DataSet(
        "id INT AUTO_INCREMENT PRIMARY KEY, k INT NOT NULL, c CHAR(120) NOT NULL, pad CHAR(60) NOT NULL, KEY (k)",
        "n, n * 7919 % 1000003, REPEAT(SHA2(n, 256), 1), REPEAT('p', 60)",
        tables=50,
        share=0.3,
    ),
}


def prepare(source: Server, data: DataSet, rows: int) -> None:
    """`rows`: of each table."""
    with source.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION sql_log_bin = 0, cte_max_recursion_depth = 100000000")
        cursor.execute(f"DROP DATABASE IF EXISTS {SCHEMA}")
        cursor.execute(f"CREATE DATABASE {SCHEMA}")
        for number in range(data.tables):
            table = f"{SCHEMA}.t{number}"
            cursor.execute(f"CREATE TABLE {table} ({data.columns})")
            for first in range(1, rows + 1, 500_000):
                last = min(first + 499_999, rows)
                cursor.execute(
                    f"INSERT INTO {table} WITH RECURSIVE r AS"
                    f" (SELECT {first} n UNION ALL SELECT n + 1 FROM r WHERE n < {last}) SELECT {data.values} FROM r"
                )
            cursor.execute(f"ANALYZE TABLE {table}")


def shell(command: str, environment: dict[str, str] | None = None) -> None:
    subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], check=True, env=os.environ | (environment or {})
    )


def mysqldump(source: Server, target: Server) -> None:
    dump, load = (
        " ".join(server.installation.tool(name)) + f" --no-defaults -uroot -h127.0.0.1 -P{server.port}"
        for server, name in ((source, "mysqldump"), (target, "mysql"))
    )
    shell(f"{dump} --single-transaction --set-gtid-purged=OFF --databases {SCHEMA} | {load}")


def mydumper(source: Server, target: Server, threads: int, folder: Path | None, *, binlog: bool) -> None:
    environment = {}
    tools = ["mydumper", "myloader"]
    if folder is not None:
        tools = [str(folder / "usr/bin" / tool) for tool in tools]
        libraries = folder / "usr/lib/x86_64-linux-gnu"
        environment["LD_LIBRARY_PATH"] = f"{libraries}:{folder}/lib/x86_64-linux-gnu"
        environment["MARIADB_PLUGIN_DIR"] = f"{libraries}/libmariadb3/plugin"
    with tempfile.TemporaryDirectory() as out:
        shell(
            f"{tools[0]} -u root -h 127.0.0.1 -P {source.port} -B {SCHEMA} -t {threads} -r 100000 -o {out}"
            f" --trx-consistency-only && {tools[1]} -u root -h 127.0.0.1 -P {target.port} -t {threads} -d {out}"
            + (" -e" if binlog else ""),
            environment,
        )


def ours(source: Server, target: Server, threads: int, *, binlog: bool) -> None:
    subprocess.run(
        [
            sys.executable,
            "-m",
            "applier",
            "--log-level",
            "error",
            "migrate",
            "--source",
            source.url,
            "--target",
            target.url,
        ]
        + ["--schemas", SCHEMA, "--threads", str(threads), "--stop-at-end"]
        + ([] if binlog else ["--no-target-binlog"]),
        check=True,
    )


def clean(target: Server) -> None:
    for schema in (SCHEMA, "applier_migrate", "applier"):
        target.execute(f"DROP DATABASE IF EXISTS {schema}")
    target.execute("RESET BINARY LOGS AND GTIDS")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--rows", type=int, default=10_000_000, help="of the narrow table; the others have fewer"
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--data", default=",".join(DATA_SETS), help="data sets")
    parser.add_argument("--tools", default="", help="only those whose names contain one of these words")
    parser.add_argument("--mydumper", type=Path, help="a folder that Debian's package is unpacked in")
    arguments = parser.parse_args()
    with Sandbox(servers=("source", "target")) as sandbox:
        source, target = sandbox["source"], sandbox["target"]
        target.execute("SET GLOBAL local_infile = ON")
        # mydumper before 0.12 cuts tables by what EXPLAIN tells, which it cannot read in the tree format of MySQL 9.
        source.execute("SET GLOBAL explain_format = TRADITIONAL")
        for name in arguments.data.split(","):
            data = DATA_SETS[name]
            rows = max(1, int(arguments.rows * data.share)) // data.tables
            prepare(source, data, rows)
            for number in range(arguments.rounds):
                measure(source, target, name, number, rows * data.tables, arguments)


def measure(
    source: Server, target: Server, data: str, number: int, rows: int, arguments: argparse.Namespace
) -> None:
    """One round of all tools; another one begins each time."""
    threads, folder = arguments.threads, arguments.mydumper
    tools: dict[str, Callable[[], None]] = {
        "applier migrate": lambda: ours(source, target, threads, binlog=True),
        "mysqldump | mysql": lambda: mysqldump(source, target),
        "mydumper, myloader -e": lambda: mydumper(source, target, threads, folder, binlog=True),
        "applier migrate, no binlog": lambda: ours(source, target, threads, binlog=False),
        "mydumper, myloader, no binlog": lambda: mydumper(source, target, threads, folder, binlog=False),
    }
    names = [name for name in tools if any(word in name for word in arguments.tools.split(","))]
    for name in rotated(names, number):
        run = tools[name]
        clean(target)
        began = time.monotonic()
        run()
        seconds = time.monotonic() - began
        report = verify(
            address(source, "source"),
            address(target, "target"),
            VerifyOptions(selection=Selection(schemas=(SCHEMA,)), assume_quiesced=True),
        )
        state = "identical" if report.identical else "DIFFERENT"
        print(
            f"{data:<8} {number + 1:<2} {name:<30} {seconds:7.1f} s  {rows / seconds:10,.0f} rows/s  {state},"
            f" compared in {report.seconds:.1f} s",
            flush=True,
        )


def rotated(names: list[str], places: int) -> list[str]:
    places %= len(names)
    return names[places:] + names[:places]


if __name__ == "__main__":
    main()
