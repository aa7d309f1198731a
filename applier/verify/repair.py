"""Rows of the target written again from the source's.

Only called while the rows are locked on the source and the target has caught up with the moment before (see
`recheck`): then no change of them is under way, and nothing newer is overwritten.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import pymysql

from applier.connection import error_code, error_message
from applier.errors import NotComparable, PreflightFailed
from applier.preflight.grants import Grants, read_grants
from applier.verify import expressions as sql
from applier.verify.comparison import Surplus, Tally
from applier.verify.definitions import Record, Session, Table, query, quoted
from applier.verify.expressions import KeyValues
from applier.verify.sessions import Pair, read

DUPLICATE_KEY = 1062
NOT_ALLOWED = frozenset({1044, 1142, 1143, 1227, 1290})
STATEMENT_CHARACTERS_MAX = 1 << 20
STATEMENT_DIGESTS_MAX = 5000  # of 67 bytes: max_allowed_packet is seldom below a megabyte
# So many equal rows at most are deleted with one that is too much, and put in again: one DELETE takes many such digests
# away, but with a LIMIT each wants its own.
KEPT_MAX = 100
LOCK_WAIT_SECONDS = 1


class UniqueConflict(Exception):
    """A row that is to be written has a unique value that another wrong row of the target still holds."""


class Repairer:
    """Writes rows on the target, in sessions that `prepare` has seen; for several threads.

    `logged`: whether the target's binary log gets what we write. Not where the target keeps the source's GTIDs: there
    a transaction of ours would be one that the source never had.
    """

    def __init__(self, logged: bool) -> None:
        self._logged = logged
        self._grants = Grants()

    def prepare(self, target: Session) -> None:
        """Raises PreflightFailed when the account may not write as we have to."""
        statements = [
            # Dates that are none and ENUM's error value are data; a 0 in an AUTO_INCREMENT column is a 0.
            "SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES', foreign_key_checks = 0,"
            f" innodb_lock_wait_timeout = {LOCK_WAIT_SECONDS}"
        ]
        if not self._logged:
            statements.append("SET SESSION sql_log_bin = 0")
        with _privileges_told():
            for statement in statements:
                query(target, statement)
        self._grants = read_grants(target)

    def may_write(self, target: Session, table: Table, tally: Tally) -> bool:
        """Whether the rows of this table may be repaired; why not is noted in the tally."""
        if not self._grants.holds("TRIGGER", table.schema, table.name):
            with tally.lock:
                tally.repair_error = (
                    "a repair would fire the target's triggers on it, and the account cannot see whether it has any: "
                    f"GRANT TRIGGER ON {quoted(table.schema)}.*"
                )
            return False
        triggers = query(
            target,
            "SELECT trigger_name FROM information_schema.triggers"
            " WHERE event_object_schema = %s AND event_object_table = %s",
            (table.schema, table.name),
        )
        if triggers:
            names = ", ".join(str(name) for (name,) in triggers)
            with tally.lock:
                tally.repair_error = (
                    f"a repair would fire the target's triggers on it ({names}): drop these on the target, repair, "
                    "and create them again; replicated rows do not fire them"
                )
        return not triggers

    def rows(self, pair: Pair, table: Table, keys: Sequence[KeyValues]) -> None:
        """Make the target's rows with these keys those of the source. Raises UniqueConflict, and leaves it as it is."""
        where = sql.where_keys(table, keys)
        wanted = read(pair.source, sql.values_statement(table, where))
        digests = sql.rows_statement(table, where)
        with _transaction(pair.target):
            query(pair.target, sql.delete_statement(table, where))
            for statement in _inserts(table, wanted):
                query(pair.target, statement)
            ours, theirs = pair.both(digests)
            _require_equal(table, ours, theirs)

    def delete_extra(self, pair: Pair, table: Table, surplus: Surplus) -> int:
        """Take away the rows of a table without a key that the target has too often; gives their number."""
        extra = {digest: -rows for digest, rows in surplus.rows.items() if rows < 0}
        few = [digest for digest in extra if surplus.kept[digest] <= KEPT_MAX]
        for digests in _some(few):  # each DELETE reads the whole table
            with _transaction(pair.target):
                query(pair.target, sql.delete_by_digest_statement(table, digests))
                self._insert(pair, table, {digest: surplus.kept[digest] for digest in digests})
        for digest in extra.keys() - set(few):
            with _transaction(pair.target):
                query(pair.target, sql.delete_by_digest_statement(table, [digest], extra[digest]))
        return sum(extra.values())

    def insert_missing(self, pair: Pair, table: Table, surplus: Surplus) -> int:
        """Put in the rows of a table without a key that the target has too seldom; gives their number. Raises
        UniqueConflict."""
        missing = {digest: rows for digest, rows in surplus.rows.items() if rows > 0}
        for digests in _some(list(missing)):
            with _transaction(pair.target):
                self._insert(pair, table, {digest: missing[digest] for digest in digests})
        return sum(missing.values())

    @staticmethod
    def _insert(pair: Pair, table: Table, wanted: dict[str, int]) -> None:
        """Of the source's rows with these digests so many each; then the two sides have the same of them."""
        digests = list(wanted)
        contents = {}
        if any(wanted.values()):
            for digest, *values in read(pair.source, sql.values_by_digest_statement(table, digests)):
                contents[_text(digest)] = tuple(values)
        rows = (contents[digest] for digest in digests for _ in range(wanted[digest]))
        for statement in _inserts(table, rows):
            query(pair.target, statement)
        where = sql.where_keys(table, [(digest,) for digest in digests])
        _require_equal(table, *pair.both(sql.multiset_statement(table, where)))


