"""Checks of server variables and of what else runs on the servers."""

from __future__ import annotations

from collections.abc import Iterable

from applier.preflight.facts import Server, Situation
from applier.preflight.findings import Finding, failure, ok, warning

VERSION_MIN = (8, 0, 0)
SUPPORTED = "MySQL 8.0 and later are supported"


def server_kind(server: Server) -> Finding:
    """The one check that must pass before the others can ask anything."""
    name = f"{server.role}.version"
    if server.mariadb:
        return failure(
            name,
            f"the {server.role} is MariaDB ({server.version_text}): its GTIDs and log differ from MySQL's",
            f"use a MySQL server as {server.role}; {SUPPORTED}",
        )
    if server.version < VERSION_MIN:
        return failure(name, f"the {server.role} is MySQL {server.version_text}; {SUPPORTED}", "upgrade it")
    return ok(name, f"MySQL {server.version_text}")


def version_order(it: Situation) -> Iterable[Finding]:
    name = "versions"
    source, target = it.source.version, it.target.version
    shown = f"source {it.source.version_text}, target {it.target.version_text}"
    if source[0] > target[0]:
        yield failure(
            name, f"the source is a newer major version than the target ({shown})", "upgrade the target first"
        )
    elif source[:2] > target[:2]:
        yield warning(
            name,
            f"the source is newer than the target ({shown}): statements and types that the target does not "
            "know would stop the run",
            "upgrade the target first",
        )
    else:
        yield ok(name, shown)


def binary_log(it: Situation) -> Iterable[Finding]:
    source = it.source
    if source.is_on("log_bin"):
        yield ok("source.log_bin", "ON")
    else:
        yield failure("source.log_bin", "the source writes no binary log", "restart the source with log_bin")
    yield _wants(source, "binlog_format", "ROW", "rows are needed, statements cannot be replayed in parallel")
    image = source.variable("binlog_row_image")
    if image.upper() == "FULL":
        yield ok("source.binlog_row_image", image)
    else:
        yield warning(
            "source.binlog_row_image",
            f"{image}: changes cannot be folded into net changes, and key columns may be missing",
            "SET PERSIST binlog_row_image = FULL",
        )
    options = source.variable("binlog_row_value_options")
    yield ok("source.binlog_row_value_options", options or "none")
    yield ok("source.binlog_checksum", source.variable("binlog_checksum"))
    yield ok("source.binlog_transaction_compression", source.variable("binlog_transaction_compression"))
    if not source.is_on("log_replica_updates", "log_slave_updates"):
        yield warning(
            "source.log_replica_updates",
            "OFF: what the source itself receives as a replica is not in its binary log",
            "restart the source with log_replica_updates=ON",
        )


def _wants(server: Server, variable: str, wanted: str, why: str) -> Finding:
    name, value = f"{server.role}.{variable}", server.variable(variable)
    if value.upper() == wanted:
        return ok(name, value)
    return failure(name, f"{value or 'unknown'}, not {wanted}: {why}", f"SET PERSIST {variable} = {wanted}")


def identities(it: Situation) -> Iterable[Finding]:
    source, target = it.source, it.target
    ids = source.variable("server_id"), target.variable("server_id")
    if "0" in ids:
        yield failure(
            "server_id", f"source {ids[0]}, target {ids[1]}: 0 is none", "SET PERSIST server_id = …"
        )
    elif ids[0] == ids[1]:
        yield failure(
            "server_id",
            f"source and target both have {ids[0]}",
            f"SET PERSIST server_id = {(int(ids[0]) % 4294967294) + 1}  -- on the target",
        )
    else:
        yield ok("server_id", f"source {ids[0]}, target {ids[1]}")
    if source.variable("server_uuid") == target.variable("server_uuid"):
        yield failure(
            "server_uuid",
            f"both are {source.variable('server_uuid')}: one server, or a copied data directory",
            "check the URLs; or stop the target, delete auto.cnf in its data directory, start it",
        )
    else:
        yield ok("server_uuid", "differ")


def table_names(it: Situation) -> Iterable[Finding]:
    values = [server.variable("lower_case_table_names") for server in it.servers]
    if values[0] == values[1]:
        yield ok("lower_case_table_names", values[0])
    else:
        yield failure(
            "lower_case_table_names",
            f"source {values[0]}, target {values[1]}",
            f"initialize the target anew with lower_case_table_names={values[0]}: it cannot be changed later",
        )


def packets(it: Situation) -> Iterable[Finding]:
    source, target = (server.number("max_allowed_packet") for server in it.servers)
    shown = f"source {source >> 20} MB, target {target >> 20} MB"
    if target < source:
        yield failure(
            "max_allowed_packet",
            f"{shown}: a row that the source takes may be too large for the target",
            f"SET PERSIST max_allowed_packet = {source}  -- on the target",
        )
    else:
        # Base64 adds a third, and a row cannot be cut.
        yield ok("max_allowed_packet", f"{shown}; one row may have {target * 3 // 4 >> 20} MB")


