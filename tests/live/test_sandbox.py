"""The sandbox: servers come up, stay, go, and never outlive whoever needs them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pymysql
import pytest

from applier.errors import PreflightFailed, UsageError
from applier.sandbox import Sandbox, Server
from applier.sandbox.process import Process
from tests.servers import GlobalVariables, ServerFactory, reset
from tests.waiting import wait_until

CLI = [sys.executable, "-c", "from applier.cli import main; main()"]
ROOT = Path(__file__).parents[2]


def run_cli(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CLI, "sandbox", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def rows_of(answer: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads(answer.stdout)}


def gone(pid: int) -> bool:
    return Process.of(pid) is None


# --- the pair that all tests share -------------------------------------------------------------------------


def test_pair_answers_with_durable_settings_and_empty_gtid_sets(source: Server, target: Server) -> None:
    for server in (source, target):
        [facts] = server.execute(
            "SELECT @@version, @@gtid_executed, @@gtid_mode, @@log_bin, @@binlog_format, @@sync_binlog,"
            " @@innodb_flush_log_at_trx_commit, @@bind_address, @@local_infile"
        )
        assert facts[0].startswith(server.version)
        assert facts[1:] == ("", "ON", 1, "ROW", 1, 1, "127.0.0.1", 1)
    assert source.server_id != target.server_id
    assert source.execute("SELECT @@server_uuid") != target.execute("SELECT @@server_uuid")


def test_server_is_reached_by_address_and_by_socket(source: Server) -> None:
    with source.connect() as by_address, source.connect(unix_socket=source.socket) as by_socket:
        for connection in (by_address, by_socket):
            with connection.cursor() as cursor:
                cursor.execute("SELECT @@port")
                assert cursor.fetchone() == (source.port,)


def test_reset_leaves_nothing_of_the_test_before(
    source: Server, baselines: dict[str, GlobalVariables]
) -> None:
    source.execute("CREATE DATABASE left_over")
    source.execute("CREATE TABLE left_over.t (id INT PRIMARY KEY)")
    source.execute("CREATE USER left_over@'%'")
    source.execute("SET GLOBAL binlog_row_image = MINIMAL, GLOBAL max_allowed_packet = 1048576")
    holder = source.connect(database="left_over", autocommit=False)
    with holder.cursor() as cursor:
        cursor.execute("INSERT INTO t VALUES (1)")

    reset(source, baselines["source"])

    assert source.execute("SHOW DATABASES LIKE 'left%'") == ()
    assert source.execute("SELECT user FROM mysql.user WHERE user = 'left_over'") == ()
    assert source.execute("SELECT @@global.gtid_executed, @@global.binlog_row_image") == (("", "FULL"),)
    assert source.execute("SELECT @@global.max_allowed_packet") == ((67108864,),)
    with pytest.raises(pymysql.OperationalError):
        holder.ping(reconnect=False)
    holder.close()


def test_reset_starts_a_server_that_was_killed(target: Server, baselines: dict[str, GlobalVariables]) -> None:
    target.kill()

    reset(target, baselines["target"])

    assert target.execute("SELECT 1") == ((1,),)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_restart_keeps_port_and_data(source: Server, end: str) -> None:
    source.execute("CREATE DATABASE kept")
    source.execute("CREATE TABLE kept.t (id INT PRIMARY KEY)")
    source.execute("INSERT INTO kept.t VALUES (7)")
    port, pid, gtids = source.port, source.pid, source.execute("SELECT @@gtid_executed")
    assert pid is not None

    getattr(source, end)()
    assert gone(pid)
    assert source.pid is None
    assert source.status == "stopped"
    source.start()

    assert source.port == port
    assert source.execute("SELECT id FROM kept.t") == ((7,),)
    assert source.execute("SELECT @@gtid_executed") == gtids


def test_server_that_died_by_itself_is_seen_as_died(source: Server) -> None:
    pid = source.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: source.status == "died")
    assert source.pid is None


def test_snapshot_starts_as_another_server_with_the_same_data(
    source: Server, server_factory: ServerFactory, tmp_path: Path
) -> None:
    source.execute("CREATE DATABASE copied")
    source.execute("CREATE TABLE copied.t (id INT PRIMARY KEY)")
    gtids = source.execute("SELECT @@gtid_executed")
    source.snapshot(tmp_path / "snapshot")
    source.execute("DROP DATABASE copied")

    copy = server_factory(snapshot=tmp_path / "snapshot")

    assert copy.execute("SHOW TABLES IN copied") == (("t",),)
    assert copy.execute("SELECT @@gtid_executed") == gtids
    assert copy.execute("SELECT @@server_uuid, @@server_id") != source.execute(
        "SELECT @@server_uuid, @@server_id"
    )

    uuid = source.execute("SELECT @@server_uuid")
    source.restore(tmp_path / "snapshot")
    source.start()
    assert source.execute("SHOW TABLES IN copied") == (("t",),)
    assert source.execute("SELECT @@server_uuid") == uuid


def test_replica_follows_the_source(source: Server, server_factory: ServerFactory) -> None:
    replica = server_factory({"replica-parallel-workers": "2"}, replica_of="source")
    assert replica.execute("SELECT @@replica_parallel_workers") == ((2,),)

    source.execute("CREATE DATABASE followed")

    wait_until(lambda: replica.execute("SHOW DATABASES LIKE 'followed'"), what="the replica has the database")
    assert [row[:3] for row in source.execute("SHOW REPLICAS")] == [
        (replica.server_id, "127.0.0.1", replica.port)
    ]


def test_a_port_that_was_taken_meanwhile_is_given_up(
    sandbox: Sandbox, server_factory: ServerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = iter([taken.getsockname()[1]])
        from applier.sandbox import ports as ports_module
        from applier.sandbox import sandbox as sandbox_module

        monkeypatch.setattr(
            sandbox_module, "free_port", lambda: next(ports, None) or ports_module.free_port()
        )
        server = server_factory()

        assert server.port != taken.getsockname()[1]
        assert server.execute("SELECT @@port") == ((server.port,),)


def test_unknown_option_is_told_with_the_servers_own_words(server_factory: ServerFactory) -> None:
    with pytest.raises(PreflightFailed, match="unknown variable 'no_such_option=1'"):
        server_factory({"no_such_option": "1"})


# --- nothing is left behind -------------------------------------------------------------------------------

OWNER = """
import json, sys, threading
from pathlib import Path
from applier.sandbox import Sandbox
with Sandbox(servers=("source", "target")) as sandbox:
    print(json.dumps([str(sandbox.directory), *(server.pid for server in sandbox)]), flush=True)
    {then}
