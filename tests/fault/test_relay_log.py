"""The relay log with real servers: purged sources, kills, full disks, damage; nothing is lost or doubled."""

from __future__ import annotations

import contextlib
import errno
import itertools
import random
import resource
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from applier.errors import (
    PurgedTransactions,
    RelayLogCorrupt,
    RelayLogFailed,
    RelayLogMismatch,
    SourceDiverged,
    SourceLost,
)
from applier.replay import Replay
from applier.sandbox import Server
from applier.source.relay.session import RelaySettings
from scheduler.grouping import GroupLimits
from tests.replaying import (
    Running,
    assert_identical,
    command,
    executed,
    replay,
    replaying,
    run_all,
    session,
    settings,
)
from tests.waiting import wait_until


def write(source: Server, transactions: int, seed: int, *, bytes_each: int = 100) -> None:
    """Updates of few rows, and one line each in a table without any key, where doubling would show."""
    chance = random.Random(seed)
    create = [
        "CREATE DATABASE IF NOT EXISTS d",
        "CREATE TABLE IF NOT EXISTS d.counters (id INT PRIMARY KEY, v INT NOT NULL)",
        "CREATE TABLE IF NOT EXISTS d.log (line INT NOT NULL, text LONGTEXT)",
        "INSERT IGNORE INTO d.counters VALUES " + ",".join(f"({row},0)" for row in range(20)),
    ]
    with session(source, *create) as run:
        for number in range(transactions):
            run("BEGIN")
            run(f"UPDATE d.counters SET v = v + 1 WHERE id = {chance.randrange(20)}")
            run(f"INSERT INTO d.log VALUES ({seed * 100_000 + number}, REPEAT('x', {bytes_each}))")
            run("COMMIT")


@contextlib.contextmanager
def writing(source: Server) -> Iterator[None]:
    """Writes go on while the block runs."""
    enough = threading.Event()

    def load() -> None:
        for seed in itertools.count(1):
            if enough.is_set():
                return
            write(source, 50, seed)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


def purge(source: Server) -> None:
    """All binary logs of the source but a new, empty one."""
    source.execute("FLUSH BINARY LOGS")
    last = source.execute("SHOW BINARY LOGS")[-1][0]
    source.execute("PURGE BINARY LOGS TO %s", (last,))
    assert str(source.execute("SELECT @@GLOBAL.gtid_purged")[0][0])


def relay(path: Path, **sizes: int) -> RelaySettings:
    return RelaySettings(path / "relay", **sizes)


@contextlib.contextmanager
def held_up(target: Server) -> Iterator[None]:
    """The target commits nothing that touches d.counters while the block runs."""
    with session(target, "SET innodb_lock_wait_timeout = 60", "BEGIN", "SELECT * FROM d.counters FOR UPDATE"):
        yield


def received(running: Running, source: Server) -> bool:
    """All that the source has is in the relay log."""
    relaying = running.replay.relaying
    return relaying is not None and relaying.relay is not None and executed(source) <= relaying.relay.received


def test_source_that_purges_while_the_target_lags_is_no_matter(
    source: Server, target: Server, tmp_path: Path
) -> None:
    write(source, 20, seed=0)
    with replaying(source, target, relay_log=relay(tmp_path)) as running:
        running.wait_for(source, target)
        with held_up(target):
            write(source, 200, seed=1)
            wait_until(lambda: received(running, source))
            purge(source)
    # Stopped with a lag: what the source does not have any more is in the files.
    replay(source, target, relay_log=relay(tmp_path), check=True)
    assert_identical(source, target)


def test_what_is_behind_the_wanted_end_stays_in_the_relay_log(
    source: Server, target: Server, tmp_path: Path
) -> None:
    """The end lies inside a file that was read to its end; the source has purged all of it."""
    limit = {"file_bytes_max": 200_000}
    write(source, 20, seed=0)
    with replaying(source, target, relay_log=relay(tmp_path, **limit)) as running:
        running.wait_for(source, target)
        with held_up(target):
            write(source, 10, seed=1)
            source.execute("ALTER TABLE d.log COMMENT 'a statement ends what is handed on at once'")
            until = executed(source)
            write(source, 200, seed=2, bytes_each=5000)
            wait_until(lambda: received(running, source))
            purge(source)
    replay(source, target, relay_log=relay(tmp_path, **limit), until_gtid_set=str(until))
    assert executed(target) == until
    replay(source, target, relay_log=relay(tmp_path, **limit))
    assert_identical(source, target)