def writable(it: Situation) -> Iterable[Finding]:
    target = it.target
    wall = next((name for name in ("super_read_only", "read_only") if target.is_on(name)), None)
    bypass = target.grants.holds_any(("CONNECTION_ADMIN", "SUPER"))
    if wall is None:
        yield ok("target.read_only", "OFF")
    elif wall == "read_only" and bypass:
        yield ok("target.read_only", "ON, the account may write in spite of it")
    elif wall == "read_only":
        yield failure(
            "target.read_only",
            "ON",
            f"GRANT CONNECTION_ADMIN ON *.* TO {target.account}  -- or read_only = OFF",
        )
    else:
        yield failure("target.super_read_only", "ON: nobody may write", "SET GLOBAL super_read_only = OFF")


def defaults(it: Situation) -> Iterable[Finding]:
    """Defaults that a replayed DDL takes from the server where it does not say."""
    names = (
        *("character_set_server", "collation_server", "default_storage_engine", "authentication_policy"),
        *("explicit_defaults_for_timestamp", "default_table_encryption", "innodb_default_row_format"),
    )
    differing = [name for name in names if it.source.variable(name) != it.target.variable(name)]
    if not differing:
        yield ok("target.defaults", "as on the source")
        return
    shown = ", ".join(f"{n} {it.source.variable(n)!r}/{it.target.variable(n)!r}" for n in differing)
    yield warning(
        "target.defaults",
        f"differ (source/target): {shown}; what DDL in the log leaves open may come out differently",
        "; ".join(f"SET PERSIST {name} = '{it.source.variable(name)}'" for name in differing),
    )


def time_zones(it: Situation) -> Iterable[Finding]:
    loaded = [
        server.query("SELECT CONVERT_TZ('2020-01-01', 'UTC', 'Europe/Paris') IS NOT NULL")[0][0]
        for server in it.servers
    ]
    if loaded[0] and not loaded[1]:
        yield warning(
            "target.time_zones",
            "the target does not know named time zones, the source does: statements written under one would "
            "stop the run",
            "mysql_tzinfo_to_sql /usr/share/zoneinfo | mysql mysql  -- on the target",
        )
    else:
        yield ok("target.time_zones", "named ones known" if loaded[1] else "no named ones on either side")


def durability(it: Situation) -> Iterable[Finding]:
    names = ("innodb_flush_log_at_trx_commit", "sync_binlog", "log_bin")
    yield ok("target.durability", ", ".join(f"{name}={it.target.variable(name)}" for name in names))


def events(it: Situation) -> Iterable[Finding]:
    enabled = it.target.query(
        "SELECT event_schema, event_name FROM information_schema.events WHERE status = 'ENABLED'"
    )
    if enabled and it.target.is_on("event_scheduler"):
        names = ", ".join(f"{schema}.{event}" for schema, event in enabled[:10])
        yield warning(
            "target.event_scheduler",
            f"{len(enabled)} events are enabled on the target ({names}): they would run there too, and twice",
            "SET PERSIST event_scheduler = OFF",
        )
    else:
        yield ok("target.event_scheduler", "no event runs on the target")


def channels(it: Situation) -> Iterable[Finding]:
    """Two appliers into one target would apply everything twice, or fight over rows."""
    rows = it.target.answers("SHOW REPLICA STATUS", "SHOW SLAVE STATUS")
    if rows is None:
        yield warning(
            "target.replication_channels",
            "cannot be seen: the account lacks REPLICATION CLIENT",
            f"GRANT REPLICATION CLIENT ON *.* TO {it.target.account}",
        )
        return
    running = [row for row in rows if _column(row, "SQL_Running") == "Yes"]
    if running:
        yield failure(
            "target.replication_channels",
            f"the target is a replica itself, {len(running)} channel(s) apply: two appliers write",
            "STOP REPLICA SQL_THREAD",
        )
    elif rows:
        yield warning(
            "target.replication_channels",
            "a channel whose SQL thread is stopped is configured on the target: leave it stopped meanwhile",
            "RESET REPLICA ALL, unless it is to take over again",
        )
    else:
        yield ok("target.replication_channels", "none")


def _column(row: dict[str, object], ending: str) -> str:
    return next((str(value) for name, value in row.items() if name.endswith(ending)), "")


def downstream(it: Situation) -> Iterable[Finding]:
    name = "target.downstream_replicas"
    rows = it.target.answers("SHOW REPLICAS", "SHOW SLAVE HOSTS")
    if rows is None:
        rows = it.target.answers(
            "SELECT id FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'"
        )
        rows = rows if it.target.grants.holds("PROCESS") else rows or None
    if rows is None:
        yield warning(
            name,
            "cannot be seen: the account has neither REPLICATION SLAVE nor PROCESS",
            f"GRANT REPLICATION SLAVE ON *.* TO {it.target.account}",
        )
    elif rows and it.requirements.gtids == "purged":
        level = warning if it.requirements.allow_downstream else failure
        yield level(
            name,
            f"{len(rows)} replica(s) read the target's binary log, which this run does not write",
            "keep the binary log on the target, or let them replicate from the source",
        )
    else:
        yield ok(name, f"{len(rows)}" if rows else "none")


def prepared_transactions(it: Situation) -> Iterable[Finding]:
    rows = it.target.answers("XA RECOVER")
    if rows is None:
        yield ok("target.xa", "not looked at: needs XA_RECOVER_ADMIN")
    elif rows:
        yield warning(
            "target.xa",
            f"{len(rows)} prepared XA transaction(s) on the target hold locks",
            "XA RECOVER CONVERT XID; then XA COMMIT or XA ROLLBACK each",
        )
    else:
        yield ok("target.xa", "nothing prepared")
