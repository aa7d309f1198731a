"""Decimals, dates and times of the binary log.

Dates and times become the text that the server prints: zero and impossible dates have no Python type, and
nobody wants them rounded in an error message.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

_DIGIT_BYTES = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def decimal_value(data: bytes, precision: int, scale: int) -> Decimal:
    """DECIMAL(precision, scale) from its binary form: nine digits in four bytes, the odd ones in fewer; the
    sign bit is inverted, and a negative number has all its bits inverted."""
    positive = bool(data[0] & 0x80)
    raw = bytes((byte ^ (0 if positive else 0xFF)) for byte in data)
    raw = bytes([raw[0] ^ 0x80]) + raw[1:]
    whole_digits = precision - scale
    groups = [whole_digits % 9] + [9] * (whole_digits // 9)
    groups += [9] * (scale // 9) + [scale % 9]
    digits = ""
    at = 0
    for group in groups:
        size = _DIGIT_BYTES[group]
        if group:
            digits += f"{int.from_bytes(raw[at : at + size], 'big'):0{group}d}"
        at += size
    return Decimal((0 if positive else 1, tuple(map(int, digits)), -scale))


def time_text(negative: bool, packed: int, fraction: str = "") -> str:
    """`packed`: hours, minutes (6 bits), seconds (6 bits)."""
    text = f"{'-' if negative else ''}{packed >> 12 & 0x3FF:02d}:{packed >> 6 & 63:02d}:{packed & 63:02d}"
    return f"{text}.{fraction}" if fraction else text


def date_text(year_month: int, day: int) -> str:
    """`year_month`: year * 13 + month."""
    return f"{year_month // 13:04d}-{year_month % 13:02d}-{day:02d}"


def datetime_text(packed: int, fraction: str = "") -> str:
    """`packed`: year * 13 + month, day (5 bits), hours (5), minutes (6), seconds (6)."""
    return f"{date_text(packed >> 22, packed >> 17 & 31)} {time_text(False, packed & 0x1FFFF, fraction)}"


def decode_date(data: bytes) -> str:
    """DATE: day (5 bits), month (4), year, in three bytes."""
    packed = int.from_bytes(data, "little")
    return f"{packed >> 9:04d}-{packed >> 5 & 15:02d}-{packed & 31:02d}"


def decode_time2(data: bytes, digits: int) -> str:
    """TIME(digits): sign-offset, so negative values are two's complement over whole and fraction together."""
    fraction_bytes = len(data) - 3
    packed = int.from_bytes(data, "big") - (0x800000 << 8 * fraction_bytes)
    magnitude = abs(packed)
    fraction = magnitude & ((1 << 8 * fraction_bytes) - 1)
    return time_text(packed < 0, magnitude >> 8 * fraction_bytes, _fraction(fraction, fraction_bytes, digits))


def decode_datetime2(data: bytes, digits: int) -> str:
    """DATETIME(digits)."""
    packed = int.from_bytes(data[:5], "big") - 0x8000000000
    return datetime_text(packed, _fraction(int.from_bytes(data[5:], "big"), len(data) - 5, digits))


def decode_timestamp(seconds: int, fraction: bytes = b"", digits: int = 0) -> str:
    """TIMESTAMP(digits), in UTC."""
    text = _fraction(int.from_bytes(fraction, "big"), len(fraction), digits)
    if seconds == 0 and not text.strip("0"):
        whole = "0000-00-00 00:00:00"
    else:
        whole = (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%d %H:%M:%S")
    return f"{whole}.{text}" if text else whole


def decode_old_time(data: bytes) -> str:
    """TIME of tables from before 5.6: the decimal number hhmmss."""
    number = int.from_bytes(data, "little", signed=True)
    hours, rest = divmod(abs(number), 10000)
    return f"{'-' if number < 0 else ''}{hours:02d}:{rest // 100:02d}:{rest % 100:02d}"


def decode_old_datetime(data: bytes) -> str:
    """DATETIME of tables from before 5.6: the decimal number YYYYMMDDhhmmss."""
    digits = f"{int.from_bytes(data, 'little'):014d}"
    return f"{digits[:4]}-{digits[4:6]}-{digits[6:8]} {digits[8:10]}:{digits[10:12]}:{digits[12:14]}"


def _fraction(value: int, size: int, digits: int) -> str:
    """Each byte holds two digits."""
    return f"{value:0{2 * size}d}"[:digits] if digits else ""
