"""What a terminal asks for (clause 2): the parameters of the five transactions, in the standard mix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from applier.workload.model import NEW_ORDER, NEW_ORDER_ROLLED_BACK, Call
from applier.workload.randomness import Random, last_name
from applier.workload.tpcc.procedures import LINE_FORMAT
from applier.workload.tpcc.settings import (
    DISTRICTS,
    LINES_MAX,
    LINES_MIN,
    LOGICAL_EPOCH,
    NonUniform,
    TpccSettings,
)

MIX = {"new_order": 45, "payment": 43, "order_status": 4, "delivery": 4, "stock_level": 4}
ROLLBACK_PERCENT, REMOTE_LINE_PERCENT, REMOTE_PAYMENT_PERCENT, BY_NAME_PERCENT = 1, 1, 15, 60
# The logical clock of a terminal: this much from one transaction to the next.
TICK = timedelta(seconds=1)


class TerminalCalls:
    """The transactions of one terminal, in order."""

    def __init__(self, settings: TpccSettings, terminal: int, run: int) -> None:
        self.settings = settings
        self.random = Random(settings.seed, "run", run, terminal)
        self.constants = NonUniform.of(settings)
        self.homes = home_warehouses(terminal, settings.terminals, settings.warehouses)
        self.at = datetime.fromisoformat(LOGICAL_EPOCH) + timedelta(days=run)

    def __iter__(self) -> Iterator[Call]:
        """Endless. A deck of 100 cards, shuffled anew when it is used up, keeps the mix (clause 5.2.4.2)."""
        transactions: dict[str, Callable[[], Call]] = {
            "new_order": self.new_order,
            "payment": self.payment,
            "order_status": self.order_status,
            "delivery": self.delivery,
            "stock_level": self.stock_level,
        }
        deck = [transactions[name] for name, cards in MIX.items() for _ in range(cards)]
        while True:
            for card in self.random.shuffled(len(deck)):
                self.at += TICK
                yield deck[card - 1]()

    def new_order(self) -> Call:
        """Clause 2.4.1. Lines are in the order of stock rows, so that two orders cannot wait in a circle."""
        random, settings, constants = self.random, self.settings, self.constants
        home = self._home()
        customer = random.non_uniform(constants.customer_a, constants.customer_c, 1, settings.customers)
        lines = []
        for _ in range(random.number(LINES_MIN, LINES_MAX)):
            remote = settings.warehouses > 1 and random.chance(REMOTE_LINE_PERCENT)
            supplier = self._other_warehouse(home) if remote else home
            item = random.non_uniform(constants.item_a, constants.item_c, 1, settings.items)
            lines.append((supplier, item, random.number(1, 10)))
        lines.sort()
        kind = NEW_ORDER
        if random.chance(ROLLBACK_PERCENT):
            kind = NEW_ORDER_ROLLED_BACK
            lines[-1] = (home, settings.items + 1, 1)  # the last one: all others have been written by then
        all_local = int(all(supplier == home for supplier, _, _ in lines))
        digits = "".join(
            LINE_FORMAT.format(item=item, warehouse=supplier, quantity=quantity)
            for supplier, item, quantity in lines
        )
        return Call(
            kind,
            f"CALL tpcc_new_order({home},{self._district()},{customer},{len(lines)},{all_local},'{digits}',"
            f"'{self.at}')",
        )

    def payment(self) -> Call:
        """Clause 2.5.1: 15 % of the customers pay at a warehouse that is not their own."""
        home, district = self._home(), self._district()
        customer_home, customer_district = home, district
        if self.settings.warehouses > 1 and self.random.chance(REMOTE_PAYMENT_PERCENT):
            customer_home, customer_district = self._other_warehouse(home), self._district()
        amount = self.random.number(100, 500_000) / 100
        customer = self._customer(customer_home, customer_district)
        return Call("payment", f"CALL tpcc_payment({home},{district},{customer},{amount:.2f},'{self.at}')")

    def order_status(self) -> Call:
        """Clause 2.6.1."""
        return Call(
            "order_status", f"CALL tpcc_order_status({self._customer(self._home(), self._district())})"
        )

    def delivery(self) -> Call:
        """Clause 2.7.1: the oldest undelivered order of all ten districts."""
        return Call("delivery", f"CALL tpcc_delivery({self._home()},{self.random.number(1, 10)},'{self.at}')")

    def stock_level(self) -> Call:
        """Clause 2.8.1."""
        threshold = self.random.number(10, 20)
        return Call("stock_level", f"CALL tpcc_stock_level({self._home()},{self._district()},{threshold})")

    def _home(self) -> int:
        return self.homes[self.random.number(0, len(self.homes) - 1)]

    def _district(self) -> int:
        return self.random.number(1, DISTRICTS)

    def _other_warehouse(self, home: int) -> int:
        other = self.random.number(1, self.settings.warehouses - 1)
        return other + (other >= home)

    def _customer(self, warehouse: int, district: int) -> str:
        """Arguments for a customer, named in 60 % of the cases by last name (then the number is 0)."""
        random, settings, constants = self.random, self.settings, self.constants
        if random.chance(BY_NAME_PERCENT):
            number = random.non_uniform(constants.name_a, constants.name_c_run, 0, settings.last_names - 1)
            return f"{warehouse},{district},0,'{last_name(number)}'"
        customer = random.non_uniform(constants.customer_a, constants.customer_c, 1, settings.customers)
        return f"{warehouse},{district},{customer},''"


def home_warehouses(terminal: int, terminals: int, warehouses: int) -> list[int]:
    """The warehouses of a terminal: one that it may share, or several when there are fewer terminals."""
    own = list(range(terminal + 1, warehouses + 1, terminals))
    return own or [terminal % warehouses + 1]