def test_without_its_relay_log_the_target_would_be_lost(
    source: Server, target: Server, tmp_path: Path
) -> None:
    write(source, 20, seed=0)
    purge(source)
    with pytest.raises(PurgedTransactions):
        replay(source, target, relay_log=relay(tmp_path))


def test_killed_applier_goes_on_with_its_relay_log(source: Server, target: Server, tmp_path: Path) -> None:
    kill_at_random(source, target, tmp_path, rounds=3, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10))
def test_applier_killed_many_times_goes_on_with_its_relay_log(
    source: Server, target: Server, tmp_path: Path, seed: int
) -> None:
    kill_at_random(source, target, tmp_path, rounds=20, seed=seed)


def kill_at_random(source: Server, target: Server, path: Path, *, rounds: int, seed: int) -> None:
    chance = random.Random(seed)
    write(source, 300, seed=0)
    options = ["--relay-log", str(path / "relay"), "--relay-log-max-size", "1", "--no-check"]
    groups = {"group": GroupLimits(50)} if seed % 2 else {}
    if groups:
        options += ["--group-transactions", "50"]
    with writing(source):
        for _ in range(rounds):
            with command(source, target, *options) as run:
                before = executed(target)
                wait_until(lambda before=before: executed(target) != before)  # type: ignore[misc]
                with contextlib.suppress(subprocess.TimeoutExpired):
                    run.process.wait(chance.uniform(0, 0.5))
                run.process.send_signal(signal.SIGKILL)
    replay(source, target, relay_log=relay(path), **groups)
    assert_identical(source, target)
    lines = "SELECT COUNT(*), COUNT(DISTINCT line) FROM d.log"
    assert target.execute(lines) == source.execute(lines)


