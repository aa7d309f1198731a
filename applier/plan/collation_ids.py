"""Numbers of the collations that tables commonly have, from information_schema.collations of MySQL 9.7.

The log names collations by number, the proof of what they hold equal (`writeset/collations.json`) by name.
"""

from __future__ import annotations

from typing import Final

COLLATION_NAMES: Final = {
    5: "latin1_german1_ci",
    8: "latin1_swedish_ci",
    11: "ascii_general_ci",
    31: "latin1_german2_ci",
    33: "utf8mb3_general_ci",
    45: "utf8mb4_general_ci",
    46: "utf8mb4_bin",
    47: "latin1_bin",
    48: "latin1_general_ci",
    49: "latin1_general_cs",
    65: "ascii_bin",
    76: "utf8mb3_tolower_ci",
    83: "utf8mb3_bin",
    192: "utf8mb3_unicode_ci",
    224: "utf8mb4_unicode_ci",
    246: "utf8mb4_unicode_520_ci",
    255: "utf8mb4_0900_ai_ci",
    278: "utf8mb4_0900_as_cs",
    305: "utf8mb4_0900_as_ci",
    309: "utf8mb4_0900_bin",
}
