"""Both links under TLS that is verified, and passwords that show nowhere."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pymysql
import pytest
import trustme

from applier.sandbox import Server
from tests.replaying import Command, assert_identical, command, executed, outcome, replay, run_all
from tests.waiting import wait_until

PASSWORD = "c0rrect-Horse?battery"
ENCODED = PASSWORD.replace("?", "%3F")
SPELLINGS = (PASSWORD, ENCODED, PASSWORD.encode().hex())
AT_END = ("--stop-at-end", "--no-check")


@pytest.fixture
def pair(source: Server, target: Server) -> tuple[Server, Server]:
    """An account `app` with a password on both, and a transaction to apply."""
    for server in (source, target):
        run_all(
            server,
            ["SET sql_log_bin = 0", f"CREATE USER app IDENTIFIED BY '{PASSWORD}'", "GRANT ALL ON *.* TO app"],
        )
    run_all(
        source, ["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)", "INSERT INTO d.t VALUES (1)"]
    )
    return source, target


# --- TLS ---------------------------------------------------------------------------------------------


class Certified:
    """Two servers with certificates of an authority that MySQL did not make up itself."""

    def __init__(self, source: Server, target: Server, folder: Path) -> None:
        self.source, self.target, self.folder = source, target, folder
        self.authority = trustme.CA()
        self.other_authority = trustme.CA()
        self.authority.cert_pem.write_to_path(folder / "ca.pem")
        self.other_authority.cert_pem.write_to_path(folder / "other.pem")

    def certify(self, server: Server, host: str) -> None:
        issued = self.authority.issue_cert(host)
        paths = [self.folder / f"{server.name}.{kind}" for kind in ("pem", "key")]
        issued.cert_chain_pems[0].write_to_path(paths[0])
        issued.private_key_pem.write_to_path(paths[1])
        with server.connect() as connection, connection.cursor() as cursor:
            for name, path in zip(("ssl_cert", "ssl_key"), paths, strict=True):
                cursor.execute(f"SET GLOBAL {name} = %s", (str(path),))
            cursor.execute("SET GLOBAL ssl_ca = %s", (str(self.folder / "ca.pem"),))
            cursor.execute("ALTER INSTANCE RELOAD TLS")

    def url(self, server: Server, mode: str, ca: str = "ca.pem") -> str:
        return f"mysql://root@localhost:{server.port}/?ssl-mode={mode}&ssl-ca={self.folder / ca}"


@pytest.fixture
def certified(source: Server, target: Server, tmp_path: Path) -> Iterator[Certified]:
    made = Certified(source, target, tmp_path)
    before = [
        server.execute("SELECT @@GLOBAL.ssl_cert, @@GLOBAL.ssl_key, @@GLOBAL.ssl_ca")[0]
        for server in (source, target)
    ]
    for server in (source, target):
        made.certify(server, "localhost")
    run_all(
        source, ["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)", "INSERT INTO d.t VALUES (1)"]
    )
    yield made
    for server, values in zip((source, target), before, strict=True):
        server.execute("SET GLOBAL ssl_cert = %s, GLOBAL ssl_key = %s, GLOBAL ssl_ca = %s", values)
        server.execute("ALTER INSTANCE RELOAD TLS")


def test_both_links_with_verified_certificates(certified: Certified) -> None:
    ends = [certified.url(server, "VERIFY_IDENTITY") for server in (certified.source, certified.target)]
    with command(*ends, "--no-check") as run:
        wait_until(lambda: executed(certified.source) <= executed(certified.target))
        for server, thread in ((certified.source, "thread/sql/one_connection"), (certified.target, "%")):
            versions = server.execute(
                "SELECT DISTINCT connection_type FROM performance_schema.threads t"
                " JOIN performance_schema.session_connect_attrs a USING (processlist_id)"
                " WHERE a.attr_name = 'program_name' AND a.attr_value = 'applier' AND t.name LIKE %s",
                (thread,),
            )
            assert versions == (("SSL/TLS",),)
        run.terminate()
        assert run.wait() == 0, run.errors
    assert_identical(certified.source, certified.target)


def test_certificate_of_another_authority_is_refused(certified: Certified) -> None:
    for side in ("source", "target"):
        ends = [
            certified.url(server, "VERIFY_CA", "other.pem" if side == server.name else "ca.pem")
            for server in (certified.source, certified.target)
        ]
        refused(outcome(*ends, *AT_END), side, "certificate verify failed")


def test_certificate_for_another_host_is_refused(certified: Certified) -> None:
    certified.certify(certified.target, "elsewhere.example")
    ends = [certified.url(one, "VERIFY_IDENTITY") for one in (certified.source, certified.target)]
    refused(outcome(*ends, *AT_END), "target", "localhost")
    # Without the name: it is of the right authority.
    ends = [certified.url(one, "VERIFY_CA") for one in (certified.source, certified.target)]
    run = outcome(*ends, *AT_END)
    assert run.process.returncode == 0, run.errors
    certified.certify(certified.target, "localhost")
    certified.certify(certified.source, "elsewhere.example")
    ends = [certified.url(one, "VERIFY_IDENTITY") for one in (certified.source, certified.target)]
    refused(outcome(*ends, *AT_END), "source", "localhost")


def refused(run: Command, side: str, words: str) -> None:
    (line,) = run.error_lines
    assert run.process.returncode == 3
    assert f"TLS with the {side}" in line
    assert words in line


# --- passwords ---------------------------------------------------------------------------------------


def test_passwords_show_nowhere_while_it_runs(pair: tuple[Server, Server], tmp_path: Path) -> None:
    """Not in the process list, logs of every level, recordings, or what the servers know of us."""
    source, target = pair
    options = tmp_path / "my.cnf"
    options.write_text(f'[applier-target]\npassword="{PASSWORD}"\n', encoding="utf-8")
    recording = tmp_path / "schedule"
    with Command(
        *("--log-level", "debug", "run", "--defaults-file", str(options)),
        *("--source", as_app(source), "--target", as_app(target), "--record-schedule", str(recording)),
        environment={"APPLIER_SOURCE_PASSWORD": PASSWORD},
    ) as run:
        wait_until(lambda: executed(source) <= executed(target))
        assert clean(Path(f"/proc/{run.process.pid}/cmdline").read_bytes().decode())
        for server in pair:
            told = server.execute("SELECT * FROM performance_schema.session_connect_attrs")
            assert clean(f"{told} {server.execute('SHOW FULL PROCESSLIST')}")
        assert clean(str(source.execute("SHOW REPLICAS")))
        # A lost link, and a key that is there already: both tell much.
        kill_sessions(target)
        run_all(target, ["SET sql_log_bin = 0", "INSERT INTO d.t VALUES (2)"])
        run_all(source, ["INSERT INTO d.t VALUES (2)"])
        assert run.wait() == 4, run.errors
    assert "DEBUG" in run.errors
    assert clean(run.errors + run.output)
    assert clean(recording.read_bytes().decode("latin1"))


@pytest.mark.parametrize("side", ["source", "target"])
def test_passwords_show_in_no_failure(pair: tuple[Server, Server], side: str) -> None:
    """Given in the worst way, in the URL, and refused, or not reached."""
    source, target = pair
    urls = {one.name: as_app(one).replace("app@", f"app:{ENCODED}@") for one in pair}
    unreachable = urls | {side: f"mysql://app:{ENCODED}@127.0.0.1:1/"}
    run_all(
        source if side == "source" else target,
        ["SET sql_log_bin = 0", "ALTER USER app IDENTIFIED BY 'other'"],
    )
    for ends, code in ((urls, 3), (unreachable, 75)):
        run = Command(
            *("--log-level", "debug", "run", "--source", ends["source"], "--target", ends["target"], *AT_END),
            *("--reconnect-attempts", "0"),
        )
        with run:
            assert run.wait() == code, run.errors
        assert clean(run.errors + run.output)


def test_password_changed_in_the_middle_of_a_run(pair: tuple[Server, Server]) -> None:
    """Sessions go on; once the link breaks, the run ends with what it was told."""
    source, target = pair
    with command(as_app(source), as_app(target), "--no-check", environment={"MYSQL_PWD": PASSWORD}) as run:
        wait_until(lambda: executed(source) <= executed(target))
        run_all(target, ["SET sql_log_bin = 0", "ALTER USER app IDENTIFIED BY 'another'"])
        run_all(source, ["INSERT INTO d.t VALUES (2)"])
        wait_until(lambda: executed(source) <= executed(target))
        kill_sessions(target)
        assert run.wait() == 3, run.errors
    (line,) = run.error_lines
    assert "does not let user app in" in line
    assert clean(run.errors)
    run_all(source, ["INSERT INTO d.t VALUES (3)"])
    replay(source, target)
    assert target.execute("SELECT COUNT(*) FROM d.t") == ((3,),)


def kill_sessions(server: Server) -> None:
    for (number,) in server.execute("SELECT id FROM performance_schema.processlist WHERE user = 'app'"):
        with contextlib.suppress(pymysql.err.OperationalError):  # gone by itself
            server.execute(f"KILL {number}")


def as_app(server: Server) -> str:
    return server.url.replace("root@", "app@")


def clean(text: str) -> bool:
    return not any(spelled in text for spelled in SPELLINGS)


def test_the_searches_above_can_find_something() -> None:
    assert not clean(f"mysql://app:{ENCODED}@host")
    assert not clean(os.fsdecode(PASSWORD.encode()))
