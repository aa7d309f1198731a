"""Who we are to the source: a server id that nobody else has, a UUID, and an entry in SHOW REPLICAS."""

from __future__ import annotations

import random
import socket
import struct
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import pymysql

from applier.connection import Connection, ServerAddress, error_code, error_message
from applier.errors import PreflightFailed
from applier.source.refusal import source_error

SERVER_ID_MAX = 0xFFFF_FFFF
TEXT_BYTES_MAX = 60  # what the source keeps of a host name; a longer one is an error there


@dataclass(frozen=True, slots=True)
class ReplicaIdentity:
    """Chosen once a run and kept over reconnects: by the UUID the source finds the dead dump of a lost
    link.
    """

    server_id: int
    uuid: str
    host: str
    port: int = 0

    @classmethod
    def choose(
        cls,
        source: Connection[Any],
        address: ServerAddress,
        taken: Collection[int] = (),
        server_id: int | None = None,
        chance: random.Random | None = None,
    ) -> ReplicaIdentity:
        """An identity with a server id that neither the source, nor its replicas, nor `taken` have.

        `taken`: server ids of other servers that must not be met, the target's above all. `server_id`: the
        one that the user wants; PreflightFailed if another server has it. Without it, a random one.
        """
        in_use = {*taken, *server_ids(source, address)}
        if server_id is not None and server_id in in_use:
            raise PreflightFailed(
                detail=f"server id {server_id} is already in use in this replication: choose another, or none"
            )
        chance = chance or random.SystemRandom()
        while server_id is None or server_id in in_use:
            server_id = chance.randint(1, SERVER_ID_MAX)
        return cls(server_id, str(uuid.uuid4()), socket.gethostname()[:TEXT_BYTES_MAX])


def server_ids(source: Connection[Any], address: ServerAddress) -> set[int]:
    """The server ids of the source and of the replicas that are registered with it."""
    try:
        with source.cursor() as cursor:
            cursor.execute("SELECT @@global.server_id, VERSION()")
            row = cursor.fetchone()
            assert row is not None
            cursor.execute(
                "SHOW REPLICAS" if server_version(str(row[1])) >= (8, 0, 22) else "SHOW SLAVE HOSTS"
            )
            return {int(row[0]), *(int(replica[0]) for replica in cursor.fetchall())}
    except pymysql.err.MySQLError as error:
        raise source_error(address, error_code(error), error_message(error)) from error


def server_version(text: str) -> tuple[int, ...]:
    """(9, 7, 0) of "9.7.0-debug"."""
    return tuple(int(number) for number in text.partition("-")[0].split(".")[:3])


def registration_packet(identity: ReplicaIdentity) -> bytes:
    """The payload of COM_REGISTER_SLAVE, without its command byte. User and password are left out."""
    host = identity.host.encode("ascii", "replace")[:TEXT_BYTES_MAX]
    # server id; host; user; password; port; replication rank (unused); source id (filled in by the source)
    return struct.pack(
        f"<IB{len(host)}sBBHII", identity.server_id, len(host), host, 0, 0, identity.port, 0, 0
    )