def test_full_disk_makes_receiving_wait(source: Server, target: Server, tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: it can be set, and lifted, without being root."""
    write(source, 5, seed=0)
    with command(source, target, "--relay-log", str(tmp_path / "relay"), "--no-check") as run:
        wait_until(lambda: executed(source) <= executed(target))
        _, hard = resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (200_000, hard))
        write(source, 60, seed=1, bytes_each=10_000)
        file = tmp_path / "relay" / "relay.000001"
        wait_until(lambda: file.stat().st_size == 200_000)
        wait_until(lambda: target.execute("SELECT COUNT(*) FROM d.log")[0][0] > 15)
        assert not executed(source) <= executed(target)
        resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
        wait_until(lambda: executed(source) <= executed(target))
        run.terminate()
        assert run.wait() == 0
    assert run.errors.count("no room for the relay log") == 1
    assert "File too large" in run.errors
    assert run.errors.count("room for the relay log again") == 1
    assert_identical(source, target)


def test_a_file_that_cannot_be_deleted_ends_the_run_and_all_its_threads(
    source: Server, target: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(source, 20, seed=0)
    small = relay(tmp_path, file_bytes_max=5000)
    running = Running(Replay(settings(source, target, stop_at_end=False, relay_log=small)))
    running.wait_for(source, target)
    pipeline = running.replay.pipeline
    assert pipeline is not None

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        write(source, 50, seed=1)
        with pytest.raises(RelayLogFailed, match="Read-only file system") as failed:
            running.end()
    assert failed.value.exit_code == 75
    assert not [thread.name for thread in pipeline.threads if thread.is_alive()]
    replay(source, target, relay_log=relay(tmp_path))
    assert_identical(source, target)


def test_space_limit_is_kept_while_the_target_lags(source: Server, target: Server, tmp_path: Path) -> None:
    write(source, 5, seed=0)
    limits = relay(tmp_path, file_bytes_max=1 << 20, space_bytes_max=4 << 20)
    with replaying(source, target, relay_log=limits) as running:
        running.wait_for(source, target)
        with held_up(target):
            write(source, 100, seed=1, bytes_each=200_000)
            log = running.replay.relaying.relay  # type: ignore[union-attr]
            assert log is not None
            wait_until(lambda: log.waits_for_space)
            assert log.bytes < 6 << 20
        running.wait_for(source, target)
        wait_until(lambda: log.bytes < 2 << 20)
        assert log.files_purged > 10
    assert_identical(source, target)


def test_large_transactions_pass_a_small_space_limit(source: Server, target: Server, tmp_path: Path) -> None:
    write(source, 3, seed=0, bytes_each=3_000_000)
    replay(source, target, relay_log=relay(tmp_path, file_bytes_max=1 << 20, space_bytes_max=1 << 20))
    assert_identical(source, target)


def test_damage_stops_at_the_last_good_transaction(source: Server, target: Server, tmp_path: Path) -> None:
    write(source, 20, seed=0)
    limits = relay(tmp_path, file_bytes_max=1 << 20)
    with replaying(source, target, relay_log=limits) as running:
        running.wait_for(source, target)
        with held_up(target):
            write(source, 40, seed=1, bytes_each=100_000)
            wait_until(lambda: received(running, source))
    second = sorted(tmp_path.glob("relay/relay.0*"))[1]
    data = bytearray(second.read_bytes())
    data[len(data) // 2] ^= 0xFF
    second.write_bytes(data)
    with pytest.raises(RelayLogCorrupt, match=rf"{second.name}:\d+: its checksum") as damage:
        replay(source, target, relay_log=limits)
    assert damage.value.exit_code == 4
    ((lines,),) = target.execute("SELECT COUNT(*) FROM d.log")
    assert 20 + 10 <= lines < 20 + 40
    for file in tmp_path.glob("relay/*"):
        file.unlink()
    replay(source, target, relay_log=limits)
    assert_identical(source, target)


def test_what_was_received_is_applied_although_the_source_is_lost(
    source: Server, target: Server, tmp_path: Path
) -> None:
    write(source, 20, seed=0)
    with contextlib.ExitStack() as block:
        chosen = settings(
            source, target, relay_log=relay(tmp_path), stop_at_end=False, reconnect_attempts_max=2
        )
        running = Running(Replay(chosen))
        running.wait_for(source, target)
        block.enter_context(held_up(target))
        write(source, 100, seed=1)
        wanted = executed(source)
        wait_until(lambda: received(running, source))
        source.kill()
        relaying = running.replay.relaying
        assert relaying is not None
        wait_until(lambda: relaying.relay is not None and relaying.relay.failure)
        block.close()
        with pytest.raises(SourceLost) as lost:
            running.end()
    assert lost.value.exit_code == 75
    assert executed(target) == wanted


def test_mysqlbinlog_reads_the_files(source: Server, target: Server, tmp_path: Path) -> None:
    source.execute("SET GLOBAL binlog_checksum = NONE")
    write(source, 10, seed=0)
    source.execute("SET GLOBAL binlog_checksum = CRC32")
    run_all(
        source,
        ["SET binlog_transaction_compression = ON", "INSERT INTO d.log VALUES (-1, REPEAT('y', 1000))"],
    )
    if source.installation.numbers >= (8, 3, 0):
        run_all(source, ["SET gtid_next = 'AUTOMATIC:tag'", "INSERT INTO d.log VALUES (-2, 'tagged')"])
    with replaying(source, target, relay_log=relay(tmp_path)) as running:
        running.wait_for(source, target)
        files = sorted(tmp_path.glob("relay/relay.0*"))
        text = mysqlbinlog(source, files)
    wanted = executed(source)
    assert text.count("SET @@SESSION.GTID_NEXT= '") - text.count("GTID_NEXT= 'AUTOMATIC'") == wanted.count
    assert "### INSERT INTO `d`.`log`" in text


def mysqlbinlog(server: Server, files: list[Path]) -> str:
    options = ["--no-defaults", "--verify-binlog-checksum", "--verbose"]
    done = subprocess.run(
        [*server.installation.tool("mysqlbinlog"), *options, *map(str, files)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_relay_log_of_another_target_is_refused(source: Server, target: Server, tmp_path: Path) -> None:
    write(source, 20, seed=0)
    replay(source, target, relay_log=relay(tmp_path))
    with replaying(source, target, relay_log=relay(tmp_path)) as running, held_up(target):
        write(source, 20, seed=1)
        wait_until(lambda: received(running, source))
    target.execute("DROP DATABASE d")
    target.execute("RESET BINARY LOGS AND GTIDS")
    with pytest.raises(RelayLogMismatch, match="remove its files"):
        replay(source, target, relay_log=relay(tmp_path))


def test_relay_log_of_another_source_is_refused(source: Server, target: Server, tmp_path: Path) -> None:
    write(source, 20, seed=0)
    with replaying(source, target, relay_log=relay(tmp_path)) as running:
        running.wait_for(source, target)
    source.execute("RESET BINARY LOGS AND GTIDS")
    with pytest.raises(SourceDiverged, match="lacks transactions"):
        Replay(settings(source, target, relay_log=relay(tmp_path))).run()
