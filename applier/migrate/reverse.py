"""The replay from the target back to the source, after a cut-over: so that going back takes no time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from applier.address import ServerAddress
from applier.errors import UsageError
from applier.migrate.abandon import refuse_abandoned
from applier.migrate.cutover import replay_back
from applier.migrate.following import following
from applier.migrate.server import Server, opened
from applier.migrate.settings import MigrateSettings, settings_of
from applier.migrate.state import Phase, State
from applier.replay import Replay


@contextmanager
def replaying_back(source: ServerAddress, target: ServerAddress, name: str) -> Iterator[Replay]:
    """A replay to be run in the block; it drains when a rollback begins. The source lets it write meanwhile: it is
    read_only, but not super_read_only.

    Raises UsageError when the target has not been cut over to."""
    settings = _settings_after_cut_over(source, target, name)
    replay = Replay(replay_back(settings))
    with _source_open(settings), following(settings, replay, Phase.CUT_OVER):
        yield replay


def stock_statements(source: ServerAddress, target: ServerAddress, name: str) -> str:
    """What makes the source a stock replica of the target instead.

    Raises UsageError when the target has not been cut over to."""
    settings = _settings_after_cut_over(source, target, name)
    with State(target, name) as state:
        start = str(state.require().facts["last_switch"]["start"])
    server = Server(source, settings.selection)
    with opened(server):
        ((missing,),) = server.run("SELECT GTID_SUBTRACT(%s, @@GLOBAL.gtid_executed)", start)
    known = str(missing).replace("\n", "")
    tables = ", ".join(f"'{_wild(schema)}.%'" for schema in settings.schemas)
    return "\n".join(
        [
            f"SET GLOBAL gtid_purged = '+{known}';" if known else "-- gtid_purged: nothing to add",
            f"CHANGE REPLICATION FILTER REPLICATE_WILD_DO_TABLE = ({tables});",
            f"CHANGE REPLICATION SOURCE TO SOURCE_HOST='{target.host}', SOURCE_PORT={target.port}, "
            "SOURCE_USER='<replication account>', SOURCE_PASSWORD='<its password>', SOURCE_AUTO_POSITION=1;",
            "START REPLICA;",
        ]
    )


def _wild(schema: str) -> str:
    """A schema's name as a pattern that matches nothing else."""
    return schema.replace("\\", "\\\\").replace("_", "\\\\_").replace("%", "\\\\%").replace("'", "''")


def _settings_after_cut_over(source: ServerAddress, target: ServerAddress, name: str) -> MigrateSettings:
    with State(target, name) as state:
        found = state.require()
        if found.phase is not Phase.CUT_OVER:
            raise UsageError(
                detail=f"migration {name!r} is in phase {found.phase}: there is no cut-over to go back from"
            )
        return settings_of(found.options, source, target)


@contextmanager
def _source_open(settings: MigrateSettings) -> Iterator[None]:
    """super_read_only off, and on again at the end; not when a rollback has begun, which has its own use for it."""
    server, target = (Server(one, settings.selection) for one in (settings.source, settings.target))
    with opened(server, target):
        ((uuid,),) = target.run("SELECT @@GLOBAL.server_uuid")
        refuse_abandoned(server, str(uuid), settings.name)
        server.open_for_replay()
    try:
        yield
    finally:
        with State(settings.target, settings.name) as state:
            if state.require().phase is Phase.CUT_OVER:
                state.acquire()
                server = Server(settings.source, settings.selection)
                with opened(server):
                    server.stay_read_only(super_read_only=True)
