"""Text keys: a form of bytes that is equal wherever the server says that two texts are equal.

What each collation allows is not argued but proven against a server: `tests/tools/prove_collations.py` writes
`collations.json`, which this module reads. A collation that is not in there has no form (`Form.ANY`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

from writeset.definitions import Form


@dataclass(frozen=True, slots=True)
class TextForm:
    """How the texts of one collation are brought to a form.

    form: PAD_TRIMMED, RAW, FOLDED_TRIMMED, FOLDED or ANY.
    fold: for the FOLDED forms, 256 bytes: code unit → representative of its class, 0 where nothing is proven.
    character_bytes_max, code_unit_bytes, little_endian, utf8: of the character set, see
        `KeyColumnDefinition`.
    """

    form: Form
    fold: bytes | None = field(default=None, repr=False)
    character_bytes_max: int = 1
    code_unit_bytes: int = 1
    little_endian: bool = False
    utf8: bool = False

    @property
    def value_dependent(self) -> bool:
        """Whether some values have no known form, so that a key with such a column must be guarded."""
        return self.form in (Form.FOLDED, Form.FOLDED_TRIMMED)


@dataclass(frozen=True, slots=True)
class Collation:
    """What is proven of one collation.

    pad_space: trailing spaces do not count (PAD SPACE).
    kind: "bytes" (equal texts have equal bytes), "folded" or "none".
    """

    name: str
    character_set: str
    pad_space: bool
    kind: str
    fold: bytes | None = field(default=None, repr=False)


# Bytes of the shortest character; the others have 1.
CODE_UNIT_BYTES = {"ucs2": 2, "utf16": 2, "utf16le": 2, "utf32": 4}
UTF8 = frozenset({"utf8mb3", "utf8mb4", "utf8"})


@cache
def proven_collations() -> dict[str, Collation]:
    """Everything in `collations.json`, by name."""
    data = json.loads(resources.files("writeset").joinpath("collations.json").read_text("ascii"))
    tables = {name: bytes.fromhex(text) for name, text in data["tables"].items()}
    return {
        name: Collation(
            name, entry["character_set"], entry["pad"], entry["kind"], tables.get(entry.get("table"))
        )
        for name, entry in data["collations"].items()
    }


@cache
def text_form(collation: str, character_bytes_max: int, fixed_length: bool = False) -> TextForm:
    """The form of a text column of this collation.

    fixed_length: a CHAR column, whose trailing spaces never count, not even where the collation counts them.
    """
    # MariaDB and servers up to 8.0 call utf8mb3 "utf8".
    name = "utf8mb3_" + collation[5:] if collation.startswith("utf8_") else collation
    proven = proven_collations().get(name)
    if proven is None or proven.kind == "none":
        return TextForm(Form.ANY)
    trims = proven.pad_space or fixed_length
    if proven.kind == "bytes":
        form = Form.PAD_TRIMMED if trims else Form.RAW
    else:
        form = Form.FOLDED_TRIMMED if trims else Form.FOLDED
    return TextForm(
        form,
        proven.fold,
        character_bytes_max,
        CODE_UNIT_BYTES.get(proven.character_set, 1),
        proven.character_set == "utf16le",
        proven.character_set in UTF8,
    )
