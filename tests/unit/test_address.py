"""Server addresses: what URLs, option files and the environment say, and that no password ever shows."""

from __future__ import annotations

import dataclasses
import logging
import random
import threading
from pathlib import Path

import pymysql
import pytest

from applier.address import ServerAddress, Tls, TlsMode, parse_url
from applier.backoff import Backoff
from applier.connection import connect, connection_error
from applier.errors import AccessDenied, PreflightFailed, UnknownHost, Unreachable, UsageError
from applier.option_files import read_options

SECRET = "hunter2-geheim"


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("APPLIER_SOURCE_PASSWORD", "APPLIER_TARGET_PASSWORD", "MYSQL_PWD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("applier.option_files.STANDARD_FILES", ())


def option_file(folder: Path, text: str, name: str = "my.cnf") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_url_names_every_part() -> None:
    address = parse_url(
        "mysql://repl@db.example:3307/shop?ssl-mode=REQUIRED&ssl_cert=/c&ssl-key=/k", "source"
    )
    assert address == ServerAddress(
        host="db.example",
        port=3307,
        user="repl",
        database="shop",
        tls=Tls(TlsMode.REQUIRED, cert="/c", key="/k"),
        role="source",
    )
    assert str(address) == "repl@db.example:3307"


def test_port_defaults_to_3306_and_user_to_the_login_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "ada")
    address = parse_url("mysql://db.example", "target")
    assert (address.port, address.user, address.tls) == (3306, "ada", Tls(TlsMode.PREFERRED))


@pytest.mark.parametrize(
    ("url", "host", "place"),
    [
        ("mysql://u@[::1]:3310", "::1", "[::1]:3310"),
        ("mysql://u@[2001:db8::7]", "2001:db8::7", "[2001:db8::7]:3306"),
        ("mysql+pymysql://u@10.0.0.1:1", "10.0.0.1", "10.0.0.1:1"),
        ("MySQL://u@h", "h", "h:3306"),
    ],
)
def test_host_forms(url: str, host: str, place: str) -> None:
    address = parse_url(url, "source")
    assert (address.host, address.place) == (host, place)


def test_percent_encoded_user_password_and_socket_are_decoded() -> None:
    address = parse_url("mysql://re%40pl:p%2Fw%3F%23%25@h/?socket=/tmp/my%20sql.sock", "source")
    assert (address.user, address.password, address.unix_socket) == ("re@pl", "p/w?#%", "/tmp/my sql.sock")
    assert str(address) == "re@pl@/tmp/my sql.sock"


def test_certificate_authority_without_a_mode_is_checked() -> None:
    assert parse_url("mysql://u@h/?ssl-ca=/ca.pem", "source").tls.mode is TlsMode.VERIFY_CA
    assert parse_url("mysql://u@h/?ssl-ca=/ca.pem&ssl-mode=required", "source").tls.mode is TlsMode.REQUIRED


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgres://u@h", "does not start with mysql://"),
        ("db.example:3306", "does not start with mysql://"),
        ("mysql://u@h:99999", "check host and port"),
        ("mysql://u@h:0", "from 1 to 65535"),
        ("mysql://u@h:port", "check host and port"),
        ("mysql://u@::1", "brackets"),
        ("mysql://u@h/a/b", "more than one path component"),
        ("mysql://u@h/?ssl-mode=MAYBE", "ssl-mode must be one of DISABLED, PREFERRED"),
        ("mysql://u@h/?sslmode=REQUIRED", "unknown option 'sslmode'"),
        ("mysql://u@h/?ssl-ca=a&ssl_ca=b", "ssl-ca twice"),
    ],
)
def test_bad_url_is_a_usage_error_that_says_what_is_wrong(url: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_url(url, "source")
    assert says in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "unescaped", ["{}/x", "x/{}", "{}?x", "x?{}", "{}#x", "x#{}", "{}@x", "x@{}", "[{}", "{}:x%"]
)
def test_bad_url_never_echoes_its_password(unescaped: str, caplog: pytest.LogCaptureFixture) -> None:
    try:
        shown = repr(parse_url(f"mysql://u:{unescaped.format(SECRET)}@h:1", "source"))
    except UsageError as error:
        shown = str(error)
    assert SECRET not in shown
    assert SECRET not in caplog.text


