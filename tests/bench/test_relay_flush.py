"""What it costs to flush the relay log: for each batch of transactions, as it does, against once for each event.

pytest -m long -s tests/bench/test_relay_flush.py
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from applier.events.relay_scanner import RelayScanner
from applier.source.relay.writer import RelayWriter
from tests.binlog_bytes import packets
from tests.relay_logs import relay_log, sent

TRANSACTIONS = 20_000
FEW = 1_000  # where each event is flushed
ARRIVES_AT_ONCE_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Measured:
    transactions: int
    events: int
    flushes: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.transactions / self.seconds:>11,.0f} transactions/s {self.flushes / self.transactions:>8.4f} "
            f"flushes a transaction ({self.events / self.transactions:.0f} events)"
        )


def measure(path: Path, transactions: int, *, events_max: int, pieces_between_flushes: int) -> Measured:
    """Writes transactions of four rows; `pieces_between_flushes`: how much arrives before the link is silent."""
    stream = packets(sent(range(1, transactions + 1), bytes(200)))
    with relay_log(path) as relay:
        writer = RelayWriter(relay, threading.Event(), file_bytes_max=128 << 20)
        scanner = RelayScanner()
        begun = time.perf_counter()
        for piece, at in enumerate(range(0, len(stream), ARRIVES_AT_ONCE_BYTES), start=1):
            before = scanner.transactions
            scanner.feed(stream[at : at + ARRIVES_AT_ONCE_BYTES])
            while (chunk := scanner.take(events_max)) is not None:
                count, before = scanner.transactions - before, scanner.transactions
                if chunk.control and chunk.control[4] == 15:
                    writer.format_description(chunk.control)
                elif chunk.control:
                    writer.source_file(scanner.file, scanner.position, chunk.control)
                else:
                    writer.append(chunk.data, chunk.whole, chunk.position, chunk.gtids, count)
                if events_max:
                    writer.flush()
            if piece % pieces_between_flushes == 0:
                writer.flush()
        writer.flush()
        seconds = time.perf_counter() - begun
        writer.close()
        assert relay.transactions == transactions
        return Measured(transactions, scanner.events, relay.flushes, seconds)


@pytest.mark.long
def test_one_flush_for_a_batch_of_transactions(tmp_path: Path) -> None:
    found = {
        "backlog: 8 MiB a flush": measure(
            tmp_path / "1", TRANSACTIONS, events_max=0, pieces_between_flushes=9999
        ),
        "a flush every 64 KiB": measure(tmp_path / "2", TRANSACTIONS, events_max=0, pieces_between_flushes=1),
        "a flush for each event": measure(tmp_path / "3", FEW, events_max=1, pieces_between_flushes=9999),
    }
    print()
    for name, measured in found.items():
        print(f"{name:<24}{measured}")
    backlog, _, each_event = found.values()
    assert backlog.flushes < 10
    assert backlog.transactions / backlog.seconds > 10 * each_event.transactions / each_event.seconds
