"""The rows that the tables start with (clause 4.3.3.1), as INSERT statements."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from applier.workload.model import Load
from applier.workload.randomness import Random, last_name
from applier.workload.sql import inserts
from applier.workload.tpcc.settings import (
    DISTRICTS,
    LINES_MAX,
    LINES_MIN,
    LOGICAL_EPOCH,
    NonUniform,
    TpccSettings,
)

INITIAL_PAYMENT = 10
ITEMS_PER_LOAD = 25_000


def phases(settings: TpccSettings) -> Iterator[Sequence[Load]]:
    """Parents of foreign keys are in an earlier phase, or earlier in the same load."""
    warehouses = range(1, settings.warehouses + 1)
    item_starts = range(1, settings.items + 1, ITEMS_PER_LOAD)
    yield [*(_items(settings, start) for start in item_starts), _warehouses(settings)]
    yield [_stock(settings, warehouse, start) for warehouse in warehouses for start in item_starts]
    districts = range(1, DISTRICTS + 1)
    yield [
        _district_rows(settings, warehouse, district) for warehouse in warehouses for district in districts
    ]


def _items(settings: TpccSettings, first: int) -> Load:
    random = Random(settings.seed, "load", "item", first)
    return inserts(
        "item",
        (
            f"({item},{random.number(1, 10_000)},'{random.text(14, 24)}',"
            f"{random.number(100, 10_000) / 100:.2f},'{_data(random)}')"
            for item in range(first, min(first + ITEMS_PER_LOAD, settings.items + 1))
        ),
    )


def _data(random: Random) -> str:
    """i_data and s_data: 26..50 characters, in 10 % of the rows with ORIGINAL somewhere within."""
    text = random.text(26, 50)
    if not random.chance(10):
        return text
    at = random.number(0, len(text) - 8)
    return text[:at] + "ORIGINAL" + text[at + 8 :]


def _warehouses(settings: TpccSettings) -> Load:
    random = Random(settings.seed, "load", "warehouse")
    # At scale 1.0 these are the 30,000 and 300,000 of the specification; smaller databases must add up too.
    district_ytd = settings.customers * INITIAL_PAYMENT
    yield from inserts(
        "warehouse",
        (
            f"({warehouse},'{random.text(6, 10)}',{_address(random)},{_tax(random)},"
            f"{district_ytd * DISTRICTS})"
            for warehouse in range(1, settings.warehouses + 1)
        ),
    )
    yield from inserts(
        "district",
        (
            f"({district},{warehouse},'{random.text(6, 10)}',{_address(random)},{_tax(random)},"
            f"{district_ytd},{settings.customers + 1})"
            for warehouse in range(1, settings.warehouses + 1)
            for district in range(1, DISTRICTS + 1)
        ),
    )


def _address(random: Random) -> str:
    """Two streets, city, state, zip."""
    text = random.text
    return f"'{text(10, 20)}','{text(10, 20)}','{text(10, 20)}','{text(2, 2)}','{random.digits(4)}11111'"


def _tax(random: Random) -> str:
    return f"{random.number(0, 2000) / 10_000:.4f}"


def _stock(settings: TpccSettings, warehouse: int, first: int) -> Load:
    random = Random(settings.seed, "load", "stock", warehouse, first)
    text = random.text

    def rows() -> Iterator[str]:
        for item in range(first, min(first + ITEMS_PER_LOAD, settings.items + 1)):
            # One cut of ten times 24 characters: as random as ten cuts, and quicker.
            infos = text(240, 240)
            columns = "','".join(infos[at : at + 24] for at in range(0, 240, 24))
            yield f"({item},{warehouse},{random.number(10, 100)},'{columns}',0,0,0,'{_data(random)}')"

    return inserts("stock", rows())


def _district_rows(settings: TpccSettings, warehouse: int, district: int) -> Load:
    random = Random(settings.seed, "load", "district", warehouse, district)
    yield from inserts("customer", _customers(settings, random, warehouse, district))
    yield from inserts("history", _history(settings, random, warehouse, district))
    counts = [random.number(LINES_MIN, LINES_MAX) for _ in range(settings.customers)]
    yield from inserts("orders", _orders(settings, random, warehouse, district, counts))
    yield from inserts("order_line", _order_lines(settings, random, warehouse, district, counts))
    undelivered = range(settings.delivered + 1, settings.customers + 1)
    yield from inserts("new_orders", (f"({order},{district},{warehouse})" for order in undelivered))


def _customers(settings: TpccSettings, random: Random, warehouse: int, district: int) -> Iterator[str]:
    constants, names = NonUniform.of(settings), settings.last_names
    for customer in range(1, settings.customers + 1):
        number = (
            customer - 1
            if customer <= names
            else random.non_uniform(constants.name_a, constants.name_c_load, 0, names - 1)
        )
        yield (
            f"({customer},{district},{warehouse},'{random.text(8, 16)}','OE','{last_name(number)}',"
            f"{_address(random)},'{random.digits(16)}','{LOGICAL_EPOCH}',"
            f"'{'BC' if random.chance(10) else 'GC'}',50000,{random.number(0, 5000) / 10_000:.4f},"
            f"-{INITIAL_PAYMENT},{INITIAL_PAYMENT},1,0,'{random.text(300, 500)}')"
        )


def _history(settings: TpccSettings, random: Random, warehouse: int, district: int) -> Iterator[str]:
    for customer in range(1, settings.customers + 1):
        yield (
            f"({customer},{district},{warehouse},{district},{warehouse},'{LOGICAL_EPOCH}',{INITIAL_PAYMENT},"
            f"'{random.text(12, 24)}')"
        )


def _orders(
    settings: TpccSettings, random: Random, warehouse: int, district: int, counts: Sequence[int]
) -> Iterator[str]:
    """One order of each customer, in random order of customers."""
    customers = random.shuffled(settings.customers)
    for order, (customer, count) in enumerate(zip(customers, counts, strict=True), start=1):
        carrier = random.number(1, 10) if order <= settings.delivered else "NULL"
        yield f"({order},{district},{warehouse},{customer},'{LOGICAL_EPOCH}',{carrier},{count},1)"


def _order_lines(
    settings: TpccSettings, random: Random, warehouse: int, district: int, counts: Sequence[int]
) -> Iterator[str]:
    number, text, items = random.number, random.text, settings.items
    for order, count in enumerate(counts, start=1):
        delivered = order <= settings.delivered
        for line in range(1, count + 1):
            amount = "0" if delivered else f"{number(1, 999_999) / 100:.2f}"
            delivery = f"'{LOGICAL_EPOCH}'" if delivered else "NULL"
            yield (
                f"({order},{district},{warehouse},{line},{number(1, items)},{warehouse},{delivery},5,"
                f"{amount},'{text(24, 24)}')"
            )
