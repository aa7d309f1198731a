"""Cut over to the target, go back to the source, and mend either when it was interrupted."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from applier.address import ServerAddress
from applier.errors import SwitchHalfway, SwitchUndone, UsageError
from applier.migrate.abandon import refuse_abandoned
from applier.migrate.channel import Channel
from applier.migrate.resume import replay_settings
from applier.migrate.server import Server, opened
from applier.migrate.settings import MigrateSettings, settings_of
from applier.migrate.state import Phase, State
from applier.migrate.steps import Step, StepFailed, Steps, Told
from applier.migrate.switch import CLOSED, CUT_OVER, ROLLBACK, Direction, Switch, SwitchReport, SwitchSettings
from applier.migrate.switch_checks import CHECKS, ROLLBACK_CHECKS, Situation, check_switch
from applier.migrate.way_back import channel_back
from applier.selection import Schemas
from applier.settings import RunSettings

log = logging.getLogger(__name__)

TAKE_OVER_SECONDS = 30.0


def cut_over(
    source: ServerAddress, target: ServerAddress, name: str, wanted: SwitchSettings, told: Told
) -> SwitchReport:
    """Clients may write to the target, and no more to the source, when this returns. One that was interrupted is
    gone on with.

    Raises UsageError in another phase than catch-up, PreflightFailed when a check fails, SwitchUndone when a step
    failed and everything is as before, SwitchHalfway when an operator has to call again."""
    with _owned(source, target, name) as migration:
        phase = migration.state.require().phase
        if phase not in (Phase.CATCH_UP, Phase.CUTTING_OVER):
            raise UsageError(detail=f"migration {name!r} is in phase {phase}: a cut-over begins in catch-up")
        return migration.switch(CUT_OVER, wanted, told)


def roll_back(
    source: ServerAddress, target: ServerAddress, name: str, wanted: SwitchSettings, told: Told
) -> SwitchReport | None:
    """Clients may write to the source, and no more to the target, when this returns; what was written to the target
    since the cut-over is on the source. A cut-over that was interrupted before clients were let in is undone (then
    there is no report).

    Raises as `cut_over` does."""
    with _owned(source, target, name) as migration:
        phase = migration.state.require().phase
        if phase is Phase.CUTTING_OVER:
            if migration.stage() == CLOSED:
                migration.undo(CUT_OVER, told)
                return None
            migration.switch(CUT_OVER, wanted, told)
        elif phase not in (Phase.CUT_OVER, Phase.ROLLING_BACK):
            raise UsageError(
                detail=f"migration {name!r} is in phase {phase}: there is no cut-over to go back from"
            )
        return migration.switch(ROLLBACK, wanted, told)


class Migration:
    """A migration that this process owns, and both servers."""

    def __init__(self, settings: MigrateSettings, state: State, source: Server, target: Server) -> None:
        self.settings = settings
        self.state = state
        self.source = source
        self.target = target

    def stage(self) -> str | None:
        """Of a switch that was interrupted."""
        noted = self.state.require().facts.get("switch")
        return None if noted is None else str(noted["stage"])

    def channels(self) -> dict[str, Channel]:
        """By the role of the server that they replay into."""
        there, back = replay_there(self.settings), replay_back(self.settings)
        return {
            "target": Channel(there, self.source, self.target),
            "source": Channel(back, self.target, self.source),
        }

    def switch(self, direction: Direction, wanted: SwitchSettings, told: Told) -> SwitchReport:
        """A whole switch, or the rest of one."""
        switch = self._switch(direction, wanted, told)
        begun = switch.noted()
        if begun is not None and begun["stage"] != CLOSED:
            told(f"an interrupted {direction.name} is finished")
            steps = switch.finishing_steps()
        else:
            self._check(direction, wanted, told)
            steps = switch.steps()
        _run(steps, switch, told)
        return switch.report

    def undo(self, direction: Direction, told: Told) -> None:
        """Mends a switch that was interrupted before clients were let in."""
        switch = self._switch(direction, SwitchSettings(), told)
        told(f"an interrupted {direction.name} is undone")
        _run(switch.undo_steps(), switch, told)

    def _switch(self, direction: Direction, wanted: SwitchSettings, told: Told) -> Switch:
        servers = {"source": self.source, "target": self.target}
        origin, destination = servers[direction.origin], servers[direction.destination]
        channels = self.channels()
        pair = channels[direction.destination], channels[direction.origin]
        return Switch(direction, self.settings, wanted, self.state, (origin, destination), pair, told)

    def _check(self, direction: Direction, wanted: SwitchSettings, told: Told) -> None:
        forward = direction is CUT_OVER
        servers = (self.source, self.target) if forward else (self.target, self.source)
        it = Situation(*servers, self.settings, wanted, self.state.require().facts)
        report = check_switch(it, CHECKS if forward else ROLLBACK_CHECKS)
        for finding in report.warnings:
            told(f"warning: {finding}")
        report.raise_on_failure()


def replay_there(settings: MigrateSettings) -> RunSettings:
    """From the source to the target."""
    return replay_settings(settings, selection=Schemas(settings.schemas))


def replay_back(settings: MigrateSettings) -> RunSettings:
    """From the target to the source."""
    origin = replace(settings.target, role="source")
    destination = replace(settings.source, role="target")
    return replay_settings(
        settings,
        source=origin,
        target=destination,
        channel=channel_back(settings.name),
        selection=Schemas(settings.schemas),
    )


@contextmanager
def _owned(source: ServerAddress, target: ServerAddress, name: str) -> Iterator[Migration]:
    """Raises UsageError when there is no such migration, or it is from another source."""
    with State(target, name) as state:
        found = state.require()
        if (
            found.phase is Phase.ROLLING_BACK
        ):  # interrupted, and perhaps so that nobody can write to the state
            server = Server(target, settings_of(found.options, source, target).selection)
            with opened(server):
                server.open_for_replay()
        state.take_over(TAKE_OVER_SECONDS)
        found = state.require()
        settings = settings_of(found.options, source, target)
        servers = Server(source, settings.selection), Server(target, settings.selection)
        with opened(*servers):
            ((uuid,),) = servers[0].run("SELECT @@GLOBAL.server_uuid")
            if uuid != found.source_uuid:
                raise UsageError(detail=f"migration {name!r} is from another source than {source.place}")
            ((target_uuid,),) = servers[1].run("SELECT @@GLOBAL.server_uuid")
            refuse_abandoned(servers[0], str(target_uuid), name)
            yield Migration(settings, state, *servers)


def _run(steps: list[Step], switch: Switch, told: Told) -> None:
    direction = switch.direction
    facts: dict[str, Any] = {"name": direction.name, "origin": direction.origin}
    try:
        Steps(told).run(steps)
    except StepFailed as failed:
        facts |= {"step": failed.step.name, "detail": str(failed.cause).rstrip(".")}
        if failed.undone:
            raise SwitchUndone(**facts) from failed.cause
        raise SwitchHalfway(
            **facts, left="; ".join(failed.left) or "clients may write to the destination"
        ) from (failed.cause)
    finally:
        switch.close()
