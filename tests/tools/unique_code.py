"""Whether strings can be read back from the concatenation of their code words (Sardinas and Patterson, 1953)."""

from __future__ import annotations

from collections.abc import Iterable


def ambiguous_words(words: Iterable[bytes]) -> set[bytes]:
    """Empty when every concatenation of words has one reading only; else words of one that has two.

    The remainders that two readings of one text can differ by are followed until none is new; if one of them is
    itself a word, both readings end together and the code is ambiguous.
    """
    code = set(words)
    if b"" in code:
        return {b""}
    by_first: dict[int, list[bytes]] = {}
    for word in code:
        by_first.setdefault(word[0], []).append(word)
    # remainder -> the words that led to it
    pending: dict[bytes, set[bytes]] = {}
    for word in code:
        for longer in by_first[word[0]]:
            if longer != word and longer.startswith(word):
                pending.setdefault(longer[len(word) :], {word, longer})
    seen: set[bytes] = set()
    while pending:
        remainder, path = pending.popitem()
        if remainder in code:
            return path | {remainder}
        seen.add(remainder)
        for word in by_first.get(remainder[0], ()):
            left = word[len(remainder) :] if word.startswith(remainder) else None
            left = remainder[len(word) :] if left is None and remainder.startswith(word) else left
            if left and left not in seen:
                pending.setdefault(left, path | {word})
    return set()
