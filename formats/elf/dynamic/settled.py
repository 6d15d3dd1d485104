"""What the dynamic section has settled for the section headers, which must agree with it."""

from __future__ import annotations

from operator import is_
from typing import Any, NamedTuple

from bytegen.formats.elf import tables
from bytegen.formats.elf.dynamic import gnu_hash, hashes, tags
from bytegen.formats.elf.dynamic.state import Place, State
from bytegen.formats.elf.dynamic.version_state import version_table
from bytegen.formats.elf.dynamic.versions import index_run
from bytegen.formats.elf.plan import Plan

SHT_DYNSYM = 11
MOST = 1 << 31


class Settled(NamedTuple):
    """The tables that the dynamic section names, by kind.

    ``pending``: a hash table that may tell it is still to be read, so that the number of symbols is open.
    ``indices``: how many entries a table of version indices may have.
    """

    places: dict[str, tables.Place]
    pending: bool
    indices: int


def settle_places(state: State) -> Settled:
    """The tables that a whole dynamic section names."""
    places: dict[str, tables.Place] = {}
    found, seen, size = state.places, state.seen, state.view.target.sym_size
    count = state.symbols
    ahead = any(tag in found and not found[tag].behind for tag in (tags.HASH, tags.GNU_HASH))
    if tags.STRTAB in found:
        places["strings"] = _place(found[tags.STRTAB], seen[tags.STRSZ])
    if tags.SYMTAB in found:
        places["symbols"] = _place(found[tags.SYMTAB], None if count is None else count * size, count)
    for tag, name in ((tags.HASH, "hash"), (tags.GNU_HASH, "gnu_hash")):
        place = found.get(tag)
        if place is not None:
            places[name] = _hash(state, tag, place) if place.behind else _place(place)
    if tags.VERSYM in found:
        places["versym"] = _place(found[tags.VERSYM], None if count is None else 2 * count, count)
    for tag, name in ((tags.VERDEF, "verdef"), (tags.VERNEED, "verneed")):
        place = found.get(tag)
        if place is not None:
            places[name] = _versions(state, tag, place)
    return Settled(places, count is None and ahead, version_indices(state))


def version_indices(state: State) -> int:
    """How many symbols can have a version index: as many as are good; without bound where there are none."""
    place = state.places.get(tags.VERSYM)
    if place is None:
        return MOST
    if not place.behind:
        return state.symbol_count
    return index_run(state.view.raw, place.offset, place.high, MOST, max(state.highest, 1))


def _place(place: Place, size: int | None = None, count: int | None = None) -> tables.Place:
    return tables.Place(place.offset, place.address, size, count)


def _hash(state: State, tag: int, place: Place) -> tables.Place:
    view = state.view
    if tag == tags.HASH:
        count = hashes.symbols_of(view.raw, place.offset, place.high)
        return _place(place, hashes.size_of(view.raw, place.offset), count)
    found = gnu_hash.read(view.raw, place.offset, place.high, view.target.word)
    assert found is not None
    return _place(place, found.size, found.symbols or None)


def _versions(state: State, tag: int, place: Place) -> tables.Place:
    if not place.behind:
        return _place(place, None, state.seen[tags.SIZES[tag]])
    known = dict(state.view.versions(tag == tags.VERDEF, version_table(state, 0)))[place.address]
    return _place(place, known.size, known.entries)


def versions_read(plan: Plan, name: str, size: int) -> Plan:
    """The plan after a table of versions that lay ahead: its size is known."""
    settled: Settled | None = plan.named
    if settled is None:
        return plan
    places = {**settled.places, name: settled.places[name]._replace(size=size)}
    return plan._replace(named=settled._replace(places=places))


def hash_read(plan: Plan, name: str, size: int, count: int | None) -> Plan:
    """The plan after a hash table that lay ahead: its size and the number of symbols are known."""
    settled: Settled | None = plan.named
    if settled is None or name not in settled.places:
        return plan  # section headers have foreseen it
    places = dict(settled.places)
    places[name] = places[name]._replace(size=size, count=count)
    # A table of no symbols does not tell their number; another may.
    to_come = any(places[other].size is None for other in ("hash", "gnu_hash") if other in places)
    plan = plan._replace(named=settled._replace(places=places, pending=settled.pending and to_come))
    return plan if count is None else count_settled(plan, count)


def count_settled(plan: Plan, count: int) -> Plan:
    """The plan in which the number of symbols is known."""
    settled: Settled = plan.named
    places = dict(settled.places)
    places["symbols"] = places["symbols"]._replace(size=count * plan.target.sym_size, count=count)
    if "versym" in places:
        places["versym"] = places["versym"]._replace(size=2 * count, count=count)
    return plan._replace(named=settled._replace(places=places, pending=False))


_last: list[tuple[tuple[Any, ...], tables.Dynamic] | None] = [None]  # of what, and what was found


def settled(plan: Plan) -> tables.Dynamic | None:
    """What section headers have to agree with; None where there is no PT_DYNAMIC.

    While the number of symbols is open, the section of the symbols or that of their versions settles it.
    """
    if plan.dynamic is None:
        return None
    offset, size, address = plan.dynamic
    if plan.named is None:
        return tables.Dynamic(offset, size, address)
    # Section headers ask several times for each field, and nothing else changes what is found.
    key = plan.dynamic, plan.named, plan.of_kind.get(SHT_DYNSYM)
    known = _last[0]
    if known is not None and all(map(is_, known[0], key)):
        return known[1]
    places = dict(plan.named.places)
    pending = plan.named.pending
    if not pending and "versym" in places and places["versym"].size is None:
        _count_by_section(plan, places)
    found = tables.Dynamic(offset, size, address, True, places, pending)
    _last[0] = key, found
    return found


def _count_by_section(plan: Plan, places: dict[str, tables.Place]) -> None:
    """Where no hash table tells the number of symbols, the section of the symbols does."""
    for section in (plan.sections[i] for i in plan.of_kind.get(SHT_DYNSYM, ())):
        if section.entries <= plan.named.indices:
            versym = places["versym"]
            places["versym"] = versym._replace(size=2 * section.entries, count=section.entries)


tables.Hooks.dynamic = staticmethod(settled)
