"""Load shaped like sysbench's oltp_write_only, oltp_update_index and oltp_insert, on its tables sbtest1, …

Rows are chosen uniformly (sysbench: --rand-type=uniform). A write-only transaction is one CALL: a procedure
with a branch for each table, because a table's name cannot be a parameter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from applier.workload.model import Call, Load, Settings, require_positive
from applier.workload.randomness import Random
from applier.workload.sql import inserts, transaction

C_GROUPS, PAD_GROUPS = 10, 5  # groups of 11 digits: 119 and 59 characters


@dataclass(frozen=True, slots=True)
class OltpSettings(Settings):
    """rows: of each table, at scale 1.0."""

    database: str = "sbtest"
    tables: int = 8
    rows: int = 10_000

    def __post_init__(self) -> None:
        super(OltpSettings, self).__post_init__()
        require_positive("tables", self.tables)
        require_positive("rows", self.rows)

    @property
    def table_rows(self) -> int:
        """Rows of each table."""
        return self.scaled(self.rows)


@dataclass(frozen=True, slots=True)
class _Oltp:
    """The tables, which all three share."""

    settings: OltpSettings

    def tables(self) -> Sequence[str]:
        """See `Scenario`."""
        return [f"sbtest{number}" for number in self._numbers()]

    def definitions(self) -> Iterable[str]:
        """See `Scenario`."""
        for number in self._numbers():
            yield f"""CREATE TABLE sbtest{number} (
    id INT NOT NULL AUTO_INCREMENT,
    k INT NOT NULL DEFAULT 0,
    c CHAR(120) NOT NULL DEFAULT '',
    pad CHAR(60) NOT NULL DEFAULT '',
    PRIMARY KEY (id),
    KEY k_{number} (k)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"""

    def loads(self) -> Iterable[Sequence[Load]]:
        """See `Scenario`."""
        yield [inserts(f"sbtest{number}", self._rows(number)) for number in self._numbers()]

    def _numbers(self) -> range:
        return range(1, self.settings.tables + 1)

    def _rows(self, number: int) -> Iterator[str]:
        rows = self.settings.table_rows
        random = Random(self.settings.seed, "load", number)
        for row in range(1, rows + 1):
            yield f"({row},{random.number(1, rows)},{_c(random)},{_pad(random)})"

    def _branches(self, table: str, statement: str) -> str:
        """`statement` for the table that the variable `table` chooses; {n} in it is the number."""
        branches = "\n".join(
            f"  WHEN {number} THEN {statement.format(n=number)};" for number in self._numbers()
        )
        return f"CASE {table}\n{branches}\nEND CASE;"

    def _random(self, terminal: int, run: int) -> Random:
        return Random(self.settings.seed, "run", run, terminal)

    def _row(self, random: Random) -> str:
        """A table's number and an id of it."""
        return f"{random.number(1, self.settings.tables)},{random.number(1, self.settings.table_rows)}"


def _c(random: Random) -> str:
    return f"'{random.digit_groups(C_GROUPS)}'"


def _pad(random: Random) -> str:
    return f"'{random.digit_groups(PAD_GROUPS)}'"


@dataclass(frozen=True, slots=True)
class WriteOnly(_Oltp):
    """Four row changes: an update of the indexed column, one of another column, a delete and an insert of the
    same id, each of the three steps in a random table."""

    name: str = "oltp"

    def procedures(self) -> Mapping[str, str]:
        """See `Scenario`."""
        delete_insert = (
            "BEGIN DELETE FROM sbtest{n} WHERE id = p_id3; "
            "INSERT INTO sbtest{n} (id, k, c, pad) VALUES (p_id3, p_k3, p_c3, p_pad3); END"
        )
        return {
            "oltp_write_only": transaction(
                "oltp_write_only",
                "p_t1 INT, p_id1 INT, p_t2 INT, p_id2 INT, p_c2 CHAR(120), "
                "p_t3 INT, p_id3 INT, p_k3 INT, p_c3 CHAR(120), p_pad3 CHAR(60)",
                "\n".join(
                    [
                        self._branches("p_t1", "UPDATE sbtest{n} SET k = k + 1 WHERE id = p_id1"),
                        self._branches("p_t2", "UPDATE sbtest{n} SET c = p_c2 WHERE id = p_id2"),
                        self._branches("p_t3", delete_insert),
                    ]
                ),
            )
        }

    def calls(self, terminal: int, run: int) -> Iterator[Call]:
        """See `Scenario`."""
        random, rows = self._random(terminal, run), self.settings.table_rows
        while True:
            yield Call(
                "write_only",
                f"CALL oltp_write_only({self._row(random)},{self._row(random)},{_c(random)},"
                f"{self._row(random)},{random.number(1, rows)},{_c(random)},{_pad(random)})",
            )


@dataclass(frozen=True, slots=True)
class UpdateIndex(_Oltp):
    """One update of the indexed column k."""

    name: str = "update-index"

    def procedures(self) -> Mapping[str, str]:
        """None: the transaction is one statement."""
        return {}

    def calls(self, terminal: int, run: int) -> Iterator[Call]:
        """See `Scenario`."""
        random, settings = self._random(terminal, run), self.settings
        while True:
            table, row = random.number(1, settings.tables), random.number(1, settings.table_rows)
            yield Call("update_index", f"UPDATE sbtest{table} SET k = k + 1 WHERE id = {row}")


@dataclass(frozen=True, slots=True)
class InsertOnly(_Oltp):
    """One insert of a row with the next auto-increment id."""

    name: str = "insert-only"

    def procedures(self) -> Mapping[str, str]:
        """None: the transaction is one statement."""
        return {}

    def calls(self, terminal: int, run: int) -> Iterator[Call]:
        """See `Scenario`."""
        random, settings = self._random(terminal, run), self.settings
        while True:
            table, k = random.number(1, settings.tables), random.number(1, settings.table_rows)
            yield Call(
                "insert", f"INSERT INTO sbtest{table} (k, c, pad) VALUES ({k},{_c(random)},{_pad(random)})"
            )
