"""Fixtures come from plugins, one file for each kind of thing."""

pytest_plugins = ["tests.servers", "tests.dumps"]
