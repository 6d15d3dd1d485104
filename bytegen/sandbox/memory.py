"""The address space of a program: areas with permissions, mirrored onto the engine, within a limit."""

from __future__ import annotations

from bisect import bisect_right, insort
from dataclasses import dataclass, field

from bytegen.sandbox.engine import Engine

PAGE = 4096
READ, WRITE, EXEC = 1, 2, 4
TASK_SIZE = 0x7FFF_FFFF_F000
MMAP_MIN_ADDR = 0x10000
MAX_AREAS = 65_530  # vm.max_map_count


class OutOfMemory(Exception):
    """The limit on mapped memory would be exceeded."""


def page_down(address: int) -> int:
    """The start of the page that holds `address`."""
    return address & -PAGE


def page_up(address: int) -> int:
    """The first page boundary at or above `address`."""
    return -(-address // PAGE) * PAGE


@dataclass(order=True)
class Area:
    """Pages [start, end) with permissions `prot`; `absent` where they lie past the end of a file (SIGBUS)."""

    start: int
    end: int = field(compare=False)
    prot: int = field(compare=False)
    absent: bool = field(default=False, compare=False)


class AddressSpace:
    """Mapped areas of one program, at most `limit` bytes in all (as RLIMIT_AS counts them).

    Addresses and sizes of `map`, `unmap` and `protect` are whole pages inside [0, TASK_SIZE).
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._areas: list[Area] = []
        self._total = 0
        self._limit = 0
        self.exhausted = False

    def reset(self, limit: int) -> None:
        """Unmap everything and set the limit in bytes."""
        for area in self._areas:
            if not area.absent:
                self._engine.unmap(area.start, area.end - area.start)
        self._areas.clear()
        self._total = 0
        self._limit = limit
        self.exhausted = False

    @property
    def areas(self) -> tuple[Area, ...]:
        """All areas in ascending order."""
        return tuple(self._areas)

    @property
    def total(self) -> int:
        """Bytes mapped."""
        return self._total

    @property
    def limit(self) -> int:
        """Bytes that may be mapped."""
        return self._limit

    def find(self, address: int) -> Area | None:
        """The area that holds `address`."""
        index = bisect_right(self._areas, address, key=lambda area: area.start) - 1
        if index >= 0 and address < self._areas[index].end:
            return self._areas[index]
        return None

    def overlaps(self, start: int, size: int) -> bool:
        """Whether any page of the range is mapped."""
        index = bisect_right(self._areas, start, key=lambda area: area.start) - 1
        if index >= 0 and start < self._areas[index].end:
            return True
        index += 1
        return index < len(self._areas) and self._areas[index].start < start + size

    def covers(self, start: int, size: int) -> bool:
        """Whether every page of the range is mapped."""
        address = start
        while address < start + size:
            area = self.find(address)
            if area is None:
                return False
            address = area.end
        return True

    def gap_below(self, top: int, size: int) -> int | None:
        """Start of the highest free range of `size` bytes that ends at or below `top`."""
        end = top
        for area in reversed(self._areas):
            if area.start >= end:
                continue
            if area.end <= end - size:
                break
            end = area.start
        return end - size if end - size >= MMAP_MIN_ADDR else None

    def map(self, start: int, size: int, prot: int, absent: bool = False) -> None:
        """Map zeroed pages over whatever is there. Raises OutOfMemory."""
        if self.overlaps(start, size):
            self.unmap(start, size)
        if self._total + size > self._limit or len(self._areas) >= MAX_AREAS:
            self.exhausted = True
            raise OutOfMemory
        if not absent:
            self._engine.map(start, size, effective(prot))
        insort(self._areas, Area(start, start + size, prot, absent))
        self._total += size

    def unmap(self, start: int, size: int) -> None:
        """Unmap the mapped pages of a range."""
        for area in self._carve(start, size):
            if not area.absent:
                self._engine.unmap(area.start, area.end - area.start)
            self._areas.remove(area)
            self._total -= area.end - area.start

    def protect(self, start: int, size: int, prot: int) -> bool:
        """Set permissions; False (with the pages before the hole changed, as Linux does) where a page is not
        mapped.
        """
        whole = self.covers(start, size)
        for area in self._carve(start, size):
            if area.start > start:
                break
            if not area.absent:
                self._engine.protect(area.start, area.end - area.start, effective(prot))
                if (area.prot ^ prot) & EXEC:
                    self._engine.forget_code(area.start, area.end - area.start)
            area.prot = prot
            start = area.end
        return whole

    def _carve(self, start: int, size: int) -> list[Area]:
        """The areas of a range, those that stick out of it split at its edges."""
        end = start + size
        found = []
        for area in self._areas[max(bisect_right(self._areas, start, key=lambda a: a.start) - 1, 0) :]:
            if area.start >= end:
                break
            if area.end > start:
                found.append(area)
        for area in tuple(found):
            if area.start < start:
                head = Area(area.start, start, area.prot, area.absent)
                area.start = start
                insort(self._areas, head)
            if area.end > end:
                tail = Area(end, area.end, area.prot, area.absent)
                area.end = end
                insort(self._areas, tail)
        return found

    def _prefix(self, address: int, size: int, prot: int) -> int:
        """How many bytes from `address` on are mapped with the permission, up to `size`."""
        at = address
        while at < address + size:
            area = self.find(at)
            if area is None or area.absent or not effective(area.prot) & prot:
                break
            at = area.end
        return min(at - address, size)

    def load(self, address: int, size: int) -> bytes:
        """Bytes as the program may read them: fewer than `size` where it may not read them all."""
        return self._engine.read(address, self._prefix(address, size, READ))

    def peek(self, address: int, size: int) -> bytes:
        """Up to `size` bytes from `address` on, as far as pages with any permission reach."""
        return self._engine.read(address, self._prefix(address, size, READ | WRITE | EXEC))

    def store(self, address: int, data: bytes) -> int:
        """Write as the program may: returns how many bytes were written before a page that may not be."""
        size = self._prefix(address, len(data), WRITE)
        if size:
            self.poke(address, data[:size])
        return size

    def poke(self, address: int, data: bytes) -> None:
        """Write mapped pages whatever their permissions."""
        self._engine.write(address, data)
        area = self.find(address)
        if area is not None and area.prot & EXEC:
            self._engine.forget_code(address, len(data))


def effective(prot: int) -> int:
    """Permissions as x86-64 page tables have them: writable or executable pages are readable too."""
    return (prot & 7) | (READ if prot & (WRITE | EXEC) else 0)
