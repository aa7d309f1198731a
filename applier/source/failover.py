"""Which source to read from: one, or the first of several that fits.

Sources are tried in turn, from the one that was used last. Before one of several is read from it must show that going
on there by auto-position is right: it has everything that we have from the source before, and it has not purged what
we still lack.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from uuid import UUID

import pymysql

from applier.address import ServerAddress
from applier.connection import Connection, connect, error_code, error_message
from applier.errors import (
    ApplierError,
    LinkLost,
    PreflightFailed,
    PurgedTransactions,
    SourceBehind,
    SourceDiverged,
    Unreachable,
)
from applier.events.gtid import GtidSet
from applier.source.dump import FromGtids
from applier.source.refusal import source_error
from applier.source.registration import ReplicaIdentity, server_version
from applier.source.stream import DumpStream

log = logging.getLogger(__name__)

T = TypeVar("T")

ASK_TIMEOUT_SECONDS: Final = 10.0
# Longer than a server takes to restart: until then one that cannot be reached may come back and make it needless to
# stop because of another that does not fit.
REFUSE_AFTER_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What of the source's settings decides about the keys of a transaction."""

    full_images: bool = True

    def and_of(self, other: SourceFacts) -> SourceFacts:
        """What may be relied on where the log is of both."""
        return SourceFacts(self.full_images and other.full_images)


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a source says of itself."""

    address: ServerAddress
    facts: SourceFacts
    server_id: int
    executed: GtidSet
    purged: GtidSet
    replicating: bool  # it still gets transactions from elsewhere, or is applying what it got

    def check(self, received: GtidSet, foreign: GtidSet) -> None:
        """`received`: everything that we have; `foreign`: what of it never came from a source.

        Raises SourceBehind, SourceDiverged, PurgedTransactions."""
        lacking = received - foreign - self.executed
        if lacking:
            refusal = SourceBehind if self.replicating else SourceDiverged
            raise refusal(role="source", place=self.address.place, detail=one_line(lacking))
        gone = self.purged - received
        if gone:
            detail = f"transactions {one_line(gone)}, on {self.address.place}"
            raise PurgedTransactions(detail=detail, missing=one_line(gone))


def ask(address: ServerAddress) -> Candidate:
    """Raises what `connect` raises, LinkLost, PreflightFailed, SourceError."""
    try:
        with contextlib.closing(connect(address, read_timeout_seconds=ASK_TIMEOUT_SECONDS)) as connection:
            return _read(connection, address)
    except pymysql.err.MySQLError as error:
        raise source_error(address, error_code(error), error_message(error)) from error


def _read(connection: Connection[Any], address: ServerAddress) -> Candidate:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT VERSION(), @@GLOBAL.binlog_row_image, @@GLOBAL.server_id,"
            " @@GLOBAL.gtid_purged, @@GLOBAL.gtid_executed"
        )
        row = cursor.fetchone()
        assert row is not None
        version = server_version(str(row[0]))
        return Candidate(
            address,
            SourceFacts(full_images=row[1] == "FULL"),
            int(row[2]),
            purged=GtidSet.parse(str(row[3])),
            executed=GtidSet.parse(str(row[4])),
            replicating=_replicates(connection, version),
        )


def _replicates(connection: Connection[Any], version: tuple[int, ...]) -> bool:
    with connection.cursor(pymysql.cursors.DictCursor) as cursor:
        cursor.execute("SHOW REPLICA STATUS" if version >= (8, 0, 22) else "SHOW SLAVE STATUS")
        running = ("Replica_SQL_Running", "Replica_IO_Running", "Slave_SQL_Running", "Slave_IO_Running")
        return any(channel.get(name, "No") != "No" for channel in cursor.fetchall() for name in running)


class Sources:
    """Used by one thread at a time. `current` is the index of the address that was used last."""

    def __init__(
        self,
        addresses: Sequence[ServerAddress],
        *,
        on_use: Callable[[Candidate], None],
        verify: bool = False,
    ) -> None:
        """`on_use` is called with what a source says before anything is read from it; only with several sources, or
        with `verify`, which checks a single one too."""
        self.addresses = tuple(addresses)
        self.current = 0
        self.failovers = 0
        self.foreign = GtidSet()  # of the target's GTIDs, those that never came from a source
        self.target_uuid: UUID | None = None  # nor did any of this server
        self.identity: ReplicaIdentity | None = None
        self._on_use = on_use
        self._verify = verify or len(self.addresses) > 1
        self._refused_since: float | None = None

    @property
    def address(self) -> ServerAddress:
        return self.addresses[self.current]

    def choose(self, received: GtidSet) -> ServerAddress:
        """The first that fits. Raises what is wrong with them; nobody has waited for one to come back."""
        self._refused_since = -math.inf
        return self._first(received, lambda address: address)

    def open(self, received: GtidSet) -> DumpStream:
        """The log of the first that fits, without what is `received`. Raises what `DumpStream.open` raises,
        SourceBehind, SourceDiverged."""
        identity = self.identity
        assert identity is not None
        return self._first(received, lambda address: DumpStream.open(address, FromGtids(received), identity))

    def _first(self, received: GtidSet, use: Callable[[ServerAddress], T]) -> T:
        errors: list[ApplierError] = []
        for turn in range(len(self.addresses)):
            index = (self.current + turn) % len(self.addresses)
            address = self.addresses[index]
            try:
                self._check(address, received)
                result = use(address)
            except ApplierError as error:
                errors.append(error)
                if len(self.addresses) > 1:
                    log.warning("source not used", extra={"source": address.place, "detail": str(error)})
                continue
            self._refused_since = None
            if index != self.current:
                log.warning("source changed", extra={"source": address.place})
                self.current = index
                self.failovers += 1
            return result
        raise self._verdict(errors)

    def _check(self, address: ServerAddress, received: GtidSet) -> None:
        if not self._verify:
            return
        candidate = ask(address)
        candidate.check(received, self.foreign | of_server(received, self.target_uuid))
        if self.identity is not None and candidate.server_id == self.identity.server_id:
            raise PreflightFailed(
                detail=f"server id {candidate.server_id} is that of the source {address.place}: choose another "
                "--server-id, or none"
            )
        self._on_use(candidate)

    def _verdict(self, errors: list[ApplierError]) -> ApplierError:
        """None could be used: a reason to come back, or to stop."""
        if len(errors) == 1:
            return errors[0]
        now = time.monotonic()
        if self._refused_since is None:
            self._refused_since = now
        final = [error for error in errors if not isinstance(error, (LinkLost, Unreachable))]
        if final and (len(final) == len(errors) or now - self._refused_since > REFUSE_AFTER_SECONDS):
            return final[0]
        return LinkLost(role="source", detail="; ".join(str(error) for error in errors))


def of_server(gtids: GtidSet, uuid: UUID | None) -> GtidSet:
    """Those that the server `uuid` made itself."""
    result = GtidSet()
    for source, tag, intervals in gtids.sources():
        if source == uuid:
            for first, end in intervals:
                result.add_range(source.bytes, tag, first, end - 1)
    return result


def one_line(gtids: GtidSet) -> str:
    return str(gtids).replace("\n", "")
