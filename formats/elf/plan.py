"""What a partly written ELF file has settled so far, and where the next step begins."""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Any, NamedTuple

from bytegen.formats.code.region import Code
from bytegen.formats.core.grown import Grown
from bytegen.formats.core.ledger import Ledger
from bytegen.formats.core.promised import Grammar
from bytegen.formats.core.quick import replacing
from bytegen.formats.elf.constants import ET_DYN, ET_EXEC
from bytegen.formats.elf.target import Target

_SPARE_PAGES = 4


class Segment(NamedTuple):
    """A PT_LOAD: file bytes [offset, offset + filesz) at ``address``, ``memsz`` bytes in memory."""

    offset: int
    address: int
    filesz: int
    memsz: int
    flags: int

    @property
    def shift(self) -> int:
        """Address minus file offset."""
        return self.address - self.offset


class Held(NamedTuple):
    """Addresses [address, end) that a later PT_LOAD maps at ``shift`` (address minus file offset).

    ``writable``: that PT_LOAD is.
    """

    address: int
    end: int
    shift: int
    writable: bool = False


class Section(NamedTuple):
    """What later rules need of a section header already read. ``entries``: how many it holds."""

    kind: int
    offset: int
    size: int
    entries: int
    address: int = 0
    name: int = 0  # offset in the section name table
    info: int = 0


class Owed(NamedTuple):
    """A section type that an earlier header promised for a later index.

    A string table of at least ``sure`` bytes, or a symbol table of at least ``sure`` symbols; where ``place`` is
    given, the table of that offset and size. ``spare``: the least size of the section name table until the
    dynamic section has its name.
    """

    types: frozenset[int]
    sure: int = 0
    place: tuple[int, int] | None = None
    spare: int = 0

    @property
    def need(self) -> int:
        """The least size."""
        return max(self.sure, self.spare)


@replacing
class Plan(NamedTuple):
    """The settled part of a file. Immutable; every step carries the one that holds at its start."""

    target: Target  # the machine
    limit: int  # the file is at most this long
    level: str  # "parse", "load" or "code"
    strict: bool  # levels "load" and "code": the kernel's rules too
    ledger: Ledger
    min_end: int  # the file is at least this long
    kind: int = ET_EXEC  # e_type
    static: bool = False  # no dynamic section and no interpreter
    entry: int = 0
    phoff: int = 0
    phnum: int = 0
    shoff: int = 0
    shnum: int = 0
    shstrndx: int = 0
    # program headers
    low: int = 0  # the next PT_LOAD begins at this address or above
    entry_owed: bool = False  # a later PT_LOAD must hold the entry
    table_owed: bool = False  # a later PT_LOAD must hold the program header table
    # At level load notes are mapped, and the table with the first of them: at that shift. Level parse knows nothing of
    # it, and has the table at the shift of the first PT_INTERP or PT_DYNAMIC: theirs is the same, until a PT_LOAD holds
    # the table. ``table_noting``: the same for a PT_DYNAMIC that is owed while notes are read.
    table_noted: int | None = None
    table_noting: bool = False
    held: tuple[Held, ...] = ()  # what later PT_LOADs must hold at an address, in order
    interp: tuple[int, int] | None = None  # PT_INTERP: offset and size
    dynamic: tuple[int, int, int] | None = None  # PT_DYNAMIC: offset, size, address
    named: Any = None  # tables that the dynamic section names, once it is read (`dynamic.settled.Settled`)
    foreseen: Any = None  # what section headers say of them before it is read (`foreseen.Foreseen`)
    unpaged: bool = False  # some PT_LOAD is aligned to less than a page, or may not be read
    executable: tuple[tuple[int, int, int], ...] = ()  # (file start, file end, address) of code
    code: Code | None = None  # level "code": set once the program headers are read
    segments: tuple[Segment, ...] = ()  # the PT_LOADs read so far
    tls_size: int | None = None
    bss_left: int = 0
    segments_read: bool = False
    labels: tuple[tuple[int, int, str], ...] = ()
    # section headers
    sections: Grown[Section] = Grown()
    of_kind: dict[int, tuple[int, ...]] = {}  # noqa: RUF012  # type -> indices; never changed in place
    asks: Any = None  # what they ask of the name table (`names.Asked`)
    owed: tuple[tuple[int, Owed], ...] = ()  # sorted by index; indices not read yet

    @property
    def phdrs_end(self) -> int:
        """Where the program header table ends."""
        return self.phoff + self.phnum * self.target.phdr_size

    @property
    def paged(self) -> bool:
        """Whether a dynamic loader reads the file: it asks for PT_LOADs aligned to a page that may be read."""
        return self.strict and (self.kind == ET_DYN or self.interp is not None or self.dynamic is not None)

    @property
    def dynamic_owed(self) -> bool:
        """Whether there must be a PT_DYNAMIC: a program with an interpreter, or a shared object."""
        needed = self.interp is not None or (self.kind == ET_DYN and self.entry == 0)
        return self.strict and needed and self.dynamic is None

    @property
    def owing(self) -> bool:
        """Whether program headers still to come owe anything, or must keep room for it."""
        return self.entry_owed or self.table_owed or bool(self.held) or self.dynamic_owed

    @property
    def near(self) -> int:
        """The program header table ends before this offset, so that a segment with the entry can hold it."""
        most = min(self.limit, self.roof // 4)
        return min(most, self._above(self.entry)) if self.strict and self.entry else most

    @property
    def roof(self) -> int:
        """No segment reaches beyond this address."""
        if not self.strict:
            return self.target.top
        return self.target.highest if self.kind == ET_EXEC else self.target.span

    def _above(self, address: int) -> int:
        """Bytes from an address to the roof, but for the pages that other segments take."""
        return (self.roof - address) // self.target.page * self.target.page - _SPARE_PAGES * self.target.page

    @property
    def highest_entry(self) -> int:
        """The greatest e_entry, which leaves room above it for the least program header table.

        It does not depend on the length limit: what has been written under one limit stands under a greater one.
        """
        return self._above(0) - _SPARE_PAGES * self.target.page

    def owed_at(self, index: int) -> Owed | None:
        """What section ``index`` owes."""
        i = bisect_left(self.owed, (index,))
        return self.owed[i][1] if i < len(self.owed) and self.owed[i][0] == index else None

    def owed_after(self, index: int) -> int:
        """How many sections after ``index`` owe something."""
        return len(self.owed) - bisect_left(self.owed, (index + 1,))

    def owe(
        self,
        index: int,
        types: frozenset[int],
        need: int = 0,
        place: tuple[int, int] | None = None,
        spare: int | None = None,
    ) -> Plan:
        """The plan in which section ``index``, not read yet, is of one of the types and of ``need`` bytes.

        ``spare`` as in `Owed`; None leaves it.
        """
        known = self.owed_at(index)
        if known is not None:
            need = max(need, known.sure)
            spare = known.spare if spare is None else spare
            types = types & known.types
            place = known.place if place is None else place
        rest = [item for item in self.owed if item[0] != index]
        insort(rest, (index, Owed(types, need, place, spare or 0)), key=lambda item: item[0])
        return self._replace(owed=tuple(rest))

    def reach(self, end: int) -> Plan:
        """The plan of a file that is at least ``end`` bytes long."""
        return self._replace(min_end=end) if end > self.min_end else self


_GRAMMAR: Grammar[Plan] = Grammar()
opener, proceed = _GRAMMAR.opener, _GRAMMAR.proceed
