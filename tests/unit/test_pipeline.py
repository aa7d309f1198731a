"""How the flow ends at bad bytes: everything before them is applied, and nothing is waited for that cannot come."""

from __future__ import annotations

from applier.address import parse_url
from applier.events.gtid import GtidSet
from applier.pipeline import Pipeline, PipelineSettings
from applier.reader import Stream
from tests import binlog_bytes as log
from tests.binlog_bytes import format_event, of_events, take_all, transaction
from tests.threads import ended, started
from writeset.definitions import TableDefinition
from writeset.hashing import TablePlan


def no_stream(executed: GtidSet) -> Stream:
    raise AssertionError


def no_keys(schema: str, table: str) -> TablePlan:
    return TablePlan(TableDefinition(schema, table, 1))


def pipeline() -> Pipeline:
    """Without any thread."""
    target = parse_url("mysql://u@h", "target", prompt=False)
    return Pipeline(
        PipelineSettings(), open_stream=no_stream, target=target, read_table=no_keys, executed=GtidSet()
    )


def test_bad_bytes_in_a_transaction_of_which_parts_were_handed_on_end_the_flow() -> None:
    torn = transaction(2, bytes(1000))[:-1]
    batches = take_all(
        of_events([format_event(), *transaction(1), *torn, log.event(200)], part_bytes_max=1000)
    )
    flow = pipeline()
    for batch in batches:
        flow.decoded.put(batch.number, batch, batch.memory_bytes)
    thread = started(flow._guard, flow._schedule)
    flow.clock.committed(1, 1)
    assert ended(thread)
    assert flow.failure is batches[-1].failure
