"""Global transaction identifiers and sets of them, tagged ones (MySQL 8.3 and later) included.

Parsing, printing and arithmetic follow the server: `GTID_SUBSET`, `GTID_SUBTRACT`, `@@gtid_executed`.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from uuid import UUID

from applier.errors import CorruptEvent, UsageError

GNO_MAX = (1 << 63) - 2
"""The largest transaction number: the server keeps the last value of a signed 64-bit integer for itself."""

_TAG = re.compile(r"[a-z_][a-z0-9_]{0,31}")
_INTERVAL = re.compile(r"(\d{1,19})(?:\s*-\s*(\d{1,19}))?")
_TAGGED_FORMAT = 1

Interval = tuple[int, int]
"""First transaction number, and the one after the last."""

_Key = tuple[bytes, str]


@dataclass(frozen=True, slots=True, order=True)
class Gtid:
    """One transaction's identifier: source `uuid`, `tag` (empty when untagged), number `gno` from 1."""

    uuid: UUID
    tag: str
    gno: int

    @classmethod
    def parse(cls, text: str) -> Gtid:
        """Reads `uuid:gno` or `uuid:tag:gno`. Raises UsageError."""
        parsed = list(GtidSet.parse(text).sources())
        if len(parsed) != 1 or len(parsed[0][2]) != 1 or parsed[0][2][0][1] - parsed[0][2][0][0] != 1:
            raise UsageError(detail=f"{text!r} is not one GTID")
        uuid, tag, intervals = parsed[0]
        return cls(uuid, tag, intervals[0][0])

    def __str__(self) -> str:
        return f"{self.uuid}:{self.tag}:{self.gno}" if self.tag else f"{self.uuid}:{self.gno}"


