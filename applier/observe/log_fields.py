"""The fields of a log record. Apart from who keeps records: every command logs, few have a status."""

from __future__ import annotations

import logging
from typing import Final

STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """What was given as `extra`."""
    return {name: value for name, value in vars(record).items() if name not in STANDARD}
