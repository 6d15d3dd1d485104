"""How many dynamic symbols there are while their dynamic section, and perhaps their header, is still to come.

Hash tables, version indices and relocations may say it before that header is read. From then on the last place
ahead in which so many fit is reserved: section headers mostly come in the order of their content, so that what
else lies ahead finds its place before it.
"""

from __future__ import annotations

from collections.abc import Iterator

from bytegen.formats.core.intset import Finite, Piece, Span
from bytegen.formats.core.ledger import Region
from bytegen.formats.elf import space
from bytegen.formats.elf.dynamic.addresses import AddressMap, map_of
from bytegen.formats.elf.dynamic.view import View
from bytegen.formats.elf.foreseen import foreseen
from bytegen.formats.elf.plan import Plan
from bytegen.formats.elf.sections import links
from bytegen.formats.elf.sections.types import DYNSYM, STRTAB
from bytegen.formats.elf.written import Table

_STRINGS = frozenset({STRTAB})
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
    return next((section.entries for section in plan.sections if section.kind == DYNSYM), None)


def least(plan: Plan) -> int:
    """The number of dynamic symbols, or the least of those that may be."""
    exact = foreseen(plan).symbols
    if exact is not None:
        return exact
    return max([1, *(owed.need for _, owed in plan.owed if owed.types == ONLY_DYNSYM)])


def released(plan: Plan) -> Plan:
    """The plan with nothing reserved for the symbols."""
    seen = foreseen(plan)
    if seen.reserved is None:
        return plan
    regions = tuple(region for region in plan.ledger.regions if region is not seen.reserved)
    ledger = type(plan.ledger)(plan.ledger.limit, regions)
    return plan._replace(ledger=ledger, foreseen=seen._replace(reserved=None))


def gaps(plan: Plan, table: Table) -> Iterator[tuple[int, int, int]]:
    """(low, high, shift): mapped room ahead, the last first, that string tables still owed can do without."""
    free = space.free(plan, table)
    for low, high, shift in sorted(map_to(plan, table).gaps(plan, table.end), reverse=True):
        if any(start <= low < end for start, end in free):
            yield low, high, shift


def reserve(plan: Plan, table: Table, count: int) -> Plan | None:
    """The plan that keeps room for so many symbols, if their header is still to come; None without room."""
    seen, size, word = foreseen(plan), count * plan.target.sym_size, plan.target.word
    if symbols_read(plan) is not None:
        return plan
    if seen.reserved is not None and seen.reserved.end - seen.reserved.start >= size:
        return plan
    plan = released(plan)
    for low, high, _ in gaps(plan, table):
        start = (high - size) // word * word
        if start >= low:
            region = Region(start, start + size, "reserved", "the dynamic symbols")
            return plan._replace(
                ledger=plan.ledger.add(region), foreseen=foreseen(plan)._replace(reserved=region)
            )
    return None


def most(plan: Plan, table: Table) -> int:
    """The greatest number of dynamic symbols that may be; less than the least where none may."""
    seen, known = foreseen(plan), symbols_read(plan)
    if known is not None:
        return known
    if seen.symbols is not None:
        return seen.symbols if reserve(plan, table, seen.symbols) is not None else 0
    word, size = plan.target.word, plan.target.sym_size
    kept = 0 if seen.reserved is None else (seen.reserved.end - seen.reserved.start) // size
    rooms = [(high - (low + -low % word)) // size for low, high, _ in gaps(released(plan), table)]
    return min(seen.most, max([kept, *rooms]))


def symbols_to_come(plan: Plan, table: Table) -> int:
    """The greatest number of symbols of a header still to come."""
    found = most(plan, table)
    return found if found >= least(plan) else 0


def keep(plan: Plan, table: Table, count: int) -> Plan:
    """The plan after a link to the symbols, of which there are at least so many."""
    found = reserve(plan, table, max(count, least(plan)))
    assert found is not None
    return found


# Strings


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
    for piece in links.later(plan, number, _STRINGS):
        low, high = piece.bounds() or (0, -1)
        if isinstance(piece, Span):
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
    for piece in links.later(plan, number, _STRINGS):
        if longest.plain >= need and (longest.names >= need or not piece.contains(plan.shstrndx)):
            pieces.append(piece)
        elif isinstance(piece, Finite):
            low, high = piece.bounds() or (0, -1)
            sizes = {i: longest.names if i == plan.shstrndx else longest.plain for i in range(low, high + 1)}
            rest = [i for i, size in sizes.items() if piece.contains(i) and size >= need]
            pieces += [Finite(rest)] if rest else []
    return pieces
