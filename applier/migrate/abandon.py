"""Back to the source when the target is gone for good, with what the replay back has brought; the rest is lost.

Only the source is asked: the migration's state was on the target. Two servers that both take writes would be worse than
a lost one, so a target that answers is made read-only first, and one that answers and cannot be is a refusal. A target
that only we cannot reach is beyond our knowledge, which is why an operator has to confirm.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from applier.address import ServerAddress
from applier.connection import error_code
from applier.errors import ApplierError, PreflightFailed, Refused, Unreachable, UsageError
from applier.events.gtid import GtidSet
from applier.migrate import way_back
from applier.migrate.channel import NOT_THERE
from applier.migrate.server import Server, opened
from applier.migrate.steps import Told
from applier.migrate.way_back import WayBack
from applier.source.failover import of_server, one_line
from applier.target import checkpoint
from applier.target.checkpoint import Checkpoint, GtidMode
from applier.verify.definitions import Selection

SERVER_CODE_MIN: Final = 1000
CLIENT_CODES: Final = range(2000, 3000)


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of a cut-over. `reached`: transactions that the target's clients made since, which the source has.
    `reachable`: the target answers."""

    noted: WayBack
    reached: GtidSet
    reachable: bool

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "to": "source",
            "target_uuid": self.noted.target_uuid,
            "target_reachable": self.reachable,
            "start": self.noted.start,
            "reached": one_line(self.reached),
            "abandoned": self.noted.abandoned,
        }

    def lines(self) -> list[str]:
        """For the operator."""
        noted = self.noted
        if noted.start:
            last = max(
                (end - 1 for _, _, intervals in self.reached.sources() for _, end in intervals), default=None
            )
            since = f"after {noted.target_uuid}:{last}" if last is not None else "since the cut-over"
            reached = (
                f"{self.reached.count} of the target's transactions have reached the source: "
                f"{one_line(self.reached)}"
                if self.reached
                else "no transaction of the target has reached the source"
            )
            lost = f"lost: everything that the target committed {since}"
        else:
            reached = "the cut-over was not finished: no transaction of the target has reached the source"
            lost = "lost: whatever clients may have written to the target"
        answers = (
            "the target ANSWERS: it will be made read-only; `applier migrate rollback` alone would lose nothing"
            if self.reachable
            else f"the target {noted.target_place} cannot be reached from here: make sure that no client reaches it, "
            "and that it stays away, for it would come up writable"
        )
        return [reached, lost, answers]


def look(source: ServerAddress, target: ServerAddress, name: str) -> Left:
    """Changes nothing. Raises UsageError when there is no cut-over to go back from, or to another target;
    PreflightFailed when the target answers and does not let us in, or the source is a running replica."""
    server = Server(source, Selection())
    with opened(server):
        noted = _noted(server, name)
        if noted.target_place != target.place:
            raise UsageError(detail=f"the cut-over was to {noted.target_place}, not to {target.place}")
        _refuse_running_replica(server)
        reached = _reached(server, name, noted)
    found = _target(target, noted)
    if found is not None:
        found.close()
    return Left(noted, reached, reachable=found is not None)


