"""A plan on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from applier.plan.hot_keys import KeyName
from applier.plan.report import Plan, plain
from applier.plan.simulate import WORKERS

TABLES_MAX = 15
KEYS_MAX = 10
BARRIERS_MAX = 20
VALUE_CHARACTERS_MAX = 60
STATEMENT_CHARACTERS_MAX = 50
POLICY_TEXTS = {
    "source": "the source's last_committed",
    "ours": "ours, whole transactions",
    "handoff": "ours, row by row",
}


def show(plan: Plan, console: Console) -> None:
    """The summary, then what stands in the way."""
    console.print(_summary(plan))
    console.print(_speedup(plan))
    for table in (_tables(plan), _hot_keys(plan), _barriers(plan)):
        if table.row_count:
            console.print(table)
    for remark in remarks(plan):
        console.print(Text(remark))


def remarks(plan: Plan) -> list[str]:
    """What one must know to read the figures."""
    found = [f"keys: {plan.keys_text}"]
    if plan.source_text:
        found.append(f"source: {plan.source_text}")
    if not plan.exact:
        found.append("critical path: at least so long; there are more keys than are remembered")
    found.append(
        f"held up: transactions whose last_committed comes from there and is less than {WORKERS[-1]} transactions back"
    )
    found.append(
        f"model: a transaction costs its rows and {plan.transaction_cost:g} more; workers take transactions in log "
        "order and commit in log order; reading, lock waits and the disk cost nothing"
    )
    return found


def _summary(plan: Plan) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(justify="right", style="bold")
    table.add_column()
    rate = (
        f" in {plan.seconds:,.0f} s ({plan.transactions / plan.seconds:,.0f} a second)"
        if plan.seconds >= 1
        else ""
    )
    table.add_row(f"{plan.transactions:,}", f"transactions{rate}")
    table.add_row(f"{plan.rows:,}", "rows")
    table.add_row(f"{plan.keys:,}", f"keys, touched {plan.touches:,} times")
    table.add_row(
        f"{plan.critical_path:,}",
        "transactions in the longest chain by keys alone, the critical path: whole transactions at most "
        f"{plan.speedup_limit:,.1f} x faster, unless the source's last_committed knows better",
    )
    table.add_row(f"{plan.barrier_total:,}", f"barriers, which held up {plan.barrier_waits:,} transactions")
    return table


def _speedup(plan: Plan) -> Table:
    table = Table(title="Possible speed-up over one worker")
    table.add_column("dependencies", no_wrap=True)
    for workers in WORKERS:
        table.add_column(f"{workers} workers" if workers > 1 else "1 worker", justify="right")
    for policy, factors in plan.speedup.items():
        table.add_row(POLICY_TEXTS[policy], *(f"{factors[workers]:.2f}" for workers in WORKERS))
    return table


def _tables(plan: Plan) -> Table:
    shown = plan.tables[:TABLES_MAX]
    left = len(plan.tables) - len(shown)
    table = Table(title="Tables that held transactions up the most", caption=f"{left} more" if left else None)
    for column in ("table", "held up", "transactions", "inserts", "updates", "deletes", "keys"):
        table.add_column(column, justify="left" if column in ("table", "keys") else "right")
    for one in shown:
        numbers = (one.waits, one.transactions, one.inserts, one.updates, one.deletes)
        table.add_row(Text(one.name), *(f"{number:,}" for number in numbers), one.keys_text)
    return table


def _hot_keys(plan: Plan) -> Table:
    table = Table(title="Hottest keys")
    for column in ("key", "held up", "writes"):
        table.add_column(column, justify="left" if column == "key" else "right")
    for key in plan.hot_keys[:KEYS_MAX]:
        table.add_row(Text(key_text(key.name)), f"{key.waits:,}", f"{key.writes:,}")
    return table


def key_text(name: KeyName) -> str:
    """`shop.stock PRIMARY (warehouse=1, item=7)`."""
    if name.values is None:
        return f"{name.table} {name.index}"
    values = (f"{column}={_shown(value)}" for column, value in name.values.items())
    return f"{name.table} {name.index} ({', '.join(values)})"


def _shown(value: object) -> str:
    text = repr(value) if isinstance(value, str) else str(plain(value))
    return text if len(text) <= VALUE_CHARACTERS_MAX else text[: VALUE_CHARACTERS_MAX - 1] + "…"


def _barriers(plan: Plan) -> Table:
    shown = plan.barriers[:BARRIERS_MAX]
    counts = ", ".join(f"{count:,} {reason}" for reason, count in plan.barriers_by_reason.items())
    table = Table(
        title=f"Barriers: {counts}" if counts else "Barriers",
        caption=_left_out(plan.barrier_total, len(shown)),
    )
    for column in ("reason", "what", "rows", "GTID", "ends at"):
        table.add_column(
            column,
            justify="right" if column == "rows" else "left",
            no_wrap=True,
            max_width=STATEMENT_CHARACTERS_MAX if column == "what" else None,
        )
    for one in shown:
        place = f"{one.file}:{one.position}"
        table.add_row(one.reason, Text(one.detail), f"{one.rows:,}", one.gtid, Text(place))
    return table


def _left_out(total: int, shown: int) -> str | None:
    return f"{total - shown:,} more" if total > shown else None
