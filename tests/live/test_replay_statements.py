"""Statements of the log are executed under the state that they were written with: DDL, accounts, statement format."""

# ruff: noqa: E501 (statements are easier to read on one line)

from __future__ import annotations

import pytest

from applier.sandbox import Server
from applier.sandbox.server import Rows
from applier.target import checkpoint
from tests.replaying import Mode, assert_identical, executed, in_every_mode, replay, run_all, session
from tests.servers import ServerFactory
from tests.waiting import wait_until

IN_D = ("CREATE DATABASE d", "USE d")


def both(source: Server, target: Server, query: str) -> tuple[Rows, Rows]:
    return source.execute(query), target.execute(query)


@in_every_mode
def test_definitions_change_between_transactions(source: Server, target: Server, mode: Mode) -> None:
    run_all(
        source,
        [
            *IN_D,
            "CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v INT)",
            "INSERT INTO t (v) VALUES (1), (2)",
            "ALTER TABLE t ADD u INT UNIQUE, ADD INDEX (v)",
            "UPDATE t SET u = 100 - id",
            "ALTER TABLE t DROP PRIMARY KEY, MODIFY id INT NOT NULL, ADD PRIMARY KEY (u)",
            "UPDATE t SET id = 7",
            "ALTER TABLE t MODIFY v BIGINT FIRST, RENAME COLUMN id TO ident",
            "INSERT INTO t VALUES (3, 3, 3)",
            "CREATE UNIQUE INDEX i2 ON t (v, ident)",
            "INSERT INTO t VALUES (4, 3, 4)",
            "DROP INDEX i2 ON t",
            "INSERT INTO t VALUES (4, 3, 5)",
            "RENAME TABLE t TO other",
            "CREATE TABLE t (a VARCHAR(5))",
            "INSERT INTO t VALUES ('a')",
            "RENAME TABLE t TO tmp, other TO t, tmp TO other",
            "INSERT INTO t VALUES (9, 9, 9)",
            "TRUNCATE TABLE other",
            "INSERT INTO other VALUES ('b')",
            "CREATE TABLE IF NOT EXISTS t (a INT)",
            "DROP TABLE IF EXISTS nowhere, other",
            "CREATE TABLE alike LIKE t",
            "INSERT INTO alike SELECT * FROM t",
            *("ANALYZE TABLE t", "OPTIMIZE TABLE t", "REPAIR TABLE t", "CHECK TABLE t", "FLUSH TABLES"),
            "ALTER TABLE t PARTITION BY HASH (u) PARTITIONS 3",
            "INSERT INTO t VALUES (10, 10, 10)",
            "ALTER TABLE t TRUNCATE PARTITION p1",
            "SET sql_generate_invisible_primary_key = ON",
            "CREATE TABLE hidden_key (a INT)",
            "INSERT INTO hidden_key VALUES (1), (1)",
            "UPDATE hidden_key SET a = 2 LIMIT 1",
        ],
    )
    replay(source, target, **mode)
    assert_identical(source, target)


@pytest.mark.parametrize("drop", ["DROP DATABASE applier", "drop table IF EXISTS `applier`.progress"])
@in_every_mode
def test_the_progress_of_a_chain_is_not_dropped_with_that_of_the_applier_before(
    source: Server, target: Server, mode: Mode, drop: str
) -> None:
    run_all(source, [*IN_D, "CREATE TABLE t (id INT)", *checkpoint.CREATE, "INSERT INTO d.t VALUES (1)"])
    replay(source, target, **mode)
    progress = target.execute("SELECT channel FROM applier.progress")
    run_all(source, [drop, "INSERT INTO d.t VALUES (2)"])
    for _ in range(2):
        replay(source, target, **mode)
    assert target.execute("SELECT id FROM d.t ORDER BY id") == ((1,), (2,))
    assert target.execute("SELECT channel FROM applier.progress") == progress


