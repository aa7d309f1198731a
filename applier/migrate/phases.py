"""The phases of a migration, one after the other, each beginning where the state says it was left."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

import pymysql

from applier.address import ServerAddress
from applier.connection import connect
from applier.errors import DataError, Refused, Temporary, UsageError
from applier.migrate import way_back
from applier.migrate.accounts import copy_accounts
from applier.migrate.chunks import CopyTable, copy_table
from applier.migrate.copy import Copier, in_order
from applier.migrate.definitions import Code, Definitions, read_definitions
from applier.migrate.load import WriteSettings
from applier.migrate.progress import CopyProgress
from applier.migrate.resume import prepare_tables, replay_settings
from applier.migrate.schema_copy import (
    TableMaker,
    build_indexes,
    create_code,
    create_databases,
    note_tables,
    same_table,
)
from applier.migrate.server import Server, opened
from applier.migrate.settings import MigrateSettings
from applier.migrate.snapshot import Snapshot, SnapshotLost
from applier.migrate.state import Phase, State
from applier.migrate.throttle import Throttle
from applier.replay import Replay
from applier.selection import Schemas
from applier.target import checkpoint
from applier.verify.definitions import Session, TableName, query, readable_tables
from applier.verify.sessions import SETTINGS

log = logging.getLogger(__name__)

SNAPSHOTS_MAX: Final = 10
AVERAGE_ROW_BYTES: Final = 100

Told = Callable[[str], None]


def begin(settings: MigrateSettings, state: State) -> None:
    """Owns the migration, which is begun unless it is there. Raises UsageError when it is another one."""
    source = connect(settings.source)
    try:
        ((uuid,),) = query(source, "SELECT @@GLOBAL.server_uuid")
    finally:
        source.close()
    there = state.read()
    if there is not None:
        if there.source_uuid != uuid:
            raise UsageError(detail=f"migration {state.name!r} is from another source: give another --name")
        if sorted(there.options["schemas"]) != sorted(settings.schemas):
            named = ",".join(there.options["schemas"])
            raise UsageError(
                detail=f"migration {state.name!r} is of the schemas {named}: give another --name"
            )
    else:
        _forget_cut_over(settings)
    state.create(str(uuid), settings.as_options())
    state.set_options(settings.as_options())


def _forget_cut_over(settings: MigrateSettings) -> None:
    """Of an earlier migration by that name, whose target was abandoned."""
    with contextlib.suppress(Refused):  # then there has been none: it needs more privileges than a copy
        source = Server(settings.source, settings.selection)
        with opened(source):
            way_back.forget(source, settings.name)


# --- schema and rows ---------------------------------------------------------------------------------------


def copy_schema(settings: MigrateSettings, state: State) -> None:
    """Databases and tables, without rows; whatever is noted as copied stays."""
    phase = state.require().phase
    if phase.reached(Phase.INDEXES):
        return
    if not phase.reached(Phase.COPY):
        state.set_phase(Phase.SCHEMA)
    source = connect(settings.source)
    try:
        query(source, SETTINGS)
        definitions = read_definitions(source, settings.schemas)
        create_databases(settings, definitions)
        new = note_tables(settings, state, definitions, _estimates(source, settings))
        with TableMaker(settings, state, new, settings.threads) as made:
            made.wait_for_all()
    finally:
        source.close()
    state.set_phase(Phase.COPY)


def copy_rows(settings: MigrateSettings, state: State, progress: CopyProgress) -> None:
    """All rows, from one snapshot, or from a newer one if that is lost; and databases and tables that are not there
    yet. Raises DataError for chunks that failed."""
    if state.require().phase.reached(Phase.INDEXES):
        return
    state.set_phase(Phase.COPY)
    for _ in range(SNAPSHOTS_MAX):
        try:
            _copy_rows(settings, state, progress)
            break
        except SnapshotLost as error:
            log.warning("a new snapshot is needed", extra={"detail": str(error)})
    else:
        raise Temporary(attempts=SNAPSHOTS_MAX, detail="the source's snapshots were lost again and again")
    failed = [table for table in state.tables() if table.chunks_failed]
    if failed:
        shown = "; ".join(_failed_chunks(state, *table.name) for table in failed)
        raise DataError(
            detail=f"everything is copied but for {sum(one.chunks_failed for one in failed)} chunk(s): {shown}. "
            "Mend the cause and run the same command again: it copies only what is missing"
        )
    state.set_phase(Phase.INDEXES)


def _failed_chunks(state: State, schema: str, table: str) -> str:
    chunks = state.chunks(schema, table, state="failed")
    ranges = ", ".join(f"keys above {one.lower} up to {one.upper}: {one.error}" for one in chunks[:3])
    return f"{schema}.{table}, {ranges}"


def _copy_rows(settings: MigrateSettings, state: State, progress: CopyProgress) -> None:
    snapshot = Snapshot(settings.source, settings.threads)
    try:
        definitions = read_definitions(snapshot.control, settings.schemas)
        estimates = _estimates(snapshot.control, settings)
        create_databases(settings, definitions)
        new = note_tables(settings, state, definitions, estimates)
        tables = _copy_tables(snapshot.control, settings, estimates)
        held = snapshot.open(
            [one.table for one in tables.values()],
            allow_lock=settings.allow_lock,
            lock_seconds_max=settings.lock_seconds_max,
        )
        if _differ(definitions, read_definitions(snapshot.control, settings.schemas)):
            raise SnapshotLost("a definition changed while the snapshot was being opened")
        log.info("snapshot open", extra={"gtid_set": held.gtid_set, "held": str(held)})
        state.note(
            locked_seconds=held.locked_seconds,
            lock_waited_seconds=held.waited_seconds,
            held=str(held),
            # Made after the rows, but as they are now: later changes of them are in the log.
            code=[asdict(one) for one in definitions.code],
        )
        absent = {table.name for table in new}
        resumed = prepare_tables(settings, state, tables, absent, snapshot.sessions, held.gtid_set)
        _begin_progress(progress, state, resumed.parts)
        write = write_settings(settings)
        parts = in_order(resumed.parts)
        places = {part.table.name: place for place, part in enumerate(parts)}
        new.sort(key=lambda table: places.get(table.name, len(parts)))
        with (
            TableMaker(settings, state, new, sessions=1) as made,
            Throttle(settings, progress) as throttle,
        ):
            Copier(settings, state, write, progress, throttle, made).run(snapshot.sessions, parts)
    finally:
        snapshot.close()


def _differ(before: Definitions, after: Definitions) -> bool:
    if before.tables.keys() != after.tables.keys() or before.code != after.code:
        return True
    return not all(same_table(text, after.tables[name]) for name, text in before.tables.items())


def _estimates(session: Session, settings: MigrateSettings) -> dict[TableName, tuple[int, int]]:
    """Rows and bytes of each table, as the server guesses."""
    condition, arguments = settings.selection.condition("table_schema")
    rows = query(
        session,
        "SELECT table_schema, table_name, COALESCE(table_rows, 0), COALESCE(data_length, 0)"
        f" FROM information_schema.tables WHERE table_type = 'BASE TABLE' AND {condition}",
        arguments,
    )
    return {(schema, name): (int(count), int(size)) for schema, name, count, size in rows}


def _copy_tables(
    session: Session, settings: MigrateSettings, estimates: dict[TableName, tuple[int, int]]
) -> dict[TableName, CopyTable]:
    condition, arguments = settings.selection.condition("table_schema")
    partitions = {
        (schema, name): int(count)
        for schema, name, count in query(
            session,
            "SELECT table_schema, table_name, COUNT(partition_name) FROM information_schema.partitions"
            f" WHERE {condition} GROUP BY 1, 2",
            arguments,
        )
    }
    found = {}
    for name, table in readable_tables(session, settings.selection).items():
        rows, size = estimates.get(name, (0, 0))
        row_bytes = size // rows if rows else AVERAGE_ROW_BYTES
        found[name] = copy_table(table, row_bytes, max(1, partitions.get(name, 1)))
    return found


def _begin_progress(progress: CopyProgress, state: State, parts: list[Any]) -> None:
    tables = state.tables()
    with progress.lock:
        progress.tables = len(tables)
        progress.tables_done = len(tables) - len({str(part.table.table) for part in parts})
        progress.rows_estimated = sum(part.table.table.rows_estimated for part in parts)


def write_settings(settings: MigrateSettings) -> WriteSettings:
    """What the target permits."""
    session = connect(settings.target)
    try:
        ((local, packet),) = query(session, "SELECT @@GLOBAL.local_infile, @@GLOBAL.max_allowed_packet")
    finally:
        session.close()
    load = settings.load_data and bool(local)
    if settings.load_data and not load:
        log.warning("the target has local_infile = OFF: rows go in by INSERT, which is slower")
    return WriteSettings(load_data=load, binlog=settings.target_binlog, packet_bytes_max=int(packet))


def forget_progress(target: ServerAddress, channel: str) -> None:
    """Takes the replay's progress row away, and the schema with the last one."""
    session = connect(target)
    try:
        if query(
            session, "SELECT 1 FROM information_schema.tables WHERE table_schema = %s", (checkpoint.SCHEMA,)
        ):
            query(session, f"DELETE FROM {checkpoint.SCHEMA}.progress WHERE channel = %s", (channel,))
            if not query(session, f"SELECT 1 FROM {checkpoint.SCHEMA}.progress LIMIT 1"):
                query(session, f"DROP DATABASE {checkpoint.SCHEMA}")
    finally:
        session.close()


# --- after the rows ----------------------------------------------------------------------------------------


def build(settings: MigrateSettings, state: State, told: Told) -> None:
    """Indexes and foreign keys, then routines, views, triggers and events."""
    if state.require().phase is Phase.INDEXES:
        build_indexes(settings, state, told)
        state.set_phase(Phase.OBJECTS)
    if state.require().phase is Phase.OBJECTS:
        create_code(settings, [Code(**one) for one in state.require().facts.get("code", [])])
        if settings.accounts:
            source = connect(settings.source)
            try:
                state.note(accounts=copy_accounts(source, settings, state))
            except pymysql.MySQLError as error:
                raise DataError(detail=f"accounts could not be read: {error.args[-1]}") from error
            finally:
                source.close()
        state.set_phase(Phase.CATCH_UP)


def catch_up(settings: MigrateSettings, **changes: Any) -> Replay:
    """The replay that follows the source from the copy's GTID set on; it is not running yet."""
    return Replay(replay_settings(settings, selection=Schemas(settings.schemas), **changes))
