"""CREATE EVENT and ALTER EVENT, changed so that they do on the target what they do on a stock replica.

An event that is enabled on the source is made with DISABLE ON REPLICA: what it does is in the log, and if it ran on the
target too it would be done twice. Who takes over from the source enables it (ALTER EVENT … ENABLE). Whoever alters an
event becomes its definer, and on the source that was not the applier's account.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

EVENT_STATEMENT: Final = re.compile(
    rb"\s*(CREATE|ALTER)\s+(?:DEFINER\s*=\s*\S+\s+)?EVENT\b", re.IGNORECASE | re.DOTALL
)
# What is not closed goes on to the end: to look for its end from everywhere would take time squared.
TOKEN: Final = re.compile(
    rb"""
    (?P<skip> \s+ | /\*.*?(?:\*/|\Z) | --[ \t][^\n]* | \#[^\n]* )
    | (?P<text> '(?:[^'\\]|\\(?:.|\Z)|'')*(?:'|\Z) | "(?:[^"\\]|\\(?:.|\Z)|"")*(?:"|\Z) )
    | (?P<name> `(?:[^`]|``)*(?:`|\Z) )
    | (?P<word> [\w$@\x80-\xff]+ )
    | (?P<sign> . )
    """,
    re.VERBOSE | re.DOTALL,
)
DISABLED: Final = b"DISABLE ON REPLICA"
AFTER_STATUS: Final = frozenset({b"COMMENT", b"DO"})


def for_replica(text: bytes, invoker: str | None) -> bytes:
    """The statement to run for one that the log has; any other than CREATE and ALTER EVENT comes back as it is.

    `invoker`: who ran it on the source, `user`@`host` quoted, if the log tells."""
    head = EVENT_STATEMENT.match(text)
    if head is None:
        return text
    creates = head[1].upper() == b"CREATE"
    text = _disabled(text, head.end(), creates)
    if not creates and invoker is not None and b"=" not in head[0]:
        text = b"ALTER DEFINER=" + invoker.encode() + b" EVENT" + text[head.end() :]
    return text


def _disabled(text: bytes, start: int, creates: bool) -> bytes:
    """ENABLE, which for a new event is what nothing said means, becomes DISABLE ON REPLICA."""
    for word, at, end in _clauses(text, start):
        if word == b"ENABLE":
            return text[:at] + DISABLED + text[end:]
        if word == b"DISABLE":
            return text
        if word in AFTER_STATUS:
            return text[:at] + DISABLED + b" " + text[at:] if creates else text
    return text


def _clauses(text: bytes, start: int) -> Iterator[tuple[bytes, int, int]]:
    """(word in capitals, start, end) of the words after the event's name, outside of names, texts and parentheses."""
    depth, is_name, before = 0, True, b""
    for match in TOKEN.finditer(text, start):
        kind, token = match.lastgroup, match[0].upper()
        if kind == "skip":
            continue
        if is_name and kind in ("word", "name"):  # of the event, or its new name
            is_name = before in (b"IF", b"NOT") or token in (b"IF", b"NOT", b"EXISTS")
            before = token
            continue
        if token == b".":
            is_name = True
        elif token in (b"(", b")"):
            depth += 1 if token == b"(" else -1
        elif kind == "word" and depth == 0:
            is_name = before == b"RENAME" and token == b"TO"
            yield token, match.start(), match.end()
        before = token
