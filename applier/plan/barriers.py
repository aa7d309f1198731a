"""Transactions that nothing may run beside, and why."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from applier.errors import ApplierError
from applier.events.batch import Batch
from applier.events.query import parse_query
from applier.events.scheduling import tables_of
from applier.events.transaction import TransactionFlag, TransactionInfo
from applier.plan.keys import PlanKeys
from writeset.hashing import TablePlan

TEXT_CHARACTERS_MAX = 120
QUERY = 2
# Reasons, as the report words them.
DDL = "DDL"
ACCOUNT = "account statement"
STATEMENT = "statement format"
SAVEPOINT = "savepoint"
CREATE_SELECT = "CREATE TABLE … SELECT"
XA = "XA transaction"
CASCADE = "foreign-key cascade that is not in the log"
KEYS_UNKNOWN = "key columns missing in the row images"
LARGE = "large transaction, applied in parts"
FORGOTTEN = "bucket index full"

_ACCOUNT = re.compile(
    rb"\s*(GRANT|REVOKE|SET\s+(DEFAULT\s+ROLE|PASSWORD)|RENAME\s+USER|(CREATE|ALTER|DROP)\s+(USER|ROLE))\b",
    re.IGNORECASE,
)
_SAVEPOINT = re.compile(rb"\s*(SAVEPOINT|ROLLBACK\s+(WORK\s+)?TO)\b", re.IGNORECASE)
_FRAME = re.compile(rb"\s*(BEGIN|COMMIT|ROLLBACK|XA\b.*)\s*$", re.IGNORECASE | re.DOTALL)
# What a statement begins with when it changes rows rather than definitions.
_CHANGES_ROWS = re.compile(rb"\s*(INSERT|UPDATE|DELETE|REPLACE|LOAD|WITH|CALL|DO|SET)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Barrier:
    """One such transaction. `detail`: its statement, or its tables; `position` is where it ends in `file`."""

    reason: str
    detail: str
    gtid: str
    file: str
    position: int
    rows: int


class Barriers:
    """Counts all of them by reason, and keeps the first `listed_max` of each reason."""

    def __init__(self, keys: PlanKeys, listed_max: int) -> None:
        self.by_reason: Counter[str] = Counter()
        self.listed: list[Barrier] = []
        self._keys = keys
        self._listed_max = listed_max
        self._open_rows = 0

    def note(self, batch: Batch, number: int) -> None:
        """Transaction `number` of a decoded batch is one."""
        info = batch.transaction(number)
        self._open_rows = info.row_count + (0 if info.flags & TransactionFlag.FIRST_PART else self._open_rows)
        if not info.flags & TransactionFlag.LAST_PART:
            return
        reason, detail = self._why(batch, number, info)
        self.by_reason[reason] += 1
        if self.by_reason[reason] <= self._listed_max:
            gtid = info.gtid or "anonymous"
            self.listed.append(Barrier(reason, detail, gtid, batch.file, info.end_log_pos, self._open_rows))

    def _why(self, batch: Batch, number: int, info: TransactionInfo) -> tuple[str, str]:
        flags = info.flags
        if flags & TransactionFlag.STATEMENTS:
            text = statement_of(batch, info)
            return _reason_of_statement(flags, text), _shown(text)
        tables = tables_of(batch, number)
        detail = ", ".join(tables)
        if flags & TransactionFlag.KEYS_UNKNOWN:
            named = {str(pair[0]): pair[1] for pair in batch.tables}
            return _reason_of_keys([named[table] for table in tables]), detail
        if not flags & TransactionFlag.FIRST_PART:
            return LARGE, detail
        return FORGOTTEN, detail


def statement_of(batch: Batch, info: TransactionInfo) -> bytes:
    """The first statement that does something; empty when there is none."""
    frame = b""
    for at in range(info.event_first, info.event_first + info.event_count):
        kind, data = batch.event(at)
        if kind != QUERY:
            continue
        try:
            text = parse_query(data).text
        except ApplierError:  # a status variable that is not known: applying would refuse it, a plan need not
            continue
        if not _FRAME.match(text):
            return text
        frame = frame if frame and not text.strip().upper().startswith(b"XA") else text
    return frame


def _reason_of_statement(flags: TransactionFlag, text: bytes) -> str:
    if flags & TransactionFlag.XA or re.match(rb"\s*XA\b", text, re.IGNORECASE):
        return XA
    if _ACCOUNT.match(text):
        return ACCOUNT
    if _SAVEPOINT.match(text):
        return SAVEPOINT
    if flags & TransactionFlag.SCHEMA and not flags & TransactionFlag.DDL:
        return CREATE_SELECT
    return STATEMENT if _CHANGES_ROWS.match(text) or not flags & TransactionFlag.DDL else DDL


def _reason_of_keys(plans: list[TablePlan]) -> str:
    return CASCADE if any(plan.cascades for plan in plans) else KEYS_UNKNOWN


def _shown(text: bytes) -> str:
    words = " ".join(text.decode("utf-8", "replace").split())
    return words if len(words) <= TEXT_CHARACTERS_MAX else words[: TEXT_CHARACTERS_MAX - 1] + "…"
