"""Symbol versions: DT_VERNEED, DT_VERDEF and DT_VERSYM tables already written.

A table of needs or definitions is a chain of entries, each with a chain of names. The chains run forwards to a
last link of 0, as long as the counts say, and every name lies in the string table. At level load a file that is
needed is one of DT_NEEDED (glibc asserts that it was loaded), its versions carry the hash of their names, and
those of the C library are versions that the C library has.

Sources: the Linux Standard Base (symbol versioning), glibc elf/dl-version.c.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

import numpy as np

from bytegen.formats.elf.dynamic.names import KNOWN_LIBRARIES, string_at

_NEED, _NEED_AUX = struct.Struct("<HHIII"), struct.Struct("<IHHII")
_DEFINITION, _DEFINITION_AUX = struct.Struct("<HHHHIII"), struct.Struct("<II")
C_VERSION = re.compile(rb"GLIBC_2\.\d{1,2}(\.\d{1,2})?|GLIBC_PRIVATE|GLIBC_ABI_DT_RELR")
RELR_VERSION = b"GLIBC_ABI_DT_RELR"
MOST_NAMES = 1 << 12
FLAGS_KNOWN = 7  # BASE WEAK INFO: of other flags readelf complains
_NONE = np.zeros(0, np.int64)


class Table(NamedTuple):
    """The bytes a version table is read from, and the string table its names are in.

    ``strings``: offset and end of the string table, None where it lies ahead; ``strict``: level load; ``files``:
    the names of DT_NEEDED, ``needed`` their places in the string table.
    """

    raw: bytes
    high: int
    strings: tuple[int, int] | None
    size: int
    strict: bool
    files: frozenset[bytes]
    needed: frozenset[int] = frozenset()

    def name(self, place: int) -> bytes | None:
        """The name at an offset of the string table; empty where the table lies ahead."""
        if place >= self.size:
            return None
        if self.strings is None:
            return b""
        return string_at(self.raw, self.strings[0] + place, self.strings[1])


class Versions(NamedTuple):
    """A good table: entries, bytes, the indices it defines, and whether packed relocations may stand beside it."""

    entries: int
    size: int
    indices: frozenset[int]
    packed: bool


def elf_hash(name: bytes) -> int:
    """The gABI's hash of a symbol's or version's name."""
    value = 0
    for byte in name:
        value = (value << 4) + byte
        value = (value ^ (value & 0xF0000000) >> 24) & 0x0FFFFFFF
    return value


def read_needs(table: Table, offset: int) -> Versions | None:
    """The good DT_VERNEED table at ``offset``; None when there is none."""
    position, entries, names, end = offset, 0, 0, offset
    indices = set[int]()
    of_c, packed = False, False
    if offset % 4:
        return None
    while True:
        if position + _NEED.size > table.high:
            return None
        version, count, file, first, following = _NEED.unpack_from(table.raw, position)
        name = table.name(file)
        if version != 1 or not count or name is None or first < _NEED.size or first % 4 or following % 4:
            return None
        if table.strict and (file not in table.needed if table.strings is None else name not in table.files):
            return None
        names += count
        if names > MOST_NAMES:
            return None
        chain = _need_names(table, position + first, count, name)
        if chain is None:
            return None
        # A name that is yet to be written may come to be that of the C library.
        of_c |= name.startswith(b"libc.so.") or (table.strict and table.strings is None)
        packed |= chain.packed
        entries += 1
        indices |= chain.indices
        end = max(end, position + _NEED.size, chain.size)
        if not following:
            return Versions(entries, end - offset, frozenset(indices), packed or not of_c)
        if following < _NEED.size:
            return None
        position += following


