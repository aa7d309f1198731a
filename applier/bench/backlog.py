"""A backlog: transactions that a source has and a target has not, made once and kept.

What is kept is the source's data directory, binary logs included, and a copy of the data as they were before the
backlog's first transaction. Whoever measures starts the source as it is, and a fresh target on a copy of the copy.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from applier.bench.log_files import count_rows
from applier.bench.machine import server_settings
from applier.events.gtid import GtidSet
from applier.sandbox import Sandbox, Server
from applier.sandbox.cache import cache_folder, exclusive
from applier.sandbox.installation import find
from applier.workload import Workload, workload_named

FORMAT = 1  # raise it when backlogs of before are of no use any more
FACTS = "backlog.json"
START = "start"  # the data before the backlog

Say = Callable[[str], None]

# Of both servers: durable, as their defaults are, and large enough that neither page reads nor checkpoints count.
SERVER_OPTIONS: Mapping[str, str] = {
    "innodb_buffer_pool_size": "1G",
    "innodb_redo_log_capacity": "512M",
    "max_binlog_size": "1G",
    "sync_binlog": "1",
    "innodb_flush_log_at_trx_commit": "1",
}
SOURCE_OPTIONS: Mapping[str, str] = {**SERVER_OPTIONS, "binlog_expire_logs_seconds": "0"}  # kept for good

SYSTEM_SCHEMAS = ("mysql", "sys", "performance_schema", "information_schema")

Checksums = dict[str, int | None]
"""By `schema`.`table`; None where the server has no such table."""


@dataclass(frozen=True, slots=True)
class BacklogSpec:
    """What a backlog is made of. `parameters` are those of `workload_named`; `transactions` are the workload's,
    read-only ones included; `source_options` are mysqld's."""

    workload: str
    transactions: int
    parameters: Mapping[str, Any] = field(default_factory=dict)
    source_options: Mapping[str, str] = field(default_factory=dict)

    def made(self) -> Workload:
        """Raises UsageError."""
        return workload_named(self.workload, **self.parameters)

    def settings(self) -> dict[str, Any]:
        """All parameters, defaults included. Raises UsageError."""
        return dataclasses.asdict(self.made().settings)

    def key(self, mysql_version: str) -> str:
        """A folder name that differs wherever the backlog would. Raises UsageError."""
        facts = [
            FORMAT,
            mysql_version,
            self.workload,
            self.settings(),
            self.transactions,
            dict(self.source_options),
        ]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
        return f"{self.workload}-{self.transactions}-{digest}"


@dataclass(frozen=True, slots=True)
class BacklogFacts:
    """What came out. `bytes` are those of the binary log; `load` is the workload's own result."""

    transactions: int
    rows: int
    bytes: int
    start_gtids: str
    end_gtids: str
    files: tuple[str, ...]
    mysql_version: str
    load: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> BacklogFacts:
        facts = json.loads(path.read_text())
        return cls(**facts | {"files": tuple(facts["files"])})


class Backlog:
    """A backlog in use: its source runs."""

    def __init__(self, spec: BacklogSpec, facts: BacklogFacts, sandbox: Sandbox) -> None:
        self.spec = spec
        self.facts = facts
        self.sandbox = sandbox
        self.source: Server = sandbox["source"]
        self._checksums: Checksums | None = None

    @property
    def files(self) -> list[Path]:
        """The binary log files that hold it, in order."""
        return [self.source.datadir / name for name in self.facts.files]

    @property
    def start_gtids(self) -> GtidSet:
        return GtidSet.parse(self.facts.start_gtids)

    @property
    def end_gtids(self) -> GtidSet:
        return GtidSet.parse(self.facts.end_gtids)

    @contextmanager
    def fresh(self, name: str, options: Mapping[str, str] | None = None) -> Iterator[Server]:
        """A server just started on a copy of the starting data; killed and deleted at the end."""
        start = self.sandbox.directory / START
        server = self.sandbox.add(name, options={**SERVER_OPTIONS, **(options or {})}, snapshot=start)
        try:
            yield server
        finally:
            self.sandbox.remove(name)

    def described(self) -> dict[str, Any]:
        """For JSON: what it was made of, what came out, and the settings of its source."""
        return {
            "workload": self.spec.workload,
            "parameters": self.spec.settings(),
            "transactions": self.facts.transactions,
            "rows": self.facts.rows,
            "bytes": self.facts.bytes,
            "mysql_version": self.facts.mysql_version,
            "settings": {"source": server_settings(self.source)},
        }

    def source_checksums(self) -> Checksums:
        """Of all tables of the source, which must have stood still since the backlog was made."""
        if self._checksums is None:
            self._checksums = checksums(self.source, tables(self.source))
        return self._checksums

    def is_replayed(self, target: Server) -> bool:
        """The target's tables hold what the source's do."""
        expected = self.source_checksums()
        return bool(expected) and checksums(target, list(expected)) == expected