def test_stored_programs_views_and_events(source: Server, target: Server) -> None:
    run_all(
        source,
        [
            *IN_D,
            "CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v INT)",
            "CREATE TABLE log (id INT PRIMARY KEY AUTO_INCREMENT, what TEXT)",
            """CREATE TRIGGER tr AFTER INSERT ON t FOR EACH ROW BEGIN
                 -- a comment; with a semicolon
                 INSERT INTO log (what) VALUES ('a;b // $$ ''x'''); /* DELIMITER ;; */ SET @x = 1; END""",
            "INSERT INTO t (v) VALUES (1), (2)",
            """CREATE PROCEDURE p(IN n INT) BEGIN DECLARE i INT DEFAULT 0; WHILE i < n DO INSERT INTO t (v) VALUES (i);
                 SET i = i + 1; END WHILE; SELECT 'done'; END""",
            "CALL p(3)",
            "CREATE FUNCTION f(x INT) RETURNS INT DETERMINISTIC BEGIN INSERT INTO log (what) VALUES ('f'); RETURN x; END",
            "SELECT f(1)",
            "ALTER PROCEDURE p COMMENT 'changed' SQL SECURITY INVOKER",
            "CREATE VIEW v AS SELECT t.*, f(1) FROM t",
            "ALTER VIEW v AS SELECT id FROM t WITH CHECK OPTION",
            "CREATE EVENT e ON SCHEDULE EVERY 1 DAY STARTS CURRENT_TIMESTAMP + INTERVAL 1 DAY ON COMPLETION PRESERVE DISABLE"
            " DO BEGIN SELECT 1; SELECT 2; END",
            "DROP TRIGGER tr",
            "DROP FUNCTION f",
        ],
    )
    replay(source, target)
    assert_identical(source, target)


def test_accounts_keep_their_passwords(source: Server, target: Server) -> None:
    run_all(
        source,
        [
            *IN_D,
            "CREATE TABLE t (a INT, b INT)",
            "CREATE USER u1 IDENTIFIED BY 'pä''s\"s\\\\' REQUIRE SSL PASSWORD EXPIRE NEVER ATTRIBUTE '{\"a\": 1}'",
            "CREATE ROLE r, r2",
            "GRANT SELECT ON *.* TO r",
            "GRANT r, r2 TO u1 WITH ADMIN OPTION",
            "SET DEFAULT ROLE r TO u1",
            "GRANT SELECT (a), UPDATE (b) ON d.t TO u1",
            "ALTER USER u1 IDENTIFIED BY 'a second one' RETAIN CURRENT PASSWORD",
            "CREATE USER 'ü ser'@'%.example' IDENTIFIED BY RANDOM PASSWORD",
            "CREATE USER u2",
            "RENAME USER u2 TO u3",
            "REVOKE r2 FROM u1",
            "DROP ROLE r2",
            "SET PASSWORD FOR u3 = 'third'",
        ],
    )
    replay(source, target)
    assert_identical(source, target)
    for query in (
        "SELECT user, host, authentication_string, plugin, ssl_type, user_attributes FROM mysql.user WHERE user LIKE 'u%' OR"
        " user LIKE 'ü%' ORDER BY 1, 2",
        "SHOW GRANTS FOR u1",
        "SELECT * FROM mysql.default_roles",
    ):
        ours, theirs = both(source, target, query)
        assert ours == theirs
    with session(target, user="u3", password="third") as run:
        assert run("SELECT 1") == ((1,),)


def test_events_are_as_on_a_stock_replica(
    source: Server, target: Server, server_factory: ServerFactory
) -> None:
    """Above all they are disabled: what an event does on the source is in the log already."""
    replica = server_factory(replica_of="source")
    run_all(
        source,
        [
            *IN_D,
            "CREATE USER bob",
            "GRANT ALL ON *.* TO bob",
            "CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT)",
        ],
    )
    run_all(
        source,
        [
            "CREATE EVENT e ON SCHEDULE EVERY 1 SECOND DO INSERT INTO t VALUES ()",
            "CREATE EVENT enable ON SCHEDULE AT '2037-01-01' ENABLE COMMENT 'DO' DO DO 0",
            "CREATE EVENT off ON SCHEDULE EVERY 1 DAY ON COMPLETION PRESERVE DISABLE DO DO 0",
            "CREATE EVENT turned_on ON SCHEDULE EVERY 1 DAY DISABLE DO DO 0",
            "CREATE EVENT turned_off ON SCHEDULE EVERY 1 DAY DO DO 0",
            "ALTER EVENT turned_on ENABLE",
            "ALTER EVENT turned_off DISABLE",
        ],
        database="d",
    )
    with session(source, user="bob", database="d") as run:
        run("ALTER EVENT off COMMENT 'mine' DO SELECT 'ALTER EVENT e'")
        run("ALTER EVENT enable ON SCHEDULE AT '2037-02-02' RENAME TO renamed")
        wait_until(lambda: run("SELECT COUNT(*) FROM t") > ((1,),))
        run("DROP EVENT e")
    replay(source, target)
    assert_identical(source, target)
    wait_until(lambda: executed(source) <= executed(replica))
    query = (
        "SELECT event_name, definer, event_definition, execute_at, event_comment, on_completion, status <> 'ENABLED'"
        " FROM information_schema.events ORDER BY 1"
    )
    on_replica, on_target = both(replica, target, query)
    assert on_target == on_replica
    assert {disabled for *_, disabled in on_target} == {1}