def test_password_in_a_url_is_accepted_with_a_warning_that_hides_it(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        address = parse_url(f"mysql://u:{SECRET}@h", "target")
    assert address.password == SECRET
    assert "APPLIER_TARGET_PASSWORD" in caplog.text
    assert SECRET not in caplog.text


def test_password_is_not_in_repr_str_or_equality() -> None:
    address = ServerAddress(user="u", password=SECRET)
    assert SECRET not in repr(address) + str(address) + address.place
    assert address == dataclasses.replace(address, password="another")
    assert hash(address) == hash(dataclasses.replace(address, password="another"))


def test_password_comes_from_the_nearest_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = option_file(tmp_path, "[applier-source]\npassword=of-source\n[client]\npassword=of-client\n")

    def password(url: str = "mysql://u@h", file: Path | None = None) -> str:
        return parse_url(url, "source", defaults_file=file).password

    assert password() == ""
    monkeypatch.setenv("MYSQL_PWD", "of-mysql-pwd")
    monkeypatch.setenv("APPLIER_TARGET_PASSWORD", "of-the-other-side")
    assert password() == "of-mysql-pwd"
    assert password(file=both) == "of-source"
    monkeypatch.setenv("APPLIER_SOURCE_PASSWORD", "of-environment")
    assert password(file=both) == "of-environment"
    assert password("mysql://u:of-url@h", file=both) == "of-url"
    assert password("mysql://u:@h", file=both) == ""


def test_prompt_only_when_standard_input_is_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(question: str) -> str:
        asked.append(question)
        return "typed"

    monkeypatch.setattr("getpass.getpass", answer)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    assert parse_url("mysql://u@h", "source").password == "typed"
    assert parse_url("mysql://u@h", "source", prompt=False).password == ""
    assert asked == ["Password of u on the source h:3306: "]
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    assert parse_url("mysql://u@h", "source").password == ""


def test_option_file_fills_in_what_the_url_leaves_open(tmp_path: Path) -> None:
    file = option_file(
        tmp_path,
        "[client]\nuser=ada\nhost=db\nport=3399\nssl_ca=/ca\n[mysqld]\nuser=mysql\n[applier-target]\nport=3400",
    )
    target = parse_url("mysql://", "target", defaults_file=file)
    assert (target.user, target.host, target.port, target.tls.ca) == ("ada", "db", 3400, "/ca")
    source = parse_url("mysql://grace@h:1", "source", defaults_file=file)
    assert (source.user, source.host, source.port) == ("grace", "h", 1)


def test_socket_of_an_option_file_gives_way_to_a_host_in_the_url(tmp_path: Path) -> None:
    file = option_file(tmp_path, "[client]\nsocket=/run/mysqld.sock\n")
    assert parse_url("mysql://u@h", "source", defaults_file=file).unix_socket is None
    assert parse_url("mysql://", "source", defaults_file=file).unix_socket == "/run/mysqld.sock"


def test_option_file_syntax(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    option_file(tmp_path, "[client]\nport=1\n", "extra.cnf")
    option_file(tmp_path / "conf.d", "[client]\nhost = by-folder\n", "a.cnf")
    option_file(tmp_path / "conf.d", "[client]\nhost = not read\n", "b.txt")
    file = option_file(
        tmp_path,
        "# comment\n; comment\n\n[client]\n"
        "user = 'quo ted'\n"
        'password = "with # hash"\n'
        "socket = /tmp/a\\sb # why\n"
        "loose_ssl_mode=REQUIRED\n"
        "skip-reconnect\n"
        "!include extra.cnf\n"
        "!includedir conf.d\n",
    )
    assert read_options(file, ["client"]) == {
        "user": "quo ted",
        "password": "with # hash",
        "socket": "/tmp/a b",
        "ssl-mode": "REQUIRED",
        "skip-reconnect": "",
        "port": "1",
        "host": "by-folder",
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"password={SECRET}\n", "before any group in line 1"),
        (f"[client\npassword={SECRET}\n", "without ']' in line 1"),
        (f"[client]\n!password={SECRET}\n", "neither !include nor !includedir"),
        ("[client]\n!include my.cnf\n", "includes itself"),
    ],
)
def test_bad_option_file_is_a_usage_error_without_its_content(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_options(option_file(tmp_path, text), ["client"])
    assert says in str(caught.value)
    assert SECRET not in str(caught.value)


def test_named_option_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.cnf cannot be read: No such file"):
        parse_url("mysql://u@h", "source", defaults_file=tmp_path / "nowhere.cnf")


@pytest.mark.parametrize(
    ("error", "kind", "exit_code"),
    [
        (pymysql.err.OperationalError(1045, "Access denied for user 'u'@'h'"), AccessDenied, 3),
        (pymysql.err.OperationalError(1130, "Host 'h' is not allowed to connect"), AccessDenied, 3),
        (pymysql.err.OperationalError(1040, "Too many connections"), Unreachable, 75),
        (pymysql.err.OperationalError(1226, "max_user_connections"), Unreachable, 75),
        (pymysql.err.OperationalError(2013, "Lost connection to MySQL server during query"), Unreachable, 75),
        (pymysql.err.OperationalError(1049, "Unknown database 'd'"), PreflightFailed, 3),
        (ConnectionRefusedError(111, "Connection refused"), Unreachable, 75),
        (TimeoutError("timed out"), Unreachable, 75),
    ],
)
def test_errors_of_connecting_have_their_class(error: Exception, kind: type, exit_code: int) -> None:
    translated = connection_error(ServerAddress(user="u", password=SECRET, role="source"), error)
    assert type(translated) is kind
    assert translated.exit_code == exit_code
    assert "source" in str(translated)
    assert SECRET not in str(translated)


def test_unknown_host_is_told_apart_from_one_that_is_down() -> None:
    with pytest.raises(UnknownHost, match=r"host name 'no\.such\.host\.invalid' is not known"):
        connect(ServerAddress(host="no.such.host.invalid"))


def test_backoff_doubles_up_to_its_limit_and_gives_up() -> None:
    backoff = Backoff(initial_seconds=1.0, max_seconds=8.0, attempts_max=6, chance=random.Random(7))
    seconds = [backoff.next_seconds() for _ in range(6)]
    for waited, step in zip(seconds, [1, 2, 4, 8, 8, 8], strict=True):
        assert step / 2 <= waited <= step
    assert not backoff.wait(threading.Event())
    backoff.reset()
    assert backoff.next_seconds() <= 1.0


def test_backoff_is_interrupted_at_once() -> None:
    stop = threading.Event()
    backoff = Backoff(initial_seconds=3600, max_seconds=3600)
    answer: list[bool] = []
    waiter = threading.Thread(target=lambda: answer.append(backoff.wait(stop)))
    waiter.start()
    stop.set()
    waiter.join(10)
    assert answer == [True]
