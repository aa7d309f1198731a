"""Where a server is, and the account to use there; the same for source and target.

Passwords never show: not in a message, a log line or a repr.
"""

from __future__ import annotations

import enum
import getpass
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from applier.errors import UsageError
from applier.option_files import read_options

log = logging.getLogger(__name__)

Role = Literal["source", "target"]

DEFAULT_PORT = 3306

SCHEMES = ("mysql", "mysql+pymysql")
URL_FORM = "mysql://user@host:port/?ssl-mode=REQUIRED"
URL_OPTIONS = frozenset({"socket", "ssl-mode", "ssl-ca", "ssl-capath", "ssl-cert", "ssl-key"})


class TlsMode(enum.Enum):
    """What `--ssl-mode` means to MySQL's own clients, but that PREFERRED does without TLS on loopback.

    Where a loopback port is the near end of a plain-text forwarder to another machine, say REQUIRED.
    """

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
    channel: str | None = field(default=None, compare=False)  # named in the attributes of the session
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


def _credential(role: Role) -> str | None:
    """From a file that systemd (LoadCredential) or a container puts there: CREDENTIALS_DIRECTORY/source-password."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        return None
    file = Path(folder) / f"{role}-password"
    try:
        return file.read_text(encoding="utf-8").rstrip("\r\n")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(detail=f"the password file {file} cannot be read: {reason}") from None


def _password(address: ServerAddress, options: Mapping[str, str], prompt: bool) -> str:
    own = os.environ.get(_password_variable(address.role))
    if own is not None:
        return own
    handed = _credential(address.role)
    if handed is not None:
        return handed
    if "password" in options:
        return options["password"]
    anyones = os.environ.get("MYSQL_PWD")
    if anyones is not None:
        return anyones
    if prompt and sys.stdin is not None and sys.stdin.isatty():
        return getpass.getpass(f"Password of {address.user} on the {address.role} {address.place}: ")
    return ""
