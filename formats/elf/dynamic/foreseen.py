"""Tables that section headers have settled before the dynamic section that may name them (see `elf.foreseen`)."""

from __future__ import annotations

from bytegen.formats.core.ledger import Region
from bytegen.formats.elf import tables
from bytegen.formats.elf.dynamic import tags
from bytegen.formats.elf.dynamic.addresses import AddressMap
from bytegen.formats.elf.dynamic.ahead import Facts
from bytegen.formats.elf.dynamic.state import STRINGS, SYMBOLS, Place, State
from bytegen.formats.elf.foreseen import UNBOUNDED, foreseen
from bytegen.formats.elf.plan import Plan, Section

_DYNSYM, _HASH, _GNU_HASH = 11, 5, 0x6FFFFFF6
_TAGS = {
    _DYNSYM: tags.SYMTAB,
    _HASH: tags.HASH,
    _GNU_HASH: tags.GNU_HASH,
    0x6FFFFFFD: tags.VERDEF,
    0x6FFFFFFE: tags.VERNEED,
    0x6FFFFFFF: tags.VERSYM,
}


# At the end of the section headers


def settle_headers(plan: Plan, map: AddressMap) -> Plan:
    """The plan after the section headers: the tables ahead know what they have to agree with."""
    found = {section.kind: section for section in plan.sections if section.kind in _TAGS}
    seen = foreseen(plan)
    if not found and not seen.link:
        return plan
    places = {kind: _place(section) for kind, section in found.items()}
    plan = plan._replace(foreseen=seen._replace(tables=places))
    for kind, section in found.items():
        name = {_DYNSYM: SYMBOLS, _HASH: "hash", _GNU_HASH: "gnu_hash"}.get(kind)
        region = plan.ledger.at(section.offset, name) if name is not None else None
        if region is not None and region.detail is None:
            facts = _facts(plan, map, section)._replace(stop=region.end)
            plan = plan._replace(ledger=plan.ledger.replace(region, region._replace(detail=facts)))
    return _settle_strings(plan, map) if seen.link else plan


def _place(section: Section) -> tables.Place:
    return tables.Place(section.offset, section.address, section.size, section.entries)


def _facts(plan: Plan, map: AddressMap, table: Section) -> Facts:
    """What a table ahead needs to know."""
    seen = foreseen(plan)
    symbols = seen.tables[_DYNSYM]
    names, count = plan.sections[seen.link].size, symbols.count
    assert count is not None
    return Facts(
        map, plan.strict, names, symbols.offset, symbols.address, count, count, UNBOUNDED, table.address, ()
    )


def _settle_strings(plan: Plan, map: AddressMap) -> Plan:
    """The plan that knows where the strings are mapped; ahead of the dynamic section, it names them itself."""
    section, dynamic = plan.sections[foreseen(plan).link], plan.dynamic
    assert dynamic is not None
    place = _mapped(map, section)
    region = plan.ledger.at(section.offset, "strings")
    names = plan.sections[plan.shstrndx]
    if place is None or (region is not None and names.offset == section.offset):
        return plan
    plan = plan._replace(foreseen=foreseen(plan)._replace(strings=place))
    if region is not None and region.start > dynamic[0]:
        pinned = Region(region.start, region.end, STRINGS, "STRTAB")
        plan = plan._replace(ledger=plan.ledger.replace(region, pinned))
    return plan


def _mapped(map: AddressMap, section: Section) -> tables.Place | None:
    """Where the strings are in memory."""
    end = section.offset + section.size
    for load in map.loads:
        if load.offset <= section.offset < end <= load.offset + load.filesz:
            return tables.Place(section.offset, section.offset + load.shift, section.size)
    return None


# In the dynamic section


def begin(state: State) -> State:
    """The state at the first entry: the places of the strings and of the symbols are known."""
    seen = foreseen(state.plan)
    found: dict[int, Place | None] = {}
    for kind, table in seen.tables.items():
        found[_TAGS[kind]] = _at(state, table)
    places: dict[int, Place] = {}
    strings = None if seen.strings is None else _at(state, seen.strings)
    if strings is not None and seen.strings is not None and strings.offset != seen.strings.offset:
        strings = None  # another PT_LOAD is at the address too, as level "parse" lets it be
    count: int | None = None
    if strings is not None:
        assert seen.strings is not None
        found[tags.STRTAB] = places[tags.STRTAB] = strings
        state = state._replace(text=seen.strings.size)
    if _DYNSYM in seen.tables:
        symbols, count = found[tags.SYMTAB], seen.tables[_DYNSYM].count
        assert count is not None
        if strings is None or symbols is None or not _whole(state, symbols, count):
            found[tags.SYMTAB] = count = None
        else:
            places[tags.SYMTAB] = symbols
    return state._replace(foreseen=found, places=places, symbols=count)


def _whole(state: State, place: Place, count: int) -> bool:
    """Whether so many symbols are there, or promised."""
    if not place.behind:
        return state.plan.ledger.at(place.offset, SYMBOLS) is not None
    assert state.text is not None
    return state.view.symbols.run(place.offset, place.high, count, state.text) >= count


def _at(state: State, table: tables.Place) -> Place | None:
    """Where a table is: behind, or ahead of the dynamic section."""
    found = state.view.map.behind(table.address)
    if found is not None:
        return Place(table.address, *found)
    return Place(table.address, table.offset, 0) if table.offset >= state.region.end else None