def abandon(
    source: ServerAddress,
    target: ServerAddress,
    name: str,
    told: Told,
    *,
    stop_seconds: float = 2.0,
    kill_writers: bool = False,
) -> Left:
    """Clients may write to the source when this returns, and never again to a target that could be reached. Can be
    called again when it was interrupted.

    Raises what `look` does; ChannelTaken while the replay back is still at work; DataError when a target that answers
    goes on writing."""
    server = Server(source, Selection())
    with opened(server):
        noted = _noted(server, name)
        _refuse_running_replica(server)
        reachable = _close_target(target, noted, told, stop_seconds, kill_writers=kill_writers)
        server.open_for_replay()
        # Whoever replayed back is fenced off, and what it had under way is rolled back or counts.
        channel = way_back.channel_back(name)
        with Checkpoint(replace(source, role="target"), GtidMode.OWN, channel):
            reached = _reached(server, name, noted)
            if not noted.abandoned:
                noted = replace(noted, abandoned=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
                # Before clients come: from now on the target's later transactions must not get here.
                noted.write(server, name)
            told("the replay back has ended for good")
            server.allow_writes()
            told("the source takes writes")
            server.set_event_scheduler(noted.event_scheduler)
            _tell_disabled_events(server, noted, told)
    return Left(noted, reached, reachable)


def refuse_abandoned(source: Server, target_uuid: str, name: str) -> None:
    """Raises UsageError when this target was given up: what it has since is not to be mixed with the source's."""
    found = way_back.read(source, name)
    if found is not None and found.abandoned and found.target_uuid == target_uuid:
        raise UsageError(
            detail=f"this target was abandoned at {found.abandoned}, and the source has gone on without it. Look at "
            "what only the target has by hand, then `applier migrate drop-state` and begin anew"
        )


def _noted(source: Server, name: str) -> WayBack:
    noted = way_back.read(source, name)
    if noted is None:
        raise UsageError(
            detail=f"the source {source.address.place} knows of no cut-over of migration {name!r}: there is nothing "
            "to go back from"
        )
    return noted


def _reached(source: Server, name: str, noted: WayBack) -> GtidSet:
    """By our replay or a stock replica's."""
    applied = GtidSet.parse(source.executed())
    try:
        rows = source.run(
            f"SELECT executed FROM {checkpoint.SCHEMA}.progress WHERE channel = %s",
            way_back.channel_back(name),
        )
    except Refused as error:
        if error.facts["code"] not in NOT_THERE:
            raise
        rows = []
    if not noted.start:
        return GtidSet()
    for (executed,) in rows:
        applied.update(GtidSet.parse(str(executed)))
    return of_server(applied, UUID(noted.target_uuid)) - GtidSet.parse(noted.start)


def _refuse_running_replica(source: Server) -> None:
    rows = source.run(
        "SELECT channel_name FROM performance_schema.replication_applier_status WHERE service_state = 'ON'"
    )
    if rows:
        raise PreflightFailed(
            detail="the source is itself a replica whose threads run: let it apply what it has received "
            "(SHOW REPLICA STATUS), then STOP REPLICA"
        )


def _target(address: ServerAddress, noted: WayBack) -> Server | None:
    """None when it cannot be reached. Raises PreflightFailed when it answers, and not as it should."""
    try:
        server = Server(address, Selection(schemas=noted.schemas))
    except Unreachable as error:
        code = error_code(error.__cause__) if error.__cause__ is not None else 0
        if code >= SERVER_CODE_MIN and code not in CLIENT_CODES:
            raise _alive(address, error) from error  # too many connections, say: others may be writing
        return None
    except ApplierError as error:
        raise _alive(address, error) from error
    ((uuid,),) = server.run("SELECT @@GLOBAL.server_uuid")
    if uuid != noted.target_uuid:
        server.close()
        raise PreflightFailed(
            detail=f"another server answers at {address.place} than the one that was cut over to"
        )
    return server


def _alive(address: ServerAddress, error: ApplierError) -> PreflightFailed:
    return PreflightFailed(
        detail=f"the target {address.place} answers, and could not be made read-only, so clients may be writing "
        f"there: {error}"
    )


def _close_target(
    address: ServerAddress, noted: WayBack, told: Told, stop_seconds: float, *, kill_writers: bool
) -> bool:
    """Whether it could be reached; then it is read-only. Raises PreflightFailed, DataError."""
    server = _target(address, noted)
    if server is None:
        told(f"the target {address.place} cannot be reached")
        return False
    with opened(server):
        try:
            server.stop_writes(stop_seconds, kill=kill_writers)
            server.stay_read_only(super_read_only=True)
        except ApplierError as error:
            raise _alive(address, error) from error
    told(f"the target {address.place} is read-only")
    return True


def _tell_disabled_events(source: Server, noted: WayBack, told: Told) -> None:
    """Those that were made on the target and came from there."""
    disabled = [
        f"{event.schema}.{event.name}"
        for event in source.events()
        if event.schema in noted.schemas and event.status not in ("ENABLED", "DISABLED")
    ]
    if disabled:
        told(f"warning: disabled, because they came from the target: events {', '.join(disabled)}")
