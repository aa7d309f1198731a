"""A connection to a server; the same for source and target.

Errors of connecting come out as our own: AccessDenied, Unreachable, UnknownHost, PreflightFailed. None of
them shows a password.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pymysql
from pymysql.constants import CLIENT

from applier.address import Role, ServerAddress, Tls, TlsMode, parse_url
from applier.errors import AccessDenied, ApplierError, PreflightFailed, UnknownHost, Unreachable, UsageError

if TYPE_CHECKING:
    import sqlalchemy

__all__ = [
    "Connection",
    "Role",
    "ServerAddress",
    "connect",
    "connection_error",
    "drop",
    "error_code",
    "error_message",
    "parse_url",
    "raw_socket",
    "read_ok",
    "send_command",
    "sqlalchemy_engine",
]

CONNECT_TIMEOUT_SECONDS = 10.0
# Globals of the server that would change what we read and whether it is committed. PyMySQL believes the greeting, which
# says autocommit whatever the global is.
INIT_COMMAND = "SET SESSION autocommit = 1, sql_select_limit = 18446744073709551615"
SCHEMA_TIMEOUT_SECONDS = 60.0  # of each answer when schemas are inspected: a link may go silent and stay open
KEEPALIVE_IDLE_SECONDS, KEEPALIVE_INTERVAL_SECONDS, KEEPALIVE_PROBES = 30, 10, 6

Connection = pymysql.connections.Connection


def connect(
    address: ServerAddress,
    *,
    connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
    read_timeout_seconds: float | None = None,
    write_timeout_seconds: float | None = None,
    multi_statements: bool = False,
    local_files: bool = False,
    attributes: Mapping[str, str] | None = None,
) -> Connection[Any]:
    """A connection in autocommit mode and utf8mb4, with TCP_NODELAY and keepalive; `attributes` are for all to read.

    `local_files`: the server may ask for the data of LOAD DATA LOCAL; who sends that statement answers it.
    `connect_timeout_seconds` bounds each wait of the handshake too, so that a server that accepts and then is
    silent cannot hang us. Raises AccessDenied, Unreachable (UnknownHost) or PreflightFailed.
    """
    try:
        connection: Connection[Any] = pymysql.connect(
            defer_connect=True,
            host=address.host,
            port=address.port,
            unix_socket=address.unix_socket,
            user=address.user,
            password=address.password.encode(),  # the server compares bytes; PyMySQL would encode latin1
            database=address.database,
            charset="utf8mb4",
            autocommit=True,
            connect_timeout=connect_timeout_seconds,
            read_timeout=connect_timeout_seconds,
            write_timeout=connect_timeout_seconds,
            client_flag=CLIENT.MULTI_STATEMENTS if multi_statements else 0,
            init_command=INIT_COMMAND,
            local_infile=local_files,
            program_name="applier",
            **_tls_arguments(address),
        )
        vars(connection)["_connect_attrs"].update(attributes or {})
        if address.unix_socket:
            # What PyMySQL notes when it opens the file itself: nobody listens, a password may go as it is.
            vars(connection)["_secure"] = True
        if address.channel is not None:  # by which the next run finds what this one leaves
            vars(connection)["_connect_attrs"]["applier_channel"] = address.channel
        connection.connect(_open_socket(address, connect_timeout_seconds))
    except (pymysql.err.MySQLError, OSError, RuntimeError, *NOT_THE_PROTOCOL) as error:
        raise connection_error(address, error) from error
    vars(connection).update(_read_timeout=read_timeout_seconds, _write_timeout=write_timeout_seconds)
    return connection


def raw_socket(connection: Connection[Any]) -> socket.socket:
    """The socket below, an `ssl.SSLSocket` under TLS."""
    sock: socket.socket = vars(connection)["_sock"]
    return sock


def send_command(connection: Connection[Any], command: int, payload: bytes) -> None:
    """Send a command that PyMySQL has no method for."""
    connection._execute_command(command, payload)  # type: ignore[attr-defined]


def read_ok(connection: Connection[Any]) -> None:
    """Wait for the answer of such a command; raises PyMySQL's error when it is one."""
    connection._read_ok_packet()  # type: ignore[attr-defined]


def drop(connection: Connection[Any]) -> None:
    """Close without a word to the server, which may be gone or busy sending; never raises."""
    connection._force_close()  # type: ignore[attr-defined]


def sqlalchemy_engine(address: ServerAddress) -> sqlalchemy.Engine:
    """An engine whose connections are those of `connect`; for schema inspection, not for the flow."""
    import sqlalchemy

    return sqlalchemy.create_engine(
        sqlalchemy.URL.create("mysql+pymysql", database=address.database),
        creator=lambda: connect(
            address,
            read_timeout_seconds=SCHEMA_TIMEOUT_SECONDS,
            write_timeout_seconds=SCHEMA_TIMEOUT_SECONDS,
        ),
        isolation_level="AUTOCOMMIT",
        pool_pre_ping=True,
    )


