"""What a cut-over notes on its source, for the day that the target is gone for good, and the migration's state with it.

One row in the schema of the progress rows, which the replay back makes there anyway. It is written before anything is
changed, so it is there whatever step the target dies in; `start` follows when the way back begins. A rollback, or a
cut-over that is undone, takes it away.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from applier.errors import Refused
from applier.migrate.channel import NOT_THERE
from applier.migrate.records import channel_of
from applier.migrate.server import Server
from applier.target import checkpoint

TABLE: Final = f"{checkpoint.SCHEMA}.way_back"
CREATE: Final = (
    f"CREATE DATABASE IF NOT EXISTS {checkpoint.SCHEMA}",
    f"""CREATE TABLE IF NOT EXISTS {TABLE} (
  migration VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL PRIMARY KEY,
  facts JSON NOT NULL
) COMMENT 'cut-overs from this server to another'""",
)


@dataclass(frozen=True, slots=True)
class WayBack:
    """`start`: the target's GTIDs when clients were let in; empty when the cut-over did not get so far.
    `event_scheduler`: the source's, before. `abandoned`: when the target was given up, in UTC."""

    target_uuid: str
    target_place: str
    schemas: tuple[str, ...]
    event_scheduler: str
    start: str = ""
    abandoned: str = ""

    def write(self, source: Server, name: str) -> None:
        """Raises Refused, LinkLost."""
        for statement in CREATE:
            source.run(statement)
        source.run(f"REPLACE INTO {TABLE} VALUES (%s, %s)", name, json.dumps(asdict(self)))


def read(source: Server, name: str) -> WayBack | None:
    """Raises Refused, LinkLost."""
    try:
        rows = source.run(f"SELECT facts FROM {TABLE} WHERE migration = %s", name)
    except Refused as error:
        if error.facts["code"] not in NOT_THERE:
            raise
        return None
    if not rows:
        return None
    facts: dict[str, Any] = json.loads(rows[0][0])
    return WayBack(**(facts | {"schemas": tuple(facts["schemas"])}))


def note_start(source: Server, name: str, start: str) -> None:
    found = read(source, name)
    if found is not None:
        replace(found, start=start).write(source, name)


def forget(source: Server, name: str) -> None:
    if read(source, name) is not None:
        source.run(f"DELETE FROM {TABLE} WHERE migration = %s", name)


def channel_back(name: str) -> str:
    """Of the replay from the target to the source."""
    return f"{channel_of(name)}:back"
