"""What a migration would do: findings, tables, and an estimate of bytes and time. Writes nothing."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from typing import Any, Final

from applier.connection import connect
from applier.migrate.checks import check_migration
from applier.migrate.definitions import create_statement, is_small, split_create
from applier.migrate.settings import MigrateSettings
from applier.migrate.state import State
from applier.preflight import Report
from applier.verify.definitions import query, read_tables
from applier.verify.sessions import SETTINGS

# Guesses, of the order of what two cores did; the plan says that it is a guess.
ROWS_PER_SECOND: Final = 60_000
BYTES_PER_SECOND: Final = 15_000_000


@dataclass(frozen=True, slots=True)
class PlannedTable:
    """Rows and bytes are the server's estimates; `later` is how many indexes and foreign keys follow the rows."""

    schema: str
    table: str
    rows: int
    data_bytes: int
    index_bytes: int
    key: tuple[str, ...]
    later: int

    @property
    def how(self) -> str:
        return f"in chunks by {', '.join(self.key)}" if self.key else "whole, it has no key"


@dataclass(frozen=True, slots=True)
class Plan:
    report: Report
    tables: tuple[PlannedTable, ...]

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables)

    @property
    def bytes(self) -> int:
        return sum(table.data_bytes + table.index_bytes for table in self.tables)

    @property
    def seconds(self) -> int:
        """A rough guess."""
        data = sum(table.data_bytes for table in self.tables)
        return round(max(self.rows / ROWS_PER_SECOND, data / BYTES_PER_SECOND)) + 1

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **self.report.as_dict(),
            "rows_estimated": self.rows,
            "bytes_estimated": self.bytes,
            "seconds_estimated": self.seconds,
            "tables": [asdict(table) for table in self.tables],
        }


def make_plan(settings: MigrateSettings, state: State) -> Plan:
    """Raises what `connect` raises."""
    with (
        contextlib.closing(connect(settings.source, read_timeout_seconds=60.0)) as source,
        contextlib.closing(connect(settings.target, read_timeout_seconds=60.0)) as target,
    ):
        query(source, SETTINGS)
        report = check_migration(source, target, settings, state)
        condition, arguments = settings.selection.condition("table_schema")
        sizes = {
            (schema, name): (int(rows), int(data), int(index))
            for schema, name, rows, data, index in query(
                source,
                "SELECT table_schema, table_name, COALESCE(table_rows, 0), COALESCE(data_length, 0),"
                f" COALESCE(index_length, 0) FROM information_schema.tables WHERE {condition}",
                arguments,
            )
        }
        tables = []
        for name, table in read_tables(source, settings.selection).items():
            rows, data, index = sizes.get(name, (0, 0, 0))
            split = split_create(
                create_statement(source, name), defer=settings.defer_indexes, small=is_small(rows, data)
            )
            tables.append(PlannedTable(*name, rows, data, index, table.key, len(split.later)))
    return Plan(report, tuple(tables))
