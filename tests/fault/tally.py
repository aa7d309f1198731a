"""What the attacks came to: how often each was tried, what was lost or doubled, and how long it took to go on.

Every run prints the table of its own figures. `pytest tests/fault --fault-table FILE` adds them to a JSON file,
and `python -m tests.fault.tally FILE` prints the table of all runs that have added to it.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest


@dataclass(slots=True)
class Fault:
    """One kind of attack. `seconds`: from the moment it struck to the next commit on the target. `unchecked`: tries
    after which nobody has counted what was lost and doubled."""

    tried: int = 0
    unchecked: int = 0
    lost: int = 0
    doubled: int = 0
    seconds: list[float] = field(default_factory=list)


class Tally:
    """Figures by the name of the fault."""

    def __init__(self) -> None:
        self.faults: dict[str, Fault] = {}

    def struck(self, name: str, seconds: float | None = None, times: int = 1) -> None:
        """The fault was tried; it took so long until the target had the next transaction."""
        fault = self.faults.setdefault(name, Fault())
        fault.tried += times
        fault.unchecked += times
        if seconds is not None:
            fault.seconds.append(round(seconds, 3))

    def found(self, name: str, lost: int, doubled: int) -> None:
        """What was counted once all was applied."""
        fault = self.faults.setdefault(name, Fault())
        fault.unchecked = 0
        fault.lost += lost
        fault.doubled += doubled

    def add(self, other: Tally) -> None:
        for name, theirs in other.faults.items():
            ours = self.faults.setdefault(name, Fault())
            ours.tried += theirs.tried
            ours.unchecked += theirs.unchecked
            ours.lost += theirs.lost
            ours.doubled += theirs.doubled
            ours.seconds += theirs.seconds

    def save(self, path: Path) -> None:
        """Adds to what the file holds."""
        total = load(path) if path.exists() else Tally()
        total.add(self)
        facts = {name: dataclasses.asdict(fault) for name, fault in total.faults.items()}
        path.write_text(json.dumps(facts, indent=1), encoding="utf-8")

    def table(self) -> str:
        """In Markdown."""
        lines = [
            "| fault | tried | lost | doubled | time to go on, median (longest) |",
            "|---|---|---|---|---|",
        ]
        for name, fault in sorted(self.faults.items()):
            times = (
                f"{statistics.median(fault.seconds):.1f} s ({max(fault.seconds):.1f} s)"
                if fault.seconds
                else "–"
            )
            tried = f"{fault.tried}, {fault.unchecked} unchecked" if fault.unchecked else str(fault.tried)
            lines.append(f"| {name} | {tried} | {fault.lost} | {fault.doubled} | {times} |")
        return "\n".join(lines)


def load(path: Path) -> Tally:
    tally = Tally()
    for name, facts in json.loads(path.read_text(encoding="utf-8")).items():
        tally.faults[name] = Fault(**facts)
    return tally


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Iterator[Tally]:
    """For one test; its figures count even when it fails."""
    figures = Tally()
    yield figures
    total: Tally = request.config.stash.setdefault(TOTAL, Tally())
    total.add(figures)
    file = request.config.getoption("--fault-table")
    if file:
        figures.save(Path(file))


TOTAL = pytest.StashKey[Tally]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults", "see tests/fault")
    group.addoption("--fault-table", metavar="FILE", help="add the figures to this JSON file")
    group.addoption("--kills", type=int, help="how often to kill, or to strike")
    group.addoption("--minutes", type=float, help="how long to make trouble")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    total = terminalreporter.config.stash.get(TOTAL, None)
    if total is not None and total.faults:
        terminalreporter.section("faults")
        terminalreporter.write_line(total.table())


if __name__ == "__main__":
    print(load(Path(sys.argv[1])).table())
