"""The last warnings and errors, kept for the status; counted for the metrics."""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from dataclasses import replace
from typing import Final

from applier.observe.log_fields import fields_of
from applier.observe.status import LogEvent

KEPT: Final = 50
FIELD_CHARACTERS_MAX: Final = 500


class RecentEvents(logging.Handler):
    """Attach it to the root logger. The same message with the same fields again is counted, not kept twice."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.totals: Counter[str] = Counter()  # by level
        self._events: deque[LogEvent] = deque(maxlen=KEPT)
        self._changing = threading.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        fields = {name: str(value)[:FIELD_CHARACTERS_MAX] for name, value in fields_of(record).items()}
        level = "error" if record.levelno >= logging.ERROR else "warning"
        event = LogEvent(record.created, level, record.getMessage()[:FIELD_CHARACTERS_MAX], fields)
        with self._changing:
            self.totals[level] += 1
            last = self._events[-1] if self._events else None
            if last is not None and (last.message, last.fields) == (event.message, event.fields):
                self._events[-1] = replace(last, repeated=last.repeated + 1)
            else:
                self._events.append(event)

    def events(self) -> tuple[LogEvent, ...]:
        """The newest last."""
        with self._changing:
            return tuple(self._events)
