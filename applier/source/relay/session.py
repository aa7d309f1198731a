"""A relay log for one run of the applier: over all of its pipelines, and over all of its connections to sources."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

from applier.backoff import Backoff
from applier.errors import RelayLogFailed
from applier.events.gtid import GtidSet
from applier.reader import Stream
from applier.source.failover import SourceFacts
from applier.source.relay.directory import FILE_MODE, RelayDirectory
from applier.source.relay.log import RelayLog
from applier.source.relay.reader import RelayStream
from applier.source.relay.receiver import Receiver

log = logging.getLogger(__name__)

FACTS: Final = "relay.facts"


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """Sizes in bytes. `space_bytes_max` 0: as much as the disk has."""

    directory: Path
    file_bytes_max: int = 128 << 20
    space_bytes_max: int = 0


class Relaying:
    """`take_over`, `start`, then `open_stream` for each pipeline and `purge` while it runs; `close` at the end."""

    def __init__(self, settings: RelaySettings, reconnect_attempts_max: int = 20) -> None:
        """Takes the folder. Raises UsageError, RelayLogTaken."""
        self.settings = settings
        self._backoff = partial(Backoff, attempts_max=reconnect_attempts_max)
        self.directory = RelayDirectory(settings.directory)
        self.relay: RelayLog | None = None
        self.receiver: Receiver | None = None
        self._stream: RelayStream | None = None

    def take_over(self, executed: GtidSet) -> GtidSet:
        """Reads what an earlier run left. `executed`: what the target has. Gives that and what the log has.

        Raises RelayLogMismatch, RelayLogCorrupt, RelayLogFailed."""
        self.relay = RelayLog(self.directory, executed)
        return self.relay.received

    def start(
        self, open_source: Callable[[GtidSet], Stream], executed: GtidSet, facts: SourceFacts
    ) -> SourceFacts:
        """Begins to receive, unless that was done before. `facts`: of the source.

        Gives the facts that hold for all that is in the log. Raises RelayLogFailed."""
        assert self.relay is not None
        if self.receiver is not None:
            return facts
        if self.relay.files:
            facts = facts.and_of(self._saved_facts())
        self.save_facts(facts)
        self.relay.received.update(executed)  # what was skipped on request since then
        self.receiver = Receiver(
            open_source,
            self.relay,
            file_bytes_max=self.settings.file_bytes_max,
            space_bytes_max=self.settings.space_bytes_max,
            backoff=self._backoff,
        )
        self.receiver.start()
        return facts

    def open_stream(self, received: GtidSet) -> RelayStream:
        """What the flow reads. Raises RelayLogMismatch."""
        assert self.relay is not None
        self._stream = RelayStream(self.relay, received)
        return self._stream

    def purge(self, low_water_mark: int) -> None:
        """The target has committed everything up to this sequence number of the present pipeline."""
        if self._stream is not None and self.relay is not None:
            number = self._stream.finished(low_water_mark)
            if number:
                self.relay.purge_through(number)

    def close(self) -> None:
        if self.receiver is not None:
            self.receiver.end()
        self.directory.close()

    # --- what the log's readers have to know of its sources ---------------------------------------

    def save_facts(self, facts: SourceFacts) -> None:
        """Before anything is received to which they apply. Raises RelayLogFailed."""
        path = self.directory.path / FACTS
        try:
            path.touch(FILE_MODE)
            path.write_text(json.dumps(asdict(facts)) + "\n", encoding="utf-8")
        except OSError as error:
            raise RelayLogFailed(file=path, detail=error.strerror) from error

    def _saved_facts(self) -> SourceFacts:
        try:
            return SourceFacts(**json.loads((self.directory.path / FACTS).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return SourceFacts(full_images=False)  # nothing is relied on
