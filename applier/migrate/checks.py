"""Preconditions of a migration: all of a replay's, and those of the copy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import pymysql

from applier.connection import Connection
from applier.migrate.settings import MigrateSettings
from applier.migrate.state import Phase, State
from applier.preflight import Finding, Report, Requirements, preflight
from applier.preflight.facts import NOT_TO_BE_SEEN, Server, read_server
from applier.preflight.findings import failure, ok, warning
from applier.verify.definitions import MIGRATION_SCHEMA as SCHEMA
from applier.verify.definitions import quoted

# Of the replay's checks these are about a target that has the tables already, or about GTIDs that we do not use.
NOT_OURS: Final = (
    "schema.tables",
    "schema.extra_tables",
    "schema.columns",
    "schema.keys",
    "gtids.",
    "target.privileges",
)
SHOWN_MAX: Final = 10


@dataclass(frozen=True, slots=True)
class Pair:
    """Both sides, and what is asked for."""

    source: Server
    target: Server
    settings: MigrateSettings
    going_on: bool  # the migration has begun: what it made on the target is its own

    def schemas(self, column: str) -> tuple[str, list[str]]:
        """A condition and its arguments."""
        return self.settings.selection.condition(column)


def check_migration(
    source: Connection[Any], target: Connection[Any], settings: MigrateSettings, state: State
) -> Report:
    """By reading only. Raises what PyMySQL raises when a link breaks."""
    general = preflight(
        source,
        target,
        Requirements(
            gtids="own", verify=True, allow_errant=True, allow_downstream=True, selection=settings.selection
        ),
    )
    findings = [one for one in general.findings if not one.name.startswith(NOT_OURS)]
    if any(one.name.startswith("server") and one.level == "failure" for one in findings):
        return Report(tuple(findings))
    found = state.read()
    going_on = found is not None and found.phase.reached(Phase.SCHEMA)
    pair = Pair(read_server(source, "source"), read_server(target, "target"), settings, going_on)
    for check in CHECKS:
        try:
            findings += check(pair)
        except pymysql.MySQLError as error:
            if error.args[0] not in NOT_TO_BE_SEEN:
                raise
            findings.append(warning(f"migrate.{check.__name__}", f"could not be looked at: {error.args[-1]}"))
    return Report(tuple(findings))


def schemas(it: Pair) -> Iterable[Finding]:
    there = {name for (name,) in it.source.query("SELECT schema_name FROM information_schema.schemata")}
    missing = [schema for schema in it.settings.schemas if schema not in there]
    if missing:
        yield failure(
            "migrate.schemas", f"the source has no {', '.join(missing)}", "name others with --schemas"
        )
    else:
        yield ok("migrate.schemas", ", ".join(it.settings.schemas))


def empty_target(it: Pair) -> Iterable[Finding]:
    if it.going_on:
        yield ok("migrate.target_empty", "this migration has made what is there")
        return
    condition, arguments = it.schemas("table_schema")
    rows = it.target.query(
        f"SELECT table_schema, COUNT(*) FROM information_schema.tables WHERE {condition} GROUP BY 1",
        *arguments,
    )
    if rows:
        shown = ", ".join(f"{schema} ({count} tables)" for schema, count in rows)
        yield failure(
            "migrate.target_empty",
            f"the target has tables in {shown}; they would be mixed up with the source's",
            "; ".join(f"DROP DATABASE {quoted(schema)}" for schema, _ in rows),
        )
    else:
        yield ok("migrate.target_empty", "none of the schemas has tables on the target")


def source_rights(it: Pair) -> Iterable[Finding]:
    grants, account = it.source.grants, it.source.account
    for schema in it.settings.schemas:
        # A table that the account does not see would be left behind, and not be missed by any comparison.
        if grants.lacking(["SELECT"], schema):
            yield failure(
                f"migrate.source.{schema}",
                f"SELECT missing on {schema} as a whole: tables that cannot be seen would not be copied",
                f"GRANT SELECT ON {quoted(schema)}.* TO {account}",
            )
    lacking = [
        right
        for right in ("SHOW VIEW", "TRIGGER", "EVENT")
        if any(grants.lacking([right], s) for s in it.settings.schemas)
    ]
    if lacking:
        yield warning(
            "migrate.source.definitions",
            f"{', '.join(lacking)} missing: what they show would not be copied",
            f"GRANT {', '.join(lacking)} ON *.* TO {account}",
        )
    else:
        yield ok("migrate.source.definitions", "views, triggers and events can be read")
    if not grants.holds_any(("SHOW_ROUTINE", "SUPER")):
        yield warning(
            "migrate.source.routines",
            "the source text of routines of others cannot be read",
            f"GRANT SHOW_ROUTINE ON *.* TO {account}",
        )
    if not grants.holds_any(("RELOAD", "FLUSH_TABLES", "SUPER")):
        yield warning(
            "migrate.source.lock",
            "no FLUSH TABLES WITH READ LOCK: on a busy source the snapshots may not be had",
            f"GRANT RELOAD ON *.* TO {account}",
        )
    if not grants.holds_any(("BACKUP_ADMIN", "SUPER")):
        yield warning(
            "migrate.source.backup_lock",
            "no LOCK INSTANCE FOR BACKUP: DDL on the copied tables, and all behind it, waits until the copy is over",
            f"GRANT BACKUP_ADMIN ON *.* TO {account}",
        )


def target_rights(it: Pair) -> Iterable[Finding]:
    own = ("CREATE", "DROP", "INSERT", "UPDATE", "DELETE", "SELECT")
    needed = (*own, "ALTER", "INDEX", "REFERENCES")
    for schema in (*it.settings.schemas, SCHEMA):
        lacking = it.target.grants.lacking(own if schema == SCHEMA else needed, schema)
        if lacking:
            names = ", ".join(lacking)
            yield failure(
                f"migrate.target.{schema}",
                f"{names} missing on {schema}",
                f"GRANT {names} ON {quoted(schema)}.* TO {it.target.account}",
            )
    if it.target.is_on("local_infile"):
        yield ok("migrate.target.local_infile", "ON")
    else:
        yield warning(
            "migrate.target.local_infile",
            "OFF: rows go in by INSERT, which is slower",
            "SET GLOBAL local_infile = ON",
        )
    if not it.settings.target_binlog and not it.target.grants.holds_any(
        ("SESSION_VARIABLES_ADMIN", "SYSTEM_VARIABLES_ADMIN", "SUPER")
    ):
        yield failure(
            "migrate.target.sql_log_bin",
            "--no-target-binlog needs SESSION_VARIABLES_ADMIN",
            f"GRANT SESSION_VARIABLES_ADMIN ON *.* TO {it.target.account}",
        )


def row_images(it: Pair) -> Iterable[Finding]:
    image = it.source.variable("binlog_row_image")
    if image == "FULL":
        yield ok("migrate.binlog_row_image", image)
    else:
        yield warning(
            "migrate.binlog_row_image",
            f"{image}: the catch-up folds nothing, so it is slower",
            "SET PERSIST binlog_row_image = FULL  -- on the source",
        )


def objects(it: Pair) -> Iterable[Finding]:
    """What is there and worth knowing before."""
    for label, table, column in (
        ("views", "views", "table_schema"),
        ("routines", "routines", "routine_schema"),
        ("triggers", "triggers", "trigger_schema"),
        ("events", "events", "event_schema"),
    ):
        condition, arguments = it.schemas(column)
        ((count,),) = it.source.query(
            f"SELECT COUNT(*) FROM information_schema.{table} WHERE {condition}", *arguments
        )
        note = ": disabled on the target until cut-over" if label == "events" and count else ""
        yield ok(f"migrate.{label}", f"{count}{note}")
    condition, arguments = it.schemas("constraint_schema")
    rows = it.source.query(
        "SELECT constraint_schema, table_name, unique_constraint_schema FROM"
        f" information_schema.referential_constraints WHERE {condition}",
        *arguments,
    )
    outside = [f"{s}.{t} to {p}" for s, t, p in rows if p not in it.settings.schemas]
    if outside:
        yield failure(
            "migrate.foreign_keys",
            f"refer to schemas that are not migrated: {_listed(outside)}",
            "add them to --schemas, or drop the foreign keys",
        )
    else:
        yield ok("migrate.foreign_keys", f"{len(rows)}")
    condition, arguments = it.schemas("table_schema")
    ((generated,),) = it.source.query(
        f"SELECT COUNT(*) FROM information_schema.columns WHERE generation_expression <> '' AND {condition}",
        *arguments,
    )
    yield ok("migrate.generated_columns", f"{generated}: computed by the target")


def definers(it: Pair) -> Iterable[Finding]:
    """An object whose definer is missing fails when it is used, not when it is made."""
    parts, arguments = [], []
    for table, column in (
        ("views", "table_schema"),
        ("routines", "routine_schema"),
        ("triggers", "trigger_schema"),
        ("events", "event_schema"),
    ):
        condition, more = it.schemas(column)
        parts.append(f"SELECT definer FROM information_schema.{table} WHERE {condition}")
        arguments += more
    wanted = {str(one) for (one,) in it.source.query(" UNION ".join(parts), *arguments)}
    there = {f"{user}@{host}" for user, host in it.target.query("SELECT user, host FROM mysql.user")}
    missing = sorted(wanted - there)
    if missing and not it.settings.accounts:
        yield warning(
            "migrate.definers",
            f"not on the target: {_listed(missing)}",
            "create them there, or use --accounts",
        )
    else:
        yield ok("migrate.definers", "all on the target" if not missing else "come with --accounts")


def character_sets(it: Pair) -> Iterable[Finding]:
    condition, arguments = it.schemas("table_schema")
    used = {
        name
        for (name,) in it.source.query(
            "SELECT DISTINCT collation_name FROM information_schema.columns"
            f" WHERE collation_name IS NOT NULL AND {condition}",
            *arguments,
        )
    }
    known = {name for (name,) in it.target.query("SELECT collation_name FROM information_schema.collations")}
    missing = sorted(used - known)
    if missing:
        yield failure(
            "migrate.collations",
            f"unknown to the target: {_listed(missing)}",
            "convert the columns, or take a newer target",
        )
    else:
        yield ok("migrate.collations", f"{len(used)}, all known to the target")


def engines(it: Pair) -> Iterable[Finding]:
    """A consistent snapshot shows tables of InnoDB only."""
    condition, arguments = it.schemas("table_schema")
    rows = it.source.query(
        "SELECT table_schema, table_name, engine FROM information_schema.tables"
        f" WHERE table_type = 'BASE TABLE' AND engine <> 'InnoDB' AND {condition}",
        *arguments,
    )
    if rows:
        yield failure(
            "migrate.engines",
            f"not InnoDB, so no snapshot shows them: {_listed([f'{s}.{t} ({e})' for s, t, e in rows])}",
            "ALTER TABLE … ENGINE=InnoDB",
        )
    else:
        yield ok("migrate.engines", "InnoDB only")


def json_values(it: Pair) -> Iterable[Finding]:
    """JSON text does not tell a DECIMAL, a date or a BLOB inside a document from a number or a string."""
    condition, arguments = it.schemas("table_schema")
    rows = it.source.query(
        "SELECT DISTINCT table_schema, table_name FROM information_schema.columns"
        f" WHERE data_type = 'json' AND {condition}",
        *arguments,
    )
    if rows:
        yield warning(
            "migrate.json",
            f"{len(rows)} table(s) with JSON: a DECIMAL, date or BLOB that SQL functions put into a document comes"
            " out as number or string, as with every copy of its text; documents that came as text are exact",
        )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN_MAX} more" if len(names) > SHOWN_MAX else ""
    return ", ".join(names[:SHOWN_MAX]) + more


CHECKS: tuple[Callable[[Pair], Iterable[Finding]], ...] = (
    *(
        schemas,
        empty_target,
        source_rights,
        target_rights,
        row_images,
        objects,
        definers,
        character_sets,
        engines,
        json_values,
    ),
)
