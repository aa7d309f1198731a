"""Reads the keys of tables from the target, over a connection of its own that is opened again when it breaks."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from applier.connection import ServerAddress, sqlalchemy_engine
from writeset.hashing import TablePlan
from writeset.keys import KeyReader


class TargetKeys:
    """Thread-safe. `source_logs_cascades`: foreign-key cascades are in the source's log (MySQL 9.6 and later)."""

    def __init__(self, address: ServerAddress, *, source_logs_cascades: bool) -> None:
        self._engine = sqlalchemy_engine(address)
        self._source_logs_cascades = source_logs_cascades
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.dispose()

    def read_table(self, schema: str, table: str) -> TablePlan | None:
        with self._lock, self._engine.connect() as connection:
            return KeyReader(connection, source_logs_cascades=self._source_logs_cascades).read_table(schema, table)
