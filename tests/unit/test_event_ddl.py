"""CREATE EVENT and ALTER EVENT as a replica runs them: disabled, and with the definer they had on the source."""

# ruff: noqa: E501 (statements are easier to read on one line)

from __future__ import annotations

import pytest

from applier.target.event_ddl import for_replica

BOB = "`bob`@`%`"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "CREATE DEFINER=`root`@`localhost` EVENT e ON SCHEDULE EVERY 1 DAY DO DELETE FROM t",
            "CREATE DEFINER=`root`@`localhost` EVENT e ON SCHEDULE EVERY 1 DAY DISABLE ON REPLICA DO DELETE FROM t",
        ),
        (
            "create event if not exists `do`.`enable` on schedule at now() + interval 1 day do select 'ENABLE'",
            "create event if not exists `do`.`enable` on schedule at now() + interval 1 day DISABLE ON REPLICA do"
            " select 'ENABLE'",
        ),
        (
            "CREATE EVENT enable ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01 DO' ENABLE COMMENT 'DO' DO BEGIN END",
            "CREATE EVENT enable ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01 DO' DISABLE ON REPLICA COMMENT 'DO' DO BEGIN END",
        ),
        (
            "CREATE EVENT d.do ON SCHEDULE AT (NOW() /* DO */) COMMENT 'it''s' DO DO 0",
            "CREATE EVENT d.do ON SCHEDULE AT (NOW() /* DO */) DISABLE ON REPLICA COMMENT 'it''s' DO DO 0",
        ),
        (
            "CREATE EVENT e ON SCHEDULE EVERY (1 + (2)) HOUR -- DO\n ON COMPLETION NOT PRESERVE DO DO 0",
            "CREATE EVENT e ON SCHEDULE EVERY (1 + (2)) HOUR -- DO\n ON COMPLETION NOT PRESERVE DISABLE ON REPLICA DO DO 0",
        ),
    ],
)
def test_a_new_event_does_not_run_here(text: str, wanted: str) -> None:
    assert for_replica(text.encode(), None).decode() == wanted


@pytest.mark.parametrize(
    "text",
    [
        "CREATE EVENT e ON SCHEDULE EVERY 1 DAY DISABLE DO DO 0",
        "CREATE EVENT e ON SCHEDULE EVERY 1 DAY DISABLE ON SLAVE COMMENT 'ENABLE' DO DO 0",
        "CREATE EVENT e ON SCHEDULE EVERY 1 DAY disable on replica DO DO 0",
        "CREATE TABLE event (do INT)",
        "CREATE PROCEDURE p() CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO DO 0",
        "ALTER TABLE t COMMENT 'ALTER EVENT e ENABLE'",
        "DROP EVENT e",
    ],
)
def test_other_statements_stay_as_they_are(text: str) -> None:
    assert for_replica(text.encode(), BOB).decode() == text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("ALTER EVENT e COMMENT 'ENABLE'", "ALTER DEFINER={} EVENT e COMMENT 'ENABLE'"),
        ("ALTER  EVENT enable ENABLE", "ALTER DEFINER={} EVENT enable DISABLE ON REPLICA"),
        ("alter event e rename to enable", "ALTER DEFINER={} EVENT e rename to enable"),
        (
            "ALTER EVENT e RENAME TO d.enable ENABLE",
            "ALTER DEFINER={} EVENT e RENAME TO d.enable DISABLE ON REPLICA",
        ),
        ("ALTER EVENT e DISABLE", "ALTER DEFINER={} EVENT e DISABLE"),
        ("ALTER EVENT e DO SELECT 1 AS ENABLE", "ALTER DEFINER={} EVENT e DO SELECT 1 AS ENABLE"),
        ("ALTER DEFINER=u@h EVENT e ENABLE", "ALTER DEFINER=u@h EVENT e DISABLE ON REPLICA"),
    ],
)
def test_an_altered_event_keeps_its_definer_and_stays_disabled(text: str, wanted: str) -> None:
    assert for_replica(text.encode(), BOB).decode() == wanted.format(BOB)
