"""What a run is asked to do, merged and checked once; past this line nobody reads options or the environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from applier.address import ServerAddress
from applier.errors import UsageError
from applier.pipeline import PipelineSettings
from applier.selection import Schemas
from applier.source.relay.session import RelaySettings

CHANNEL_CHARACTERS_MAX: Final = 56  # the server's limit for the name of a lock, 64, less "applier:"


@dataclass(frozen=True, slots=True)
class RunSettings:
    """`applier run`."""

    source: ServerAddress
    target: ServerAddress
    pipeline: PipelineSettings = PipelineSettings()
    channel: str = "applier"
    stop_at_end: bool = False
    until_gtid_set: str | None = None
    skip_gtid_set: str | None = None
    server_id: int | None = None
    reconnect_attempts_max: int = 20
    check: bool = True
    standby_sources: tuple[ServerAddress, ...] = ()
    """Where to go on when `source` is lost, in this order."""
    relay_log: RelaySettings | None = None
    selection: Schemas | None = None
    """What of the log is replayed; None: all of it."""

    def __post_init__(self) -> None:
        """Raises UsageError."""
        if not (self.channel.isascii() and 0 < len(self.channel) <= CHANNEL_CHARACTERS_MAX):
            raise UsageError(
                detail=f"--channel: a name of 1 to {CHANNEL_CHARACTERS_MAX} ASCII characters, not {self.channel!r}"
            )
