"""Checks of privileges: whatever the run will need, on either side.

BINLOG without the privileges on a table fails with error 1105 "Unknown error" and nothing more, in the middle
of a run; so they are looked at before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from applier.preflight.facts import Server, Situation
from applier.preflight.findings import Finding, Level, failure, ok, warning
from applier.verify.definitions import OWN_SCHEMA, quoted

ROWS = ("INSERT", "UPDATE", "DELETE")
PROGRESS = ("CREATE", "SELECT", "INSERT", "UPDATE")
# What each kind of statement in the log may need when it is carried out again.
DDL = (
    *("CREATE", "ALTER", "DROP", "INDEX", "REFERENCES", "CREATE VIEW", "SHOW VIEW", "TRIGGER"),
    *("CREATE ROUTINE", "ALTER ROUTINE", "EVENT", "EXECUTE", "LOCK TABLES", "CREATE TEMPORARY TABLES"),
    "RELOAD",  # FLUSH TABLES is in the log
)
ACCOUNTS = ("CREATE USER", "ROLE_ADMIN", "SYSTEM_USER")
LOCK_TABLES = ("data_lock_waits", "data_locks", "threads")  # of the performance schema
SCHEMAS_SHOWN_MAX = 5
TAG = re.compile(r":[a-z_]", re.IGNORECASE)  # in a GTID set: uuid:tag:1-3


def source_privileges(it: Situation) -> Iterable[Finding]:
    source = it.source
    yield _held(source, ("REPLICATION SLAVE",), Level.FAILURE, "needed to read the binary log")
    why = "needed to show how far the source's log reaches"
    yield _held(source, ("REPLICATION CLIENT",), Level.WARNING, why)


def target_apply(it: Situation) -> Iterable[Finding]:
    target, grouped = it.target, it.requirements.gtids == "purged"
    appliers = ("REPLICATION_APPLIER", "BINLOG_ADMIN", "SUPER")
    yield _held(target, appliers, Level.FAILURE, "needed for BINLOG and gtid_next")
    setters = ("SESSION_VARIABLES_ADMIN", "SYSTEM_VARIABLES_ADMIN", "SUPER")
    if grouped:
        yield _held(target, setters, Level.FAILURE, "needed for sql_log_bin")
        yield _held(target, setters[1:], Level.FAILURE, "needed for SET GLOBAL gtid_purged")
    else:
        why = "statements in the log may have been written under restricted session variables"
        yield _held(target, setters, Level.WARNING, why)


def _held(server: Server, privileges: Sequence[str], level: Level, why: str) -> Finding:
    """One of these is enough; the first is the one to grant."""
    name = f"privileges.{server.role}.{privileges[0]}"
    if server.grants.holds_any(privileges):
        return ok(name, "held")
    return Finding(name, level, f"missing: {why}", f"GRANT {privileges[0]} ON *.* TO {server.account}")


def target_progress(it: Situation) -> Iterable[Finding]:
    """The progress row, which groups write with their changes; and the table for it, at the first start."""
    if it.requirements.gtids == "kept":
        return
    lacking = it.target.grants.lacking(PROGRESS, OWN_SCHEMA)
    name = "privileges.target.progress"
    if lacking:
        names = ", ".join(lacking)
        yield failure(
            name,
            f"{names} missing on {OWN_SCHEMA}, where progress is kept",
            f"GRANT {names} ON {quoted(OWN_SCHEMA)}.* TO {it.target.account}",
        )
    else:
        yield ok(name, f"may keep progress in {OWN_SCHEMA}")


def target_rows(it: Situation) -> Iterable[Finding]:
    """INSERT, UPDATE, DELETE on everything that the source has."""
    yield from _on_data(it.target, it, ROWS, "rows", Level.FAILURE)


def target_statements(it: Situation) -> Iterable[Finding]:
    """DDL and account statements: nothing tells in advance whether the log has any."""
    target = it.target
    name = "privileges.target.statements"
    lacking = target.grants.lacking([*DDL, *ACCOUNTS])
    if it.target.version >= (8, 2, 0) and not target.grants.holds_any(("SET_ANY_DEFINER", "SUPER")):
        lacking.append("SET_ANY_DEFINER")
    if lacking:
        yield warning(
            name,
            f"missing: {', '.join(lacking)}; a statement in the log that needs one would stop the run",
            f"GRANT {', '.join(lacking)} ON *.* TO {target.account}",
        )
    else:
        yield ok(name, "whatever DDL and account statements need is held")


def target_lock_waits(it: Situation) -> Iterable[Finding]:
    """Who waits for whom: without it others are rolled back on suspicion, see `applier.target.lock_waits`."""
    name, target = "privileges.target.performance_schema", it.target
    lacking = [
        table for table in LOCK_TABLES if not target.grants.holds("SELECT", "performance_schema", table)
    ]
    if not target.is_on("performance_schema"):
        yield warning(
            name,
            "OFF: a lock that a later transaction holds before an earlier one is looked for by guessing",
            "start the target with performance_schema=ON",
        )
    elif lacking:
        yield warning(
            name,
            f"SELECT missing on {', '.join(lacking)}: a lock that a later transaction holds before an earlier one is"
            " looked for by guessing",
            f"GRANT SELECT ON performance_schema.* TO {target.account}",
        )
    else:
        yield ok(name, "lock waits can be seen")


def target_functions(it: Situation) -> Iterable[Finding]:
    """CREATE FUNCTION and CREATE TRIGGER (error 1419)."""
    name, target = "target.log_bin_trust_function_creators", it.target
    if (
        target.grants.holds("SUPER")
        or target.is_on("log_bin_trust_function_creators")
        or not target.is_on("log_bin")
    ):
        yield ok(name, "functions and triggers can be created")
    else:
        yield warning(
            name,
            "OFF, and the account lacks SUPER: a function or trigger that is created on the source would stop the run",
            "SET PERSIST log_bin_trust_function_creators = ON",
        )


def target_tags(it: Situation) -> Iterable[Finding]:
    """Error 6038 at the first transaction with a tag in its GTID."""
    name, target = "privileges.target.TRANSACTION_GTID_TAG", it.target
    if it.requirements.gtids == "own" or not TAG.search(it.source_executed):
        yield ok(name, "the source's GTIDs have no tags")
    elif target.grants.holds("TRANSACTION_GTID_TAG"):
        yield ok(name, "held")
    else:
        yield failure(
            name,
            "missing: the source's GTIDs have tags",
            f"GRANT TRANSACTION_GTID_TAG ON *.* TO {target.account}",
        )


def reading(it: Situation) -> Iterable[Finding]:
    """SELECT, with which `applier verify` compares."""
    level = Level.FAILURE if it.requirements.verify else Level.WARNING
    for server in it.servers:
        yield from _on_data(server, it, ("SELECT",), "SELECT", level)


def _on_data(
    server: Server, it: Situation, privileges: Sequence[str], label: str, level: Level
) -> Iterable[Finding]:
    """The privileges on everything, on the schemas asked for, or at least on every table that either side shows us."""
    name = f"privileges.{server.role}.{label}"
    wanted = ", ".join(privileges)
    grants = server.grants
    if not grants.lacking(privileges):
        yield ok(name, f"{wanted} on everything")
        return
    schemas_asked = it.requirements.selection.schemas
    if schemas_asked and not any(grants.lacking(privileges, schema) for schema in schemas_asked):
        yield ok(name, f"{wanted} on {', '.join(schemas_asked)}")
        return
    tables = sorted({*it.source_tables, *it.target_tables})
    bare = [table for table in tables if not all(grants.holds(privilege, *table) for privilege in privileges)]
    if bare:
        schemas = sorted({schema for schema, _ in bare})
        shown = ", ".join(schemas[:SCHEMAS_SHOWN_MAX]) + (" …" if len(schemas) > SCHEMAS_SHOWN_MAX else "")
        yield Finding(
            name,
            level,
            f"{wanted} missing on {len(bare)} table(s) in {shown}",
            "; ".join(f"GRANT {wanted} ON {quoted(schema)}.* TO {server.account}" for schema in schemas),
        )
    elif not tables:
        yield Finding(
            name,
            level,
            f"{wanted} held on no schema that the account can see",
            f"GRANT {wanted} ON *.* TO {server.account}",
        )
    else:
        yield ok(name, f"{wanted} on every table that there is now, not on schemas still to come")
