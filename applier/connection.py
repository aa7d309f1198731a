"""Where a server is, and a connection to it; the same for source and target.

Errors of connecting come out as our own: AccessDenied, Unreachable, UnknownHost, PreflightFailed. None of
them, no log line and no repr ever shows a password.
"""

from __future__ import annotations

import enum
import getpass
import logging
import os
import socket
import ssl
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

import pymysql
from pymysql.constants import CLIENT

from applier.errors import AccessDenied, ApplierError, PreflightFailed, UnknownHost, Unreachable, UsageError
from applier.option_files import read_options

if TYPE_CHECKING:
    import sqlalchemy

log = logging.getLogger(__name__)

Role = Literal["source", "target"]

DEFAULT_PORT = 3306
CONNECT_TIMEOUT_SECONDS = 10.0
KEEPALIVE_IDLE_SECONDS, KEEPALIVE_INTERVAL_SECONDS, KEEPALIVE_PROBES = 30, 10, 6

SCHEMES = ("mysql", "mysql+pymysql")
URL_FORM = "mysql://user@host:port/?ssl-mode=REQUIRED"
URL_OPTIONS = frozenset({"socket", "ssl-mode", "ssl-ca", "ssl-capath", "ssl-cert", "ssl-key"})


class TlsMode(enum.Enum):
    """What `--ssl-mode` means to MySQL's own clients."""

    DISABLED = "DISABLED"
    PREFERRED = "PREFERRED"
    REQUIRED = "REQUIRED"
    VERIFY_CA = "VERIFY_CA"
    VERIFY_IDENTITY = "VERIFY_IDENTITY"


