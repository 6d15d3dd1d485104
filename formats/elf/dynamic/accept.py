"""What a value of a tag makes of the state: the state after it, or None where the value cannot stand.

This is the whole rule of an entry; `values` lists the values that it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bytegen.formats.core.ledger import Region
from bytegen.formats.elf.dynamic import gnu_hash, tags, version_places, versions
from bytegen.formats.elf.dynamic.names import string_at
from bytegen.formats.elf.dynamic.state import (
    INDICES,
    RELOCATIONS,
    STRINGS,
    SYMBOLS,
    Place,
    State,
    settle,
    settle_strings,
)
from bytegen.formats.elf.dynamic.version_state import version_table

GNU_HASH_LEAST = 20  # and a word: head, one bucket
HASH_LEAST = 16


def place_of(state: State, address: int) -> Place | None:
    """Where an address is in the file: behind, or ahead of the dynamic section; None for neither."""
    found = state.view.map.behind(address)
    if found is not None:
        return Place(address, *found)
    offset = state.view.map.offset(address)
    return Place(address, offset, 0) if offset is not None and offset >= state.region.end else None


def put(state: State, tag: int, place: Place) -> State:
    """The state that knows where the table of a tag is."""
    return state._replace(places={**state.places, tag: place})


def ahead_base(state: State, tag: int) -> tuple[State, str, int, int] | None:
    """(state settled but for the place of the tag's table ahead, kind, least size, alignment); None where no
    table of that tag may lie ahead."""
    if tag in version_places.KINDS:
        return version_places.ahead_base(state, tag)
    view, word = state.view, state.view.target.word
    after = state.with_tag(tag, 0)
    base: State | None
    if tag == tags.STRTAB:
        if not state.pins_fit():
            return None
        base = after._replace(ahead=True)
        # What is reserved for others may lie where the strings have room, and do elsewhere.
        found = next((found for found in map(settle, layouts(base)) if found is not None), None)
        if found is None:
            return None
        region = found.reservation(STRINGS)
        assert region is not None
        return found.without(STRINGS), STRINGS, region.end - region.start, 1
    if tag == tags.SYMTAB:
        base = _base(after.without(SYMBOLS))
        size = state.symbol_count * view.target.sym_size
        return None if base is None else (base, SYMBOLS, size, word)
    if tag in (tags.HASH, tags.GNU_HASH):
        if any(other in state.foreseen for other in (tags.HASH, tags.GNU_HASH)):
            return None
        base = settle(after)
        least, kind = (HASH_LEAST, "hash") if tag == tags.HASH else (GNU_HASH_LEAST + word, "gnu_hash")
        if tag == tags.HASH:
            least += 4 * (state.symbol_count - 1)
        return None if base is None else (base, kind, least, word)
    if tag in (tags.RELA, tags.REL, tags.JMPREL):
        name = "jmprel"
        base = settle(after.without(name) if tag == tags.JMPREL else after)
        size = state.seen.get(tags.PLTRELSZ, 0) if tag == tags.JMPREL else 0
        return None if base is None else (base, RELOCATIONS, size or view.relocations.size, word)
    return None


def _base(state: State) -> State | None:
    """The state settled but for its symbol table, whose place is about to be chosen."""
    found = settle_strings(state)
    return found if found is not None and len(found.owed) + 1 <= found.left else None


def layouts(state: State) -> Iterator[State]:
    """The state, and those with what is reserved at other places."""
    word = state.view.target.word
    return state.layouts({SYMBOLS: word, "jmprel": word, INDICES: 2})


def _room(state: State, place: Place) -> int:
    return state.view.map.room(state.plan, place.offset, place.address)


def _ahead(state: State, tag: int, place: Place) -> State | None:
    """The state with the table of a tag promised ahead."""
    found = ahead_base(state, tag)
    if found is None:
        return None
    settled, kind, size, align = found
    bases = (base for base in layouts(settled) if _room(base, place) >= size)
    wrong = place.offset % align or place.offset < version_places.first(state, tag)
    base = None if wrong else next(bases, None)
    if base is None:
        return None
    map = state.view.map
    if tag == tags.GNU_HASH and not (map.ends_inside(place.address, size) and map.alone(place.address)):
        return None
    region = Region(place.offset, place.offset + size, kind, tags.LABELS[tag])
    plan = base.plan._replace(ledger=base.plan.ledger.add(region)).reach(region.end)
    base = base._replace(plan=plan, ahead=False if tag == tags.STRTAB else base.ahead)
    return settle(put(base, tag, place))


def table(state: State, tag: int, address: int) -> State | None:
    """An entry that names a table by its address.

    Relocations at address 0 are none: so GNU ld writes it in static programs that move (RELASZ is 0 then). Nor are
    strings, which at level parse may be missing where nothing has a name.
    """
    if tag in state.foreseen:
        return _foreseen(state, tag, address)
    if tag in (tags.RELA, tags.REL) and not address:
        return settle(state.with_tag(tag, 0)) if state.view.map.find(0) is not None else None
    if tag == tags.STRTAB and not address and not state.view.strict and tags.STRSZ not in state.owed:
        after = state.with_tag(tag, 0)
        return settle(after._replace(owed=after.owed - {tags.STRSZ}, nameless=True))
    place = place_of(state, address)
    if place is None:
        return None
    if not place.behind:
        return _ahead(state, tag, place)
    return _BEHIND[tag](put(state.with_tag(tag, address), tag, place), tag, place)


def _foreseen(state: State, tag: int, address: int) -> State | None:
    """A table whose place section headers have settled: it is written, or promised ahead."""
    place = state.foreseen[tag]
    if place is None or place.address != address:
        return None
    after = put(state.with_tag(tag, address), tag, place)
    if place.behind:
        return _BEHIND[tag](after, tag, place)
    region = state.plan.ledger.after(place.offset)
    if region is None or region.start != place.offset:
        return None
    if tag == tags.GNU_HASH and not state.view.map.plain(address, region.end - region.start):
        return None
    return settle(after)


def _strings(state: State, tag: int, place: Place) -> State | None:
    strings = state.view.strings
    if strings.longest_from(place.offset, place.high) < state.string_need():
        return None
    if state.view.strict and state.needed and not strings.holds(place.offset, place.high, state.needed):
        return None
    return settle(state.without(STRINGS))


def _symbols(state: State, tag: int, place: Place) -> State | None:
    if state.view.symbols.run(place.offset, place.high, 1, 1) != 1:
        return None
    return settle(state.without(SYMBOLS))


def _hash(state: State, tag: int, place: Place) -> State | None:
    count = state.view.hash_symbols(tag == tags.GNU_HASH, place.offset, place.high)
    if count is None:
        return None
    if count and state.symbols not in (None, count):
        return None
    if tag == tags.GNU_HASH and not _plain(state, place):
        return None
    return settle(state._replace(symbols=count or state.symbols))


def _plain(state: State, place: Place) -> bool:
    """Whether LIEF finds a GNU hash table: it reads the first segment that speaks of the address."""
    found = gnu_hash.read(state.view.raw, place.offset, place.high, state.view.target.word)
    return found is not None and state.view.map.plain(place.address, found.size)


def _relocations(state: State, tag: int, place: Place) -> State | None:
    relocations = state.view.relocations
    count = state.seen.get(tags.PLTRELSZ, 0) // relocations.size if tag == tags.JMPREL else 1
    count = max(count, 1)
    if place.offset % state.view.target.word:
        return None
    run = relocations.run(place.offset, place.high)
    if len(run.symbols) < count:
        return None
    used = int(run.symbols[count - 1])
    if tag == tags.JMPREL:
        state = state.without("jmprel")
    return settle(state.use(used + 1 if used else 0))


def _packed(state: State, tag: int, place: Place) -> State | None:
    whole = state.view.packed_run(place.offset, place.high) > 0
    return settle(state) if whole and (state.packs or not state.view.strict) else None


def _versions(state: State, tag: int, place: Place) -> State | None:
    found = dict(_version_tables(state, tag)).get(place.address)
    if found is None:
        return None
    state = state._replace(defined=state.defined | found.indices)
    if tag == tags.VERNEED:
        if state.view.strict and tags.RELR in state.seen and not found.packed:
            return None
        state = state._replace(packs=found.packed, needs=found.indices)
    return settle(state)


def _version_tables(state: State, tag: int) -> list[tuple[int, versions.Versions]]:
    return state.view.versions(tag == tags.VERDEF, version_table(state, 0))


def _indices(state: State, tag: int, place: Place) -> State | None:
    return None if place.offset % 2 else settle(state)


_BEHIND: dict[int, Callable[[State, int, Place], State | None]] = {
    tags.STRTAB: _strings,
    tags.SYMTAB: _symbols,
    tags.HASH: _hash,
    tags.GNU_HASH: _hash,
    tags.RELA: _relocations,
    tags.REL: _relocations,
    tags.JMPREL: _relocations,
    tags.RELR: _packed,
    tags.VERDEF: _versions,
    tags.VERNEED: _versions,
    tags.VERSYM: _indices,
}
TABLES = frozenset(_BEHIND)


def needed(state: State, value: int) -> State | None:
    """DT_NEEDED: the offset of a library's name."""
    after = state.with_tag(tags.NEEDED, value)
    after = after._replace(needed=(*state.needed, value), least=max(state.least, value + 1))
    place, view = state.places.get(tags.STRTAB), state.view
    if view.strict and place is not None and place.behind:
        end = place.high if state.string_size is None else place.offset + state.string_size
        if not view.strings.holds(place.offset, end, (value,)):
            return None
    if place is not None and not place.behind and not (after.pins_fit() and _inside(after)):
        return None
    return settle(after)


def _inside(state: State) -> bool:
    """Whether the names have room in a string table ahead whose size is settled."""
    size = state.string_size
    return size is None or state.ahead_need() <= size


def path(state: State, tag: int, value: int) -> State | None:
    """DT_SONAME and the like: the offset of any string."""
    return settle(state.with_tag(tag, value)._replace(least=max(state.least, value + 1)))


def string_size(state: State, value: int) -> State | None:
    """DT_STRSZ."""
    place, after = state.places[tags.STRTAB], state.with_tag(tags.STRSZ, value)
    if state.text not in (None, value):
        return None
    if place.behind:
        end = place.offset + value
        if not value or end > place.high or state.view.raw[end - 1]:
            return None
        strict = state.view.strict
        if strict and not all(string_at(state.view.raw, place.offset + x, end) for x in state.needed):
            return None
        return settle(after)
    region = state.region_of(STRINGS)
    if value < region.end - region.start:
        return None
    grown = after.grow(STRINGS, value)
    return None if grown is None else settle(grown)


def relocation_size(state: State, tag: int, value: int) -> State | None:
    """DT_RELASZ, DT_RELSZ, DT_PLTRELSZ: the size of relocations whose place is known."""
    relocations = state.view.relocations
    count, rest = divmod(value, relocations.size)
    place = state.places.get(tags.JMPREL if tag == tags.PLTRELSZ else tags.SIZED[tag])
    after = state.with_tag(tag, value)
    if place is None:
        return settle(after) if not value else None
    if rest or not count:
        return None
    if not place.behind:
        region = state.plan.ledger.at(place.offset, RELOCATIONS)
        assert region is not None
        grown = after.grow_region(region, place.address, value)
        return None if grown is None else settle(grown)
    run = relocations.run(place.offset, place.high)
    if count > len(run.symbols):
        return None
    used = int(run.symbols[count - 1])
    return settle(after.use(used + 1 if used else 0))


def symbols_base(state: State) -> State | None:
    """The state in which a written symbol table is about to be chosen; None when there can be none."""
    return _base(state.with_tag(tags.SYMTAB, 0).without(SYMBOLS))


def plt_size(state: State, value: int) -> State | None:
    """DT_PLTRELSZ before DT_JMPREL: so many relocations are written somewhere, or a place is kept for them."""
    relocations = state.view.relocations
    count, rest = divmod(value, relocations.size)
    after = state.with_tag(tags.PLTRELSZ, value)
    if rest or not count:
        return None
    used = relocations.least_symbols(count)
    if used is not None:
        found = settle(after.use(used))
        if found is not None:
            return found
    found = settle(after)
    return None if found is None else found.reserve("jmprel", value, state.view.target.word)
