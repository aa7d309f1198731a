"""Which tables a statement may give other keys: so that a DDL makes only those be read again.

Not a parser: it recognises the beginnings of statements whose tables are easy to tell, and says "any table" for
everything else, and for whatever mentions a foreign key.
"""

from __future__ import annotations

import re
from typing import Final

TableName = tuple[str, str]

_LINE_COMMENT: Final = re.compile(r"--[ \t][^\n]*|#[^\n]*")
_COMMENT: Final = re.compile(rf"/\*(?![!+]).*?\*/|{_LINE_COMMENT.pattern}", re.DOTALL)
# Letters, digits, _, $ and whatever is not ASCII. Said the other way round, and without case: a range of all the others
# takes 25 ms to compile, and 0.1 s to fold.
_NAME: Final = r"(?-i:`(?:[^`]|``)+`|\"(?:[^\"]|\"\")+\"|[^\x00-#%-/:-@\[-^`{-\x7f]+)"
_TABLE: Final = rf"{_NAME}(?:\s*\.\s*{_NAME})?"
_IF: Final = r"(?:IF\s+(?:NOT\s+)?EXISTS\s+)?"

# Statements that change no table's columns or keys.
_HARMLESS: Final = re.compile(
    r"(?:CREATE|ALTER|DROP)\s+(?:OR\s+REPLACE\s+)?(?:AGGREGATE\s+|ALGORITHM\s*=\s*\w+\s+|DEFINER\s*=\s*\S+\s+"
    r"|SQL\s+SECURITY\s+\w+\s+)*"
    r"(?:PROCEDURE|FUNCTION|TRIGGER|EVENT|VIEW|USER|ROLE|SERVER|RESOURCE|SPATIAL\s+REFERENCE)\b"
    r"|GRANT\b|REVOKE\b|RENAME\s+USER\b|SET\b|ANALYZE\b|FLUSH\b|CREATE\s+(?:DATABASE|SCHEMA)\b"
    r"|SAVEPOINT\b|RELEASE\b|ROLLBACK\b|XA\b|INSERT\b|UPDATE\b|DELETE\b|REPLACE\b",
    re.IGNORECASE,
)
# Statements about tables: after the match comes a list of them, or one.
_ABOUT_TABLES: Final = re.compile(
    rf"(?:CREATE\s+(?:TEMPORARY\s+)?TABLE\s+{_IF}|DROP\s+(?:TEMPORARY\s+)?TABLES?\s+{_IF}|ALTER\s+TABLE\s+"
    rf"|TRUNCATE\s+(?:TABLE\s+)?|OPTIMIZE\s+(?:\w+\s+)?TABLES?\s+|REPAIR\s+(?:\w+\s+)?TABLES?\s+"
    rf"|(?:CREATE|DROP)\s+(?:(?:UNIQUE|FULLTEXT|SPATIAL|ONLINE|OFFLINE)\s+)*INDEX\s+{_NAME}\s+(?:USING\s+\w+\s+)?ON\s+)"
    rf"({_TABLE}(?:\s*,\s*{_TABLE})*)",
    re.IGNORECASE,
)
# What may tie the statement to tables that it does not name at its beginning.
_REACHES_FURTHER: Final = re.compile(
    r"\bREFERENCES\b|\bFOREIGN\b|\bRENAME\b|\bLIKE\b|\bEXCHANGE\b|/\*!", re.IGNORECASE
)


def changed_tables(text: str, database: str) -> frozenset[TableName] | None:
    """Tables, in lower case, whose keys may be others after the statement; None for "any".

    `database` is the default one. Names in lower case may stand for several tables where the server tells cases
    apart: then too many are read again, never too few.
    """
    statement = _without_comments(text).strip()
    if _HARMLESS.match(statement):
        return frozenset()
    about = _ABOUT_TABLES.match(statement)
    if about is None or _REACHES_FURTHER.search(statement):
        return None
    return frozenset(_table(name, database) for name in re.findall(_TABLE, about[1]))


def _without_comments(text: str) -> str:
    """Behind the last `*/` no comment ends: to look for its end from every `/*` there would take time squared."""
    closed = text.rfind("*/") + 2 if "*/" in text else 0
    return _COMMENT.sub(" ", text[:closed]) + _LINE_COMMENT.sub(" ", text[closed:])


def _table(text: str, database: str) -> TableName:
    parts = [_unquoted(part) for part in re.findall(_NAME, text)]
    schema, table = parts if len(parts) == 2 else (database, parts[0])
    return schema.lower(), table.lower()


def _unquoted(name: str) -> str:
    quote = name[0]
    return name[1:-1].replace(quote * 2, quote) if quote in '`"' else name
