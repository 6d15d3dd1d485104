"""Base relocations: blocks of 16-bit entries, a block for a page; and the addresses that must be among them.

Pages do not descend, and the offsets within a block ascend, as linkers write them; a single zero entry may pad
a block. An address that is relocated lies, as wide as it is, in one section; at level "load" in pages that come from
the file, or in a section that can be written to: Wine unlocks no others; nor is it one of bytes that the loader
reads afterwards. What other directories need
relocated (`Duty`) is owed by the table while it is ahead: a block for each page of theirs always fits.

Sources: LIEF's check_layout (blocks of 8 bytes at least, multiples of 4, which fill the directory; known types),
Wine's LdrProcessRelocationBlock (types), pefile (no entry twice in a block).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from bytegen.formats.core.intset import IntSet
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Piece, Span
from bytegen.formats.core.quick import replacing
from bytegen.formats.core.steps import IntStep, Step
from bytegen.formats.pe.constants import DYNAMIC_BASE, MEM_WRITE, PAGE
from bytegen.formats.pe.directories.import_reads import read_of_imports
from bytegen.formats.pe.directories.memory import Contents, contents
from bytegen.formats.pe.layout import Range, up
from bytegen.formats.pe.plan import Plan, opener, proceed

INDEX = 5
HEAD = 8
HIGHLOW, DIR64 = 3, 10
_TLS = 9
_IMPORTS = (1, 12)


def kind_of(plan: Plan) -> int:
    """The type that relocates an address of the machine."""
    return DIR64 if plan.target.plus else HIGHLOW


def cost(duties: Iterable[int]) -> int:
    """Bytes of the blocks that relocate these addresses."""
    pages: dict[int, int] = {}
    for address in duties:
        pages[address // PAGE] = pages.get(address // PAGE, 0) + 1
    return sum(HEAD + 2 * (count + count % 2) for count in pages.values())


def relocated(plan: Plan, here: int, raw: bytes) -> frozenset[int] | None:
    """The addresses relocated by the table, where it is written before ``here``; None where it is ahead."""
    address, size = plan.directories[INDEX]
    start = plan.offset_of(address, size) if size else None
    if start is None:
        return frozenset()
    if start >= here:
        return None
    found, stop = set(), start + size
    while start + HEAD <= stop:
        page, length = (int.from_bytes(raw[start + i : start + i + 4], "little") for i in (0, 4))
        for place in range(start + HEAD, start + length, 2):
            entry = int.from_bytes(raw[place : place + 2], "little")
            if entry >> 12 == kind_of(plan):
                found.add(page + (entry & 0xFFF))
        start += max(length, HEAD)
    return frozenset(found)


def can_owe(plan: Plan, addresses: tuple[int, ...], behind: frozenset[int] | None) -> bool:
    """Whether these addresses can be, or are, relocated: ``behind`` is what `relocated` gives."""
    if behind is not None:
        return behind.issuperset(addresses)
    size = plan.directories[INDEX][1]
    # What is read of the imports is not known yet: no more than their directories, and names.
    pinned = sorted((a, a + n) for a, n in map(plan.directories.__getitem__, _IMPORTS) if n)
    return _good_rest(plan, size, tuple(sorted({*contents(plan).duties, *addresses})), pinned)


def owing(plan: Plan, addresses: tuple[int, ...], behind: frozenset[int] | None) -> Plan:
    """The plan that owes the relocation of these addresses."""
    if behind is not None or not addresses:
        return plan
    kept: Contents = contents(plan)
    duties = tuple(sorted({*kept.duties, *addresses}))
    return plan._replace(contents=kept._replace(duties=duties))


class _Block(NamedTuple):
    """A table being read, at a block: what is left of it, and of the duties."""

    plan: Plan
    region: Region
    start: int
    number: int
    page: int
    duties: tuple[int, ...]
    pinned: tuple[Range, ...]
    pages: tuple[Range, ...]

    @property
    def left(self) -> int:
        return self.region.end - self.start

    def path(self, name: str) -> str:
        return f"relocs[{self.number}].{name}"


@opener("relocs")
def _open(plan: Plan, region: Region, data: bytearray) -> Step:
    duties = contents(plan).duties
    address, size = plan.directories[_TLS]
    if size and plan.dll_flags & DYNAMIC_BASE and (plan.offset_of(address) or 0) > region.start:
        duties = (address + 2 * plan.target.word,)  # AddressOfIndex: every TLS directory has one
    pinned = tuple(read_of_imports(plan, data)) if plan.strict else ()
    return _block(_Block(plan, region, region.start, 0, 0, duties, pinned, tuple(_pages(plan, pinned))), data)


def _ranges(plan: Plan) -> list[tuple[int, int]]:
    """The least and the greatest address that can be relocated in each section."""
    width = plan.target.word
    found = []
    for section in plan.sections:
        size = section.size
        if plan.strict and not section.flags & MEM_WRITE:
            size = min(size, up(section.raw_size, PAGE))
        if size >= width:
            found.append((section.address, section.address + size - width))
    return found


def _slots(
    plan: Plan, page: int, duties: Iterable[int] = (), pinned: Sequence[Range] = ()
) -> list[tuple[int, int]]:
    """The offsets within a page of addresses that can be relocated, as intervals.

    At level "load" none of them changes what the loader still reads: the relocations themselves, and what is
    ``pinned`` of the imports (`read_of_imports`).
    """
    inside = ((max(low, page), min(high, page + PAGE - 1)) for low, high in _ranges(plan))
    found = [(low - page, high - page) for low, high in inside if low <= high]
    width = plan.target.word
    own, size = plan.directories[INDEX]
    first = bisect_left(pinned, page, key=lambda part: part[1])
    last = bisect_left(pinned, page + PAGE + width, key=lambda part: part[0])
    taken = [(a - width + 1 - page, b - 1 - page) for a, b in ((own, own + size), *pinned[first:last])]
    if not plan.strict or not any(low < PAGE and high >= 0 for low, high in taken):
        return found
    places = np.zeros(PAGE + 2, dtype=np.int8)
    for low, high in found:
        places[low + 1 : high + 2] = 1
    for low, high in taken:
        places[max(low, 0) + 1 : max(min(high, PAGE - 1), -1) + 2] = 0
    places[[address - page + 1 for address in duties if page <= address < page + PAGE]] = 1
    edges = np.flatnonzero(np.diff(places)).reshape(-1, 2)
    return [(low, high - 1) for low, high in edges.tolist()]


def _pages(plan: Plan, pinned: Sequence[Range]) -> list[tuple[int, int]]:
    """The first and the last of pages in a row in which an address can be relocated."""
    rows = [(low - low % PAGE, high - high % PAGE) for low, high in _ranges(plan)]
    if not plan.strict:
        return rows
    own, size = plan.directories[INDEX]
    # A page may hold nothing but what has to be left alone.
    doubtful = {page for a, b in ((own, own + size), *pinned) for page in range(a - a % PAGE, b, PAGE)}
    full = sorted(page for page in doubtful if not _slots(plan, page, (), pinned))
    every = rows
    for page in full:
        rows = [
            part
            for low, high in rows
            for part in ([(low, page - PAGE), (page + PAGE, high)] if low <= page <= high else [(low, high)])
            if part[0] <= part[1]
        ]
    return rows or every


def _most(plan: Plan, page: int, duties: Iterable[int], pinned: Sequence[Range] = ()) -> int:
    """The size of the longest block of a page."""
    return HEAD + (sum(high - low + 1 for low, high in _slots(plan, page, duties, pinned)) + 1) // 2 * 4


def _good_rest(plan: Plan, rest: int, duties: tuple[int, ...], pinned: Sequence[Range]) -> bool:
    """Whether ``rest`` bytes hold the blocks of what is owed, and blocks of 8 bytes or more for what is left.

    Four bytes are left to two more entries of the last block that is owed, where its page has a place for them.
    """
    spare = rest - cost(duties)
    return spare == 0 or spare >= HEAD or (spare == 4 and _roomy(plan, duties, pinned))


def _roomy(plan: Plan, duties: tuple[int, ...], pinned: Sequence[Range]) -> bool:
    if not duties:
        return False
    page = duties[-1] - duties[-1] % PAGE
    return _most(plan, page, duties, pinned) >= cost(a for a in duties if a >= page) + 4


def _sizes(
    plan: Plan, least: int, most: int, left: int, duties: tuple[int, ...], pinned: Sequence[Range]
) -> list[Piece]:
    """The sizes of a block after which `_good_rest` holds."""
    need = cost(duties)
    pieces: list[Piece] = [Span(least, min(most, left - need - HEAD), 4)]
    for size in (left - need, left - need - 4):
        if least <= size <= most and _good_rest(plan, left - size, duties, pinned):
            pieces.append(Span(size, size))
    return pieces


def _block(block: _Block, data: bytearray) -> Step:
    plan = block.plan
    if not block.left:
        return proceed(plan, block.start, data)
    owed = block.duties[0] - block.duties[0] % PAGE if block.duties else plan.image_size
    free = not block.duties or _good_rest(plan, block.left - HEAD, block.duties, block.pinned)
    pieces: list[Piece] = []
    if free:
        for first, last in block.pages:
            low, high = max(first, block.page), min(last, owed)
            if low <= high:
                pieces.append(Span(low, high, PAGE))
    if block.duties:
        pieces.append(Span(owed, owed))
    elif not pieces:  # an empty block of the same page
        pieces.append(Span(block.page, block.page))

    return IntStep(
        block.start,
        4,
        IntSet(4, *pieces),
        lambda: block.path("VirtualAddress"),
        "a page of a section, not before the last one, that leaves room for what must be relocated",
        lambda value, data: _size(block._replace(page=value), data),
    )


def _size(block: _Block, data: bytearray) -> Step:
    plan, page, left = block.plan, block.page, block.left
    most = min(left, _most(plan, page, block.duties, block.pinned))
    here = [a for a in block.duties if a < page + PAGE]
    later = block.duties[len(here) :]
    least = HEAD + 2 * (len(here) + len(here) % 2)
    pieces = _sizes(plan, least, most, left, later, block.pinned)
    if here:
        pieces += _sizes(plan, HEAD, min(most, least - 4), left, block.duties, block.pinned)

    def following(value: int, data: bytearray) -> Step:
        count = (value - HEAD) // 2
        serving = tuple(here) if count >= len(here) else ()
        rest = block.duties[len(serving) :]
        entries = _Entries(
            block._replace(start=block.start + value, number=block.number + 1, duties=rest),
            block.start + HEAD,
            count,
            tuple(a - page for a in serving),
            tuple(_slots(plan, page, block.duties, block.pinned)),
        )
        return _entry(entries, 0, data)

    return IntStep(
        block.start + 4,
        4,
        IntSet(4, *[piece for piece in pieces if piece.bounds()]),
        lambda: block.path("SizeOfBlock"),
        "a multiple of 4 from 8 on that the rest of the table can follow",
        following,
    )


@replacing
class _Entries(NamedTuple):
    """The entries of a block: ``after`` is the next block."""

    after: _Block
    start: int
    entries: int
    duties: tuple[int, ...]
    slots: tuple[tuple[int, int], ...]
    least: int = 0  # the next offset is at least this


def _at_least(slots: tuple[tuple[int, int], ...], low: int) -> int:
    """How many slots are at ``low`` or above."""
    return sum(max(0, high - max(first, low) + 1) for first, high in slots)


def _last_start(slots: tuple[tuple[int, int], ...], count: int) -> int:
    """The greatest offset from which on there are ``count`` slots."""
    for low, high in reversed(slots):
        if count <= high - low + 1:
            return high - count + 1
        count -= high - low + 1
    return -1


def _entry(read: _Entries, done: int, data: bytearray) -> Step:
    left = read.entries - done
    if not left:
        return _block(read.after, data)
    plan, owed = read.after.plan, len(read.duties)
    # Offsets that must come yet: with a pad at the end one fewer.
    most = _last_start(read.slots, max(left - 1, 1)) if not owed or left > owed else read.duties[0]
    if owed:
        most = min(most, read.duties[0])
        # What is owed may need all entries that are left.
        low = read.duties[0] if left == owed else read.least
    else:
        low = read.least
    kind = kind_of(plan)
    spans = [(max(a, low), min(b, most)) for a, b in read.slots if max(a, low) <= min(b, most)]
    pieces: list[Piece] = [Span(kind << 12 | a, kind << 12 | b) for a, b in spans]
    if left == 1 and not owed:
        pieces.append(Span(0, 0))
    return IntStep(
        read.start + 2 * done,
        2,
        IntSet(2, *pieces),
        ("relocs[{}].entry[{}]", read.after.number - 1, done),
        "a type of the machine and an offset in a section, greater than the one before; or the zero that pads",
        partial(_after_entry, read, done),
    )


def _after_entry(read: _Entries, done: int, value: int, data: bytearray) -> Step:
    offset = value & 0xFFF
    duties = read.duties[1:] if read.duties and read.duties[0] == offset else read.duties
    return _entry(read._replace(duties=duties, least=offset + 1), done + 1, data)


__all__ = ["HEAD", "INDEX", "can_owe", "cost", "owing", "relocated"]
