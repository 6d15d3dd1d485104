"""From addresses to file offsets and back, through the PT_LOADs already read."""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from bytegen.formats.core.ledger import Ledger
from bytegen.formats.core.pieces import Span
from bytegen.formats.elf.constants import PT_LOAD
from bytegen.formats.elf.plan import Plan, Segment
from bytegen.formats.elf.written import Lazily

PF_W, PF_R = 2, 4
PHDR = {32: struct.Struct("<8I"), 64: struct.Struct("<II6Q")}
PHDR_NAMES = {
    32: ("p_type", "p_offset", "p_vaddr", "p_paddr", "p_filesz", "p_memsz", "p_flags", "p_align"),
    64: ("p_type", "p_flags", "p_offset", "p_vaddr", "p_paddr", "p_filesz", "p_memsz", "p_align"),
}
_NONE = np.zeros(0, np.uint64)
_WRAP = (1 << 64) - 1


class Other(NamedTuple):
    """Another segment: its file bytes, and the addresses [address, stop) that it speaks of.

    Those below ``low`` belong to PT_LOADs before it in the table, which tools find first.
    """

    offset: int
    address: int
    filesz: int
    stop: int
    low: int


def _merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The ranges [low, stop) in order, those that touch joined."""
    found = list[tuple[int, int]]()
    for low, stop in sorted(ranges):
        if found and low <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], stop)
        else:
            found.append((low, stop))
    return found


def outside_code(plan: Plan, gaps: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The gaps without the bytes of executable segments."""
    parts = _merged((start, end) for start, end, _ in plan.executable)
    for low, high in gaps:
        for start, end in parts:
            if low < end and start < high:
                if low < start:
                    yield low, start
                low = end
        if low < high:
            yield low, high


