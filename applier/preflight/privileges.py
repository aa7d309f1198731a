"""Checks of privileges: whatever the run will need, on either side.

BINLOG without the privileges on a table fails with error 1105 "Unknown error" and nothing more, in the middle of a
run; so they are looked at before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from applier.preflight.facts import Server, Situation
from applier.preflight.findings import Finding, failure, ok, warning
from applier.verify.definitions import quoted

ROWS = ("INSERT", "UPDATE", "DELETE")
# What each kind of statement in the log may need when it is carried out again.
DDL = (
    *("CREATE", "ALTER", "DROP", "INDEX", "REFERENCES", "CREATE VIEW", "SHOW VIEW", "TRIGGER"),
    *("CREATE ROUTINE", "ALTER ROUTINE", "EVENT", "EXECUTE", "LOCK TABLES", "CREATE TEMPORARY TABLES"),
)
ACCOUNTS = ("CREATE USER", "ROLE_ADMIN", "SYSTEM_USER")
SCHEMAS_SHOWN_MAX = 5


def source_privileges(it: Situation) -> Iterable[Finding]:
    source = it.source
    yield _one(source, "REPLICATION SLAVE", failure, "needed to read the binary log")
    yield _one(source, "REPLICATION CLIENT", warning, "needed to show how far the source's log reaches")


def target_apply(it: Situation) -> Iterable[Finding]:
    target = it.target
    name = "privileges.target.REPLICATION_APPLIER"
    if target.grants.holds_any(("REPLICATION_APPLIER", "BINLOG_ADMIN", "SUPER")):
        yield ok(name, "held")
    else:
        yield failure(
            name,
            "missing: needed for BINLOG and gtid_next",
            f"GRANT REPLICATION_APPLIER ON *.* TO {target.account}",
        )
    # Restricted session variables: those that statements in the log were written under, and sql_log_bin.
    bad = failure if it.requirements.gtids == "purged" else warning
    why = (
        "needed for sql_log_bin"
        if bad is failure
        else "statements in the log may set restricted session variables"
    )
    accepted = ("SESSION_VARIABLES_ADMIN", "SYSTEM_VARIABLES_ADMIN", "SUPER")
    yield _any_of(target, accepted, bad, why)
    if it.requirements.gtids == "purged":
        yield _any_of(
            target, ("SYSTEM_VARIABLES_ADMIN", "SUPER"), failure, "needed for SET GLOBAL gtid_purged"
        )


def _any_of(server: Server, privileges: Sequence[str], bad: object, why: str) -> Finding:
    name = f"privileges.{server.role}.{privileges[0]}"
    if server.grants.holds_any(privileges):
        return ok(name, "held")
    make = failure if bad is failure else warning
    return make(name, f"missing: {why}", f"GRANT {privileges[0]} ON *.* TO {server.account}")


def _one(server: Server, privilege: str, bad: object, why: str) -> Finding:
    return _any_of(server, (privilege,), bad, why)


def target_rows(it: Situation) -> Iterable[Finding]:
    """INSERT, UPDATE, DELETE on everything that the source has."""
    yield from _on_data(it.target, it, ROWS, "rows", failure)


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
            f"missing: {', '.join(lacking)}; a statement in the log that needs one of them would stop the run",
            f"GRANT {', '.join(lacking)} ON *.* TO {target.account}",
        )
    else:
        yield ok(name, "whatever DDL and account statements need is held")


def reading(it: Situation) -> Iterable[Finding]:
    """SELECT, with which `applier verify` compares."""
    bad = failure if it.requirements.verify else warning
    for server in it.servers:
        yield from _on_data(server, it, ("SELECT",), "SELECT", bad)


def _on_data(
    server: Server, it: Situation, privileges: Sequence[str], label: str, bad: object
) -> Iterable[Finding]:
    """The privileges on everything, or at least on every table that either side shows us."""
    name = f"privileges.{server.role}.{label}"
    wanted = ", ".join(privileges)
    grants = server.grants
    if not grants.lacking(privileges):
        yield ok(name, f"{wanted} on everything")
        return
    make = failure if bad is failure else warning
    tables = sorted({*it.source_tables, *it.target_tables})
    bare = [table for table in tables if not all(grants.holds(privilege, *table) for privilege in privileges)]
    if bare:
        schemas = sorted({schema for schema, _ in bare})
        shown = ", ".join(schemas[:SCHEMAS_SHOWN_MAX]) + (" …" if len(schemas) > SCHEMAS_SHOWN_MAX else "")
        yield make(
            name,
            f"{wanted} missing on {len(bare)} table(s) in {shown}",
            "; ".join(f"GRANT {wanted} ON {quoted(schema)}.* TO {server.account}" for schema in schemas),
        )
    elif not tables:
        yield make(
            name,
            f"{wanted} held on no schema that the account can see",
            f"GRANT {wanted} ON *.* TO {server.account}",
        )
    else:
        yield ok(name, f"{wanted} on every table that there is now, not on schemas still to come")
