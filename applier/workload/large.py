"""Large transactions: each changes a block of many neighbouring rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from applier.workload.model import Call, Load, Settings, require_positive
from applier.workload.randomness import Random
from applier.workload.sql import inserts, transaction

COPY_PERCENT = 30


@dataclass(frozen=True, slots=True)
class LargeSettings(Settings):
    """rows_per_transaction: rows of a block, at scale 1.0. blocks: how many blocks there are."""

    database: str = "large"
    rows_per_transaction: int = 10_000
    blocks: int = 20

    def __post_init__(self) -> None:
        super(LargeSettings, self).__post_init__()
        require_positive("rows_per_transaction", self.rows_per_transaction)
        require_positive("blocks", self.blocks)


@dataclass(frozen=True, slots=True)
class Large:
    """70 % update a block of large_rows, 30 % replace (delete, insert) its copy in large_copies.

    At READ COMMITTED: gap locks at the ends of neighbouring blocks would make deadlocks the rule.
    """

    settings: LargeSettings
    name: str = "large"

    def tables(self) -> Sequence[str]:
        """See `Scenario`."""
        return ("large_copies", "large_rows")

    def definitions(self) -> Iterable[str]:
        """See `Scenario`."""
        for table in ("large_rows", "large_copies"):
            yield f"""CREATE TABLE {table} (
    id INT NOT NULL,
    version INT NOT NULL,
    amount DECIMAL(12,2) NOT NULL,
    note VARCHAR(100) NOT NULL,
    PRIMARY KEY (id),
    KEY {table}_amount (amount)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"""

    def procedures(self) -> Mapping[str, str]:
        """See `Scenario`."""
        return {
            "large_update": transaction(
                "large_update",
                "p_first INT, p_last INT, p_note VARCHAR(100)",
                "UPDATE large_rows SET version = version + 1, amount = amount + id % 7, note = p_note\n"
                "  WHERE id BETWEEN p_first AND p_last;",
                read_committed=True,
            ),
            "large_copy": transaction(
                "large_copy",
                "p_first INT, p_last INT",
                "DELETE FROM large_copies WHERE id BETWEEN p_first AND p_last;\n"
                "INSERT INTO large_copies SELECT * FROM large_rows WHERE id BETWEEN p_first AND p_last;",
                read_committed=True,
            ),
        }

    def loads(self) -> Iterable[Sequence[Load]]:
        """See `Scenario`."""
        for table in ("large_rows", "large_copies"):
            yield [inserts(table, self._rows(block)) for block in range(self.settings.blocks)]

    def calls(self, terminal: int, run: int) -> Iterator[Call]:
        """See `Scenario`."""
        random = Random(self.settings.seed, "run", run, terminal)
        while True:
            block = self._block(random.number(0, self.settings.blocks - 1))
            span = f"{block.start},{block.stop - 1}"
            if random.chance(COPY_PERCENT):
                yield Call("copy", f"CALL large_copy({span})")
            else:
                yield Call("update", f"CALL large_update({span},'{random.text(20, 100)}')")

    def _block(self, number: int) -> range:
        rows = self.settings.scaled(self.settings.rows_per_transaction)
        return range(number * rows + 1, (number + 1) * rows + 1)

    def _rows(self, block: int) -> Iterator[str]:
        random = Random(self.settings.seed, "load", block)
        for row in self._block(block):
            yield f"({row},0,{random.number(0, 10**6) / 100:.2f},'{random.text(20, 100)}')"
