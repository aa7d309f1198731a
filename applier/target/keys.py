"""Reads the keys of tables from the target, over a connection of its own that is opened again when it breaks."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from sqlalchemy.exc import SQLAlchemyError

from applier.address import ServerAddress
from applier.connection import sqlalchemy_engine
from applier.errors import LinkLost
from writeset.definitions import TableDefinition
from writeset.hashing import TablePlan
from writeset.keys import KeyReader


class TargetKeys:
    """Thread-safe. The flags are those of `KeyReader`."""

    def __init__(self, address: ServerAddress, *, images_may_lack_columns: bool = False) -> None:
        self._engine = sqlalchemy_engine(address)
        self._images_may_lack_columns = images_may_lack_columns
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.dispose()

    def read_table(self, schema: str, table: str) -> TablePlan:
        """A table that the target does not have is a barrier: applying tells the operator what is wrong.

        Raises LinkLost."""
        try:
            with self._lock, self._engine.connect() as connection:
                reader = KeyReader(
                    connection,
                    images_may_lack_columns=self._images_may_lack_columns,
                )
                plan = reader.read_table(schema, table)
        except SQLAlchemyError as error:
            raise LinkLost(
                role="target", detail=f"the keys of {schema}.{table} could not be read: {error}"
            ) from error
        return plan or TablePlan(TableDefinition(schema, table, column_total=0, always_barrier=True))
