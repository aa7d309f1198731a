"""TPC-C, as `applier workload` has it; its procedures are the clients' own."""

from __future__ import annotations

from collections.abc import Iterator

from applier.sandbox import Server
from applier.workload import workload_named
from applier.workload.tpcc import Tpcc, TpccSettings
from tests.clients import ACCOUNT
from tests.databases import Database


def tpcc(warehouses: int, scale: float = 1.0) -> Database:
    def fill(server: Server) -> None:
        # By the clients' account: procedures of root's would write to a server that is read_only.
        workload_named("tpcc", warehouses=warehouses, scale=scale).prepare(
            lambda: server.connect(user=ACCOUNT)
        )

    def transactions(client: int) -> Iterator[tuple[str, ...]]:
        settings = TpccSettings(database="tpcc", warehouses=warehouses, scale=scale)
        return ((call.sql,) for call in Tpcc(settings).calls(client, 1))

    return Database(("tpcc",), fill, transactions)
