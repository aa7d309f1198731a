"""The shipped proof of the collations, done again on the server at hand."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import pytest

from applier.sandbox import Server
from tests.tools.prove_collations import Server as ProofServer
from tests.tools.prove_collations import prove_all

# One of each kind: bytes, single-byte, wide, contractions, several levels, expansions, no proof.
SAMPLE = {
    "cp1250_czech_cs",
    "cp1251_ukrainian_ci",
    "latin1_german2_ci",
    "sjis_japanese_ci",
    "tis620_thai_ci",
    "utf16le_general_ci",
    "utf32_spanish2_ci",
    "utf8mb4_0900_ai_ci",
    "utf8mb4_da_0900_as_cs",
    "utf8mb4_general_ci",
    "utf8mb4_hu_0900_ai_ci",
    "utf8mb4_0900_bin",
}


def shipped() -> dict[str, Any]:
    text = resources.files("writeset").joinpath("collations.json").read_text("ascii")
    data: dict[str, Any] = json.loads(text)
    return data


def by_name(data: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    return {
        name: (entry["character_set"], entry["pad"], entry["kind"], data["tables"].get(entry.get("table")))
        for name, entry in data["collations"].items()
    }


def assert_proven(source: Server, names: set[str]) -> None:
    with source.connect() as connection, connection.cursor() as cursor:
        found = by_name(prove_all(ProofServer(cursor), wanted=names.__contains__))
    assert found == {name: entry for name, entry in by_name(shipped()).items() if name in names}


def test_a_collation_of_each_kind_is_as_shipped(source: Server) -> None:
    assert_proven(source, SAMPLE)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_all_collations_are_as_shipped(source: Server) -> None:
    """pytest -m long tests/live/test_collation_proof.py — a little over a minute."""
    assert_proven(source, set(shipped()["collations"]))


def test_no_collation_of_the_server_is_missing(source: Server) -> None:
    names = {name for (name,) in source.execute("SELECT collation_name FROM information_schema.collations")}
    assert names <= set(shipped()["collations"])
