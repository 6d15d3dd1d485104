"""The types of program headers: for each, the exact set of every field given the ones before.

Sources: System V gABI ch. 5, the Linux extensions to it (PT_GNU_*), Linux fs/binfmt_elf.c, glibc elf/dl-load.c
and elf/rtld.c (what the dynamic loader asks of a file), LIEF's check_layout, binutils' readelf.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

from bytegen.formats.core.intset import IntSet, anything, exactly, interval
from bytegen.formats.core.pieces import Span
from bytegen.formats.core.steps import Text
from bytegen.formats.elf import entry, load
from bytegen.formats.elf.constants import (
    PF_R,
    PF_W,
    PF_X,
    PT_GNU_EH_FRAME,
    PT_GNU_RELRO,
    PT_GNU_STACK,
    PT_LOAD,
    PT_NULL,
    PT_PHDR,
    PT_TLS,
)
from bytegen.formats.elf.held import hold
from bytegen.formats.elf.phdr import Header
from bytegen.formats.elf.plan import Plan, Segment
from bytegen.formats.elf.role import Role, down, up
from bytegen.formats.elf.worlds import worlds, worlds_with

Choice = tuple[IntSet, Text]
Offered = bool | Callable[[], bool]

_FLAGS = interval(4, 0, 7)
_FLAGS_RULE = (
    "R, W and X as its place asks: executable where no later segment can hold the entry, but not where its code would "
    "overlap what came before; readable for the dynamic loader; writable for the dynamic section and for zeros"
)
_ANY = {4: anything(4), 8: anything(8)}
_MOST_TLS = 1 << 26  # a thread's block is allocated before the program starts
_MOST_TLS_ALIGN = 1 << 16


@cache
def _flags(*values: int) -> IntSet:
    return exactly(4, *values)


@cache
def powers(size: int, least: int, most: int, zero: bool) -> IntSet:
    """The powers of two from ``least`` to ``most`` that fit ``size`` bytes, and 0."""
    found = [1 << i for i in range(8 * size) if least <= 1 << i <= most]
    return exactly(size, *([0, *found] if zero else found))


class Kind:
    """A type that only the layout checks look at: it lies in the file, and p_align is a power of two."""

    def offered(self, header: Header, spare: bool) -> Offered:
        """Whether the type may come here: yes, no, or what tells.

        ``spare``: whether what is owed stays possible when this header is none of it.
        """
        return spare

    def begin(self, header: Header) -> None:
        """Prepare ``header.ways``."""

    def flags(self, header: Header) -> Choice:
        """The values of p_flags."""
        return _FLAGS, "a combination of R, W and X"

    def offset(self, header: Header) -> Choice:
        """The values of p_offset."""
        most = min(header.plan.limit, header.plan.target.top)
        return interval(header.plan.target.word, 0, most), lambda: f"at most {most}"

    def vaddr(self, header: Header) -> Choice:
        """The values of p_vaddr."""
        return _ANY[header.plan.target.word], "any address"

    def paddr(self, header: Header) -> Choice:
        """The values of p_paddr."""
        return _ANY[header.plan.target.word], "any address"

    def filesz(self, header: Header) -> Choice:
        """The values of p_filesz."""
        room = min(header.plan.limit, header.plan.target.top) - header.offset
        rule = lambda: f"at most {room}: the bytes left to the length limit"  # noqa: E731
        return interval(header.plan.target.word, 0, room), rule

    def memsz(self, header: Header) -> Choice:
        """The values of p_memsz."""
        target = header.plan.target
        return interval(target.word, header.filesz, target.top), "at least p_filesz"

    def align(self, header: Header) -> Choice:
        """The values of p_align."""
        target = header.plan.target
        return powers(target.word, 1, target.top, True), "0 or a power of two"

    def done(self, header: Header) -> Plan:
        """The plan after the header."""
        return header.plan.reach(header.offset + header.filesz)


class Load(Kind):
    """PT_LOAD. ``ways`` are the roles that remain.

    At level load zeros behind the file's bytes ask for write permission: QEMU's loader writes them, and dies where
    it may not (linux-user/elfload.c, zero_bss).
    """

    def _roles(self, header: Header) -> list[Role]:
        found: list[Role] = [] if header.ways is None else [*header.ways]
        for role in self._each_role(header):
            if role not in found:
                found.append(role)
        return found

    def _each_role(self, header: Header) -> Iterator[Role]:
        offset = header.offset if header.offset >= 0 else None
        for world in worlds_with(header.plan, header.slots, load=True, offset=offset):
            yield from world.duties.roles(world.slots)

    def offered(self, header: Header, spare: bool) -> Offered:
        """See `Kind.offered`."""
        return lambda: any(True for _ in self._each_role(header))

    def begin(self, header: Header) -> None:
        """See `Kind.begin`."""
        header.ways = self._roles(header)

    def flags(self, header: Header) -> Choice:
        """See `Kind.flags`."""
        alive = self._alive(header)
        needed = PF_R if header.plan.paged else 0
        if header.plan.strict and header.memsz > header.filesz:
            needed |= PF_W
        good = [
            flags
            for flags in range(needed, 8)
            if flags & needed == needed and any(self._allows(header, role, flags) for role in alive)
        ]
        return _flags(*good), _FLAGS_RULE

    def _allows(self, header: Header, role: Role, flags: int) -> bool:
        """Whether a segment of those flags can play the role."""
        if (role.needs_x and not flags & PF_X) or (role.needs_w and not flags & PF_W):
            return False
        return not flags & PF_X or self._may_execute(header, role)

    def _may_execute(self, header: Header, role: Role) -> bool:
        """Whether the segment may be executable: at level code the first such one holds the entry."""
        if role.needs_x or header.plan.level != "code":
            return True
        start = entry.code_start(header.plan)
        if header.plan.entry_owed or (header.offset >= 0 and header.offset < start):
            return False
        return role._replace(low_offset=start).offsets() is not None

    def _alive(self, header: Header) -> list[Role]:
        """The roles that the fields so far leave."""
        roles: list[Role] = header.ways
        if header.flags >= 0:
            roles = [role for role in roles if self._allows(header, role, header.flags)]
            if header.flags & PF_X and header.plan.level == "code":
                start = entry.code_start(header.plan)
                roles = [role._replace(low_offset=max(start, role.low_offset)) for role in roles]
        if header.memsz < 0:
            return roles
        at = (header.offset, header.vaddr, header.filesz)
        found = [(role, role.memory(*at)) for role in roles]
        return [role for role, sizes in found if sizes is not None and sizes.contains(header.memsz)]

    def offset(self, header: Header) -> Choice:
        """See `Kind.offset`."""
        plan = header.plan
        choices = load.union(plan.target.word, [role.offsets() for role in self._alive(header)])
        return choices, lambda: f"with room for what the segment owes before {plan.limit}"

    def vaddr(self, header: Header) -> Choice:
        """See `Kind.vaddr`."""
        if header.plan.dynamic_owed:
            header.ways = self._roles(header)
        found = [role.addresses(header.offset) for role in self._alive(header)]
        rule = "congruent to p_offset modulo the page, above the segment before, within what is owed"
        return load.union(header.plan.target.word, found), rule

    def filesz(self, header: Header) -> Choice:
        """See `Kind.filesz`."""
        found = [role.sizes(header.offset, header.vaddr) for role in self._alive(header)]
        rule = "inside the file, long enough for what is owed, clear of what comes above"
        return load.union(header.plan.target.word, found), rule

    def memsz(self, header: Header) -> Choice:
        """See `Kind.memsz`."""
        at = (header.offset, header.vaddr, header.filesz)
        if header.plan.strict and header.flags >= 0 and not header.flags & PF_W:
            return exactly(header.plan.target.word, header.filesz), "equal to p_filesz: it is not writable"
        if header.plan.paged and load.zeros_table(header.plan, *at):
            rule = "equal to p_filesz: zeros would wipe out the program headers in the pages of the segment"
            return exactly(header.plan.target.word, header.filesz), rule
        found = [role.memory(*at) for role in self._alive(header)]
        rule = "at least p_filesz, below the next page that is owed, within the zero-filled memory allowed"
        return load.union(header.plan.target.word, found), rule

    def align(self, header: Header) -> Choice:
        """See `Kind.align`."""
        plan, target = header.plan, header.plan.target
        shift = (header.vaddr - header.offset) & target.top
        most = shift & -shift or target.top
        if plan.paged:
            choices = powers(target.word, target.page, min(most, target.most_align), False)
            return (
                choices,
                lambda: (
                    f"a power of two from {target.page} to {target.most_align} that divides p_vaddr - p_offset, as "
                    "the dynamic loader asks"
                ),
            )
        return powers(target.word, 1, most, True), "0 or a power of two that divides p_vaddr - p_offset"

    def done(self, header: Header) -> Plan:
        """See `Kind.done`."""
        segment = Segment(header.offset, header.vaddr, header.filesz, header.memsz, header.flags)
        return load.loaded(header.plan, segment, header.align)


class Phdr(Kind):
    """PT_PHDR: the program header table, which a PT_LOAD to come must hold."""

    def offered(self, header: Header, spare: bool) -> Offered:
        """See `Kind.offered`."""
        plan = header.plan
        if not spare or not plan.table_owed or plan.segments:
            return False
        return lambda: any(self._shifts(header))

    def _shifts(self, header: Header) -> list[tuple[int, int]]:
        plan = header.plan
        found = []
        for world in worlds(plan, header.slots):
            table = world.duties.table
            if table is not None:
                found += world.duties.shifts(*table, world.slots)
        return found

    def offset(self, header: Header) -> Choice:
        """See `Kind.offset`."""
        return exactly(header.plan.target.word, header.plan.phoff), "where the program header table is"

    def vaddr(self, header: Header) -> Choice:
        """See `Kind.vaddr`."""
        plan = header.plan
        page = plan.target.page if plan.strict else 1
        offset = plan.phoff
        pieces = [
            Span(max(offset + low, offset % page), offset + high, page, offset)
            for low, high in self._shifts(header)
        ]
        return IntSet(plan.target.word, *pieces), "where a later PT_LOAD can hold the table"

    def filesz(self, header: Header) -> Choice:
        """See `Kind.filesz`."""
        plan = header.plan
        size = plan.phdrs_end - plan.phoff
        return exactly(plan.target.word, size), "the size of the program header table"

    def memsz(self, header: Header) -> Choice:
        """See `Kind.memsz`."""
        return exactly(header.plan.target.word, header.filesz), "equal to p_filesz"

    def done(self, header: Header) -> Plan:
        """See `Kind.done`."""
        return hold(header.plan, header.offset, header.vaddr, header.filesz)


class Tls(Kind):
    """PT_TLS: at most one; at level load its initial bytes lie in a PT_LOAD read before."""

    def offered(self, header: Header, spare: bool) -> Offered:
        """See `Kind.offered`."""
        return header.plan.tls_size is None and spare

    def filesz(self, header: Header) -> Choice:
        """See `Kind.filesz`."""
        plan = header.plan
        if not plan.strict:
            return super().filesz(header)
        shift = header.vaddr - header.offset
        rooms = [
            segment.offset + segment.filesz - header.offset
            for segment in plan.segments
            if segment.offset <= header.offset and segment.shift == shift
        ]
        most = min(max([0, *rooms]), _MOST_TLS)
        return interval(
            plan.target.word, 0, most
        ), lambda: f"at most {most}: a PT_LOAD before maps these bytes there"

    def memsz(self, header: Header) -> Choice:
        """See `Kind.memsz`."""
        if not header.plan.strict:
            return super().memsz(header)
        choices = interval(header.plan.target.word, header.filesz, _MOST_TLS)
        return choices, f"at least p_filesz, at most {_MOST_TLS}: every thread gets a copy"

    def align(self, header: Header) -> Choice:
        """See `Kind.align`."""
        if not header.plan.strict:
            return super().align(header)
        # The dynamic loader divides by it (glibc elf/dl-tls.c, _dl_determine_tlsoffset).
        choices = powers(header.plan.target.word, 1, _MOST_TLS_ALIGN, not header.memsz)
        return choices, f"a power of two up to {_MOST_TLS_ALIGN}; 0 where there is nothing"

    def done(self, header: Header) -> Plan:
        """See `Kind.done`."""
        return super().done(header)._replace(tls_size=header.memsz)


class Relro(Kind):
    """PT_GNU_RELRO: at level load its pages belong to one writable PT_LOAD read before, or it is empty.

    The dynamic loader takes write permission, and execute permission with it, from the pages from
    that of p_vaddr up to that of p_vaddr + p_memsz.
    """

    def _room(self, header: Header) -> int:
        plan, page, address = header.plan, header.plan.target.page, header.vaddr
        ends = [
            up(segment.address + segment.memsz, page) - address
            for segment in plan.segments
            if segment.flags & (PF_W | PF_X) == PF_W and down(segment.address, page) <= address
        ]
        return max([0, *(end for end in ends if end > 0)])

    def filesz(self, header: Header) -> Choice:
        """See `Kind.filesz`."""
        plan = header.plan
        if not plan.strict:
            return super().filesz(header)
        most = min(self._room(header), min(plan.limit, plan.target.top) - header.offset)
        return interval(plan.target.word, 0, most), lambda: f"at most {most}: the writable PT_LOAD there"

    def memsz(self, header: Header) -> Choice:
        """See `Kind.memsz`."""
        if not header.plan.strict:
            return super().memsz(header)
        most = self._room(header)
        choices = interval(header.plan.target.word, header.filesz, most)
        return choices, lambda: f"from p_filesz to {most}: the writable PT_LOAD there"


PLAIN: dict[int, Kind] = {
    PT_NULL: Kind(),
    PT_LOAD: Load(),
    PT_PHDR: Phdr(),
    PT_TLS: Tls(),
    PT_GNU_EH_FRAME: Kind(),
    PT_GNU_STACK: Kind(),
    PT_GNU_RELRO: Relro(),
}