class AddressMap:
    """The file and memory of the PT_LOADs. ``stop``: offset from which on bytes are not yet written."""

    __slots__ = (
        "_asked", "_by_offset", "_edges", "_ends", "_ranges", "_reach", "_spoken", "loads", "others", "stop",
    )  # fmt: skip

    def __init__(self, loads: tuple[Segment, ...], stop: int, others: tuple[Other, ...] = ()) -> None:
        self.others = others
        self.loads = tuple(sorted((load for load in loads if load.memsz), key=lambda load: load.address))
        self.stop = stop
        self._spoken = _merged((other.low, other.stop) for other in others)
        files = [(load.offset, load.offset + load.filesz, load.shift) for load in self.loads if load.filesz]
        # By offset, and how far those up to each reach: segments may share file bytes.
        self._by_offset = sorted((*file, i) for i, file in enumerate(files))
        self._reach = list(accumulate((file[1] for file in self._by_offset), max))
        self._ends = {(end, shift) for _, end, shift in files}
        found = [(*self.written(load), load.shift) for load in self.loads]
        self._ranges = [(low, high, shift) for low, high, shift in found if low < high]
        self._edges: dict[int, np.ndarray] = {}
        self._asked: tuple[Ledger, int, list[tuple[int, int, int]]] | None = None

    def find(self, address: int) -> Segment | None:
        """The segment whose file bytes hold the address."""
        for load in self.loads:
            if load.address <= address < load.address + load.filesz:
                return load
        return None

    def offset(self, address: int) -> int | None:
        """File offset of an address; None where no file byte is mapped there."""
        load = self.find(address)
        return None if load is None else address - load.shift

    def written(self, offset_of: Segment) -> tuple[int, int]:
        """The file bytes of a segment that are written already: [low, high), empty when high <= low."""
        return offset_of.offset, min(offset_of.offset + offset_of.filesz, self.stop)

    def behind(self, address: int) -> tuple[int, int] | None:
        """(offset, end of the written bytes of its segment) of an address whose byte is written already."""
        load = self.find(address)
        if load is None:
            return None
        offset, high = address - load.shift, self.written(load)[1]
        return (offset, high) if offset < high else None

    def ranges(self) -> list[tuple[int, int, int]]:
        """(low, high, shift) of the written bytes of each segment."""
        return self._ranges

    def range_of(self, address: int) -> tuple[int, int]:
        """(low, high) of the written bytes of the segment that holds an address."""
        load = self.find(address)
        assert load is not None
        return self.written(load)

    def addresses(self, offsets: Callable[[int, int], np.ndarray]) -> np.ndarray:
        """The addresses of the file offsets that ``offsets(low, high)`` finds in each written range."""
        parts = []
        for low, high, shift in self.ranges():
            found = offsets(low, high)
            parts.append(found.astype(np.uint64) + np.uint64(shift & _WRAP))  # modulo 2**64
        return np.concatenate(parts) if parts else _NONE

    def set_behind(
        self, check: Callable[[int, int], bool], offsets: Callable[[int, int], np.ndarray]
    ) -> Lazily:
        """The addresses of tables already written: ``check(offset, end of its range)`` for one of them,
        ``offsets(low, high)`` for all of a range."""

        def contains(address: int) -> bool:
            place = self.behind(address)
            return place is not None and check(*place)

        return Lazily(contains, lambda: self.addresses(offsets))

    def set_ahead(
        self, plan: Plan, position: int, least: int, align: int = 1, plain: bool = False
    ) -> list[Span]:
        """Addresses at which ``least`` bytes not yet promised, from ``position`` on, begin.

        ``plain``: where no other segment speaks of them, and not up to the end of theirs (see `plain`).
        """
        pieces: list[Span] = []
        spoken = self._spoken if plain else ()
        for low, high, shift in self.gaps(plan, position):
            if plain and (high, shift) in self._ends:
                high -= 1
            first, last = max(low + shift, 0), high - least + shift
            for begin, stop in spoken:
                if first < begin and first <= last:
                    pieces.append(Span(first, min(last, begin - 1), align, shift))
                first = max(first, stop)
            if first <= last:
                pieces.append(Span(first, last, align, shift))
        return [piece for piece in pieces if piece.lo + (piece.rem - piece.lo) % piece.mod <= piece.hi]

    def plain(self, address: int, size: int) -> bool:
        """Whether LIEF, which takes the first segment that speaks of an address, finds ``size`` bytes there.

        Of a hash table it reads none that ends where its segment does.
        """
        if not self.ends_inside(address, size):
            return False
        for other in self.others:
            if other.low <= address < other.stop:
                load = self.find(address)
                same = load is not None and load.shift == other.address - other.offset
                if not same or address + size >= other.address + other.filesz:
                    return False
        return True

    def ends_inside(self, address: int, size: int) -> bool:
        """Whether ``size`` bytes end before the file bytes of their segment do."""
        load = self.find(address)
        return load is not None and address + size < load.address + load.filesz

    def alone(self, address: int) -> bool:
        """Whether no segment but a PT_LOAD speaks of an address."""
        return not any(other.low <= address < other.stop for other in self.others)

    def gaps(self, plan: Plan, position: int) -> list[tuple[int, int, int]]:
        """(low, high, shift): mapped file bytes from ``position`` on that nobody has been promised.

        Not to be changed: it is kept for the ledger asked last.
        """
        known = self._asked
        if known is not None and known[0] is plan.ledger and known[1] == position:
            return known[2]
        found = list[tuple[int, int, int]]()
        for low, high in plan.ledger.gaps(position):
            first, last = bisect_right(self._reach, low), bisect_left(self._by_offset, (high,))
            here = [file for file in self._by_offset[first:last] if file[1] > low]
            if len(here) > 1:
                here.sort(key=itemgetter(3))
            for start, end, shift, _ in here:
                found.append((start if start > low else low, end if end < high else high, shift))
        self._asked = plan.ledger, position, found
        return found

    def room(self, plan: Plan, offset: int, address: int) -> int:
        """Bytes from ``offset`` to the next promise, or to the end of the file bytes of its segment."""
        load = self.find(address)
        if load is None:
            return 0
        return min(plan.ledger.room(offset), load.offset + load.filesz - offset)

    def in_memory(self, addresses: np.ndarray, size: int) -> np.ndarray:
        """bool for each address (uint64): whether ``size`` bytes there lie in one segment's memory."""
        edges = self._edges.get(size)
        if edges is None:
            edges = self._edges[size] = _edges(self.loads, size)
        inside: np.ndarray = np.searchsorted(edges, addresses, side="right") & 1 == 1
        return inside


def _edges(loads: Iterable[Segment], size: int) -> np.ndarray:
    """uint64, ascending: where addresses with ``size`` bytes in one segment's memory begin, end, begin again ..."""
    places = ((load.address, load.address + load.memsz - size + 1) for load in loads if load.memsz >= size)
    edges = [edge for place in _merged(places) for edge in place]
    return np.array([edge for edge in edges if edge <= _WRAP], np.uint64)


def map_of(plan: Plan, stop: int, data: bytes) -> AddressMap:
    """The map through the PT_LOADs of a plan; at level load those that can be read."""
    loads = list(plan.segments)
    # What can be written can be read on all three machines.
    readable = tuple(load for load in loads if not plan.strict or load.flags & (PF_R | PF_W))
    return AddressMap(readable, stop, tuple(_others(plan, data)))


def _others(plan: Plan, data: bytes) -> Iterator[Other]:
    """The program headers already read that are no PT_LOAD."""
    form = PHDR[plan.target.bits]
    names = PHDR_NAMES[plan.target.bits]
    floor = 0
    for index in range(plan.phnum):
        values = form.unpack_from(data, plan.phoff + index * form.size)
        header = dict(zip(names, values, strict=True))
        low = header["p_vaddr"]
        stop = low + header["p_memsz"]
        if header["p_type"] == PT_LOAD:
            floor = max(floor, stop)
        elif max(low, floor) < stop:
            yield Other(header["p_offset"], low, header["p_filesz"], stop, max(low, floor))