def _tls_arguments(address: ServerAddress) -> dict[str, Any]:
    """PyMySQL's arguments. Without any it uses TLS where the server offers it, which is PREFERRED."""
    tls = address.tls
    if tls.mode is TlsMode.DISABLED:
        return {"ssl_disabled": True}
    if tls.mode is TlsMode.PREFERRED and not tls.cert:  # who names a certificate wants it to be shown
        # Nobody else listens on a socket file or on loopback, and TLS costs a third of the throughput.
        return {"ssl_disabled": True} if address.unix_socket or is_loopback(address.host) else {}
    try:
        return {"ssl": _tls_context(tls)}
    except (OSError, ssl.SSLError) as error:
        raise UsageError(detail=f"the TLS files of the {address.role} cannot be used: {error}") from None


def is_loopback(host: str) -> bool:
    """Whether `host` names this machine without a look-up."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _tls_context(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=tls.ca, capath=tls.capath)
    # The certificates that a MySQL server makes for itself lack extensions that the strict check demands.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.check_hostname = tls.mode is TlsMode.VERIFY_IDENTITY
    verify = tls.mode in (TlsMode.VERIFY_CA, TlsMode.VERIFY_IDENTITY)
    context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    if tls.cert:
        context.load_cert_chain(tls.cert, keyfile=tls.key)
    return context


def _open_socket(address: ServerAddress, timeout_seconds: float) -> socket.socket:
    """A socket that is connected; PyMySQL would leak the one whose connecting fails."""
    if address.unix_socket:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.settimeout(timeout_seconds)
            sock.connect(address.unix_socket)
        except BaseException:
            sock.close()
            raise
        return sock
    sock = socket.create_connection((address.host, address.port), timeout_seconds)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # Notice a peer that vanished without a word in 90 s instead of the system's two hours.
    for name, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE_SECONDS),
        ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_SECONDS),
        ("TCP_KEEPCNT", KEEPALIVE_PROBES),
    ):
        if hasattr(socket, name):  # not every system has all three
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return sock


# --- its errors ----------------------------------------------------------------------------------------

# Server error codes (manual, "Server Error Message Reference").
ACCESS_DENIED = frozenset({1044, 1045, 1130, 1698, 1820, 1862, 3118, 3955})
# Too many connections, of all or of one user; shutting down; lost during the handshake; offline mode.
UNREACHABLE_NOW = frozenset({1040, 1053, 1077, 1152, 1203, 1226, 2003, 2006, 2013, 3032})
UNKNOWN_DATABASE = 1049
# What PyMySQL stumbles with over a greeting that is none.
NOT_THE_PROTOCOL = (AssertionError, IndexError, ValueError, struct.error)


def connection_error(address: ServerAddress, error: Exception) -> ApplierError:
    """What an error of connecting (PyMySQL's or the system's) means. The message has no password."""
    facts = {"role": address.role, "place": address.place, "user": address.user}
    cause = getattr(error, "original_exception", error)
    if isinstance(cause, OSError):
        return _system_error(address, cause, facts)
    code, message = error_code(error), error_message(error)
    if code in ACCESS_DENIED:
        return AccessDenied(code=code, detail=message, **facts)
    if code in UNREACHABLE_NOW:
        return Unreachable(detail=message, **facts)
    if code == UNKNOWN_DATABASE:
        message = f"it has no database {address.database!r}"
    elif code == 0:
        message = f"it does not speak as a MySQL server does ({message})"
    return PreflightFailed(detail=f"the {address.role} {address.place} refused the connection: {message}")


def _system_error(address: ServerAddress, error: OSError, facts: dict[str, str]) -> ApplierError:
    cut_off = (ssl.SSLEOFError, ssl.SSLZeroReturnError)  # a broken link, not a certificate that we refuse
    if isinstance(error, ssl.SSLError) and not isinstance(error, cut_off):
        return PreflightFailed(detail=f"TLS with the {address.role} {address.place} failed: {error}")
    if isinstance(error, socket.gaierror) and error.errno != socket.EAI_AGAIN:
        return UnknownHost(host=address.host, detail=error.strerror, **facts)
    return Unreachable(detail=error.strerror or str(error) or type(error).__name__, **facts)


def error_code(error: BaseException) -> int:
    """The server's error number; 0 when the error has none."""
    code = error.args[0] if error.args else 0
    return code if isinstance(code, int) else 0


def error_message(error: BaseException) -> str:
    """The server's words, without the number."""
    return str(error.args[1]) if len(error.args) > 1 else str(error)
