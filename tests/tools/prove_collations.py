"""Proves, against a running server, which forms of text keys are safe for each of its collations.

    python -m tests.tools.prove_collations --url mysql://root@127.0.0.1:3306 > writeset/collations.json

What is claimed of a "folded" collation, and why it holds
---------------------------------------------------------
Claim: two texts made of *safe* characters only, whose trailing spaces are trimmed if the collation pads, and which
the server takes for equal, are equal after folding each character to the first of its class. (A text with any other
character is of unknown form and conflicts with its whole index; nothing is claimed of it.)

1. The weights of every single character are asked of the server. A class is the characters of one weight.
2. The weights of every pair are asked. A pair whose weight is not that of its parts is a *contraction*: a token of
   its own (Spanish ch, Danish aa, Croatian lj). Likewise for triples, by step 4.
3. The tokens' primary weights must be a code that can be read back in one way only (Sardinas-Patterson), tokens of
   one primary weight must have equally many weights on every further level, and tokens of one weight must fold to
   the same characters. Then a text's weight tells its tokens, and these tell its folded characters. Characters that
   stand in the way are taken out of the safe ones; so are those that weigh the same as a space that is trimmed.
4. That a text's weight is the concatenation of its tokens' weights, level by level, is checked on a text that holds
   every triple of safe characters (a de Bruijn sequence), and on all runs of four letters that take part in
   contractions.
5. The server's own `=` is compared with the form: on all pairs of single characters, and on random texts over the
   characters most likely to break it, with spaces at their ends.

What is claimed of a "bytes" collation: every character that the character set shares with Unicode has a weight of
its own, weights can be read back in one way only, and the weight of a text of all characters is the concatenation.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TextIO
from urllib.parse import urlsplit

import pymysql
from pymysql.cursors import Cursor

from tests.tools.unique_code import ambiguous_words

PRINTABLE = bytes(range(0x20, 0x7F))
CHUNK = 20_000
CONTRACTIONS_MAX = 100
Levels = tuple[bytes, ...]


@dataclass(frozen=True)
class Subject:
    """A collation as the server describes it."""

    name: str
    character_set: str
    pad: bool
    bytes_max: int


@dataclass
class Proof:
    """What came out. kind: "bytes", "folded" or "none"; table: 256 bytes, 0 for what is not safe."""

    kind: str
    table: bytes | None = None
    notes: list[str] = field(default_factory=list)


class Server:
    """Asks for weights and comparisons."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        self._cursor.execute(statement, values or None)
        return list(self._cursor.fetchall())

    def subjects(self) -> list[Subject]:
        return [
            Subject(name, character_set, pad == "PAD SPACE", bytes_max)
            for name, character_set, pad, bytes_max in self.rows(
                "SELECT l.collation_name, l.character_set_name, l.pad_attribute, s.maxlen"
                " FROM information_schema.collations l JOIN information_schema.character_sets s"
                " USING (character_set_name) ORDER BY l.collation_name"
            )
        ]

    def weights(self, subject: Subject, texts: Iterable[bytes]) -> list[bytes]:
        """The weight of each text, given in the collation's character set, or in ASCII if that is wide."""
        found: list[bytes] = []
        for some in _batched(texts, 2_000):
            parts = ", ".join(f"WEIGHT_STRING({literal(subject, text)})" for text in some)
            found.extend(self.rows(f"SELECT {parts}")[0])
        return found

    def mismatches(self, subject: Subject, texts: list[bytes], forms: list[bytes], *, exact: bool) -> int:
        """Pairs of texts that are equal to the server but not in form (exact: or the other way round)."""
        self.rows("DROP TEMPORARY TABLE IF EXISTS left_texts, right_texts")
        for table in ("left_texts", "right_texts"):
            self.rows(
                f"CREATE TEMPORARY TABLE {table} (t VARCHAR(40) CHARACTER SET {subject.character_set}"
                f" COLLATE {subject.name}, f VARBINARY(40)) ENGINE = InnoDB"
            )
            values = ", ".join(
                f"({literal(subject, text)}, X'{form.hex()}')"
                for text, form in zip(texts, forms, strict=True)
            )
            self.rows(f"INSERT INTO {table} VALUES {values}")
        differs = "(l.t = r.t) <> (l.f = r.f)" if exact else "l.t = r.t AND l.f <> r.f"
        return int(self.rows(f"SELECT COUNT(*) FROM left_texts l JOIN right_texts r ON {differs}")[0][0])


