"""Clients change over from one server, the *origin*, to the other, the *destination*.

A cut-over has the source as origin, a rollback the target: the steps are the same. Until clients are let in on the
destination every step can be undone, and is when one fails; from there on there is only forward, and the way back is
another switch. What is about to be done is noted in the state on the target before, so that after a crash at any
moment the next command knows what to mend.

How the origin is held: super_read_only stops everybody but replication threads, so nothing can come after the last
GTID. The replay back to it is an ordinary session for the server, which super_read_only would stop too: while it runs
the origin has read_only alone, and the replay's account CONNECTION_ADMIN.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from applier.errors import DataError, Refused
from applier.migrate import way_back
from applier.migrate.channel import Channel
from applier.migrate.quick import QuickComparison
from applier.migrate.server import Server, Settings
from applier.migrate.settings import MigrateSettings
from applier.migrate.state import Phase, State
from applier.migrate.steps import Step, Told

CLOSED: Final = "closed"  # nobody new is let in on the destination
OPENING: Final = "opening"  # clients may write there
CAUGHT_UP_ROUNDS: Final = 2
# Lag when writes stop is time without writes.
NEAR_SECONDS: Final = 0.1
NEAR_PATIENCE_SECONDS: Final = 3.0
STATE_HOLDER: Final = "target"  # super_read_only would keep the state from being written


@dataclass(frozen=True, slots=True)
class SwitchSettings:
    """`lag_seconds_max`: the replay has to be within this before writes are stopped, for which it gets
    `catch_up_seconds`. `stop_seconds`: for statements that write to end; then `kill_writers` decides.
    `drain_seconds`: for the replay to reach the last GTID, with writes stopped. `compare_seconds`: for the last
    comparison, likewise (0: none). `ignored`: names of checks whose failure does not hinder."""

    lag_seconds_max: float = 1.0
    catch_up_seconds: float = 600.0
    stop_seconds: float = 2.0
    kill_writers: bool = False
    drain_seconds: float = 10.0
    compare_seconds: float = 0.5
    verified_seconds_max: float = 86_400.0
    ignored: frozenset[str] = frozenset()


@dataclass(slots=True)
class SwitchReport:
    """`write_downtime_seconds`: from the statement that stopped all writes until clients were let in."""

    write_downtime_seconds: float = 0.0
    position: str = ""
    start: str = ""
    compared: str = ""
    killed: int = 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Direction:
    """What differs between there and back."""

    name: str
    origin: str
    destination: str
    during: Phase
    after: Phase
    undone: Phase


CUT_OVER: Final = Direction(
    "cut-over", "source", "target", Phase.CUTTING_OVER, Phase.CUT_OVER, Phase.CATCH_UP
)
ROLLBACK: Final = Direction(
    "rollback", "target", "source", Phase.ROLLING_BACK, Phase.CATCH_UP, Phase.CUT_OVER
)


class Switch:
    """The steps of one switch. `there`: the replay towards the destination; `back`: the one that may follow."""

    def __init__(
        self,
        direction: Direction,
        settings: MigrateSettings,
        wanted: SwitchSettings,
        state: State,
        servers: tuple[Server, Server],
        channels: tuple[Channel, Channel],
        told: Told,
    ) -> None:
        self.direction = direction
        self.report = SwitchReport()
        self._settings = settings
        self._wanted = wanted
        self._state = state
        self._origin, self._destination = servers
        self._there, self._back = channels
        self._told = told
        self._comparison: QuickComparison | None = None
        self._stack = contextlib.ExitStack()
        self._stopped_at = 0.0

    def close(self) -> None:
        """The sessions of the comparison."""
        self._stack.close()

    # --- the steps -------------------------------------------------------------------------------------

    def steps(self) -> list[Step]:
        origin, destination = self.direction.origin, self.direction.destination
        return [
            Step("take over", self._take_over, self._give_back),
            Step("catch up", self._catch_up, self._there.stop),
            Step("prepare", self._prepare),
            Step(f"stop events on the {origin}", self._stop_events, self._restore_origin),
            Step(f"stop writes on the {origin}", self._stop_writes, self._restore_origin),
            Step("drain", self._drain),
            Step("compare", self._compare),
            Step("AUTO_INCREMENT", self._raise_counters),
            Step(f"open the {destination}", self._open, final=True),
            *self._last_steps(),
        ]

    def finishing_steps(self) -> list[Step]:
        """What ends a switch that was interrupted when clients were let in already, or nearly."""
        return [Step(f"open the {self.direction.destination}", self._open, final=True), *self._last_steps()]

    def _last_steps(self) -> list[Step]:
        """All of them can be done again."""
        origin, destination = self.direction.origin, self.direction.destination
        return [
            Step("end the replay", self._end_replay, final=True),
            Step(f"enable events on the {destination}", self._enable_events, final=True),
            Step(f"keep the {origin} read-only", self._hold_origin, final=True),
            Step("note the way back", self._note_way_back, final=True),
        ]

    def undo_steps(self) -> list[Step]:
        """What mends a switch that was interrupted before clients were let in."""
        return [
            Step(f"let the {self.direction.origin} take writes again", self._restored),
            Step("give back", self._given_back),
        ]

    # --- before writes are stopped ---------------------------------------------------------------------

    def _take_over(self) -> str:
        noted = self.noted()
        if noted is None:
            servers = (self._origin, self._destination)
            before = {server.role: asdict(server.settings()) for server in servers}
            facts = {"to": self.direction.destination, "stage": CLOSED, "before": before}
            if self.direction is CUT_OVER:
                self._note_on_source()
            self._state.set_phase(self.direction.during, switch=facts)
        self._destination.open_for_replay()
        self._there.start()
        return "the replay is ours" if noted is None else "going on after an interruption"

    def _note_on_source(self) -> None:
        """For a target that dies and takes the state with it."""
        ((uuid,),) = self._destination.run("SELECT @@GLOBAL.server_uuid")
        scheduler = self._origin.settings().event_scheduler
        place = self._destination.address.place
        note = way_back.WayBack(str(uuid), place, self._settings.schemas, scheduler)
        try:
            note.write(self._origin, self._settings.name)
        except Refused as error:
            self._told(f"warning: not noted on the source, for `rollback --abandon-target`: {error}")

    def _forget_on_source(self, source: Server) -> None:
        try:
            way_back.forget(source, self._settings.name)
        except Refused as error:
            self._told(f"warning: {way_back.TABLE} on the source keeps a cut-over that is over: {error}")

    def noted(self) -> dict[str, Any] | None:
        """What an earlier attempt of this switch has noted."""
        found = self._state.require().facts.get("switch")
        return found if found is not None and found["to"] == self.direction.destination else None

    def _before(self, server: Server) -> Settings:
        noted = self.noted()
        assert noted is not None, "how servers were is noted before they are changed"
        return Settings(**noted["before"][server.role])

    def _give_back(self) -> None:
        self._there.stop()
        if self.noted() is not None:
            with self._again(self._destination) as destination:
                destination.restore_super_read_only(self._before(self._destination))
        if self.direction is CUT_OVER:
            with self._again(self._origin) as origin:
                self._forget_on_source(origin)
        self._state.set_phase(self.direction.undone, switch=None)

    def _catch_up(self) -> str:
        wanted = self._wanted
        deadline = time.monotonic() + wanted.catch_up_seconds
        rounds = 0
        while (left := deadline - time.monotonic()) > 0:
            lag = self._there.wait_for(self._origin.executed(), left)
            rounds = rounds + 1 if lag <= wanted.lag_seconds_max else 0
            if rounds >= CAUGHT_UP_ROUNDS:
                lag = self._nearer(lag, deadline)
                if lag <= wanted.lag_seconds_max:
                    return f"lag {lag * 1000:.0f} ms"
                rounds = 0
        raise DataError(
            detail=f"the replay did not come within {wanted.lag_seconds_max:g} s of the "
            f"{self.direction.origin} in {wanted.catch_up_seconds:g} s"
        )

    def _nearer(self, lag: float, deadline: float) -> float:
        """Waits for a better moment than the one that the user allows, as long as lag falls; gives the lag then."""
        until = min(deadline - self._wanted.lag_seconds_max, time.monotonic() + NEAR_PATIENCE_SECONDS)
        while lag > NEAR_SECONDS and time.monotonic() < until:
            before = lag
            lag = self._there.wait_for(self._origin.executed(), deadline - time.monotonic())
            if lag >= before:
                break
        return lag

    def _prepare(self) -> str:
        """Whatever can be done before writes stop."""
        raised = self._raise_counters()
        if self._wanted.compare_seconds > 0:
            self._comparison = self._stack.enter_context(
                QuickComparison.opened(
                    self._origin.address, self._destination.address, self._settings.selection
                )
            )
        return raised

    # --- writes are stopped ----------------------------------------------------------------------------

    def _stop_events(self) -> str:
        self._origin.set_event_scheduler("OFF")
        return ""

    def _stop_writes(self) -> str:
        stopped = self._origin.stop_writes(self._wanted.stop_seconds, kill=self._wanted.kill_writers)
        self._stopped_at = stopped.began_monotonic
        self.report.killed = len(stopped.killed)
        return f"{len(stopped.killed)} sessions killed" if stopped.killed else ""

    def _restore_origin(self) -> None:
        with self._again(self._origin) as origin:
            origin.restore(self._before(self._origin))

    def _drain(self) -> str:
        self.report.position = self._origin.executed()
        self._there.wait_for(self.report.position, self._wanted.drain_seconds)
        return ""

    def _compare(self) -> str:
        if self._comparison is None:
            return "not wanted"
        result = self._comparison.run(self._wanted.compare_seconds)
        if result.differences:
            raise DataError(
                detail=f"{self.direction.origin} and {self.direction.destination} differ: "
                f"{'; '.join(result.differences[:3])}. Repair with `applier migrate verify --repair`"
            )
        self.report.compared = str(result)
        return f"identical: {result}"

    def _raise_counters(self) -> str:
        """The destination must not give a number again that the origin has given."""
        there = self._destination.counters()
        raised = 0
        for (schema, table), value in self._origin.counters().items():
            if there.get((schema, table), value) < value:
                self._destination.set_counter(schema, table, value)
                raised += 1
        return f"{raised} counters raised" if raised else "in order"

    def _open(self) -> str:
        noted = self.noted()
        assert noted is not None
        if self._origin.role == STATE_HOLDER:
            self._origin.open_for_replay()  # for privileged accounts: for us
        self._origin.come_up_read_only()  # two that take writes would be worse than none
        if noted["stage"] == CLOSED:
            # Where the way back begins. Not to be asked for again later, when clients have written.
            self.report.start = self._destination.executed()
            self._state.note(
                switch={"stage": OPENING, "start": self.report.start, "position": self.report.position}
            )
        self._destination.allow_writes()
        if self._stopped_at:
            self.report.write_downtime_seconds = time.monotonic() - self._stopped_at
        return "it takes writes"

    # --- clients are let in ----------------------------------------------------------------------------

    def _end_replay(self) -> str:
        self._there.stop()
        return ""

    def _enable_events(self) -> str:
        there = {event.key: event for event in self._destination.events()}
        enabled = 0
        for event in self._origin.events():
            found = there.get(event.key)
            if event.status == "ENABLED" and found is not None and found.status != "ENABLED":
                self._destination.set_event(found, "ENABLE")
                enabled += 1
        scheduler = self._state.require().facts.get("schedulers", {}).get(self._destination.role)
        if scheduler is not None:
            self._destination.set_event_scheduler(scheduler)
        return f"{enabled} enabled"

    def _hold_origin(self) -> str:
        """Read-only for good, over a restart too; open for the replay back to be told where to begin."""
        scheduler = self._before(self._origin).event_scheduler
        self._state.note(schedulers={self._origin.role: scheduler, self._destination.role: None})
        self._origin.stay_read_only(super_read_only=False)
        noted = self.noted()
        assert noted is not None
        self.report.start, self.report.position = noted["start"], noted["position"]
        self._back.start_from(self.report.start)
        if self.direction is CUT_OVER:
            way_back.note_start(self._origin, self._settings.name, self.report.start)
        self._origin.stay_read_only(super_read_only=self._origin.role != STATE_HOLDER)
        return ""

    def _note_way_back(self) -> str:
        if self.direction is ROLLBACK:
            self._forget_on_source(self._destination)
        done = {"to": self.direction.destination, "at": time.time()} | self.report.as_dict()
        self._state.set_phase(self.direction.after, switch=None, last_switch=done, verified=None)
        return f"begins at {self.report.start}"

    # --- mending ---------------------------------------------------------------------------------------

    def _restored(self) -> str:
        self._restore_origin()
        return ""

    def _given_back(self) -> str:
        self._give_back()
        return f"phase {self.direction.undone}"

    @contextlib.contextmanager
    def _again(self, server: Server) -> Iterator[Server]:
        """A session of its own: the one there was may be what has failed."""
        other = Server(server.address, self._settings.selection)
        try:
            yield other
        finally:
            other.close()
