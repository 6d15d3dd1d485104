"""The section table: each header takes its part of the image, of the file, and of what is owed."""

from __future__ import annotations

from typing import NamedTuple

from bytegen.formats.core.intset import IntSet, exactly
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Bits, Piece, Span
from bytegen.formats.core.steps import FreeStep, IntStep, Step
from bytegen.formats.pe import code
from bytegen.formats.pe.constants import (
    CERTIFICATE_TABLE,
    MEM_EXECUTE,
    MEM_WRITE,
    SECTION_CHARACTERISTICS,
    SECTION_SIZE,
    SYMBOL_SIZE,
)
from bytegen.formats.pe.layout import Layout, up
from bytegen.formats.pe.plan import Plan, Section, proceed
from bytegen.formats.pe.sets import Decimal, NotBeginning, When
from bytegen.formats.pe.spec import offered

_SLASH = ord("/")
_TLS = 9
_ANY_BUT_SLASH = IntSet(1, NotBeginning(1, b"/"))
_ANY1 = IntSet(1, Span(0, 255), full=True)
_ZERO = {2: exactly(2, 0), 4: exactly(4, 0)}
# No section is both written to and executed: pefile warns of it.
_PLAIN = SECTION_CHARACTERISTICS & ~(MEM_EXECUTE | MEM_WRITE)
_UNUSED = (
    ("PointerToRelocations", 4),
    ("PointerToLinenumbers", 4),
    ("NumberOfRelocations", 2),
    ("NumberOfLinenumbers", 2),
)


class Header(NamedTuple):
    """The fields of one section header read so far, and the sections that remain with it."""

    start: int
    number: int
    layout: Layout
    name: bytes = b""
    size: int = 0
    raw_size: int = 0
    offset: int = 0

    def path(self, name: str) -> str:
        """Path of a field of this header."""
        return f"section[{self.number}].{name}"


def begin(plan: Plan, layout: Layout, data: bytearray) -> Step:
    """The first section header."""
    start = plan.headers_end - SECTION_SIZE * plan.section_count
    return _name(plan, Header(start, 0, layout), data)


def _strings_room(plan: Plan) -> int:
    """The greatest size that the COFF string table can have; 0 where there is none."""
    if not plan.symbols:
        return 0
    start = plan.symbols + SYMBOL_SIZE * plan.symbol_count
    after = plan.ledger.after(start + 1)
    return (after.start if after is not None else plan.limit) - start


def _name(plan: Plan, header: Header, data: bytearray) -> Step:
    if header.number == plan.section_count:
        return _done(plan, header, data)
    start, room = header.start, _strings_room(plan)
    rule = "a name; one that begins with / is an offset in the COFF string table"

    def rest(value: int, data: bytearray) -> Step:
        if value != _SLASH:
            return FreeStep(
                start + 1,
                start + 8,
                None,
                header.path("Name"),
                rule,
                lambda data: _named(plan, header, data),
            )
        return IntStep(
            start + 1,
            7,
            IntSet(7, Decimal(7, 4, room - 1)),
            header.path("Name"),
            f"an offset in the COFF string table in decimal, 4 to {room - 1}",
            lambda value, data: _long_name(plan, header, value, data),
        )

    choices = _ANY1 if room > 5 else _ANY_BUT_SLASH
    return IntStep(start, 1, choices, header.path("Name"), rule, rest)


def _long_name(plan: Plan, header: Header, value: int, data: bytearray) -> Step:
    need = int(value.to_bytes(7, "little").rstrip(b"\0")) + 1
    if need > plan.string_need:
        end = plan.symbols + SYMBOL_SIZE * plan.symbol_count + need
        plan = plan._replace(string_need=need).reach(end)
    return _named(plan, header, data)


def _named(plan: Plan, header: Header, data: bytearray) -> Step:
    header = header._replace(name=bytes(data[header.start : header.start + 8]))
    layout = header.layout

    def allowed(size: int) -> bool:
        if not size:
            return False
        rest, need = layout.after(size), layout.need(size)
        if need > size or rest.low > layout.top:
            return False
        return _possible(layout, rest, need)

    return IntStep(
        header.start + 8,
        4,
        IntSet(4, When(allowed, layout.virtual_sizes)),
        header.path("VirtualSize"),
        "a size that leaves the later sections their pages and their data",
        lambda value, data: _address(plan, header._replace(size=value)),
    )


