"""Logs: one event per line on stderr, as text or JSON; a constant message, and what varies as fields.

Field names are the same wherever they come from: gtid, sequence_number, worker, table, error_code, milliseconds,
detail … No row data above debug. A warning that comes again and again is let through BURST times in WINDOW_SECONDS; the
next one tells how many were left out.
"""

from __future__ import annotations

import datetime
import json
import logging
import sys
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Literal

from applier.observe.log_fields import fields_of

Format = Literal["text", "json"]

BURST: Final = 5
WINDOW_SECONDS: Final = 10.0
KINDS_MAX: Final = 1000
LEFT_OUT: Final = "left_out"
# Fields that make two events of one message two different things.
DISTINGUISHING: Final = ("finding", "table", "error_code", "source", "file", "directory", "channel")
PLAIN: Final = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.,:;/@+-*%()[]{}<>`'#!?&|~^$"
)


def _time_of(record: logging.LogRecord) -> str:
    """As in 2026-11-21T04:31:00.123Z."""
    moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class FieldFormatter(logging.Formatter):
    """`time LEVEL message name=value …`; a value with blanks or quotes is written as in JSON, so a line is a line."""

    def format(self, record: logging.LogRecord) -> str:
        fields = _all_fields(self, record)
        told = [f"{name}={_plain_or_quoted(value)}" for name, value in fields.items()]
        message = record.getMessage().replace("\n", "\\n")
        return " ".join([_time_of(record), f"{record.levelname:<7}", message, *told])


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, logger, message, and the fields beside them."""

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, object] = {
            "time": _time_of(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields = _all_fields(self, record)
        return json.dumps(event | {name: fields[name] for name in fields if name not in event}, default=str)


def _all_fields(formatter: logging.Formatter, record: logging.LogRecord) -> dict[str, object]:
    fields = fields_of(record)
    if record.exc_info and record.exc_info[0] is not None:
        fields["traceback"] = formatter.formatException(record.exc_info)
    return fields


def _plain_or_quoted(value: object) -> str:
    text = str(value)
    return text if text and PLAIN.issuperset(text) else json.dumps(text, ensure_ascii=False)


@dataclass(slots=True)
class _Seen:
    began: float
    count: int = 0
    left_out: int = 0


class RepeatFilter(logging.Filter):
    """Leaves out what is repeated too often; never an error."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: OrderedDict[tuple[object, ...], _Seen] = OrderedDict()
        self._changing = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR or record.levelno <= logging.DEBUG:
            return True
        kind = (record.name, record.msg, *(str(getattr(record, name, "")) for name in DISTINGUISHING))
        now = time.monotonic()
        with self._changing:
            seen = self._seen.get(kind)
            if seen is None or now - seen.began > WINDOW_SECONDS:
                left_out = 0 if seen is None else seen.left_out
                seen = self._seen[kind] = _Seen(now)
                self._seen.move_to_end(kind)
                if len(self._seen) > KINDS_MAX:
                    self._seen.popitem(last=False)
                if left_out:
                    setattr(record, LEFT_OUT, left_out)
            seen.count += 1
            if seen.count > BURST:
                seen.left_out += 1
                return False
        return True


def configure_logging(level: str, form: Format = "text") -> None:
    """Once, at the start of the process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else FieldFormatter())
    handler.addFilter(RepeatFilter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
