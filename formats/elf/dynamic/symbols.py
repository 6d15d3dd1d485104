"""Dynamic symbols already written: runs of good ones, and where tables of a given length are.

Good: a known type and binding, plain visibility, a name inside the string table, thread-local ones inside PT_TLS
where there is one; the first is null.
The tables' addresses are multiples of the word, as compilers' linkers place them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from bytegen.formats.elf.constants import STT_TLS, SYMBOL_BINDS, SYMBOL_TYPES
from bytegen.formats.elf.dynamic.addresses import AddressMap
from bytegen.formats.elf.target import Target

_FIELDS = {
    64: ["name <u4", "info u1", "other u1", "shndx <u2", "value <u8", "size <u8"],
    32: ["name <u4", "value <u4", "size <u4", "info u1", "other u1", "shndx <u2"],
}
RECORDS = {
    bits: np.dtype([(field.split()[0], field.split()[1]) for field in fields])
    for bits, fields in _FIELDS.items()
}
_GOOD_INFO = np.zeros(256, dtype=bool)
_GOOD_INFO[[bind << 4 | kind for bind in SYMBOL_BINDS for kind in SYMBOL_TYPES]] = True
AARCH64_VARIANT_PCS = 0x80  # bit of st_other
_CHUNK = 4096
_MOST_LOOKED = 1 << 18
_NONE = np.zeros(0, np.int64)


class _Lane(NamedTuple):
    """The symbols of a range that begin at base + i * size.

    Which are null (ascending), how many that are good whatever their names follow each, itself counted, the most of
    them, and the name offsets of all.
    """

    base: int
    null: np.ndarray
    runs: np.ndarray
    most: int
    name: np.ndarray

    def starts(self, count: int) -> np.ndarray:
        """Where ``count`` symbols begin that are good but for their names, the first one null."""
        if count < 2:
            return self.null
        return self.null[self.runs >= count] if self.most >= count else _NONE


class Symbols:
    """The written bytes of the segments, as dynamic symbol tables."""

    __slots__ = ("_lanes", "_longest", "_record", "_runs", "_size", "_word", "map", "others", "raw", "tls")

    def __init__(self, raw: bytes, map: AddressMap, target: Target, tls: int | None) -> None:
        self.raw, self.map, self.tls = raw, map, tls
        self._record, self._size, self._word = RECORDS[target.bits], target.sym_size, target.word
        self.others = 3 | (AARCH64_VARIANT_PCS if target.name == "elf64-aarch64" else 0)
        self._lanes: dict[tuple[int, int], list[_Lane]] = {}
        self._longest: dict[int, int] = {}
        self._runs: dict[
            tuple[int, int, int], tuple[int, bool]
        ] = {}  # length known so far, whether it ends there

    def _good(self, table: np.ndarray) -> np.ndarray:
        good: np.ndarray = _GOOD_INFO[table["info"]] & (table["other"] & (255 ^ self.others) == 0)
        if self.tls is not None:
            local = table["info"] & 15 == STT_TLS
            if local.any():
                size = np.uint64(self.tls)
                value = table["value"].astype(np.uint64)
                room = size - np.minimum(value, size)
                good &= ~local | ((value <= size) & (table["size"] <= room))
        return good

    def _null(self, table: np.ndarray) -> np.ndarray:
        null = table["name"] == 0
        for field in ("info", "other", "shndx", "value", "size"):
            null &= table[field] == 0
        return null

    def run(self, offset: int, high: int, most: int, names: int) -> int:
        """How many good symbols with names below ``names`` begin at ``offset``, counted up to ``most``."""
        if offset % self._word or offset + self._size > high or any(self.raw[offset : offset + self._size]):
            return 0
        count, key = min((high - offset) // self._size, most), (offset, high, names)
        seen, ended = self._runs.get(key, (0, False))
        while seen < count and not ended:
            have = min(_CHUNK, count - seen)
            table = np.frombuffer(self.raw, self._record, have, offset + seen * self._size)
            good = self._good(table) & (table["name"] < names)
            ended = not good.all()
            seen += int(good.argmin()) if ended else have
            self._runs[key] = seen, ended
        return min(seen, most)

    def longest_name(self, offset: int, count: int) -> int:
        """The greatest name offset of ``count`` symbols."""
        count = min(count, (len(self.raw) - offset) // self._size)
        if count <= 0:
            return 0
        return int(np.frombuffer(self.raw, self._record, count, offset)["name"].max())

    def _range(self, low: int, high: int) -> list[_Lane]:
        key = (low, high)
        if key not in self._lanes:
            lanes = []
            for base in range(low + -low % self._word, low + -low % self._word + self._size, self._word):
                count = max(0, high - base) // self._size
                if count:
                    table = np.frombuffer(self.raw, self._record, count, base)
                    null = np.flatnonzero(self._null(table))
                    if len(null):
                        bad = np.append(np.flatnonzero(~self._good(table)), count)
                        runs = bad[np.searchsorted(bad, null)] - null
                        lanes.append(_Lane(base, null, runs, int(runs.max()), table["name"]))
            self._lanes[key] = lanes
        return self._lanes[key]

    def sections(self, offset: int, count: int) -> np.ndarray:
        """st_shndx of ``count`` symbols."""
        count = min(count, (len(self.raw) - offset) // self._size)
        found: np.ndarray = np.frombuffer(self.raw, self._record, count, offset)["shndx"]
        return found

    def longest_tables(self, most: int) -> list[tuple[int, int]]:
        """(offset, end of its segment's bytes) of the longest tables, whatever their names: at most so many each
        range and lane."""
        found = []
        for low, high, _ in self.map.ranges():
            for lane in self._range(low, high):
                order = np.argsort(-lane.runs, kind="stable")[:most]
                found += [(int(x) * self._size + lane.base, high) for x in lane.null[order]]
        return found

    def tables(self, low: int, high: int, count: int, names: int) -> np.ndarray:
        """Where ``count`` good symbols, the first null, with names below ``names`` begin in a range."""
        found = [_NONE]
        for lane in self._range(low, high):
            starts = lane.starts(count)
            if count > 1 and len(starts):
                bad = np.append(np.flatnonzero(lane.name >= names), len(lane.name))
                starts = starts[bad[np.searchsorted(bad, starts)] - starts >= count]
            found.append(starts * self._size + lane.base)
        return np.concatenate(found)

    def _run(self, names: int) -> int:
        """Length of the longest run of good symbols with names below ``names``, the first null; 1 for a null one."""
        if names not in self._longest:
            best = 0
            for lane in self._lanes_everywhere():
                if lane.most <= best:
                    continue
                runs = lane.runs
                if names < 1 << 32:
                    long = np.append(np.flatnonzero(lane.name >= names), len(lane.name))
                    runs = np.minimum(runs, long[np.searchsorted(long, lane.null)] - lane.null)
                best = max(best, 1, int(runs.max()))
            self._longest[names] = best
        return self._longest[names]

    def _lanes_everywhere(self) -> Iterator[_Lane]:
        for low, high, _ in self.map.ranges():
            yield from self._range(low, high)

    def exist(self, count: int, names: int) -> bool:
        """Whether some segment has ``count`` good symbols with names below ``names``."""
        return self._run(names) >= count

    def least_names(self, count: int) -> int:
        """The least bound on names under which ``count`` good symbols exist; 0 when there are none at all."""
        found = []
        for lane in self._lanes_everywhere():
            starts = lane.starts(count)
            if not len(starts):
                continue
            if len(starts) * count > _MOST_LOOKED:
                return self._search_names(count)
            # The greatest name of each run: between its start and its end, every other piece.
            edges = np.stack((starts, starts + count), axis=1).reshape(-1)
            edges = edges[:-1] if edges[-1] == len(lane.name) else edges
            found.append(int(np.maximum.reduceat(lane.name, edges)[::2].min()) + 1)
        return min(found, default=0)

    def _search_names(self, count: int) -> int:
        low, high = 0, 1 << 32
        if not self.exist(count, high):
            return 0
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.exist(count, middle) else (middle, high)
        return high