@dataclass(frozen=True, slots=True)
class Tls:
    """Paths of PEM files (`capath`: of a folder of them). Without `ca` and `capath`: the system's own."""

    mode: TlsMode = TlsMode.PREFERRED
    ca: str | None = None
    capath: str | None = None
    cert: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A server and the account to use there. `unix_socket`, when given, is used instead of host and port."""

    host: str = "localhost"
    port: int = DEFAULT_PORT
    user: str = "root"
    unix_socket: str | None = None
    database: str | None = None
    tls: Tls = Tls()
    role: Role = "target"
    password: str = field(default="", repr=False, compare=False)

    def __str__(self) -> str:
        """`user@host:port`, or `user@/path/of/socket`: for messages."""
        return f"{self.user}@{self.place}"

    @property
    def place(self) -> str:
        """`host:port`, or the path of the socket."""
        if self.unix_socket:
            return self.unix_socket
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


# --- from a URL ----------------------------------------------------------------------------------------


def parse_url(
    url: str, role: Role, defaults_file: str | Path | None = None, prompt: bool = True
) -> ServerAddress:
    """The address that `mysql://user@host:port/database?ssl-mode=…&ssl-ca=…&socket=…` names.

    What the URL leaves open comes from the option files (`defaults_file`, else the standard ones), where the
    group `[applier-<role>]` wins over `[client]`. The password is the first found of: the URL (with a
    warning), APPLIER_SOURCE_PASSWORD or APPLIER_TARGET_PASSWORD, the option files, MYSQL_PWD (this order is
    that of MySQL's own clients), and a prompt if `prompt` and standard input is a terminal; else it is empty.
    Raises UsageError.
    """
    fields, url_password = _split_url(url)
    options = _known(read_options(defaults_file, ["client", f"applier-{role}"]))
    merged = {**options, **fields}
    # A socket that an option file names must not take the place of a host that the URL names.
    if "host" in fields and "socket" not in fields:
        merged.pop("socket", None)
    user = merged.get("user") or _login_name()
    address = ServerAddress(
        host=merged.get("host") or "localhost",
        port=_port(merged["port"]) if merged.get("port") else DEFAULT_PORT,
        user=user,
        unix_socket=merged.get("socket") or None,
        database=merged.get("database") or None,
        tls=_tls(merged),
        role=role,
    )
    if url_password:
        log.warning(
            "The password of the %s is in its URL, where other users of this machine can read it. "
            "Better: the environment variable %s, or an option file with --defaults-file.",
            role,
            _password_variable(role),
        )
    password = url_password if url_password is not None else _password(address, options, prompt)
    return replace(address, password=password)


def _split_url(url: str) -> tuple[dict[str, str], str | None]:
    """What the URL says, by option name, and its password. Errors quote nothing that may be a password."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in SCHEMES:
        raise UsageError(detail=f"a server is given as {URL_FORM}: the URL does not start with mysql://")
    try:
        parts = urlsplit(f"mysql://{rest}")
        port = parts.port
        host = parts.hostname
    except ValueError:
        raise UsageError(detail=f"the URL is not of the form {URL_FORM}: {_ENCODE_HINT}") from None
    if "@" in parts.query + parts.path + parts.fragment or parts.fragment or parts.netloc.count("@") > 1:
        raise UsageError(detail=f"the URL is not of the form {URL_FORM}: {_ENCODE_HINT}")
    database = unquote(parts.path.removeprefix("/"))
    if "/" in database:
        raise UsageError(detail=f"the URL is not of the form {URL_FORM}: it has more than one path component")
    fields = _url_options(parts.query)
    given = {
        "user": unquote(parts.username or ""),
        "host": unquote(host or ""),
        "port": str(port) if port is not None else "",
        "database": database,
    }
    fields |= {name: value for name, value in given.items() if value}
    return fields, None if parts.password is None else unquote(parts.password)


_ENCODE_HINT = (
    "check host and port (1 to 65535), an IPv6 address needs [brackets], and any of : / ? # @ % [ ] in a "
    "user name or password must be percent-encoded"
)


def _url_options(query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for raw_name, value in parse_qsl(query, keep_blank_values=True):
        name = raw_name.replace("_", "-")
        if name not in URL_OPTIONS:
            known = ", ".join(sorted(URL_OPTIONS))
            raise UsageError(detail=f"the URL has an unknown option {raw_name!r}; there are {known}")
        if name in options:
            raise UsageError(detail=f"the URL gives {name} twice")
        options[name] = value
    return options


def _known(options: Mapping[str, str]) -> dict[str, str]:
    """Those of an option file's options that concern us: other clients' options may stand there too."""
    names = URL_OPTIONS | {"host", "port", "user", "password"}
    return {name: value for name, value in options.items() if name in names}


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise UsageError(detail=f"the port must be a number from 1 to 65535, not {text!r}")
    return int(text)


def _tls(options: Mapping[str, str]) -> Tls:
    ca, capath = options.get("ssl-ca") or None, options.get("ssl-capath") or None
    # Who names a certificate authority wants it to be checked: MySQL's own clients do the same.
    default = TlsMode.VERIFY_CA if ca or capath else TlsMode.PREFERRED
    name = options.get("ssl-mode") or default.value
    try:
        mode = TlsMode(name.upper())
    except ValueError:
        modes = ", ".join(known.value for known in TlsMode)
        raise UsageError(detail=f"ssl-mode must be one of {modes}, not {name!r}") from None
    return Tls(mode, ca, capath, options.get("ssl-cert") or None, options.get("ssl-key") or None)


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        raise UsageError(detail=f"no user is given: write {URL_FORM}") from None


def _password_variable(role: Role) -> str:
    return f"APPLIER_{role.upper()}_PASSWORD"


def _password(address: ServerAddress, options: Mapping[str, str], prompt: bool) -> str:
    own = os.environ.get(_password_variable(address.role))
    if own is not None:
        return own
    if "password" in options:
        return options["password"]
    anyones = os.environ.get("MYSQL_PWD")
    if anyones is not None:
        return anyones
    if prompt and sys.stdin is not None and sys.stdin.isatty():
        return getpass.getpass(f"Password of {address.user} on the {address.role} {address.place}: ")
    return ""


# --- a connection --------------------------------------------------------------------------------------

Connection = pymysql.connections.Connection


def connect(
    address: ServerAddress,
    *,
    connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
    read_timeout_seconds: float | None = None,
    write_timeout_seconds: float | None = None,
    multi_statements: bool = False,
    init_command: str | None = None,
) -> Connection[Any]:
    """A connection in autocommit mode and utf8mb4, with TCP_NODELAY and keepalive.

    `connect_timeout_seconds` bounds each wait of the handshake too, so that a server that accepts and then is
    silent cannot hang us. Raises AccessDenied, Unreachable (UnknownHost) or PreflightFailed.
    """
    try:
        connection: Connection[Any] = pymysql.connect(
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
            init_command=init_command,
            program_name="applier",
            **_tls_arguments(address),
        )
    except (pymysql.err.MySQLError, ssl.SSLError, OSError, RuntimeError) as error:
        raise connection_error(address, error) from error
    vars(connection).update(_read_timeout=read_timeout_seconds, _write_timeout=write_timeout_seconds)
    _tune_keepalive(raw_socket(connection))
    return connection


def raw_socket(connection: Connection[Any]) -> socket.socket:
    """The socket below (an `ssl.SSLSocket` under TLS); the one place that reaches into PyMySQL for it."""
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
        creator=lambda: connect(address),
        isolation_level="AUTOCOMMIT",
        pool_pre_ping=True,
    )


def _tls_arguments(address: ServerAddress) -> dict[str, Any]:
    """PyMySQL's arguments. Without any it uses TLS where the server offers it, which is PREFERRED."""
    tls = address.tls
    if tls.mode is TlsMode.DISABLED:
        return {"ssl_disabled": True}
    if tls.mode is TlsMode.PREFERRED and address.unix_socket:
        return {"ssl_disabled": True}  # nobody listens on a socket file: as MySQL's own clients
    if tls.mode is TlsMode.PREFERRED and not tls.cert:
        return {}
    try:
        return {"ssl": _tls_context(tls)}
    except (OSError, ssl.SSLError) as error:
        raise UsageError(detail=f"the TLS files of the {address.role} cannot be used: {error}") from None


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


def _tune_keepalive(sock: socket.socket) -> None:
    """Notice a peer that vanished without a word in 90 s instead of the system's two hours."""
    if sock.family == socket.AF_UNIX:
        return
    for name, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE_SECONDS),
        ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_SECONDS),
        ("TCP_KEEPCNT", KEEPALIVE_PROBES),
    ):
        if hasattr(socket, name):  # not every system has all three
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


# --- its errors ----------------------------------------------------------------------------------------

# Server error codes (manual, "Server Error Message Reference").
ACCESS_DENIED = frozenset({1044, 1045, 1130, 1698, 1820, 1862, 3118, 3955})
# Too many connections, of all or of one user; shutting down; lost during the handshake; offline mode.
UNREACHABLE_NOW = frozenset({1040, 1053, 1077, 1152, 1203, 1226, 2003, 2006, 2013, 3032})
UNKNOWN_DATABASE = 1049


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
    return PreflightFailed(detail=f"the {address.role} {address.place} refused the connection: {message}")


def _system_error(address: ServerAddress, error: OSError, facts: dict[str, str]) -> ApplierError:
    if isinstance(error, ssl.SSLError):
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
