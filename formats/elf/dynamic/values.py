"""The values that each tag may have: exact sets, whose members are listed only when a mask is asked for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bytegen.formats.core.intset import IntSet
from bytegen.formats.core.pieces import Bits, Finite, Piece, Span
from bytegen.formats.elf.dynamic import accept, tags, version_places
from bytegen.formats.elf.dynamic.names import SHORTEST_NAME
from bytegen.formats.elf.dynamic.state import (
    RELOCATIONS,
    STRINGS,
    State,
    settle,
)
from bytegen.formats.elf.dynamic.table_values import least_size, longest_gap, most_symbols
from bytegen.formats.elf.dynamic.version_state import version_table
from bytegen.formats.elf.written import Lazily, Provided

_NONE = np.zeros(0, np.uint64)
_UNBOUNDED = 1 << 31
PF_X = 1


# Sizes


def string_sizes(state: State) -> list[Piece]:
    """DT_STRSZ."""
    place, view = state.places[tags.STRTAB], state.view
    if state.text is not None:
        size = state.text
        return [Provided(size, lambda: accept.string_size(state, size) is not None)]
    if not place.behind:
        region = state.region_of(STRINGS)
        stop = state.stop_of(region, place.address)
        sizes = Span(region.end - region.start, stop - region.start)
        return [sizes] if accept.string_size(state, region.end - region.start) is not None else []
    least = least_size(state.with_tag(tags.STRSZ, 0))

    def build() -> np.ndarray:
        if least is None:
            return _NONE
        need = least
        if view.strict:
            ends = [view.raw.find(0, place.offset + x, place.high) - place.offset for x in state.needed]
            need = max([least, *(end + 1 for end in ends)])
        zeros = view.strings.zeros(place.offset, place.high)
        return (zeros[zeros >= place.offset + need - 1] - (place.offset - 1)).astype(np.uint64)

    return [Lazily(lambda v: accept.string_size(state, v) is not None, build)]


def relocation_sizes(state: State, tag: int) -> list[Piece]:
    """DT_RELASZ and DT_RELSZ; DT_PLTRELSZ after DT_JMPREL."""
    relocations = state.view.relocations
    place = state.places.get(tags.JMPREL if tag == tags.PLTRELSZ else tags.SIZED[tag])
    size = relocations.size
    if place is None:
        return [Finite((0,))]
    if not place.behind:
        region = state.plan.ledger.at(place.offset, RELOCATIONS)
        assert region is not None
        return [Span(size, state.stop_of(region, place.address) - region.start, size)]

    def build() -> np.ndarray:
        most = most_symbols(state.with_tag(tag, 0))
        run = relocations.run(place.offset, place.high)
        good = int(np.searchsorted(run.symbols, max(most, 1), side="left")) if most else 0
        return np.arange(1, good + 1, dtype=np.uint64) * np.uint64(size)

    return [Lazily(lambda v: accept.relocation_size(state, tag, v) is not None, build)]


def plt_sizes(state: State) -> list[Piece]:
    """DT_PLTRELSZ before DT_JMPREL: so many relocations are written somewhere, or there is room for them."""

    def build() -> np.ndarray:
        size = state.view.relocations.size
        after = state.with_tag(tags.PLTRELSZ, 0)
        base = settle(after)
        if base is None:
            return _NONE
        longest = state.view.relocations.longest(most_symbols(after))
        most = max(longest, longest_gap(base, state.view.target.word) // size)
        return np.arange(1, most + 1, dtype=np.uint64) * np.uint64(size)

    return [Lazily(lambda v: accept.plt_size(state, v) is not None, build)]


def array_sizes(state: State, tag: int) -> list[Piece]:
    """DT_INIT_ARRAYSZ and the like: whole words inside the segment."""
    address, word = state.seen[tags.SIZED[tag]], state.view.target.word
    load = state.view.map.find(address)
    assert load is not None
    return [Span(0, load.address + load.filesz - address, word)]


# Names


def needed(state: State) -> list[Piece]:
    """DT_NEEDED: where a library's name is, or may be written."""
    place, view = state.places.get(tags.STRTAB), state.view
    if not view.strict:
        return [Span(0, _most_name(state, accept.needed))]
    pieces: list[Piece] = []
    if place is None or place.behind:
        pieces.append(Lazily(lambda v: accept.needed(state, v) is not None, lambda: _names_behind(state)))
    if place is None or not place.behind:
        pieces += _names_ahead(state)
    return pieces


def _names_behind(state: State) -> np.ndarray:
    """Offsets of libraries' names in the string tables that may be meant."""
    place, strings = state.places.get(tags.STRTAB), state.view.strings
    after = state.with_tag(tags.NEEDED, 0)
    found = [_NONE]
    if place is not None:
        if settle(after) is None:
            return _NONE
        end = place.high if state.string_size is None else place.offset + state.string_size
        names = strings.libraries(*state.view.map.range_of(place.address)) - place.offset
        inside = [v for v in names[names > 0].tolist() if strings.holds(place.offset, end, (v,))]
        return np.array(inside, np.uint64)
    least = least_size(after.without(STRINGS))
    if least is None:
        return _NONE
    for low, high, _ in state.view.map.ranges():
        names = strings.libraries(low, high)
        if not len(names):
            continue
        if state.needed:
            tables = strings.tables_with(state.needed, low, high)
        else:
            tables = strings.tables_of_names(low, high)
        last = state.view.raw.rfind(0, low, high)
        places = np.subtract.outer(names, tables[tables <= last + 1 - least])
        found.append(places[places >= 0].astype(np.uint64))
    return np.concatenate(found)


