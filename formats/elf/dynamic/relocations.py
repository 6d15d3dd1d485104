"""Relocations already written, as the dynamic loader reads them.

Good: a known type; at level load a place inside the memory of a segment (none at all for type 0).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bytegen.formats.elf.dynamic.addresses import AddressMap
from bytegen.formats.elf.target import Target

# R_*_RELATIVE: the base of the image is added, no symbol is looked up
RELATIVE = {"elf64-x86_64": 8, "elf32-i386": 8, "elf64-aarch64": 1027}
_CHUNK = 8192
_EVERY = 1 << 32  # above every symbol
_NONE = np.zeros(0, np.int64)
_ZERO = np.zeros(1, np.int64)


def run_starts(bad: np.ndarray, count: int) -> np.ndarray:
    """int64, ascending: where ``count`` numbers in a row begin of which none is in ``bad``.

    ``bad`` is ascending, and ends with the end of the numbers.
    """
    first = np.concatenate((_ZERO, bad[:-1] + 1))  # of each run between
    many = bad - count + 1 - first
    long = np.flatnonzero(many > 0)
    first, many = first[long], many[long]
    ends = many.cumsum()
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(first - ends + many, many)


class Run(NamedTuple):
    """The good relocations from a place on: running maximum of the symbol; how many lead as relative ones."""

    symbols: np.ndarray
    relative: int


class Relocations:
    """The written bytes of the segments, as tables of relocations of one record size."""

    __slots__ = ("_lanes", "_longest", "_record", "_runs", "map", "raw", "size", "strict", "target")

    def __init__(self, raw: bytes, map: AddressMap, target: Target, strict: bool) -> None:
        self.raw, self.map, self.target, self.strict = raw, map, target, strict
        word = f"<u{target.word}"
        fields = [("offset", word), ("info", word)] + ([("addend", word)] if target.rela else [])
        self._record = np.dtype(fields)
        self.size = target.rela_size if target.rela else target.rel_size
        self._runs: dict[tuple[int, int], Run] = {}
        self._lanes: dict[tuple[int, int], list[tuple[int, np.ndarray]]] = {}
        self._longest: dict[int, int] = {}

    def _split(self, info: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        bits, low = (32, 0xFFFFFFFF) if self.target.bits == 64 else (8, 0xFF)
        kind = info.dtype.type
        return info & kind(low), info >> kind(bits)

    def _good(self, table: np.ndarray) -> np.ndarray:
        kinds, _ = self._split(table["info"])
        good: np.ndarray = kinds <= self.target.highest_relocation
        if self.strict:
            good &= (kinds == 0) | self.map.in_memory(table["offset"].astype(np.uint64), 1)
        return good

    def run(self, offset: int, high: int) -> Run:
        """The run of good relocations that begins at ``offset``, up to ``high``: segments may share file bytes."""
        key = (offset, high)
        if key not in self._runs:
            count, seen, relative = max(0, high - offset) // self.size, 0, 0
            found = [_NONE]
            while seen < count:
                have = min(_CHUNK, count - seen)
                table = np.frombuffer(self.raw, self._record, have, offset + seen * self.size)
                good = self._good(table)
                run = have if good.all() else int(good.argmin())
                kinds, symbols = self._split(table["info"][:run])
                found.append(symbols.astype(np.int64))
                if relative == seen:
                    same = kinds == RELATIVE[self.target.name]
                    relative += run if same.all() else int(same.argmin())
                seen += run
                if run < have:
                    break
            self._runs[key] = Run(np.maximum.accumulate(np.concatenate(found)), relative)
        return self._runs[key]

    def _range(self, low: int, high: int) -> list[tuple[int, np.ndarray]]:
        """The relocations of a range by where they begin: (base, symbol of each, -1 for one that is not good)."""
        key = (low, high)
        if key not in self._lanes:
            word, lanes = self.target.word, []
            for base in range(low + -low % word, low + -low % word + self.size, word):
                count = max(0, high - base) // self.size
                if count:
                    table = np.frombuffer(self.raw, self._record, count, base)
                    symbols = self._split(table["info"])[1].astype(np.int64)
                    lanes.append((base, np.where(self._good(table), symbols, -1)))
            self._lanes[key] = lanes
        return self._lanes[key]

    def _bad(self, lane: np.ndarray, below: int) -> np.ndarray:
        return np.append(np.flatnonzero((lane < 0) | (lane >= below)), len(lane))

    def tables(self, low: int, high: int, count: int, below: int) -> np.ndarray:
        """Where ``count`` good relocations with symbols below ``below`` begin in a range."""
        found = [_NONE]
        for base, lane in self._range(low, high):
            found.append(run_starts(self._bad(lane, below), count) * self.size + base)
        return np.concatenate(found)

    def longest(self, below: int) -> int:
        """Length of the longest run of good relocations with symbols below ``below`` in any segment."""
        if below not in self._longest:
            best = 0
            for low, high, _ in self.map.ranges():
                for _, lane in self._range(low, high):
                    bad = np.concatenate(([-1], self._bad(lane, below)))
                    best = max(best, int(np.diff(bad).max()) - 1)
            self._longest[below] = best
        return self._longest[below]

    def least_symbols(self, count: int) -> int | None:
        """The least number of symbols with which some segment has ``count`` good relocations in a row."""
        if self.longest(_EVERY) < count:
            return None
        low, high = 0, 1
        while self.longest(high) < count:
            low, high = high, high * 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.longest(middle) >= count else (middle, high)
        return high


def packed_run(raw: bytes, offset: int, high: int, map: AddressMap, word: int, strict: bool) -> int:
    """How many words of packed relative relocations (RELR) begin at ``offset``.

    The first is an address; odd words after it are bitmaps. Source: glibc elf/dynamic-link.h, elf_dynamic_do_relr.
    """
    count = max(0, high - offset) // word
    if offset % word or not count:
        return 0
    words = np.frombuffer(raw, f"<u{word}", count, offset)
    if words[0] & np.array(1, words.dtype):
        return 0
    if not strict:
        return count
    even = words & np.array(1, words.dtype) == 0
    bad = even & ~map.in_memory(words.astype(np.uint64), word)
    return int(bad.argmax()) if bad.any() else count
