"""Our GTID sets against the server's own GTID functions, on the same input."""

from __future__ import annotations

import random
from uuid import UUID

import pymysql
import pytest

from applier.errors import UsageError
from applier.events.gtid import GNO_MAX, Gtid, GtidSet
from applier.sandbox import Server

A, B, C = SOURCES = [UUID(int=n << 64 | n) for n in (1, 2, 0xFFFF_FFFF_FFFF)]
TAGS = ["", "", "a", "tag_2", "_x" * 16]
PAIRS = 300


def random_set(choose: random.Random) -> GtidSet:
    """Small numbers, so that sets touch, overlap and contain each other often; sometimes the largest one."""
    result = GtidSet()
    for _ in range(choose.randrange(8)):
        first = choose.choice([choose.randint(1, 20), choose.randint(1, 20), GNO_MAX - 10])
        uuid, tag = choose.choice(SOURCES), choose.choice(TAGS)
        result.add_range(uuid.bytes, tag, first, first + choose.randrange(10))
    return result


def random_text(choose: random.Random) -> str:
    """As a careless person would write it: any order, overlaps, empty intervals, blanks, upper case."""
    items = []
    for _ in range(choose.randrange(1, 5)):
        uuid = str(choose.choice(SOURCES))
        words = [choose.choice([uuid, uuid.upper(), uuid.replace("-", "")])]
        for _ in range(choose.randrange(1, 5)):
            first, last = choose.randint(1, 30), choose.randint(1, 30)
            words.append(choose.choice([str(first), f"{first}-{last}", f" {first} - {last} "]))
            if choose.random() < 0.3:
                words.append(choose.choice(["Tag", "b", " x_1 "]) + ":" + str(first))
        items.append(":".join(words))
    return choose.choice([",", ", ", ",\n", ",,"]).join(items)


def test_arithmetic_is_the_server_s(source: Server) -> None:
    choose = random.Random(1)
    with source.connect() as connection, connection.cursor() as cursor:
        for _ in range(PAIRS):
            a, b = random_set(choose), random_set(choose)
            texts = (str(a), str(b))
            cursor.execute("SELECT GTID_SUBSET(%s, %s), GTID_SUBTRACT(%s, %s)", texts + texts)
            assert cursor.fetchone() == (int(a in b), str(a - b)), (a, b)
            # The server has no union and no intersection, but these hold of any.
            union, common = str(a | b), str(a & b)
            cursor.execute(
                "SELECT GTID_SUBTRACT(%s, %s) = GTID_SUBTRACT(%s, %s),"
                " GTID_SUBTRACT(%s, GTID_SUBTRACT(%s, %s))",
                (union, str(b), *texts, str(a), *texts),
            )
            assert cursor.fetchone() == (1, common), (a, b)


def test_sets_are_read_and_printed_as_the_server_does(source: Server) -> None:
    choose = random.Random(2)
    with source.connect() as connection, connection.cursor() as cursor:
        for _ in range(PAIRS):
            text = random_text(choose)
            cursor.execute("SELECT GTID_SUBTRACT(%s, '')", (text,))
            assert cursor.fetchone() == (str(GtidSet.parse(text)),), text


@pytest.mark.parametrize(
    "text",
    ["x", "x:1", f"{A}:0", f"{A}:1-", f"{A}:-1", f"{A}:1;2", f"{A}:1 2",
     f"{A}:{GNO_MAX + 1}", f"{A}:9tag:1", f"{A}:{'t' * 33}:1", f"{A}1",
     f"{A}:-tag:1", f"{A}:1 {B}:1"],
)  # fmt: skip
def test_what_the_server_refuses_is_refused(source: Server, text: str) -> None:
    with pytest.raises(pymysql.err.MySQLError):
        source.execute(f"SELECT GTID_SUBTRACT('{text}', '')")
    with pytest.raises(UsageError):
        GtidSet.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ",",
        f"{A}",
        f"{A}:",
        f"{A}:1:",
        f"{A}:t",
        f"{A}::1",
    ],
)
def test_odd_texts_are_judged_as_the_server_judges_them(source: Server, text: str) -> None:
    try:
        ((theirs,),) = source.execute(f"SELECT GTID_SUBTRACT('{text}', '')")
    except pymysql.err.MySQLError:
        theirs = None
    try:
        ours = str(GtidSet.parse(text))
    except UsageError:
        ours = None
    assert ours == theirs


def test_what_was_executed_is_what_the_server_says(source: Server) -> None:
    ((uuid,),) = source.execute("SELECT @@server_uuid")
    source.execute("CREATE DATABASE d")
    with source.connect() as connection, connection.cursor() as cursor:
        for gtid in (f"{uuid}:100", f"{B}:7", f"{uuid}:week_47:3", f"{uuid}:week_47:2"):
            cursor.execute("SET gtid_next = %s", (gtid,))
            cursor.execute("COMMIT")
            cursor.execute("SET gtid_next = 'automatic'")
    ((text,),) = source.execute("SELECT @@global.gtid_executed")
    executed = GtidSet.parse(text)
    assert str(executed) == text
    assert Gtid.parse(f"{uuid}:week_47:2") in executed
    assert Gtid.parse(f"{uuid}:2") not in executed
    source.execute("RESET BINARY LOGS AND GTIDS")
    source.execute(f"SET GLOBAL gtid_purged = '{executed}'")
    ((purged,),) = source.execute("SELECT @@global.gtid_purged")
    assert purged == text