class GtidSet:
    """A set of GTIDs, kept as sorted disjoint intervals per source and tag.

    `|`, `-`, `&` make new sets; `add`, `add_range` and `update` change this one.
    """

    __slots__ = ("_intervals",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, gtids: Iterable[Gtid] = ()) -> None:
        self._intervals: dict[_Key, list[Interval]] = {}
        for gtid in gtids:
            self.add(gtid)

    @classmethod
    def parse(cls, text: str) -> GtidSet:
        """Reads a set as the server accepts it in `gtid_purged`. Raises UsageError when it is not one."""
        found: list[tuple[_Key, int, int]] = []
        for item in text.split(","):
            words = [word.strip() for word in item.split(":")]
            if words == [""]:
                continue
            found += cls._read_words(words, text)
        return cls._of(found)

    @classmethod
    def _of(cls, found: list[tuple[_Key, int, int]]) -> GtidSet:
        """Added in order: each at the end of its list. From the highest down it would take time squared."""
        result = cls()
        for key, start, end in sorted(found):
            result._add(key, start, end)
        return result

    @staticmethod
    def _read_words(words: list[str], text: str) -> Iterator[tuple[_Key, int, int]]:
        try:
            uuid = UUID(words[0]).bytes
        except ValueError:
            raise UsageError(detail=f"{words[0]!r} is not a server UUID, in GTID set {text!r}") from None
        tag = ""
        for word in words[1:]:
            match = _INTERVAL.fullmatch(word)
            if match is None:
                tag = word.lower()
                if _TAG.fullmatch(tag) is None:
                    raise UsageError(
                        detail=f"{word!r} is neither an interval nor a tag, in GTID set {text!r}"
                    )
                continue
            first, last = int(match[1]), int(match[2] or match[1])
            if not 1 <= first <= GNO_MAX or last > GNO_MAX:
                raise UsageError(detail=f"{word!r} is outside 1-{GNO_MAX}, in GTID set {text!r}")
            yield (uuid, tag), first, last + 1

    @classmethod
    def decode(cls, data: bytes | memoryview) -> GtidSet:
        """Reads the binary form: body of a PREVIOUS_GTIDS event, what `encode` gives. Raises CorruptEvent."""
        found: list[tuple[_Key, int, int]] = []
        try:
            end = cls._read_encoded(memoryview(data), found)
        except struct.error:
            raise CorruptEvent(place="a GTID set", detail="it ends too early") from None
        if end != len(data):
            raise CorruptEvent(place="a GTID set", detail=f"{len(data) - end} bytes too many")
        return cls._of(found)

    @staticmethod
    def _read_encoded(data: memoryview, found: list[tuple[_Key, int, int]]) -> int:
        """Appends to `found`; returns where the set ends."""
        count, at = struct.unpack_from("<Q", data)[0], 8
        tagged = count >> 56
        if tagged > _TAGGED_FORMAT:
            raise CorruptEvent(place="a GTID set", detail=f"format {tagged} is not known")
        if tagged:
            count = count >> 8 & 0xFFFF_FFFF_FFFF
        for _ in range(count):
            (uuid,) = struct.unpack_from("16s", data, at)
            at += 16
            tag = ""
            if tagged:
                tag, at = _decode_tag(data, at)
            (intervals,) = struct.unpack_from("<Q", data, at)
            at += 8
            for _ in range(intervals):
                start, end = struct.unpack_from("<qq", data, at)
                at += 16
                if not 1 <= start < end <= GNO_MAX + 1:
                    raise CorruptEvent(place="a GTID set", detail=f"interval from {start} to before {end}")
                found.append(((uuid, tag), start, end))
        return at

    def encode(self) -> bytes:
        """The binary form for COM_BINLOG_DUMP_GTID: the old one unless a tag needs the newer (MySQL 8.3+)."""
        tagged = self.has_tags
        count = len(self._intervals)
        parts = [struct.pack("<Q", _TAGGED_FORMAT << 56 | count << 8 | _TAGGED_FORMAT if tagged else count)]
        for (uuid, tag), intervals in sorted(self._intervals.items()):
            parts.append(uuid)
            if tagged:
                parts.append(bytes([len(tag) << 1]) + tag.encode("ascii"))
            parts.append(struct.pack("<Q", len(intervals)))
            parts.extend(struct.pack("<qq", start, end) for start, end in intervals)
        return b"".join(parts)

    @property
    def has_tags(self) -> bool:
        return any(tag for _, tag in self._intervals)

    def sources(self) -> Iterator[tuple[UUID, str, tuple[Interval, ...]]]:
        """(uuid, tag, intervals) in the order the server prints them."""
        for (uuid, tag), intervals in sorted(self._intervals.items()):
            yield UUID(bytes=uuid), tag, tuple(intervals)

    def gtids(self) -> Iterator[Gtid]:
        """Each one; there may be very many."""
        for uuid, tag, intervals in self.sources():
            for start, end in intervals:
                for gno in range(start, end):
                    yield Gtid(uuid, tag, gno)

    def __str__(self) -> str:
        """As the server prints it: one UUID a line, its tags behind its untagged intervals."""
        lines: list[str] = []
        last = b""
        for (uuid, tag), intervals in sorted(self._intervals.items()):
            ranges = ":".join(str(a) if b - a == 1 else f"{a}-{b - 1}" for a, b in intervals)
            text = f":{tag}:{ranges}" if tag else f":{ranges}"
            if uuid == last:
                lines[-1] += text
            else:
                lines.append(f"{UUID(bytes=uuid)}{text}")
            last = uuid
        return ",\n".join(lines)

    def __repr__(self) -> str:
        return f"GtidSet({str(self).replace(chr(10), '')!r})"

    def __bool__(self) -> bool:
        return bool(self._intervals)

    @property
    def count(self) -> int:
        """How many GTIDs."""
        return sum(end - start for ranges in self._intervals.values() for start, end in ranges)

    def __eq__(self, other: object) -> bool:
        return self._intervals == other._intervals if isinstance(other, GtidSet) else NotImplemented

    def __contains__(self, item: Gtid | GtidSet) -> bool:
        """Whether a GTID, or all of a set, is in this set."""
        if isinstance(item, Gtid):
            return _covers(self._intervals.get((item.uuid.bytes, item.tag), []), item.gno, item.gno + 1)
        return all(
            _covers(self._intervals.get(key, []), start, end)
            for key, ranges in item._intervals.items()
            for start, end in ranges
        )

    def __le__(self, other: GtidSet) -> bool:
        """Whether this set is a subset: `GTID_SUBSET(self, other)`."""
        return self in other

    def copy(self) -> GtidSet:
        result = GtidSet()
        result._intervals = {key: ranges.copy() for key, ranges in self._intervals.items()}
        return result

    def add(self, gtid: Gtid) -> None:
        self._add((gtid.uuid.bytes, gtid.tag), gtid.gno, gtid.gno + 1)

    def add_range(self, uuid: bytes, tag: str, first: int, last: int) -> None:
        """Adds the transactions `first` to `last` (included) of the source with the 16 bytes `uuid`."""
        self._add((uuid, tag), first, last + 1)

    def update(self, other: GtidSet) -> None:
        """Adds all of `other`."""
        for key, ranges in other._intervals.items():
            for start, end in ranges:
                self._add(key, start, end)

    def _add(self, key: _Key, start: int, end: int) -> None:
        if start >= end:
            return
        ranges = self._intervals.setdefault(key, [])
        if (
            ranges and ranges[-1][0] <= start <= ranges[-1][1]
        ):  # the usual case: the next number of the source
            ranges[-1] = (ranges[-1][0], max(end, ranges[-1][1]))
            return
        first = bisect_left(ranges, (start,))
        if first and ranges[first - 1][1] >= start:
            first -= 1
        last = first
        while last < len(ranges) and ranges[last][0] <= end:
            start, end = min(start, ranges[last][0]), max(end, ranges[last][1])
            last += 1
        ranges[first:last] = [(start, end)]

    def __or__(self, other: GtidSet) -> GtidSet:
        result = self.copy()
        result.update(other)
        return result

    def __sub__(self, other: GtidSet) -> GtidSet:
        """What is here and not in `other`: `GTID_SUBTRACT(self, other)`."""
        result = GtidSet()
        for key, ranges in self._intervals.items():
            left = _subtract(ranges, other._intervals.get(key, []))
            if left:
                result._intervals[key] = left
        return result

    def __and__(self, other: GtidSet) -> GtidSet:
        return self - (self - other)


def _decode_tag(data: memoryview, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("B", data, at)
    (raw,) = struct.unpack_from(f"{length >> 1}s", data, at + 1)
    tag = raw.decode("latin-1")
    if length & 1 or (tag and _TAG.fullmatch(tag) is None):
        raise CorruptEvent(place="a GTID set", detail=f"{tag!r} is not a tag")
    return tag, at + 1 + len(raw)


def _covers(ranges: list[Interval], start: int, end: int) -> bool:
    at = bisect_left(ranges, (start + 1,))
    return at > 0 and ranges[at - 1][1] >= end


def _subtract(ranges: list[Interval], taken: list[Interval]) -> list[Interval]:
    left: list[Interval] = []
    at = 0
    for first, end in ranges:
        start = first
        while at < len(taken) and taken[at][1] <= start:
            at += 1
        look = at
        while start < end and look < len(taken) and taken[look][0] < end:
            if start < taken[look][0]:
                left.append((start, taken[look][0]))
            start = max(start, taken[look][1])
            look += 1
        if start < end:
            left.append((start, end))
    return left
