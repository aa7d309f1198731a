"""What a sandbox remembers about a server from one process to the next: a JSON file in its folder."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from applier.errors import PreflightFailed
from applier.sandbox.process import Process

FORMAT = 1


@dataclass(slots=True)
class State:
    """Facts of one server. `process` is None while it is stopped on purpose; else check `process.alive()`."""

    name: str
    port: int
    socket: str
    server_id: int
    version: str
    mysqld: str
    options: dict[str, str] = field(default_factory=dict)
    replica_of: str | None = None
    process: Process | None = None

    def save(self, path: Path) -> None:
        """Write at once or not at all, readable by the owner only."""
        scratch = path.with_suffix(".new")
        scratch.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n")
        os.replace(scratch, path)

    @classmethod
    def load(cls, path: Path) -> State:
        """Raises PreflightFailed when the file is not ours."""
        try:
            facts = json.loads(path.read_text())
            if facts.pop("format") != FORMAT:
                raise ValueError(f"format is not {FORMAT}")
            process = facts.pop("process")
            return cls(**facts, process=Process(**process) if process else None)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PreflightFailed(detail=f"{path} is not a sandbox's state: {error}") from error