def _possible(layout: Layout, rest: Layout, need: int) -> bool:
    """Whether the later sections are possible after one that keeps ``need`` bytes in the file."""
    if not rest.slots:
        return rest.low == rest.top and (not need or layout.start + need <= layout.limit)
    if rest.slots > (rest.top - rest.low) // rest.page - rest.glued or rest.clusters[-1].last > rest.top:
        return False
    cost = rest.cost()
    if not cost:
        return not need or layout.start + need <= layout.limit
    return layout.start + up(need, layout.block) + cost <= layout.limit


def _address(plan: Plan, header: Header) -> Step:
    low = header.layout.low
    return IntStep(
        header.start + 12,
        4,
        exactly(4, low),
        header.path("VirtualAddress"),
        f"{low:#x}, where the section before ends",
        lambda value, data: _raw_size(plan, header),
    )


def _raw_size(plan: Plan, header: Header) -> Step:
    layout = header.layout
    low, high = layout.raw_sizes(header.size)
    pieces: list[Piece] = [Span(low, high)]
    if not layout.need(header.size):
        pieces.append(Span(0, 0))
    return IntStep(
        header.start + 16,
        4,
        IntSet(4, *pieces),
        header.path("SizeOfRawData"),
        f"{low} to {high}: what is owed, no more than VirtualSize rounded up and than the file leaves",
        lambda value, data: _pointer(plan, header._replace(raw_size=value)),
    )


def _pointer(plan: Plan, header: Header) -> Step:
    if not header.raw_size:
        choices, rule = _ZERO[4], "0: no raw data"
    else:
        block = header.layout.block
        low, high = header.layout.pointers(header.size, header.raw_size)
        choices = IntSet(4, Span(low, high, block))
        rule = f"a multiple of {block} from {low} to {high}: after the section before"
    return IntStep(
        header.start + 20,
        4,
        choices,
        header.path("PointerToRawData"),
        rule,
        lambda value, data: _unused(plan, header._replace(offset=value), 0, header.start + 24),
    )


def _unused(plan: Plan, header: Header, i: int, start: int) -> Step:
    if i == len(_UNUSED):
        return _flags(plan, header, start)
    name, size = _UNUSED[i]
    return IntStep(
        start,
        size,
        _ZERO[size],
        header.path(name),
        "0 in an image",
        lambda value, data: _unused(plan, header, i + 1, start + size),
    )


def _index_owed(plan: Plan, header: Header, end: int) -> bool:
    """Whether a section must be written to: the last that can hold the index of thread-local storage.

    Loaders write it. The section that the entry point is in, which is executed, cannot be the one.
    """
    if not plan.strict or not plan.directories[_TLS][1]:
        return False
    if any(section.flags & MEM_WRITE and section.size >= 4 for section in plan.sections):
        return False
    left = plan.section_count - header.number - 1
    return left == 0 or (left == 1 and plan.entry >= end)


def _flags(plan: Plan, header: Header, start: int) -> Step:
    low = header.layout.low
    end, must = low + header.size, 0
    for need in plan.needs:
        if low <= need.start < end:
            must |= need.flags
    if _index_owed(plan, header, end) and not must & MEM_EXECUTE:
        must |= MEM_WRITE
    pieces = []
    if not must & MEM_WRITE:
        pieces.append(Bits(_PLAIN | MEM_EXECUTE, must))
    if not must & MEM_EXECUTE:
        pieces.append(Bits(_PLAIN | MEM_WRITE, must))
    return IntStep(
        start,
        4,
        IntSet(4, *pieces),
        header.path("Characteristics"),
        f"known flags, not both written to and executed{f', {must:#x} among them' if must else ''}",
        lambda value, data: _next(plan, header, value, data),
    )


def _next(plan: Plan, header: Header, flags: int, data: bytearray) -> Step:
    layout = header.layout
    section = Section(header.name, layout.low, header.size, header.offset, header.raw_size, flags)
    rest = layout.after(header.size)
    if header.raw_size:
        rest.start = up(header.offset + header.raw_size, layout.block)
    return _name(plan.placed(section), Header(header.start + SECTION_SIZE, header.number + 1, rest), data)


def _done(plan: Plan, header: Header, data: bytearray) -> Step:
    """The directories become promises in the file, now that sections say where they are."""
    ledger = plan.ledger
    for index, (address, size) in enumerate(plan.directories):
        spec = offered(index)
        if not size or spec is None or index == CERTIFICATE_TABLE:
            continue
        start = address if spec.in_headers else plan.offset_of(address, size)
        assert start is not None
        end = start + spec.head(plan.target, size)
        if end > start:
            ledger = ledger.add(Region(start, end, spec.kind, spec.kind, index))
    plan = code.sections_read(plan._replace(ledger=ledger), header.start, data)
    return proceed(plan, header.start, data)
