"""Hostile bytes for every parser: targets, mutations, seeds, and a build under libFuzzer and the sanitizers.

The same targets run in two ways: for seconds in CI, with mutations from a seeded generator (`test_fuzz.py`); for
hours with coverage feedback, address and undefined-behaviour sanitizers (`python -m tests.fuzz`).
"""
