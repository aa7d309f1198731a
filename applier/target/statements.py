"""Transactions that are not plain rows: DDL, statement format, savepoints, XA, account statements.

Executed event by event, each statement under the session state that the source wrote it with.
"""

from __future__ import annotations

import logging
import re
import struct
from collections.abc import Callable
from typing import Final

from applier.errors import ApplyError
from applier.events.batch import Batch
from applier.events.query import (
    Query,
    UserVariable,
    identifier,
    parse_integer_variable,
    parse_query,
    parse_random_seeds,
    parse_user_variable,
    parse_xa_prepare,
)
from applier.events.scalars import decimal_value
from applier.events.statement import binlog_statements
from applier.events.transaction import TransactionFlag
from applier.target import event_ddl
from applier.target.checkpoint import SCHEMA
from applier.target.session import Session
from applier.target.wire import ServerReplied

log = logging.getLogger(__name__)

QUERY, INTVAR, RAND, USER_VAR, XID, ROWS_QUERY, XA_PREPARE = 2, 5, 13, 14, 16, 29, 38
TABLE_MAP: Final = 19
ROW_EVENTS: Final = frozenset({23, 24, 25, 30, 31, 32, 39})
WHOLE_ROWS: Final = TransactionFlag.ROWS | TransactionFlag.FIRST_PART | TransactionFlag.LAST_PART
ENDS_WITH_COMMIT: Final = frozenset({b"COMMIT", b"ROLLBACK"})
# CREATE TABLE … SELECT in the log. From here to its COMMIT the server takes nothing but BINLOG.
CREATE_WITH_ROWS: Final = re.compile(rb"CREATE\s.*\bSTART TRANSACTION\Z", re.IGNORECASE | re.DOTALL)
CREATE_TEMPORARY: Final = re.compile(rb"\s*CREATE\s+TEMPORARY\b", re.IGNORECASE)
# Of an applier or a migration that wrote into the source. Here it would take away what our own one knows.
DROP_PROGRESS: Final = re.compile(
    rb"\s*DROP\s+(?:(?:DATABASE|SCHEMA)\s+(?:IF\s+EXISTS\s+)?`?%(name)s`?|TABLE\s+(?:IF\s+EXISTS\s+)?`?%(name)s`?\.`?progress`?)(?:[\s;]|/\*[^*]*\*/)*\Z"
    % {b"name": SCHEMA.encode()},
    re.IGNORECASE,
)
XA_START: Final = re.compile(rb"\s*XA\s+(START|BEGIN)\b", re.IGNORECASE)
UNKNOWN_DATABASE: Final = 1049
XA_KNOWN: Final = 1440  # XAER_DUPID
# Events and statements that only binlog_format=STATEMENT or MIXED writes, and that we cannot carry out.
LOAD_DATA: Final = dict.fromkeys((9, 11, 17, 18), "LOAD DATA in statement format")
TEMPORARY_TABLE: Final = "a temporary table in statement format: it belongs to one session of the source"


def execute(session: Session, batch: Batch, index: int, *, keep_gtid: bool) -> bool:
    """Executes a transaction up to, not including, its COMMIT. True when it has committed by itself.

    Raises ServerReplied, WireLost; ApplyError for what cannot be replayed."""
    return _Statements(session, batch, index, keep_gtid).run()


