"""Errors: the docstring is the message, on one line, with the facts in it."""

from __future__ import annotations

import inspect
from collections import defaultdict

import pytest

from applier import errors
from applier.errors import ApplierError, ApplyError

ALL = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, ApplierError)]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_message_is_one_line(kind: type[ApplierError]) -> None:
    class Facts(defaultdict[str, str]):
        def __missing__(self, name: str) -> str:
            return "near 'CREATE\n  TABLE'"

    error = kind()
    error.facts = Facts()
    message = str(error)
    assert message
    assert "\n" not in message
    assert "  " not in message
    assert "{" not in message


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_exit_code_is_a_documented_one(kind: type[ApplierError]) -> None:
    assert kind.exit_code in (1, 2, 3, 4, 75)


def test_facts_are_attributes() -> None:
    error = ApplyError(gtid="uuid:7", detail="why")
    assert error.facts == {"gtid": "uuid:7", "detail": "why"}
    assert (vars(error)["gtid"], error.exit_code) == ("uuid:7", 4)
    assert "uuid:7" in str(error)
