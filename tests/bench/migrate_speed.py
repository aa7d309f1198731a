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
from pathlib import Path

from applier.sandbox import Sandbox, Server
from applier.verify import Selection, VerifyOptions, verify
from tests.replaying import address

SCHEMA = "narrow"


def prepare(source: Server, rows: int) -> None:
    with source.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION sql_log_bin = 0, cte_max_recursion_depth = 100000000")
        cursor.execute(f"CREATE DATABASE {SCHEMA}")
        cursor.execute(
            f"CREATE TABLE {SCHEMA}.t (id INT PRIMARY KEY, k INT NOT NULL, c CHAR(20) NOT NULL, d DECIMAL(10,2),"
            " ts DATETIME NOT NULL, KEY (k))"
        )
        for first in range(1, rows + 1, 500_000):
            last = min(first + 499_999, rows)
            cursor.execute(
                f"INSERT INTO {SCHEMA}.t WITH RECURSIVE r AS"
                f" (SELECT {first} n UNION ALL SELECT n + 1 FROM r WHERE n < {last})"
                " SELECT n, n * 7919 % 1000003, CONCAT('row ', n), n / 7, '2024-01-01' + INTERVAL n SECOND FROM r"
            )
        cursor.execute(f"ANALYZE TABLE {SCHEMA}.t")


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
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--mydumper", type=Path, help="a folder that Debian's package is unpacked in")
    arguments = parser.parse_args()
    threads = arguments.threads
    with Sandbox(servers=("source", "target")) as sandbox:
        source, target = sandbox["source"], sandbox["target"]
        prepare(source, arguments.rows)
        target.execute("SET GLOBAL local_infile = ON")
        tools: dict[str, Callable[[], None]] = {
            "applier migrate": lambda: ours(source, target, threads, binlog=True),
            "mysqldump | mysql": lambda: mysqldump(source, target),
            "mydumper, myloader -e": lambda: mydumper(
                source, target, threads, arguments.mydumper, binlog=True
            ),
            "applier migrate, no binlog": lambda: ours(source, target, threads, binlog=False),
            "mydumper, myloader, no binlog": lambda: mydumper(
                source, target, threads, arguments.mydumper, binlog=False
            ),
        }
        for number in range(arguments.rounds):
            for name, run in tools.items():
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
                rate = arguments.rows / seconds
                print(
                    f"round {number + 1}  {name:<30} {seconds:7.1f} s  {rate:10,.0f} rows/s  {state}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
