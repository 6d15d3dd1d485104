"""The dynamic section as far as it is read: what its entries have settled, and what they still owe.

Each thing owed has a witness, so that no choice leads to a dead end: a table already written that would do, or a
place ahead that is reserved in the ledger until the entry that names it is read. `settle` finds the witnesses; a
value may be chosen when it gives a state that settles.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

from bytegen.formats.core.ledger import Region
from bytegen.formats.core.quick import replacing
from bytegen.formats.elf.dynamic import tags
from bytegen.formats.elf.dynamic.addresses import outside_code
from bytegen.formats.elf.dynamic.names import SHORTEST_NAME
from bytegen.formats.elf.dynamic.version_state import contiguous, raise_owed
from bytegen.formats.elf.dynamic.view import View
from bytegen.formats.elf.plan import Plan

STRINGS, SYMBOLS, RELOCATIONS, INDICES = "dynstr", "dynsym", "dynrel", "versym"
_UNBOUNDED = 1 << 31


class Place(NamedTuple):
    """Where a table is: its address and file offset, and where its segment's written bytes end (0: ahead)."""

    address: int
    offset: int
    high: int

    @property
    def behind(self) -> bool:
        """Whether it is written already."""
        return self.high > 0


@replacing
class State(NamedTuple):
    """Immutable; ``seen`` is never changed in place."""

    plan: Plan
    region: Region
    view: View
    number: int = 0  # of the entry
    seen: dict[int, int] = {}  # noqa: RUF012  # tag -> value, NEEDED left out
    owed: frozenset[int] = frozenset()
    needed: tuple[int, ...] = ()  # offsets of the names of libraries
    least: int = 1  # the string table has at least so many bytes
    places: dict[int, Place] = {}  # noqa: RUF012  # tag -> place
    symbols: int | None = None  # how many there are, where a hash table says it
    used: int = 1  # how many there are at least
    defined: frozenset[int] = frozenset()  # indices that the version tables define
    needs: frozenset[int] = frozenset()  # those that the table of needs does
    packs: bool = True  # whether DT_VERNEED lets packed relocations stand
    ahead: bool = False  # the string table is to lie ahead
    nameless: bool = False  # DT_STRTAB is 0: there is no string table, and nothing has a name
    reserved: tuple[tuple[str, Region], ...] = ()
    foreseen: dict[int, Place | None] = {}  # noqa: RUF012  # tag -> the one place it may name, None for none
    text: int | None = None  # size of the string table, where section headers said it
    # (tag, entries to spare) -> whether a value of it can stand; states that differ in nothing else share it
    known: dict[tuple[int, int], bool] = {}  # noqa: RUF012

    @property
    def start(self) -> int:
        """Offset of the entry."""
        return self.region.start + self.number * self.view.target.dyn_size

    @property
    def left(self) -> int:
        """Entries from this one on."""
        return (self.region.end - self.start) // self.view.target.dyn_size

    @property
    def symbol_count(self) -> int:
        """Symbols that the table must have."""
        return self.used if self.symbols is None else max(self.symbols, self.used)

    @property
    def highest(self) -> int:
        """The greatest version index up to which each is defined."""
        return contiguous(self.defined)

    @property
    def string_size(self) -> int | None:
        """Size of the string table, once it is settled."""
        return self.seen.get(tags.STRSZ, self.text)

    def with_tag(self, tag: int, value: int) -> State:
        """The state after an entry."""
        owed = self.owed - {tag}
        seen = self.seen
        if tag != tags.NEEDED:
            seen = {**seen, tag: value}
        owed |= {other for other in tags.partners(tag, self.view.strict) if other not in seen}
        return self._replace(number=self.number + 1, owed=owed, seen=seen)

    # The string table.

    def string_need(self) -> int:
        """Bytes that the string table has at least, by the names that refer to it."""
        place = self.places.get(tags.SYMTAB)
        if place is not None and place.behind:
            return max(self.least, self.view.symbols.longest_name(place.offset, self.symbol_count) + 1)
        return self.least

    def ahead_need(self) -> int:
        """Bytes that a string table ahead has at least: the names it has to hold fit in it."""
        last = max(self.needed, default=-1)
        room = SHORTEST_NAME if self.view.strict else 1
        return max(self.string_need(), last + room if last >= 0 else 1, 1)

    def pins_fit(self) -> bool:
        """Whether names of libraries can stand at all their places in a table that is yet to be written."""
        if not self.view.strict:
            return True
        places = sorted(set(self.needed))
        gaps = pairwise(places)
        return (not places or places[0] > 0) and all(b - a >= SHORTEST_NAME for a, b in gaps)

    def longest_behind(self) -> int:
        """Size of the longest written string table that has the names; 0 when there is none."""
        view, strings = self.view, self.view.strings
        if not view.strict or not self.needed:
            return strings.longest()
        best = 0
        for low, high, _ in view.map.ranges():
            for x in strings.tables_with(self.needed, low, high).tolist():
                best = max(best, strings.longest_from(x, high))
        return best

    def names_below(self) -> int:
        """A bound on symbols' names that the string table, settled or owed, is sure to reach."""
        size = self.string_size
        if size is not None:
            return size
        place = self.places.get(tags.STRTAB)
        if place is not None and place.behind:
            return self.view.strings.longest_from(place.offset, place.high)
        if place is not None:
            return self.region_of(STRINGS).end - place.offset
        longest = 0 if self.ahead else self.longest_behind()
        if longest >= self.least:
            return longest
        region = self.reservation(STRINGS)
        return region.end - region.start if region is not None else 0

    def use(self, count: int) -> State:
        """The state in which there are at least ``count`` symbols."""
        if count <= self.used:
            return self
        owed = self.owed
        if tags.SYMTAB not in self.seen:
            wanted = (tags.SYMTAB, *tags.PARTNERS[tags.SYMTAB])
            owed |= {tag for tag in wanted if tag not in self.seen}
        return self._replace(used=count, owed=owed)

    # The ledger.

    def region_of(self, kind: str) -> Region:
        """The table of that kind that is promised ahead."""
        tag = {STRINGS: tags.STRTAB, SYMBOLS: tags.SYMTAB}[kind]
        region = self.plan.ledger.at(self.places[tag].offset, kind)
        assert region is not None
        return region

    def reservation(self, name: str) -> Region | None:
        """What is reserved under a name."""
        return dict(self.reserved).get(name)

    def without(self, name: str) -> State:
        """The state that has nothing reserved under a name."""
        region = self.reservation(name)
        if region is None:
            return self
        kept = tuple(item for item in self.reserved if item[0] != name)
        plan = self.plan._replace(ledger=self.plan.ledger.dropped(region))
        return self._replace(plan=plan, reserved=kept)

    def reserve(self, name: str, size: int, align: int) -> State | None:
        """The state with a place of that size reserved ahead; None when there is no room."""
        known = self.reservation(name)
        if known is not None and known.end - known.start >= size:
            return self
        state = self.without(name)
        gaps = [(low, high) for low, high, _ in state.view.map.gaps(state.plan, state.region.end)]
        # At level code nothing is kept where code lies: to keep it at the same place below, it is not either.
        start = _in_widest(outside_code(state.plan, gaps), size, align)
        start = _in_widest(gaps, size, align) if start is None else start
        if start is None:
            return None
        region = Region(start, start + size, "reserved", "a table of the dynamic section")
        ledger = state.plan.ledger.add(region)
        plan = state.plan._replace(ledger=ledger)
        return state._replace(plan=plan, reserved=(*state.reserved, (name, region)))

    def layouts(self, align: dict[str, int]) -> Iterator[State]:
        """This state, and those in which one place that is reserved is at an end of another gap.

        ``align``: of what is reserved under a name; 1 where it is not said.
        """
        yield self
        for name, region in self.reserved:
            bare = self.without(name)
            size, step = region.end - region.start, align.get(name, 1)
            for low, high, _ in self.view.map.gaps(bare.plan, self.region.end):
                for start in {low + -low % step, (high - size) // step * step} - {region.start}:
                    if low <= start <= high - size:
                        twin = region._replace(start=start, end=start + size)
                        plan = bare.plan._replace(ledger=bare.plan.ledger.add(twin))
                        yield bare._replace(plan=plan, reserved=(*bare.reserved, (name, twin)))

    def grow(self, kind: str, size: int) -> State | None:
        """The state in which the strings or symbols ahead have ``size`` bytes at least; None without room."""
        tag = tags.STRTAB if kind == STRINGS else tags.SYMTAB
        return self.grow_region(self.region_of(kind), self.places[tag].address, size)

    def grow_region(self, region: Region, address: int, size: int) -> State | None:
        """The state in which a table promised ahead has ``size`` bytes at least; None without room."""
        if region.end - region.start >= size:
            return self
        if region.start + size > self.stop_of(region, address):
            return None
        ledger = self.plan.ledger.replace(region, region._replace(end=region.start + size))
        return self._replace(plan=self.plan._replace(ledger=ledger).reach(region.start + size))

    def stop_of(self, region: Region, address: int) -> int:
        """How far a table promised ahead may grow: to the next promise or the end of its segment."""
        if any(place is not None and place.offset == region.start for place in self.foreseen.values()):
            return region.end
        load = self.view.map.find(address)
        assert load is not None
        following = self.plan.ledger.after(region.end)
        return min(self.plan.limit if following is None else following.start, load.offset + load.filesz)


def _in_widest(gaps: Iterable[tuple[int, int]], size: int, align: int) -> int | None:
    """The last place of that size in the widest gap that has one."""
    ends = [((high - size) // align * align, low, high) for low, high in gaps]
    fitting = [(high - low, -i, start) for i, (start, low, high) in enumerate(ends) if start >= low]
    return max(fitting)[2] if fitting else None


def settle(state: State) -> State | None:
    """The state with a witness for everything owed; None when something has none."""
    # What is promised has its place; what is reserved beside it may go elsewhere.
    found = _settle_ahead(state)
    found = None if found is None else settle_strings(found)
    found = None if found is None else settle_symbols(found)
    if found is None:
        return None
    raised = raise_owed(found)
    if raised is None:
        raised, found = 0, _reserve_indices(found)
    elif found.reserved:
        found = found.without(INDICES)
    if found is None:
        return None
    return found if len(found.owed) + 1 + 2 * raised <= found.left else None


def settle_strings(state: State) -> State | None:
    """The part of `settle` that is about the string table."""
    if state.nameless:
        return None if tags.STRSZ in state.owed else state
    need = state.string_need()
    size = state.string_size
    if size is not None:
        return state if need <= size else None
    place = state.places.get(tags.STRTAB)
    if place is not None:
        if place.behind:
            return state if need <= state.view.strings.longest_from(place.offset, place.high) else None
        return state.grow(STRINGS, state.ahead_need()) if state.pins_fit() else None
    if not state.ahead and not state.owed >= {tags.STRTAB, tags.STRSZ}:
        return state.without(STRINGS)
    if not state.ahead and state.longest_behind() >= need:
        return state.without(STRINGS)
    return state.reserve(STRINGS, state.ahead_need(), 1) if state.pins_fit() else None


def settle_symbols(state: State) -> State | None:
    """The part of `settle` that is about the symbol table."""
    count, size = state.symbol_count, state.view.target.sym_size
    if state.symbols is not None and state.used > state.symbols:
        return None
    place = state.places.get(tags.SYMTAB)
    if place is not None:
        if not place.behind:
            return state.grow(SYMBOLS, count * size)
        # That the names lie in the string table is part of what the string table needs.
        whole = state.view.symbols.run(place.offset, place.high, count, _UNBOUNDED * 2) >= count
        return state if whole else None
    if tags.SYMTAB not in state.owed:
        return state
    if tags.SYMTAB in state.foreseen:
        return None
    if state.view.symbols.exist(count, state.names_below()):
        return state.without(SYMBOLS)
    least = state.view.symbols.least_names(count)
    if least and tags.STRSZ not in state.seen:
        grown = _longer_strings(state, max(least, state.ahead_need()))
        if grown is not None:
            return grown.without(SYMBOLS)
    return state.reserve(SYMBOLS, count * size, state.view.target.word)


def _settle_ahead(state: State) -> State | None:
    """A hash table promised ahead has a chain entry for each symbol, and a table of version indices an index."""
    found: State | None = state
    for tag, kind, head, size in _COUNTED:
        place = state.places.get(tag)
        if found is None or place is None or place.behind:
            continue
        region = found.plan.ledger.at(place.offset, kind)
        assert region is not None
        found = found.grow_region(region, place.address, head + size * state.symbol_count)
    return found


_COUNTED = ((tags.HASH, "hash", 12, 4), (tags.VERSYM, INDICES, 0, 2))


def _reserve_indices(state: State) -> State | None:
    """The state with room for version indices, which are owed and not written anywhere."""
    if tags.VERSYM not in state.owed or state.plan.foreseen is not None or tags.SYMTAB not in state.places:
        return None
    return state.reserve(INDICES, 2 * state.symbol_count, 2)


def _longer_strings(state: State, size: int) -> State | None:
    """The state whose string table, ahead, has room for names below ``size``."""
    place = state.places.get(tags.STRTAB)
    if place is not None:
        return None if place.behind else state.grow(STRINGS, size)
    return state.reserve(STRINGS, size, 1) if state.reservation(STRINGS) is not None else None
