"""`applier check`: each precondition that does not hold is named, with what mends it; nothing is written."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import pymysql
import pytest
from click.testing import CliRunner

from applier.cli.check import check as check_command
from applier.errors import PreflightFailed
from applier.preflight import Level, preflight
from applier.preflight.facts import read_server
from applier.preflight.server_settings import server_kind
from applier.sandbox import Server
from applier.target import checkpoint
from applier.verify.definitions import query
from tests.checking import Pair, make_shop, quietly
from tests.servers import ServerFactory


@pytest.fixture
def pair(source: Server, target: Server) -> Pair:
    return Pair(source, target)


@pytest.fixture
def shop(pair: Pair) -> Pair:
    make_shop(pair)
    return pair


def test_two_fresh_servers_are_ready(pair: Pair) -> None:
    report = pair.check()
    assert report.failures == ()
    assert report.warnings == ()
    assert report.exit_code == 0
    report.raise_on_failure()


def test_nothing_is_written(shop: Pair) -> None:
    for server in (shop.source, shop.target):
        quietly(server, "TRUNCATE mysql.general_log")
        server.execute("SET GLOBAL log_output = 'TABLE', GLOBAL general_log = ON")
    with closing(shop.source.connect()) as source, closing(shop.target.connect()) as target:
        preflight(source, target)
        sessions = {shop.source: _session_id(source), shop.target: _session_id(target)}
    for server, session in sessions.items():
        server.execute("SET GLOBAL general_log = OFF")
        statements = [text.decode() for text in _logged(server, session)]
        assert len(statements) > 10
        assert [text for text in statements if not text.startswith(("SELECT ", "SHOW ", "XA RECOVER"))] == []


def _session_id(connection: pymysql.Connection[Any]) -> int:
    ((number,),) = query(connection, "SELECT CONNECTION_ID()")
    return int(number)


def _logged(server: Server, session: int) -> list[bytes]:
    rows = server.execute(
        "SELECT argument FROM mysql.general_log WHERE command_type = 'Query' AND thread_id = %s", (session,)
    )
    # What PyMySQL says at the start of a session.
    return [text for (text,) in rows if not text.startswith((b"SET AUTOCOMMIT", b"SET NAMES"))]


# --- settings ----------------------------------------------------------------------------------------

# side, statement, finding, level, part of the remedy
SETTINGS: dict[str, tuple[str, str, str, Level, str]] = {
    "statement format": (
        "source",
        "SET GLOBAL binlog_format = STATEMENT",
        "source.binlog_format",
        Level.FAILURE,
        "SET PERSIST binlog_format = ROW",
    ),
    "minimal row image": (
        "source",
        "SET GLOBAL binlog_row_image = MINIMAL",
        "source.binlog_row_image",
        Level.WARNING,
        "SET PERSIST binlog_row_image = FULL",
    ),
    "no blobs in row images": (
        "source",
        "SET GLOBAL binlog_row_image = NOBLOB",
        "source.binlog_row_image",
        Level.WARNING,
        "FULL",
    ),
    "source without GTIDs": (
        "source",
        "SET GLOBAL gtid_mode = ON_PERMISSIVE",
        "source.gtid_mode",
        Level.FAILURE,
        "SET PERSIST gtid_mode = ON",
    ),
    "target without GTIDs": (
        "target",
        "SET GLOBAL gtid_mode = ON_PERMISSIVE",
        "target.gtid_mode",
        Level.FAILURE,
        "SET PERSIST gtid_mode = ON",
    ),
    "same server id": ("target", "", "server_id", Level.FAILURE, "SET PERSIST server_id"),
    "smaller packets": (
        "target",
        "SET GLOBAL max_allowed_packet = 1048576",
        "max_allowed_packet",
        Level.FAILURE,
        "SET PERSIST max_allowed_packet = ",
    ),
    "nobody may write": (
        "target",
        "SET GLOBAL super_read_only = ON",
        "target.super_read_only",
        Level.FAILURE,
        "SET GLOBAL super_read_only = OFF",
    ),
    "another default character set": (
        "target",
        "SET GLOBAL character_set_server = latin1",
        "target.defaults",
        Level.WARNING,
        "SET PERSIST character_set_server = 'utf8mb4'",
    ),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_a_setting_that_does_not_fit_is_named(pair: Pair, case: str) -> None:
    side, statement, name, level, remedy = SETTINGS[case]
    if case == "same server id":
        statement = f"SET GLOBAL server_id = {pair.source.server_id}"
    (pair.source if side == "source" else pair.target).execute(statement)
    found = pair.finding(name)
    assert found.level is level
    assert remedy in found.remedy


def test_read_only_does_not_keep_a_privileged_account_out(pair: Pair) -> None:
    quietly(pair.target, "CREATE USER plain@'%'", "GRANT ALL ON shop.* TO plain@'%'")
    pair.target.execute("SET GLOBAL read_only = ON")
    assert pair.finding("target.read_only").level is Level.OK
    assert pair.finding("target.read_only", target_user="plain").level is Level.FAILURE


def test_one_server_cannot_be_both_sides(source: Server) -> None:
    assert Pair(source, source).finding("server_uuid").level is Level.FAILURE


def test_table_names_in_another_case_are_refused(source: Server, server_factory: ServerFactory) -> None:
    try:
        other = server_factory({"lower_case_table_names": "1"})
    except PreflightFailed:
        pytest.skip("the data directory template is for lower_case_table_names=0, and the server checks that")
    assert Pair(source, other).finding("lower_case_table_names").level is Level.FAILURE


def test_a_prepared_transaction_on_the_target_is_told(shop: Pair) -> None:
    quietly(shop.target, "XA START 'x'", "INSERT INTO shop.t VALUES (1, 'a')", "XA END 'x'", "XA PREPARE 'x'")
    assert shop.finding("target.xa").level is Level.WARNING


def test_events_that_would_run_twice_are_told(shop: Pair) -> None:
    quietly(shop.target, "CREATE EVENT shop.e ON SCHEDULE EVERY 1 DAY DO DELETE FROM shop.t")
    found = shop.finding("target.event_scheduler")
    assert found.level is Level.WARNING
    assert "shop.e" in found.detail
    shop.target.execute("SET GLOBAL event_scheduler = OFF")
    assert shop.finding("target.event_scheduler").level is Level.OK


def test_a_second_applier_is_refused(pair: Pair) -> None:
    change = "CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={}, SOURCE_USER='root'"
    pair.target.execute(change.format(pair.source.port))
    assert pair.finding("target.replication_channels").level is Level.WARNING
    pair.target.execute("START REPLICA SQL_THREAD")
    found = pair.finding("target.replication_channels")
    assert found.level is Level.FAILURE
    assert found.remedy == "STOP REPLICA SQL_THREAD"


def test_mariadb_is_refused_by_name(source: Server) -> None:
    """What its VERSION() says; a MariaDB server is not at hand in every test run."""
    with closing(source.connect()) as connection:
        facts = read_server(connection, "source")
        maria = type(facts)(
            "source", connection, "10.11.6-MariaDB-0+deb12u1", {}, facts.account, facts.grants
        )
        old = type(facts)("source", connection, "5.7.44-log", {}, facts.account, facts.grants)
        assert "MariaDB" in server_kind(maria).detail
        assert server_kind(maria).level is Level.FAILURE
        assert server_kind(old).level is Level.FAILURE


# --- GTIDs -------------------------------------------------------------------------------------------


def test_the_targets_own_transactions_are_refused_and_listed(pair: Pair) -> None:
    pair.target.execute("CREATE DATABASE errant")
    ((gtids,),) = pair.target.execute("SELECT @@GLOBAL.gtid_executed")
    found = pair.finding("gtids.errant")
    assert found.level is Level.FAILURE
    assert gtids in found.detail
    assert "RESET BINARY LOGS AND GTIDS" in found.remedy
    assert pair.finding("gtids.errant", allow_errant=True).level is Level.WARNING


def test_purged_transactions_are_refused_and_listed(pair: Pair) -> None:
    pair.source.execute("CREATE DATABASE shop")
    pair.source.execute("FLUSH BINARY LOGS")
    ((log, *_),) = pair.source.execute("SHOW BINARY LOG STATUS")
    assert pair.finding("gtids.purged").level is Level.OK
    pair.source.execute("PURGE BINARY LOGS TO %s", (log,))
    ((gtids,),) = pair.source.execute("SELECT @@GLOBAL.gtid_purged")
    found = pair.finding("gtids.purged")
    assert found.level is Level.FAILURE
    assert gtids in found.detail
    assert "applier migrate" in found.remedy


def test_groups_applied_earlier_are_not_applied_again_one_by_one(pair: Pair) -> None:
    pair.source.execute("CREATE DATABASE shop")
    ((gtids,),) = pair.source.execute("SELECT @@GLOBAL.gtid_executed")
    quietly(
        pair.target,
        *checkpoint.CREATE,
        "INSERT INTO applier.progress (channel, owner, executed, file, position)"
        f" VALUES ('c', 1, '{gtids}', '', 0)",
    )
    found = pair.finding("gtids.progress")
    assert found.level is Level.FAILURE
    assert gtids in found.detail
    assert pair.finding("gtids.behind", gtids="purged").detail == "the target lacks nothing"


def test_what_the_target_lacks_is_told(pair: Pair) -> None:
    pair.source.execute("CREATE DATABASE shop")
    ((gtids,),) = pair.source.execute("SELECT @@GLOBAL.gtid_executed")
    assert gtids in pair.finding("gtids.behind").detail


# --- tables ------------------------------------------------------------------------------------------


def test_an_empty_target_gets_its_tables_from_the_log(pair: Pair) -> None:
    pair.source.execute("CREATE DATABASE shop")
    pair.source.execute("CREATE TABLE shop.t (id INT PRIMARY KEY)")
    assert pair.finding("schema.tables").level is Level.OK


def test_a_table_that_no_log_will_bring_is_missed(shop: Pair) -> None:
    quietly(shop.source, "CREATE TABLE shop.u (id INT PRIMARY KEY)")
    found = shop.finding("schema.tables")
    assert found.level is Level.FAILURE
    assert "shop.u" in found.detail
    shop.source.execute("CREATE TABLE shop.w (id INT PRIMARY KEY)")
    assert shop.finding("schema.tables").level is Level.WARNING


def test_a_table_of_the_target_only_is_told(shop: Pair) -> None:
    quietly(shop.target, "CREATE TABLE shop.u (id INT PRIMARY KEY)")
    assert shop.finding("schema.extra_tables").level is Level.WARNING


def test_columns_that_differ_are_named(shop: Pair) -> None:
    quietly(shop.target, "ALTER TABLE shop.t MODIFY c VARCHAR(20)")
    found = shop.finding("schema.columns")
    assert found.level is Level.FAILURE
    assert "c varchar(10)" in found.detail
    assert "c varchar(20)" in found.detail


def test_keys_that_differ_are_named(shop: Pair) -> None:
    quietly(
        shop.target,
        "ALTER TABLE shop.t MODIFY c VARCHAR(10) NOT NULL, DROP PRIMARY KEY, ADD PRIMARY KEY (c, id)",
    )
    quietly(shop.source, "ALTER TABLE shop.t MODIFY c VARCHAR(10) NOT NULL")
    assert shop.finding("schema.keys").level is Level.WARNING


def test_tables_without_a_key_are_told(shop: Pair) -> None:
    for server in (shop.source, shop.target):
        quietly(server, "CREATE TABLE shop.bare (n INT UNIQUE)")
    found = shop.finding("schema.primary_keys")
    assert found.level is Level.WARNING
    assert "shop.bare" in found.detail


def test_tables_without_transactions_are_told(shop: Pair) -> None:
    for server in (shop.source, shop.target):
        quietly(server, "CREATE TABLE shop.old (n INT PRIMARY KEY) ENGINE=MyISAM")
    assert "shop.old (MyISAM)" in shop.finding("schema.engines").detail


# --- the command -------------------------------------------------------------------------------------


def _command(pair: Pair, *options: str) -> tuple[int, str]:
    urls = ["--source", pair.source.url, "--target", pair.target.url]
    result = CliRunner(env={"MYSQL_PWD": ""}).invoke(check_command, [*urls, *options])
    return result.exit_code, result.stdout


def test_the_command_ends_with_0_when_a_run_can_start(pair: Pair) -> None:
    code, text = _command(pair)
    assert code == 0
    assert "ok       source.binlog_format: ROW" in text


def test_the_command_ends_with_3_and_tells_the_remedy(pair: Pair) -> None:
    pair.source.execute("SET GLOBAL binlog_format = MIXED")
    code, text = _command(pair)
    assert code == 3
    assert "SET PERSIST binlog_format = ROW" in text


def test_the_command_prints_json(pair: Pair) -> None:
    pair.source.execute("SET GLOBAL binlog_format = MIXED")
    code, text = _command(pair, "--json")
    report = json.loads(text)
    assert code == 3
    assert report["ready"] is False
    (found,) = (one for one in report["findings"] if one["level"] == "failure")
    assert found["name"] == "source.binlog_format"


def test_all_failures_come_in_one_message(pair: Pair) -> None:
    pair.source.execute("SET GLOBAL binlog_format = MIXED")
    pair.target.execute("SET GLOBAL max_allowed_packet = 1048576")
    with pytest.raises(PreflightFailed) as caught:
        pair.check().raise_on_failure()
    assert caught.value.exit_code == 3
    assert "source.binlog_format" in str(caught.value)
    assert "max_allowed_packet" in str(caught.value)


def test_a_broken_link_is_not_taken_for_a_missing_privilege(pair: Pair) -> None:
    with closing(pair.source.connect()) as source, closing(pair.target.connect()) as target:
        pair.target.execute(f"KILL {_session_id(target)}")
        with pytest.raises(pymysql.err.OperationalError):
            preflight(source, target)


def test_a_chain_of_appliers_needs_a_channel_for_each(pair: Pair) -> None:
    columns = "channel, owner, executed, file, position"
    progress = f"INSERT INTO applier.progress ({columns}) VALUES ('applier', 1, '', '', 0)"
    quietly(pair.source, *checkpoint.CREATE, progress)
    assert "gtids.chained" not in str(pair.check(gtids="kept").findings)
    assert pair.finding("gtids.chained", gtids="own", channel="second").level is Level.OK
    found = pair.finding("gtids.chained", gtids="own")
    assert found.level is Level.FAILURE
    assert "--channel" in found.remedy
    quietly(
        pair.source, "CREATE USER follower", "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO follower"
    )
    unseen = pair.finding("gtids.chained", gtids="own", source_user="follower")
    assert unseen.level is Level.OK
    assert "not for this account to see" in unseen.detail
