"""What a tolerant reader gives: areas that may overlap, tables of records, names."""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import pairwise

from bytegen.formats.annotate.account import Area, Mark
from bytegen.formats.annotate.structs import Order, Table

MOST_AREAS = 20_000
MOST_MARKS = 100_000
_NAME_BYTES = 200


@dataclass
class Reading:
    """What the headers of a file say. Earlier areas go before later ones where they overlap.

    `marks` name places in the file, `addresses` places in memory. `machine` chooses the disassembler:
    "x86-64", "i386", "aarch64" or "".
    """

    size: int
    order: Order = "little"
    machine: str = ""
    entry: int | None = None
    areas: list[Area] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    addresses: list[tuple[int, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    records_left: int = MOST_MARKS

    def look(self, start: int, stop: int, size: int) -> range:
        """Offsets of the whole records in [start, stop) whose names are to be found.

        Over the whole file they are at most `MOST_MARKS`, however many tables claim the same bytes.
        """
        count = max(0, min((min(stop, self.size) - start) // size, self.records_left))
        self.records_left -= count
        return range(start, start + count * size, size)

    def area(
        self, start: int, size: int, name: str, kind: str, note: str = "", address: int | None = None
    ) -> None:
        """Adds an area, cut at the end of the file; what lies outside, or is empty, is left out."""
        if 0 <= start < self.size and size > 0 and len(self.areas) < MOST_AREAS:
            self.areas.append(Area(start, min(start + size, self.size), name, kind, note, address))

    def mark(self, offset: int, name: str) -> None:
        """Names the record at `offset`, unless it has a name, or there are too many."""
        if name and 0 <= offset < self.size and len(self.marks) < MOST_MARKS:
            self.marks.append(Mark(offset, name))


def text_at(data: bytes, start: int, stop: int | None = None) -> str:
    """The zero-terminated text at `start`, at most 200 bytes; empty where there is none."""
    if not 0 <= start < len(data):
        return ""
    limit = min(start + _NAME_BYTES, len(data) if stop is None else stop)
    end = data.find(b"\0", start, limit)
    return data[start : end if end >= 0 else limit].decode("utf-8", "replace")


def flatten(reading: Reading, data: bytes) -> list[Area]:
    """The areas as a partition of the file: the earlier of two that overlap keeps the bytes; gaps are named.

    One sweep over the places where areas begin and end, in O(n log n) however they overlap.
    """
    by_start = sorted(range(len(reading.areas)), key=lambda i: reading.areas[i].start)
    points = sorted({point for area in reading.areas for point in (area.start, area.end)})
    active: list[int] = []
    pieces: list[tuple[int, int, int]] = []
    entered = 0
    for left, right in pairwise(points):
        while entered < len(by_start) and reading.areas[by_start[entered]].start <= left:
            heappush(active, by_start[entered])
            entered += 1
        while active and reading.areas[active[0]].end <= left:
            heappop(active)
        if not active:
            continue
        if pieces and pieces[-1][1:] == (left, active[0]):
            pieces[-1] = (pieces[-1][0], right, active[0])
        else:
            pieces.append((left, right, active[0]))
    return _with_gaps([_cut(reading.areas[i], start, end) for start, end, i in pieces], data)


def _cut(area: Area, start: int, end: int) -> Area:
    address = None if area.address is None else area.address + start - area.start
    return area._replace(start=start, end=end, address=address)


def _with_gaps(pieces: list[Area], data: bytes) -> list[Area]:
    whole: list[Area] = []
    position = 0
    for area in [*pieces, Area(len(data), len(data), "", "")]:
        if area.start > position:
            zeros = data.count(0, position, area.start) == area.start - position
            last = area.start == len(data) and bool(pieces)
            kind = "padding" if zeros else "appended" if last else "unknown"
            name = {"padding": "padding", "appended": "appended data", "unknown": "unclaimed bytes"}[kind]
            whole.append(Area(position, area.start, name, kind))
        if area.end > area.start:
            whole.append(area)
        position = area.end
    return whole
