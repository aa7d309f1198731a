"""TPC-C as a scenario."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from applier.workload.model import Call, Load
from applier.workload.tpcc import load, procedures, schema
from applier.workload.tpcc.calls import TerminalCalls
from applier.workload.tpcc.settings import TpccSettings


@dataclass(frozen=True, slots=True)
class Tpcc:
    """See the package."""

    settings: TpccSettings
    name: str = "tpcc"

    def tables(self) -> Sequence[str]:
        """See `Scenario`."""
        return schema.TABLES

    def definitions(self) -> Iterable[str]:
        """See `Scenario`."""
        return schema.definitions(self.settings.foreign_keys)

    def procedures(self) -> Mapping[str, str]:
        """See `Scenario`."""
        return procedures.procedures()

    def loads(self) -> Iterable[Sequence[Load]]:
        """See `Scenario`."""
        return load.phases(self.settings)

    def calls(self, terminal: int, run: int) -> Iterator[Call]:
        """See `Scenario`."""
        return iter(TerminalCalls(self.settings, terminal, run))
