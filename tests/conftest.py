"""Fixtures come from plugins, one file for each kind of thing."""

import os
import sys

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # a busy machine stops a test for seconds
settings.load_profile("untimed")

# Hundreds of tests start the command, and where nothing may be written each start would compile all of it: seconds.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

pytest_plugins = ["tests.servers", "tests.dumps", "tests.recorded", "tests.fault.tally"]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("random schemas", "see tests/live/test_random_schemas.py")
    group.addoption("--seeds", help="how many, or a range such as 17-20")
    group.addoption("--mode", help="one way of replaying only")
    group.addoption("--keep", metavar="DIR", help="keep the source's data of seeds that fail")
    group.addoption("--kept", metavar="DIR", help="replay sources that were kept")
    parser.getgroup("live page").addoption(
        "--screenshots", metavar="DIR", help="keep what tests/live/test_page.py sees"
    )