def tables(server: Server) -> list[str]:
    """Base tables outside the system's schemas, quoted."""
    marks = ", ".join(["%s"] * len(SYSTEM_SCHEMAS))
    rows = server.execute(
        "SELECT table_schema, table_name FROM information_schema.tables WHERE table_type = 'BASE TABLE'"
        f" AND table_schema NOT IN ({marks}) ORDER BY 1, 2",
        SYSTEM_SCHEMAS,
    )
    return [f"`{schema}`.`{table}`" for schema, table in rows]


def checksums(server: Server, names: list[str]) -> Checksums:
    """CHECKSUM TABLE of each: a sum over its rows, whatever their order."""
    if not names:
        return {}
    found = server.execute("CHECKSUM TABLE " + ", ".join(names))
    return {name: row[1] for name, row in zip(names, found, strict=True)}


def default_folder() -> Path:
    return cache_folder() / "backlogs"


@contextmanager
def opened(
    spec: BacklogSpec, folder: Path | None = None, *, mysqld: Path | None = None, say: Say = lambda text: None
) -> Iterator[Backlog]:
    """The backlog, made where there is none yet, with its source started; stopped at the end.

    Whoever wants the same backlog meanwhile waits. Raises UsageError, PreflightFailed, and what a workload raises.
    """
    version = find(mysqld).version
    place = (folder or default_folder()).absolute() / spec.key(version)
    with exclusive(place.parent / f"{place.name}.lock"):
        if not (place / FACTS).is_file():
            say(f"making the backlog {place.name}")
            _make(spec, place, version, mysqld, say)
        for left_over in ("target", "live"):  # by a measurement that was killed
            shutil.rmtree(place / left_over, ignore_errors=True)
        options = {"source": {**SOURCE_OPTIONS, **spec.source_options}}
        with Sandbox(place, ("source",), options=options, mysqld=mysqld) as sandbox:
            yield Backlog(spec, BacklogFacts.read(place / FACTS), sandbox)


def _make(spec: BacklogSpec, place: Path, version: str, mysqld: Path | None, say: Say) -> None:
    """In a folder of another name, so that `place` is there only when it is complete."""
    making = place.with_name(f"{place.name}.making")
    shutil.rmtree(making, ignore_errors=True)
    shutil.rmtree(place, ignore_errors=True)
    options = {"source": {**SOURCE_OPTIONS, **spec.source_options}, "target": SERVER_OPTIONS}
    try:
        with Sandbox(making, ("source", "target"), options=options, mysqld=mysqld) as sandbox:
            facts = _filled(spec, sandbox, version, say)
            sandbox.remove("target")
        (making / FACTS).write_text(json.dumps(dataclasses.asdict(facts), indent=1) + "\n")
        making.rename(place)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise


def _filled(spec: BacklogSpec, sandbox: Sandbox, version: str, say: Say) -> BacklogFacts:
    source = sandbox["source"]
    workload = spec.made()
    workload.prepare(source.connect)
    say(f"{workload.counters.rows_loaded:,} rows loaded")
    start = executed(source)
    _drop_older_logs(source)
    _keep_start(sandbox, start)
    result = workload.run(source.connect, transactions=spec.transactions)
    end = executed(source)
    files = binlog_files(source)
    paths = [source.datadir / name for name in files]
    transactions, rows = count_rows(paths, GtidSet.parse(start))
    say(f"{transactions:,} transactions, {rows:,} rows, made at {transactions / result.seconds:,.0f}/s")
    return BacklogFacts(
        transactions=transactions,
        rows=rows,
        bytes=sum(path.stat().st_size for path in paths),
        start_gtids=start,
        end_gtids=end,
        files=tuple(files),
        mysql_version=version,
        load=result.as_dict(),
    )


def executed(server: Server) -> str:
    """The server's gtid_executed."""
    ((gtids,),) = server.execute("SELECT @@GLOBAL.gtid_executed")
    return str(gtids)


def binlog_files(server: Server) -> list[str]:
    return [str(row[0]) for row in server.execute("SHOW BINARY LOGS")]


def _drop_older_logs(source: Server) -> None:
    """So that the files that are left hold the backlog and nothing else."""
    source.execute("FLUSH BINARY LOGS")
    source.execute("PURGE BINARY LOGS TO %s", (binlog_files(source)[-1],))


def _keep_start(sandbox: Sandbox, start: str) -> None:
    """The source's data as a target's: same rows, same gtid_executed, no binary log of how they came about."""
    source, target = sandbox["source"], sandbox["target"]
    copy = sandbox.directory / "copy"
    source.snapshot(copy)
    target.restore(copy)
    shutil.rmtree(copy)
    target.start()
    older = target.installation.numbers < (8, 2, 0)
    target.execute("RESET MASTER" if older else "RESET BINARY LOGS AND GTIDS")
    target.execute("SET GLOBAL gtid_purged = %s", (start,))
    target.stop()
    target.snapshot(sandbox.directory / START)
