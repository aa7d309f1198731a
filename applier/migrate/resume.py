"""Going on with a copy that was interrupted: what is copied shows an older GTID set than the snapshot of today.

Nothing that is copied may stay as it was, and little of it needs to be copied again:

*Tables that are complete* show exactly the GTID set of the progress row. The log from there to the new snapshot is
replayed, of it only these tables' rows. Afterwards they show exactly the new snapshot.

*Tables of which chunks are missing* cannot be replayed into: an UPDATE that moves a row from a part that is not copied
yet into one that is would find nothing to move. Nor can children of foreign keys that cascade: the target has no
foreign keys yet, and not every source logs what a cascade did. Their chunks are compared with the new snapshot, by
checksums that the servers make; one that differs is copied again, the others stay. The same is done with complete
tables where the log cannot help: it is purged, or has DDL for the table.

So before the first row is copied from the new snapshot, everything on the target is as that snapshot shows it, and one
GTID set describes it all.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pymysql

from applier.connection import Connection
from applier.errors import ApplyError, DataError, LinkLost, SourceError
from applier.events.gtid import GtidSet
from applier.migrate.chunks import CopyTable, Part, parts_left
from applier.migrate.schema_copy import ddl_session
from applier.migrate.settings import MigrateSettings
from applier.migrate.state import Chunk, State, TableState
from applier.pipeline import PipelineSettings
from applier.replay import Replay
from applier.selection import CopiedTables
from applier.settings import RunSettings
from applier.target.checkpoint import Checkpoint, GtidMode
from applier.verify import expressions as sql
from applier.verify.definitions import Session, TableName, qualified, query
from applier.verify.sessions import open_session, read
from applier.verify.work import Work
from scheduler.grouping import GroupLimits

log = logging.getLogger(__name__)

GROUP_TRANSACTIONS = 1000
CASCADE_CHILDREN = """SELECT constraint_schema, table_name FROM information_schema.referential_constraints
WHERE delete_rule IN ('CASCADE', 'SET NULL') OR update_rule IN ('CASCADE', 'SET NULL')"""


@dataclass(slots=True)
class Resumed:
    """What there was of an earlier copy."""

    tables_replayed: int = 0
    chunks_kept: int = 0
    chunks_changed: int = 0
    parts: list[Part] = field(default_factory=list)


def replay_settings(settings: MigrateSettings, **changes: Any) -> RunSettings:
    """Of a replay in its fastest settings."""
    wanted: dict[str, Any] = {
        "source": settings.source,
        "target": settings.target,
        "pipeline": PipelineSettings(
            workers=settings.workers,
            group=GroupLimits(GROUP_TRANSACTIONS),
            net_changes=True,
            target_gtids="own",
        ),
        "channel": settings.channel,
        "check": False,
    }
    return RunSettings(**(wanted | changes))


def prepare_tables(
    settings: MigrateSettings,
    state: State,
    tables: dict[TableName, CopyTable],
    absent: Set[TableName],
    readers: Sequence[Session],
    gtid_set: str,
) -> Resumed:
    """Makes what is copied show `gtid_set`, the readers' snapshots; gives what is left to copy. Empties the rest,
    but for tables that are `absent` yet.

    Raises LinkLost, DataError and others of our errors."""
    resumed = Resumed()
    known = {table.name: table for table in state.tables()}
    state.remove_failed_chunks()
    chunks = _copied_chunks(state, tables)
    complete = {
        name
        for name, copied in chunks.items()
        if copied
        and known[name].state in (TableState.COPIED, TableState.READY)
        and not parts_left(tables[name], copied)
    }
    complete -= cascade_children(readers[0])
    if complete:
        spoilt = _replay(settings, state, complete, gtid_set)
        resumed.tables_replayed = len(complete - spoilt)
        complete -= spoilt
    with Checkpoint(settings.target, GtidMode.OWN, settings.channel) as checkpoint:
        checkpoint.start_from(GtidSet.parse(gtid_set))
    state.set_snapshot(gtid_set)
    compared = [chunk for name, copied in chunks.items() if name not in complete for chunk in copied]
    _compare(settings, state, tables, readers, compared, resumed)
    _empty(settings, state, tables, absent, complete, resumed)
    return resumed


def _copied_chunks(state: State, tables: Iterable[TableName]) -> dict[TableName, list[Chunk]]:
    """Of each table, in one question."""
    found: dict[TableName, list[Chunk]] = {name: [] for name in tables}
    for chunk in state.copied_chunks():
        if (chunk.schema, chunk.table) in found:
            found[chunk.schema, chunk.table].append(chunk)
    return found


def cascade_children(source: Session) -> set[TableName]:
    """Tables whose rows change when those of a parent do."""
    return {(schema, table) for schema, table in query(source, CASCADE_CHILDREN)}


def _replay(
    settings: MigrateSettings, state: State, complete: Iterable[TableName], gtid_set: str
) -> set[TableName]:
    """Brings complete tables to `gtid_set`; gives those that could not be."""
    spoilt: set[TableName] = set()

    def spoil(name: TableName) -> None:
        # Noted before the statement can count as applied: a process killed after that must know.
        state.set_table(*name, TableState.COPYING)
        spoilt.add(name)

    selection = CopiedTables(settings.schemas, complete, spoil)
    replay = Replay(replay_settings(settings, until_gtid_set=gtid_set, selection=selection))
    log.info("bringing copied tables to the new snapshot", extra={"tables": len(selection.tables)})
    try:
        replay.run()
    except (SourceError, ApplyError, DataError) as error:
        log.warning("copied tables are compared instead of replayed", extra={"detail": str(error)})
        for name in set(complete) - spoilt:
            spoil(name)
    return spoilt


# --- chunks of incomplete tables ---------------------------------------------------------------------------


def _compare(
    settings: MigrateSettings,
    state: State,
    tables: dict[TableName, CopyTable],
    readers: Sequence[Session],
    chunks: Sequence[Chunk],
    resumed: Resumed,
) -> None:
    """Forgets the chunks that are not as the snapshot shows them."""
    work = Work(chunks)

    def worker(reader: Session) -> None:
        target = open_session(settings.target)
        try:
            while (chunk := work.take()) is not None:
                try:
                    table = tables[chunk.schema, chunk.table]
                    where = sql.where_range(table.table, chunk.lower, chunk.upper) if table.has_key else ""
                    statement = sql.checksum_statement(table.table, where)
                    if _text(read(reader, statement)) == _text(read(target, statement)):
                        resumed.chunks_kept += 1
                    else:
                        resumed.chunks_changed += 1
                        state.remove_chunk(chunk)
                finally:
                    work.done()
        except pymysql.MySQLError as error:
            raise LinkLost(role="server", detail=str(error.args[-1])) from error
        finally:
            target.close()

    if chunks:
        log.info("comparing chunks with the new snapshot", extra={"chunks": len(chunks)})
        work.run([partial(worker, reader) for reader in readers], lambda: None)


def _text(rows: list[tuple[Any, ...]]) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else str(value) for row in rows for value in row]


def _empty(
    settings: MigrateSettings,
    state: State,
    tables: dict[TableName, CopyTable],
    absent: Set[TableName],
    complete: set[TableName],
    resumed: Resumed,
) -> None:
    """Nothing may stand where rows will be copied to."""
    known = {table.name: table for table in state.tables()}
    chunks = _copied_chunks(state, tables)
    copying: list[TableName] = []
    copied_already: list[TableName] = []
    with ddl_session(settings) as session:
        for name, table in tables.items():
            if name in complete:
                continue
            copied = chunks[name]
            parts = parts_left(table, copied)
            if not copied:
                # Usually it is empty or not even there: TRUNCATE would make it again.
                if name not in absent and query(session, f"SELECT 1 FROM {qualified(table.table)} LIMIT 1"):
                    query(session, f"TRUNCATE TABLE {qualified(table.table)}")
            else:
                for part in parts:
                    _delete(session, part)
            if parts:
                resumed.parts += parts
                copying.append(name)
            elif known[name].state not in (TableState.COPIED, TableState.READY):
                copied_already.append(name)
    state.set_tables(copying, TableState.COPYING)
    state.set_tables(copied_already, TableState.COPIED)


def _delete(session: Connection[Any], part: Part) -> None:
    while _execute(session, f"DELETE FROM {qualified(part.table.table)}{part.where} LIMIT 100000"):
        pass


def _execute(session: Connection[Any], statement: str) -> int:
    with session.cursor() as cursor:
        return int(cursor.execute(statement))
