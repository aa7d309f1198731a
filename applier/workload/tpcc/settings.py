"""How large the database is, and the constants of its random numbers."""

from __future__ import annotations

from dataclasses import dataclass

from applier.errors import UsageError
from applier.workload.model import Settings, require_positive
from applier.workload.randomness import LAST_NAMES, Random, non_uniform_range

DISTRICTS = 10
ITEMS, CUSTOMERS = 100_000, 3_000  # of all; of a district
UNDELIVERED_PERCENT = 30
LINES_MIN, LINES_MAX = 5, 15
WAREHOUSES_MAX = 99_999  # what an order line's five digits can name
LOGICAL_EPOCH = "2026-01-01 00:00:00"


@dataclass(frozen=True, slots=True)
class TpccSettings(Settings):
    """A warehouse holds some 80 MB at scale 1.0. Foreign keys are off by default, as in the usual kits for
    MySQL."""

    database: str = "tpcc"
    warehouses: int = 4
    foreign_keys: bool = False

    def __post_init__(self) -> None:
        super(TpccSettings, self).__post_init__()
        require_positive("warehouses", self.warehouses)
        if self.scale > 1 or self.warehouses > WAREHOUSES_MAX:
            raise UsageError(
                detail=f"TPC-C grows by warehouses (at most {WAREHOUSES_MAX:,}), and its scale is at most 1"
            )

    @property
    def items(self) -> int:
        """Rows of `item`, and of `stock` in each warehouse."""
        return self.scaled(ITEMS, least=LINES_MAX)

    @property
    def customers(self) -> int:
        """Customers of a district, each with one order at the start."""
        return self.scaled(CUSTOMERS, least=10)

    @property
    def delivered(self) -> int:
        """Orders of a district that are delivered at the start; the ones behind wait in new_orders."""
        return self.customers - self.customers * UNDELIVERED_PERCENT // 100

    @property
    def last_names(self) -> int:
        """How many different last names the customers of a district have."""
        return min(LAST_NAMES, self.customers)


@dataclass(frozen=True, slots=True)
class NonUniform:
    """The constants A and C of NURand for the three skewed choices (clause 2.1.6)."""

    name_a: int
    name_c_load: int
    name_c_run: int
    customer_a: int
    customer_c: int
    item_a: int
    item_c: int

    @classmethod
    def of(cls, settings: TpccSettings) -> NonUniform:
        """From the seed. C for last names differs between load and run by 65..119, but not by 96 or 112
        (clause 2.1.6.1)."""
        random = Random(settings.seed, "nurand")
        name_c_load = random.number(0, 255)
        distances = [distance for distance in range(65, 120) if distance not in (96, 112)]
        distance = distances[random.number(0, len(distances) - 1)]
        up = name_c_load + distance
        customer_a = non_uniform_range(1023, CUSTOMERS, settings.customers)
        item_a = non_uniform_range(8191, ITEMS, settings.items)
        return cls(
            name_a=non_uniform_range(255, LAST_NAMES, settings.last_names),
            name_c_load=name_c_load,
            name_c_run=up if up <= 255 else name_c_load - distance,
            customer_a=customer_a,
            customer_c=random.number(0, customer_a),
            item_a=item_a,
            item_c=random.number(0, item_a),
        )
