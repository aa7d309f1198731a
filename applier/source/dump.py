"""The commands that make a source send its binary log, and the session state that they need.

Packet layouts: MySQL source code documentation, "Replication Protocol".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from applier.connection import Connection, read_ok, send_command
from applier.events.gtid import GtidSet
from applier.source.registration import ReplicaIdentity, registration_packet

COM_BINLOG_DUMP = 0x12
COM_REGISTER_SLAVE = 0x15
COM_BINLOG_DUMP_GTID = 0x1E

DUMP_NON_BLOCK = 0x01
DUMP_THROUGH_GTID = 0x04
LOG_START_POSITION = 4  # after the magic number

# How long the source waits for us to take bytes. The flow is held up while the target runs a long DDL, and
# the default of 60 s would break the link each time.
NET_WRITE_TIMEOUT_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class FromGtids:
    """Everything that is not in `executed`."""

    executed: GtidSet


@dataclass(frozen=True, slots=True)
class FromFile:
    """From a byte position of a binary log file on: 4, or the end of an event. Positions are below 4 GiB."""

    file: str
    position: int = LOG_START_POSITION


Start = FromGtids | FromFile


def prepare_session(connection: Connection[Any], identity: ReplicaIdentity, heartbeat_seconds: float) -> None:
    """Say what we understand, how often we want a heartbeat, and who we are. Raises PyMySQL's errors."""
    heartbeat_ns = round(heartbeat_seconds * 1e9)
    with connection.cursor() as cursor:
        # Servers since 8.0.26 know the variables by the names with source and replica, older ones by the
        # others.
        cursor.execute(
            "SET @source_binlog_checksum = @@global.binlog_checksum, "
            "@master_binlog_checksum = @@global.binlog_checksum, "
            "@source_heartbeat_period = %s, @master_heartbeat_period = %s, "
            "@replica_uuid = %s, @slave_uuid = %s, "
            "SESSION net_write_timeout = %s",
            (heartbeat_ns, heartbeat_ns, identity.uuid, identity.uuid, NET_WRITE_TIMEOUT_SECONDS),
        )
    send_command(connection, COM_REGISTER_SLAVE, registration_packet(identity))
    read_ok(connection)


def request_dump(connection: Connection[Any], start: Start, server_id: int, non_blocking: bool) -> None:
    """Ask for the log. What the server sends from now on is the log, and the connection is good for nothing
    else.
    """
    flags = DUMP_NON_BLOCK if non_blocking else 0
    if isinstance(start, FromFile):
        payload = struct.pack("<IHI", start.position, flags, server_id) + start.file.encode()
        send_command(connection, COM_BINLOG_DUMP, payload)
        return
    executed = start.executed.encode()
    # flags; server id; length of the file name (none: the GTID set decides); position; GTID set
    header = struct.pack("<HIIQI", flags | DUMP_THROUGH_GTID, server_id, 0, LOG_START_POSITION, len(executed))
    send_command(connection, COM_BINLOG_DUMP_GTID, header + executed)
