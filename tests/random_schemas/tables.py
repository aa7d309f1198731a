"""Random CREATE TABLE statements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from tests.random_schemas.schema import (
    BYTES,
    INTEGERS,
    SCHEMAS,
    TEMPORAL,
    TEXTS,
    WITHOUT_LENGTH,
    Column,
    Index,
    Table,
    quoted,
)

# Where equality differs most from bytes, or is hardest to know.
NASTY_COLLATIONS = (
    *("utf8mb4_0900_ai_ci", "utf8mb4_0900_as_cs", "utf8mb4_0900_as_ci", "utf8mb4_0900_bin", "utf8mb4_bin"),
    *("utf8mb4_general_ci", "utf8mb4_unicode_ci", "utf8mb4_unicode_520_ci", "utf8mb4_tr_0900_ai_ci"),
    *("utf8mb4_turkish_ci", "utf8mb4_de_pb_0900_ai_ci", "utf8mb4_german2_ci", "utf8mb4_ja_0900_as_cs_ks"),
    *("utf8mb4_zh_0900_as_cs", "utf8mb4_hu_0900_ai_ci", "utf8mb4_spanish2_ci", "utf8mb4_danish_ci"),
    *("utf8mb3_general_ci", "utf8mb3_bin", "utf8mb3_unicode_ci", "ucs2_general_ci", "ucs2_bin"),
    *("utf16_unicode_ci", "utf16_bin", "utf16le_general_ci", "utf16le_bin", "utf32_general_ci", "utf32_bin"),
    *("latin1_swedish_ci", "latin1_german1_ci", "latin1_german2_ci", "latin1_bin", "latin1_general_cs"),
    *(
        "ascii_general_ci",
        "ascii_bin",
        "cp1250_czech_cs",
        "latin2_czech_cs",
        "sjis_japanese_ci",
        "gbk_chinese_ci",
    ),
    *(
        "gb18030_chinese_ci",
        "big5_bin",
        "tis620_thai_ci",
        "cp1251_general_ci",
        "cp932_bin",
        "eucjpms_japanese_ci",
    ),
)
NUMBERS = (
    "TINYINT",
    "SMALLINT UNSIGNED",
    "MEDIUMINT",
    "INT",
    "INT",
    "INT UNSIGNED",
    "BIGINT",
    "BIGINT UNSIGNED",
)
OTHER_NUMBERS = (
    "FLOAT",
    "DOUBLE",
    "FLOAT",
    "DOUBLE",
    "DECIMAL(12,2)",
    "DECIMAL(30,10)",
    "DECIMAL(5,0)",
    "BIT(1)",
    "BIT(13)",
    "BIT(64)",
)
MOMENTS = ("YEAR", "DATE", "TIME", "TIME(3)", "DATETIME", "DATETIME(6)", "TIMESTAMP(3)", "TIMESTAMP")
BYTE_TYPES = ("BINARY(4)", "VARBINARY(8)", "VARBINARY(300)", "TINYBLOB", "BLOB", "MEDIUMBLOB")
TEXT_TYPES = ("CHAR(8)", "VARCHAR(12)", "VARCHAR(40)", "VARCHAR(40)", "VARCHAR(90)", "TINYTEXT", "TEXT")
ENUMS = ("ENUM('a','b','c','d')", "SET('a','b','c')")
UNKEYED_TYPES = frozenset({"json", "point", "vector"})
UNKEYED = ("JSON", "JSON", "POINT", "VECTOR(3)")
ACTIONS = ("RESTRICT", "CASCADE", "CASCADE", "SET NULL", "NO ACTION")
NAMES = ("a", "b", "C", "d e", "é", "f`", "g", "h", "i", "j")

# BINLOG cannot write to a table with a generated invisible primary key and a functional index (1105), though a stock
# replica can (MySQL 9.7).
WITHOUT_HIDDEN_KEY = "SET SESSION sql_generate_invisible_primary_key = OFF;\n"

KINDS = (NUMBERS, OTHER_NUMBERS, MOMENTS, BYTE_TYPES, ENUMS, UNKEYED, TEXT_TYPES)
KIND_WEIGHTS = (30, 12, 8, 12, 4, 6, 30)


@dataclass(frozen=True, slots=True)
class Taste:
    """What a history has more of, and what less, than others: odds, and a weight for each of KINDS."""

    weights: tuple[float, ...]
    prefix: float
    expression: float
    reference: float
    primary_key: float

    @classmethod
    def draw(cls, chance: Random) -> Taste:
        return cls(
            tuple(weight * chance.choice((0.3, 1.0, 1.0, 4.0)) for weight in KIND_WEIGHTS),
            prefix=chance.choice((0.1, 0.3, 0.6)),
            expression=chance.choice((0.02, 0.1, 0.3)),
            reference=chance.choice((0.2, 0.5, 0.8)),
            primary_key=chance.choice((0.95, 0.85, 0.5)),
        )


class TableMaker:
    """Random definitions. `collations`: every collation that the server has."""

    def __init__(self, chance: Random, taste: Taste, collations: Sequence[str]) -> None:
        self.chance = chance
        self.taste = taste
        self.collations = collations

    # --- columns ---------------------------------------------------------------------------------

    def column_type(self) -> str:
        chance = self.chance
        (kind,) = chance.choices(KINDS, self.taste.weights)
        chosen = chance.choice(kind)
        if kind is TEXT_TYPES or kind is ENUMS:
            return f"{chosen} COLLATE {self.collation()}"
        return chosen

    def collation(self) -> str:
        return self.chance.choice(NASTY_COLLATIONS if self.chance.random() < 0.6 else self.collations)

    def column(self, name: str) -> Column:
        """A column that does not exist yet."""
        type_, _, collation = self.column_type().partition(" COLLATE ")
        kind = type_.split("(")[0].split()[0].lower()
        return Column(name, kind, type_, None, collation or None, self.chance.random() < 0.6, False, False)

    def column_sql(self, column: Column) -> str:
        words = [column.sql, column.definition, "NULL" if column.nullable else "NOT NULL"]
        if self.chance.random() < 0.06 and column.nullable:
            words.append("INVISIBLE")
        return " ".join(words)

    def generated(self, name: str, base: Column) -> str:
        """A column computed from another one."""
        storage = self.chance.choice(("VIRTUAL", "STORED"))
        if base.data_type in TEXTS:
            expressions = (f"LOWER({base.sql})", f"CONCAT({base.sql}, 'x')", f"LEFT({base.sql}, 1)")
            type_ = f"VARCHAR(60) COLLATE {base.collation}"
            return f"{quoted(name)} {type_} AS ({self.chance.choice(expressions)}) {storage}"
        if base.data_type in INTEGERS:
            return f"{quoted(name)} BIGINT AS ({base.sql} DIV 2) {storage}"
        if base.data_type in ("json", "vector"):
            return f"{quoted(name)} BIGINT AS (LENGTH({base.sql})) {storage}"
        return f"{quoted(name)} {base.definition} AS ({base.sql}) {storage}"

    # --- keys ------------------------------------------------------------------------------------

    def key_part(self, column: Column) -> str:
        """A column as a part of an index, sometimes a prefix or descending."""
        chance = self.chance
        has_length = column.data_type in TEXTS | BYTES
        if column.data_type in WITHOUT_LENGTH or (has_length and chance.random() < self.taste.prefix):
            return f"{column.sql}({chance.choice((1, 2, 3, 4, 5, 8))})"
        return column.sql + chance.choice(("", "", "", " DESC"))

    def expression_part(self, column: Column) -> str:
        """A functional part, or a multi-valued one. Not of a time: it may depend on the session's time zone."""
        if column.data_type in TEXTS:
            return f"(CAST(UPPER({column.sql}) AS CHAR(40)))"
        if column.data_type == "json":
            return f"(CAST({column.sql} AS UNSIGNED ARRAY))"
        if column.data_type in BYTES:
            return f"(CAST(LEFT({column.sql}, 2) AS BINARY(2)))"
        return f"(CAST({column.sql} AS SIGNED) DIV 2)"

    def index(self, columns: Sequence[Column], *, unique: bool, name: str, expressions: bool = True) -> str:
        chance = self.chance
        columns = [column for column in columns if expressions or column.data_type != "json"]
        chosen = chance.sample(columns, min(len(columns), chance.choice((1, 1, 1, 2, 2, 3))))
        parts = [
            f"({self.expression_part(column)})"
            if column.data_type == "json"
            or (expressions and column.data_type not in TEMPORAL and chance.random() < self.taste.expression)
            else self.key_part(column)
            for column in chosen
        ]
        invisible = " INVISIBLE" if chance.random() < 0.05 else ""
        return f"{'UNIQUE ' * unique}INDEX {quoted(name)} ({', '.join(parts)}){invisible}"

    def primary_key(self, columns: Sequence[Column]) -> str:
        chance = self.chance
        keyed = [column for column in columns if column.data_type not in UNKEYED_TYPES]
        chosen = chance.sample(keyed, min(len(keyed), chance.choice((1, 1, 1, 2, 2, 3))))
        return f"PRIMARY KEY ({', '.join(self.primary_key_part(column) for column in chosen)})"

    def primary_key_part(self, column: Column) -> str:
        """No prefix that may cut through characters which only together equal another one: InnoDB then finds duplicates
        where there are none, and the other way round."""
        if column.data_type in TEXTS and not (column.collation or "").endswith("_bin"):
            return column.sql
        return self.key_part(column)

    # --- tables ----------------------------------------------------------------------------------

    def create(self, schema: str, name: str, tables: Sequence[Table]) -> str:
        """A CREATE TABLE, maybe behind a SET and `;\\n`. The server refuses some: make another one then."""
        chance = self.chance
        columns = [self.column(column) for column in chance.sample(NAMES, chance.randint(2, 6))]
        if chance.random() < 0.5:  # most tables of the world
            columns.insert(0, Column("id", "int", "INT", None, None, False, False, False))
        parents = [table for table in tables if parent_indexes(table)]
        references: list[str] = []
        if chance.random() < self.taste.reference:
            references = self.references(columns, chance.choice(parents)) if parents else []
        parts = [self.column_sql(column) for column in columns]
        keyed = list(columns)
        # What a virtual column makes of a zero date depends on who opened the table.
        bases = [column for column in columns if column.data_type not in TEMPORAL]
        for number in range(chance.choice((0, 0, 1, 1, 2)) if bases else 0):
            base = chance.choice(bases)
            parts.append(self.generated(f"v{number}", base))
            if base.data_type not in TEXTS | BYTES | {"json", "vector", "point"}:
                keyed.append(Column(f"v{number}", base.data_type, "", None, None, True, True, False))
        by_id = columns[0].name == "id" and chance.random() < 0.7
        if chance.random() < self.taste.primary_key:
            parts.append("PRIMARY KEY (id)" if by_id else self.primary_key(columns))
            if by_id and chance.random() < 0.15:
                references.append(self.self_reference(parts, f"{quoted(schema)}.{quoted(name)}"))
        indexable = [column for column in keyed if column.data_type not in ("point", "vector")]
        if indexable:
            for number in range(chance.choice((0, 1, 1, 2, 3))):
                parts.append(self.index(indexable, unique=chance.random() < 0.75, name=f"k{number}"))
        return (
            f"{WITHOUT_HIDDEN_KEY if has_expression(parts) else ''}"
            f"CREATE TABLE {quoted(schema)}.{quoted(name)} ({', '.join(parts + references)})"
            f"{self.partitioning(columns) if not references else ''}"
        )

    def references(self, columns: list[Column], parent: Table) -> list[str]:
        """Adds columns for a reference to a key of the parent; gives the constraint."""
        index = self.chance.choice(parent_indexes(parent))
        names: list[str] = []
        for name in index.columns:
            assert name is not None
            theirs = parent.column(name)
            names.append(f"p{len(names)}")
            nullable = self.chance.random() < 0.7
            columns.append(
                Column(
                    names[-1],
                    theirs.data_type,
                    theirs.column_type,
                    None,
                    theirs.collation,
                    nullable,
                    False,
                    False,
                )
            )
        return [self.foreign_key(names, parent, index)]

    def foreign_key(self, names: Sequence[str], parent: Table, index: Index) -> str:
        theirs = ", ".join(quoted(name) for name in index.columns if name is not None)
        return (
            f"FOREIGN KEY ({', '.join(quoted(name) for name in names)}) REFERENCES {parent.sql} ({theirs})"
            f" ON DELETE {self.chance.choice(ACTIONS)} ON UPDATE {self.chance.choice(ACTIONS[:3])}"
        )

    def self_reference(self, parts: list[str], table: str) -> str:
        parts.append("up INT")
        # CASCADE in a circle of rows: the server logs the deletion of one row twice, which no replica can apply.
        return f"FOREIGN KEY (up) REFERENCES {table} (id) ON DELETE {self.chance.choice(('RESTRICT', 'SET NULL'))}"

    def partitioning(self, columns: Sequence[Column]) -> str:
        if self.chance.random() > 0.12:
            return ""
        if columns[0].name == "id":
            return self.chance.choice(
                (" PARTITION BY HASH (id) PARTITIONS 3", " PARTITION BY KEY () PARTITIONS 2")
            )
        return " PARTITION BY KEY () PARTITIONS 3"


def has_expression(parts: Sequence[str]) -> bool:
    """Whether any of these parts of a CREATE TABLE is a functional index."""
    return any("INDEX" in part and "((" in part for part in parts)


def parent_indexes(table: Table) -> list[Index]:
    """Keys that a foreign key may refer to."""
    if table.partitioned:
        return []
    return [
        index
        for index in table.indexes
        if index.unique and not index.has_prefix and all(column is not None for column in index.columns)
    ]


def schema_for(chance: Random) -> str:
    return chance.choices(SCHEMAS, (4, 1))[0]
