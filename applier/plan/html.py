"""A plan as one HTML page with plots, readable without a network."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from applier.errors import UsageError
from applier.plan.report import Plan
from applier.plan.simulate import POLICY_NAMES, WORKERS
from applier.plan.terminal import POLICY_TEXTS, key_text, remarks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"source": "#888888", "ours": "#1f77b4", "handoff": "#d62728"}
BARS_MAX = 15
LABEL_CHARACTERS_MAX = 48
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 2em } th, td { padding: .25em .8em; border-bottom: 1px solid #ddd }
th { text-align: left } td.number { text-align: right; font-variant-numeric: tabular-nums }
img { max-width: 100% } caption { text-align: left; font-weight: bold; padding: .5em 0 } .remark { color: #555 }
"""

Cell = str | int | float


def page(plan: Plan, title: str) -> str:
    """The whole page. Raises UsageError when matplotlib is not installed."""
    figures = [_figure(draw, plan) for draw in (_draw_speedup, _draw_timeline)]
    if plan.hot_keys:
        figures.append(_figure(_draw_hot_keys, plan))
    if any(table.waits for table in plan.tables):
        figures.append(_figure(_draw_tables, plan))
    parts = [
        f"<h1>{escape(title)}</h1>",
        _facts(plan),
        *figures,
        _speedups(plan),
        _hot_keys(plan),
        _tables(plan),
        _barriers(plan),
        *(f'<p class="remark">{escape(remark)}</p>' for remark in remarks(plan)),
    ]
    head = f"<meta charset='utf-8'><title>{escape(title)}</title><style>{STYLE}</style>"
    return (
        f"<!DOCTYPE html>\n<html lang='en'><head>{head}</head><body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


# --- tables --------------------------------------------------------------------------------------------


def _table(caption: str, head: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    body = "\n".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    if not body:
        return ""
    heads = "".join(f"<th>{escape(text)}</th>" for text in head)
    return f"<table><caption>{escape(caption)}</caption><tr>{heads}</tr>\n{body}</table>"


def _cell(value: Cell) -> str:
    if isinstance(value, str):
        return f"<td>{escape(value)}</td>"
    return (
        f'<td class="number">{value:,.2f}</td>'
        if isinstance(value, float)
        else f'<td class="number">{value:,}</td>'
    )


def _facts(plan: Plan) -> str:
    rows: list[tuple[str, Cell]] = [
        ("transactions", plan.transactions),
        ("rows", plan.rows),
        ("keys", plan.keys),
        ("critical path (transactions in the longest chain)", plan.critical_path),
        ("limit of the speed-up with whole transactions", plan.speedup_limit),
        ("barriers", plan.barrier_total),
        ("transactions held up by barriers", plan.barrier_waits),
    ]
    return _table("The log", ("", ""), rows)


def _speedups(plan: Plan) -> str:
    rows: list[Sequence[Cell]] = [
        (POLICY_TEXTS[name], *(plan.speedup[name][workers] for workers in WORKERS)) for name in POLICY_NAMES
    ]
    return _table(
        "Possible speed-up over one worker",
        ("dependencies", *(f"{count} workers" for count in WORKERS)),
        rows,
    )


def _hot_keys(plan: Plan) -> str:
    rows = [(key_text(key.name), key.waits, key.writes) for key in plan.hot_keys]
    return _table("Hottest keys", ("key", "transactions held up", "writes"), rows)


def _tables(plan: Plan) -> str:
    rows: list[Sequence[Cell]] = [
        (one.name, one.waits, one.transactions, one.inserts, one.updates, one.deletes, one.keys_text)
        for one in plan.tables
    ]
    return _table(
        "Tables",
        ("table", "transactions held up", "transactions", "inserts", "updates", "deletes", "keys"),
        rows,
    )


def _barriers(plan: Plan) -> str:
    counts = ", ".join(f"{count:,} {reason}" for reason, count in plan.barriers_by_reason.items())
    rows = [
        (one.reason, one.detail, one.rows, one.gtid, f"{one.file}:{one.position}") for one in plan.barriers
    ]
    left = plan.barrier_total - len(rows)
    caption = f"Barriers: {counts}" + (f" ({left:,} more than are listed)" if left else "")
    return _table(caption, ("reason", "what", "rows", "GTID", "ends at"), rows)


# --- plots ---------------------------------------------------------------------------------------------


def _figure(draw: Callable[[Plan, Axes], None], plan: Plan) -> str:
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(detail=f"--html needs matplotlib: install applier[bench] ({error})") from error
    with mpl.rc_context(
        {"svg.hashsalt": "plan", "svg.fonttype": "none", "axes.spines.top": False, "axes.spines.right": False}
    ):
        figure = Figure(figsize=(9, 4.2), layout="constrained")
        draw(plan, figure.subplots())
        image = io.BytesIO()
        figure.savefig(image, format="svg", metadata={"Date": None})
    data = base64.b64encode(image.getvalue()).decode("ascii")
    alternative = escape(draw.__name__.removeprefix("_draw_").replace("_", " "))
    return f'<p><img alt="{alternative}" src="data:image/svg+xml;base64,{data}"></p>'


def _draw_speedup(plan: Plan, axes: Axes) -> None:
    for name in POLICY_NAMES:
        factors = [plan.speedup[name][workers] for workers in WORKERS]
        axes.plot(WORKERS, factors, marker="o", color=COLOURS[name], label=POLICY_TEXTS[name])
    axes.plot(WORKERS, WORKERS, linestyle=":", color="#bbbbbb", label="one for each worker")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(WORKERS, [str(workers) for workers in WORKERS])
    axes.set_yticks(WORKERS, [str(workers) for workers in WORKERS])
    axes.set(xlabel="workers", ylabel="speed-up", title="Possible speed-up over one worker")
    axes.legend(frameon=False)


def _draw_timeline(plan: Plan, axes: Axes) -> None:
    """The speed-up of each stretch of the log."""
    for name in POLICY_NAMES:
        places, factors, cost, end, seen = [], [], 0.0, 0.0, 0
        for point in plan.timeline:
            spent = point.ends[name] - end
            places += [seen, point.transactions]
            factors += [(point.cost - cost) / spent if spent > 0 else float("nan")] * 2
            cost, end, seen = point.cost, point.ends[name], point.transactions
        axes.plot(places, factors, color=COLOURS[name], label=POLICY_TEXTS[name], linewidth=1)
    axes.set_ylim(bottom=0)
    axes.set(
        xlabel="transactions", ylabel="speed-up", title=f"Along the log, with {plan.point_workers} workers"
    )
    axes.legend(frameon=False)


def _draw_hot_keys(plan: Plan, axes: Axes) -> None:
    _bars(axes, [(key_text(key.name), key.waits) for key in plan.hot_keys], "Hottest keys")


def _draw_tables(plan: Plan, axes: Axes) -> None:
    _bars(axes, [(one.name, one.waits) for one in plan.tables if one.waits], "Tables")


def _bars(axes: Axes, values: Sequence[tuple[str, int]], title: str) -> None:
    shown: list[Any] = list(values[:BARS_MAX])[::-1]
    labels = [
        label if len(label) <= LABEL_CHARACTERS_MAX else label[: LABEL_CHARACTERS_MAX - 1] + "…"
        for label, _ in shown
    ]
    axes.barh(range(len(shown)), [value for _, value in shown], color=COLOURS["ours"])
    # A $ would start a formula.
    axes.set_yticks(range(len(shown)), [label.replace("$", r"\$") for label in labels])
    axes.set(xlabel="transactions held up", title=title)
