"""Can a run start: every precondition on both servers, with the statement that mends what does not hold."""

from applier.preflight.checks import preflight
from applier.preflight.facts import Requirements
from applier.preflight.findings import Finding, Level, Report

__all__ = ["Finding", "Level", "Report", "Requirements", "preflight"]
