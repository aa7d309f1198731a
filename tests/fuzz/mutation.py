"""Changes to plain bytes, from a seeded generator: what CI uses in the place of libFuzzer's own mutations."""

from __future__ import annotations

from random import Random

# What lengths, counts and length-encoded integers are likely to break at.
INTERESTING = (
    *(bytes([value]) for value in (0, 1, 0x7F, 0x80, 0xFA, 0xFB, 0xFC, 0xFD, 0xFE, 0xFF)),
    *(value.to_bytes(2, "little") for value in (0, 0xFF, 0x100, 0x7FFF, 0xFFFF)),
    *(value.to_bytes(4, "little") for value in (0, 0xFFFF, 1 << 24, 0x7FFFFFFF, 0xFFFFFFFF)),
    *(value.to_bytes(8, "little") for value in (0, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)),
    b"\xfc\xff\xff",
    b"\xfd\xff\xff\xff",
    b"\xfe" + b"\xff" * 8,
    b"'",
    b"`",
    b"\\",
)


def mutate_bytes(data: bytes, random: Random) -> bytes:
    """One to four changes: bits, bytes, numbers, pieces left out, doubled or moved."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randint(0, len(changed))
        size = min(random.choice((1, 1, 2, 4, 8, 32)), len(changed) - at)
        choice = random.randrange(6)
        if choice == 0 and size:
            changed[at] ^= 1 << random.randrange(8)
        elif choice == 1:
            changed[at : at + size] = random.randbytes(size or 1)
        elif choice == 2:
            value = random.choice(INTERESTING)
            changed[at : at + random.choice((0, len(value)))] = value
        elif choice == 3:
            del changed[at : at + size]
        elif choice == 4:
            changed[at:at] = changed[at : at + size] * random.choice((1, 1, 2, 16))
        else:
            start = random.randint(0, len(changed))
            changed[at : at + size] = changed[start : start + size]
    return bytes(changed)
