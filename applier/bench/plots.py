"""Plots of what the benches found, from what their JSON holds. Needs matplotlib (`applier[bench]`)."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from applier.bench.output import on_machine
from applier.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Facts = Mapping[str, Any]

OURS, STOCK, OTHER = "#1f6feb", "#8b949e", "#d29922"
INCHES = (8.0, 3.6)
PLOT_SUFFIXES = (".svg", ".png", ".pdf")


def require_plotting() -> None:
    """Raises UsageError when matplotlib is not installed."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise UsageError(detail=f"plots need matplotlib: install applier[bench] ({error})") from error


def save(figure: Figure, path: Path) -> None:
    """In the format that the name ends with. Raises UsageError for another than PLOT_SUFFIXES."""
    if path.suffix not in PLOT_SUFFIXES:
        raise UsageError(detail=f"{path}: a plot's name ends in {', '.join(PLOT_SUFFIXES)}")
    figure.savefig(path, dpi=150)


def as_svg(figure: Figure) -> str:
    """An <svg> element, to stand in a page."""
    text = io.StringIO()
    figure.savefig(text, format="svg")
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def _figure(title: str, facts: Facts) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=INCHES, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(on_machine(facts), fontsize="x-small", color="#57606a")
    return figure, axes


def _bars(
    axes: Axes,
    names: Sequence[str],
    values: Sequence[float],
    colors: Sequence[str],
    unit: str,
    ends: Sequence[float] | None = None,
) -> None:
    """Horizontal, the first on top, each with its value behind its end (of the error bar, where `ends` tells)."""
    axes.barh(names, values, color=colors)
    for row, (value, end) in enumerate(zip(values, ends or values, strict=True)):
        text = f"{value:,.0f}" if value >= 100 else f"{value:,.1f}"
        axes.annotate(text, (end, row), xytext=(5, 0), textcoords="offset points", va="center")
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel(unit)


# --- replay --------------------------------------------------------------------------------------------


def replay_figures(facts: Facts) -> list[Figure]:
    """Rates of all configurations; where the workers' time went."""
    return [_rates(facts), _worker_time(facts)] if facts["why"] else [_rates(facts)]


def _rates(facts: Facts) -> Figure:
    title = (
        f"Replay of {facts['transactions']:,} transactions, {facts['workload']}: applier and stock replica"
    )
    figure, axes = _figure(title, facts)
    kinds = {run["name"]: run["kind"] for run in facts["runs"]}
    names = sorted(facts["medians"], key=lambda name: (kinds[name], facts["medians"][name]["median"]))
    medians = [facts["medians"][name] for name in names]
    values = [one["median"] for one in medians]
    _bars(
        axes, names, values, [OURS if kinds[name] == "applier" else STOCK for name in names], "transactions/s"
    )
    below = [one["median"] - one["min"] for one in medians]
    above = [one["max"] - one["median"] for one in medians]
    axes.errorbar(values, range(len(names)), xerr=[below, above], fmt="none", ecolor="#24292f", capsize=3)
    return figure


def _worker_time(facts: Facts) -> Figure:
    from matplotlib import colormaps

    figure, axes = _figure("Where the workers' time went", facts)
    names = list(facts["why"])
    causes = sorted({cause for one in facts["why"].values() for cause in one["worker_time"]})
    axes.set_prop_cycle(color=[colormaps["tab20"](number) for number in range(20)])
    left = [0.0] * len(names)
    for cause in causes:
        shares = [facts["why"][name]["worker_time"].get(cause, 0.0) * 100 for name in names]
        if max(shares) >= 1:
            axes.barh(names, shares, left=left, label=cause)
            left = [start + share for start, share in zip(left, shares, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("% of worker time")
    axes.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return figure


# --- balanced ------------------------------------------------------------------------------------------


def balanced_figures(facts: Facts) -> list[Figure]:
    """Both balanced speeds; each side's lag over time just below and above its own."""
    figure, axes = _figure(f"Balanced replay speed, {facts['workload']}", facts)
    sides = [facts["applier"], facts["stock"]]
    values = [side["transactions_per_second"] for side in sides]
    _bars(axes, [side["name"] for side in sides], values, [OURS, STOCK], "transactions/s")
    return [figure, *(_lag(facts, side) for side in ("applier", "stock"))]


def _lag(facts: Facts, side: str) -> Figure:
    figure, axes = _figure(f"Lag of {facts[side]['name']} just below and above its balanced speed", facts)
    for trial in facts[side]["lag"]:
        verdict = "held" if trial["held"] else "grows"
        axes.plot(
            [sample["seconds"] for sample in trial["samples"]],
            [sample["transactions"] for sample in trial["samples"]],
            label=f"{trial['rate']:,.0f}/s: {verdict}",
            color=OURS if trial["held"] else OTHER,
        )
    axes.set_xlabel("seconds")
    axes.set_ylabel("transactions behind")
    axes.set_ylim(bottom=0)
    if facts[side]["lag"]:
        axes.legend(frameon=False)
    return figure


# --- the flow and its kernels --------------------------------------------------------------------------


def pipeline_figures(facts: Facts) -> list[Figure]:
    """Rate of every way through the flow; processor time by stage."""
    figure, axes = _figure(f"The flow without servers, {facts['workload']}", facts)
    figure.set_figheight(1.5 + 0.22 * len(facts["runs"]))
    names = [
        f"{'compressed' if run['compressed'] else 'plain'}, groups of {run['group_transactions']}"
        f"{' net' if run['net_changes'] else ''}, {run['decoders']} decoders"
        for run in facts["runs"]
    ]
    colors = [OTHER if run["compressed"] else OURS for run in facts["runs"]]
    _bars(axes, names, [run["transactions_per_second"] for run in facts["runs"]], colors, "transactions/s")
    stages, stage_axes = _figure("Processor time a transaction, in groups", facts)
    values = [stage["nanoseconds_per_transaction"] for stage in facts["stages"].values()]
    _bars(stage_axes, list(facts["stages"]), values, [OURS] * len(values), "ns")
    return [figure, stages]


def decode_figures(facts: Facts) -> list[Figure]:
    """Rows a second, ours and the library's."""
    figure, axes = _figure(f"Decoding on one core, {facts['workload']}", facts)
    values = [
        facts["rows_per_second"],
        facts["rows_per_second_with_framing"],
        facts["mysql_replication_rows_per_second"],
    ]
    axes.set_xscale("log")
    names = ["keys and spans", "with framing and checksums", "mysql-replication"]
    _bars(axes, names, values, [OURS, OURS, STOCK], "rows/s (logarithmic)")
    return [figure]


def index_figures(facts: Facts) -> list[Figure]:
    """Nanoseconds a key, of the three layouts and both kinds of keys."""
    figure, axes = _figure("Index of last writers: look-up and update", facts)
    names, values = [], []
    for keys, one in ((facts["workload"], facts), ("random", facts["random"])):
        names += [f"ours, {keys} keys", f"study's layout, {keys} keys", f"Python dict, {keys} keys"]
        values += [one["ns_per_key"], one["study_layout_ns_per_key"], one["dict_ns_per_key"]]
    _bars(axes, names, values, [OURS, OTHER, STOCK] * 2, "ns a key")
    return [figure]


Figures = Callable[[Facts], "list[Figure]"]
