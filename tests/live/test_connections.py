"""Connecting to real servers: every way to authenticate and to encrypt, and one clear message for what goes
wrong.
"""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import ssl
import threading
from pathlib import Path

import pytest
import sqlalchemy

from applier.address import ServerAddress, Tls, TlsMode, parse_url
from applier.connection import connect, raw_socket, sqlalchemy_engine
from applier.errors import AccessDenied, ApplierError, PreflightFailed, Unreachable, UsageError
from applier.sandbox import Server
from tests.dumps import address_of
from tests.proxy import FaultProxy

PASSWORD = "Grün & 4 all!"


@pytest.fixture
def account(source: Server) -> ServerAddress:
    """An account with a password that is not ASCII, and the server's default authentication."""
    source.execute("CREATE USER 'ada'@'%%' IDENTIFIED BY %s", (PASSWORD,))
    return address_of(source, user="ada", password=PASSWORD)


def fact(address: ServerAddress, sql: str) -> object:
    with connect(address) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        row = cursor.fetchone()
        assert row is not None
        return row[0]


def failure(address: ServerAddress, **timeouts: float) -> ApplierError:
    """The error of connecting; it never shows the password, neither itself nor what caused it."""
    with pytest.raises(ApplierError) as caught:
        connect(address, **timeouts)
    shown: BaseException | None = caught.value
    while shown is not None:
        assert not address.password or address.password not in f"{shown} {shown!r}"
        shown = shown.__cause__
    return caught.value


# --- what works ----------------------------------------------------------------------------------------


def test_password_of_caching_sha2_works_without_tls(source: Server, account: ServerAddress) -> None:
    plain = dataclasses.replace(account, tls=Tls(TlsMode.DISABLED))
    # The first connection proves the password in full, later ones from the server's cache.
    for _ in range(2):
        assert fact(plain, "SELECT USER()") == f"ada@{source.host}"
    with connect(plain) as connection:
        assert not isinstance(raw_socket(connection), ssl.SSLSocket)


@pytest.fixture
def remote(account: ServerAddress) -> ServerAddress:
    """The same server by an address that is not seen to be loopback: the system expands it, we do not."""
    return dataclasses.replace(account, host="127.1")


def test_tls_is_preferred_when_nothing_is_said(remote: ServerAddress) -> None:
    with connect(remote) as connection:
        assert isinstance(raw_socket(connection), ssl.SSLSocket)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_tls_is_left_out_on_loopback_when_nothing_is_said(account: ServerAddress, host: str) -> None:
    with connect(dataclasses.replace(account, host=host)) as connection:
        assert not isinstance(raw_socket(connection), ssl.SSLSocket)


def test_required_tls_encrypts(account: ServerAddress) -> None:
    required = dataclasses.replace(account, tls=Tls(TlsMode.REQUIRED))
    assert (
        fact(
            required,
            "SELECT variable_value <> '' FROM performance_schema.session_status "
            "WHERE variable_name = 'Ssl_cipher'",
        )
        == 1
    )


def test_account_that_demands_tls_is_refused_without(
    source: Server, account: ServerAddress, remote: ServerAddress
) -> None:
    source.execute("ALTER USER 'ada'@'%' REQUIRE SSL")
    assert fact(remote, "SELECT 1") == 1
    assert fact(dataclasses.replace(account, tls=Tls(TlsMode.REQUIRED)), "SELECT 1") == 1
    # On loopback such an account needs ssl-mode=REQUIRED said.
    assert type(failure(account)) is AccessDenied
    assert type(failure(dataclasses.replace(remote, tls=Tls(TlsMode.DISABLED)))) is AccessDenied


