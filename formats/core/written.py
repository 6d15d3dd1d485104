"""The bytes of a file so far, and what is known of the instructions in them.

Two bitmaps, one bit a byte of the file, say where instructions start and where ones are owed: the targets of
forward branches, the entry point, the functions that a table has named. What is owed is undone by a log, so
that taking bytes back costs no more than writing them did.
"""

from __future__ import annotations

from array import array

import numpy as np

_BLOCK = 512  # bytes by which a bitmap grows
LOOKED = 512  # bytes of the file that one search for what is owed goes through
NEVER = 1 << 62


class Snapshot(bytes):
    """The bytes at some moment; ``starts`` is the bitmap of the instruction starts in them."""

    starts: bytearray

    def is_start(self, offset: int) -> bool:
        """Whether an instruction starts there."""
        i = offset >> 3
        return 0 <= i < len(self.starts) and self.starts[i] >> (offset & 7) & 1 == 1

    def are_starts(self, offsets: np.ndarray) -> np.ndarray:
        """bool for each offset (int64): whether an instruction starts there."""
        return _set_bits(self.starts, offsets)


def _set_bits(bitmap: bytearray, offsets: np.ndarray) -> np.ndarray:
    bits = np.frombuffer(bitmap, np.uint8)
    byte = offsets >> 3
    inside = (byte >= 0) & (byte < len(bits))
    found = np.zeros(len(offsets), dtype=bool)
    found[inside] = bits[byte[inside]] >> (offsets[inside] & 7).astype(np.uint8) & 1
    return found


class Written(bytearray):
    """The bytes so far. Formats read it; `Constraint` alone appends and takes back."""

    __slots__ = ("log", "min_bytes", "privileged", "shared", "starts", "static", "wanted")

    def __init__(
        self,
        data: bytes | bytearray = b"",
        *,
        privileged: bool = False,
        static: bool = False,
        min_bytes: int = 0,
    ) -> None:
        super().__init__(data)
        self.privileged = privileged  # whether system instructions are allowed
        self.static = static  # whether nothing but programs at a fixed address is
        self.min_bytes = min_bytes  # the file may not end before
        self.shared = False  # whether a twin has the same bitmaps and log: `own` them before changing one
        self.starts = bytearray()  # bit i: an instruction starts at offset i
        self.wanted = bytearray()  # bit i: one has to
        self.log = array("Q")  # (position << 32 | offset) of every bit set in wanted, in the order of setting

    def __bytes__(self) -> bytes:
        if not self.starts:
            return bytes(memoryview(self))
        taken = Snapshot(memoryview(self))
        taken.starts = self.starts[:]
        return taken

    def twin(self) -> Written:
        """An independent copy. What is known of instructions is shared until one of the two changes it."""
        twin = Written.__new__(Written)
        bytearray.__init__(twin, self)
        twin.privileged = self.privileged
        twin.static = self.static
        twin.min_bytes = self.min_bytes
        twin.starts, twin.wanted, twin.log = self.starts, self.wanted, self.log
        twin.shared = self.shared = True
        return twin

    def own(self) -> None:
        """Have the bitmaps and the log for itself."""
        self.starts, self.wanted, self.log = self.starts[:], self.wanted[:], self.log[:]
        self.shared = False

    def truncate(self, position: int) -> None:
        """Take back what lies beyond ``position``: bytes, starts after it, and what was owed since."""
        del self[position:]
        if self.shared and (self.starts or self.log):
            self.own()
        starts, log = self.starts, self.log
        if len(starts) > position >> 3:
            del starts[(position >> 3) + 1 :]
            starts[-1] &= (2 << (position & 7)) - 1
        undone = len(log)
        while undone and log[undone - 1] >> 32 > position:
            undone -= 1
            offset = log[undone] & 0xFFFFFFFF
            self.wanted[offset >> 3] &= ~(1 << (offset & 7))
        del log[undone:]

    def start(self, offset: int) -> None:
        """Note that an instruction starts there."""
        if self.shared:
            self.own()
        starts, i = self.starts, offset >> 3
        if i >= len(starts):
            starts.extend(bytes(i - len(starts) + _BLOCK))
        starts[i] |= 1 << (offset & 7)

    def no_start(self, offset: int) -> None:
        """Note that none does after all."""
        if self.shared:
            self.own()
        self.starts[offset >> 3] &= ~(1 << (offset & 7))

    def is_start(self, offset: int) -> bool:
        """Whether an instruction starts there."""
        i = offset >> 3
        return 0 <= i < len(self.starts) and self.starts[i] >> (offset & 7) & 1 == 1

    def are_starts(self, offsets: np.ndarray) -> np.ndarray:
        """bool for each offset (int64): whether an instruction starts there."""
        return _set_bits(self.starts, offsets)

    def start_before(self, offset: int) -> int:
        """The last instruction start at or before ``offset``, which is less than 24 bytes back."""
        first = max(0, (offset >> 3) - 3)
        window = int.from_bytes(self.starts[first : (offset >> 3) + 1], "little")
        return first * 8 + (window & ((2 << (offset - first * 8)) - 1)).bit_length() - 1

    def want(self, offset: int) -> None:
        """Owe an instruction start at ``offset``, at or after the end."""
        if self.shared:
            self.own()
        wanted, i, bit = self.wanted, offset >> 3, 1 << (offset & 7)
        if i >= len(wanted):
            wanted.extend(bytes(i - len(wanted) + _BLOCK))
        if not wanted[i] & bit:
            wanted[i] |= bit
            self.log.append(min(len(self), 0xFFFFFFFF) << 32 | offset)

    def is_wanted(self, offset: int) -> bool:
        """Whether a start is owed there."""
        i = offset >> 3
        return i < len(self.wanted) and self.wanted[i] >> (offset & 7) & 1 == 1

    def any_wanted(self, start: int, stop: int) -> bool:
        """Whether a start is owed in [start, stop)."""
        first = start >> 3
        window = int.from_bytes(self.wanted[first : (stop + 7) >> 3], "little")
        return window & ((1 << stop - first * 8) - (1 << start - first * 8)) != 0

    def next_wanted(self, offset: int) -> int:
        """The first offset after this one where a start is owed; `NEVER` where none is in the next `LOOKED` bytes."""
        wanted, i = self.wanted, (offset + 1) >> 3
        limit = min(len(wanted), i + (LOOKED >> 3) + 1)
        if i >= limit:
            return NEVER
        bits = wanted[i] >> (offset + 1 & 7) << (offset + 1 & 7)
        while not bits:
            i += 1
            if i == limit:
                return NEVER
            bits = wanted[i]
        place = 8 * i
        while not bits & 1:
            bits >>= 1
            place += 1
        return place
