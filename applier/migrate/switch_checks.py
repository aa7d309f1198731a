"""What must hold before clients change over. By reading only."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from applier.errors import Refused
from applier.migrate.server import PRIVILEGES, Server
from applier.migrate.settings import MigrateSettings
from applier.migrate.switch import SwitchSettings
from applier.preflight.findings import Finding, Report, failure, ok, warning
from applier.verify.definitions import HIDDEN_SCHEMAS

LONG_TRANSACTION_SECONDS: Final = 5
SHOWN_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class Situation:
    """`facts`: of the migration's state."""

    origin: Server
    destination: Server
    settings: MigrateSettings
    wanted: SwitchSettings
    facts: dict[str, Any]


def check_switch(it: Situation, checks: Iterable[Callable[[Situation], Iterable[Finding]]]) -> Report:
    """Failures that are to be ignored become warnings. Raises LinkLost."""
    findings = []
    for check in checks:
        try:
            for finding in check(it):
                ignored = finding.name in it.wanted.ignored and finding.remedy != ""
                findings.append(warning(finding.name, f"{finding.detail} (ignored)") if ignored else finding)
        except Refused as error:
            findings.append(warning(check.__name__.replace("_", "-"), f"could not be looked at: {error}"))
    return Report(tuple(findings))


def privileges(it: Situation) -> Iterable[Finding]:
    for server in (it.origin, it.destination):
        missing = server.may_switch()
        if missing:
            yield failure("privileges", f"{server.role}: {missing}", f"GRANT {PRIVILEGES} ON *.* TO …")
        else:
            yield ok("privileges", f"{server.role}: enough")


def verified(it: Situation) -> Iterable[Finding]:
    noted = it.facts.get("verified")
    remedy = "applier migrate verify, or --ignore verified"
    if noted is None:
        yield failure("verified", "the target has not been compared with the source", remedy)
    elif not noted["identical"]:
        yield failure("verified", "the last comparison found differences", "applier migrate verify --repair")
    elif time.time() - noted["at"] > it.wanted.verified_seconds_max:
        hours = (time.time() - noted["at"]) / 3600
        yield failure("verified", f"the last comparison is {hours:.1f} hours old", remedy)
    else:
        yield ok("verified", f"{noted['rows']:,} rows were identical {time.time() - noted['at']:.0f} s ago")


def writable_origin(it: Situation) -> Iterable[Finding]:
    if it.origin.settings().writable or "switch" in it.facts:
        yield ok("read-only", f"the {it.origin.role} takes writes")
    else:
        yield failure(
            "read-only",
            f"the {it.origin.role} is read_only: clients do not write there now",
            "look whether another migration or an administrator did that, or --ignore read-only",
        )


def long_transactions(it: Situation) -> Iterable[Finding]:
    rows = it.origin.run(
        "SELECT trx_mysql_thread_id, TIMESTAMPDIFF(SECOND, trx_started, UTC_TIMESTAMP()), trx_rows_modified"
        " FROM information_schema.innodb_trx WHERE trx_rows_modified > 0"
        f" AND trx_started < UTC_TIMESTAMP() - INTERVAL {LONG_TRANSACTION_SECONDS} SECOND"
    )
    if rows:
        shown = ", ".join(
            f"session {session} for {age} s, {changed} rows" for session, age, changed in rows[:SHOWN_MAX]
        )
        yield failure(
            "long-transactions",
            f"the {it.origin.role} has open transactions: {shown}; what they have changed would be lost to them",
            f"let them end, KILL {rows[0][0]}, or --ignore long-transactions",
        )
    else:
        yield ok("long-transactions", f"none is open on the {it.origin.role}")


def prepared_transactions(it: Situation) -> Iterable[Finding]:
    rows = it.origin.run("XA RECOVER")
    if rows:
        yield failure(
            "xa",
            f"the {it.origin.role} has {len(rows)} prepared XA transactions; they could not be committed any more",
            "XA COMMIT or XA ROLLBACK them, or --ignore xa",
        )
    else:
        yield ok("xa", "no prepared XA transactions")


