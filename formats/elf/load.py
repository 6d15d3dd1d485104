"""PT_LOAD: the exact projections of the joint rules on p_offset, p_vaddr, p_filesz and p_memsz.

Segments come in ascending order of address and share no page. What is owed to those that remain: the entry
point lies in the file-backed part of an executable one; the program header table lies inside one; and what
headers before have described at an address (PT_PHDR, PT_INTERP, PT_NOTE, PT_DYNAMIC) lies inside one that maps
those file bytes there.

The order is the gABI's. glibc takes the size of a shared object from its first and its last segment, and Linux 4.19
does that of a program that moves. A program at a fixed address loads in any order (Linux 6.18, glibc 2.36; some that
`patchelf --no-sort` leaves are so), in Linux 4.19 if no segment below others has zeros behind its bytes and the first
has the shift of the program header table. It is refused all the same: in all these rules what is owed to segments to
come lies above those before. A page of two segments Linux 4.19 refuses (MAP_FIXED_NOREPLACE), 6.18 does not.

A *role* is a choice of the duties that this segment meets: the first ones in order of address. Those it leaves
lie above it and must still be possible in the slots that remain. For one role every rule is an interval: with
s = p_vaddr - p_offset, a multiple of the page, s lies between two bounds, so each field's projection is an
interval met with a congruence. The set of a field is the union over the roles.

Sources: Linux fs/binfmt_elf.c (congruence, no overlap, p_filesz <= p_memsz), LIEF's check_layout (the
table inside a segment, congruence modulo p_align), binutils' readelf (PT_PHDR covered in file and memory),
glibc elf/rtld.c (finds the load address by PT_PHDR, reads PT_INTERP, PT_NOTE and PT_DYNAMIC in memory).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from bytegen.formats.core.intset import IntSet
from bytegen.formats.core.ledger import Ledger, Region
from bytegen.formats.core.pieces import Piece
from bytegen.formats.core.quick import replacing
from bytegen.formats.elf import entry
from bytegen.formats.elf.constants import BSS_TOTAL, ET_DYN, PF_R, PF_X
from bytegen.formats.elf.plan import Held, Plan, Segment
from bytegen.formats.elf.role import Role, down, up


class Run(NamedTuple):
    """Things owed that one segment holds: addresses [start, end), at ``shift`` where that is settled."""

    start: int
    end: int
    shift: int | None
    entry: bool
    writable: bool = False


def _joined(one: Run, other: Run) -> Run:
    shift = one.shift if one.shift is not None else other.shift
    writable = one.writable or other.writable
    return Run(one.start, max(one.end, other.end), shift, one.entry or other.entry, writable)


@replacing
class Duties(NamedTuple):
    """The duties still owed, and the memory that segments may use.

    ``table`` is a file range to be held at any address; it is None where ``held`` has something.
    ``table_writable``: in a writable segment. ``places``: file ranges in which the entry may lie.
    """

    entry: int | None
    table: tuple[int, int] | None
    held: tuple[Held, ...]
    low: int
    roof: int
    limit: int
    page: int
    bss: int
    places: tuple[tuple[int, int], ...]
    entry_size: int = 1
    congruent: bool = False
    least: int = 0
    code_start: int = 0
    table_writable: bool = False

    @property
    def owing(self) -> bool:
        """Whether anything is owed."""
        return self.entry is not None or self.table is not None or bool(self.held)

    def entry_shifts(self) -> list[tuple[int, int]]:
        """The shifts, between two multiples of the page, that map a place of the file to the entry."""
        assert self.entry is not None
        found = []
        for low, high in self.places:
            least = up(self.entry - (high - self.entry_size), self.page)
            most = down(self.entry - low, self.page)
            if least <= most:
                found.append((least, most))
        return found

    def joins(self, shift: int) -> bool:
        """Whether a segment of that shift holds the entry."""
        return any(low <= shift <= high for low, high in self.entry_shifts())

    def items(self) -> list[Run]:
        """What is owed at an address, each by itself, in order."""
        items = [Run(item.address, item.end, item.shift, False, item.writable) for item in self.held]
        if self.entry is not None:
            place = sum(1 for item in items if item.start <= self.entry)
            items.insert(place, Run(self.entry, self.entry + self.entry_size, None, True))
        return items

    def runs(self, *, alone: bool = False) -> tuple[Run, ...] | None:
        """What is owed at an address, in as few segments as hold it; None where pages would be shared.

        ``alone``: the entry in a segment of its own, as it may be where others could hold it.
        """
        same = Duties(
            self.entry, None, self.held, 0, 0, 0, self.page, 0, self.places, self.entry_size
        )  # what it depends on
        return _runs(same, alone)

    def _together(self, last: Run, item: Run, following: list[Run]) -> bool:
        """Whether one segment holds both; the entry goes with what follows where they share a page."""
        if not self._fit(last, item):
            return False
        apart = up(item.end, self.page) <= down(following[0].start, self.page) if following else True
        return not item.entry or apart or following[0].shift == last.shift

    def _fit(self, one: Run, other: Run) -> bool:
        if one.shift is not None and other.shift is not None:
            return one.shift == other.shift
        shift = one.shift if one.shift is not None else other.shift
        return shift is None or self.joins(shift)

    def shifts(self, start: int, end: int, slots: int) -> list[tuple[int, int]]:
        """The shifts at which ``slots`` segments can hold a file range, at any address, and the entry.

        Each as (least, greatest), multiples of the page; for duties that hold nothing at an address.
        """
        page, wanted = self.page, self.entry
        least, most = self.low - start, self.roof - end
        found = []
        if wanted is None:
            found.append((least, most))
        else:
            if wanted < self.low or wanted + self.entry_size > self.roof:
                return []
            whole = self.entry_shifts()
            found += [(max(low, least), min(high, most)) for low, high in whole]
            if slots > 1 and whole:
                found.append((least, down(wanted, page) - end))
                found.append((up(wanted + self.entry_size, page) - start, most))
        bounds = [(up(low, page), down(high, page)) for low, high in found]
        return [(low, high) for low, high in bounds if low <= high]

    def possible(self, slots: int) -> bool:
        """Whether ``slots`` segments can meet everything that is owed."""
        if not self.owing:
            return True
        if slots <= 0:
            return False
        if self.table is not None:
            return bool(self.shifts(*self.table, slots))
        runs = self.runs()
        if runs is None or len(runs) > slots or runs[0].start < self.low or runs[-1].end > self.roof:
            return False
        return self.entry is None or bool(self.entry_shifts())

    def roles(self, slots: int) -> tuple[Role, ...]:
        """The possible roles of a segment after which ``slots`` more may come."""
        return _roles_of(self, slots)

    def roles_that_meet(self, met: Run | None, table: bool, slots: int) -> list[Role]:
        """The roles that meet ``met`` and perhaps the table, and leave the rest to ``slots`` segments."""
        left = self._without(met, table)
        rest = left.items()
        roof = self.roof
        if rest:
            roof = min(roof, down(rest[0].start, self.page))
        elif left.table is not None:
            roof -= down(left.table[1] + self.page, self.page)
        if left.owing and not left._replace(low=max(self.low, roof)).possible(slots):
            return []
        return [role for role in self._bounds(met, table, roof) if role.offsets() is not None]

    def _without(self, met: Run | None, table: bool) -> Duties:
        wanted, held = self.entry, self.held
        if met is not None:
            held = tuple(item for item in held if item.address >= met.end)
            wanted = None if met.entry else wanted
        return self._replace(entry=wanted, held=held, table=None if table else self.table, least=0)

    def _bounds(self, met: Run | None, table: bool, roof: int) -> Iterable[Role]:
        high = roof
        reach = reach_offset = 0
        high_offset = self.limit
        shifts: list[tuple[int | None, int | None]] = [(None, None)]
        if met is not None:
            high, reach = met.start, met.end
            if met.shift is not None:
                shifts = [(met.shift, met.shift)]
                high_offset, reach_offset = met.start - met.shift, met.end - met.shift
            elif met.entry:
                shifts = list(self.entry_shifts())
        if table:
            assert self.table is not None
            high_offset, reach_offset = self.table
        needs_x = met is not None and met.entry
        needs_w = (table and self.table_writable) or (met is not None and met.writable)
        for low_shift, high_shift in shifts:
            yield Role(
                self.low, high, high_offset, reach, reach_offset, roof, self.limit, self.page, self.bss,
                needs_x, low_shift, high_shift, self.congruent, self.least, self.code_start if needs_x else 0,
                needs_w,
            )  # fmt: skip


@lru_cache(maxsize=1024)
def _runs(owed: Duties, alone: bool) -> tuple[Run, ...] | None:
    """`Duties.runs`; program headers ask for the same ones again and again."""
    items = owed.items()
    found: list[Run] = []
    for i, item in enumerate(items):
        last = found[-1] if found else None
        apart = last is not None and alone and (item.entry or last.entry)
        if last is not None and not apart and owed._together(last, item, items[i + 1 : i + 2]):
            found[-1] = _joined(last, item)
        elif last is not None and up(last.end, owed.page) > down(item.start, owed.page):
            return None
        else:
            found.append(item)
    return tuple(found)


@lru_cache(maxsize=1024)
def _roles_of(owed: Duties, slots: int) -> tuple[Role, ...]:
    """`Duties.roles`; worlds ask for the same ones again and again."""
    found: list[Role] = []
    met: Run | None = None
    items = owed.items()
    for count in range(len(items) + 1):
        if count:
            item = items[count - 1]
            if met is not None and not owed._fit(met, item):
                break
            met = item if met is None else _joined(met, item)
            if count < len(items) and up(met.end, owed.page) > down(items[count].start, owed.page):
                continue
        for table in (False, True) if owed.table is not None else (False,):
            found += owed.roles_that_meet(met, table, slots)
    return tuple(found)


def duties(plan: Plan, ledger: Ledger | None = None) -> Duties:
    """What the plan owes to the segments that remain; ``ledger``: one that has more taken than the plan's."""
    strict = plan.strict
    page = plan.target.page if strict else 1
    first = strict and plan.kind == ET_DYN and not plan.segments
    return Duties(
        plan.entry if plan.entry_owed else None,
        (plan.phoff, plan.phdrs_end) if plan.table_owed else None,
        plan.held,
        plan.low,
        plan.roof,
        min(plan.limit, plan.target.top),
        page,
        plan.bss_left if strict else plan.target.top,
        entry.places(plan, plan.ledger if ledger is None else ledger),
        entry.size(plan),
        congruent=plan.paged,
        least=1 if first else 0,
        code_start=entry.code_start(plan),
    )


