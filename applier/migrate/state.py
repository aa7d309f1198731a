"""What a migration has done so far, kept on the target in a schema of our own.

Three tables: `migration` has a row for each migration with its phase, `tables` one for each table to copy, `chunks` one
for each range of keys that is copied (written in the transaction that has its rows) or that could not be.

One process works on a migration at a time: a user-level lock keeps a second one out, and the `owner` number fences off
one that was stalled and comes back, because everything that it writes names its number.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from applier.address import ServerAddress
from applier.errors import Fenced, LinkLost, MigrationTaken, PreflightFailed, UsageError
from applier.migrate.records import (
    CREATE,
    Chunk,
    Migration,
    Phase,
    TableProgress,
    TableState,
    channel_of,
)
from applier.migrate.state_session import StateSession
from applier.target import checkpoint
from applier.verify.definitions import MIGRATION_SCHEMA as SCHEMA
from applier.verify.expressions import KeyValues

LOCK_WAIT_SECONDS: Final = 5  # a process that has just ended may still hold the lock
SESSION_END_SECONDS: Final = 60.0
NAMES_MAX: Final = 1000  # in one statement

__all__ = ["Chunk", "Migration", "Phase", "State", "TableProgress", "TableState", "channel_of"]


class State(StateSession):
    """Reads and writes the state of one migration; safe for several threads.

    Without `acquire` it only reads. Raises what `connect` raises, LinkLost when the connection breaks.
    """

    def __init__(self, target: ServerAddress, name: str = "default") -> None:
        super().__init__(target)
        self.name = name
        self.owner = 0

    # --- owning ----------------------------------------------------------------------------------------

    def acquire(self) -> None:
        """Become the one process that works on this migration, which must be there.

        Raises MigrationTaken, UsageError."""
        self._lock()
        # Waits for what an earlier process is committing; after it, that process writes nothing more.
        changed = self._run(f"UPDATE {SCHEMA}.migration SET owner = owner + 1 WHERE name = %s", self.name)
        if not changed:
            raise UsageError(detail=f"the target {self.target.place} has no migration {self.name!r}")
        ((self.owner,),) = self._rows(f"SELECT owner FROM {SCHEMA}.migration WHERE name = %s", self.name)

    def take_over(self, seconds: float) -> None:
        """Become the one process that works on this migration, after the one that does has been told to stop (it asks
        `fenced` now and then) and has ended, for which it gets `seconds`.

        Raises MigrationTaken, UsageError."""
        self._run(f"UPDATE {SCHEMA}.migration SET owner = owner + 1 WHERE name = %s", self.name)
        self._rows("SELECT GET_LOCK(%s, %s)", f"{SCHEMA}:{self.name}", seconds)
        self.acquire()

    def fenced(self) -> bool:
        """Whether another process has taken over, or waits for us to end."""
        rows = self._rows(f"SELECT owner FROM {SCHEMA}.migration WHERE name = %s", self.name)
        return not rows or int(rows[0][0]) != self.owner

    def create(self, source_uuid: str, options: dict[str, Any]) -> None:
        """Begin a migration (or go on with the one that is there) and own it. Raises MigrationTaken."""
        for statement in CREATE:
            self._run(statement)
        self._lock()
        self._run(
            f"INSERT IGNORE INTO {SCHEMA}.migration (name, owner, phase, source_uuid, options, snapshot, facts, error)"
            " VALUES (%s, 0, %s, %s, %s, '', '{}', '')",
            self.name,
            Phase.PLANNED,
            source_uuid,
            json.dumps(options),
        )
        self.acquire()

    def _lock(self) -> None:
        ((got,),) = self._rows("SELECT GET_LOCK(%s, %s)", f"{SCHEMA}:{self.name}", LOCK_WAIT_SECONDS)
        if got != 1:
            raise MigrationTaken(name=self.name, place=self.target.place)

    def release(self) -> None:
        """Let another process work on the migration, as cut-over does while the source is followed."""
        self._rows("SELECT RELEASE_ALL_LOCKS()")  # it may have been taken more than once

    def channel_taken(self) -> bool:
        """Whether a replay follows the source now."""
        ((holder,),) = self._rows("SELECT IS_USED_LOCK(%s)", f"applier:{channel_of(self.name)}")
        return holder is not None

    def copy_rate(self) -> float:
        """Rows a second over the last minute, or over as long as there have been chunks."""
        ((rows, seconds),) = self._rows(
            "SELECT COALESCE(SUM(row_total), 0), TIMESTAMPDIFF(MICROSECOND, MIN(finished), CURRENT_TIMESTAMP(6)) / 1e6"
            f" FROM {SCHEMA}.chunks WHERE migration = %s AND finished > CURRENT_TIMESTAMP(6) - INTERVAL 1 MINUTE",
            self.name,
        )
        return float(rows) / max(float(seconds), 1.0) if rows else 0.0

    def applied_seconds_ago(self) -> float | None:
        """Since the replay's last commit; None when it has not begun, or is not for us to see."""
        try:
            rows = self._rows(
                "SELECT TIMESTAMPDIFF(MICROSECOND, updated, CURRENT_TIMESTAMP(6)) / 1e6"
                f" FROM {checkpoint.SCHEMA}.progress WHERE channel = %s",
                channel_of(self.name),
            )
        except PreflightFailed:
            return None
        return float(rows[0][0]) if rows else None

    def taken(self) -> bool:
        """Whether some process works on this migration now."""
        ((holder,),) = self._rows("SELECT IS_USED_LOCK(%s)", f"{SCHEMA}:{self.name}")
        return holder is not None

    # --- the migration ---------------------------------------------------------------------------------

    def read(self) -> Migration | None:
        """None when there is none."""
        rows = self._rows_if_there(
            "SELECT name, owner, phase, source_uuid, options, snapshot, facts, error, started, updated"
            f" FROM {SCHEMA}.migration WHERE name = %s",
            self.name,
        )
        if not rows:
            return None
        name, owner, phase, uuid, options, snapshot, facts, error, started, updated = rows[0]
        return Migration(
            str(name),
            int(owner),
            Phase(phase),
            str(uuid),
            json.loads(options),
            str(snapshot),
            json.loads(facts),
            str(error),
            started,
            updated,
        )

    def require(self) -> Migration:
        """The migration. Raises UsageError when there is none."""
        found = self.read()
        if found is None:
            raise UsageError(
                detail=f"the target {self.target.place} has no migration {self.name!r}: "
                "begin one with `applier migrate --source … --target … --schemas …`"
            )
        return found

    def names(self) -> list[str]:
        """Of all migrations into this target."""
        return [
            str(name) for (name,) in self._rows_if_there(f"SELECT name FROM {SCHEMA}.migration ORDER BY 1")
        ]

    def set_phase(self, phase: Phase, **facts: Any) -> None:
        """`facts` are noted in the same moment. Raises Fenced when another process has taken over."""
        self._write("phase = %s, error = '', facts = JSON_MERGE_PATCH(facts, %s)", phase, json.dumps(facts))

    def set_options(self, options: dict[str, Any]) -> None:
        self._write("options = %s", json.dumps(options))

    def set_snapshot(self, gtid_set: str) -> None:
        self._write("snapshot = %s", gtid_set)

    def set_error(self, error: str) -> None:
        self._write("error = %s", error)

    def note(self, **facts: Any) -> None:
        """Merge into the migration's facts; a value of None takes a fact out."""
        self._write("facts = JSON_MERGE_PATCH(facts, %s)", json.dumps(facts))

    def note_beside(self, **facts: Any) -> None:
        """As `note`, from a process that looks on while another works on the migration."""
        self._run(
            f"UPDATE {SCHEMA}.migration SET facts = JSON_MERGE_PATCH(facts, %s) WHERE name = %s",
            json.dumps(facts),
            self.name,
        )

    def _write(self, assignment: str, *values: object) -> None:
        # `updated` always changes, so a count of 0 means that the row is not ours.
        changed = self._run(
            f"UPDATE {SCHEMA}.migration SET {assignment}, updated = CURRENT_TIMESTAMP(6)"
            " WHERE name = %s AND owner = %s",
            *values,
            self.name,
            self.owner,
        )
        if not changed:
            raise Fenced(channel=self.name)

    # --- tables ----------------------------------------------------------------------------------------

    def tables(self) -> list[TableProgress]:
        """All tables of the migration with what is copied of each, by name."""
        rows = self._rows_if_there(
            "SELECT t.schema_name, t.table_name, t.state, t.definition, t.deferred, t.rows_estimated,"
            " t.bytes_estimated, t.error, COALESCE(SUM(IF(c.state = 'copied', c.row_total, 0)), 0),"
            " COALESCE(SUM(IF(c.state = 'copied', c.byte_total, 0)), 0),"
            " COALESCE(SUM(c.state = 'copied'), 0), COALESCE(SUM(c.state = 'failed'), 0)"
            f" FROM {SCHEMA}.tables t LEFT JOIN {SCHEMA}.chunks c USING (migration, schema_name, table_name)"
            " WHERE t.migration = %s GROUP BY t.migration, t.schema_name, t.table_name ORDER BY 1, 2",
            self.name,
        )
        return [
            TableProgress(
                str(schema),
                str(table),
                TableState(state),
                str(definition),
                tuple(json.loads(deferred)),
                int(estimated),
                int(size),
                str(error),
                *map(int, counts),
            )
            for schema, table, state, definition, deferred, estimated, size, error, *counts in rows
        ]

    def put_tables(self, tables: Sequence[TableProgress]) -> None:
        """Add tables, or replace what is known of them; their chunks stay."""
        with self._transaction():
            for one in tables:
                self._run(
                    f"REPLACE INTO {SCHEMA}.tables (migration, schema_name, table_name, state, definition, deferred,"
                    " rows_estimated, bytes_estimated, error) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
                    *(self.name, one.schema, one.table, one.state, one.definition, json.dumps(one.deferred)),
                    *(one.rows_estimated, one.bytes_estimated, one.error),
                )

    def set_table(self, schema: str, table: str, state: TableState) -> None:
        self.set_tables([(schema, table)], state)

    def set_tables(self, names: Iterable[tuple[str, str]], state: TableState) -> None:
        """All in one transaction."""
        listed = list(names)
        with self._transaction():
            for at in range(0, len(listed), NAMES_MAX):
                some = listed[at : at + NAMES_MAX]
                marks = ", ".join(["(%s, %s)"] * len(some))
                self._run(
                    f"UPDATE {SCHEMA}.tables SET state = %s, error = ''"
                    f" WHERE migration = %s AND (schema_name, table_name) IN ({marks})",
                    *(state, self.name, *itertools.chain(*some)),
                )

    def table_statement(self, schema: str, table: str, state: TableState) -> tuple[str, tuple[object, ...]]:
        """What notes a table's state, in a transaction that makes sure of the owner."""
        return (
            f"UPDATE {SCHEMA}.tables SET state = %s, error = ''"
            " WHERE migration = %s AND schema_name = %s AND table_name = %s",
            (state, self.name, schema, table),
        )

    def remove_table(self, schema: str, table: str) -> None:
        """Forget a table and its chunks."""
        with self._transaction():
            for name in ("chunks", "tables"):
                self._run(
                    f"DELETE FROM {SCHEMA}.{name} WHERE migration = %s AND schema_name = %s AND table_name = %s",
                    *(self.name, schema, table),
                )

    # --- chunks ----------------------------------------------------------------------------------------

    def chunks(self, schema: str, table: str, state: str = "copied") -> list[Chunk]:
        """Ranges of a table that are copied, or those that failed; in the order in which they were finished."""
        return self._chunks(" AND schema_name = %s AND table_name = %s AND state = %s", schema, table, state)

    def copied_chunks(self) -> list[Chunk]:
        """Likewise, those of all tables that are copied."""
        return self._chunks(" AND state = 'copied'")

    def _chunks(self, condition: str, *arguments: str) -> list[Chunk]:
        rows = self._rows(
            "SELECT schema_name, table_name, lower_key, upper_key, place, row_total, byte_total, seconds, error"
            f" FROM {SCHEMA}.chunks WHERE migration = %s{condition} ORDER BY number",
            *(self.name, *arguments),
        )
        return [
            Chunk(
                str(schema),
                str(table),
                _key(lower),
                _key(upper),
                tuple(json.loads(place)),
                int(count),
                int(size),
                float(seconds),
                str(error),
            )
            for schema, table, lower, upper, place, count, size, seconds, error in rows
        ]

    def owner_statement(self) -> tuple[str, tuple[object, ...]]:
        """What finds nothing when another process has taken over, and makes it wait for the end of our transaction."""
        return (
            f"SELECT 1 FROM {SCHEMA}.migration WHERE name = %s AND owner = %s FOR SHARE",
            (self.name, self.owner),
        )

    def chunk_statement(self, chunk: Chunk) -> tuple[str, tuple[object, ...]]:
        """What marks a chunk as copied, to be run in the transaction that has its rows.

        It inserts no row when another process has taken over: then roll back. The share lock makes a take-over
        wait for our commit."""
        return (
            f"INSERT INTO {SCHEMA}.chunks (migration, schema_name, table_name, state, lower_key, upper_key, place,"
            " row_total, byte_total, seconds, error) SELECT name, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s"
            f" FROM {SCHEMA}.migration WHERE name = %s AND owner = %s FOR SHARE",
            (
                *(chunk.schema, chunk.table, "failed" if chunk.error else "copied"),
                *(_json(chunk.lower), _json(chunk.upper), json.dumps(chunk.place)),
                *(chunk.rows, chunk.bytes, chunk.seconds),
                *(chunk.error, self.name, self.owner),
            ),
        )

    def add_failed(self, chunk: Chunk) -> None:
        """Note a range that could not be copied, `chunk.error` says why. Raises Fenced."""
        statement, arguments = self.chunk_statement(chunk)
        if not self._run(statement, *arguments):
            raise Fenced(channel=self.name)

    def remove_failed_chunks(self) -> None:
        """Forget what could not be copied: it is tried again."""
        with self._transaction():
            self._run(f"DELETE FROM {SCHEMA}.chunks WHERE migration = %s AND state = 'failed'", self.name)

    def remove_chunk(self, chunk: Chunk) -> None:
        """Forget one."""
        with self._transaction():
            self._run(
                f"DELETE FROM {SCHEMA}.chunks WHERE migration = %s AND schema_name = %s AND table_name = %s"
                " AND place = CAST(%s AS JSON)",
                *(self.name, chunk.schema, chunk.table, json.dumps(chunk.place)),
            )

    def has_chunk(self, chunk: Chunk) -> bool:
        """Whether it is marked as copied."""
        return any(one.place == chunk.place for one in self.chunks(chunk.schema, chunk.table))

    def end_session(self, number: int) -> None:
        """Ends a session of ours on the target whose connection broke, and waits until it has ended: it may be
        committing. Raises LinkLost."""
        deadline = time.monotonic() + SESSION_END_SECONDS
        with contextlib.suppress(PreflightFailed):  # it has ended
            self._run(f"KILL {number}")
        while self._rows("SELECT 1 FROM information_schema.processlist WHERE id = %s", number):
            if time.monotonic() > deadline:
                raise LinkLost(role="target", detail=f"session {number} does not end")
            time.sleep(0.05)

    # --- end -------------------------------------------------------------------------------------------

    def remove(self) -> None:
        """Forget the migration, and our schema with the last one."""
        with self._transaction():
            for name in ("chunks", "tables"):
                self._run(f"DELETE FROM {SCHEMA}.{name} WHERE migration = %s", self.name)
            self._run(f"DELETE FROM {SCHEMA}.migration WHERE name = %s", self.name)
        if not self.names():
            self._run(f"DROP DATABASE {SCHEMA}")

    # --- statements ------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """Commits at the end, if we still own the migration. Raises Fenced."""
        with self._lock_session:
            self._run("BEGIN")
            try:
                statement, arguments = self.owner_statement()
                if not self._rows(statement, *arguments):
                    raise Fenced(channel=self.name)
                yield
            except BaseException:
                with contextlib.suppress(LinkLost, PreflightFailed):
                    self._run("ROLLBACK")
                raise
            self._run("COMMIT")


def _key(text: str | None) -> KeyValues | None:
    return None if text is None else tuple(json.loads(text))


def _json(key: KeyValues | None) -> str | None:
    return None if key is None else json.dumps(key)