def _need_names(table: Table, position: int, count: int, file: bytes) -> Versions | None:
    """The versions needed of one file; ``size`` is where they end."""
    end, packed = position, False
    indices = set[int]()
    for left in range(count, 0, -1):
        if position + _NEED_AUX.size > table.high:
            return None
        hashed, flags, index, place, following = _NEED_AUX.unpack_from(table.raw, position)
        name = table.name(place)
        if name is None or (following == 0) != (left == 1) or following % 4 or flags > FLAGS_KNOWN:
            return None
        if table.strict and table.strings is not None:
            if not name or hashed != elf_hash(name):
                return None
            if file in KNOWN_LIBRARIES and not C_VERSION.fullmatch(name):
                return None
        packed |= name == RELR_VERSION
        indices.add(index & 0x7FFF)
        end = max(end, position + _NEED_AUX.size)
        if following and following < _NEED_AUX.size:
            return None
        position += following
    return Versions(count, end, frozenset(indices), packed)


def read_definitions(table: Table, offset: int) -> Versions | None:
    """The good DT_VERDEF table at ``offset``; None when there is none."""
    position, entries, names, end = offset, 0, 0, offset
    indices = set[int]()
    if offset % 4:
        return None
    while True:
        if position + _DEFINITION.size > table.high:
            return None
        version, flags, index, count, _, first, following = _DEFINITION.unpack_from(table.raw, position)
        names += count
        if version != 1 or flags > FLAGS_KNOWN or not count or names > MOST_NAMES or first < _DEFINITION.size:
            return None
        if first % 4 or following % 4:
            return None
        at = position + first
        for left in range(count, 0, -1):
            if at + _DEFINITION_AUX.size > table.high:
                return None
            place, after = _DEFINITION_AUX.unpack_from(table.raw, at)
            if table.name(place) is None or (after == 0) != (left == 1) or after % 4:
                return None
            end = max(end, at + _DEFINITION_AUX.size)
            if after and after < _DEFINITION_AUX.size:
                return None
            at += after
        entries += 1
        indices.add(index & 0x7FFF)
        end = max(end, position + _DEFINITION.size)
        if not following:
            return Versions(entries, end - offset, frozenset(indices), False)
        if following < _DEFINITION.size:
            return None
        position += following


def starts(raw: bytes, low: int, high: int) -> list[int]:
    """Where a version table may begin in a range: multiples of 4 whose first two bytes are the number 1."""
    base = low + -low % 4
    count = max(0, high - base) // 4
    if not count:
        return []
    words = np.frombuffer(raw, "<u4", count, base)
    found: list[int] = (np.flatnonzero((words & 0xFFFF == 1) & (words >> 16 != 0)) * 4 + base).tolist()
    return found


def definition_starts(raw: bytes, low: int, high: int) -> list[int]:
    """The same for definitions, whose flags may be 0."""
    base = low + -low % 4
    count = max(0, high - base) // 4
    if not count:
        return []
    words = np.frombuffer(raw, "<u4", count, base)
    found: list[int] = (np.flatnonzero(words & 0xFFFF == 1) * 4 + base).tolist()
    return found


def index_run(raw: bytes, offset: int, high: int, most: int, highest: int) -> int:
    """How many entries of a DT_VERSYM table at ``offset``, up to ``most``, are at most ``highest``."""
    count = min(max(0, high - offset) // 2, most)
    if offset % 2 or not count:
        return 0
    good = np.frombuffer(raw, "<u2", count, offset) & 0x7FFF <= highest
    return count if good.all() else int(good.argmin())


def longest_indices(raw: bytes, low: int, high: int, highest: int) -> int:
    """Entries of the longest DT_VERSYM table in a range whose indices are at most ``highest``."""
    base = low + low % 2
    count = max(0, high - base) // 2
    if not count:
        return 0
    good = np.frombuffer(raw, "<u2", count, base) & 0x7FFF <= highest
    bad = np.concatenate(([-1], np.flatnonzero(~good), [count]))
    return int(np.diff(bad).max()) - 1


def greatest_index(raw: bytes, offset: int, count: int) -> int:
    """The greatest version index of the first ``count`` entries at ``offset``."""
    return int((np.frombuffer(raw, "<u2", count, offset) & 0x7FFF).max()) if count else 0
