"""`bench index`: the index of last writers alone: ours, the study's layout, and a Python dict, on the same keys."""

from __future__ import annotations

import random
import sys
import time
from array import array
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from applier.bench.backlog import Backlog
from applier.bench.log_files import plans_of, read_decoded
from applier.bench.machine import machine
from applier.bench.study import StudyIndex, touches_of
from writeset.buckets import BucketIndex

IN_FLIGHT = 1000  # transactions between the low-water mark and the newest one
CHECKPOINTS = 200


@dataclass(frozen=True, slots=True)
class Keys:
    """Touches of the transactions of one batch: `hashes[ends[i - 1]:ends[i]]` are those of transaction i."""

    hashes: array[int]
    modes: array[int]
    ends: array[int]


@dataclass(frozen=True, slots=True)
class IndexResult:
    """Nanoseconds of processor time a key, look-up and update together; medians. `bytes` is what ours has touched of
    its `address_space_bytes`; the study's layout has 256 MiB, whatever is in it."""

    keys: int
    transactions: int
    ns_per_key: float
    study_layout_ns_per_key: float
    dict_ns_per_key: float
    bytes: int
    address_space_bytes: int
    study_layout_bytes: int
    dict_bytes: int
    checkpoints: int
    study_layout_checkpoints: int
    checkpoint_microseconds: float
    study_layout_checkpoint_microseconds: float

    @property
    def ratio_to_dict(self) -> float:
        return self.dict_ns_per_key / self.ns_per_key


def bench_index(backlog: Backlog, rounds: int = 3) -> dict[str, Any]:
    """On the keys of the backlog, and (under `random`) on as many random ones."""
    with plans_of(backlog.source) as plans:
        keys = [Keys(*touches_of(batch)) for batch in read_decoded(backlog.files, plans, backlog.start_gtids)]
    return {
        **backlog.described(),
        **asdict(measure(keys, rounds)),
        "random": asdict(measure(random_keys(keys), rounds)),
        "rounds": rounds,
        "machine": machine(),
    }


def random_keys(like: Iterable[Keys], seed: int = 1) -> list[Keys]:
    """Transactions of the same sizes, whose keys were never seen before."""
    source = random.Random(seed)
    return [Keys(array("Q", source.randbytes(8 * len(one.hashes))), one.modes, one.ends) for one in like]


def measure(keys: list[Keys], rounds: int) -> IndexResult:
    """Each round begins with empty indexes; the three take turns within a round."""
    count = sum(len(one.hashes) for one in keys)
    times: dict[str, list[float]] = {"ours": [], "study": [], "dict": []}
    for _ in range(rounds):
        ours, study, last = BucketIndex(), StudyIndex(), {}  # type: ignore[var-annotated]
        times["ours"].append(_timed(lambda ours=ours: _fill_ours(ours, keys)))  # type: ignore[misc]
        times["study"].append(_timed(lambda study=study: _fill_study(study, keys)))  # type: ignore[misc]
        times["dict"].append(_timed(lambda last=last: _fill_dict(last, keys)))  # type: ignore[misc]
    per_key = {name: median(seconds) * 1e9 / count for name, seconds in times.items()}
    return IndexResult(
        keys=count,
        transactions=sum(len(one.ends) for one in keys),
        ns_per_key=round(per_key["ours"], 2),
        study_layout_ns_per_key=round(per_key["study"], 2),
        dict_ns_per_key=round(per_key["dict"], 2),
        bytes=ours.used_bytes,
        address_space_bytes=ours.memory_bytes,
        study_layout_bytes=study.memory_bytes,
        dict_bytes=_dict_bytes(last),
        checkpoints=sum(ours.checkpoints.values()),
        study_layout_checkpoints=study.checkpoints,
        checkpoint_microseconds=round(_checkpoint_seconds() * 1e6, 2),
        study_layout_checkpoint_microseconds=round(_study_checkpoint_seconds(study) * 1e6, 2),
    )


def _timed(run: Callable[[], None]) -> float:
    """Processor time of this thread: others on the machine do not count."""
    started = time.thread_time()
    run()
    return time.thread_time() - started


def _fill_ours(index: BucketIndex, keys: list[Keys]) -> None:
    sequence_number = 1
    for one in keys:
        out = array("Q", bytes(8 * len(one.ends)))
        low_water_mark = max(0, sequence_number - 1 - IN_FLIGHT)
        index.assign_batch(one.hashes, one.modes, one.ends, sequence_number, low_water_mark, out)
        sequence_number += len(one.ends)


def _fill_study(index: StudyIndex, keys: list[Keys]) -> None:
    sequence_number = 1
    for one in keys:
        out = array("Q", bytes(8 * len(one.ends)))
        index.assign_batch(one.hashes, one.ends, sequence_number, out)
        sequence_number += len(one.ends)


def _fill_dict(last: dict[int, int], keys: list[Keys]) -> None:
    sequence_number = 1
    for one in keys:
        out, hashes, first = array("Q"), one.hashes, 0
        for end in one.ends:
            needs = 0
            for key in hashes[first:end]:
                writer = last.get(key, 0)
                if writer > needs and writer != sequence_number:
                    needs = writer
                last[key] = sequence_number
            out.append(needs)
            first = end
            sequence_number += 1


def _dict_bytes(last: dict[int, int]) -> int:
    """With its keys; sequence numbers are counted once each, as they are shared."""
    return sys.getsizeof(last) + sum(map(sys.getsizeof, last)) + sum(map(sys.getsizeof, set(last.values())))


def _checkpoint_seconds() -> float:
    """Ours, by transactions that touch more than an index of this kind records."""
    index = BucketIndex(keys_max=0)
    hashes, modes = array("Q", range(CHECKPOINTS)), array("B", bytes(CHECKPOINTS))
    ends, out = array("I", range(1, CHECKPOINTS + 1)), array("Q", bytes(8 * CHECKPOINTS))
    seconds = _timed(lambda: index.assign_batch(hashes, modes, ends, 1, 0, out))
    return seconds / max(1, sum(index.checkpoints.values()))


def _study_checkpoint_seconds(index: StudyIndex) -> float:
    def run() -> None:
        for _ in range(CHECKPOINTS):
            index.checkpoint()

    return _timed(run) / CHECKPOINTS
