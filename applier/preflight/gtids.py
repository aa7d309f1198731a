"""Checks of GTIDs: is the log that the target still needs there, and does the target fit to it."""

from __future__ import annotations

from collections.abc import Iterable

import pymysql

from applier.preflight.facts import NOT_TO_BE_SEEN, Server, Situation
from applier.preflight.findings import Finding, failure, ok, warning
from applier.verify.position import channels

SHOWN_CHARACTERS_MAX = 300


def modes(it: Situation) -> Iterable[Finding]:
    for server in it.servers:
        needed = server.role == "source" or it.requirements.gtids != "own"
        yield from _mode(server, needed)


def _mode(server: Server, needed: bool) -> Iterable[Finding]:
    bad = failure if needed else warning
    mode, enforced = server.variable("gtid_mode"), server.variable("enforce_gtid_consistency")
    if mode == "ON":
        yield ok(f"{server.role}.gtid_mode", mode)
    else:
        yield bad(
            f"{server.role}.gtid_mode",
            f"{mode or 'unknown'}, not ON",
            "SET PERSIST enforce_gtid_consistency = ON; SET PERSIST gtid_mode = OFF_PERMISSIVE; "
            "SET PERSIST gtid_mode = ON_PERMISSIVE; SET PERSIST gtid_mode = ON",
        )
    if enforced == "ON":
        yield ok(f"{server.role}.enforce_gtid_consistency", enforced)
    else:
        yield bad(
            f"{server.role}.enforce_gtid_consistency",
            f"{enforced or 'unknown'}, not ON",
            "SET PERSIST enforce_gtid_consistency = ON",
        )


def errant(it: Situation) -> Iterable[Finding]:
    """Transactions of the target that the source does not have."""
    if it.requirements.gtids == "own":
        return
    own = it.subtract(it.target_executed, it.source_executed)
    if not own:
        yield ok("gtids.errant", "everything that the target has executed comes from the source")
        return
    bad = warning if it.requirements.allow_errant else failure
    yield bad(
        "gtids.errant",
        f"the target has transactions that the source does not have: {_short(own)}",
        "on the source, for each of them: SET gtid_next = 'uuid:number'; BEGIN; COMMIT; "
        "SET gtid_next = 'AUTOMATIC'  -- or, if the target holds no data yet, on the target: "
        + ("RESET BINARY LOGS AND GTIDS" if it.target.version >= (8, 2, 0) else "RESET MASTER"),
    )


def purged(it: Situation) -> Iterable[Finding]:
    """Transactions that the target lacks and that the source's log no longer has."""
    gone = it.subtract(it.source.variable("gtid_purged").replace("\n", ""), it.target_executed)
    gone = it.subtract(gone, it.requirements.received)
    if gone:
        yield failure(
            "gtids.purged",
            f"the source has purged binary logs with transactions that the target lacks: {_short(gone)}",
            "copy the data again (applier migrate), or restore the binary logs on the source",
        )
    else:
        yield ok("gtids.purged", "the source still has every transaction that the target lacks")


def applied_otherwise(it: Situation) -> Iterable[Finding]:
    """An earlier run in groups may have applied transactions that gtid_executed does not tell of."""
    if it.requirements.gtids != "kept":
        return
    untold = it.subtract(it.target_progress, it.target_executed)
    # A channel of another source is none of our business.
    untold = it.subtract(untold, it.subtract(untold, it.source_executed))
    if untold:
        yield failure(
            "gtids.progress",
            f"an earlier run has applied transactions that gtid_executed lacks: {_short(untold)}; keeping GTIDs one "
            "by one would apply them again",
            f"go on as that run was begun; or, on the target: SET GLOBAL gtid_purged = '+{untold}'",
        )
    else:
        yield ok("gtids.progress", "gtid_executed tells everything that is applied")


def missing(it: Situation) -> Iterable[Finding]:
    behind = it.subtract(it.source_executed, it.target_executed)
    yield ok("gtids.behind", f"the target lacks {_short(behind)}" if behind else "the target lacks nothing")


def _short(gtid_set: str) -> str:
    if len(gtid_set) <= SHOWN_CHARACTERS_MAX:
        return gtid_set
    return f"{gtid_set[:SHOWN_CHARACTERS_MAX]}… ({len(gtid_set)} characters)"


def chained(it: Situation) -> Iterable[Finding]:
    """The progress rows of an applier that writes into the source come with its log, into the table that ours is in."""
    if it.requirements.gtids == "kept":
        return
    channel = it.requirements.channel
    try:
        there = channels(it.source.session)
    except pymysql.MySQLError as error:
        if error.args[0] not in NOT_TO_BE_SEEN:
            raise
        # The usual account of a replay may not read them.
        yield ok(
            "gtids.chained", "progress rows of the source, if there are any, are not for this account to see"
        )
        return
    if channel in there:
        yield failure(
            "gtids.chained",
            f"an applier writes into the source, or did, and its progress row has the channel {channel!r} too: "
            "replayed here, it would take the place of our own",
            "--channel with another name, one for each applier of a chain",
        )
    else:
        yield ok("gtids.chained", "no progress row of the source is in the way of ours")
