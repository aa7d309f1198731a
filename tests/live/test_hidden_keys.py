"""Generated invisible primary keys, and what BINLOG makes of them."""

from __future__ import annotations

import pytest

from applier.errors import ApplyError
from applier.sandbox import Server
from tests.random_schemas.comparison import assert_same_rows
from tests.replaying import replay, run_all

HIDDEN_KEY = "SET sql_generate_invisible_primary_key = ON"


def test_hidden_key_beside_a_functional_index_needs_to_be_visible_on_the_target(
    source: Server, target: Server
) -> None:
    """MySQL 9.7 refuses the rows in BINLOG, though a stock replica takes them."""
    statements = (
        "CREATE DATABASE d",
        HIDDEN_KEY,
        "CREATE TABLE d.t (n INT NOT NULL, j JSON, KEY ((n DIV 2)), KEY ((CAST(j AS UNSIGNED ARRAY))))",
        "INSERT INTO d.t VALUES (1, '[1, 2]'), (2, '[]')",
        "UPDATE d.t SET n = 3 WHERE n = 1",
        "DELETE FROM d.t WHERE n = 2",
    )
    run_all(source, statements, autocommit=True)
    with pytest.raises(ApplyError, match="SET VISIBLE"):
        replay(source, target)
    run_all(target, ["SET sql_log_bin = 0", "ALTER TABLE d.t ALTER COLUMN my_row_id SET VISIBLE"])
    replay(source, target)
    assert_same_rows(source, target)
