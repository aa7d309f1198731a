"""A worker: one session on the target that takes units, waits for what they need, executes them, commits in turn."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from applier.address import ServerAddress
from applier.errors import ApplierError, Fenced, LinkLost, RetriesExhausted, UnexpectedFailure
from applier.events.batch import Batch
from applier.events.hand_off import split
from applier.events.net_events import EVERYTHING, HELD, READY
from applier.events.net_group import FoldedGroup
from applier.events.scheduling import row_count
from applier.target import retry, statements
from applier.target.checkpoint import COMMIT_REPLIES, FENCED_CODE
from applier.target.groups import Groups
from applier.target.session import Session
from applier.target.units import Packets, UnitEncoder
from applier.target.wire import ServerReplied, WireLost
from applier.target.worker_state import WorkerState
from scheduler.budget import MemoryBudget
from scheduler.clock import Clock, ClockStopped, Decision, Ticket
from scheduler.dispatch import WorkQueue
from scheduler.grouping import Unit
from scheduler.queues import QueueAborted

log = logging.getLogger(__name__)

RETRIES_MAX: Final = 20
DUPLICATE_ATTEMPTS: Final = 11  # with pauses of a second in all, on average
LOCK_WAITS_MAX: Final = 500  # of a second each: as long as a stock replica's ten of 50 seconds
RETRY_PAUSE_SECONDS_MAX: Final = 0.5
TURN_ANSWER_SECONDS: Final = 60.0
COMMIT_APART: Final = 64  # without commit order one COMMIT in so many is sent by itself
# Below this a unit neither waits for memory nor counts its packets: all workers' together are a few megabytes.
SMALL_UNIT_BYTES: Final = 64 << 10
UNIT_ROOM: Final = 3  # what encoding a unit may add, in multiples of its bytes: net changes, and their base64


class Flow(Protocol):
    """What a worker tells the flow it is part of."""

    def fail(self, error: ApplierError, sequence_number: int | None = None) -> None:
        """The flow must end. With a sequence number: everything before it still commits."""

    @property
    def stopping(self) -> threading.Event: ...


class Worker(threading.Thread):
    """Ends when the queue is closed and empty, when the clock stops, or after it has reported a failure."""

    def __init__(
        self,
        number: int,
        address: ServerAddress,
        work: WorkQueue[Batch],
        clock: Clock,
        encoder: UnitEncoder,
        flow: Flow,
        budget: MemoryBudget,
        groups: Groups | None = None,
        variables: dict[str, str] | None = None,
    ) -> None:
        """`groups`: commit with a progress row instead of the source's GTID. `variables`: of the session."""
        super().__init__(name=f"worker-{number}", daemon=True)
        self.state = WorkerState(number)
        self.session = Session(address, variables=variables)
        self._work = work
        self._clock = clock
        self._encoder = encoder
        self._flow = flow
        self._budget = budget
        self._packet_bytes = self._reserved_bytes = 0  # charged to the budget
        self._groups = groups

    def run(self) -> None:
        try:
            self.session.open()
            self._loop()
        except (QueueAborted, ClockStopped):
            pass
        except WireLost as error:
            self._flow.fail(LinkLost(role="target", detail=str(error)))
        except ApplierError as error:
            self._flow.fail(error)
        except Exception as error:
            log.debug("worker failed", exc_info=True)
            self._flow.fail(UnexpectedFailure(detail=f"{type(error).__name__}: {error}"))
        finally:
            self.state.activity = "stopped"
            self.session.close()

    def _loop(self) -> None:
        state = self.state
        while True:
            state.enter("idle")
            unit = self._work.take()
            if unit is None:
                return
            state.take(unit)
            executing = state.execute.total
            if not self._apply_or_stop(unit):
                return
            state.take(None)
            self._work.pace.note(unit.size_bytes, state.execute.total - executing)
            self.session.forget_variables()  # that a statement was run under
            state.units += 1
            state.unit_transactions.observe(unit.transactions)
            state.transactions += unit.transactions
            state.rows += rows_of(unit)
            del unit  # else its batches are held, and count as in flight, until there is another

    def _apply_or_stop(self, unit: Unit[Batch]) -> bool:
        """False when the flow must stop at this unit, or inside it."""
        try:
            self._apply(unit)
        except ServerReplied as error:
            if self._groups is not None and unit.transactions > 1:
                # Find the guilty one: what is before it commits. We are at our turn, so nobody is in between.
                return all(self._apply_or_stop(single) for single in self._groups.split(unit))
            self._stop_at(unit, self._encoder.explain(unit, error))
            return False
        except (RetriesExhausted, Fenced) as error:
            self._stop_at(unit, error)
            return False
        return True

    def _stop_at(self, unit: Unit[Batch], failure: ApplierError) -> None:
        """Everything before the unit commits, nothing after it."""
        self.state.last_error = str(failure)
        self._clock.fail(unit.sequence_first)
        self._flow.fail(failure, unit.sequence_first)

    # --- one unit --------------------------------------------------------------------------------

    def _apply(self, unit: Unit[Batch]) -> None:
        """Returns when the unit is committed. Raises ServerReplied or RetriesExhausted when it never can be."""
        attempts = 0
        run = self._runner(unit)
        self._wait_for_room(unit)
        while True:
            alone = self._clock.low_water_mark >= unit.sequence_first - 1
            try:
                if run(unit):
                    return
                self.state.rolled_back_for_others += 1
            except ServerReplied as error:
                attempts += 1
                self.state.failed_attempts, self.state.last_code = attempts, error.code
                self._prepare_retry(unit, error, attempts, alone)
            finally:
                self._drop_packets()

    # --- memory ----------------------------------------------------------------------------------

    def _wait_for_room(self, unit: Unit[Batch]) -> None:
        """Before a unit is encoded, while it holds no lock on the target that others may need."""
        if unit.size_bytes > SMALL_UNIT_BYTES:
            self._reserved_bytes = UNIT_ROOM * unit.size_bytes
            self._budget.reserve(self._reserved_bytes, unit.slices[0].batch.number)

    def _count(self, unit: Unit[Batch], packets: Packets, *, more: bool = False) -> Packets:
        """Packets are held, and counted, until the unit has been run. They take the place of what was reserved; unless
        `more` of them are to be encoded, nothing of that is left."""
        if unit.size_bytes > SMALL_UNIT_BYTES:
            size = sum(len(packet) for packet, _ in packets)
            self._budget.add(size)
            self._packet_bytes += size
            taken = min(size, self._reserved_bytes) if more else self._reserved_bytes
            self._budget.release(taken)
            self._reserved_bytes -= taken
        return packets

    def _drop_packets(self) -> None:
        held = self._packet_bytes + self._reserved_bytes
        if held:
            self._budget.release(held)
            self._packet_bytes = self._reserved_bytes = 0

    # --- ways to run a unit ----------------------------------------------------------------------

    def _runner(self, unit: Unit[Batch]) -> Callable[[Unit[Batch]], bool]:
        if not (unit.first_part and unit.last_part):
            return self._run_parts
        if not self._encoder.is_rows(unit):
            return self._run_statements
        if self._groups is None:
            return self._run_rows
        return self._run_folded if self._groups.net_changes and self._encoder.folds(unit) else self._run_group

    def _prepare_retry(self, unit: Unit[Batch], error: ServerReplied, attempts: int, alone: bool) -> None:
        """Rolls back and waits for a good moment. Raises the error itself when there is nothing to retry."""
        action = retry.action_for(error.code)
        in_parts = not (unit.first_part and unit.last_part)  # those that were executed are not held any more
        if action is retry.Action.RECONNECT:
            raise WireLost(str(error))
        self.state.retries += 1
        self.state.retry_codes[error.code] = self.state.retry_codes.get(error.code, 0) + 1
        log.debug(
            "retry",
            extra={"sequence_number": unit.sequence_first, "error_code": error.code, "attempt": attempts},
        )
        self.session.roll_back()
        if action is retry.Action.STOP:
            # Final is only what fails again, with everything before it committed. Once has been seen to mean nothing:
            # 9.7.4 called an insert beside a deleted equal key a duplicate until the purge, which may be slow.
            self._clock.wait_for(unit.sequence_first - 1)
            patient = error.code == retry.DUPLICATE_KEY and unit.transactions == 1
            if in_parts or (alone and attempts >= (DUPLICATE_ATTEMPTS if patient else 2)):
                raise error
        if in_parts:
            raise WireLost(f"a large transaction has to be read again after {error}")
        if error.code == retry.LOCK_WAIT_TIMEOUT:
            # The lock may be held by a later unit that waits for its turn behind us: InnoDB cannot see that wait.
            self._clock.roll_back_later_than(unit.sequence_last)
        if action is retry.Action.RETRY_ALONE:
            self._clock.wait_for(unit.sequence_first - 1)
        if attempts >= (LOCK_WAITS_MAX if error.code == retry.LOCK_WAIT_TIMEOUT else RETRIES_MAX):
            self._clock.wait_for(unit.sequence_first - 1)
            raise RetriesExhausted(gtid=self._encoder.gtid(unit), attempts=attempts, detail=str(error))
        self._flow.stopping.wait(random.uniform(0, min(RETRY_PAUSE_SECONDS_MAX, 0.002 * 2**attempts)))

    def _wait_for_dependencies(self, sequence_number: int) -> None:
        if self._clock.low_water_mark < sequence_number:
            self.state.waits_for = sequence_number
            started = self.state.enter("waiting for a dependency")
            self._clock.wait_for(sequence_number)
            self.state.waited(started)

    def _commit_in_turn(self, unit: Unit[Batch], *, keeps_gtid: bool = False) -> bool:
        """False when the unit was rolled back because it blocked an earlier one. Raises ClockStopped."""
        started = self.state.enter("waiting for its commit turn")
        session = self.session
        ticket = Ticket(unit.sequence_first, unit.sequence_last, session.release)
        if self._groups is None or keeps_gtid:
            session.prepare_decision()
        else:
            session.prepare_decision(self._groups.commit_packet(unit), COMMIT_REPLIES)
        self._clock.executed(ticket)
        try:
            session.await_decision(lambda: ticket.decision is not None, TURN_ANSWER_SECONDS)
        except ServerReplied as error:
            if self._groups is not None and error.code == FENCED_CODE and not keeps_gtid:
                raise Fenced(channel=self._groups.checkpoint.channel) from error
            raise
        if ticket.decision is Decision.COMMIT:
            self.state.commit_turn.observe(session.released_at - started)
            self.state.commit.observe(time.monotonic() - session.released_at)
            self._committed(unit)
            return True
        if ticket.decision is Decision.ABANDON:
            raise ClockStopped
        session.execute_sql("SET gtid_next='AUTOMATIC'")
        self._clock.give_way(unit.sequence_first)
        return False

    def _committed(self, unit: Unit[Batch]) -> None:
        if self._groups is not None:  # before the turn is passed on: notes must come in order
            self._groups.note_committed(unit)
        self._clock.committed(unit.sequence_first, unit.sequence_last)

    def _run_rows(self, unit: Unit[Batch]) -> bool:
        """Rows pass through BINLOG: encoded while we wait for dependencies, one packet, one wait for the answers.

        Without commit order the COMMIT is in the packet too, but for a few, so that commits are measured."""
        apart = self._clock.ordered or self.state.units % COMMIT_APART == 0
        packets = self._count(unit, self._encoder.rows_packets(unit, commit=not apart))
        self._wait_for_dependencies(unit.last_committed)
        self._execute(unit, packets)
        if apart:
            return self._commit_in_turn(unit)
        self._committed(unit)
        return True

    def _execute(self, unit: Unit[Batch], packets: Packets) -> None:
        started = self.state.enter("executing")
        session = self.session
        session.use_format_description(unit.slices[-1].batch.format_description)
        for packet, owed in packets:
            session.execute(packet, owed)
        self.state.exchanges += len(packets)
        self.state.execute.observe(time.monotonic() - started)

    def _run_group(self, unit: Unit[Batch]) -> bool:
        """The rows of many transactions in one, and our progress with them."""
        packets = self._count(unit, self._encoder.group_packets(unit))
        self._wait_for_dependencies(unit.last_committed)
        self._execute(unit, packets)
        return self._commit_in_turn(unit)

    def _run_folded(self, unit: Unit[Batch]) -> bool:
        """The net changes of many transactions. Rows that no earlier group holds run at once, the others after it."""
        group = self._encoder.fold(unit)
        wait_for = split(group, self._clock.low_water_mark)
        begun = wait_for > 0 and self._execute_ready(unit, group)
        # Encoded before the wait, which then covers it.
        part = HELD if begun else EVERYTHING
        rest = self._count(unit, self._encoder.folded_packets(group, part, begins=not begun))
        if not begun:
            self._wait_for_dependencies(wait_for)
        elif not self._hold_until(unit, wait_for):
            return False
        self._execute(unit, rest)
        self.state.rows_folded += group.rows_in
        self.state.rows_saved += group.rows_in - group.rows_out
        return self._commit_in_turn(unit)

    def _execute_ready(self, unit: Unit[Batch], group: FoldedGroup) -> bool:
        """The rows that no earlier group holds; False when there are none."""
        ready = self._count(unit, self._encoder.folded_packets(group, READY, begins=True), more=True)
        if group.events_out == 0:
            return False
        self._execute(unit, ready)
        return True

    def _hold_until(self, unit: Unit[Batch], sequence_number: int) -> bool:
        """Waits with part of the unit executed; False when it was rolled back because it may block an earlier one."""
        self.state.waits_for = sequence_number
        started = self.state.enter("waiting for rows of an earlier group")
        reached = self._clock.wait_holding(unit.sequence_first, sequence_number)
        self.state.waited(started)
        if not reached:
            self.session.roll_back()
            self._clock.give_way(unit.sequence_first)
        return reached

    def _run_parts(self, unit: Unit[Batch]) -> bool:
        """A transaction too large for memory: executed part by part as it arrives, alone on the target.

        The unit goes over from part to part: one that has been executed is not held any longer."""
        self._wait_for_dependencies(unit.last_committed)
        keeps_gtid = False
        while True:
            if unit.first_part:  # also when it starts again: its parts need not end where they did
                keeps_gtid = not self._encoder.is_rows(unit)
            self._execute_part(unit)
            if unit.last_part:
                return self._commit_in_turn(unit, keeps_gtid=keeps_gtid)
            self.state.rows += rows_of(unit)
            self.state.enter("waiting for more of a large transaction")
            unit.slices = []
            part = self._work.take_part()
            if part.first_part:
                self.session.roll_back()  # the source's connection broke in its middle: it starts again
            unit.slices, unit.progress = part.slices, part.progress
            unit.first_part, unit.last_part = part.first_part, part.last_part
            del part  # it would hold the batch while we wait for the next one, which may wait for that memory

    def _execute_part(self, part: Unit[Batch]) -> None:
        if self._encoder.is_rows(part):
            encode = self._encoder.rows_packets if self._groups is None else self._encoder.group_packets
            self._execute(part, self._count(part, encode(part)))
            self._drop_packets()
        else:  # a savepoint in its middle, for example
            self._execute_statements(part)

    def _run_statements(self, unit: Unit[Batch]) -> bool:
        """Statements, one by one, with the session state they were written under; alone on the target."""
        self._wait_for_dependencies(unit.last_committed)
        committed = self._execute_statements(unit)
        if committed:
            self._committed(unit)
        else:
            committed = self._commit_in_turn(unit, keeps_gtid=True)
        if self._groups is not None:
            self.session.execute_sql("SET gtid_next='AUTOMATIC'")
        return committed

    def _execute_statements(self, unit: Unit[Batch]) -> bool:
        """Under the source's GTID in every mode: after a crash gtid_executed tells whether a DDL has run.

        True when the statements have committed by themselves."""
        self.state.enter("executing")
        batch, index = unit.slices[0].batch, unit.slices[0].first
        self.session.use_format_description(batch.format_description)
        return statements.execute(self.session, batch, index, keep_gtid=unit.first_part)


def rows_of(unit: Unit[Batch]) -> int:
    """Rows of a unit; of the present part of a large transaction."""
    return sum(row_count(piece.batch, piece.first, piece.end) for piece in unit.slices)
