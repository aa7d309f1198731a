"""Key plans made up from a number: every form, prefix, access and oddity that the catalog may come up with."""

from __future__ import annotations

from functools import lru_cache
from random import Random

from applier.events.table_map import TableMap
from writeset.definitions import Access, Form, KeyColumnDefinition, KeyDefinition, TableDefinition
from writeset.hashing import TablePlan

LOWER = bytes(ord(chr(code).lower()) if 32 <= code < 127 else 0 for code in range(256))
FORMS = (Form.RAW,) * 6 + tuple(Form)


class Plans:
    """`plans` for `RowDecoder.decode`; the same number gives the same plans."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, table_map: TableMap, sequence_number: int) -> TablePlan:
        return plan_of(table_map.schema, table_map.table, len(table_map.columns), self.number)


@lru_cache(maxsize=4096)
def plan_of(schema: str, table: str, column_total: int, number: int) -> TablePlan:
    random = Random(number * 31 + column_total)
    columns_known = column_total > 0
    keys = tuple(
        _key(schema, table, column_total, random)
        for _ in range(random.choice((0, 1, 1, 2, 2, 4)) if columns_known else 0)
    )
    rare = [random.random() < 0.05 for _ in range(5)]
    return TablePlan(
        TableDefinition(
            schema,
            table,
            column_total + rare[0],
            keys=keys,
            has_identity=bool(keys) and random.random() < 0.9,
            always_barrier=rare[1],
            cascades=rare[2],
            has_foreign_keys=rare[3],
            source_overlooks=rare[4],
        )
    )


def _key(schema: str, table: str, column_total: int, random: Random) -> KeyDefinition:
    # Mostly the first columns, as in real tables, so that rows of one key are found again.
    columns = tuple(
        _column(random.randrange(min(column_total, 4)), column_total, random)
        for _ in range(random.choice((1, 1, 2, 3)))
    )
    folded = any(column.form in (Form.FOLDED, Form.FOLDED_TRIMMED) for column in columns)
    return KeyDefinition(
        (schema, table, f"key{random.randrange(3)}"),
        columns,
        access=random.choice((Access.EXCLUSIVE,) * 6 + tuple(Access)),
        guarded=folded or random.random() < 0.1,
    )


def _column(position: int, column_total: int, random: Random) -> KeyColumnDefinition:
    if random.random() < 0.2:
        position = random.randrange(column_total)
    form = random.choice(FORMS)
    return KeyColumnDefinition(
        position=position,
        form=form,
        prefix_characters=random.choice((0, 0, 0, 1, 5, 3000)),
        character_bytes_max=random.choice((1, 4)),
        code_unit_bytes=random.choice((1, 1, 1, 2, 4)),
        little_endian=random.random() < 0.5,
        utf8=random.random() < 0.5,
        fold=LOWER if form in (Form.FOLDED, Form.FOLDED_TRIMMED) else None,
    )
