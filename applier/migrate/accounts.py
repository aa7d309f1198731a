"""Accounts, roles and what they may do, from the source to the target; those that the target has stay as they are."""

from __future__ import annotations

import logging
from typing import Final

import pymysql

from applier.migrate.schema_copy import ddl_session
from applier.migrate.settings import MigrateSettings
from applier.migrate.state import State
from applier.verify.definitions import Session, query

log = logging.getLogger(__name__)

RESERVED: Final = ("mysql.sys", "mysql.session", "mysql.infoschema", "root")


def copy_accounts(source: Session, settings: MigrateSettings, state: State) -> int:
    """How many were made. Passwords travel as the hashes they are. Raises DataError, LinkLost.

    Which accounts the target had is noted before one is made: an earlier process may have been killed before it
    granted what it had made."""
    query(source, "SET SESSION print_identified_with_as_hex = ON")
    marks = ",".join(["%s"] * len(RESERVED))
    # Roles first: an account is made with its default roles.
    accounts = query(
        source,
        f"SELECT user, host FROM mysql.user WHERE user NOT IN ({marks})"
        " ORDER BY (user, host) NOT IN (SELECT from_user, from_host FROM mysql.role_edges), 1, 2",
        RESERVED,
    )
    made = []
    with ddl_session(settings) as target:
        there = set(query(target, "SELECT user, host FROM mysql.user"))
        if "accounts_before" not in state.require().facts:
            state.note(accounts_before=sorted(there))
        before = set(map(tuple, state.require().facts["accounts_before"]))
        for account in accounts:
            if account in before:
                log.warning("account is there already", extra={"account": "@".join(map(str, account))})
                continue
            if account not in there:
                ((statement,),) = query(source, "SHOW CREATE USER %s@%s", account)
                query(target, str(statement))
            made.append(account)
        for account in made:  # roles are accounts: all have to be there before one is granted
            for (grant,) in query(source, "SHOW GRANTS FOR %s@%s", account):
                try:
                    query(target, str(grant))
                except pymysql.MySQLError as error:
                    log.warning("not granted", extra={"grant": str(grant), "detail": str(error.args[-1])})
    return len(made)
