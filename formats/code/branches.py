"""Where direct branches may go: to instruction starts behind, or to any place ahead inside executable regions.

A place ahead becomes one where an instruction has to start. In ELF files a displacement of four bytes may also
lead to address 0: there linkers send the calls of a weak function that nobody defines, which are never reached.

The set of a displacement's next byte, given its low bytes, is exact: places ahead are intervals; places behind are
looked up in the bitmap of starts, which a stride of 256**k visits in the order of the byte's values.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from bytegen.formats.code.machine import Machine
from bytegen.formats.core.masks import ANY_BYTE, shared
from bytegen.formats.core.steps import StreamStep
from bytegen.formats.core.stream import RELATIVE
from bytegen.formats.core.written import Written

NOWHERE, BARRED = -1, -2
_RECENT = 4096  # bytes behind whose starts are looked at first: mostly they have every low byte
_ONES, _ZEROS = b"\1" * 256, bytes(256)
# _PICK[i] turns bytes into whether bit i of each is set; _SPREAD[byte] are its bits, the lowest first.
_PICK = tuple(bytes(byte >> bit & 1 for byte in range(256)) for bit in range(8))
_SPREAD = tuple(bytes(byte >> bit & 1 for bit in range(8)) for byte in range(256))


class Range(NamedTuple):
    """Bytes [start, stop) of the file that hold instructions; ``shift`` is address - offset."""

    start: int
    stop: int
    shift: int


class ByteBranches:
    """Targets on x86: a displacement of 1, 2 or 4 bytes, counted from the next instruction, ends the branch.

    ``nowhere``: whether address 0 is a target too.
    """

    def __init__(self, ranges: tuple[Range, ...], bits: int, nowhere: bool = False) -> None:
        self.ranges = ranges
        self.wrap = 1 << bits
        self.nowhere = nowhere
        self._one = len(ranges) == 1

    def mask(self, step: StreamStep, state: int, begin: int, field: int, data: Written) -> np.ndarray:
        """See `Targets.mask`."""
        position = len(data)
        k = position - field
        end = position + step.machine.displacement_left[state]
        size = end - field
        if not k and size > 1 and step.stop - end >= 256:
            return ANY_BYTE
        prefix = int.from_bytes(data[field:], "little") if k else 0
        zero = -1  # the byte that leads to address 0
        if self.nowhere and size == 4:
            distance = -(end + step.shift)
            if distance < -(1 << 31):
                distance += self.wrap
            if not (distance ^ prefix) & (1 << 8 * k) - 1 and -(1 << 31) <= distance < 1 << 31:
                zero = distance >> 8 * k & 255
        if self._one and k:
            return _far(step.start, step.stop, end + prefix, 8 * k, zero, data)
        if self._one and size == 1:
            return _near(step.start, step.stop, end, data)
        out = bytearray(257)
        self._mark_all(step, end, size, k, prefix, data, out)
        if zero >= 0:
            out[zero] = 1
        return shared(bytes(out))

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

    def _mark_all(
        self, step: StreamStep, end: int, size: int, k: int, prefix: int, data: Written, out: bytearray
    ) -> None:
        """Mark the bytes that lead into any range."""
        marks = np.frombuffer(out, dtype=bool)
        for range_ in self.ranges:
            base, low, high = self._reach(step.shift, size, end, range_)
            _mark_ahead(max(low, end - base), high, k, prefix, marks)
            if k == 0:
                _mark_lowest(base, low, min(high, end - 1 - base), data, marks)
            else:
                _mark_behind(base, low, min(high, end - 1 - base), k, prefix, data, marks)

    def land(self, step: StreamStep, end: int, distance: int, data: Written) -> int:
        """The offset that a branch ending at ``end`` goes to; `NOWHERE` is allowed too, `BARRED` is not."""
        place = end + distance
        if step.start <= place < step.stop:
            return place if place >= end or data.is_start(place) else BARRED
        for range_ in self.ranges:
            place = (end + step.shift + distance - range_.shift) % self.wrap
            if range_.start <= place < range_.stop:
                return place if place >= end or data.is_start(place) else BARRED
        if self.nowhere and (end + step.shift + distance) % self.wrap == 0:
            return NOWHERE
        return BARRED

    def target(self, step: StreamStep, state: int, begin: int, field: int, data: Written) -> int:
        """See `Targets.target`."""
        return self.land(step, len(data), int.from_bytes(data[field:], "little", signed=True), data)

    def whole(self, step: StreamStep, state: int, begin: int, raw: memoryview, data: Written) -> int:
        """See `Targets.whole`."""
        size = step.machine.displacement_left[state]
        if len(raw) < size:
            return 0
        distance = int.from_bytes(raw[:size], "little", signed=True)
        return size if self.land(step, len(data) + size, distance, data) != BARRED else 0


def _near(start: int, stop: int, end: int, data: Written) -> np.ndarray:
    """The mask of a displacement of one byte from ``end``, within [start, stop)."""
    ahead = min(stop - end, 128)
    first = max(start, end - 128)
    behind = end - first
    # Bytes of the bitmap; past its end no instruction starts.
    bits = b"".join(map(_SPREAD.__getitem__, data.starts[first >> 3 : (end + 7) >> 3]))
    found = bits[first & 7 : (first & 7) + behind]
    return shared(
        b"".join((_ONES[:ahead], _ZEROS[: 256 - ahead - behind], found, _ZEROS[: behind - len(found) + 1]))
    )


def _far(start: int, stop: int, base: int, shift: int, zero: int, data: Written) -> np.ndarray:
    """The mask of a byte that counts 1 << ``shift`` from ``base``, within [start, stop); ``zero`` is allowed too."""
    ahead = (stop - 1 - base >> shift) + 1
    behind = base - start >> shift
    ahead = 0 if ahead < 0 else ahead if ahead < 256 else 256
    if ahead == 256 or behind <= 0:
        return _few(ahead, 0, zero)
    starts = data.starts
    if shift > 8 and behind < 8:
        pattern, size = 0, len(starts)
        for i in range(1, behind + 1):
            place = base - (i << shift)
            if place >> 3 < size and starts[place >> 3] >> (place & 7) & 1:
                pattern |= 1 << i
        return _few(ahead, pattern, zero)
    first = base - (behind << shift)
    raw = starts[first >> 3 : (base - (1 << shift) >> 3) + 1 : 1 << shift - 3]
    found = raw.translate(_PICK[first & 7])
    if behind <= 256 - ahead and len(found) == behind:
        out = b"".join((_ONES[:ahead], _ZEROS[: 256 - ahead - behind], found, b"\0"))
    else:
        marks = int.from_bytes(_ONES[:ahead], "little")
        for end in range(behind, 0, -256):
            part = found[max(0, end - 256) : end]
            marks |= int.from_bytes(part, "little") << 8 * (256 - min(end, 256))
        out = marks.to_bytes(257, "little")
    if zero >= 0 and not out[zero]:
        out = b"%b\1%b" % (out[:zero], out[zero + 1 :])
    return shared(out)


@lru_cache(maxsize=4096)
def _few(ahead: int, pattern: int, zero: int) -> np.ndarray:
    """The bytes below ``ahead``, those as far below 256 as a bit of ``pattern`` says, and ``zero`` (-1: none)."""
    out = bytearray(257)
    out[:ahead] = _ONES[:ahead]
    for i in range(1, 8):
        if pattern >> i & 1:
            out[256 - i] = 1
    if zero >= 0:
        out[zero] = 1
    return shared(bytes(out))


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
    while low <= high and not out[:256].all():
        first = max(low, high - _RECENT)
        found = _starts(data, base + first, base + high + 1)
        out[(found - base) & 255] = True
        high = first - 1


def _starts(data: Written, first: int, stop: int) -> np.ndarray:
    """Offsets of the instruction starts in [first, stop)."""
    byte = first >> 3
    raw = data.starts[byte : (stop + 7) >> 3]
    bits = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")
    return np.flatnonzero(bits[first - byte * 8 : stop - byte * 8]) + first


def _mark_behind(base: int, low: int, high: int, k: int, prefix: int, data: Written, out: np.ndarray) -> None:
    """Bytes after ``prefix`` of the displacements in [low, high] that lead to a start."""
    shift = 8 * k
    first = (low - prefix + (1 << shift) - 1) >> shift
    last = (high - prefix) >> shift
    if first > last:
        return
    place = base + prefix + (first << shift)
    stride = 1 << shift - 3
    raw = data.starts[place >> 3 :: stride][: last - first + 1]
    found = np.flatnonzero(np.frombuffer(raw, np.uint8) & (1 << (place & 7)))
    out[(found + first) & 255] = True


_LAST = tuple((1 << group, byte) for group, byte in enumerate((0x14, 0x15, 0x16, 0x17, 0x36, 0x54)))


class WordBranches:
    """Targets on AArch64: a signed count of words from the branch itself, inside one little-endian word."""

    def __init__(self, ranges: tuple[Range, ...], bits: int, nowhere: bool = False) -> None:
        self.ranges = ranges
        self.wrap = 1 << bits

    def land(self, step: StreamStep, begin: int, word: int, data: Written) -> int:
        """The offset that the branch at ``begin`` goes to; `BARRED` when there is no instruction."""
        place = begin + 4 * _words(word)
        if step.start <= place < step.stop:
            return place if place >= begin or data.is_start(place) else BARRED
        for range_ in self.ranges:
            offset = (place + step.shift - range_.shift) % self.wrap
            if range_.start <= offset < range_.stop:
                return offset if offset >= begin or data.is_start(offset) else BARRED
        return BARRED

    def mask(self, step: StreamStep, state: int, begin: int, field: int, data: Written) -> np.ndarray:
        """See `Targets.mask`."""
        low = int.from_bytes(data[begin:], "little")
        barred = 0
        for bit, byte in _LAST:
            if self.land(step, begin, low | byte << 24, data) == BARRED:
                barred |= bit
        return step.machine.last(state, barred)

    def target(self, step: StreamStep, state: int, begin: int, field: int, data: Written) -> int:
        """See `Targets.target`."""
        return self.land(step, begin, int.from_bytes(data[begin : begin + 4], "little"), data)

    def whole(self, step: StreamStep, state: int, begin: int, raw: memoryview, data: Written) -> int:
        """See `Targets.whole`."""
        machine = step.machine
        after = machine.table[state << 8 | raw[0]]
        if machine.traits[after] & RELATIVE:
            word = int.from_bytes(data[begin:], "little") | raw[0] << 24
            return int(self.land(step, begin, word, data) != BARRED)
        return int(after > 0)


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


def branches(
    machine: Machine, ranges: tuple[Range, ...], bits: int, nowhere: bool = False
) -> ByteBranches | WordBranches:
    """The branches of an instruction set over executable ranges; addresses have that many bits."""
    return (WordBranches if machine.word == 4 else ByteBranches)(ranges, bits, nowhere)
