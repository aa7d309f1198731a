"""The long run: `python -m tests.fuzz build FOLDER`, then `python -m tests.fuzz run FOLDER --inputs 20000000`."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz import build

SHARES = {
    "encodings": 60,
    "first_packet": 60,
    "reply": 200,
    "control_event": 80,
    "statement_event": 90,
    "gtid_text": 60,
    "gtid_binary": 60,
    "value": 80,
    "payload": 60,
    "hashing": 90,
    "table_map": 50,
    "json_diffs": 40,
    "statement_text": 40,
    "json": 25,
    "rows": 25,
    "relay": 25,
    "raw_stream": 25,
    "stream": 25,
    "log_file": 2,
}
"""How the inputs are shared out: those that cost a hundredth get more, and come first."""

MEMORY_MB_MAX = 2048
ALLOCATION_MB_MAX = 256
INPUT_SECONDS_MAX = 5


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="compile a copy of the program under sanitizers").add_argument(
        "folder", type=Path
    )
    run = commands.add_parser("run", help="fuzz; ends with 1 when something was found")
    run.add_argument("folder", type=Path)
    run.add_argument("--inputs", type=int, default=20_000_000, help="in total (default %(default)s)")
    run.add_argument("--target", action="append", choices=sorted(SHARES), help="only this; may be repeated")
    one = commands.add_parser("fuzz-here", help="used by run, inside of the copy")
    one.add_argument("target")
    one.add_argument("arguments", nargs="*")
    arguments, rest = parser.parse_known_args()
    if arguments.command == "build":
        build.build(arguments.folder.resolve())
    elif arguments.command == "run":
        return run_all(arguments.folder.resolve(), arguments.inputs, arguments.target or list(SHARES))
    else:
        fuzz_here(arguments.target, [*rest, *arguments.arguments])
    return 0


def run_all(folder: Path, inputs: int, names: list[str]) -> int:
    """One target after the other; a line for each in FOLDER/results.txt. Corpora grow from run to run."""
    total, failed = sum(SHARES[name] for name in names), 0
    for name in names:
        began = time.monotonic()
        log = folder / "logs" / f"{name}.log"
        log.parent.mkdir(exist_ok=True)
        with log.open("wb") as output:
            command = fuzz_command(folder, name, inputs * SHARES[name] // total)
            ended = subprocess.run(
                command, cwd=folder, env=build.environment(folder), stdout=output, stderr=output, check=False
            ).returncode
        failed |= ended != 0
        line = f"{name:16} {summary(log)} {time.monotonic() - began:7.0f} s {'FOUND' if ended else 'clean'}"
        print(line, flush=True)
        with (folder / "results.txt").open("a") as results:
            results.write(line + "\n")
    return int(failed)


def fuzz_command(folder: Path, name: str, inputs: int) -> list[str]:
    corpus, found = folder / "corpus" / name, folder / "found"
    corpus.mkdir(parents=True, exist_ok=True)
    found.mkdir(exist_ok=True)
    options = [
        f"-runs={inputs}",
        f"-timeout={INPUT_SECONDS_MAX}",
        f"-rss_limit_mb={MEMORY_MB_MAX}",
        f"-malloc_limit_mb={ALLOCATION_MB_MAX}",
        f"-artifact_prefix={found}/{name}-",
        "-print_final_stats=1",
        "-len_control=0",
        "-use_value_profile=0",
        "-reload=0",
    ]
    return [sys.executable, "-m", "tests.fuzz", "fuzz-here", name, str(corpus), "--", *options]


def summary(log: Path) -> str:
    """Inputs, inputs a second, and branches reached, as libFuzzer told them last."""
    text = log.read_text(errors="replace")
    progress = re.findall(r"#(\d+)\s.*cov: (\d+) ft: (\d+) corp: (\d+)", text)
    done = re.findall(r"stat::number_of_executed_units: (\d+)", text)
    if not progress:
        return "no progress"
    last = progress[-1]
    inputs = int(done[-1] if done else last[0])
    return f"{inputs:10d} inputs {int(last[1]):6d} branches {int(last[3]):6d} kept"


def fuzz_here(name: str, arguments: list[str]) -> None:
    from tests.fuzz import engine, records, seeds, targets

    target = targets.TARGETS[name]
    corpus = Path(next(argument for argument in arguments if not argument.startswith("-")))
    for number, seed in enumerate(seeds.of(name)):
        (corpus / f"seed-{number:05d}").write_bytes(seed)
    pool = seeds.pool()

    def mutate(data: bytes, random: object) -> bytes:
        return records.mutate(data, random, pool, targets.HEAD_BYTES, engine.mutate_bytes)

    engine.fuzz(
        target.run,
        mutate if target.structured else None,
        [f"-max_len={2 * target.size_max}", *[argument for argument in arguments if argument != "--"]],
    )


if __name__ == "__main__":
    sys.exit(main())