class _Statements:
    def __init__(self, session: Session, batch: Batch, index: int, keep_gtid: bool) -> None:
        self.session = session
        self.batch = batch
        self.info = batch.transaction(index)
        self.keep_gtid = keep_gtid and bool(self.info.gtid)
        self.in_transaction = False
        self.only_binlog = False
        self.state_set = False
        self.no_database: ServerReplied | None = None  # the default database is not on the target
        self.committed = False
        self.rows: list[int] = []  # table maps and row events that wait to go out together

    def _handlers(self) -> dict[int, Callable[[bytes], None]]:
        """By event type. Never an attribute: with it the batch would be held until a garbage collection."""
        return {
            QUERY: self._query,
            INTVAR: self._integer_variable,
            RAND: self._random,
            USER_VAR: self._user_variable,
            XID: lambda data: None,
            ROWS_QUERY: lambda data: None,
            XA_PREPARE: self._xa_prepare,
        }

    def run(self) -> bool:
        if self.keep_gtid:
            self._own_gtid()
        handlers = self._handlers()
        try:
            for number in range(self.info.event_first, self.info.event_first + self.info.event_count):
                kind, data = self.batch.event(number)
                if kind == TABLE_MAP or kind in ROW_EVENTS:
                    self.rows.append(number)
                    continue
                self._send_rows()
                handler = handlers.get(kind)
                if handler is None:
                    raise self._unsupported(LOAD_DATA.get(kind, f"event type {kind}"))
                handler(data)
            self._send_rows()
        finally:
            # After CREATE TABLE … SELECT, in this part or an earlier one, the worker does it, when all is committed.
            if self.state_set and not self.only_binlog:
                self.session.forget_variables()
        if self.info.flags & TransactionFlag.ROLLBACK and not self.committed:
            self._roll_back()
        return self.committed

    def _unsupported(self, what: str) -> ApplyError:
        return ApplyError(
            gtid=self.info.gtid,
            detail=f"{what} cannot be replayed. SET PERSIST binlog_format = ROW on the source, and in its sessions",
        )

    def _own_gtid(self) -> None:
        self.session.execute_sql(f"SET gtid_next='{self.info.gtid}'")

    def _send_rows(self) -> None:
        """BINLOG for the row events met since the last statement."""
        if self.rows:
            events = [self.batch.event(number)[1] for number in self.rows]
            self.rows.clear()
            alone = Batch()
            alone.append_transaction(events, WHOLE_ROWS, self.info.sequence_number)
            for statement in binlog_statements(alone, 0):
                self.session.execute_sql(statement)

    def _roll_back(self) -> None:
        """What was rolled back on the source still has its GTID."""
        if self.keep_gtid:
            self.session.execute_sql(f"ROLLBACK;SET gtid_next='{self.info.gtid}';BEGIN", owed=3)
        else:
            self.session.execute_sql("ROLLBACK;BEGIN", owed=2)

    def _query(self, data: bytes) -> None:
        query = parse_query(data)
        text = query.text.strip().rstrip(b";").upper()
        if text in ENDS_WITH_COMMIT:
            return
        if text == b"BEGIN":
            self.session.execute_sql("BEGIN")
            self.in_transaction = True
            return
        if CREATE_TEMPORARY.match(query.text):
            raise self._unsupported(TEMPORARY_TABLE)
        if DROP_PROGRESS.match(query.text) and not self.in_transaction:
            log.warning(
                "not replayed: it would drop the applier's own progress", extra={"gtid": self.info.gtid}
            )
            if self.keep_gtid:
                self.session.execute_sql("BEGIN;COMMIT", owed=2)  # its GTID counts as applied
            self.committed = True
            return
        self._set_state(query)
        self._run_statement(query)
        if text.startswith((b"XA START", b"XA BEGIN")):
            self.in_transaction = True
        if not self.in_transaction:
            self.committed = True
        elif CREATE_WITH_ROWS.match(text):
            self.only_binlog = True

    def _run_statement(self, query: Query) -> None:
        """A statement that failed half-way on the source must fail with the same error here."""
        try:
            self._send_statement(event_ddl.for_replica(query.text, query.invoker))
        except ServerReplied as error:
            if error.code != query.error_code:
                raise self.no_database or error from None
            if self.keep_gtid and not self.in_transaction:
                self._own_gtid()
                self.session.execute_sql("BEGIN;COMMIT", owed=2)
        else:
            if query.error_code:
                raise ApplyError(
                    gtid=self.info.gtid,
                    detail=f"the source logged error {query.error_code} for this statement, the target did not meet it",
                )

    def _send_statement(self, text: bytes) -> None:
        begins = XA_START.match(text)
        try:
            self.session.statement(text)
        except ServerReplied as error:
            if error.code != XA_KNOWN or begins is None:
                raise
            self._forget_prepared(text[begins.end() :])
            self.session.statement(text)

    def _forget_prepared(self, xid: bytes) -> None:
        """The source prepares a transaction that is prepared here already, while its GTID says that it is not: a crash
        came between the two."""
        self.session.execute_sql("SET gtid_next='AUTOMATIC', sql_log_bin=0")
        self.session.execute_sql(b"XA ROLLBACK" + xid)
        self.session.execute_sql(f"SET sql_log_bin={self.session.variables.get('sql_log_bin', '1')}")
        log.warning(
            "rolled back a prepared transaction that an earlier run has left",
            extra={"xid": xid.decode("utf-8", "replace").strip(), "gtid": self.info.gtid},
        )
        if self.keep_gtid:
            self._own_gtid()

    def _set_state(self, query: Query) -> None:
        self.state_set = True
        if query.use_database:
            self._use(query.database)
        self.session.set_variables(query.variables | {"timestamp": query.timestamp})

    def _use(self, database: str) -> None:
        self.no_database = None
        self._speak_utf8(database)
        try:
            self.session.execute_sql("USE " + identifier(database))
        except ServerReplied as error:
            if error.code != UNKNOWN_DATABASE:
                raise
            # Most likely it was gone on the source too, while a session still had it as default: then nothing in the
            # statement means it. Nor may anything mean the database that we used before.
            self.no_database = error
            if self.keep_gtid and not self.in_transaction:  # a statement that fails gives the GTID back
                self._own_gtid()
            self.session.execute_sql("USE information_schema")

    def _speak_utf8(self, name: str) -> None:
        """For a name in a statement of ours, while the character set of the last statement is in force."""
        if not name.isascii():
            self.state_set = True
            self.session.set_variables({"character_set_client": "utf8mb4"})

    def _integer_variable(self, data: bytes) -> None:
        name, value = parse_integer_variable(data)
        self.session.execute_sql(f"SET SESSION {name}={value}")  # for the next statement only

    def _random(self, data: bytes) -> None:
        first, second = parse_random_seeds(data)
        self.session.execute_sql(f"SET SESSION rand_seed1={first},SESSION rand_seed2={second}")

    def _user_variable(self, data: bytes) -> None:
        variable = parse_user_variable(data)
        self._speak_utf8(variable.name)
        self.session.execute_sql(f"SET @{identifier(variable.name)} := {self._literal(variable)}")

    def _literal(self, variable: UserVariable) -> str:
        value = variable.value
        if value is None:
            return "NULL"
        if variable.kind == 0:
            names = self.session.query(
                "SELECT CHARACTER_SET_NAME, COLLATION_NAME FROM information_schema.COLLATIONS WHERE ID = %s",
                (variable.collation_id,),
            )
            if not names:
                raise ApplyError(
                    gtid=self.info.gtid, detail=f"collation {variable.collation_id} is not on the target"
                )
            charset, collation = names[0]
            return f"_{charset} X'{value.hex()}' COLLATE `{collation}`"
        if variable.kind == 1 and len(value) == 8:
            return double_literal(struct.unpack("<d", value)[0])
        if variable.kind == 2 and len(value) == 8:
            number = str(int.from_bytes(value, "little", signed=not variable.unsigned))
            return f"CAST({number} AS UNSIGNED)" if variable.unsigned else number
        if variable.kind == 4 and len(value) > 2:
            return format(decimal_value(value[2:], value[0], value[1]), "f")
        raise ApplyError(gtid=self.info.gtid, detail=f"user variable {variable.name} has an unknown type")

    def _xa_prepare(self, data: bytes) -> None:
        prepare = parse_xa_prepare(data)
        self.session.execute_sql(
            f"XA COMMIT {prepare.xid} ONE PHASE" if prepare.one_phase else f"XA PREPARE {prepare.xid}"
        )
        self.committed = True


def double_literal(value: float) -> str:
    """Without an exponent the server would read a DECIMAL."""
    text = repr(value)
    return text if "e" in text else text + "e0"
