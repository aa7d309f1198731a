"""A table without any unique key: only the whole row tells one row from another, and some are equal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from applier.workload.model import Call, Load, Settings, require_positive
from applier.workload.randomness import Random
from applier.workload.sql import inserts

NOTES = 50


@dataclass(frozen=True, slots=True)
class NoPrimaryKeySettings(Settings):
    """rows: at scale 1.0."""

    database: str = "no_primary_key"
    rows: int = 20_000

    def __post_init__(self) -> None:
        super(NoPrimaryKeySettings, self).__post_init__()
        require_positive("rows", self.rows)


@dataclass(frozen=True, slots=True)
class NoPrimaryKey:
    """50 % insert a row (one in ten has an equal twin), 30 % update one, 20 % delete one.

    The table grows slowly. The plain index on `k` is there for the source; a replica that looks for a row has
    to compare all its columns.
    """

    settings: NoPrimaryKeySettings
    name: str = "no-primary-key"

    def tables(self) -> Sequence[str]:
        """See `Scenario`."""
        return ("keyless",)

    def definitions(self) -> Iterable[str]:
        """See `Scenario`."""
        yield (
            "CREATE TABLE keyless (k INT NOT NULL, amount INT, note VARCHAR(40), KEY keyless_k (k))"
            " ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"
        )

    def procedures(self) -> Mapping[str, str]:
        """None: each transaction is one statement."""
        return {}

    def loads(self) -> Iterable[Sequence[Load]]:
        """See `Scenario`."""
        random = Random(self.settings.seed, "load")
        yield [inserts("keyless", (self._values(random) for _ in range(self._rows)))]

    def calls(self, terminal: int, run: int) -> Iterator[Call]:
        """See `Scenario`."""
        random = Random(self.settings.seed, "run", run, terminal)
        deck: list[Callable[[], Call]] = [
            *[lambda: self._insert(random)] * 5,
            *[
                lambda: Call(
                    "update", f"UPDATE keyless SET amount = amount + 1 WHERE k = {self._k(random)} LIMIT 1"
                )
            ]
            * 3,
            *[lambda: Call("delete", f"DELETE FROM keyless WHERE k = {self._k(random)} LIMIT 1")] * 2,
        ]
        while True:
            yield deck[random.number(0, len(deck) - 1)]()

    def _insert(self, random: Random) -> Call:
        values = self._values(random)
        return Call(
            "insert", f"INSERT INTO keyless VALUES {values}" + (f",{values}" if random.chance(10) else "")
        )

    def _values(self, random: Random) -> str:
        amount = "NULL" if random.chance(10) else random.number(1, 100)
        return f"({self._k(random)},{amount},'note {random.number(1, NOTES)}')"

    def _k(self, random: Random) -> int:
        return random.number(1, self._rows)

    @property
    def _rows(self) -> int:
        return self.settings.scaled(self.settings.rows)
