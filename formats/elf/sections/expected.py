"""How many dynamic symbols there are while their dynamic section, and perhaps their header, is still to come.

Hash tables, version indices and relocations may say it before that header is read. From then on the last place
ahead in which so many fit is reserved: section headers mostly come in the order of their content, so that what
else lies ahead finds its place before it.
"""

from __future__ import annotations

from itertools import islice

import numpy as np

from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Finite, Piece
from bytegen.formats.elf import space
from bytegen.formats.elf.contents import symbols
from bytegen.formats.elf.dynamic.addresses import AddressMap, map_of
from bytegen.formats.elf.dynamic.view import View
from bytegen.formats.elf.foreseen import UNBOUNDED, foreseen
from bytegen.formats.elf.plan import Plan
from bytegen.formats.elf.sections import links
from bytegen.formats.elf.sections.types import DYNSYM, STRTAB
from bytegen.formats.elf.written import Table, remembered

_STRINGS = frozenset({STRTAB})
_LOOK = 16
_MOST_GAPS = 16
_USUAL_NAME = 24  # bytes
_SPARE = 5  # headers that owe nothing, among which the string table of symbols behind may be
ONLY_DYNSYM = frozenset({DYNSYM})


def view(plan: Plan, table: Table) -> View:
    """The bytes before the section headers, as tables of the dynamic section."""
    cache = table.behind.cache
    if "view" not in cache:
        raw = table.behind.raw
        cache["view"] = View(raw, map_of(plan, table.start, raw), plan.target, plan.strict, plan.tls_size)
    found: View = cache["view"]
    return found


def map_to(plan: Plan, table: Table) -> AddressMap:
    """The addresses of those bytes, and of the room ahead."""
    return view(plan, table).map


def symbols_read(plan: Plan) -> int | None:
    """How many dynamic symbols there are, where their header has been read."""
    return plan.sections[plan.of_kind[DYNSYM][0]].entries if DYNSYM in plan.of_kind else None


def least(plan: Plan) -> int:
    """The number of dynamic symbols, or the least of those that may be."""
    exact = foreseen(plan).symbols
    if exact is not None:
        return exact
    return max([1, *(owed.need for _, owed in plan.owed if owed.types == ONLY_DYNSYM)])


@remembered
def released(plan: Plan, table: Table) -> Plan:
    """The plan with nothing reserved for the symbols."""
    seen = foreseen(plan)
    if seen.reserved is None:
        return plan
    return plan._replace(ledger=plan.ledger.dropped(seen.reserved), foreseen=seen._replace(reserved=None))


@remembered
def gaps(plan: Plan, table: Table) -> list[tuple[int, int, int]]:
    """(low, high, shift): mapped room ahead, the last first, that string tables still owed can do without.

    Where they need some of a gap, that is its beginning or its end: what is left either way, of which one table may
    take any part. Not to be changed.
    """
    needed = space.needed(plan, table)
    if len(needed) > 1:
        return []
    every = map_to(plan, table).gaps(plan, table.end)
    for start, end, need in needed:
        ways = [(start, end - need), (start + need, end)]
        every = [
            (max(low, first), min(high, last), shift)
            for low, high, shift in every
            for first, last in (ways if start <= low < end else [(low, high)])
            if max(low, first) < min(high, last)
        ]
    return sorted(set(every) if needed else every, reverse=True)


def _names_behind(plan: Plan, table: Table) -> list[np.ndarray]:
    """Of the longest tables of good symbols behind: [i] is the greatest name of the first i + 1."""
    cache = table.behind.cache
    if "symbol names" not in cache:
        found, seen = [], view(plan, table).symbols
        for offset, high in seen.longest_tables(_LOOK):
            names = symbols.symbols_behind(plan, table.behind, offset).names
            found.append(names[: seen.run(offset, high, len(names), 1 << 32)])
        cache["symbol names"] = found
    names_: list[np.ndarray] = cache["symbol names"]
    return names_


def _text_bound(plan: Plan, table: Table, number: int) -> int:
    """The greatest size that the string table of symbols behind may be asked for."""
    if foreseen(plan).link:
        return string_bound(plan, table, number)
    read = [plan.sections[i].size for i in links.read(plan, _STRINGS)]
    room = space.longest(plan, table).plain if links.free_after(plan, number) >= _SPARE else 0
    return max([foreseen(plan).text, room, *read])


def _behind(plan: Plan, table: Table, number: int, count: int, most: int) -> Plan | None:
    """The plan in which symbols behind will do, whose names need ``most`` bytes at most and there is room for."""
    seen = foreseen(plan)
    needs = [int(names[count - 1]) + 1 for names in _names_behind(plan, table) if len(names) >= count]
    need = min(needs, default=0)
    if not 0 < need <= min(most, _text_bound(plan, table, number)):
        return None
    if not seen.link:
        return plan._replace(foreseen=seen._replace(text=max(seen.text, need)))
    return plan.owe(seen.link, _STRINGS, need) if seen.link > number else plan