def test_certificate_is_checked_against_its_authority(source: Server, account: ServerAddress) -> None:
    ca = str(source.datadir / "ca.pem")
    checked = dataclasses.replace(account, tls=Tls(TlsMode.VERIFY_CA, ca=ca))
    assert fact(checked, "SELECT 1") == 1
    # The server's own certificate is for no host name.
    identified = failure(dataclasses.replace(account, tls=Tls(TlsMode.VERIFY_IDENTITY, ca=ca)))
    assert type(identified) is PreflightFailed
    assert "TLS with the source" in str(identified)
    unknown = failure(dataclasses.replace(account, tls=Tls(TlsMode.VERIFY_CA)))
    assert type(unknown) is PreflightFailed
    assert "certificate verify failed" in str(unknown)


def test_client_certificate_opens_an_account_that_demands_one(source: Server, account: ServerAddress) -> None:
    source.execute("ALTER USER 'ada'@'%' REQUIRE X509")
    assert type(failure(account)) is AccessDenied
    cert, key = (str(source.datadir / name) for name in ("client-cert.pem", "client-key.pem"))
    assert fact(dataclasses.replace(account, tls=Tls(cert=cert, key=key)), "SELECT 1") == 1


def test_socket_file_is_used_instead_of_host_and_port(source: Server, account: ServerAddress) -> None:
    local = dataclasses.replace(account, unix_socket=source.socket, host="no.such.host.invalid", port=1)
    source.execute("FLUSH PRIVILEGES")  # empties the cache of proven passwords
    with connect(local) as connection:
        assert raw_socket(connection).family == socket.AF_UNIX


def test_session_is_what_the_rest_relies_on(source: Server, account: ServerAddress) -> None:
    source.execute("CREATE DATABASE d")
    source.execute("GRANT SELECT ON d.* TO ada")
    address = dataclasses.replace(account, database="d")
    assert (
        fact(address, "SELECT CONCAT_WS(' ', @@autocommit, @@character_set_client, DATABASE())")
        == "1 utf8mb4 d"
    )
    with connect(address) as connection:
        named = source.execute(
            "SELECT attr_value FROM performance_schema.session_connect_attrs "
            "WHERE attr_name = 'program_name' AND processlist_id = %s",
            (connection.thread_id(),),
        )
        assert named == (("applier",),)
        sock = raw_socket(connection)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_multi_statements_are_off_unless_asked_for(account: ServerAddress) -> None:
    with (
        connect(account) as connection,
        connection.cursor() as cursor,
        pytest.raises(Exception, match="1064"),
    ):
        cursor.execute("SELECT 1; SELECT 2")
    with connect(account, multi_statements=True) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1; SELECT 2")
        assert cursor.nextset()


def test_engine_inspects_the_schema(source: Server, account: ServerAddress) -> None:
    source.execute("CREATE DATABASE d")
    source.execute("CREATE TABLE d.t (id INT PRIMARY KEY)")
    source.execute("GRANT SELECT ON d.* TO ada")
    engine = sqlalchemy_engine(account)
    try:
        assert PASSWORD not in repr(engine)
        assert sqlalchemy.inspect(engine).get_pk_constraint("t", schema="d")["constrained_columns"] == ["id"]
    finally:
        engine.dispose()


def test_url_and_option_file_together_are_enough(
    source: Server, account: ServerAddress, tmp_path: Path
) -> None:
    file = tmp_path / "my.cnf"
    file.write_text(
        f'[client]\nuser=nobody\n[applier-source]\nuser=ada\npassword="{PASSWORD}"\n', encoding="utf-8"
    )
    address = parse_url(
        f"mysql://{source.host}:{source.port}/?ssl-mode=DISABLED", "source", defaults_file=file
    )
    assert fact(address, "SELECT CURRENT_USER()") == "ada@%"


# --- what goes wrong -----------------------------------------------------------------------------------


def test_wrong_password_is_access_denied(account: ServerAddress) -> None:
    error = failure(dataclasses.replace(account, password="wrong-password"))
    assert type(error) is AccessDenied
    assert error.exit_code == 3
    assert str(error).startswith(f"The source {account.place} does not let user ada in: Access denied")


def test_locked_account_is_access_denied(source: Server, account: ServerAddress) -> None:
    source.execute("ALTER USER 'ada'@'%' ACCOUNT LOCK")
    assert type(failure(account)) is AccessDenied


