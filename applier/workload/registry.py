"""Workloads by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
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

_READERS: dict[type, Callable[[str], Any]] = {
    int: int,
    float: float,
    str: str,
    bool: {"true": True, "yes": True, "false": False, "no": False}.__getitem__,
}


def parameters_from_text(name: str, texts: Mapping[str, str]) -> dict[str, Any]:
    """Parameters for `workload_named` from what was typed: `{"rows-per-transaction": "500"}`.

    Raises UsageError for an unknown workload or parameter, and for a value that does not have its type.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(_entry(name)[1])}
    parameters = {}
    for spelled, text in texts.items():
        parameter = spelled.replace("-", "_")
        _require_known(name, [parameter])
        try:
            parameters[parameter] = _READERS[type(defaults[parameter])](text)
        except (KeyError, ValueError):
            raise UsageError(
                detail=f"{spelled}={text}: not a value of type {type(defaults[parameter]).__name__}"
            ) from None
    return parameters


def workload_named(name: str, **parameters: Any) -> Workload:
    """The workload of that name, with its settings set by `parameters` (fields of its settings class).

    Raises UsageError for an unknown name, a parameter that this workload does not have, a value out of range.
    """
    scenario, settings = _entry(name)
    _require_known(name, parameters)
    return DrivenWorkload(scenario(settings(**parameters)))


def _entry(name: str) -> tuple[Any, Any]:
    if name not in _REGISTRY:
        raise UsageError(detail=f"there is no workload {name!r}; there are {', '.join(WORKLOADS)}")
    return _REGISTRY[name]


def _require_known(name: str, parameters: Iterable[str]) -> None:
    known = {field.name for field in dataclasses.fields(_entry(name)[1])}
    if unknown := sorted(set(parameters) - known):
        raise UsageError(
            detail=f"the workload {name} has no parameter {unknown[0].replace('_', '-')}; it has "
            + ", ".join(sorted(known)).replace("_", "-")
        )
