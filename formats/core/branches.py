# cython: boundscheck=False, wraparound=False
"""Where direct branches may go: to instruction starts behind, or to any place ahead inside executable regions.

A place ahead becomes one where an instruction has to start. In ELF files a displacement of four bytes may also
lead to address 0: there linkers send the calls of a weak function that nobody defines, which are never reached.

The set of a displacement's next byte, given its low bytes, is exact: places ahead are intervals; places behind are
looked up in the bitmap of starts, which a stride of 256**k visits in the order of the byte's values.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bytegen.formats.core import octets
from bytegen.formats.core.masks import ANY_BYTE, blank
from bytegen.formats.core.steps import Machine, StreamStep, Targets
from bytegen.formats.core.stream import RELATIVE
from bytegen.formats.core.written import Written

NOWHERE, BARRED = -1, -2
_FITS = 1 << 61


class Range(NamedTuple):
    """Bytes [start, stop) of the file that hold instructions; ``shift`` is address - offset."""

    start: int
    stop: int
    shift: int


class _Places(Targets):
    """Where a branch may land: in any of the ranges, whose addresses have ``bits`` bits.

    ``nowhere``: whether address 0 is a target too.
    """

    __slots__ = ("_count", "_table", "_wrap", "nowhere")

    def __init__(self, ranges: tuple[Range, ...], bits: int, nowhere: bool = False) -> None:
        # Addresses are reckoned with in 64 bits.
        if any(abs(shift) >= _FITS for _, _, shift in ranges):
            raise ValueError(
                f"code at addresses below {_FITS:#x} is what branches are counted in, got {ranges}"
            )
        self.nowhere = nowhere
        self._count = len(ranges)
        # int64[n, 3]: start, stop and shift of each
        self._table = memoryview(np.array(ranges, np.int64).reshape(-1, 3))  # type: ignore[arg-type]
        self._wrap = 1 << bits if bits < 62 else 0

    def _landing(self, step: StreamStep, place: int, ahead: int, data: Written) -> int:
        """``place``, or what is mapped there beyond the region of ``step``; from ``ahead`` on starts are promised."""
        if step.start <= place < step.stop:
            return place if place >= ahead or _set(data.starts, place) else BARRED
        far = place + step.shift
        if self._wrap:
            far %= self._wrap
        for i in range(self._count):
            near = far - self._table[i, 2]
            if self._wrap:
                near %= self._wrap
            if self._table[i, 0] <= near < self._table[i, 1]:
                return near if near >= ahead or _set(data.starts, near) else BARRED
        return NOWHERE if self.nowhere and far == 0 else BARRED


class ByteBranches(_Places):
    """Targets on x86: a displacement of 1, 2 or 4 bytes, counted from the next instruction, ends the branch."""

    __slots__ = ()

    def mask(self, step: StreamStep, state: int, begin: int, field: int, data: Written) -> np.ndarray:
        """See `Targets.mask`."""
        position = octets.size_of(data)
        k = position - field
        left = octets.byte_at(step.displacement_left, state)
        end = position + left
        size = k + left
        if not k and size > 1 and step.stop - end >= 256:
            return ANY_BYTE
        prefix = 0
        for i in range(k):
            prefix |= octets.byte_at(data, field + i) << 8 * i
        zero = self._zero(step, end, k, prefix) if self.nowhere and size == 4 else -1
        if self._count == 1 and k:
            return self._far(step.start, step.stop, end + prefix, 8 * k, zero, data)
        if self._count == 1 and size == 1:
            return self._near(step.start, step.stop, end, data)
        return self._into_any(step.shift, end, size, k, prefix, zero, data)

    def _zero(self, step: StreamStep, end: int, k: int, prefix: int) -> int:
        """The byte that leads to address 0, after ``prefix``, -1 where none does."""
        distance = -(end + step.shift)
        if self._wrap and distance < -0x80000000:
            distance += self._wrap
        if distance < -0x80000000 or distance > 0x7FFFFFFF or (distance ^ prefix) & (1 << 8 * k) - 1:
            return -1
        return distance >> 8 * k & 255

    def _near(self, start: int, stop: int, end: int, data: Written) -> np.ndarray:
        """The mask of a displacement of one byte from ``end``, within [start, stop)."""
        starts = data.starts
        blanks, row = blank()
        cells = blanks.cells
        for i in range(min(stop - end, 128)):
            cells[row, i] = 1
        # Past the end of the bitmap no instruction starts.
        for place in range(max(start, end - 128), min(end, 8 * len(starts))):
            if starts[place >> 3] >> (place & 7) & 1:
                cells[row, 256 + place - end] = 1
        return blanks.views[row]

    def _far(self, start: int, stop: int, base: int, shift: int, zero: int, data: Written) -> np.ndarray:
        """The mask of a byte that counts 1 << ``shift`` from ``base``, within [start, stop); ``zero`` is allowed."""
        ahead = (stop - 1 - base >> shift) + 1
        if ahead >= 256:
            return ANY_BYTE
        starts = data.starts
        blanks, row = blank()
        cells = blanks.cells
        count = 0
        for i in range(ahead):
            cells[row, i] = 1
            count += 1
        if zero >= 0 and not cells[row, zero]:
            cells[row, zero] = 1
            count += 1
        limit, stride = 8 * len(starts), 1 << shift
        place, byte = base - stride, 255
        while place >= start and count < 256:
            if place < limit and starts[place >> 3] >> (place & 7) & 1 and not cells[row, byte]:
                cells[row, byte] = 1
                count += 1
            place -= stride
            byte = byte - 1 & 255
        return blanks.views[row]

    def _into_any(
        self, shift: int, end: int, size: int, k: int, prefix: int, zero: int, data: Written
    ) -> np.ndarray:
        """The mask of byte ``k`` of a displacement of ``size`` bytes from ``end`` into any range."""
        starts, table = data.starts, self._table
        blanks, row = blank()
        cells = blanks.cells
        limit, bits, half, count, fixed = 8 * len(starts), 8 * k, 1, 0, prefix
        unit = half << bits
        half <<= 8 * size - 1
        if zero >= 0:
            cells[row, zero] = 1
            count = 1
        for i in range(self._count):
            base = end + shift - table[i, 2]
            low, high = table[i, 0] - base, table[i, 1] - 1 - base
            if self._wrap:  # around the top of the address space
                if high < -half and high + self._wrap >= -half:
                    base, low, high = base - self._wrap, low + self._wrap, high + self._wrap
                elif low >= half and low - self._wrap < half:
                    base, low, high = base + self._wrap, low - self._wrap, high - self._wrap
            low, high = low if low > -half else -half, high if high < half else half - 1
            # A displacement is fixed + y * unit: y counts, and y & 255 is the byte. Ahead every place will do.
            most = high - fixed >> bits
            least = (low if low > end - base else end - base) - fixed + unit - 1 >> bits
            y = least
            last = most if most - y < 256 else y + 255
            while y <= last:
                if not cells[row, y & 255]:
                    cells[row, y & 255] = 1
                    count += 1
                y += 1
            if count >= 256:
                return blanks.views[row]
            y = least - 1 if least - 1 < most else most
            last = low - fixed + unit - 1 >> bits
            place = base + fixed + (y << bits)
            while y >= last and count < 256:
                if place < limit and starts[place >> 3] >> (place & 7) & 1 and not cells[row, y & 255]:
                    cells[row, y & 255] = 1
                    count += 1
                y -= 1
                place -= unit
        return blanks.views[row]

    def land(self, step: StreamStep, end: int, distance: int, data: Written) -> int:
        """The offset that a branch ending at ``end`` goes to; `NOWHERE` is allowed too, `BARRED` is not."""
        return self._landing(step, end + distance, end, data)

    def target(self, step: StreamStep, state: int, begin: int, field: int, data: Written) -> int:
        """See `Targets.target`."""
        end = octets.size_of(data)
        bits = 8 * (end - field)
        value = 0
        for i in range(end - field):
            value |= octets.byte_at(data, field + i) << 8 * i
        return self.land(step, end, value - (value >> bits - 1 << bits), data)

    def whole(self, step: StreamStep, state: int, begin: int, raw: memoryview, data: Written) -> int:
        """See `Targets.whole`."""
        size = octets.byte_at(step.displacement_left, state)
        if len(raw) < size:
            return 0
        value = 0
        for i in range(size):
            value |= raw[i] << 8 * i
        distance = value - (value >> 8 * size - 1 << 8 * size)
        return size if self.land(step, len(data) + size, distance, data) != BARRED else 0


def _set(starts: bytearray, place: int) -> bool:
    """Whether bit ``place`` of a bitmap is set; `Written.is_start` without a call."""
    i = place >> 3
    return i < len(starts) and starts[i] >> (place & 7) & 1 == 1


_LAST = tuple((1 << group, byte) for group, byte in enumerate((0x14, 0x15, 0x16, 0x17, 0x36, 0x54)))


class WordBranches(_Places):
    """Targets on AArch64: a signed count of words from the branch itself, inside one little-endian word."""

    __slots__ = ()

    def land(self, step: StreamStep, begin: int, word: int, data: Written) -> int:
        """The offset that the branch at ``begin`` goes to; `BARRED` when there is no instruction."""
        return self._landing(step, begin + 4 * _words(word), begin, data)

    def mask(self, step: StreamStep, state: int, begin: int, field: int, data: Written) -> np.ndarray:
        """See `Targets.mask`."""
        low = (
            octets.byte_at(data, begin)
            | octets.byte_at(data, begin + 1) << 8
            | octets.byte_at(data, begin + 2) << 16
        )
        barred = 0
        for bit, byte in _LAST:
            if self.land(step, begin, low | byte << 24, data) == BARRED:
                barred |= bit
        return step.machine.last(state, barred)

    def target(self, step: StreamStep, state: int, begin: int, field: int, data: Written) -> int:
        """See `Targets.target`."""
        word = 0
        for i in range(4):
            word |= octets.byte_at(data, begin + i) << 8 * i
        return self.land(step, begin, word, data)

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
    return WordBranches(ranges, bits) if machine.word == 4 else ByteBranches(ranges, bits, nowhere)
