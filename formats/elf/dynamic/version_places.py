"""Version tables that the dynamic section names and that lie ahead of it: where they may, and what they then owe.

The indices of symbols, the tables of needs and of definitions come in any order, behind their strings. What they
say to each other is for `version_debts`.
"""

from __future__ import annotations

from bytegen.formats.core.pieces import Piece, Span
from bytegen.formats.elf.dynamic import tags
from bytegen.formats.elf.dynamic.ahead_strings import version_gap
from bytegen.formats.elf.dynamic.names import string_at
from bytegen.formats.elf.dynamic.state import INDICES, State, settle
from bytegen.formats.elf.dynamic.version_debts import (
    LEAST_DEFINITION,
    LEAST_NEED,
    VERDEF,
    VERNEED,
    VERSYM,
    Debts,
    Place,
)
from bytegen.formats.elf.dynamic.version_names import SHARED, may_need
from bytegen.formats.elf.dynamic.versions import MOST_NAMES

KINDS = {tags.VERSYM: VERSYM, tags.VERNEED: VERNEED, tags.VERDEF: VERDEF}
_LEAST = {tags.VERNEED: LEAST_NEED, tags.VERDEF: LEAST_DEFINITION}


def is_ahead(state: State, tag: int) -> bool:
    """Whether the table of a tag is one that lies ahead."""
    place = state.places.get(tag)
    return place is not None and not place.behind


def first(state: State, tag: int) -> int:
    """From which file offset on the table of a tag may lie ahead: those with names come behind the strings."""
    if tag in _LEAST and is_ahead(state, tags.STRTAB):
        return state.places[tags.STRTAB].offset + state.seen[tags.STRSZ]
    return state.region.end


def ahead_base(state: State, tag: int) -> tuple[State, str, int, int] | None:
    """See `accept.ahead_base`."""
    seen, strict = state.seen, state.view.strict
    if state.plan.foreseen is not None or tags.SYMTAB not in state.places or tags.STRSZ not in seen:
        return None
    if tags.STRTAB not in state.places:
        return None
    after = state.with_tag(tag, 0)
    if tag == tags.VERSYM:
        base = settle(after.without(INDICES))
        return None if base is None else (base, VERSYM, 2 * state.symbol_count, 2)
    if tag == tags.VERNEED and strict:
        if tags.RELR in seen or not _can_need(state):
            return None
        after = after._replace(packs=False)
    base = settle(after)
    return None if base is None else (base, KINDS[tag], _LEAST[tag], 4)


def _can_need(state: State) -> bool:
    """Whether a table of needs has something to say: a library that is needed, and the name of one of its versions.

    In strings ahead there is room for one.
    """
    place, size = state.places[tags.STRTAB], state.seen[tags.STRSZ]
    if not state.needed:
        return False
    name = state.view.target.name
    if not place.behind:
        needed = tuple(sorted(set(state.needed)))
        return version_gap(needed, size, len(SHARED[name]) + 1) is not None
    key = ("needs", place.offset, size, state.needed)
    known = state.view.answers
    if key not in known:
        text = state.view.raw[place.offset : place.offset + size]
        files = [string_at(text, x, size) for x in state.needed]
        known[key] = may_need(name, text, [file for file in files if file is not None])
    return known[key]


def counts(state: State, tag: int) -> list[Piece]:
    """DT_VERNEEDNUM, DT_VERDEFNUM of a table ahead: as many entries as have room."""
    table = tags.SIZED[tag]
    place = state.places[table]
    region = state.plan.ledger.at(place.offset, KINDS[table])
    assert region is not None
    room = state.stop_of(region, place.address) - region.start
    return [Span(1, min(MOST_NAMES, room // _LEAST[table]))]


def counted(state: State, tag: int, value: int) -> State | None:
    """The state after DT_VERNEEDNUM or DT_VERDEFNUM."""
    table, after = tags.SIZED[tag], state.with_tag(tag, value)
    place = state.places[table]
    if place.behind:
        return after
    region = state.plan.ledger.at(place.offset, KINDS[table])
    assert region is not None
    return after.grow_region(region, place.address, value * _LEAST[table])


def debts(state: State) -> Debts | None:
    """What the version tables ahead owe at the end of the dynamic section; None where there are none."""
    unread = {}
    for tag, name in KINDS.items():
        if is_ahead(state, tag):
            place = state.places[tag]
            unread[name] = Place(place.offset, place.address, state.seen.get(tags.SIZES.get(tag, -1), 0))
    if not unread:
        return None
    strings, symbols = state.places[tags.STRTAB], state.places[tags.SYMTAB]
    return Debts(
        state.view.map,
        (strings.offset, state.seen[tags.STRSZ]),
        tuple(sorted(set(state.needed))),
        (symbols.offset, symbols.address),
        unread.get(VERSYM),
        unread,
        state.symbol_count,
        state.symbols is not None,
        state.defined,
        state.needs,
    )
