"""Level `code`: the executable parts of a file, reserved in the ledger, and read as streams of instructions.

What a format calls executable (segments with PF_X, sections with MEM_EXECUTE) is code wherever nothing else is
promised: the tables that lie inside an executable segment, such as the file's own headers, are not. On AArch64
instructions are whole words at addresses that are multiples of 4; up to three bytes before the first such address
of a part and after the last whole word are zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from bytegen.formats.code.machine import Machine, machine
from bytegen.formats.core.branches import ByteBranches, Range, WordBranches, branches
from bytegen.formats.core.intset import IntSet, exactly
from bytegen.formats.core.ledger import Ledger, Region
from bytegen.formats.core.pieces import Finite
from bytegen.formats.core.steps import IntStep, Step, StreamStep
from bytegen.formats.core.stream import instruction_starts
from bytegen.formats.core.written import Snapshot, Written

_ZEROS = {size: exactly(size, 0) for size in (1, 2, 3)}


class Addresses:
    """A piece of an integer set (see `Piece`): the addresses of instructions, and 0 where ``zero`` says so."""

    __slots__ = ("_code", "_data", "_finite", "_zero")

    def __init__(self, code: Code, data: Snapshot, zero: bool) -> None:
        self._code, self._data, self._zero = code, data, zero
        self._finite: Finite | None = None

    def _all(self) -> Finite:
        if self._finite is None:
            found = instruction_starts(self._data)
            parts = [found[(found >= low) & (found < high)] + shift for low, high, shift in self._code.ranges]
            self._finite = Finite(np.concatenate([*parts, [0] if self._zero else []]).astype(np.uint64))
        return self._finite

    def mark(self, k: int, prefix: int, out: np.ndarray) -> None:
        """See `Piece.mark`."""
        self._all().mark(k, prefix, out)

    def has(self, k: int, prefix: int) -> bool:
        """See `Piece.has`."""
        return self._all().has(k, prefix)

    def contains(self, x: int) -> bool:
        """See `Piece.contains`."""
        offset = self._code.offset(x)
        return (x == 0 and self._zero) or (offset is not None and self._data.is_start(offset))

    def bounds(self) -> tuple[int, int] | None:
        """See `Piece.bounds`."""
        return self._all().bounds()


class Executable(NamedTuple):
    """Bytes [start, stop) of the file that are executable, at ``address``; ``path`` names them."""

    start: int
    stop: int
    address: int
    path: str


class Code(NamedTuple):
    """The executable parts of a file. ``ranges`` are in order of their offsets; addresses have ``bits`` bits.

    ``lists``: a part may end with the lists that GNU ld gives programs for Windows in .text (.ctors and .dtors), at a
    multiple of the word: each a word of ones, addresses of instructions, and a zero.
    """

    machine: Machine
    targets: ByteBranches | WordBranches
    ranges: tuple[Range, ...]
    bits: int
    lists: bool

    def offset(self, address: int) -> int | None:
        """The offset of an address; None where it is in no executable part, or where no instruction may start."""
        for range_ in self.ranges:
            offset = address - range_.shift
            if range_.start <= offset < range_.stop:
                return offset if address % self.machine.word == 0 else None
        return None

    def may_start(self, addresses: np.ndarray, data: bytes | bytearray) -> np.ndarray:
        """bool for each address (unsigned): whether an instruction starts there, or still may and can be owed.

        ``data``: the bytes so far, as `Constraint` gives them, or a copy of those (bytes), of which only what
        lies behind is asked, for nothing can be owed in a copy.
        """
        live = isinstance(data, Written)
        fine = np.zeros(len(addresses), dtype=bool)
        wide = addresses.astype(np.uint64)
        for start, stop, shift in self.ranges:
            low = np.uint64(start + shift)
            inside = (
                (wide >= low) & (wide < np.uint64(stop + shift)) & (wide % np.uint64(self.machine.word) == 0)
            )
            offsets = (wide[inside] - low).astype(np.int64) + start
            good = offsets >= len(data) if live else np.zeros(len(offsets), dtype=bool)
            if isinstance(data, Written | Snapshot):
                good |= data.are_starts(offsets)
            fine[inside] = good
        return fine

    def functions_may_start(
        self,
        executable: Iterable[tuple[int, int, int]],
        addresses: np.ndarray,
        base: int,
        data: bytes | bytearray,
    ) -> np.ndarray:
        """bool for each address: outside the executable parts (start, stop, address) True, inside as `may_start`.

        ``base`` is added to what is asked and to the parts' addresses alike.
        """
        wide = addresses.astype(np.uint64)
        outside = np.ones(len(addresses), dtype=bool)
        for start, stop, address in executable:
            outside &= (wide < np.uint64(address)) | (wide >= np.uint64(address + stop - start))
        return outside | self.may_start(wide + np.uint64(base), data)

    def promise(self, address: int, data: bytearray) -> None:
        """Owe an instruction start at an address that `may_start`; harmless where one is already."""
        assert isinstance(data, Written)
        offset = self.offset(address)
        if offset is not None and offset >= len(data):
            data.want(offset)


def reserve(
    ledger: Ledger,
    executable: Iterable[Executable],
    position: int,
    *,
    instructions: str,
    bits: int,
    privileged: bool,
    nowhere: bool = False,
    lists: bool = False,
) -> tuple[Ledger, Code]:
    """The ledger with every part from ``position`` on that is executable and promised to nobody, and the code.

    A part becomes a region of kind ``"code"``, for `stream` to read; its detail is its `Range`. Nothing else
    can be promised there from now on. Of bytes that are executable at two addresses the first one counts.
    ``nowhere``: calls may go to address 0 (see `branches`); ``lists``: see `Code`.
    """
    used = machine(instructions, privileged)
    ranges = []
    for start, stop, address, path in sorted(executable):
        for low, high in ledger.gaps(max(position, start)):
            low, high = max(low, start), min(high, stop)
            if low >= high:
                continue
            shift = address - start
            first = low + -(low + shift) % used.word
            last = first + max(0, high - first) // used.word * used.word
            range_ = Range(first, max(first, last), shift)
            if range_.start < range_.stop:
                ranges.append(range_)
            ledger = ledger.add(Region(low, high, "code", path, range_))
    found = tuple(sorted(ranges))
    return ledger, Code(used, branches(used, found, bits, nowhere), found, bits, lists)


def stream(code: Code, region: Region, then: Callable[[bytearray], Step], data: bytearray) -> Step:
    """The first step of a region that `reserve` made; ``then`` gives the one after it."""
    range_: Range = region.detail
    if range_.start >= range_.stop:
        return _zeros(region.start, region.end, region.path, lambda value, data: then(data))

    def tail(data: bytearray) -> Step:
        if range_.stop == region.end:
            return then(data)
        return _zeros(range_.stop, region.end, region.path, lambda value, data: then(data))

    def words(data: bytearray) -> Step:
        return StreamStep(
            range_.start, range_.stop, range_.shift, code.machine, code.targets, region.path, tail,
            code.bits // 8 if code.lists else 0, lambda at, data: _lists(code, region, range_, at, tail, data),
        )  # fmt: skip

    if range_.start == region.start:
        return words(data)
    return _zeros(region.start, range_.start, region.path, lambda value, data: words(data))


def _lists(
    code: Code, region: Region, range_: Range, at: int, then: Callable[[bytearray], Step], data: bytearray
) -> Step:
    """The rest of the lists whose first two bytes, FF FF, end at ``at``."""
    word, stop = code.bits // 8, range_.stop
    ones = exactly(word, (1 << code.bits) - 1)
    behind = bytes(data)
    assert isinstance(behind, Snapshot)
    some, any_ = (IntSet(word, Addresses(code, behind, zero)) for zero in (False, True))
    path = f"{region.path}.list"

    def first(start: int, size: int) -> Step:
        choices = ones if size == word else exactly(size, (1 << 8 * size) - 1)
        return IntStep(
            start, size, choices, path, "all ones begin a list", lambda value, data: entry(start + size)
        )

    def entry(start: int) -> Step:
        # A list ends with a zero; what is left for another one is nothing, or two words at least.
        left = (stop - start) // word
        choices = exactly(word, 0) if left == 1 else some if left == 2 else any_
        rule = "0 ends a list; else the address of an instruction"
        return IntStep(start, word, choices, path, rule, lambda value, data: after(value, start + word, data))

    def after(value: int, start: int, data: bytearray) -> Step:
        if start == stop:
            return then(data)
        return entry(start) if value else first(start, word)

    return first(at, word - 2)


def _zeros(start: int, stop: int, path: str, then: Callable[[int, bytearray], Step]) -> Step:
    """Up to six bytes that no whole aligned word takes, in pieces of at most three."""
    size = min(stop - start, 3)
    if start + size < stop:
        return IntStep(
            start, size, _ZEROS[size], path, "zero: no aligned word",
            lambda value, data: _zeros(start + size, stop, path, then),
        )  # fmt: skip
    return IntStep(start, size, _ZEROS[size], path, "zero: no aligned word", then)
