"""The relay log on disk: what is written, what is read back, and what is left after a kill at any byte."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from applier.errors import RelayLogCorrupt, RelayLogMismatch, RelayLogTaken
from applier.events.gtid import GtidSet
from applier.plan.log import batches_of_files
from applier.source.relay.directory import RelayDirectory
from applier.source.relay.recovery import scan_file
from tests.binlog_bytes import (
    HEARTBEAT,
    event,
    format_event,
    gtid_event,
    rotate_event,
    rows_event,
    seen_in,
    transaction,
)
from tests.relay_logs import SentStream, gtids, numbers, read, receive, relay_log, sent, write
from tests.waiting import wait_until


def test_what_was_received_is_read_back(tmp_path: Path) -> None:
    events = sent(range(1, 6), b"abc")
    write(tmp_path, events, gtids(1, 5))
    with relay_log(tmp_path) as relay:
        seen = read(relay)
        assert numbers(seen) == [1, 2, 3, 4, 5]
        assert seen[0].types == [19, 30]
        assert relay.received == gtids(1, 5)


def test_files_are_read_as_any_log_is(tmp_path: Path) -> None:
    write(tmp_path, sent(range(1, 60), bytes(1000)), gtids(1, 59), file_bytes_max=10_000, piece_bytes=2000)
    assert len(list(tmp_path.glob("relay.0*"))) > 5
    seen = [one for batch in batches_of_files([tmp_path / "relay.index"]) for one in seen_in(batch)]
    assert numbers(seen) == list(range(1, 60))


def test_heartbeats_are_left_out_and_checksums_are_added(tmp_path: Path) -> None:
    head = [rotate_event("binlog.000007", checksum=False), format_event(checksum=False)]
    plain = [
        gtid_event(1, checksum=False),
        event(HEARTBEAT, b"binlog.000007", checksum=False),
        rows_event(b"x", checksum=False),
    ]
    begin = transaction(1)[1][:-4]
    begin = begin[:9] + len(begin).to_bytes(4, "little") + begin[13:]
    xid = event(16, bytes(8), checksum=False)
    write(tmp_path, [*head, plain[0], begin, *plain[1:], xid], gtids(1, 1))
    (file,) = tmp_path.glob("relay.0*")
    assert scan_file(file).why == ""
    data = bytearray(file.read_bytes())
    data[-30] ^= 1  # in the last event
    file.write_bytes(data)
    assert "checksum" in scan_file(file).why


def test_files_are_for_nobody_else(tmp_path: Path) -> None:
    folder = tmp_path / "relay"
    write(folder, sent([1]), gtids(1, 1))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_a_second_applier_is_refused(tmp_path: Path) -> None:
    with relay_log(tmp_path), pytest.raises(RelayLogTaken, match="Another applier"):
        RelayDirectory(tmp_path)


def test_tail_torn_at_any_byte_of_the_last_transaction_is_cut_off(tmp_path: Path) -> None:
    write(tmp_path, sent([1, 2, 3], b"abc"), gtids(1, 3))
    (file,) = tmp_path.glob("relay.0*")
    whole = file.read_bytes()
    last = sum(len(one) for one in transaction(3, b"abc"))
    for missing in range(1, last + 1):
        file.write_bytes(whole[:-missing])
        with relay_log(tmp_path) as relay:
            assert relay.received == gtids(1, 2), f"{missing} bytes missing"
            assert file.stat().st_size == len(whole) - last
    file.write_bytes(whole[:-last] + bytes(last))  # what a power cut may leave
    with relay_log(tmp_path) as relay:
        assert relay.received == gtids(1, 2)


def test_torn_head_leaves_nothing(tmp_path: Path) -> None:
    write(tmp_path, sent([1]), gtids(1, 1))
    (file,) = tmp_path.glob("relay.0*")
    whole = file.read_bytes()
    index = (tmp_path / "relay.index").read_text()
    for size in range(0, len(whole) - sum(len(one) for one in transaction(1)), 5):
        file.write_bytes(whole[:size])
        (tmp_path / "relay.index").write_text(index)
        with relay_log(tmp_path) as relay:
            assert not relay.received
            assert not file.exists()


def test_receiving_goes_on_behind_what_is_there(tmp_path: Path) -> None:
    for first in (1, 4, 7):
        write(tmp_path, sent(range(first, first + 3)), gtids(1, first + 2))
    with relay_log(tmp_path) as relay:
        assert relay.received == gtids(1, 9)
        assert numbers(read(relay)) == list(range(1, 10))
        assert numbers(read(relay, gtids(1, 5))) == [6, 7, 8, 9]


def test_what_the_target_has_is_purged_at_the_start(tmp_path: Path) -> None:
    write(tmp_path, sent(range(1, 60), bytes(1000)), gtids(1, 59), file_bytes_max=10_000, piece_bytes=2000)
    before = len(list(tmp_path.glob("relay.0*")))
    with relay_log(tmp_path, gtids(1, 30)) as relay:
        assert 1 < len(relay.files) < before
        assert numbers(read(relay, gtids(1, 30))) == list(range(31, 60))
    with relay_log(tmp_path, gtids(1, 59)) as relay:
        assert relay.files == []


def test_a_target_that_went_back_in_time_is_refused(tmp_path: Path) -> None:
    write(tmp_path, sent(range(11, 20)), gtids(11, 19), executed=gtids(1, 10))
    with pytest.raises(RelayLogMismatch, match="9-10"), relay_log(tmp_path, gtids(1, 8)):
        pass
    with relay_log(tmp_path, gtids(1, 12)) as relay:
        assert relay.received == gtids(1, 19)


def test_transaction_that_a_lost_link_cut_comes_once(tmp_path: Path) -> None:
    events = sent(range(1, 4))
    with relay_log(tmp_path) as relay:
        receiver = receive(relay, SentStream(events[:-2], lost=True), SentStream(sent([3, 4])))
        wait_until(lambda: relay.received == gtids(1, 4))
        receiver.end()
        assert receiver.reconnects == 1
        assert numbers(read(relay)) == [1, 2, 3, 4]


def test_transaction_that_broke_off_on_the_source_is_left_out(tmp_path: Path) -> None:
    events = sent([1]) + transaction(2)[:-1]
    events += [rotate_event("binlog.000008", flags=0x20), format_event(), *transaction(2)]
    write(tmp_path, events, gtids(1, 2))
    with relay_log(tmp_path) as relay:
        assert numbers(read(relay)) == [1, 2]


def test_open_transaction_is_not_seen_by_the_flow(tmp_path: Path) -> None:
    with relay_log(tmp_path) as relay:
        receiver = receive(
            relay, SentStream(sent([1]) + transaction(2, bytes(100_000))[:-1], piece_bytes=999)
        )
        wait_until(lambda: receiver.bytes > 100_000)
        assert numbers(read(relay)) == [1]
        receiver.end()


def test_space_limit_holds_receiving_up_until_the_target_has_committed(tmp_path: Path) -> None:
    large = 300_000
    events = sent([1], bytes(large)) + transaction(2, bytes(large)) + transaction(3, bytes(large))
    with relay_log(tmp_path) as relay:
        receiver = receive(relay, SentStream(events), space_bytes_max=100_000)
        for number in (1, 2, 3):  # each is larger than the limit, and passes
            wait_until(lambda number=number: gtids(number, number) <= relay.received)  # type: ignore[misc]
            wait_until(lambda number=number: relay.waits_for_space == number)  # type: ignore[misc]
            assert relay.received == gtids(1, number)
            relay.purge_through(relay.files[-2].number)
        receiver.end()
        assert relay.bytes < 1000


def test_files_that_the_index_does_not_name_are_removed(tmp_path: Path) -> None:
    write(tmp_path, sent([1]), gtids(1, 1))
    (tmp_path / "relay.000099").write_bytes(b"begun, and killed before it was in the index")
    with relay_log(tmp_path) as relay:
        assert relay.received == gtids(1, 1)
        assert not (tmp_path / "relay.000099").exists()


def test_damage_in_the_middle_is_one_clear_error(tmp_path: Path) -> None:
    write(tmp_path, sent(range(1, 60), bytes(1000)), gtids(1, 59), file_bytes_max=10_000, piece_bytes=2000)
    second = sorted(tmp_path.glob("relay.0*"))[1]
    data = bytearray(second.read_bytes())
    data[5000] ^= 0xFF
    second.write_bytes(data)
    with (
        relay_log(tmp_path) as relay,
        pytest.raises(RelayLogCorrupt, match=rf"{second.name}:\d+: its checksum.*remove"),
    ):
        read(relay)


def test_flushes_are_per_batch_of_transactions(tmp_path: Path) -> None:
    with relay_log(tmp_path) as relay:
        receiver = receive(relay, SentStream(sent(range(1, 5001))))
        wait_until(lambda: relay.flushed == gtids(1, 5000))
        receiver.end()
        assert relay.transactions == 5000
        assert relay.flushes <= 3


def test_previous_gtids_are_those_before_the_file(tmp_path: Path) -> None:
    write(tmp_path, sent(range(1, 60), bytes(1000)), gtids(1, 59), file_bytes_max=10_000, piece_bytes=2000)
    with relay_log(tmp_path) as relay:
        joined = GtidSet()
        for file in relay.files:
            assert file.previous == joined
            joined |= file.gtids
            assert scan_file(file.path).gtids == file.gtids
