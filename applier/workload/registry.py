"""Workloads by name."""

from __future__ import annotations

import dataclasses
from typing import Any

from applier.errors import UsageError
from applier.workload.driver import DrivenWorkload
from applier.workload.foreign_keys import ForeignKeys, ForeignKeysSettings
from applier.workload.hot_row import HotRow, HotRowSettings
from applier.workload.large import Large, LargeSettings
from applier.workload.model import Workload
from applier.workload.no_primary_key import NoPrimaryKey, NoPrimaryKeySettings
from applier.workload.oltp import InsertOnly, OltpSettings, UpdateIndex, WriteOnly
from applier.workload.tpcc import Tpcc, TpccSettings
from applier.workload.wide import Wide, WideSettings

_REGISTRY: dict[str, tuple[Any, Any]] = {
    "tpcc": (Tpcc, TpccSettings),
    "oltp": (WriteOnly, OltpSettings),
    "update-index": (UpdateIndex, OltpSettings),
    "insert-only": (InsertOnly, OltpSettings),
    "hot-row": (HotRow, HotRowSettings),
    "large": (Large, LargeSettings),
    "wide": (Wide, WideSettings),
    "foreign-keys": (ForeignKeys, ForeignKeysSettings),
    "no-primary-key": (NoPrimaryKey, NoPrimaryKeySettings),
}

WORKLOADS = tuple(_REGISTRY)


def workload_named(name: str, **parameters: Any) -> Workload:
    """The workload of that name, with its settings set by `parameters` (fields of its settings class).

    Raises UsageError for an unknown name, a parameter that this workload does not have, a value out of range.
    """
    if name not in _REGISTRY:
        raise UsageError(detail=f"there is no workload {name!r}; there are {', '.join(WORKLOADS)}")
    scenario, settings = _REGISTRY[name]
    known = {field.name for field in dataclasses.fields(settings)}
    unknown = sorted(set(parameters) - known)
    if unknown:
        raise UsageError(
            detail=f"the workload {name} has no parameter {unknown[0].replace('_', '-')}; it has "
            + ", ".join(sorted(known)).replace("_", "-")
        )
    return DrivenWorkload(scenario(settings(**parameters)))
