"""What keys a table has, as plain frozen records that `hashing.TablePlan` is built of."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

COLUMNS_MAX = 4096  # of a MySQL table


class Access(IntEnum):
    """How a transaction uses a key. Two SHARED touches of one key commute; everything else conflicts.

    The numbers are those of `Access` in hashing.pxd.
    """

    EXCLUSIVE = 0
    SHARED = 1
    EXCLUSIVE_OVER_SHARED = 2


class RowKind(IntEnum):
    """The numbers of `RowKind` in hashing.pxd."""

    INSERT = 0
    UPDATE = 1
    DELETE = 2


class Form(IntEnum):
    """How a value is brought to bytes that are equal wherever the server says that two values are equal.

    A form may be coarser than the server's equality (that costs parallelism), never finer (that loses a
    conflict). The numbers are those of `Form` in hashing.pxd.
    """

    RAW = 0  # the bytes of the binary log
    PAD_TRIMMED = 1  # without trailing spaces
    ZERO_TRIMMED = 2  # without trailing 0x00: BINARY(n)
    FLOAT = 3  # -0.0 = 0.0
    DOUBLE = 4
    FOLDED = 5  # each code unit through a table; a unit that the table does not know: any value
    FOLDED_TRIMMED = 6  # the same, without trailing spaces
    ANY = 7  # says nothing: the column is left out of the hash, so all its values are one


@dataclass(frozen=True, slots=True)
class KeyColumnDefinition:
    """One column of a key.

    position: column number in the table map, from 0 (ignored for ANY).
    prefix_characters: length of the index prefix in characters (bytes for binary columns); 0 = whole column.
    character_bytes_max: longest character of the column's character set; 1 for binary. A prefix of a
        multi-byte character set other than UTF-8 is cut after as many *bytes*, which is coarser, so safe.
    code_unit_bytes: 2 for ucs2 and utf16, 4 for utf32, else 1. Spaces and folding go by code units.
    fold: for FOLDED and FOLDED_TRIMMED, 256 bytes: the unit's folded value, 0 where nothing is known.
    """

    position: int
    form: Form = Form.RAW
    prefix_characters: int = 0
    character_bytes_max: int = 1
    code_unit_bytes: int = 1
    little_endian: bool = False
    utf8: bool = False
    fold: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class KeyDefinition:
    """One key that a row touches: a key of its own table, or the parent's key that a foreign key refers to.

    seed_name: what makes two keys one, `(schema, table, index)`; a foreign key carries the parent's.
    access: EXCLUSIVE for a key that nobody shares, EXCLUSIVE_OVER_SHARED for a parent's key, SHARED for the
        foreign key of a child.
    guarded: the forms of some values may be unknown, so every touch also touches "any value of this index".
    index_name: for messages.
    """

    seed_name: tuple[str, str, str]
    columns: tuple[KeyColumnDefinition, ...]
    access: Access = Access.EXCLUSIVE
    guarded: bool = False
    index_name: str = ""


@dataclass(frozen=True, slots=True)
class TableDefinition:
    """Everything that a `TablePlan` is built from; `keys[0]` is the row's identity if `has_identity`.

    cascades: a foreign key's cascade may change rows of other tables. Where the source does not log them, a delete, or
        an update of a key that others refer to, must be a barrier. always_barrier: every change must be one.
    source_overlooks: child of a table without a primary key. MySQL (seen with 9.7) leaves the rows of such a parent
        out of its own writesets, so a child's last_committed in the log may be below the parent's transaction.
    has_computed_columns: the server computes some of the values: generated columns, expressions in indexes. Its row
        images are sent whole.

    Raises ValueError when it contradicts itself, so that the kernel can follow it without checks.
    """

    schema: str
    table: str
    column_total: int
    keys: tuple[KeyDefinition, ...] = ()
    has_identity: bool = False
    always_barrier: bool = False
    cascades: bool = False
    has_foreign_keys: bool = False
    source_overlooks: bool = False
    has_computed_columns: bool = False

    def __post_init__(self) -> None:
        if self.has_identity and not self.keys:
            raise ValueError(f"{self.table}: an identity needs a key")
        if not 0 <= self.column_total <= COLUMNS_MAX:
            raise ValueError(f"{self.table}: {self.column_total} columns")
        for key in self.keys:
            if not key.columns:
                raise ValueError(f"{self.table}: key {key.seed_name} has no columns")
            for column in key.columns:
                self._check_column(key, column)

    def _check_column(self, key: KeyDefinition, column: KeyColumnDefinition) -> None:
        folds = column.form in (Form.FOLDED, Form.FOLDED_TRIMMED)
        if column.form is not Form.ANY and not 0 <= column.position < self.column_total:
            raise ValueError(f"{self.table}: no column {column.position}")
        if column.code_unit_bytes not in (1, 2, 4):
            raise ValueError(f"{self.table}: code units of {column.code_unit_bytes} bytes")
        if folds and (column.fold is None or len(column.fold) != 256):
            raise ValueError(f"{self.table}: a folded column needs a table of 256 bytes")
        if folds and not key.guarded:
            raise ValueError(f"{self.table}: a key with a folded column must be guarded")
