"""Strings of the dynamic string table: where tables of strings are written, and which names they hold.

A string table begins and ends with a zero. At level load the names of needed libraries look like one: at
most 255 printable characters without a slash, with ``.so`` after the first, and not the tail of another string.
glibc's loader takes others for files to search, and stops at a folder or at a file that is no library.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from bytegen.formats.core.intset import IntSet, exactly
from bytegen.formats.elf.dynamic.addresses import AddressMap

LONGEST_NAME = 255
# Libraries that every glibc system has under these names.
KNOWN_LIBRARIES = (b"libc.so.6", b"libm.so.6", b"libdl.so.2", b"libpthread.so.0", b"librt.so.1")
SHORTEST_KNOWN = 1 + min(len(name) for name in KNOWN_LIBRARIES)
SHORTEST_NAME = 5  # "a.so" and a zero
_PLAIN = frozenset(range(0x21, 0x7F)) - {0x2F, 0x24}  # printable, no slash, no "$"
_NONE = np.zeros(0, np.int64)
_MOST_KEPT = 256


def is_library(name: bytes) -> bool:
    """Whether a name looks like that of a shared object."""
    return name.find(b".so", 1) > 0 and len(name) <= LONGEST_NAME and _PLAIN.issuperset(name)


_MARK = b".so"


@lru_cache(maxsize=1024)
def _letters(found: bool, begun: int, first: bool, room: int, names: frozenset[bytes]) -> IntSet:
    """``found``: the mark has been; ``begun``: so many letters of it; ``names``: next letters of known names."""
    after = dict.fromkeys(_PLAIN, 3)  # letter -> letters of the mark that are still missing behind it
    if not first:
        after[_MARK[0]] = 2
    if begun:
        after[_MARK[begun]] = 2 - begun
    allowed = {letter for letter, missing in after.items() if (0 if found else missing) + 1 < room}
    return exactly(1, *allowed, *((0,) if found else ()), *(letter[0] for letter in names))


def next_letters(text: bytes, room: int, whole: bool, names: frozenset[bytes]) -> IntSet:
    """The bytes that may follow ``text``, the beginning of a library's name that ends within ``room`` bytes.

    ``whole``: any name will do, as it is not the tail of another string; else those of ``names``, known ones
    each with its zero, that begin so.
    """
    rest = frozenset(name[len(text) :] for name in names if name.startswith(text))
    if not whole:
        return exactly(1, *(name[0] for name in rest))
    found = text.find(_MARK, 1) > 0
    begun = 0
    if not found:
        begun = next((n for n in (2, 1) if len(text) > n and text.endswith(_MARK[:n])), 0)
    room = min(room, LONGEST_NAME + 1 - len(text), 6)
    return _letters(found, begun, not text, room, frozenset(name[:1] for name in rest))


def string_at(raw: bytes, offset: int, end: int) -> bytes | None:
    """The string that begins at ``offset`` and is terminated before ``end``; None when there is none."""
    if not 0 <= offset < end:
        return None
    stop = raw.find(0, offset, end)
    return None if stop < 0 else raw[offset:stop]


class Strings:
    """The written bytes of the segments, as string tables."""

    __slots__ = ("_longest", "_names", "_tables", "_with", "_zeros", "map", "raw")

    def __init__(self, raw: bytes, map: AddressMap) -> None:
        self.raw = raw
        self.map = map
        self._longest = -1
        self._zeros: dict[tuple[int, int], np.ndarray] = {}
        self._with: dict[tuple[tuple[int, ...], int, int], np.ndarray] = {}
        self._names: dict[tuple[int, int], np.ndarray] = {}
        self._tables: dict[tuple[int, int], np.ndarray] = {}

    def zeros(self, low: int, high: int) -> np.ndarray:
        """Offsets of the zero bytes in [low, high), ascending."""
        key = (low, high)
        if key not in self._zeros:
            part = np.frombuffer(self.raw, np.uint8, high - low, low)
            self._zeros[key] = np.flatnonzero(part == 0) + low
        return self._zeros[key]

    def longest_from(self, offset: int, high: int) -> int:
        """Size of the longest string table that begins at ``offset``; 0 when none does."""
        if self.raw[offset]:
            return 0
        return self.raw.rfind(0, offset, high) + 1 - offset

    def longest(self) -> int:
        """Size of the longest string table in any segment."""
        if self._longest < 0:
            sizes = [0]
            for low, high, _ in self.map.ranges():
                first = self.raw.find(0, low, high)
                if first >= 0:
                    sizes.append(self.longest_from(first, high))
            self._longest = max(sizes)
        return self._longest

    def starts(self, low: int, high: int, least: int) -> np.ndarray:
        """Where string tables of at least ``least`` bytes begin in a range."""
        last = self.raw.rfind(0, low, high)
        zeros = self.zeros(low, high)
        return zeros[: np.searchsorted(zeros, last + 1 - max(least, 1), side="right")]

    def libraries(self, low: int, high: int) -> np.ndarray:
        """Where names of shared objects begin in a range, ascending.

        They are whole strings, after a zero: the tail of another string is none, unless every system has it.
        """
        key = (low, high)
        if key not in self._names:
            raw, found, place = self.raw, set[int](), self.raw.find(b".so", low, high)
            while place >= 0:
                stop = place + 3
                while stop < high and stop - place <= LONGEST_NAME and raw[stop] in _PLAIN:
                    stop += 1
                start = place
                while start > low and stop - start <= LONGEST_NAME and raw[start - 1] in _PLAIN:
                    start -= 1
                if stop < high and raw[stop] == 0 and stop - start <= LONGEST_NAME:
                    if start < place and start > low and not raw[start - 1]:
                        found.add(start)
                    found.update(
                        stop - len(known) for known in KNOWN_LIBRARIES if raw.endswith(known, start, stop)
                    )
                place = raw.find(b".so", place + 1, high)
            self._names[key] = np.array(sorted(found), np.int64) if found else _NONE
        return self._names[key]

    def holds(self, table: int, high: int, needed: tuple[int, ...]) -> bool:
        """Whether the table at offset ``table`` has a library's name at each of these places.

        It begins with a zero and a name, as linkers write it.
        """
        if self.raw[table] or table + 1 >= high or not self.raw[table + 1]:
            return False
        for place in needed:
            name = string_at(self.raw, table + place, high)
            if name is None or not place or not is_library(name):
                return False
            if self.raw[table + place - 1] and name not in KNOWN_LIBRARIES:
                return False
        return True

    def tables_with(self, needed: tuple[int, ...], low: int, high: int) -> np.ndarray:
        """Where the string tables of a range begin that have libraries' names at all these places."""
        key = (needed, low, high)
        found = self._with.get(key)
        if found is None:
            starts = self.libraries(low, high) - needed[0]
            starts = starts[(starts >= low) & (starts < high)]
            found = np.array([x for x in starts.tolist() if self.holds(x, high, needed)], np.int64)
            if len(self._with) >= _MOST_KEPT:
                self._with.clear()
            self._with[key] = found
        return found

    def tables_of_names(self, low: int, high: int) -> np.ndarray:
        """Where the string tables of a range begin that may hold names: a zero and then another byte."""
        key = (low, high)
        if key not in self._tables:
            zeros = self.zeros(low, high)
            zeros = zeros[zeros < high - 1]
            part = np.frombuffer(self.raw, np.uint8)
            self._tables[key] = zeros[part[zeros + 1] != 0]
        return self._tables[key]