def _some(digests: Sequence[str]) -> Iterator[Sequence[str]]:
    """As many at once as a statement has room for, whatever max_allowed_packet is."""
    for at in range(0, len(digests), STATEMENT_DIGESTS_MAX):
        yield digests[at : at + STATEMENT_DIGESTS_MAX]


def _inserts(table: Table, rows: Iterable[Record]) -> Iterator[str]:
    """INSERT statements of these values, each of some STATEMENT_CHARACTERS_MAX."""
    pending: list[str] = []
    size = 0
    for row in rows:
        values = sql.values_literal(table, [None if value is None else _text(value) for value in row])
        if pending and size + len(values) > STATEMENT_CHARACTERS_MAX:
            yield sql.insert_statement(table, pending)
            pending, size = [], 0
        pending.append(values)
        size += len(values)
    if pending:
        yield sql.insert_statement(table, pending)


@contextmanager
def _transaction(target: Session) -> Iterator[None]:
    """READ COMMITTED: rows that are only looked at do not stay locked."""
    query(target, "SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
    query(target, "START TRANSACTION")
    try:
        with _privileges_told():
            yield
            query(target, "COMMIT")
    except BaseException as error:
        query(target, "ROLLBACK")
        if isinstance(error, pymysql.MySQLError) and error_code(error) == DUPLICATE_KEY:
            raise UniqueConflict from error
        raise


@contextmanager
def _privileges_told() -> Iterator[None]:
    try:
        yield
    except pymysql.MySQLError as error:
        if error_code(error) not in NOT_ALLOWED:
            raise
        raise PreflightFailed(
            detail=f"the target's account cannot repair rows: {error_message(error)}. It needs INSERT, DELETE and "
            "TRIGGER on the tables, SESSION_VARIABLES_ADMIN (repairs are not logged), and CONNECTION_ADMIN where the "
            "target is read_only"
        ) from error


def _require_equal(table: Table, ours: list[Record], theirs: list[Record]) -> None:
    if sorted(map(_texts, ours)) != sorted(map(_texts, theirs)):
        raise NotComparable(
            detail=f"rows of {table} that were copied again are not what the source has; nothing of them was committed"
        )


def _texts(row: Record) -> tuple[str, ...]:
    return tuple(map(_text, row))


def _text(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
