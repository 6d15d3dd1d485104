"""PT_LOAD: the exact projections of the joint rules on p_offset, p_vaddr, p_filesz and p_memsz.

Segments come in ascending order of address and share no page. Two duties may be owed to the segments that
remain: the entry point lies in the file-backed part of an executable one, and the program header table
lies inside one (in the file; also in memory when a PT_PHDR gave its address).

A *role* is a choice of the duties that this segment meets; those it leaves lie above it and must still be
possible in the slots that remain. For one role every rule is an interval: with s = p_vaddr - p_offset, a
multiple of the page, s lies between two bounds, so each field's projection is an interval met with a
congruence. The set of a field is the union over the roles.

Sources: Linux fs/binfmt_elf.c (congruence, no overlap, p_filesz <= p_memsz), LIEF's check_layout (the
table inside a segment, congruence modulo p_align), binutils' readelf (PT_PHDR covered in file and memory).
"""

from __future__ import annotations

from typing import NamedTuple

from bytegen.formats.core.intset import IntSet, Piece, Span, Window
from bytegen.formats.elf.constants import BSS_TOTAL, HIGHEST_ADDRESS, MAX64, PAGE, PF_X, PHDR_SIZE
from bytegen.formats.elf.plan import Plan


class Role(NamedTuple):
    """The bounds of a segment that meets a given choice of duties.

    low <= vaddr <= high; offset <= high_offset; vaddr + filesz >= reach; offset + filesz >= reach_offset;
    vaddr + memsz <= roof; offset + filesz <= limit. ``reach`` 0 and ``reach_offset`` 0 ask nothing.
    """

    low: int
    high: int
    high_offset: int
    reach: int
    reach_offset: int
    roof: int
    limit: int
    page: int
    bss: int
    needs_x: bool

    @property
    def idle(self) -> bool:
        """Whether it meets no duty, so that it may be empty and anywhere."""
        return not self.reach and not self.reach_offset

    def _shift(self) -> tuple[int, int]:
        """Bounds on vaddr - offset that hold whatever the offset: (least, greatest)."""
        least = -(-(self.reach - self.limit) // self.page) * self.page if self.reach else -self.limit
        return least, (self.roof - self.reach_offset) // self.page * self.page

    def offsets(self) -> Piece | None:
        """The values of p_offset; None when the role is impossible."""
        if self.idle:
            return Span(0, self.limit) if self.low <= min(self.high, self.roof) else None
        if max(self.reach_offset, self.reach - self.roof) > self.limit or self.reach > self.roof:
            return None
        least, most = self._shift()
        page = self.page
        low, high = max(0, self.low - most), min(self.high_offset, self.high - least, self.limit)
        if least > most or low > high or self.high // page * page < self.low:
            return None
        if self.high // page * page > self.low:
            return Span(low, high)
        return Window(low, high, page, 0, self.high % page)

    def addresses(self, offset: int) -> Piece | None:
        """The values of p_vaddr for that offset."""
        if self.idle:
            return Span(self.low, min(self.high, self.roof))
        if offset > self.high_offset:
            return None
        least, most = self._shift()
        low, high = max(self.low, offset + least), min(self.high, offset + most)
        return Span(low, high, self.page, offset) if low <= high else None

    def sizes(self, offset: int, address: int) -> Piece | None:
        """The values of p_filesz for that offset and address."""
        if not self.low <= address <= min(self.high, self.roof) or offset > self.high_offset:
            return None
        congruent = (address - offset) % self.page == 0
        if not congruent:
            return Span(0, 0) if self.idle else None
        least = max(0, self.reach - address if self.reach else 0, self.reach_offset - offset)
        most = min(self.limit - offset, self.roof - address)
        return Span(least, most) if least <= most else None

    def memory(self, offset: int, address: int, size: int) -> Piece | None:
        """The values of p_memsz for that offset, address and file size."""
        sizes = self.sizes(offset, address)
        if sizes is None or not sizes.contains(size):
            return None
        return Span(size, min(self.roof - address, size + self.bss))


def _down(address: int, page: int) -> int:
    return address // page * page


class Duties(NamedTuple):
    """The duties still owed, and the memory that segments may use."""

    entry: int | None
    table: tuple[int, int] | None  # file range
    address: int | None  # of the table in memory, where a PT_PHDR gave one
    low: int
    roof: int
    limit: int
    page: int
    bss: int

    def _role(self, entry: bool, table: bool, slots: int) -> Role | None:
        """The role that meets the chosen duties and leaves the others to ``slots`` later segments."""
        left = self._replace(
            entry=None if entry else self.entry,
            table=None if table else self.table,
            address=None if table else self.address,
        )
        roof = self.roof
        if left.entry is not None:
            roof = min(roof, _down(left.entry, self.page))
        if left.address is not None:
            roof = min(roof, _down(left.address, self.page))
        elif left.table is not None and left.entry is None:
            roof = min(roof, self.roof - _down(self.table_end + self.page, self.page))
        # Where this segment ends is open; the ones after it may have to begin at its roof.
        if not left._replace(low=max(self.low, roof) if left.owing else self.low).possible(min(slots, 2)):
            return None
        high, reach, reach_offset, high_offset = roof, 0, 0, self.limit
        if entry:
            assert self.entry is not None
            high, reach = self.entry, self.entry + 1
        if table:
            assert self.table is not None
            high_offset, reach_offset = self.table
            if self.address is not None:
                high = min(high, self.address)
                reach = max(reach, self.address + self.table[1] - self.table[0])
        return Role(
            self.low, high, high_offset, reach, reach_offset, roof, self.limit, self.page, self.bss, entry
        )

    @property
    def owing(self) -> bool:
        """Whether anything is owed."""
        return self.entry is not None or self.table is not None

    @property
    def table_end(self) -> int:
        """End of the program header table in the file."""
        return self.table[1] if self.table else 0

    def roles(self, slots: int) -> list[Role]:
        """The possible roles of a segment after which ``slots`` more may come."""
        found = []
        for entry in (False, True) if self.entry is not None else (False,):
            for table in (False, True) if self.table is not None else (False,):
                role = self._role(entry, table, slots)
                if role is not None and role.offsets() is not None:
                    found.append(role)
        return found

    def possible(self, slots: int) -> bool:
        """Whether ``slots`` segments can meet everything that is owed."""
        return not self.owing or (slots > 0 and bool(self.roles(slots - 1)))


def duties(plan: Plan) -> Duties:
    """What the plan owes to the segments that remain."""
    page = PAGE if plan.strict else 1
    return Duties(
        plan.entry if plan.entry_owed else None,
        (plan.phoff, plan.phoff + PHDR_SIZE * plan.phnum) if plan.table_owed else None,
        plan.phdr_address if plan.table_owed else None,
        plan.low,
        HIGHEST_ADDRESS if plan.strict else MAX64,
        plan.limit,
        page,
        plan.bss_left if plan.strict else MAX64,
    )


def roles(plan: Plan, slots: int) -> list[Role]:
    """The possible roles of an executable PT_LOAD after which ``slots`` more headers come.

    Those that need no execute permission are the roles of one that is not executable.
    """
    return duties(plan).roles(slots)


def union(size: int, pieces: list[Piece | None]) -> IntSet:
    """The set of the pieces that there are."""
    return IntSet(size, *(piece for piece in pieces if piece is not None))


def loaded(plan: Plan, flags: int, offset: int, address: int, size: int, memory: int) -> Plan:
    """The plan after a PT_LOAD: which duties it met, and where the next may begin."""
    page = PAGE if plan.strict else 1
    entry = plan.entry_owed and bool(flags & PF_X) and address <= plan.entry < address + size
    end = plan.phoff + PHDR_SIZE * plan.phnum
    table = plan.table_owed and offset <= plan.phoff and offset + size >= end
    if table and plan.phdr_address is not None:
        stop = plan.phdr_address + end - plan.phoff
        table = address <= plan.phdr_address and address + size >= stop
    return plan.reach(offset + size)._replace(
        low=max(plan.low, -(-(address + memory) // page) * page),
        entry_owed=plan.entry_owed and not entry,
        table_owed=plan.table_owed and not table,
        loads=plan.loads + 1,
        bss_left=min(plan.bss_left, BSS_TOTAL) - (memory - size) if plan.strict else plan.bss_left,
        labels=(*plan.labels, (offset, offset + size, f"segment[{plan.loads}]")) if size else plan.labels,
    )
