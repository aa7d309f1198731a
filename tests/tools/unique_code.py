"""Whether strings can be read back from the concatenation of their code words (Sardinas and Patterson, 1953)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator


def ambiguous_words(words: Iterable[bytes]) -> set[bytes]:
    """Empty when every concatenation of words has one reading only; else words of one that has two.

    The remainders that two readings of one text can differ by are followed until none is new; if one of them is
    itself a word, both readings end together and the code is ambiguous.
    """
    code = set(words)
    if b"" in code:
        return {b""}
    ordered = sorted(code)
    lengths = sorted({len(word) for word in code})

    def proper_prefixes(text: bytes) -> Iterator[bytes]:
        for length in lengths:
            if length >= len(text):
                return
            if text[:length] in code:
                yield text[:length]

    def continuations(text: bytes) -> Iterator[bytes]:
        at = bisect_left(ordered, text)
        while at < len(ordered) and ordered[at].startswith(text):
            if ordered[at] != text:
                yield ordered[at]
            at += 1

    # remainder -> the words that led to it
    pending = {word[len(prefix) :]: {word, prefix} for word in ordered for prefix in proper_prefixes(word)}
    seen: set[bytes] = set()
    while pending:
        remainder, path = pending.popitem()
        if remainder in code:
            return path | {remainder}
        seen.add(remainder)
        further = {remainder[len(word) :]: word for word in proper_prefixes(remainder)}
        further |= {word[len(remainder) :]: word for word in continuations(remainder)}
        for left, word in further.items():
            if left not in seen:
                pending.setdefault(left, path | {word})
    return set()
