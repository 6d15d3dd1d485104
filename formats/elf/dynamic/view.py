"""What the bytes before a dynamic section can serve as: the tables that its entries may name."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bytegen.formats.code.region import Code
from bytegen.formats.elf.dynamic import gnu_hash, hashes, versions
from bytegen.formats.elf.dynamic.addresses import AddressMap
from bytegen.formats.elf.dynamic.names import Strings
from bytegen.formats.elf.dynamic.relocations import Relocations, packed_run
from bytegen.formats.elf.dynamic.symbols import Symbols
from bytegen.formats.elf.target import Target

_NONE = np.zeros(0, np.int64)
_MOST_KEPT = 4096


class Hashed(NamedTuple):
    """The hash tables of a range: where they begin, and how many symbols each has (0: it does not tell)."""

    starts: np.ndarray
    symbols: np.ndarray


class View:
    """The written bytes of the segments. Everything is computed once, and only when it is asked for."""

    __slots__ = (
        "_hashed",
        "_indices",
        "_packed",
        "_runs",
        "_starts",
        "_tables",
        "answers",
        "found",
        "map",
        "raw",
        "relocations",
        "strict",
        "strings",
        "symbols",
        "target",
    )

    def __init__(self, raw: bytes, map: AddressMap, target: Target, strict: bool, tls: int | None) -> None:
        self.raw, self.map, self.target, self.strict = raw, map, target, strict
        self.strings = Strings(raw, map)
        self.symbols = Symbols(raw, map, target, tls)
        self.relocations = Relocations(raw, map, target, strict)
        self._hashed: dict[tuple[bool, int, int], Hashed] = {}
        self._packed: dict[tuple[int, int], np.ndarray] = {}
        self._runs: dict[tuple[int, int], int] = {}
        self._indices: dict[int, int] = {}
        self._starts: np.ndarray | None = None
        self._tables: dict[object, list[tuple[int, versions.Versions]]] = {}
        self.answers: dict[object, bool] = {}  # of questions that the written bytes alone decide
        self.found: dict[int, int] = {}  # tag -> an address that was one of its table, the first to try again

    def hash_symbols(self, gnu: bool, offset: int, high: int) -> int | None:
        """Number of symbols of the good hash table at ``offset`` (0: it does not tell); None without one."""
        if not gnu:
            return hashes.symbols_of(self.raw, offset, high)
        found = gnu_hash.read(self.raw, offset, high, self.target.word)
        return None if found is None else found.symbols

    def hashed(self, gnu: bool, low: int, high: int) -> Hashed:
        """The good hash tables of a range."""
        key = (gnu, low, high)
        if key not in self._hashed:
            if gnu:
                starts = gnu_hash.starts(self.raw, low, high, self.target.word)
            else:
                starts = hashes.starts(self.raw, low, high)
            counts = [self.hash_symbols(gnu, x, high) or 0 for x in starts.tolist()]
            self._hashed[key] = Hashed(starts, np.array(counts, np.int64))
        return self._hashed[key]

    def packed(self, low: int, high: int) -> np.ndarray:
        """Where packed relative relocations begin in a range."""
        key = (low, high)
        if key not in self._packed:
            word = self.target.word
            base = low + -low % word
            count = max(0, high - base) // word
            if count:
                words = np.frombuffer(self.raw, f"<u{word}", count, base)
                good = words & np.array(1, words.dtype) == 0
                if self.strict:
                    good &= self.map.in_memory(words.astype(np.uint64), word)
                self._packed[key] = np.flatnonzero(good) * word + base
            else:
                self._packed[key] = _NONE
        return self._packed[key]

    def indices(self, highest: int) -> int:
        """Length of the longest table of version indices up to ``highest`` in any segment."""
        found = self._indices.get(highest)
        if found is None:
            ranges = self.map.ranges()
            found = max(
                (versions.longest_indices(self.raw, low, high, highest) for low, high, _ in ranges), default=0
            )
            self._indices[highest] = found
        return found

    def code_starts(self, code: Code) -> np.ndarray:
        """uint64: the addresses of the instructions written so far, which functions may begin at."""
        if self._starts is None:
            found = [_NONE.astype(np.uint64)]
            for start, stop, shift in code.ranges:
                offsets = np.arange(start, max(start, min(stop, len(self.raw))))
                addresses = (offsets + shift).astype(np.uint64)
                found.append(addresses[code.may_start(addresses, self.raw)])
            self._starts = np.concatenate(found)
        return self._starts

    def packed_run(self, offset: int, high: int) -> int:
        """How many words of packed relative relocations begin at ``offset``."""
        key = (offset, high)
        found = self._runs.get(key)
        if found is None:
            found = packed_run(self.raw, offset, high, self.map, self.target.word, self.strict)
            if len(self._runs) >= _MOST_KEPT:
                self._runs.clear()
            self._runs[key] = found
        return found

    def versions(self, definitions: bool, table: versions.Table) -> list[tuple[int, versions.Versions]]:
        """The good version tables in any segment: (address, table)."""
        key = (definitions, table._replace(high=0, raw=b""))
        if key not in self._tables:
            read = versions.read_definitions if definitions else versions.read_needs
            starts = versions.definition_starts if definitions else versions.starts
            found = []
            for low, high, shift in self.map.ranges():
                here = table._replace(high=high)
                for place in starts(self.raw, low, high):
                    good = read(here, place)
                    if good is not None:
                        found.append((place + shift, good))
            self._tables[key] = found
        return self._tables[key]
