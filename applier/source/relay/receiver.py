"""The thread that receives: at the source's speed, whatever the target does, up to the space limit."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from applier.backoff import Backoff
from applier.errors import (
    ApplierError,
    LinkLost,
    RelayLogFailed,
    SourceError,
    SourceLost,
    UnexpectedFailure,
    Unreachable,
)
from applier.events.gtid import GtidSet
from applier.events.relay_scanner import RelayScanner
from applier.reader import READ_TIMEOUT_SECONDS, STABLE_SECONDS, Stream
from applier.source.relay.log import RelayLog
from applier.source.relay.writer import RelayWriter, Stopped

log = logging.getLogger(__name__)

FORMAT_DESCRIPTION_EVENT: Final = 15
TYPE_OFFSET: Final = 4
END_SECONDS: Final = 5.0


class Receiver(threading.Thread):
    """Runs from `start` to `end`, over any number of connections to the source and pipelines to the target."""

    def __init__(
        self,
        open_stream: Callable[[GtidSet], Stream],
        relay: RelayLog,
        *,
        file_bytes_max: int,
        space_bytes_max: int = 0,
        backoff: Callable[[], Backoff] = Backoff,
    ) -> None:
        super().__init__(name="receiver", daemon=True)
        self.relay = relay
        self.bytes = 0  # that came over the link
        self.reconnects = 0
        self.last_read_monotonic = time.monotonic()
        self._open_stream = open_stream
        self._backoff = backoff
        self._ending = threading.Event()
        self._writer = RelayWriter(
            relay, self._ending, file_bytes_max=file_bytes_max, space_bytes_max=space_bytes_max
        )
        self._stream: Stream | None = None

    def run(self) -> None:
        try:
            self._receive()
        except Stopped:
            pass
        except ApplierError as error:
            self.relay.fail(error)
        except OSError as error:
            self.relay.fail(RelayLogFailed(file=self.relay.path, detail=error.strerror or str(error)))
        except Exception as error:
            log.debug("receiver failed", exc_info=True)
            self.relay.fail(UnexpectedFailure(detail=f"{type(error).__name__}: {error}"))
        finally:
            self._writer.close()

    @property
    def connected(self) -> bool:
        """A link to the source is there."""
        return self._stream is not None

    def end(self) -> None:
        """Ends the connection, waits for the thread; not for a source that does not answer."""
        self._ending.set()
        self._interrupt()
        self.join(END_SECONDS)

    def _interrupt(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def _receive(self) -> None:
        backoff = self._backoff()
        while not self._ending.is_set():
            try:
                self._stream = self._open_stream(self.relay.received)
                self._read(self._stream, backoff)
            except (LinkLost, Unreachable) as error:
                if self._ending.is_set():
                    return
                self.reconnects += 1
                self._writer.drop_open()
                self._writer.flush()
                log.warning("source link lost", extra={"detail": str(error), "attempt": backoff.attempts + 1})
                if not backoff.wait(self._ending):
                    raise SourceLost(attempts=backoff.attempts, detail=str(error)) from error
            finally:
                self._interrupt()

    def _read(self, stream: Stream, backoff: Backoff) -> None:
        scanner = RelayScanner()
        opened, begun = time.monotonic(), self.relay.transactions
        while not self._ending.is_set():
            count = stream.read_into(scanner.writable(), READ_TIMEOUT_SECONDS)
            if count:
                self.last_read_monotonic = time.monotonic()
                self.bytes += count
                scanner.received(count)
                self._append(scanner, stream)
            if not stream.has_more():
                self._writer.flush()
            if self.relay.transactions > begun or time.monotonic() - opened > STABLE_SECONDS:
                backoff.reset()
            if scanner.ended:
                raise LinkLost(role="source", detail="the source ended the dump: it is shutting down")

    def _append(self, scanner: RelayScanner, stream: Stream) -> None:
        """Everything whole that has come."""
        before = scanner.transactions
        while (chunk := scanner.take()) is not None:
            if len(chunk.data) or chunk.gtids:
                count, before = scanner.transactions - before, scanner.transactions
                self._writer.append(chunk.data, chunk.whole, chunk.position, chunk.gtids, count)
            if chunk.failure is not None:
                raise self._meaning(chunk.failure, stream)
            if chunk.control:
                self._control(scanner, chunk.control)

    def _control(self, scanner: RelayScanner, event: bytes) -> None:
        if scanner.in_transaction:
            # The source's file ended inside a transaction, as after a crash: that one never committed.
            scanner.abandon()
        if event[TYPE_OFFSET] == FORMAT_DESCRIPTION_EVENT:
            self._writer.format_description(event)
        else:
            self._writer.source_file(scanner.file, scanner.position, event)

    def _meaning(self, failure: ApplierError, stream: Stream) -> ApplierError:
        if isinstance(failure, SourceError) and "code" in failure.facts:
            return stream.refusal(failure.facts["code"], failure.facts["message"])
        return failure