@remembered
def reserve(plan: Plan, table: Table, number: int, count: int) -> Plan | None:
    """The plan that keeps so many symbols possible, if their header is still to come; None where that cannot be.

    Those behind take no room; but where their names would need many bytes, they are none by chance only.
    """
    if symbols_read(plan) is not None:
        return plan
    bare = released(plan, table)
    found = _behind(bare, table, number, count, _USUAL_NAME * count)
    found = _ahead(plan, table, count) if found is None else found
    return _behind(bare, table, number, count, UNBOUNDED) if found is None else found


def elsewhere(plan: Plan, table: Table, number: int) -> list[Plan]:
    """The plan, and those in which the room for the symbols is at another place: first and last in each gap, behind.

    What a header takes ahead may move it. So it does not depend on the length limit, under which room is scarce for
    other reasons too.
    """
    reserved = foreseen(plan).reserved
    if reserved is None:
        return [plan]
    bare, word = released(plan, table), plan.target.word
    size, found = reserved.end - reserved.start, {reserved.start: plan}
    # Segments may show the same gap at several addresses.
    wide = dict.fromkeys((low, high) for low, high, _ in gaps(bare, table) if high - low >= size)
    for low, high in islice(wide, _MOST_GAPS):
        for start in ((high - size) // word * word, low + -low % word):
            if low <= start and start + size <= high and start not in found:
                found[start] = _reserving(bare, start, size)
    behind = _behind(bare, table, number, size // plan.target.sym_size, UNBOUNDED)
    return [*found.values(), *([] if behind is None else [behind])]


def _reserving(plan: Plan, start: int, size: int) -> Plan:
    region = Region(start, start + size, "reserved", "the dynamic symbols")
    seen = foreseen(plan)._replace(reserved=region)
    return plan._replace(ledger=plan.ledger.add(region), foreseen=seen)


def _ahead(plan: Plan, table: Table, count: int) -> Plan | None:
    """The plan that keeps room ahead for so many symbols."""
    seen, size, word = foreseen(plan), count * plan.target.sym_size, plan.target.word
    if seen.reserved is not None and seen.reserved.end - seen.reserved.start >= size:
        return plan
    plan = released(plan, table)
    for low, high, _ in gaps(plan, table):
        start = (high - size) // word * word
        if start >= low:
            return _reserving(plan, start, size)
    return None


@remembered
def most(plan: Plan, table: Table, number: int) -> int:
    """The greatest number of dynamic symbols that may be; less than the least where none may."""
    seen, known = foreseen(plan), symbols_read(plan)
    if known is not None:
        return known
    if seen.symbols is not None:
        return seen.symbols if reserve(plan, table, number, seen.symbols) is not None else 0
    word, size = plan.target.word, plan.target.sym_size
    kept = 0 if seen.reserved is None else (seen.reserved.end - seen.reserved.start) // size
    bare = released(plan, table)
    rooms = [(high - (low + -low % word)) // size for low, high, _ in gaps(bare, table)]
    bound = _text_bound(bare, table, number)
    behind = [int(np.searchsorted(names, bound)) for names in _names_behind(plan, table)]
    return min(seen.most, max([kept, *rooms, *behind]))


def symbols_to_come(plan: Plan, table: Table, number: int) -> int:
    """The greatest number of symbols of a header still to come."""
    found = most(plan, table, number)
    return found if found >= least(plan) else 0


def keep(plan: Plan, table: Table, number: int, count: int) -> Plan:
    """The plan after a link to the symbols, of which there are at least so many."""
    found = reserve(plan, table, number, max(count, least(plan)))
    assert found is not None
    return found


# Strings


@remembered
def string_bound(plan: Plan, table: Table, number: int) -> int:
    """The greatest size that the string table of header ``number`` may be asked for."""
    longest = space.longest(plan, table)

    def size(index: int) -> int:
        if index < len(plan.sections):
            return plan.sections[index].size
        return longest.names if index == plan.shstrndx else longest.plain

    link = foreseen(plan).link
    if link:
        owed = plan.owed_at(link)
        return max(size(link), owed.sure if owed is not None else 0)
    found = [plan.sections[i].size for i in links.read(plan, _STRINGS)]
    for piece in links.later_texts(plan, number):
        low, high = piece.bounds() or (0, -1)
        if not isinstance(piece, Finite):
            found.append(longest.plain)
        else:
            found += [size(i) for i in range(low, high + 1) if piece.contains(i)]
    return max(found, default=0)


def string_links(plan: Plan, table: Table, number: int, need: int) -> list[Piece]:
    """The sections that may be the string table, of at least ``need`` bytes."""
    link = foreseen(plan).link
    if link:
        return [Finite((link,))] if need <= string_bound(plan, table, number) else []
    read = [i for i in links.read(plan, _STRINGS) if plan.sections[i].size >= need]
    pieces: list[Piece] = [Finite(read)] if read else []
    longest = space.longest(plan, table)
    for piece in links.later_texts(plan, number):
        if longest.plain >= need and (longest.names >= need or not piece.contains(plan.shstrndx)):
            pieces.append(piece)
        elif isinstance(piece, Finite):
            low, high = piece.bounds() or (0, -1)
            sizes = {i: longest.names if i == plan.shstrndx else longest.plain for i in range(low, high + 1)}
            rest = [i for i, size in sizes.items() if piece.contains(i) and size >= need]
            pieces += [Finite(rest)] if rest else []
    return pieces