def union(size: int, pieces: Iterable[Piece | None]) -> IntSet:
    """The set of the pieces that there are."""
    return IntSet(size, *(piece for piece in pieces if piece is not None))


def zeros_table(plan: Plan, offset: int, address: int, size: int) -> bool:
    """Whether zeros behind a segment's file bytes would wipe out program headers that its pages show.

    The dynamic loader reads the table in the first segment whose whole pages hold it (glibc elf/dl-map-segments.h).
    """
    page = plan.target.page
    start, end = down(offset, page), offset + up(address + size, page) - address
    return start <= plan.phoff < end and offset + size < plan.phdrs_end


def loaded(plan: Plan, segment: Segment, align: int) -> Plan:
    """The plan after a PT_LOAD: which duties it met, and where the next may begin."""
    page = plan.target.page if plan.strict else 1
    offset, address, size, memory, flags = segment
    shift = segment.shift
    least = entry.size(plan)
    met = plan.entry_owed and bool(flags & PF_X) and address <= plan.entry <= address + size - least
    ledger = plan.ledger
    if met and plan.level == "code":
        place = plan.entry - shift
        ledger = ledger.add(Region(place, place + least, "entry", "the first instruction"))
    holds_table = offset <= plan.phoff and offset + size >= plan.phdrs_end
    table = plan.table_owed and holds_table
    held = tuple(
        item
        for item in plan.held
        if item.shift != shift or not address <= item.address <= item.end <= address + size
    )
    number = len(plan.segments)
    labels = plan.labels
    executable = plan.executable
    if size:
        labels = (*labels, (offset, offset + size, f"segment[{number}]"))
        if flags & PF_X:
            executable = (*executable, (offset, offset + size, address))
    return plan.reach(offset + size)._replace(
        low=max(plan.low, up(address + memory, page)),
        entry_owed=plan.entry_owed and not met,
        table_owed=plan.table_owed and not table,
        table_noted=None if holds_table else plan.table_noted,
        held=held,
        segments=(*plan.segments, segment),
        bss_left=min(plan.bss_left, BSS_TOTAL) - (memory - size) if plan.strict else plan.bss_left,
        labels=labels,
        executable=executable,
        ledger=ledger,
        unpaged=plan.unpaged
        or align < page
        or not flags & PF_R
        or (memory > size and zeros_table(plan, offset, address, size)),
    )
