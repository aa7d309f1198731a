"""Parents and children, tied by foreign keys with and without cascade."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from applier.workload.model import Call, Load, Settings, require_positive
from applier.workload.randomness import Random
from applier.workload.sql import inserts, transaction

CHILDREN = 3
REGIONS = 10


@dataclass(frozen=True, slots=True)
class ForeignKeysSettings(Settings):
    """parents: rows at scale 1.0, each with CHILDREN children at the start.

    cascade: the server deletes the children of a deleted parent (in the binary log from MySQL 9.6 on); else
    the transaction deletes them itself.
    """

    database: str = "foreign_keys"
    parents: int = 10_000
    cascade: bool = True

    def __post_init__(self) -> None:
        super(ForeignKeysSettings, self).__post_init__()
        require_positive("parents", self.parents)


@dataclass(frozen=True, slots=True)
class ForeignKeys:
    """40 % change a parent and its children, 30 % move a child to another parent, 20 % add a child,
    10 % delete a parent with its children and insert it anew."""

    settings: ForeignKeysSettings
    name: str = "foreign-keys"

    def tables(self) -> Sequence[str]:
        """See `Scenario`."""
        return ("fk_children", "fk_parents", "fk_regions")

    def definitions(self) -> Iterable[str]:
        """See `Scenario`."""
        action = "CASCADE" if self.settings.cascade else "RESTRICT"
        options = "ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"
        yield f"CREATE TABLE fk_regions (id INT NOT NULL PRIMARY KEY, name VARCHAR(20) NOT NULL) {options}"
        yield f"""CREATE TABLE fk_parents (
    id INT NOT NULL PRIMARY KEY,
    region_id INT NOT NULL,
    amount INT NOT NULL,
    FOREIGN KEY (region_id) REFERENCES fk_regions (id)
) {options}"""
        yield f"""CREATE TABLE fk_children (
    id INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    parent_id INT NOT NULL,
    amount INT NOT NULL,
    note VARCHAR(40) NOT NULL,
    KEY fk_children_parent (parent_id),
    FOREIGN KEY (parent_id) REFERENCES fk_parents (id) ON DELETE {action}
) {options}"""

    def procedures(self) -> Mapping[str, str]:
        """See `Scenario`."""
        children = ", ".join(f"(p_parent, {number}, p_note)" for number in range(1, CHILDREN + 1))
        orphans = "" if self.settings.cascade else "DELETE FROM fk_children WHERE parent_id = p_parent;\n"
        return {
            "fk_change": transaction(
                "fk_change",
                "p_parent INT, p_amount INT",
                "UPDATE fk_parents SET amount = amount + p_amount WHERE id = p_parent;\n"
                "UPDATE fk_children SET amount = amount + p_amount WHERE parent_id = p_parent;",
            ),
            "fk_move": transaction(
                "fk_move",
                "p_parent INT, p_other INT",
                "UPDATE fk_children SET parent_id = p_other WHERE parent_id = p_parent ORDER BY id LIMIT 1;",
            ),
            "fk_add": transaction(
                "fk_add",
                "p_parent INT, p_amount INT, p_note VARCHAR(40)",
                "INSERT INTO fk_children (parent_id, amount, note) VALUES (p_parent, p_amount, p_note);\n"
                "UPDATE fk_parents SET amount = amount + p_amount WHERE id = p_parent;",
            ),
            "fk_renew": transaction(
                "fk_renew",
                "p_parent INT, p_region INT, p_note VARCHAR(40)",
                f"{orphans}DELETE FROM fk_parents WHERE id = p_parent;\n"
                "INSERT INTO fk_parents (id, region_id, amount) VALUES (p_parent, p_region, 0);\n"
                f"INSERT INTO fk_children (parent_id, amount, note) VALUES {children};",
            ),
        }

    def loads(self) -> Iterable[Sequence[Load]]:
        """See `Scenario`."""
        random = Random(self.settings.seed, "load")
        parents = range(1, self._parents + 1)
        yield [
            inserts("fk_regions", (f"({region},'{random.text(5, 20)}')" for region in range(1, REGIONS + 1)))
        ]
        yield [inserts("fk_parents", (f"({parent},{random.number(1, REGIONS)},0)" for parent in parents))]
        children = (
            f"({(parent - 1) * CHILDREN + child},{parent},{child},'{random.text(10, 40)}')"
            for parent in parents
            for child in range(1, CHILDREN + 1)
        )
        yield [inserts("fk_children", children)]

    def calls(self, terminal: int, run: int) -> Iterator[Call]:
        """See `Scenario`."""
        random = Random(self.settings.seed, "run", run, terminal)
        number, parents = random.number, self._parents
        deck: list[Callable[[int], Call]] = [
            *[lambda parent: Call("change", f"CALL fk_change({parent},{number(1, 100)})")] * 4,
            *[lambda parent: Call("move", f"CALL fk_move({parent},{number(1, parents)})")] * 3,
            *[lambda parent: Call("add", f"CALL fk_add({parent},{number(1, 100)},'{random.text(10, 40)}')")]
            * 2,
            lambda parent: Call(
                "renew", f"CALL fk_renew({parent},{number(1, REGIONS)},'{random.text(10, 40)}')"
            ),
        ]
        while True:
            yield deck[number(0, len(deck) - 1)](number(1, parents))

    @property
    def _parents(self) -> int:
        return self.settings.scaled(self.settings.parents)
