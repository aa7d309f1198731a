"""What of a source's log a replay is about: whole schemas, or of them some tables only.

Rows are told by the schema and table of their table map. Statements are told by the schemas that the source itself
says they change; one that changes schemas on both sides of the line cannot be carried out on one side, and stops the
replay with its name. Account statements belong to no schema and are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

from applier.errors import ApplyError
from applier.events.batch import Batch
from applier.events.ddl import TableName, changed_tables
from applier.events.query import Query, parse_query
from applier.events.selection import leave_out
from applier.events.transaction import TransactionFlag

QUERY_EVENT: Final = 2
SHOWN_MAX: Final = 120

CONTROL: Final = re.compile(rb"\s*(?:BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE|XA)\b", re.IGNORECASE)
ACCOUNTS: Final = re.compile(
    rb"\s*(?>/\*.*?\*/\s*)*(?:(?:CREATE|ALTER|DROP|RENAME)\s+(?:USER|ROLE)|GRANT|REVOKE|FLUSH"
    rb"|SET\s+(?:PASSWORD|DEFAULT\s+ROLE)|(?:CREATE|ALTER|DROP)\s+(?:SERVER|RESOURCE|TABLESPACE|UNDO|LOGFILE|INSTANCE"
    rb"|SPATIAL))\b",
    re.IGNORECASE | re.DOTALL,
)
ROWS_AS_TEXT: Final = re.compile(
    rb"\s*(?>/\*.*?\*/\s*)*(?:INSERT|UPDATE|DELETE|REPLACE|LOAD|CALL|WITH)\b", re.IGNORECASE
)


class Schemas:
    """Everything of some schemas."""

    def __init__(self, schemas: Iterable[str]) -> None:
        self.schemas = frozenset(schemas)

    def wants_table(self, schema: str, table: str) -> bool:
        return schema in self.schemas

    def wants_statement(self, event: bytes) -> bool | None:
        """None for what only begins and ends transactions. Raises ApplyError."""
        query = parse_query(event)
        if CONTROL.match(query.text):
            return None
        return self.concerns(query)

    def concerns(self, query: Query) -> bool:
        """Whether a statement changes one of the schemas. Raises ApplyError when it changes others too."""
        if ACCOUNTS.match(query.text):
            return False
        changed = self._changed(query)
        if changed & self.schemas and changed - self.schemas:
            raise ApplyError(
                gtid="(a statement)",
                detail=f"{_shown(query)} changes {', '.join(sorted(changed))}, of which only "
                f"{', '.join(sorted(changed & self.schemas))} is replayed",
            )
        return bool(changed & self.schemas)

    def _changed(self, query: Query) -> set[str]:
        if query.databases:
            return set(query.databases)
        # The source does not tell with every statement: TRUNCATE, and what is no DDL.
        text = query.text.decode("utf-8", "replace")
        tables = changed_tables(text, query.database)
        if tables:
            spelt = {schema.lower(): schema for schema in self.schemas}
            return {spelt.get(schema, schema) for schema, _ in tables}
        named = {
            schema for schema in self.schemas if re.search(rf"\b{re.escape(schema)}\b", text, re.IGNORECASE)
        }
        return named or ({query.database} if query.database else set())

    def note(self, batch: Batch) -> None:
        """Told of each batch in log order, before it is decoded. Only its last transaction can be a DDL."""

    def select(self, batch: Batch, seen: dict[bytes, bool]) -> None:
        """Leaves out of the batch what is not wanted; `seen` is a cache for the caller to keep."""
        leave_out(batch, seen, self.wants_table, self.wants_statement)


class CopiedTables(Schemas):
    """The rows of tables that are copied already, while the others still wait for it; no statements.

    A table that a statement changes is `spoilt`: it is told to the caller, at once, and from then on its rows are left
    out, for it has to be copied again.
    """

    def __init__(
        self, schemas: Iterable[str], tables: Iterable[TableName], spoil: Callable[[TableName], None]
    ) -> None:
        super().__init__(schemas)
        self.tables = set(tables)
        self._spoil = spoil

    def wants_table(self, schema: str, table: str) -> bool:
        return (schema, table) in self.tables

    def wants_statement(self, event: bytes) -> bool | None:
        wanted = super().wants_statement(event)
        query = parse_query(event)
        if wanted and ROWS_AS_TEXT.match(query.text):
            raise ApplyError(gtid="(a statement)", detail=f"rows in statement format: {_shown(query)}")
        return False if wanted is not None else None

    def note(self, batch: Batch) -> None:
        info = batch.transaction(len(batch) - 1)
        if info.flags & TransactionFlag.ROWS:
            return
        for number in range(info.event_first, info.event_first + info.event_count):
            kind, data = batch.event(number)
            if kind == QUERY_EVENT:
                self._note(parse_query(data))

    def select(self, batch: Batch, seen: dict[bytes, bool]) -> None:
        # Not from a cache: what is wanted may change, and then what is older than the change may go too.
        leave_out(batch, {}, self.wants_table, self.wants_statement)

    def _note(self, query: Query) -> None:
        if CONTROL.match(query.text) or not self.concerns(query):
            return
        changed = changed_tables(query.text.decode("utf-8", "replace"), query.database)
        for table in sorted(self.tables):
            if changed is None or (table[0].lower(), table[1].lower()) in changed:
                self._spoil(table)
                self.tables.discard(table)


def _shown(query: Query) -> str:
    text = query.text.decode("utf-8", "replace")
    return text if len(text) <= SHOWN_MAX else text[:SHOWN_MAX] + " …"
