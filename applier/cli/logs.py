"""Logs: one event per line on stderr, a constant message and its fields."""

from __future__ import annotations

import logging
import sys

STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class FieldFormatter(logging.Formatter):
    """`time level message name=value …` with the fields given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        fields = [f"{name}={value}" for name, value in vars(record).items() if name not in STANDARD]
        return " ".join([super().format(record), *fields])


def configure_logging(level: str) -> None:
    """Once, at the start of the process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FieldFormatter("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
