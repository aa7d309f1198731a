"""Wide rows: many columns of many types and some 10 KB a row, of which a transaction changes little.

With full row images, an update of four bytes carries the whole row twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from applier.workload.model import Call, Load, Settings, require_positive
from applier.workload.randomness import Random
from applier.workload.sql import inserts, transaction

INTEGERS, NAMES, TEXTS = 64, 32, 6
TEXT_LENGTHS = (500, 1500)
BODY_LENGTHS = (2_000, 6_000)
ROWS_PER_INSERT = 50


@dataclass(frozen=True, slots=True)
class WideSettings(Settings):
    """rows: of the table, at scale 1.0."""

    database: str = "wide"
    rows: int = 5_000

    def __post_init__(self) -> None:
        super(WideSettings, self).__post_init__()
        require_positive("rows", self.rows)


@dataclass(frozen=True, slots=True)
class Wide:
    """A transaction changes one number of one row, and the name and the body of another."""

    settings: WideSettings
    name: str = "wide"

    def tables(self) -> Sequence[str]:
        """See `Scenario`."""
        return ("wide_rows",)

    def definitions(self) -> Iterable[str]:
        """One byte a character in the names: InnoDB keeps columns of up to 255 bytes within the page."""
        columns = [
            "id INT NOT NULL",
            *(f"n{number} INT" for number in range(1, INTEGERS + 1)),
            *(f"s{number} VARCHAR(64) CHARACTER SET latin1" for number in range(1, NAMES + 1)),
            *(f"t{number} TEXT" for number in range(1, TEXTS + 1)),
            "price DECIMAL(30,10) NOT NULL",
            "ratio DOUBLE NOT NULL",
            "at DATETIME(6) NOT NULL",
            "flags BIT(40) NOT NULL",
            "kind ENUM('small','middle','large') NOT NULL",
            "document JSON NOT NULL",
            "body LONGBLOB NOT NULL",
            "PRIMARY KEY (id)",
        ]
        yield f"CREATE TABLE wide_rows ({', '.join(columns)}) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"

    def procedures(self) -> Mapping[str, str]:
        """See `Scenario`."""
        return {
            "wide_update": transaction(
                "wide_update",
                "p_id1 INT, p_number INT, p_id2 INT, p_name VARCHAR(64), p_body LONGBLOB",
                "UPDATE wide_rows SET n1 = p_number, n64 = n64 + 1 WHERE id = p_id1;\n"
                "UPDATE wide_rows SET s1 = p_name, body = p_body,\n"
                "  document = JSON_SET(document, '$.name', p_name) WHERE id = p_id2;",
            )
        }

    def loads(self) -> Iterable[Sequence[Load]]:
        """See `Scenario`."""
        random = Random(self.settings.seed, "load")
        rows = (self._row(random, row) for row in range(1, self._rows + 1))
        yield [inserts("wide_rows", rows, ROWS_PER_INSERT)]

    def calls(self, terminal: int, run: int) -> Iterator[Call]:
        """See `Scenario`."""
        random = Random(self.settings.seed, "run", run, terminal)
        while True:
            # The lower id first, so that two transactions cannot wait for each other in a circle.
            first, second = sorted((random.number(1, self._rows), random.number(1, self._rows)))
            yield Call(
                "wide_update",
                f"CALL wide_update({first},{random.number(0, 10**9)},{second},'{random.text(1, 64)}',"
                f"'{random.text(*BODY_LENGTHS)}')",
            )

    @property
    def _rows(self) -> int:
        return self.settings.scaled(self.settings.rows)

    def _row(self, random: Random, row: int) -> str:
        number, text = random.number, random.text
        integers = ",".join(str(number(-(10**9), 10**9)) for _ in range(INTEGERS))
        names = "','".join(text(1, 64) for _ in range(NAMES))
        texts = "','".join(text(*TEXT_LENGTHS) for _ in range(TEXTS))
        price = f"{number(0, 10**9)}.{number(0, 10**9)}"
        document = json.dumps({"name": text(5, 20), "tags": [number(1, 9), number(10, 99)]})
        return (
            f"({row},{integers},'{names}','{texts}',{price},{number(0, 10**6) / 64},"
            f"'2026-01-01 00:00:00.{random.digits(6)}',{number(0, 2**40 - 1)},{number(1, 3)},'{document}',"
            f"'{text(*BODY_LENGTHS)}')"
        )