"""


def start_owner(then: str) -> tuple[subprocess.Popen[str], Path, list[int]]:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER.format(then=then)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    directory, *pids = json.loads(owner.stdout.readline())
    return owner, Path(directory), pids


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill -9", "term"])
def test_killed_owner_leaves_no_server_and_no_folder(number: signal.Signals) -> None:
    owner, directory, pids = start_owner("threading.Event().wait()")
    with owner:
        assert not any(map(gone, pids))
        owner.send_signal(number)
    wait_until(lambda: all(map(gone, pids)), what="the servers are gone")
    wait_until(lambda: not directory.exists(), what="the temporary folder is gone")


def test_killed_owner_whose_forked_child_lives_leaves_no_server() -> None:
    # The child holds the pipe to the supervisor open: the pipe's end alone would not tell.
    owner, directory, pids = start_owner(
        "import os; child = os.fork(); child and print(child, flush=True); threading.Event().wait(60)"
    )
    assert owner.stdout is not None
    child = Process.of(int(owner.stdout.readline()))
    assert child is not None
    owner.kill()
    try:
        wait_until(lambda: all(map(gone, pids)), what="the servers are gone")
        wait_until(lambda: not directory.exists(), what="the temporary folder is gone")
        assert child.alive()
    finally:
        child.signal(signal.SIGKILL)
        with owner:
            pass


def test_killed_supervisor_takes_its_servers_with_it() -> None:
    owner, directory, pids = start_owner("threading.Event().wait(60)")
    with owner:
        stat_fields = Path(f"/proc/{pids[0]}/stat").read_text().rpartition(")")[2].split()
        os.kill(int(stat_fields[1]), signal.SIGKILL)
        wait_until(lambda: all(map(gone, pids)), what="the servers are gone")
        owner.kill()
    shutil.rmtree(directory)


def test_owner_that_fails_leaves_no_server() -> None:
    owner, directory, pids = start_owner("raise SystemExit(5)")
    with owner:
        assert owner.wait(60) == 5
    assert all(map(gone, pids))
    assert not directory.exists()


def test_recycled_pid_is_never_taken_for_a_server() -> None:
    me = Process.of(os.getpid())
    assert me is not None
    assert me.alive()
    impostor = Process(me.pid, me.start_ticks - 1, me.boot_id)

    assert not impostor.alive()
    impostor.signal(signal.SIGKILL)  # would end this test run
    assert impostor.wait(0)


# --- the command line -------------------------------------------------------------------------------------


def test_servers_of_the_command_line_live_until_they_are_stopped(tmp_path: Path) -> None:
    box = tmp_path / "box"
    try:
        started = run_cli(
            "start", "--dir", box, "--servers", "source,replica", "--json", "--set", "all.max_connections=77"
        )
        assert started.returncode == 0, started.stderr
        rows = rows_of(started)
        assert rows.keys() == {"source", "replica"}
        for row in rows.values():
            assert row["url"] == f"mysql://root@127.0.0.1:{row['port']}"
            assert Path(row["socket"]).is_socket()
            assert not gone(row["pid"])
            with pymysql.connect(host="127.0.0.1", port=row["port"], user="root") as connection:
                cursor = connection.cursor()
                cursor.execute("SELECT @@max_connections, @@version")
                limit, version = cursor.fetchone() or (0, "")
                assert limit == 77
                assert version.startswith(row["version"])

        again = run_cli("start", "--dir", box, "--servers", "source,replica", "--json")
        assert rows_of(again) == rows, again.stderr
        assert rows_of(run_cli("status", "--dir", box, "--json")) == rows
        assert stat.S_IMODE((box / "repl.password").stat().st_mode) == 0o600

        os.kill(rows["replica"]["pid"], signal.SIGKILL)
        wait_until(lambda: gone(rows["replica"]["pid"]))
        lame = run_cli("status", "--dir", box, "--json")
        assert lame.returncode == 3
        assert "replica (died)" in lame.stderr
        assert rows_of(lame)["source"]["status"] == "running"
        assert rows_of(run_cli("start", "--dir", box, "--servers", "source,replica", "--json"))["replica"][
            "pid"
        ]
    finally:
        stopped = run_cli("stop", "--dir", box, "--json", "--delete")
    assert stopped.returncode == 0, stopped.stderr
    assert all(gone(row["pid"]) for row in rows.values())
    assert not box.exists()


def test_stopped_folder_is_taken_up_again_with_its_data(tmp_path: Path) -> None:
    deep = tmp_path / ("deep" * 20)  # no socket path fits below it
    with Sandbox(deep, ("source",)) as sandbox:
        sandbox["source"].execute("CREATE DATABASE kept")
        port = sandbox["source"].port
        short = Path(sandbox["source"].socket)
        assert short.is_socket()
        assert deep not in short.parents
    assert not short.parent.exists()

    with Sandbox(deep, ("source",)) as sandbox:
        assert sandbox["source"].port == port
        assert sandbox["source"].execute("SHOW DATABASES LIKE 'kept'") == (("kept",),)
        with pytest.raises(PreflightFailed, match=r"in use.*stop it first"):
            Sandbox(deep, ("source",)).start()
        assert sandbox["source"].execute("SELECT 1") == ((1,),)


def test_folder_of_a_killed_owner_is_taken_up_again(tmp_path: Path) -> None:
    script = OWNER.replace("Sandbox(", "Sandbox(Path(sys.argv[1]), ").format(then="threading.Event().wait()")
    box = tmp_path / "box"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(box)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        pids = json.loads(owner.stdout.readline())[1:]
        owner.kill()
    wait_until(lambda: all(map(gone, pids)))

    assert {server.status for server in Sandbox.attach(box)} == {"died"}
    with Sandbox(box) as sandbox:
        assert [server.execute("SELECT 1") for server in sandbox] == [((1,),)] * 2


def test_command_line_killed_in_the_middle_of_a_start_leaves_no_server(tmp_path: Path) -> None:
    box = tmp_path / "box"
    starting = subprocess.Popen(
        [*CLI, "sandbox", "start", "--dir", str(box), "--servers", "source"], cwd=ROOT
    )
    with starting:
        wait_until((box / "source" / "server.json").exists)
        wait_until(lambda: Sandbox.attach(box)["source"].running, what="the server was spawned")
        starting.kill()
    wait_until(lambda: Sandbox.attach(box)["source"].status == "died", what="the server died with its owner")


def test_bad_mysqld_is_a_clear_error(tmp_path: Path) -> None:
    impostor = tmp_path / "mysqld"
    impostor.write_text("#!/bin/sh\necho 'mysqld  Ver 10.11.6-MariaDB-0 for debian-linux-gnu on x86_64'\n")
    impostor.chmod(0o755)
    for mysqld, complaint in [
        (tmp_path / "missing", "there is no mysqld at"),
        (impostor, "is MariaDB"),
        (Path("/bin/false"), "does not answer as a MySQL server"),
        (Path("/etc/hostname"), "cannot be run"),
    ]:
        for answer in (
            run_cli("start", "--dir", tmp_path / "box", "--mysqld", mysqld),
            run_cli("start", "--dir", tmp_path / "box", APPLIER_MYSQLD=str(mysqld)),
        ):
            assert answer.returncode == 3
            assert complaint in answer.stderr
            assert "Traceback" not in answer.stderr


def test_wrong_names_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a server name"):
        Sandbox(tmp_path, ("../source",))
    with pytest.raises(UsageError, match="not among the servers"):
        Sandbox(tmp_path, ("source",), options={"sorce": {"sync_binlog": "0"}})
    assert run_cli("start", "--dir", tmp_path, "--set", "sync_binlog=0").returncode == 2
    missing = run_cli("status", "--dir", tmp_path / "nothing")
    assert missing.returncode == 3
    assert "there is no sandbox in" in missing.stderr
