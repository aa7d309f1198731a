"""Log lines: one event a line, whatever it holds; repeats limited."""

from __future__ import annotations

import io
import json
import logging
import sys

import pytest

from applier.cli import logs
from applier.cli.logs import BURST, FieldFormatter, JsonFormatter, RepeatFilter


def logger_into(stream: io.StringIO, formatter: logging.Formatter) -> logging.Logger:
    log = logging.Logger("test")  # one that nobody else knows
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    handler.addFilter(RepeatFilter())
    log.addHandler(handler)
    return log


def test_text_is_one_line_with_the_fields_behind_the_message() -> None:
    stream = io.StringIO()
    log = logger_into(stream, FieldFormatter())
    log.warning(
        "retry", extra={"gtid": "a:1", "error_code": 1205, "detail": 'Lock "wait"\nexceeded', "table": ""}
    )
    (line,) = stream.getvalue().splitlines()
    moment, level, rest = line.split(maxsplit=2)
    assert level == "WARNING"
    assert moment.endswith("Z")
    assert rest == 'retry gtid=a:1 error_code=1205 detail="Lock \\"wait\\"\\nexceeded" table=""'


def test_json_has_the_fields_beside_the_message_and_cannot_be_fooled() -> None:
    stream = io.StringIO()
    log = logger_into(stream, JsonFormatter())
    log.error("stopped", extra={"sequence_number": 7, "level": "none", "milliseconds": 1.5})
    event = json.loads(stream.getvalue())
    assert (event["message"], event["level"], event["sequence_number"]) == ("stopped", "error", 7)
    assert event["milliseconds"] == 1.5


@pytest.mark.parametrize("formatter", [FieldFormatter(), JsonFormatter()], ids=["text", "json"])
def test_a_traceback_stays_in_its_line(formatter: logging.Formatter) -> None:
    stream = io.StringIO()
    log = logger_into(stream, formatter)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        log.debug("failed", exc_info=sys.exc_info())
    assert stream.getvalue().count("\n") == 1
    assert "ValueError" in stream.getvalue()


def test_repeats_are_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(logs.time, "monotonic", lambda: now)
    stream = io.StringIO()
    log = logger_into(stream, FieldFormatter())
    for attempt in range(BURST + 3):
        log.warning("link lost", extra={"attempt": attempt})
    log.warning("check", extra={"finding": "a"})
    assert len(stream.getvalue().splitlines()) == BURST + 1
    now = logs.WINDOW_SECONDS + 1
    log.warning("link lost", extra={"attempt": 99})
    assert stream.getvalue().splitlines()[-1].endswith("link lost attempt=99 left_out=3")


def test_different_findings_and_all_errors_are_let_through() -> None:
    stream = io.StringIO()
    log = logger_into(stream, FieldFormatter())
    for number in range(3 * BURST):
        log.warning("check", extra={"finding": f"finding {number}"})
        log.error("stopped")
    assert len(stream.getvalue().splitlines()) == 6 * BURST
