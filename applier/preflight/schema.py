"""Checks of the tables: are those that the log is about on the target, and can they be replayed well."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from applier.preflight.facts import Situation
from applier.preflight.findings import Finding, failure, ok, warning
from applier.verify.definitions import Column, Table

SHOWN_MAX = 10


def tables(it: Situation) -> Iterable[Finding]:
    """The same tables on both sides.

    As long as the target lacks transactions, what is missing may still come with them: a target may start
    empty and get everything from the log. At the same position nothing will.
    """
    behind = bool(it.subtract(it.source_executed, it.target_executed))
    bad = warning if behind else failure
    hint = " (DDL that the target still lacks may mend this)" if behind else ""
    missing = [str(table) for name, table in it.source_tables.items() if name not in it.target_tables]
    extra = [str(table) for name, table in it.target_tables.items() if name not in it.source_tables]
    if missing and behind and not it.target_tables:
        yield ok("schema.tables", f"the target is empty, {len(missing)} table(s) have to come from the log")
    elif missing:
        yield bad(
            "schema.tables",
            f"missing on the target: {_listed(missing)}{hint}",
            "applier migrate, or mysqldump --no-data from the source",
        )
    else:
        yield ok("schema.tables", f"the target has all {len(it.source_tables)} tables of the source")
    if extra:
        yield warning("schema.extra_tables", f"only on the target: {_listed(extra)}{hint}", "DROP TABLE …")


def columns(it: Situation) -> Iterable[Finding]:
    """Row events name columns by their place: what is at each place has to agree."""
    behind = bool(it.subtract(it.source_executed, it.target_executed))
    bad = warning if behind else failure
    differing, keys = [], []
    for name, table in it.source_tables.items():
        other = it.target_tables.get(name)
        if other is None:
            continue
        changes = _changes(table, other)
        if changes:
            differing.append(f"{table} ({changes})")
        elif table.key != other.key:
            keys.append(f"{table} ({','.join(table.key) or 'none'}/{','.join(other.key) or 'none'})")
    if differing:
        yield bad("schema.columns", f"differ: {_listed(differing)}", "ALTER TABLE … on the target")
    else:
        yield ok("schema.columns", "the same columns and types")
    if keys:
        yield warning(
            "schema.keys", f"keys differ (source/target): {_listed(keys)}", "ALTER TABLE … on the target"
        )


def _changes(ours: Table, theirs: Table) -> str:
    if len(ours.columns) != len(theirs.columns):
        return f"{len(ours.columns)} and {len(theirs.columns)} columns"
    pairs = zip(ours.columns, theirs.columns, strict=True)
    return ", ".join(f"{_column(one)} and {_column(other)}" for one, other in pairs if one != other)


def _column(column: Column) -> str:
    nullable = "" if column.nullable else " NOT NULL"
    collation = f" {column.collation}" if column.collation else ""
    return f"{column.name} {column.column_type}{collation}{nullable}"


def keyless(it: Situation) -> Iterable[Finding]:
    """Without a key every changed row means a scan of the table on the target."""
    names = [str(table) for table in it.source_tables.values() if not table.key]
    if names:
        yield warning(
            "schema.primary_keys",
            f"{len(names)} table(s) without a primary or NOT NULL unique key: {_listed(names)}; "
            "their updates and deletes are slow and run one after the other",
            "ALTER TABLE … ADD COLUMN id BIGINT UNSIGNED AUTO_INCREMENT INVISIBLE PRIMARY KEY",
        )
        if it.target.is_on("sql_require_primary_key"):
            yield warning(
                "target.sql_require_primary_key",
                "ON: a CREATE TABLE in the log without a primary key would stop the run",
                "SET PERSIST sql_require_primary_key = OFF",
            )
    else:
        yield ok("schema.primary_keys", "every table has one")


def engines(it: Situation) -> Iterable[Finding]:
    """A table without transactions keeps what a rolled back group has written."""
    condition, arguments = it.requirements.selection.condition("table_schema", "table_name")
    rows = it.source.query(
        "SELECT table_schema, table_name, engine FROM information_schema.tables"
        f" WHERE table_type = 'BASE TABLE' AND engine <> 'InnoDB' AND {condition}",
        *arguments,
    )
    if rows:
        names = [f"{schema}.{table} ({engine})" for schema, table, engine in rows]
        yield warning(
            "schema.engines",
            f"not transactional: {_listed(names)}; a retried transaction would apply its rows twice",
            "ALTER TABLE … ENGINE=InnoDB",
        )
    else:
        yield ok("schema.engines", "InnoDB only")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN_MAX} more" if len(names) > SHOWN_MAX else ""
    return ", ".join(names[:SHOWN_MAX]) + more
