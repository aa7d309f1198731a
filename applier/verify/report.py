"""What a comparison found."""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass, field
from typing import Any


class Kind(enum.StrEnum):
    """How source and target differ. Row kinds are seen from the source: MISSING is missing on the target."""

    MISSING_TABLE = "missing table"
    EXTRA_TABLE = "extra table"
    DEFINITION = "definition"
    MISSING = "missing"
    EXTRA = "extra"
    DIFFERENT = "different"


DEFINITIONS = frozenset({Kind.MISSING_TABLE, Kind.EXTRA_TABLE, Kind.DEFINITION})


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference. `key` names a row by its key columns; for a table without a key it shows all columns.

    `columns` are those that differ; `rows` is above one for equal rows of a table without a key.
    """

    schema: str
    table: str
    kind: Kind
    key: dict[str, int | str | None] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    rows: int = 1
    detail: str = ""


@dataclass(frozen=True, slots=True)
class TableReport:
    """One table. `rows_different` counts the rows that were found different, `differences` lists them, at
    most `VerifyOptions.differences_max`. When `truncated` there are more, and some were not even looked for.
    `chunks_different` counts chunks at the same position; `unresolved` those that never were.
    `rows_repaired` of the different ones were copied again; `repair_error` tells why others were not."""

    schema: str
    table: str
    rows_source: int = 0
    rows_target: int = 0
    chunks: int = 0
    chunks_different: int = 0
    rows_different: int = 0
    truncated: bool = False
    unresolved: int = 0
    differences: tuple[Difference, ...] = ()
    seconds: float = 0.0
    rows_repaired: int = 0
    repair_error: str = ""

    @property
    def identical(self) -> bool:
        """Nothing was found different."""
        return not (self.differences or self.chunks_different or self.unresolved)

    @property
    def repaired(self) -> bool:
        """Whatever was found different is not any more."""
        if any(difference.kind in DEFINITIONS for difference in self.differences):
            return False
        return not (self.unresolved or self.repair_error or self.rows_different > self.rows_repaired)


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The whole comparison.

    `position` is the GTID set at which both sides were read; `exact` tells whether every chunk was compared
    at one position (on a moving pair a chunk may have been found equal at two positions close to each other).
    `unresolved` counts chunks that differed, but never could be read at the same position. `warnings` are
    differing views, routines, triggers and events, and the target's own transactions.
    """

    tables: tuple[TableReport, ...]
    position: str
    exact: bool
    rounds: int
    seconds: float
    warnings: tuple[str, ...] = ()

    @property
    def differences(self) -> tuple[Difference, ...]:
        return tuple(difference for table in self.tables for difference in table.differences)

    @property
    def rows(self) -> int:
        return sum(table.rows_source for table in self.tables)

    @property
    def chunks(self) -> int:
        return sum(table.chunks for table in self.tables)

    @property
    def rows_repaired(self) -> int:
        return sum(table.rows_repaired for table in self.tables)

    @property
    def unresolved(self) -> int:
        return sum(table.unresolved for table in self.tables)

    @property
    def identical(self) -> bool:
        return all(table.identical for table in self.tables)

    @property
    def exit_code(self) -> int:
        """0 identical, or repaired to be; 4 different; 75 could not be compared at the same position."""
        left = [table for table in self.tables if not (table.identical or table.repaired)]
        if not left:
            return 0
        return 4 if any(table.differences or table.chunks_different for table in left) else 75

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "identical": self.identical,
            "exact": self.exact,
            "position": self.position,
            "rounds": self.rounds,
            "seconds": round(self.seconds, 3),
            "rows": self.rows,
            "chunks": self.chunks,
            "unresolved": self.unresolved,
            "rows_repaired": self.rows_repaired,
            "warnings": list(self.warnings),
            "differences": [asdict(difference) for difference in self.differences],
            "tables": [
                {name: value for name, value in asdict(table).items() if name != "differences"}
                | {"identical": table.identical}
                for table in self.tables
            ],
        }
