"""The decision on which the proof of the collations rests."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tools.prove_collations import de_bruijn
from tests.tools.unique_code import ambiguous_words


def test_prefix_free_codes_and_codes_with_a_tail_can_be_read_back() -> None:
    assert not ambiguous_words([b"a", b"b", b"cd"])
    assert not ambiguous_words([b"0", b"01", b"11"]), "readable, though only from the end"


def test_hungarian_doubled_letters_cannot() -> None:
    """ccs weighs what cs-cs weighs."""
    assert ambiguous_words([b"<cs>", b"<cs><cs>", b"c", b"s"])


@settings(max_examples=300)
@given(st.sets(st.text("ab", min_size=1, max_size=4).map(str.encode), min_size=1, max_size=5))
def test_agrees_with_trying_all_short_texts(code: set[bytes]) -> None:
    readings: dict[bytes, int] = {}
    for count in range(1, 7):
        for words in itertools.product(sorted(code), repeat=count):
            text = b"".join(words)
            if len(text) <= 10:
                readings[text] = readings.get(text, 0) + 1
    if any(count > 1 for count in readings.values()):
        assert ambiguous_words(code)
    elif not ambiguous_words(code):
        assert max(readings.values(), default=1) == 1


def test_de_bruijn_text_holds_every_run_once() -> None:
    text = de_bruijn(b"abcd", 3)
    assert len(text) == 4**3 + 2
    assert {text[at : at + 3] for at in range(64)} == {
        bytes(run) for run in itertools.product(b"abcd", repeat=3)
    }