def _names_ahead(state: State) -> list[Piece]:
    """Offsets at which a known library's name may be written in a string table ahead."""
    room = _room_ahead(state)
    if not state.pins_fit() or state.ahead_need() > room:
        return []
    most = room - SHORTEST_NAME
    apart = all(abs(most - used) >= SHORTEST_NAME for used in state.needed)
    if apart and tags.SYMTAB in state.owed and _needed_ahead(state, most) is None:
        return []
    pieces: list[Piece] = []
    low = 1
    for used in sorted(set(state.needed)):
        pieces.append(Span(low, min(most, used - SHORTEST_NAME)))
        pieces.append(Span(used, min(used, most)))
        low = used + SHORTEST_NAME
    pieces.append(Span(low, most))
    after = state.with_tag(tags.NEEDED, 0)
    return pieces if len(after.owed) + 1 <= after.left else []


def _needed_ahead(state: State, value: int) -> State | None:
    after = state.with_tag(tags.NEEDED, value)
    return settle(after._replace(needed=(*state.needed, value), least=value + 1, ahead=True))


def _room_ahead(state: State) -> int:
    """Size that a string table ahead may come to have."""
    size = state.string_size
    if size is not None:
        return size
    place = state.places.get(tags.STRTAB)
    if place is not None:
        return state.stop_of(state.region_of(STRINGS), place.address) - place.offset
    return longest_gap(state.without(STRINGS))


def _most_name(state: State, check: Callable[[State, int], State | None]) -> int:
    """The greatest offset of a string, in the table that is settled or in any that may be; -1 for none."""
    size = state.string_size
    place = state.places.get(tags.STRTAB)
    if size is None and place is not None and place.behind:
        size = state.view.strings.longest_from(place.offset, place.high)
    elif size is None:
        room = _room_ahead(state) if state.pins_fit() else 0
        size = room if place is not None else max(state.longest_behind(), room)
    low, high = -1, size
    if size and check(state, size - 1) is not None:
        return size - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if check(state, middle) is not None else (low, middle)
    return low


def paths(state: State) -> list[Piece]:
    """DT_SONAME, DT_RPATH, DT_RUNPATH: where any string is."""
    return [Span(0, _most_name(state, lambda state, value: accept.path(state, tags.SONAME, value)))]


# Addresses of no table


def code(state: State) -> list[Piece]:
    """DT_INIT, DT_FINI: a place in the file bytes of an executable segment; at level code an instruction, or a place
    ahead where one may start and is owed then."""
    if state.plan.code is not None:
        starts, word = state.view.code_starts(state.plan.code), state.plan.code.machine.word
        pieces: list[Piece] = [Finite(starts)] if len(starts) else []
        for start, stop, shift in state.plan.code.ranges:
            first = max(start, state.region.end)
            if first + word <= stop:
                pieces.append(Span(first + shift, stop - word + shift, word))
        return [piece for piece in pieces if piece.bounds() is not None]
    if not state.view.strict:
        return [Span(0, state.view.target.top)]
    loads = state.view.map.loads
    return [
        Span(load.address, load.address + load.filesz - 1)
        for load in loads
        if load.flags & PF_X and load.filesz
    ]


def pointers(state: State) -> list[Piece]:
    """DT_PLTGOT and the like: a place in the memory of a segment, or its end."""
    if not state.view.strict:
        return [Span(0, state.view.target.top)]
    return [
        Span(load.address, min(load.address + load.memsz, state.view.target.top))
        for load in state.view.map.loads
    ]


def arrays(state: State) -> list[Piece]:
    """DT_INIT_ARRAY and the like: a word-aligned place in the file bytes of a segment."""
    word = state.view.target.word
    loads = state.view.map.loads
    return [
        Span(load.address, load.address + load.filesz - word, word) for load in loads if load.filesz >= word
    ]


def flags(state: State, tag: int) -> list[Piece]:
    """DT_FLAGS, DT_FLAGS_1: bits that have a name. Without the default folders no library would be found."""
    if tag == tags.FLAGS:
        return [Bits(tags.FLAGS_KNOWN)]
    return [Bits(tags.FLAGS_1_KNOWN & ~tags.NODEFLIB if state.view.strict else tags.FLAGS_1_KNOWN)]


def relative_count(state: State) -> list[Piece]:
    """DT_RELACOUNT, DT_RELCOUNT: at most as many as lead the table."""
    vocabulary = tags.vocabulary(state.view.target)
    place = state.places.get(vocabulary.relocations)
    most = 0
    if place is not None and place.behind:
        size = state.seen[tags.SIZES[vocabulary.relocations]]
        relocations = state.view.relocations
        most = min(relocations.run(place.offset, place.high).relative, size // relocations.size)
    return [Span(0, most)]


def union(state: State, pieces: list[Piece]) -> IntSet:
    """The pieces as a set of words."""
    return IntSet(state.view.target.word, *pieces)


def exactly(state: State, value: int) -> IntSet:
    """The set of one word."""
    return IntSet(state.view.target.word, Finite((value,)), only=value)


def packed_sizes(state: State) -> list[Piece]:
    """DT_RELRSZ: whole words of good packed relocations."""
    place, word = state.places[tags.RELR], state.view.target.word
    return [Span(word, word * state.view.packed_run(place.offset, place.high), word)]


def version_counts(state: State, tag: int) -> list[Piece]:
    """DT_VERNEEDNUM, DT_VERDEFNUM: as many as the chain has."""
    table = tags.SIZED[tag]
    if not state.places[table].behind:
        return version_places.counts(state, tag)
    found = dict(state.view.versions(table == tags.VERDEF, version_table(state, 0)))
    return [Finite((found[state.places[table].address].entries,))]
