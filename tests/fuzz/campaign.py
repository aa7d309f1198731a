"""Mutations from a seeded generator, without a sanitizer: the same inputs at every run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from tests.fuzz import records, seeds
from tests.fuzz.mutation import mutate_bytes
from tests.fuzz.targets import HEAD_BYTES, TARGETS

INPUT_SECONDS_MAX = 2.0
"""Far more than any input takes, on a busy machine too."""


@dataclass(frozen=True, slots=True)
class Finding:
    target: str
    data: bytes
    what: BaseException | str


def inputs(name: str, seed: int) -> Iterator[bytes]:
    """Endless. Each is a seed, changed once or, now and then, again and again."""
    target, random = TARGETS[name], Random(f"{name} {seed}")
    corpus, pool = seeds.of(name), seeds.pool()
    while True:
        data = random.choice(corpus)
        for _ in range(random.choice((1, 1, 2, 5))):
            if target.structured:
                data = records.mutate(data, random, pool, HEAD_BYTES, mutate_bytes)
            else:
                data = mutate_bytes(data, random)
            data = data[: 2 * target.size_max]
        yield data


def attempt(name: str, data: bytes) -> Finding | None:
    """Runs one input."""
    began = time.thread_time()
    try:
        TARGETS[name].run(data)
    except Exception as error:  # noqa: BLE001 (whatever comes out is the finding)
        return Finding(name, data, error)
    seconds = time.thread_time() - began
    return Finding(name, data, f"took {seconds:.1f} s") if seconds > INPUT_SECONDS_MAX else None


def run(name: str, count: int, seed: int = 0) -> Iterator[Finding]:
    """`count` inputs for a target."""
    source = inputs(name, seed)
    for _ in range(count):
        if (found := attempt(name, next(source))) is not None:
            yield found