def test_database_that_is_not_there_is_named(source: Server) -> None:
    error = failure(address_of(source, database="nowhere"))
    assert type(error) is PreflightFailed
    assert "has no database 'nowhere'" in str(error)


def test_port_without_a_server_is_unreachable(source: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    error = failure(address_of(source, port=port))
    assert type(error) is Unreachable
    assert error.exit_code == 75
    assert str(error) == f"The source 127.0.0.1:{port} cannot be reached: Connection refused"


def test_socket_file_without_a_server_is_unreachable(tmp_path: Path) -> None:
    error = failure(ServerAddress(unix_socket=str(tmp_path / "no.sock")))
    assert type(error) is Unreachable
    assert "no.sock cannot be reached: No such file or directory" in str(error)


def test_too_many_connections_are_temporary(source: Server, account: ServerAddress) -> None:
    source.execute("ALTER USER 'ada'@'%' WITH MAX_USER_CONNECTIONS 1")
    with connect(account):
        error = failure(account)
    assert type(error) is Unreachable
    assert error.exit_code == 75


def test_required_tls_is_refused_by_a_server_without(
    source: Server, account: ServerAddress, remote: ServerAddress
) -> None:
    source.execute("SET GLOBAL tls_version = ''")
    source.execute("ALTER INSTANCE RELOAD TLS NO ROLLBACK ON ERROR")
    try:
        assert fact(remote, "SELECT 1") == 1  # PREFERRED does without
        error = failure(dataclasses.replace(account, tls=Tls(TlsMode.REQUIRED)))
        assert type(error) is PreflightFailed
        assert "SSL is required" in str(error)
    finally:
        source.execute("SET GLOBAL tls_version = 'TLSv1.2,TLSv1.3'")
        source.execute("ALTER INSTANCE RELOAD TLS")


def test_missing_tls_file_is_a_usage_error(account: ServerAddress) -> None:
    with pytest.raises(UsageError, match=r"TLS files of the source cannot be used: .*No such file"):
        connect(dataclasses.replace(account, tls=Tls(TlsMode.VERIFY_CA, ca="/nowhere/ca.pem")))


@pytest.mark.parametrize("mode", [TlsMode.DISABLED, TlsMode.REQUIRED])
@pytest.mark.parametrize("byte_count", [1, 40, 100])
def test_link_that_breaks_during_the_handshake_is_unreachable(
    source: Server, mode: TlsMode, byte_count: int
) -> None:
    with FaultProxy(source.port) as proxy:
        proxy.cut_after(byte_count)
        error = failure(address_of(source, port=proxy.port, tls=Tls(mode)))
    assert type(error) is Unreachable


def test_silent_server_does_not_hang_us(source: Server) -> None:
    with FaultProxy(source.port) as proxy:
        proxy.stall()
        error = failure(address_of(source, port=proxy.port), connect_timeout_seconds=0.3)
    assert type(error) is Unreachable


GREETINGS = {
    "another protocol": b"SSH-2.0-OpenSSH_9.9\r\n",
    "an empty packet": b"\0\0\0\0",
    "a cut greeting": b"\x05\0\0\0\x0a9.7.",
    "a greeting of nonsense": b"\x20\0\0\0\x0a" + b"x" * 20 + b"\0" + b"y" * 10,
}


@pytest.mark.parametrize("greeting", GREETINGS.values(), ids=GREETINGS)
def test_server_of_another_kind_is_told_in_our_words(greeting: bytes) -> None:
    def greet() -> None:
        client, _ = listener.accept()
        with client:
            client.sendall(greeting)
            with contextlib.suppress(ConnectionError):
                client.recv(1000)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=greet)
        thread.start()
        error = failure(
            ServerAddress(host="127.0.0.1", port=port, role="source"), connect_timeout_seconds=0.5
        )
        thread.join(10)
    assert type(error) in (PreflightFailed, Unreachable)
    assert f"source 127.0.0.1:{port}" in str(error)