def _batched(items: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    iterator = iter(items)
    while some := list(itertools.islice(iterator, size)):
        yield some


def literal(subject: Subject, text: bytes) -> str:
    if subject.character_set in ("ucs2", "utf16", "utf16le", "utf32"):
        return f"(CONVERT(_ascii X'{text.hex()}' USING {subject.character_set}) COLLATE {subject.name})"
    return f"(_{subject.character_set} X'{text.hex()}' COLLATE {subject.name})"


def levels(subject: Subject, weight: bytes) -> Levels:
    """The weights by level; those of the multi-level collations are 16 bits, separated by a zero."""
    if "_0900_as" not in subject.name:
        return (weight,)
    units = [weight[at : at + 2] for at in range(0, len(weight), 2)]
    return tuple(
        b"".join(group) for zero, group in itertools.groupby(units, lambda unit: unit == b"\0\0") if not zero
    )


@cache
def de_bruijn(alphabet: bytes, order: int) -> bytes:
    """A shortest text that holds every run of `order` characters (the usual recursion over Lyndon words)."""
    count = len(alphabet)
    word = [0] * (order + 1)
    out = bytearray()

    def extend(at: int, period: int) -> None:
        if at > order:
            if order % period == 0:
                out.extend(alphabet[index] for index in word[1 : period + 1])
            return
        word[at] = word[at - period]
        extend(at + 1, period)
        for index in range(word[at - period] + 1, count):
            word[at] = index
            extend(at + 1, at)

    if alphabet:
        extend(1, 1)
    return bytes(out) + bytes(out[: order - 1])


# --- folded collations -----------------------------------------------------------------------------------


class FoldProof:
    """The proof of one collation, step by step; `safe` only shrinks."""

    def __init__(self, server: Server, subject: Subject) -> None:
        self.server = server
        self.subject = subject
        every = range(1, 128 if subject.character_set == "ascii" else 256)
        self.safe = bytes(every) if subject.bytes_max == 1 else PRINTABLE
        self.tokens: dict[bytes, Levels] = {}
        self.notes: list[str] = []
        self._pattern: re.Pattern[bytes] | None = None

    def run(self) -> Proof:
        self._singles()
        self._pairs()
        self.notes += [f"contraction: {token!r}" for token in self.tokens if len(token) > 1]
        while self.safe and (self._drop_ambiguous() or self._drop_unexplained()):
            pass
        if len(self.safe) < 10:
            return Proof("none", notes=self.notes)
        table = self._table()
        self._compare(table)
        return Proof("folded", table, self.notes)

    def _drop(self, characters: Iterable[int], why: str) -> None:
        dropped = bytes(sorted(set(characters) & set(self.safe)))
        if dropped:
            self.safe = bytes(character for character in self.safe if character not in dropped)
            self.tokens = {token: of for token, of in self.tokens.items() if not set(token) & set(dropped)}
            self._pattern = None
            self.notes.append(f"{why}: {dropped!r}")

    def _singles(self) -> None:
        texts = [bytes([character]) for character in self.safe]
        for text, weight in zip(texts, self.server.weights(self.subject, texts), strict=True):
            if weight:
                self.tokens[text] = levels(self.subject, weight)
        # Expansions (ß = ss) and what lacks a level weigh differently from the rest.
        shapes = Counter(tuple(map(len, of)) for of in self.tokens.values())
        usual = shapes.most_common(1)[0][0]
        odd = [c for c in self.safe if tuple(map(len, self.tokens.get(bytes([c]), ()))) != usual]
        self._drop(odd, "ignorable or expanding")
        if self.subject.pad and b" " in self.tokens:
            # They do not count at the end of a text either, but we trim spaces only.
            # Some parts of the server pad with the weight of a space, some (latin7) with the number 0x20.
            blank = (self.tokens[b" "], (b" ",))
            blanks = [c for c in self.safe if c != 0x20 and self.tokens[bytes([c])] in blank]
            self._drop(blanks, "equal to a space")

    def _pairs(self) -> None:
        pairs = [bytes(pair) for pair in itertools.product(self.safe, repeat=2)]
        contractions: dict[bytes, Levels] = {}
        for pair, weight in zip(pairs, self.server.weights(self.subject, pairs), strict=True):
            found = levels(self.subject, weight or b"")
            if found != self._expected(pair):
                contractions[pair] = found
        if len(contractions) > CONTRACTIONS_MAX:
            self._drop((c for c in self.safe if c not in PRINTABLE), f"{len(contractions)} contractions")
            contractions = {pair: of for pair, of in contractions.items() if not set(pair) - set(self.safe)}
        if len(contractions) > CONTRACTIONS_MAX:
            self._drop(self.safe, "weights are no concatenations")
            return
        self.tokens |= contractions
        self._pattern = None

    def _expected(self, text: bytes) -> Levels:
        """The weight of a text if it is what its tokens say, the longest token first."""
        if self._pattern is None:
            several = sorted((token for token in self.tokens if len(token) > 1), key=len, reverse=True)
            self._pattern = re.compile(b"|".join([*map(re.escape, several), b"."]), re.DOTALL)
        found = self._pattern.findall(text)
        depth = len(next(iter(self.tokens.values())))
        return tuple(b"".join([self.tokens[token][level] for token in found]) for level in range(depth))

    def _drop_ambiguous(self) -> bool:
        """Step 3; True when something was dropped."""
        by_primary: dict[bytes, set[tuple[int, ...]]] = {}
        for of in self.tokens.values():
            by_primary.setdefault(of[0] if of else b"", set()).add(tuple(map(len, of)))
        uneven = {primary for primary, shapes in by_primary.items() if len(shapes) > 1}
        bad = uneven or ambiguous_words(by_primary)
        letters = [token for token, of in self.tokens.items() if (of[0] if of else b"") in bad]
        if not letters:
            folds: dict[Levels, set[bytes]] = {}
            table = self._table()
            for token, of in self.tokens.items():
                folds.setdefault(of, set()).add(token.translate(table))
            letters = [token for token, of in self.tokens.items() if len(token) > 1 and len(folds[of]) > 1]
        if not letters:
            return False
        several = [token for token in letters if len(token) > 1]
        most = Counter(c for token in several or letters for c in {*token.lower()}).most_common(1)[0][0]
        self._drop({most, *bytes([most]).upper()}, "ambiguous with others")
        return True

    def _drop_unexplained(self) -> bool:
        """Step 4; True when something was dropped."""
        letters = bytes(sorted({c for token in self.tokens if len(token) > 1 for c in token}))
        alphabet = bytes(c for c in self.safe if c in PRINTABLE)
        texts = [de_bruijn(alphabet, 3), de_bruijn(letters, 4) if len(letters) <= 20 else b""]
        if len(self.safe) > len(alphabet):
            texts.append(de_bruijn(self.safe, 2))
            texts.append(bytes(random.Random(1).choices(self.safe, k=100_000)))
        for text in texts:
            for at in range(0, len(text), CHUNK):
                culprit = self._unexplained(text[at : at + CHUNK + 4])
                if culprit:
                    self._drop(culprit, "longer contraction")
                    return True
        return False

    def _is_explained(self, text: bytes) -> bool:
        weight = self.server.weights(self.subject, [text])[0]
        return not text or levels(self.subject, weight or b"") == self._expected(text)

    def _unexplained(self, text: bytes) -> bytes:
        """The end of the shortest prefix that is not its tokens: a letter of a longer contraction."""
        if self._is_explained(text):
            return b""
        low, high = 0, len(text)
        while high - low > 1:
            middle = (low + high) // 2
            if self._is_explained(text[:middle]):
                low = middle
            else:
                high = middle
        last = text[high - 1 : high]
        return last.lower() + last.upper()

    def _table(self) -> bytes:
        """Each safe character to the first of its class."""
        first: dict[Levels, int] = {}
        table = bytearray(256)
        for character in self.safe:
            table[character] = first.setdefault(self.tokens[bytes([character])], character)
        return bytes(table)

    def _compare(self, table: bytes) -> None:
        """Step 5: the server's own `=`. An exception here would mean that the steps before are wrong."""
        singles = [bytes([character]) for character in self.safe if character != 0x20]
        if self.server.mismatches(self.subject, singles, [s.translate(table) for s in singles], exact=True):
            raise AssertionError(f"{self.subject.name}: single characters compare differently")
        rng = random.Random(self.subject.name)
        special = bytes({c for token in self.tokens if len(token) > 1 for c in token}) or self.safe
        for alphabet in (special + b"  ", bytes(rng.choices(self.safe, k=4)) + b" ", self.safe):
            usable = bytes(c for c in alphabet if c in self.safe)
            texts = [bytes(rng.choices(usable, k=rng.randrange(7))) for _ in range(250)]
            forms = [self._form(text, table) for text in texts]
            if self.server.mismatches(self.subject, texts, forms, exact=False):
                raise AssertionError(f"{self.subject.name}: texts over {usable!r} compare differently")

    def _form(self, text: bytes, table: bytes) -> bytes:
        return (text.rstrip(b" ") if self.subject.pad else text).translate(table)


# --- byte collations -------------------------------------------------------------------------------------


def characters_of(server: Server, character_set: str) -> list[bytes]:
    """Every character that Unicode's first plane and the character set share, and some from beyond."""
    points = [p for p in range(1, 0x10000) if not 0xD800 <= p < 0xE000]
    points += range(0x10000, 0x110000, 997)
    found: list[bytes] = []
    for some in _batched((chr(point).encode() for point in points), 4_000):
        parts = ", ".join(
            f"CAST(CONVERT(_utf8mb4 X'{c.hex()}' USING {character_set}) AS BINARY)" for c in some
        )
        found.extend(server.rows(f"SELECT {parts}")[0])
    substitute = server.rows(f"SELECT CAST(CONVERT(_ascii '?' USING {character_set}) AS BINARY)")[0][0]
    return sorted({character for character in found if character != substitute} | {substitute})


def prove_bytes(server: Server, subject: Subject) -> Proof:
    """Whether equal texts have equal bytes."""
    characters = characters_of(server, subject.character_set)
    weights: list[bytes] = []
    for some in _batched(characters, 2_000):
        parts = ", ".join(f"WEIGHT_STRING({_exact(subject, character)})" for character in some)
        weights.extend(server.rows(f"SELECT {parts}")[0])
    if len(set(weights)) != len(characters) or ambiguous_words(weights):
        return Proof("none", notes=["characters of equal weight"])
    order = list(range(len(characters)))
    random.Random(1).shuffle(order)
    for start in range(0, len(order), 4_000):
        some_at = order[start : start + 4_000]
        whole = _exact(subject, b"".join(characters[at] for at in some_at))
        if server.rows(f"SELECT WEIGHT_STRING({whole})")[0][0] != b"".join(weights[at] for at in some_at):
            return Proof("none", notes=["weights that are no concatenations"])
    return Proof("bytes", notes=[f"{len(characters)} characters"])


def _exact(subject: Subject, text: bytes) -> str:
    return f"(_{subject.character_set} X'{text.hex()}' COLLATE {subject.name})"


# --- all of them -----------------------------------------------------------------------------------------


def prove(server: Server, subject: Subject) -> Proof:
    """Raises AssertionError when the server contradicts what was derived from its weights."""
    if subject.name == "binary":
        return Proof("bytes")
    _check_padding(server, subject)
    if subject.name.endswith("_bin"):
        return prove_bytes(server, subject)
    return FoldProof(server, subject).run()


def _check_padding(server: Server, subject: Subject) -> None:
    same = server.rows(f"SELECT {literal(subject, b'a')} = {literal(subject, b'a  ')}")[0][0]
    if bool(same) != subject.pad:
        raise AssertionError(f"{subject.name}: pads {bool(same)}, announced {subject.pad}")


def prove_all(
    server: Server, progress: TextIO | None = None, wanted: Callable[[str], bool] = lambda name: True
) -> dict[str, Any]:
    """The content of `collations.json`, of the wanted collations. Makes a schema of its own and drops it."""
    server.rows("CREATE DATABASE IF NOT EXISTS prove_collations")
    server.rows("USE prove_collations")
    tables: dict[bytes, str] = {}
    collations: dict[str, dict[str, Any]] = {}
    for subject in filter(lambda subject: wanted(subject.name), server.subjects()):
        proof = prove(server, subject)
        entry: dict[str, Any] = {
            "character_set": subject.character_set,
            "pad": subject.pad,
            "kind": proof.kind,
        }
        if proof.table is not None:
            entry["table"] = tables.setdefault(proof.table, f"fold{len(tables)}")
        collations[subject.name] = entry
        if progress is not None:
            print(f"{subject.name:32} {proof.kind:7} {'; '.join(proof.notes)}", file=progress, flush=True)
    server.rows("DROP DATABASE prove_collations")
    version = server.rows("SELECT VERSION()")[0][0]
    return {
        "proven_on": version,
        "tables": {name: table.hex() for table, name in tables.items()},
        "collations": collations,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", required=True, help="mysql://user:password@host:port")
    url = urlsplit(parser.parse_args().url)
    connection = pymysql.connect(
        host=url.hostname,
        port=url.port or 3306,
        user=url.username or "root",
        password=url.password or "",
        charset="utf8mb4",
    )
    with connection, connection.cursor() as cursor:
        found = prove_all(Server(cursor), sys.stderr)
    json.dump(found, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
