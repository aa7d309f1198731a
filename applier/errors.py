"""Every error the applier raises, as one tree.

The docstring of a class is its message: `str(error)` is the docstring with the attributes filled in.
`exit_code` is what the command line ends with.
"""

from __future__ import annotations

from typing import Any, ClassVar


class ApplierError(Exception):
    """The applier failed: {detail}"""

    exit_code: ClassVar[int] = 1

    def __init__(self, **facts: Any) -> None:
        self.facts = facts
        for name, value in facts.items():
            setattr(self, name, value)
        super().__init__(facts)

    def __str__(self) -> str:
        template = type(self).__doc__ or type(self).__name__
        # One line, whatever the facts are: a server's message may quote a statement of many.
        return " ".join(template.format_map(self.facts).split())


class UnexpectedFailure(ApplierError):
    """Unexpected failure, please report it: {detail}"""


class UsageError(ApplierError):
    """{detail}"""

    exit_code = 2


class PreflightFailed(ApplierError):
    """The preconditions do not hold: {detail}"""

    exit_code = 3


class DataError(ApplierError):
    """Stopped: {detail}"""

    exit_code = 4


class Temporary(ApplierError):
    """Gave up after {attempts} attempts: {detail}"""

    exit_code = 75


# --- bytes that are not what they claim to be ---------------------------------------------------------


class CorruptEvent(DataError):
    """Corrupt event in the binary log at {place}: {detail}. Nothing from this event on was applied.
    Check the source's disk and network, then start again: the applier resumes after the last
    committed transaction."""


class TooLargeForMemory(DataError):
    """What is known of {what} at {place} needs more than the {limit_bytes} bytes that --memory-max leaves for
    queues and buffers. Nothing from this transaction on was applied. Start again with a larger --memory-max."""


class UnsupportedEvent(DataError):
    """Event type {event_type} at {place} is not known to this version and is not flagged ignorable.
    Nothing from this transaction on was applied."""


# --- connecting, to either side ------------------------------------------------------------------------


class AccessDenied(PreflightFailed):
    """The {role} {place} does not let user {user} in: {detail}"""


class Unreachable(Temporary):
    """The {role} {place} cannot be reached: {detail}"""


class UnknownHost(Unreachable):
    """The {role}'s host name {host!r} is not known: {detail}"""

    exit_code = 3


class LinkLost(ApplierError):
    """The connection to the {role} was lost: {detail}. The applier connects again and goes on after the last
    committed transaction."""

    exit_code = 75


# --- the source ----------------------------------------------------------------------------------------


class SourceError(ApplierError):
    """The source refused: {detail}"""

    exit_code = 3


class SourceLost(Temporary):
    """The connection to the source was lost and did not come back within {attempts} attempts: {detail}"""


class TargetAhead(SourceError):
    """The target has transactions of the source that the source itself does not have: {detail}. They were lost on
    the source, or this is another server. Copy the data again (applier migrate), or check the URL."""


class EncryptedLog(SourceError):
    """The binary log {file} is encrypted and cannot be read from disk. Read it from the server, which decrypts it
    (give the source's URL), or turn binlog_encryption off and rotate the log."""


class PurgedTransactions(SourceError):
    """The source has purged binary logs that the target still needs: {detail}. Copy the data again
    (applier migrate), or restore the missing binary logs on the source."""


class SourceBehind(LinkLost):
    """The source {place} does not have everything that was already received: {detail}. It is a replica that may still
    get it."""


class SourceDiverged(SourceError):
    """The source {place} cannot take over: it lacks transactions that the target has or is going to get: {detail}. They
    were lost at a failover, or this server belongs to another replication. Copy the data again (applier migrate),
    or check the --source URLs."""


class SourceChanged(LinkLost):
    """The source is another server now, {place}, which logs other things: what was read of tables is read again."""


# --- the relay log -------------------------------------------------------------------------------------


class RelayLogTaken(PreflightFailed):
    """Another applier uses the relay log in {directory}. Stop it first, or choose another --relay-log."""


class RelayLogMismatch(PreflightFailed):
    """The relay log in {directory} does not fit the target: before {file} the target lacks transactions {missing}.
    It was written for another target, or this one was restored from a backup. Choose another --relay-log, or
    remove its files: what is missing is then received again."""


class RelayLogFailed(ApplierError):
    """The relay log {file} cannot be used: {detail}. What was received before is applied. Mend the disk and start
    again."""

    exit_code = 75


class RelayLogCorrupt(DataError):
    """The relay log is damaged at {file}:{offset}: {detail}. Nothing from there on was applied. Check the disk, remove
    the files of the relay log in {directory} and start again: what the target lacks is received again."""


# --- the target ----------------------------------------------------------------------------------------


class TargetLost(Temporary):
    """The connection to the target was lost and did not come back within {attempts} attempts: {detail}"""


class ChannelTaken(PreflightFailed):
    """Another applier works on channel {channel} of the target {place}. Stop it first, or choose another --channel."""


class MigrationTaken(PreflightFailed):
    """Another process works on migration {name!r} into {place}. Wait for it or stop it; `applier migrate status` shows
    what it does."""


class Refused(PreflightFailed):
    """The {role} refused a statement: {detail}"""


class SwitchUndone(ApplierError):
    """The {name} failed at the step "{step}": {detail}. Everything is undone: clients write to the
    {origin} as before."""

    exit_code = 75


class SwitchHalfway(DataError):
    """The {name} failed at the step "{step}": {detail}. Not undone: {left}. The same command again goes on with it,
    `applier migrate rollback` goes back."""


class Fenced(DataError):
    """Another applier has taken over channel {channel}: this one has stopped and committed nothing since."""


class RetriesExhausted(Temporary):
    """Gave up on transaction {gtid} after {attempts} attempts: {detail}. Everything before it is committed, nothing
    after it. Find out who holds the lock on the target, then start again."""


class ApplyError(DataError):
    """Transaction {gtid} could not be applied: {detail}. Everything before it is committed, nothing
    after it."""


# --- comparing -----------------------------------------------------------------------------------------


class NotComparable(ApplierError):
    """Source and target could not be compared: {detail}"""

    exit_code = 75
