"""How the flow ends at bad bytes: everything before them is applied, and nothing is waited for that cannot come."""

from __future__ import annotations

import pytest

from applier.address import parse_url
from applier.errors import ApplyError
from applier.events.batch import Batch
from applier.events.gtid import GtidSet
from applier.events.transaction import TransactionFlag
from applier.pipeline import Pipeline, PipelineSettings
from applier.reader import Stream
from applier.selection import Schemas
from tests import binlog_bytes as log
from tests.binlog_bytes import (
    Seen,
    format_event,
    gtid_event,
    of_events,
    query_event,
    seen_in,
    take_all,
    transaction,
    xid_event,
)
from tests.threads import ended, started
from tests.unit.test_amplification import null_transaction
from tests.unit.test_payload import payload_body
from writeset.definitions import TableDefinition
from writeset.hashing import TablePlan


def no_stream(executed: GtidSet) -> Stream:
    raise AssertionError


def no_keys(schema: str, table: str) -> TablePlan:
    return TablePlan(TableDefinition(schema, table, 1))


def pipeline(selection: Schemas | None = None) -> Pipeline:
    """Without any thread."""
    target = parse_url("mysql://u@h", "target", prompt=False)
    return Pipeline(
        PipelineSettings(),
        open_stream=no_stream,
        target=target,
        read_table=no_keys,
        executed=GtidSet(),
        selection=selection,
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


def decoded_by(flow: Pipeline, batches: list[Batch]) -> list[Batch]:
    for batch in batches:
        flow.undecoded.put(batch, batch.memory_bytes)
    flow.undecoded.close()
    flow.decoders[0].run()
    flow.decoded.close(len(batches))
    return list(iter(flow.decoded.get, None))


@pytest.mark.parametrize("part_bytes_max", [10_000, 1 << 20])
def test_what_is_before_a_payload_that_cannot_be_inflated_is_handed_on(part_bytes_max: int) -> None:
    inner = b"".join(null_transaction(3, checksum=False))
    payload = log.event(log.PAYLOAD, payload_body(inner, announced=len(inner) + 1))
    behind = [gtid_event(3), *null_transaction(1)]
    events = [format_event(), gtid_event(1), *null_transaction(1), gtid_event(2), payload, *behind]
    done = decoded_by(pipeline(), take_all(of_events(events, part_bytes_max=part_bytes_max)))
    assert "does not inflate" in str(done[-1].failure)
    assert [seen.sequence_number for seen in whole_in(done)] == [1]


def test_what_is_before_a_statement_that_cannot_be_selected_is_handed_on() -> None:
    statement = [
        gtid_event(2),
        query_event("BEGIN"),
        query_event("INSERT INTO d.t SELECT * FROM e.t"),
        xid_event(),
    ]
    events = [format_event(), gtid_event(1), *null_transaction(1), *statement]
    done = decoded_by(pipeline(Refusing(["d"])), take_all(of_events(events)))
    assert isinstance(done[-1].failure, ApplyError)
    assert [seen.sequence_number for seen in whole_in(done)] == [1]


class Refusing(Schemas):
    def wants_statement(self, event: bytes) -> bool | None:
        raise ApplyError(gtid="", detail="it names two schemas")


def whole_in(batches: list[Batch]) -> list[Seen]:
    return [seen for batch in batches for seen in seen_in(batch) if TransactionFlag.LAST_PART in seen.flags]
