"""What the state of a migration is made of: its tables on the target, and their rows as records."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from applier.verify.definitions import MIGRATION_SCHEMA as SCHEMA
from applier.verify.expressions import KeyValues

CREATE: Final = (
    f"CREATE DATABASE IF NOT EXISTS {SCHEMA} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    f"""CREATE TABLE IF NOT EXISTS {SCHEMA}.migration (
  name VARCHAR(64) NOT NULL PRIMARY KEY,
  owner BIGINT UNSIGNED NOT NULL COMMENT 'which process may write; a newer one counts it up',
  phase VARCHAR(32) NOT NULL,
  source_uuid VARCHAR(36) NOT NULL,
  options JSON NOT NULL COMMENT 'what was asked for',
  snapshot LONGTEXT NOT NULL COMMENT 'GTID set of the source that the newest copied rows show',
  facts JSON NOT NULL COMMENT 'what phases note for later ones and for the report',
  error TEXT NOT NULL,
  started TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  updated TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)
) COMMENT 'migrations into this server'""",
    f"""CREATE TABLE IF NOT EXISTS {SCHEMA}.tables (
  migration VARCHAR(64) NOT NULL,
  schema_name VARCHAR(64) NOT NULL,
  table_name VARCHAR(64) NOT NULL,
  state VARCHAR(16) NOT NULL COMMENT 'pending, copying, copied, ready (indexes built), failed',
  definition LONGTEXT NOT NULL COMMENT 'SHOW CREATE TABLE of the source',
  deferred JSON NOT NULL COMMENT 'clauses of ALTER TABLE that wait for the rows',
  rows_estimated BIGINT UNSIGNED NOT NULL,
  bytes_estimated BIGINT UNSIGNED NOT NULL,
  error TEXT NOT NULL,
  PRIMARY KEY (migration, schema_name, table_name)
) COMMENT 'tables of a migration'""",
    f"""CREATE TABLE IF NOT EXISTS {SCHEMA}.chunks (
  number BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  migration VARCHAR(64) NOT NULL,
  schema_name VARCHAR(64) NOT NULL,
  table_name VARCHAR(64) NOT NULL,
  state VARCHAR(16) NOT NULL COMMENT 'copied or failed',
  lower_key JSON COMMENT 'keys above this one; NULL is open',
  upper_key JSON COMMENT 'up to and with this one; NULL is open',
  place JSON NOT NULL COMMENT 'its place among the others, as a list of numbers',
  row_total BIGINT UNSIGNED NOT NULL,
  byte_total BIGINT UNSIGNED NOT NULL,
  seconds DOUBLE NOT NULL,
  error TEXT NOT NULL,
  finished TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  KEY (migration, schema_name, table_name)
) COMMENT 'ranges of keys, written with their rows'""",
)


class Phase(enum.StrEnum):
    """How far a migration is; in this order."""

    PLANNED = "planned"
    SCHEMA = "schema"  # tables are being created
    COPY = "copy"
    INDEXES = "indexes"  # secondary indexes and foreign keys are being built
    OBJECTS = "objects"  # routines, views, triggers, events
    CATCH_UP = "catch-up"  # following the source, until cut-over
    CUTTING_OVER = "cutting over"
    CUT_OVER = "cut over"  # the target is the writable one
    ROLLING_BACK = "rolling back"  # to the source; then catch-up again

    def reached(self, other: Phase) -> bool:
        """Whether `other` is behind us or is where we are."""
        order = list(Phase)
        return order.index(self) >= order.index(other)


class TableState(enum.StrEnum):
    PENDING = "pending"
    COPYING = "copying"
    COPIED = "copied"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Migration:
    """The row of a migration. `facts` is free for phases to note things in, one key each."""

    name: str
    owner: int
    phase: Phase
    source_uuid: str
    options: dict[str, Any]
    snapshot: str
    facts: dict[str, Any]
    error: str
    started: datetime
    updated: datetime

    @property
    def channel(self) -> str:
        """Of the replay that follows the source."""
        return channel_of(self.name)


@dataclass(frozen=True, slots=True)
class TableProgress:
    """A table of a migration; the counts are sums over its chunks."""

    schema: str
    table: str
    state: TableState = TableState.PENDING
    definition: str = ""
    deferred: tuple[str, ...] = ()
    rows_estimated: int = 0
    bytes_estimated: int = 0
    error: str = ""
    rows_copied: int = 0
    bytes_copied: int = 0
    chunks_copied: int = 0
    chunks_failed: int = 0

    @property
    def name(self) -> tuple[str, str]:
        return self.schema, self.table


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows of a table with keys above `lower` and up to `upper`, None being open.

    `place`: compared as tuples, these give the order of a table's chunks by key, which only the server could tell.
    """

    schema: str
    table: str
    lower: KeyValues | None = None
    upper: KeyValues | None = None
    place: tuple[int, ...] = ()
    rows: int = 0
    bytes: int = 0
    seconds: float = 0.0
    error: str = ""


def channel_of(name: str) -> str:
    """The replay channel of a migration."""
    return f"migrate:{name}"
