"""Version information: the data of the first resource of type 16, in each of its languages.

A record (its length, its value's length, a type, a key) of a key that is fixed, a fixed value, and records below it:
StringFileInfo, which has tables of strings, and VarFileInfo. Records begin at multiples of 4, and a length leads to
the next one. pefile follows all of this, so wherever it looks for a record there is one, inside of the resource; what
no record covers is free. A length of zero, or one that leads past the records around it, ends a row of them.

Sources: Microsoft's documentation of VS_VERSIONINFO; pefile's parse_version_information (which rows go on where).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import NamedTuple

from bytegen.formats.core.intset import IntSet, anything, exactly
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Piece, Span
from bytegen.formats.core.steps import FreeStep, IntStep, Step
from bytegen.formats.pe.directories.memory import mapping
from bytegen.formats.pe.layout import up
from bytegen.formats.pe.plan import Plan, opener, proceed

KIND = "version"
KEY = "VS_VERSION_INFO\0".encode("utf-16-le")
HEAD, _FIXED = 6, 52
_RECORD = 8  # a record with an empty key
_CHILDREN = up(up(HEAD + len(KEY), 4) + _FIXED, 4)
LEAST = _CHILDREN + _RECORD
_STRINGS, _VARIABLES = b"StringFileInfo", b"VarFileInfo"
_ANY = anything(2)
_MOST = 0xFFFF


def _end(row: int) -> int:
    """The least offset whose next multiple of 4 is not before ``row``."""
    return up(row, 4) - 3


def _words(raw: bytes, at: int) -> tuple[int, int, int]:
    return (
        int.from_bytes(raw[at : at + 2], "little"),
        int.from_bytes(raw[at + 2 : at + 4], "little"),
        int.from_bytes(raw[at + 4 : at + 6], "little"),
    )


def _key(raw: bytes, at: int) -> bytes:
    """The key of the record at ``at``, in UTF-8. Raises ValueError where it is none, or does not end."""
    stop = at + HEAD
    while raw[stop : stop + 2] != b"\0\0":
        stop += 2
        if stop >= len(raw):
            raise ValueError("no end")
    key = raw[at + HEAD : stop].decode("utf-16-le")
    if any(letter > "\uffff" for letter in key):
        raise ValueError("pefile takes halves of surrogate pairs for characters")
    return key.encode()


def needed(raw: bytes, reach: int) -> int | None:
    """The least size of the information that ``raw`` begins with; None where it is none, or not all there.

    ``reach`` is where its section ends.
    """
    if raw[HEAD : HEAD + len(KEY)] != KEY:
        return None
    length, at, need = _words(raw, 0)[0], _CHILDREN, 0
    try:
        while True:
            need = max(need, at + _RECORD)
            size, value, kind = _words(raw, at)
            key = _key(raw, at)
            inner = up(at + HEAD + 2 * (len(key) + 1), 4)
            if not value and kind < 2 and key.startswith(_STRINGS):
                need = max(need, _needed_by_tables(raw, inner, size, reach))
            elif not value and kind < 2 and key.startswith(_VARIABLES):
                need = max(need, inner + _RECORD)
            at = up(at + size, 4)
            if need > len(raw):
                return None
            if not size or at >= length:
                return need
    except ValueError:
        return None


def _needed_by_tables(raw: bytes, table: int, most: int, reach: int) -> int:
    need = 0
    while True:
        need = max(need, table + _RECORD)
        size = _words(raw, table)[0]
        at = up(table + HEAD + 2 * (len(_key(raw, table)) + 1), 4)
        while at < table + size:
            need = max(need, at + _RECORD)
            if need > len(raw) or up(at + HEAD + 2 * (len(_key(raw, at)) + 1), 4) + 2 > reach:
                raise ValueError("no such string")
            length = _words(raw, at)[0]
            at = up(at + length, 4) if length else table + size
        after = up(table + size, 4)
        if after == table or after >= most or need > len(raw):
            return need
        table = after


class _Info(NamedTuple):
    """Information being read. Offsets are from its beginning: it ends at ``size``, its section at ``reach``."""

    plan: Plan
    region: Region
    size: int
    reach: int
    length: int = 0  # as its first record says

    def at(self, offset: int) -> int:
        return self.region.start + offset


@opener(KIND)
def _open(plan: Plan, region: Region, data: bytearray) -> Step:
    reach = mapping(plan.sections).stop(region.start) - region.start
    info = _Info(plan, region, region.end - region.start, reach)
    return _head(info, 0, _ANY, "any", lambda words, data: _first_key(info._replace(length=words[0]), 0))


def _first_key(info: _Info, i: int) -> Step:
    start, path = info.at(HEAD + i), info.region.path
    if i == len(KEY):
        return FreeStep(
            start, info.at(_CHILDREN), None, f"{path}.fixed", "", lambda data: _record(info, _CHILDREN)
        )
    choices = exactly(8, int.from_bytes(KEY[i : i + 8], "little"))
    return IntStep(
        start, 8, choices, f"{path}.szKey", "VS_VERSION_INFO", lambda value, data: _first_key(info, i + 8)
    )  # fmt: skip


def _head(
    info: _Info, at: int, lengths: IntSet, rule: str, then: Callable[[tuple[int, int, int], bytearray], Step]
) -> Step:
    """The three words of the record at ``at``."""
    path = info.region.path

    def kind(size: int, value: int) -> Step:
        return IntStep(
            info.at(at + 4), 2, _ANY, f"{path}.wType", "any", lambda kind, data: then((size, value, kind), data)
        )  # fmt: skip

    def value(size: int) -> Step:
        return IntStep(
            info.at(at + 2), 2, _ANY, f"{path}.wValueLength", "any", lambda value, data: kind(size, value)
        )  # fmt: skip

    return IntStep(info.at(at), 2, lengths, f"{path}.wLength", rule, lambda size, data: value(size))


_WIDTHS = ((1, 1, 0x7F), (2, 0x80, 0x7FF), (3, 0x800, 0xD7FF), (3, 0xE000, 0xFFFF))


def _letters(
    info: _Info,
    at: int,
    stop: int,
    good: Callable[[bytes], bool],
    then: Callable[[bytes, int, bytearray], Step],
) -> Step:
    """The key of the record at ``at`` up to its zero, before ``stop``; ``good`` says what it may be, in UTF-8."""

    def letter(place: int, key: bytes) -> Step:
        pieces: list[Piece] = [Span(0, 0)]
        if place + 4 <= stop:
            for width, low, high in _WIDTHS:
                # A letter that makes the key a known one is looked at by itself.
                known = [k[len(key)] for k in (_STRINGS, _VARIABLES) if width == 1 and k[:-1] == key]
                if good(key + b"?" * width):
                    parts = [low - 1, *known, high + 1]
                    pieces += [Span(a + 1, b - 1) for a, b in pairwise(parts) if a + 1 < b]
                pieces += [Span(x, x) for x in known if good(key + bytes((x,)))]

        def following(value: int, data: bytearray) -> Step:
            if not value:
                return then(key, place + 2, data)
            return letter(place + 2, key + chr(value).encode())

        return IntStep(
            info.at(place), 2, IntSet(2, *pieces), f"{info.region.path}.szKey", "a character, or the zero at the end",
            following,
        )  # fmt: skip

    return letter(at + HEAD, b"")


def _jump(info: _Info, done: int, target: int, data: bytearray, then: Callable[[bytearray], Step]) -> Step:
    """What is free up to ``target``."""
    if done == target:
        return then(data)
    return FreeStep(info.at(done), info.at(target), None, f"{info.region.path}.value", "", then)


def _finish(info: _Info, done: int, data: bytearray) -> Step:
    return _jump(info, done, info.size, data, lambda data: proceed(info.plan, info.region.end, data))


def _record(info: _Info, at: int) -> Step:
    """A record right below the first."""
    last = (info.size - _RECORD) // 4 * 4
    lengths = IntSet(2, *_some([Span(0, 0), Span(_RECORD, last - at), Span(_end(info.length) - at, _MOST)]))

    def key(words: tuple[int, int, int], data: bytearray) -> Step:
        size, value, kind = words
        after = up(at + size, 4)
        final = not size or after >= info.length
        stop = info.size if final else after
        follows = not value and kind < 2

        def good(key: bytes) -> bool:
            known = follows and key.startswith((_STRINGS, _VARIABLES))
            return not known or up(at + HEAD + 2 * (len(key) + 1), 4) + _RECORD <= stop

        def done(place: int, data: bytearray) -> Step:
            if final:
                return _finish(info, place, data)
            return _jump(info, place, after, data, lambda data: _record(info, after))

        def read(key: bytes, place: int, data: bytearray) -> Step:
            inner = up(at + HEAD + 2 * (len(key) + 1), 4)
            if follows and key.startswith(_STRINGS):
                return _jump(info, place, inner, data, lambda data: _table(info, inner, size, stop, done))
            if follows and key.startswith(_VARIABLES):
                return _jump(info, place, inner, data, lambda data: _variable(info, inner, stop, done))
            return done(place, data)

        return _letters(info, at, stop, good, read)

    return _head(info, at, lengths, "0, or leads to the next record, or past the last one", key)


def _variable(info: _Info, at: int, stop: int, done: Callable[[int, bytearray], Step]) -> Step:
    def key(words: tuple[int, int, int], data: bytearray) -> Step:
        return _letters(info, at, stop, lambda key: True, lambda key, place, data: done(place, data))

    return _head(info, at, _ANY, "any", key)


def _table(info: _Info, at: int, most: int, stop: int, done: Callable[[int, bytearray], Step]) -> Step:
    """A table of strings; the record around it has the length ``most``."""
    pieces: list[Piece] = [Span(0, 0)]
    final, last = max(_end(most) - at, 1), (stop - _RECORD) // 4 * 4 - at
    # A table that goes on past its own head has a string.
    if at + 2 * _RECORD <= stop and at + 2 * _RECORD + 2 <= info.reach:
        pieces += [Span(final, _MOST), Span(13, last)]
    else:
        pieces.append(Span(final, _RECORD))
    if last >= _RECORD:
        pieces.append(Span(_RECORD, _RECORD))

    def key(words: tuple[int, int, int], data: bytearray) -> Step:
        size = words[0]
        after = up(at + size, 4)
        ends = not size or after >= most
        limit = stop if ends else after

        def good(key: bytes) -> bool:
            first = up(at + HEAD + 2 * (len(key) + 1), 4)
            return first >= at + size or (first + _RECORD <= limit and first + _RECORD + 2 <= info.reach)

        def finished(place: int, data: bytearray) -> Step:
            if ends:
                return done(place, data)
            return _jump(info, place, after, data, lambda data: _table(info, after, most, stop, done))

        def read(key: bytes, place: int, data: bytearray) -> Step:
            first = up(at + HEAD + 2 * (len(key) + 1), 4)
            if first >= at + size:
                return finished(place, data)
            return _jump(
                info, place, first, data, lambda data: _string(info, first, at + size, limit, finished)
            )

        return _letters(info, at, limit, good, read)

    return _head(
        info, at, IntSet(2, *_some(pieces)), "0, or leads to the next table, or past the last one", key
    )


def _string(info: _Info, at: int, row: int, stop: int, done: Callable[[int, bytearray], Step]) -> Step:
    """A string of a table that ends at ``row``."""
    last = min((stop - _RECORD) // 4, (info.reach - _RECORD - 2) // 4) * 4
    lengths = IntSet(2, *_some([Span(0, 0), Span(_end(row) - at, _MOST), Span(_RECORD, last - at)]))

    def key(words: tuple[int, int, int], data: bytearray) -> Step:
        size = words[0]
        after = up(at + size, 4)
        ends = not size or after >= row

        def good(key: bytes) -> bool:
            return up(at + HEAD + 2 * (len(key) + 1), 4) + 2 <= info.reach

        def read(key: bytes, place: int, data: bytearray) -> Step:
            if ends:
                return done(place, data)
            return _jump(info, place, after, data, lambda data: _string(info, after, row, stop, done))

        return _letters(info, at, stop if ends else after, good, read)

    return _head(info, at, lengths, "0, or leads to the next string, or past the last one", key)


def _some(pieces: Iterable[Piece]) -> list[Piece]:
    """The pieces that are not empty."""
    return [piece for piece in pieces if piece.bounds()]