def engines(it: Situation) -> Iterable[Finding]:
    condition, arguments = it.settings.selection.condition("table_schema")
    rows = it.origin.run(
        "SELECT table_schema, table_name, engine FROM information_schema.tables"
        f" WHERE table_type = 'BASE TABLE' AND engine <> 'InnoDB' AND {condition}",
        *arguments,
    )
    if rows:
        shown = ", ".join(f"{schema}.{table} ({engine})" for schema, table, engine in rows[:SHOWN_MAX])
        yield failure(
            "engines",
            f"tables without transactions: {shown}",
            "ALTER TABLE … ENGINE = InnoDB, or --ignore engines",
        )
    else:
        yield ok("engines", "all tables are InnoDB")


def other_schemas(it: Situation) -> Iterable[Finding]:
    known = [*it.settings.schemas, *HIDDEN_SCHEMAS]
    marks = ",".join(["%s"] * len(known))
    rows = it.origin.run(
        f"SELECT schema_name FROM information_schema.schemata WHERE schema_name NOT IN ({marks})", *known
    )
    if rows:
        shown = ", ".join(str(schema) for (schema,) in rows[:SHOWN_MAX])
        yield failure(
            "other-schemas",
            f"the whole {it.origin.role} becomes read-only, and {shown} would not be on the {it.destination.role}",
            "migrate them too, or --ignore other-schemas",
        )
    else:
        yield ok("other-schemas", f"the {it.origin.role} has no others")


def replication(it: Situation) -> Iterable[Finding]:
    for server in (it.origin, it.destination):
        rows = server.run(
            "SELECT channel_name FROM performance_schema.replication_applier_status WHERE service_state = 'ON'"
        )
        if rows:
            yield failure(
                "replication",
                f"the {server.role} is itself a replica whose threads go on writing, read_only or not",
                "STOP REPLICA there, or --ignore replication",
            )
        else:
            yield ok("replication", f"the {server.role} is nobody's replica")


def binary_log(it: Situation) -> Iterable[Finding]:
    """Of the destination: without it there is no way back."""
    ((log_bin, log_format, row_image, mode),) = it.destination.run(
        "SELECT @@GLOBAL.log_bin, @@GLOBAL.binlog_format, @@GLOBAL.binlog_row_image, @@GLOBAL.gtid_mode"
    )
    if log_bin and log_format == "ROW" and row_image == "FULL" and mode == "ON":
        yield ok("binary-log", f"the {it.destination.role} logs rows")
    else:
        yield failure(
            "binary-log",
            f"the {it.destination.role} has log_bin {log_bin}, {log_format}, row images {row_image}, gtid_mode {mode}: "
            "there would be no way back",
            "SET PERSIST binlog_format = ROW, binlog_row_image = FULL, or --ignore binary-log",
        )


def privileged_sessions(it: Situation) -> Iterable[Finding]:
    """They can write to a server that is read_only, which the origin is while there is a replay back to it."""
    rows = it.origin.run(
        "SELECT DISTINCT p.user FROM information_schema.processlist p JOIN information_schema.user_privileges u"
        " ON u.grantee LIKE CONCAT('''', p.user, '''@%%')"
        " WHERE u.privilege_type IN ('SUPER', 'CONNECTION_ADMIN') AND p.id <> CONNECTION_ID()"
        " AND p.user <> SUBSTRING_INDEX(CURRENT_USER(), '@', 1) AND p.user NOT IN ('system user', 'event_scheduler')"
    )
    if rows:
        shown = ", ".join(str(user) for (user,) in rows)
        yield warning(
            "privileged-sessions",
            f"{shown} on the {it.origin.role} can write in spite of read_only; keep them away during a reverse replay",
        )


CHECKS: Final = (
    privileges,
    verified,
    writable_origin,
    long_transactions,
    prepared_transactions,
    engines,
    other_schemas,
    replication,
    binary_log,
    privileged_sessions,
)
# The way back was open all the time; nobody compares before it.
ROLLBACK_CHECKS: Final = tuple(check for check in CHECKS if check not in (verified, engines))
