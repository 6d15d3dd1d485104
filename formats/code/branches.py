"""Where direct branches may go: to instruction starts behind, or to any place ahead inside executable regions.

A place ahead becomes one where an instruction has to start. A displacement of four bytes may also lead to address
0: there linkers send the calls of a weak function that nobody defines, which are never reached. The set of a displacement's next byte, given its
low bytes, is exact: places ahead are intervals; places behind are looked up in the bitmap of starts, which a
stride of 256**k visits in the order of the byte's values.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bytegen.formats.code.machine import Machine
from bytegen.formats.core.masks import constant
from bytegen.formats.core.steps import StreamStep
from bytegen.formats.core.written import Written

_ALL = constant(True, False)
_RECENT = 4096  # bytes behind whose starts are looked at first: mostly they have every low byte


class Range(NamedTuple):
    """Bytes [start, stop) of the file that hold instructions; ``shift`` is address - offset."""

    start: int
    stop: int
    shift: int


class ByteBranches:
    """Targets on x86: a displacement of 1, 2 or 4 bytes, counted from the next instruction, ends the branch."""

    def __init__(self, ranges: tuple[Range, ...], bits: int) -> None:
        self.ranges = ranges
        self.wrap = 1 << bits

    def _field(self, machine: Machine, begin: int, data: bytearray) -> tuple[int, int]:
        """Where the displacement of the branch at ``begin`` starts, and its size."""
        state, at = machine.start, begin
        table, left = machine.table, machine.displacement_left
        while not left[state]:
            state = table[state << 8 | data[at]]
            at += 1
        return at, left[state]

    def _reach(self, shift: int, size: int, end: int, range_: Range) -> tuple[int, int, int]:
        """(base, low, high): a displacement d goes to offset base + d of a range, low <= d <= high in reach."""
        base = end + shift - range_.shift
        half = 1 << 8 * size - 1
        low, high = range_.start - base, range_.stop - 1 - base
        if high < -half and high + self.wrap >= -half:  # around the top of the address space
            base, low, high = base - self.wrap, low + self.wrap, high + self.wrap
        elif low >= half and low - self.wrap < half:
            base, low, high = base + self.wrap, low - self.wrap, high - self.wrap
        return base, max(low, -half), min(high, half - 1)

    def mask(self, step: StreamStep, state: int, begin: int, room: int, data: Written) -> np.ndarray:
        """See `Targets.mask`."""
        field, size = self._field(step.machine, begin, data)
        k = len(data) - field
        end = field + size
        prefix = int.from_bytes(data[field:], "little")
        shift = _shift(self.ranges, begin)
        reaches = [(*self._reach(shift, size, end, r), r) for r in self.ranges]
        unit = 1 << 8 * k
        for base, low, high, _ in reaches:
            if high - max(low, end - base) >= 256 * unit:
                return _ALL
        out = np.zeros(257, dtype=bool)
        nowhere = -(end + shift)
        if nowhere < -(1 << 31):
            nowhere += self.wrap
        if size == 4 and -(1 << 31) <= nowhere < 1 << 31 and (nowhere - prefix) % unit == 0:
            out[(nowhere >> 8 * k) & 255] = True
        for base, low, high, _ in reaches:
            _mark_ahead(max(low, end - base), high, k, prefix, out)
            if k == 0:
                _mark_lowest(base, low, min(high, end - 1 - base), data, out)
            else:
                _mark_behind(base, low, min(high, end - 1 - base), k, prefix, data, out)
        out.flags.writeable = False
        return out

    def target(self, step: StreamStep, state: int, begin: int, data: Written) -> int:
        """See `Targets.target`."""
        machine = step.machine
        if not machine.relative[state]:
            return -1
        field, size = self._field(machine, begin, data)
        distance = int.from_bytes(data[field:], "little", signed=True)
        end = len(data)
        place = end + distance
        if step.start <= place < step.stop:
            return place
        shift = _shift(self.ranges, begin)
        for range_ in self.ranges:
            place = (end + shift + distance - range_.shift) % self.wrap
            if range_.start <= place < range_.stop:
                return place
        return -1


def _shift(ranges: tuple[Range, ...], offset: int) -> int:
    for range_ in ranges:
        if range_.start <= offset < range_.stop:
            return range_.shift
    return 0


def _mark_ahead(low: int, high: int, k: int, prefix: int, out: np.ndarray) -> None:
    """Bytes after ``prefix`` of the displacements in [low, high], all of them allowed."""
    shift = 8 * k
    first = (low - prefix + (1 << shift) - 1) >> shift
    last = (high - prefix) >> shift
    if last - first >= 255:
        out[:256] = True
    elif first <= last:
        first, last = first & 255, last & 255
        if first <= last:
            out[first : last + 1] = True
        else:
            out[first:256] = True
            out[: last + 1] = True


def _mark_lowest(base: int, low: int, high: int, data: Written, out: np.ndarray) -> None:
    """Low bytes of the displacements in [low, high] that lead to a start."""
    while low <= high:
        first = max(low, high - _RECENT)
        found = _starts(data, base + first, base + high + 1)
        out[(found - base) & 255] = True
        if out[:256].all():
            return
        high = first - 1


def _starts(data: Written, first: int, stop: int) -> np.ndarray:
    """Offsets of the instruction starts in [first, stop)."""
    byte = first >> 3
    bits = np.unpackbits(np.frombuffer(data.starts[byte : (stop + 7) >> 3], np.uint8), bitorder="little")
    return np.flatnonzero(bits[first - byte * 8 : stop - byte * 8]) + first


def _mark_behind(base: int, low: int, high: int, k: int, prefix: int, data: Written, out: np.ndarray) -> None:
    """Bytes after ``prefix`` of the displacements in [low, high] that lead to a start."""
    shift = 8 * k
    first = (low - prefix + (1 << shift) - 1) >> shift
    last = (high - prefix) >> shift
    if first > last:
        return
    place = base + prefix + (first << shift)
    bit = place & 7
    stride = 1 << shift - 3
    rows = np.frombuffer(data.starts[place >> 3 :: stride][: last - first + 1], np.uint8)
    found = np.flatnonzero(rows & (1 << bit))
    out[(found + first) & 255] = True


class WordBranches:
    """Targets on AArch64: a signed count of words from the branch itself, inside one little-endian word."""

    def __init__(self, ranges: tuple[Range, ...], bits: int) -> None:
        self.ranges = ranges

    def _goes(self, begin: int, word: int, data: Written) -> int:
        place = begin + 4 * _words(word)
        here = _shift(self.ranges, begin)
        for range_ in self.ranges:
            offset = place + here - range_.shift
            if range_.start <= offset < range_.stop and (offset >= begin or data.is_start(offset)):
                return offset
        return -1

    def mask(self, step: StreamStep, state: int, begin: int, room: int, data: Written) -> np.ndarray:
        """See `Targets.mask`."""
        machine = step.machine
        out = machine.mask(state, room).copy()
        low = int.from_bytes(data[begin:], "little")
        for byte in np.flatnonzero(out[:256]).tolist():
            if machine.relative[machine.table[state << 8 | byte]]:
                out[byte] = self._goes(begin, low | byte << 24, data) >= 0
        out.flags.writeable = False
        return out

    def target(self, step: StreamStep, state: int, begin: int, data: Written) -> int:
        """See `Targets.target`."""
        if not step.machine.relative[state]:
            return -1
        return self._goes(begin, int.from_bytes(data[begin : begin + 4], "little"), data)


def _words(word: int) -> int:
    """How many words after itself a direct branch goes: imm26 of B and BL, imm14 of TBZ, else imm19."""
    if word & 0x7C000000 == 0x14000000:
        size, low = 26, 0
    elif word & 0x7E000000 == 0x36000000:
        size, low = 14, 5
    else:
        size, low = 19, 5
    value = word >> low & ((1 << size) - 1)
    return value - (1 << size) if value >> size - 1 else value


def branches(machine: Machine, ranges: tuple[Range, ...], bits: int) -> ByteBranches | WordBranches:
    """The branches of an instruction set over executable ranges; addresses have that many bits."""
    return WordBranches(ranges, bits) if machine.word == 4 else ByteBranches(ranges, bits)
