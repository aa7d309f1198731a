"""What the shipped proof says, and the forms that follow from it. The proof itself runs in tests/live."""

from __future__ import annotations

import pytest

from writeset.collation import Collation, proven_collations, text_form
from writeset.definitions import Form

PRINTABLE = set(range(0x20, 0x7F))
FOLDED = [collation for collation in proven_collations().values() if collation.kind == "folded"]


def test_every_collation_of_the_server_is_in_the_proof() -> None:
    collations = proven_collations()
    assert len(collations) == 286
    assert sum(collation.pad_space for collation in collations.values()) == 222
    assert {name for name, of in collations.items() if of.kind == "none"} == {
        "latin2_czech_cs",
        "cp1250_czech_cs",
    }
    assert all(of.kind == "bytes" for name, of in collations.items() if name.endswith("_bin"))


@pytest.mark.parametrize("collation", FOLDED, ids=lambda collation: collation.name)
def test_fold_table_is_a_closed_map_of_safe_characters(collation: Collation) -> None:
    fold = collation.fold
    assert fold is not None
    safe = {character for character in range(256) if fold[character]}
    assert all(fold[fold[character]] == fold[character] for character in safe), (
        "representatives map to themselves"
    )
    assert len(safe) >= 80
    if collation.pad_space:
        assert not [c for c in safe if fold[c] == fold[0x20] and c != 0x20], "only spaces are trimmed"
    if text_form(collation.name, 4).utf8 or text_form(collation.name, 4).code_unit_bytes > 1:
        assert safe <= PRINTABLE


@pytest.mark.parametrize(
    ("collation", "fixed_length", "form"),
    [
        ("utf8mb4_0900_ai_ci", False, Form.FOLDED),
        ("utf8mb4_0900_ai_ci", True, Form.FOLDED_TRIMMED),
        ("utf8mb4_general_ci", False, Form.FOLDED_TRIMMED),
        ("utf8mb4_bin", False, Form.PAD_TRIMMED),
        ("utf8mb4_0900_bin", False, Form.RAW),
        ("utf8_general_ci", False, Form.FOLDED_TRIMMED),
        ("latin2_czech_cs", False, Form.ANY),
        ("a_collation_of_tomorrow", False, Form.ANY),
    ],
)
def test_form_of_a_collation(collation: str, fixed_length: bool, form: Form) -> None:
    assert text_form(collation, 4, fixed_length).form is form


@pytest.mark.parametrize(
    ("collation", "unsafe"),
    [
        ("utf8mb4_hu_0900_ai_ci", b"sS"),  # ccs = cscs
        ("utf8mb4_tr_0900_ai_ci", b"I"),  # equals the dotless i
        ("latin1_german2_ci", "ßäöüÄÖÜ".encode("latin-1")),  # ß = ss
        ("cp1251_ukrainian_ci", b"`"),  # weighs the same as a space
        ("utf8mb4_et_0900_ai_ci", b"zZ"),
    ],
)
def test_characters_with_a_surprise_are_not_safe(collation: str, unsafe: bytes) -> None:
    fold = proven_collations()[collation].fold
    assert fold is not None
    assert not any(fold[character] for character in unsafe)


def test_case_counts_where_the_collation_says_so() -> None:
    sensitive, insensitive = (
        proven_collations()[name].fold for name in ("utf8mb4_0900_as_cs", "utf8mb4_0900_as_ci")
    )
    assert sensitive is not None
    assert insensitive is not None
    assert sensitive[ord("a")] != sensitive[ord("A")]
    assert insensitive[ord("a")] == insensitive[ord("A")]
