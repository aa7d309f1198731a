"""From the batches of a log to a plan: one pass, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from applier.errors import CorruptEvent, DataError, LinkLost, Unreachable, UnsupportedEvent
from applier.events.batch import Batch
from applier.events.payload import inflate
from applier.events.rows import RowDecoder
from applier.events.scheduling import Dependencies, compressed, last_commit_microseconds
from applier.plan.barriers import Barriers
from applier.plan.chains import Chains, barriers_of
from applier.plan.hot_keys import HotKeys
from applier.plan.keys import PlanKeys
from applier.plan.report import Plan, Point, TableTotals
from applier.plan.simulate import POLICY_NAMES, WORKERS, Simulation
from writeset.buckets import BucketIndex

IN_FLIGHT = 1024
"""Transactions that the bucket index must know: more than workers, so that nobody notices that it forgets."""
POINTS_MAX = 400
POINT_WORKERS = 16

Say = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """transaction_cost: of a transaction without rows, in rows. Lists are cut at the other two."""

    transaction_cost: float = 1.0
    hot_keys_max: int = 20
    barriers_per_reason_max: int = 20


def make_plan(
    batches: Iterable[Batch], keys: PlanKeys, options: PlanOptions | None = None, say: Say | None = None
) -> Plan:
    """`batches` as `plan.log` reads them; `say` is told the number of transactions after each.

    Raises DataError for bytes that are damaged or not known, Unreachable when a server is, what `batches` raises.
    """
    planner = Planner(keys, options or PlanOptions())
    try:
        for batch in batches:
            planner.add(batch)
            if say is not None:
                say(planner.simulation.transactions)
    except CorruptEvent as error:
        facts = error.facts
        raise DataError(detail=f"the binary log is damaged at {facts['place']}: {facts['detail']}") from error
    except UnsupportedEvent as error:
        facts = error.facts
        detail = f"event type {facts['event_type']} at {facts['place']} is not known to this version"
        raise DataError(detail=detail) from error
    except LinkLost as error:
        facts = error.facts
        detail = f"the connection was lost: {facts['detail']}"
        raise Unreachable(role=facts["role"], place="of this log", detail=detail) from error
    return planner.plan()


class Planner:
    """Takes batches in log order."""

    def __init__(self, keys: PlanKeys, options: PlanOptions) -> None:
        self.options = options
        self.keys = keys
        self.simulation = Simulation(options.transaction_cost)
        self.chains = Chains(options.transaction_cost, distance=WORKERS[-1])
        self._decoder = RowDecoder()
        self._dependencies = Dependencies(BucketIndex(), row_by_row=True)
        self._hot_keys = HotKeys(self.chains, keys)
        self._barriers = Barriers(keys, options.barriers_per_reason_max)
        self._tables: dict[tuple[str, str], TableTotals] = {}
        self._timeline: list[Point] = []
        self._batches_per_point = 1
        self._batches = 0
        self._files: list[str] = []
        self._first_commit = 0
        self._last_commit = 0

    def add(self, batch: Batch) -> None:
        """Raises ApplierError."""
        for number in compressed(batch):
            inflate(batch, number)
        self._decoder.decode(batch, self.keys.plan)
        if len(batch):
            self._add_decoded(batch)
        if batch.failure is not None:
            raise batch.failure

    def _add_decoded(self, batch: Batch) -> None:
        self._dependencies.schedule(batch, max(0, batch.first_sequence_number - 1 - IN_FLIGHT))
        self.simulation.feed(batch)
        self._add_tables(batch, self.chains.feed(batch))
        self._hot_keys.look(batch)
        for number in barriers_of(batch):
            self._barriers.note(batch, number)
        self._first_commit = self._first_commit or batch.transaction(0).original_commit_microseconds
        self._last_commit = last_commit_microseconds(batch) or self._last_commit
        if batch.file not in self._files[-1:]:
            self._files.append(batch.file)
        self._batches += 1
        if self._batches % self._batches_per_point == 0:
            self._add_point()

    def _add_tables(self, batch: Batch, counts: list[tuple[int, int, int, int, int]]) -> None:
        for (table_map, plan), count in zip(batch.tables, counts, strict=True):
            totals = self._tables.get((table_map.schema, table_map.table))
            if totals is None:
                totals = self._tables[table_map.schema, table_map.table] = TableTotals(str(table_map))
            totals.keys_from = self.keys.known(table_map).keys_from
            totals.keyless = plan.keyless
            totals.add(*count)

    def _add_point(self) -> None:
        """The curve along the log has a bounded number of points: when there are too many, every second one goes."""
        times, at = self.simulation.times(), WORKERS.index(POINT_WORKERS)
        ends = {policy: times[policy][at] for policy in POLICY_NAMES}
        self._timeline.append(Point(self.simulation.transactions, self.simulation.serial_cost, ends))
        if len(self._timeline) >= POINTS_MAX:
            self._timeline = self._timeline[1::2]
            self._batches_per_point *= 2

    def plan(self) -> Plan:
        """What has been seen so far."""
        simulation, chains = self.simulation, self.chains
        if not self._timeline or self._timeline[-1].transactions != simulation.transactions:
            self._add_point()
        speedup = {
            policy: {
                workers: simulation.serial_cost / time if time else 1.0
                for workers, time in zip(WORKERS, times, strict=True)
            }
            for policy, times in simulation.times().items()
        }
        return Plan(
            files=tuple(self._files),
            transactions=simulation.transactions,
            rows=simulation.rows,
            keys=chains.keys.distinct,
            touches=chains.touches,
            transaction_cost=self.options.transaction_cost,
            cost=simulation.serial_cost,
            critical_path=chains.depth,
            critical_path_cost=chains.cost,
            exact=chains.exact,
            speedup=speedup,
            source_numbers=simulation.source_numbers,
            schema_of=None if self.keys.server is None else self.keys.server.place,
            tables=tuple(
                sorted(self._tables.values(), key=lambda table: (-table.waits, -table.rows, table.name))
            ),
            hot_keys=self._hot_keys.hottest(self.options.hot_keys_max),
            barriers=tuple(self._barriers.listed),
            barriers_by_reason=dict(self._barriers.by_reason.most_common()),
            barrier_waits=chains.barrier_waits,
            timeline=tuple(self._timeline),
            point_workers=POINT_WORKERS,
            first_commit_microseconds=self._first_commit,
            last_commit_microseconds=self._last_commit,
        )
