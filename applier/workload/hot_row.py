"""One row that every transaction updates, next to a row that hardly any other does.

The worst case for a replica that hands rows on at commit only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from applier.workload.model import Call, Load, Settings, require_positive
from applier.workload.randomness import Random
from applier.workload.sql import inserts, transaction


@dataclass(frozen=True, slots=True)
class HotRowSettings(Settings):
    """accounts: rows that are not hot, at scale 1.0. hot_rows: among how many rows the heat is divided."""

    database: str = "hot_row"
    accounts: int = 100_000
    hot_rows: int = 1

    def __post_init__(self) -> None:
        super(HotRowSettings, self).__post_init__()
        require_positive("accounts", self.accounts)
        require_positive("hot_rows", self.hot_rows)


@dataclass(frozen=True, slots=True)
class HotRow:
    """A transaction adds to an account and to a total."""

    settings: HotRowSettings
    name: str = "hot-row"

    def tables(self) -> Sequence[str]:
        """See `Scenario`."""
        return ("totals", "accounts")

    def definitions(self) -> Iterable[str]:
        """See `Scenario`."""
        yield "CREATE TABLE totals (id INT NOT NULL PRIMARY KEY, total BIGINT NOT NULL) ENGINE=InnoDB"
        yield (
            "CREATE TABLE accounts (id INT NOT NULL PRIMARY KEY, balance BIGINT NOT NULL, "
            "owner VARCHAR(40) NOT NULL) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"
        )

    def procedures(self) -> Mapping[str, str]:
        """The hot row last, so that its lock is held as short as can be."""
        return {
            "hot_row_deposit": transaction(
                "hot_row_deposit",
                "p_account INT, p_total INT, p_amount INT",
                "UPDATE accounts SET balance = balance + p_amount WHERE id = p_account;\n"
                "UPDATE totals SET total = total + p_amount WHERE id = p_total;",
            )
        }

    def loads(self) -> Iterable[Sequence[Load]]:
        """See `Scenario`."""
        settings = self.settings
        random = Random(settings.seed, "load")
        accounts = (f"({row},0,'{random.text(10, 40)}')" for row in range(1, self._accounts + 1))
        totals = (f"({row},0)" for row in range(1, settings.hot_rows + 1))
        yield [inserts("totals", totals), inserts("accounts", accounts)]

    def calls(self, terminal: int, run: int) -> Iterator[Call]:
        """See `Scenario`."""
        random, hot_rows = Random(self.settings.seed, "run", run, terminal), self.settings.hot_rows
        while True:
            account, total, amount = (random.number(1, high) for high in (self._accounts, hot_rows, 1000))
            yield Call("deposit", f"CALL hot_row_deposit({account},{total},{amount})")

    @property
    def _accounts(self) -> int:
        return self.settings.scaled(self.settings.accounts)
