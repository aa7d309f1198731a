"""Seeded random numbers and text, quick enough for a generator that must not be the limit.

Text is cut from a pool of random characters that is always the same: one random number a string, not one a
character.
"""

from __future__ import annotations

import random
from functools import cache

ALPHANUMERIC = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_POOL_CHARACTERS = 1 << 20
_GROUP_DIGITS = 11  # sysbench's strings are groups of 11 digits, joined by "-"
_POOL_GROUPS = 1 << 16
LAST_NAME_SYLLABLES = ("BAR", "OUGHT", "ABLE", "PRI", "PRES", "ESE", "ANTI", "CALLY", "ATION", "EING")
LAST_NAMES = 1000


class Random:
    """Random numbers of one stream: one terminal of one run, or one part of a load.

    Streams with different names are independent; the same seed and name give the same numbers everywhere.
    """

    __slots__ = ("_digits", "_random", "_text")

    def __init__(self, seed: int, *name: object) -> None:
        self._random = random.Random(f"{seed}/" + "/".join(map(str, name))).random
        self._text = _text_pool()
        self._digits = _digit_pool()

    def number(self, low: int, high: int) -> int:
        """Uniform in low..high, both included."""
        return low + int(self._random() * (high - low + 1))

    def chance(self, percent: float) -> bool:
        """True in `percent` of 100 cases."""
        return self._random() * 100 < percent

    def text(self, low: int, high: int) -> str:
        """Letters and digits, low..high characters (at most 65,536)."""
        start = int(self._random() * (_POOL_CHARACTERS - 65_536))
        return self._text[start : start + self.number(low, high)]

    def digits(self, length: int) -> str:
        """`length` decimal digits (at most 18)."""
        return f"{int(self._random() * 10**length):0{length}d}"

    def digit_groups(self, groups: int) -> str:
        """`groups` (at most 10) groups of 11 digits joined by '-', as in sysbench's columns c and pad."""
        start = int(self._random() * (_POOL_GROUPS - 10)) * (_GROUP_DIGITS + 1)
        return self._digits[start : start + groups * (_GROUP_DIGITS + 1) - 1]

    def non_uniform(self, a: int, c: int, low: int, high: int) -> int:
        """NURand(A, x, y) of TPC-C 5.11, clause 2.1.6, with its run-time constant C."""
        return ((self.number(0, a) | self.number(low, high)) + c) % (high - low + 1) + low

    def shuffled(self, high: int) -> list[int]:
        """1..high in random order."""
        return sorted(range(1, high + 1), key=lambda _: self._random())


def last_name(number: int) -> str:
    """The customer's last name with this number (0..999): TPC-C 5.11, clause 4.3.2.3."""
    syllables = LAST_NAME_SYLLABLES
    return syllables[number // 100] + syllables[number // 10 % 10] + syllables[number % 10]


def non_uniform_range(a: int, full: int, actual: int) -> int:
    """The A of NURand for a range of `actual` values, where the specification names `a` for `full` values.

    Keeps the skew at smaller scale: A + 1 is a power of two and shrinks as the range does.
    """
    scaled = max(1, (a + 1) * actual // full)
    return (1 << (scaled.bit_length() - 1)) - 1


@cache
def _text_pool() -> str:
    return "".join(random.Random("text").choices(ALPHANUMERIC, k=_POOL_CHARACTERS))


@cache
def _digit_pool() -> str:
    numbers = random.Random("digits")
    return "-".join(
        f"{int(numbers.random() * 10**_GROUP_DIGITS):0{_GROUP_DIGITS}d}" for _ in range(_POOL_GROUPS)
    )
