"""A migration in catch-up, to be cut over and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from applier.migrate.cutover import cut_over, replay_there, roll_back
from applier.migrate.settings import MigrateSettings
from applier.migrate.state import Phase, State
from applier.migrate.switch import SwitchReport, SwitchSettings
from applier.replay import Replay
from applier.sandbox import Server
from applier.verify import Selection, VerifyOptions, verify
from tests.clients import prepare
from tests.replaying import Command, address

NAME = "default"
WANTED = SwitchSettings(ignored=frozenset({"verified"}), compare_seconds=0.2)


class Migrating:
    """A migration in catch-up: an empty target follows the source from its first transaction."""

    def __init__(self, source: Server, target: Server) -> None:
        self.source = source
        self.target = target
        self.addresses = address(source, "source"), address(target, "target")
        self.settings = MigrateSettings(*self.addresses, schemas=("shop",), workers=2)
        self.told: list[str] = []
        prepare(source, target)
        with State(self.settings.target, NAME) as state:
            ((uuid,),) = source.execute("SELECT @@GLOBAL.server_uuid")
            state.create(uuid, self.settings.as_options())
            state.set_phase(Phase.CATCH_UP)

    def cut_over(self, **changes: object) -> SwitchReport:
        return cut_over(*self.addresses, NAME, replace(WANTED, **changes), self.told.append)  # type: ignore[arg-type]

    def roll_back(self, **changes: object) -> SwitchReport | None:
        return roll_back(*self.addresses, NAME, replace(WANTED, **changes), self.told.append)  # type: ignore[arg-type]

    def follow(self) -> None:
        """Until the target has what the source has now."""
        Replay(replace(replay_there(self.settings), stop_at_end=True)).run()

    def assert_phase(self, phase: Phase) -> None:
        with State(self.settings.target, NAME) as state:
            assert state.require().phase is phase

    def mend(self, call: Callable[[], object], phase: Phase) -> None:
        """What is called after a kill, unless it came too late."""
        with State(self.settings.target, NAME) as state:
            found = state.require()
        if found.phase is not phase or "switch" in found.facts:
            call()
        self.assert_phase(phase)

    def assert_identical(self) -> None:
        report = verify(*self.addresses, VerifyOptions(Selection(schemas=("shop",)), assume_quiesced=True))
        assert report.identical, report.as_dict()

    def assert_writable(self, writable: Server) -> None:
        for server in (self.source, self.target):
            ((read_only,),) = server.execute("SELECT @@GLOBAL.read_only")
            assert bool(read_only) is (server is not writable), server


def killed_after(migrating: Migrating, command: str, step: str) -> None:
    """`applier migrate` killed when it has told of this step."""
    urls = ["--source", migrating.source.url, "--target", migrating.target.url]
    with Command("migrate", command, *urls, "--ignore", "verified", "--compare-seconds", "0.1") as process:
        assert process.process.stderr is not None
        told = []
        for line in process.process.stderr:
            told.append(line)
            if line.startswith(step):
                process.process.kill()
                return
    raise AssertionError(f"{command} ended before {step}: {told}")
