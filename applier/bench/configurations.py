"""Ways to replay that are measured against each other: by name, or built from options."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from applier.errors import UsageError
from applier.pipeline import PipelineSettings, default_workers
from scheduler.grouping import GroupLimits

CommitOrder = Literal["strict", "relaxed"]
TargetGtids = Literal["preserve", "own"]


@dataclass(frozen=True, slots=True)
class Configuration:
    """One way to replay, ours (`kind` applier) or the server's (`kind` stock).

    A stock replica keeps the commit order and the GTIDs, and has no groups.
    """

    name: str
    kind: Literal["applier", "stock"] = "applier"
    workers: int = default_workers(1)
    group_transactions: int = 1
    net_changes: bool = False
    target_gtids: TargetGtids = "preserve"
    commit_order: CommitOrder = "strict"
    decoders: int = 4
    group_delay_milliseconds: int = 0

    def pipeline_settings(self) -> PipelineSettings:
        """Raises UsageError for what this version cannot do."""
        chosen: dict[str, Any] = {
            "workers": self.workers,
            "decoders": self.decoders,
            "ordered": self.commit_order == "strict",
            "group": GroupLimits(self.group_transactions, delay_seconds=self.group_delay_milliseconds / 1000),
        }
        modes = {"net_changes": (self.net_changes, False), "target_gtids": (self.target_gtids, "preserve")}
        chosen |= {name: value for name, (value, default) in modes.items() if value != default}
        unknown = set(chosen) - {field.name for field in fields(PipelineSettings)}
        if unknown:
            raise UsageError(detail=f"{self.name}: this version has no {', '.join(sorted(unknown))}")
        return PipelineSettings(**chosen)


def stock(workers: int) -> Configuration:
    """The server's own replica, replica_preserve_commit_order=ON."""
    return Configuration(f"stock-{workers}", kind="stock", workers=workers)


def built(
    *,
    group_transactions: int = 1,
    net_changes: bool = False,
    target_gtids: TargetGtids = "preserve",
    workers: int | None = None,
    commit_order: CommitOrder = "strict",
) -> Configuration:
    """A configuration named after what it differs in, such as `net-1000-own` or `strict-1@4`."""
    kind = "net" if net_changes else "group" if group_transactions > 1 else commit_order
    parts = [kind, str(group_transactions)]
    if kind in ("net", "group") and commit_order != "strict":
        parts.append(commit_order)
    if target_gtids != "preserve":
        parts.append(target_gtids)
    name = "-".join(parts) + (f"@{workers}" if workers else "")
    workers = workers or default_workers(group_transactions)
    return Configuration(
        name, "applier", workers, group_transactions, net_changes, target_gtids, commit_order
    )


NAMED = {
    configuration.name: configuration
    for configuration in (
        Configuration("strict-1"),
        Configuration("relaxed-1", commit_order="relaxed"),
        Configuration("group-100", group_transactions=100),
        Configuration("group-1000", group_transactions=1000),
        Configuration("net-100", group_transactions=100, net_changes=True),
        Configuration("net-1000", group_transactions=1000, net_changes=True),
        Configuration(
            "net-1000-delay-50", group_transactions=1000, net_changes=True, group_delay_milliseconds=50
        ),
        Configuration("net-1000-own", group_transactions=1000, net_changes=True, target_gtids="own"),
        Configuration("net-3000", group_transactions=3000, net_changes=True),
        Configuration("net-3000-own", group_transactions=3000, net_changes=True, target_gtids="own"),
    )
}
DEFAULT_NAMES = ("strict-1", "net-100", "net-1000", "net-1000-own")


def named(name: str) -> Configuration:
    """`NAME`, `NAME@WORKERS` or `stock-WORKERS`. Raises UsageError when there is no configuration of that name."""
    prefix, _, number = name.partition("-")
    if prefix == "stock" and number.isdecimal() and int(number) > 0:
        return stock(int(number))
    known, at, workers = name.partition("@")
    if known not in NAMED or (at and not (workers.isdecimal() and int(workers) > 0)):
        raise UsageError(
            detail=f"there is no configuration {name!r}; there are {', '.join(NAMED)}, each with @N for N workers, "
            "and stock-N"
        )
    found = NAMED[known]
    return replace(
        found, name=name, workers=int(workers) if at else default_workers(found.group_transactions)
    )
