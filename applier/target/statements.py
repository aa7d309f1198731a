"""Transactions that are not plain rows: DDL, statement format, savepoints, XA, account statements.

Executed event by event, each statement under the session state that the source wrote it with.
"""

from __future__ import annotations

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
from applier.target.session import Session
from applier.target.wire import ServerReplied

QUERY, INTVAR, RAND, USER_VAR, XID, ROWS_QUERY, XA_PREPARE = 2, 5, 13, 14, 16, 29, 38
TABLE_MAP: Final = 19
ROW_EVENTS: Final = frozenset({23, 24, 25, 30, 31, 32, 39})
WHOLE_ROWS: Final = TransactionFlag.ROWS | TransactionFlag.FIRST_PART | TransactionFlag.LAST_PART
ENDS_WITH_COMMIT: Final = frozenset({b"COMMIT", b"ROLLBACK"})


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
        self.committed = False
        self.rows: list[int] = []  # table maps and row events that wait to go out together
        self.handlers: dict[int, Callable[[bytes], None]] = {
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
            self.session.execute_sql(f"SET gtid_next='{self.info.gtid}'")
        try:
            for number in range(self.info.event_first, self.info.event_first + self.info.event_count):
                kind, data = self.batch.event(number)
                if kind == TABLE_MAP or kind in ROW_EVENTS:
                    self.rows.append(number)
                    continue
                self._send_rows()
                handler = self.handlers.get(kind)
                if handler is None:
                    raise ApplyError(gtid=self.info.gtid, detail=f"event type {kind} cannot be replayed")
                handler(data)
            self._send_rows()
        finally:
            self.session.forget_variables()
        if self.info.flags & TransactionFlag.ROLLBACK and not self.committed:
            self._roll_back()
        return self.committed

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
        self._set_state(query)
        try:
            self.session.statement(query.text)
        except ServerReplied as error:
            if error.code != query.error_code:  # the source logged that the statement fails with this error
                raise
        if text.startswith(b"XA START") or text.startswith(b"XA BEGIN"):
            self.in_transaction = True
        if not self.in_transaction:
            self.committed = True

    def _set_state(self, query: Query) -> None:
        self.session.set_variables(query.variables | {"timestamp": query.timestamp})
        if query.use_database:
            self.session.execute_sql("USE " + identifier(query.database))

    def _integer_variable(self, data: bytes) -> None:
        name, value = parse_integer_variable(data)
        self.session.set_variables({name: str(value)})

    def _random(self, data: bytes) -> None:
        first, second = parse_random_seeds(data)
        self.session.set_variables({"rand_seed1": str(first), "rand_seed2": str(second)})

    def _user_variable(self, data: bytes) -> None:
        variable = parse_user_variable(data)
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
            return f"_{charset} X'{value.hex()}' COLLATE {collation}"
        if variable.kind == 1 and len(value) == 8:
            return repr(struct.unpack("<d", value)[0])
        if variable.kind == 2 and len(value) == 8:
            return str(int.from_bytes(value, "little", signed=not variable.unsigned))
        if variable.kind == 4 and len(value) > 2:
            return str(decimal_value(value[2:], value[0], value[1]))
        raise ApplyError(gtid=self.info.gtid, detail=f"user variable {variable.name} has an unknown type")

    def _xa_prepare(self, data: bytes) -> None:
        prepare = parse_xa_prepare(data)
        self.session.execute_sql(
            f"XA COMMIT {prepare.xid} ONE PHASE" if prepare.one_phase else f"XA PREPARE {prepare.xid}"
        )
        self.committed = True
