"""The list of all checks, and how they are run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pymysql

from applier.connection import Connection
from applier.preflight import gtids, privileges, schema, server_settings
from applier.preflight.facts import NOT_TO_BE_SEEN, Requirements, Situation, read_server
from applier.preflight.findings import Finding, Level, Report, warning
from applier.verify.definitions import read_tables
from applier.verify.position import progress, union

Check = Callable[[Situation], Iterable[Finding]]

CHECKS: tuple[Check, ...] = (
    server_settings.version_order,
    server_settings.identities,
    server_settings.binary_log,
    gtids.modes,
    gtids.errant,
    gtids.purged,
    gtids.applied_otherwise,
    gtids.missing,
    gtids.chained,
    privileges.source_privileges,
    privileges.target_apply,
    privileges.target_progress,
    privileges.target_rows,
    privileges.target_statements,
    privileges.target_lock_waits,
    privileges.target_functions,
    privileges.target_tags,
    privileges.reading,
    schema.tables,
    schema.columns,
    schema.keyless,
    schema.engines,
    server_settings.table_names,
    server_settings.packets,
    server_settings.writable,
    server_settings.channels,
    server_settings.downstream,
    server_settings.events,
    server_settings.prepared_transactions,
    server_settings.defaults,
    server_settings.time_zones,
    server_settings.durability,
)


def preflight(
    source: Connection[Any], target: Connection[Any], requirements: Requirements | None = None
) -> Report:
    """Every precondition of a run, by reading only: nothing is written on either side.

    The connections are those of the accounts that the run will use. Raises what PyMySQL raises when a link
    breaks.
    """
    servers = read_server(source, "source"), read_server(target, "target")
    kinds = [server_settings.server_kind(server) for server in servers]
    if any(kind.level is Level.FAILURE for kind in kinds):
        return Report(tuple(kinds))
    requirements = requirements or Requirements()
    applied, told = _set(servers[1].variable("gtid_executed")), progress(target)
    # Asked after the target was: on a live pair the target must not seem to have what the source has not.
    ((source_executed,),) = servers[0].query("SELECT @@GLOBAL.gtid_executed")
    situation = Situation(
        *servers,
        requirements,
        source_executed=_set(str(source_executed)),
        target_executed=applied if requirements.gtids == "kept" else union(applied, told),
        target_progress=told,
        source_tables=read_tables(source, requirements.selection),
        target_tables=read_tables(target, requirements.selection),
    )
    findings = [finding for check in CHECKS for finding in _run(check, situation)]
    return Report((*kinds, *findings))


def _run(check: Check, situation: Situation) -> list[Finding]:
    try:
        return list(check(situation))
    except pymysql.MySQLError as error:
        if error.args[0] not in NOT_TO_BE_SEEN:
            raise
        name = f"{check.__module__.rpartition('.')[2]}.{check.__name__}"
        return [warning(name, f"could not be looked at: {error.args[-1]}")]


def _set(gtid_set: str) -> str:
    return gtid_set.replace("\n", "")