@in_every_mode
def test_databases_come_and_go(source: Server, target: Server, mode: Mode) -> None:
    with session(source) as one, session(source) as other:
        one("CREATE DATABASE gone CHARACTER SET latin1")
        one("USE gone")
        one("CREATE TABLE t (a VARCHAR(9))")
        one("ALTER DATABASE gone CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
        one("CREATE TABLE t2 (a VARCHAR(9))")
        one("DROP DATABASE gone")
        one("CREATE DATABASE kept")
        one("CREATE DATABASE away")
        one("USE away")
        other("DROP DATABASE away")
        # The default database is gone, which this session does not know.
        one("CREATE TABLE kept.t (a INT PRIMARY KEY)")
        one("INSERT INTO kept.t VALUES (1)")
        one("CREATE VIEW kept.v AS SELECT * FROM kept.t")
        one("USE kept")
        one("CREATE TABLE here (a INT)")
    replay(source, target, **mode)
    assert_identical(source, target)


def test_names_and_strings_in_many_character_sets(source: Server, target: Server) -> None:
    run_all(
        source,
        [
            "CREATE DATABASE `données ``€`",
            "USE `données ``€`",
            "CREATE TABLE `t–é` (`ü ``x` INT COMMENT '`''\"\\\\💧', e ENUM('ä', 'ß', 'it''s'), s SET('ÿ'))",
            "INSERT INTO `t–é` VALUES (1, 'ß', 'ÿ')",
            "CREATE TABLE t (a VARCHAR(10) DEFAULT 'é', b CHAR(3) CHARACTER SET gbk, c TEXT CHARACTER SET utf16,"
            " d VARCHAR(9) CHARACTER SET sjis COLLATE sjis_bin) CHARACTER SET latin1",
            "INSERT INTO t VALUES (DEFAULT, '中', '𝄞', 'ソ')",
            "ALTER TABLE t CONVERT TO CHARACTER SET utf8mb4",
        ],
    )
    for charset, name in (("latin1", "é"), ("gbk", "中"), ("sjis", "ソ"), ("utf8mb3", "€"), ("cp1251", "Ж")):
        run_all(
            source,
            [
                f"CREATE DATABASE `{charset}{name}`",
                f"USE `{charset}{name}`",
                f"CREATE TABLE `{name}` (`{name}` VARCHAR(9) DEFAULT '{name}' COMMENT '{name}')",
                f"INSERT INTO `{name}` VALUES ('{name}{name}'), (DEFAULT)",
                "SET binlog_format = STATEMENT",
                f"SET @`{name}` = '{name}v'",
                f"INSERT INTO `{name}` VALUES (@`{name}`), ('{name}\\\\')",
            ],
            charset=charset,
        )
    replay(source, target)
    assert_identical(source, target)


def test_session_settings_that_shape_definitions(source: Server, target: Server) -> None:
    run_all(
        source,
        [
            *IN_D,
            "SET sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT'",
            'CREATE TABLE "q t" ("a b" VARCHAR(10) DEFAULT \'x\\\')',
            "INSERT INTO \"q t\" VALUES ('\\n')",
            'CREATE PROCEDURE p() SELECT \'a\' || "a b" FROM "q t"',
            "SET sql_mode = 'REAL_AS_FLOAT'",
            "CREATE TABLE reals (a REAL DEFAULT '1.1')",
            "SET sql_mode = ''",
            "CREATE TABLE zero (a DATE DEFAULT '0000-00-00')",
            "SET sql_mode = DEFAULT, time_zone = '-03:30'",
            "CREATE TABLE zones (a TIMESTAMP DEFAULT '2020-01-01 00:00:00')",
            "INSERT INTO zones VALUES ()",
            "SET timestamp = 1600000000.654321",
            "ALTER TABLE zones ADD b TIMESTAMP(6) DEFAULT CURRENT_TIMESTAMP(6), ADD c DATETIME(6) NOT NULL DEFAULT NOW(6)",
            "SET timestamp = 1600000000",
            "ALTER TABLE zones ADD whole DATETIME(6) NOT NULL DEFAULT NOW(6)",
            "SET timestamp = DEFAULT, time_zone = '+14:00'",
            "ALTER TABLE zones ADD e DATETIME NOT NULL DEFAULT NOW()",
            "SET explicit_defaults_for_timestamp = OFF",
            "CREATE TABLE implicit (a TIMESTAMP, b TIMESTAMP DEFAULT '2020-02-02')",
            "SET explicit_defaults_for_timestamp = ON",
            "SET auto_increment_increment = 7, auto_increment_offset = 3",
            "CREATE TABLE numbers (v INT)",
            "INSERT INTO numbers VALUES (1), (2), (3)",
            "ALTER TABLE numbers ADD id INT AUTO_INCREMENT PRIMARY KEY",
            "SET foreign_key_checks = 0",
            "CREATE TABLE child (a INT, FOREIGN KEY (a) REFERENCES parent (id))",
            "INSERT INTO child VALUES (1)",
            "SET foreign_key_checks = 1",
            "CREATE TABLE parent (id INT PRIMARY KEY)",
            "SET sql_require_primary_key = ON",
            "CREATE TABLE required (id INT PRIMARY KEY)",
            "SET sql_require_primary_key = OFF, default_collation_for_utf8mb4 = utf8mb4_general_ci",
            "CREATE TABLE general (a VARCHAR(9)) CHARACTER SET utf8mb4",
            "SET character_set_server = latin1",
            "CREATE DATABASE of_server",
            "CREATE TABLE of_server.t (a VARCHAR(9))",
        ],
    )
    replay(source, target)
    assert_identical(source, target)


@in_every_mode
def test_create_table_select(source: Server, target: Server, mode: Mode) -> None:
    changes = [
        "CREATE TABLE {0}1 SELECT * FROM d.t",
        "INSERT INTO {0}1 VALUES (9, 9)",
        "CREATE TABLE {0}2 (PRIMARY KEY (id)) AS SELECT * FROM d.t",
        "INSERT INTO {0}2 VALUES (9, 9)",
        "CREATE TABLE {0}3 SELECT * FROM d.t WHERE id < 0",
        "CREATE TEMPORARY TABLE {0}4 SELECT * FROM d.t",
        "INSERT INTO {0}3 SELECT * FROM {0}4",
        "DROP TABLE {0}4",
        "CREATE TABLE {0}6 (a INT)",
    ]
    run_all(
        source, [*IN_D, "CREATE TABLE t (id INT PRIMARY KEY, v INT)", "INSERT INTO t VALUES (1, 2), (3, 4)"]
    )
    run_all(source, [change.format("a") for change in changes], database="d")
    compressed = ["SET binlog_transaction_compression = ON", "SET time_zone = '+03:00', sql_mode = 'ANSI'"]
    run_all(source, [*compressed, *(change.format("b") for change in changes)], database="d")
    replay(source, target, **mode)
    assert_identical(source, target)


@in_every_mode
def test_xa_transactions(source: Server, target: Server, mode: Mode) -> None:
    """Prepared ones are there for whoever comes next: the applier may end in between."""
    run_all(source, [*IN_D, "CREATE TABLE t (id INT PRIMARY KEY, v INT)"])
    run_all(
        source,
        [
            "XA START 'one'",
            "INSERT INTO t VALUES (1, 1)",
            "XA END 'one'",
            "XA PREPARE 'one'",
            "XA COMMIT 'one'",
            "XA START 'it''s', X'00ff', 7",
            "INSERT INTO t VALUES (2, 1)",
            "XA END 'it''s', X'00ff', 7",
            "XA PREPARE 'it''s', X'00ff', 7",
            "XA ROLLBACK 'it''s', X'00ff', 7",
            "XA START 'phase'",
            "INSERT INTO t VALUES (3, 1)",
            "XA END 'phase'",
            "XA COMMIT 'phase' ONE PHASE",
            "XA START 'kept'",
            "INSERT INTO t VALUES (4, 1)",
            "XA END 'kept'",
            "XA PREPARE 'kept'",
            "INSERT INTO t VALUES (5, 1)",
            "XA START 'undone'",
            "UPDATE t SET v = 2 WHERE id = 1",
            "XA END 'undone'",
            "XA PREPARE 'undone'",
        ],
        database="d",
    )
    replay(source, target, **mode)
    ours, theirs = both(source, target, "XA RECOVER CONVERT XID")
    assert sorted(ours) == sorted(theirs)
    assert target.execute("SELECT id FROM d.t ORDER BY id") == ((1,), (3,), (5,))
    run_all(source, ["XA COMMIT 'kept'", "XA ROLLBACK 'undone'", "INSERT INTO d.t VALUES (6, 1)"])
    replay(source, target, **mode)
    assert both(source, target, "XA RECOVER") == ((), ())
    assert_identical(source, target)
    assert target.execute("SELECT id, v FROM d.t ORDER BY id") == ((1, 1), (3, 1), (4, 1), (5, 1), (6, 1))
