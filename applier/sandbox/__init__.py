"""Throw-away MySQL servers for demo, tests and benchmarks."""

from applier.sandbox.sandbox import Sandbox
from applier.sandbox.server import Server

__all__ = ["Sandbox", "Server"]
