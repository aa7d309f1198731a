"""What a check says, and all of them together."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from applier.errors import PreflightFailed


class Level(enum.StrEnum):
    """A failure keeps a run from starting, a warning does not."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Finding:
    """`name` is stable (`source.binlog_format`); `remedy` is the statement that mends it, empty when ok."""

    name: str
    level: Level
    detail: str
    remedy: str = ""

    def __str__(self) -> str:
        remedy = f" Remedy: {self.remedy}" if self.remedy else ""
        return f"{self.name}: {self.detail}.{remedy}"


def ok(name: str, detail: str) -> Finding:
    return Finding(name, Level.OK, detail)


def warning(name: str, detail: str, remedy: str = "") -> Finding:
    return Finding(name, Level.WARNING, detail, remedy)


def failure(name: str, detail: str, remedy: str = "") -> Finding:
    return Finding(name, Level.FAILURE, detail, remedy)


@dataclass(frozen=True, slots=True)
class Report:
    """All findings, in the order of the checks."""

    findings: tuple[Finding, ...]

    @property
    def failures(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.level is Level.FAILURE)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.level is Level.WARNING)

    @property
    def exit_code(self) -> int:
        """0 when a run may start, 3 when not."""
        return PreflightFailed.exit_code if self.failures else 0

    def raise_on_failure(self) -> None:
        """Raises PreflightFailed with every failure in one message."""
        if self.failures:
            raise PreflightFailed(detail=" ".join(map(str, self.failures)), findings=self.failures)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "ready": not self.failures,
            "failures": len(self.failures),
            "warnings": len(self.warnings),
            "findings": [
                {"name": one.name, "level": one.level.value, "detail": one.detail, "remedy": one.remedy}
                for one in self.findings
            ],
        }
