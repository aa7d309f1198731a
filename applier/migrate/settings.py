"""What a migration is asked to do, merged and checked once."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from applier.address import ServerAddress
from applier.errors import UsageError
from applier.migrate.state import channel_of
from applier.verify.definitions import HIDDEN_SCHEMAS, Selection

# "applier:migrate:" and ":back" around it are the lock of the replay back, and the server takes 64.
NAME_CHARACTERS_MAX: Final = 43


@dataclass(frozen=True, slots=True)
class MigrateSettings:
    """`applier migrate`. Everything but the two addresses is kept in the state, so that later commands know it.

    `threads`: sessions on each side that copy. `target_binlog`: the copy is in the target's binary log.
    `threads_running_max`: above that many running threads on the source the copy pauses (0: never).
    `replica_lag_seconds_max`: likewise while a replica of the source or the target, `lag_of`, lags more.
    `lock_seconds_max`: how long FLUSH TABLES WITH READ LOCK may wait, and so hold writers up.
    `defer_indexes`: secondary indexes are built after the rows, but for those of small tables.
    """

    source: ServerAddress
    target: ServerAddress
    schemas: tuple[str, ...]
    name: str = "default"
    threads: int = 4
    workers: int = 8
    chunk_seconds: float = 0.7
    chunk_bytes_max: int = 64 << 20
    target_binlog: bool = True
    threads_running_max: int = 0
    replica_lag_seconds_max: float = 0.0
    lag_of: ServerAddress | None = None
    lock_seconds_max: int = 10
    allow_lock: bool = True
    load_data: bool = True
    defer_indexes: bool = True
    accounts: bool = False
    attempts_max: int = 4

    def __post_init__(self) -> None:
        """Raises UsageError."""
        if len(self.name) > NAME_CHARACTERS_MAX or not self.name.isascii():
            raise UsageError(
                detail=f"--name {self.name!r}: at most {NAME_CHARACTERS_MAX} characters, all of them ASCII"
            )
        if not self.schemas:
            raise UsageError(detail="name the schemas to migrate with --schemas a,b")
        hidden = sorted(set(self.schemas) & set(HIDDEN_SCHEMAS))
        if hidden:
            raise UsageError(detail=f"these schemas are not for migrating: {', '.join(hidden)}")

    @property
    def selection(self) -> Selection:
        return Selection(schemas=self.schemas)

    @property
    def channel(self) -> str:
        """Of the replay that follows the source."""
        return channel_of(self.name)

    def as_options(self) -> dict[str, Any]:
        """For the state: without addresses, which may hold passwords and differ from machine to machine."""
        kept = asdict(self)
        for address in ("source", "target", "lag_of"):
            kept.pop(address)
        return kept


def settings_of(options: dict[str, Any], source: ServerAddress, target: ServerAddress) -> MigrateSettings:
    """The settings of a migration that is there, from its state's options."""
    fields: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in options.items()
    }
    return MigrateSettings(source=source, target=target, **fields)
