"""What the dynamic section owes and has settled about symbol versions."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import islice, product
from typing import TYPE_CHECKING

import numpy as np

from bytegen.formats.elf.dynamic import tags, versions

if TYPE_CHECKING:
    from bytegen.formats.elf.dynamic.state import Place, State

_PAIRS = 64  # pairs of tables that are looked at


@lru_cache(maxsize=1024)
def contiguous(defined: frozenset[int]) -> int:
    """The greatest version index up to which each from 2 on is defined; 1, which is any global symbol's, for none."""
    highest = 1
    while highest + 1 in defined:
        highest += 1
    return highest


def _indices(state: State) -> Place | None:
    """Where the version indices are, which section headers may have settled."""
    owed = state.foreseen.get(tags.VERSYM) if tags.VERSYM in state.owed else None
    return state.places.get(tags.VERSYM, owed)


def version_owed(state: State) -> int:
    """The greatest version index that the symbols use; 0 when there is no DT_VERSYM."""
    place = _indices(state)
    if place is None:
        return 0
    return versions.greatest_index(state.view.raw, place.offset, state.symbol_count)


def version_table(state: State, high: int) -> versions.Table:
    """What the names of version tables are read with. The string table and its size are known."""
    place, view = state.places[tags.STRTAB], state.view
    size = state.seen[tags.STRSZ]
    files = frozenset[bytes]()
    if place.behind and view.strict:
        end = place.offset + size
        found = [view.raw[place.offset + x : view.raw.find(0, place.offset + x, end)] for x in state.needed]
        files = frozenset(found)
    strings = (place.offset, place.offset + size) if place.behind else None
    needed = frozenset() if place.behind else frozenset(state.needed)
    return versions.Table(view.raw, high, strings, size, view.strict, files, needed)


def unneeded(state: State, symbols: int) -> np.ndarray:
    """bool for each of the first symbols: it has a version that no table of needs defines, as far as is known."""
    place = state.places[tags.VERSYM]
    indices = np.frombuffer(state.view.raw, "<u2", symbols, place.offset) & 0x7FFF
    return (indices > 1) & ~np.isin(indices, list(state.needs))


def _undefined(state: State) -> frozenset[int]:
    """The indices of symbols that are not defined: tools look for them among the needs only."""
    place, symbols, count = _indices(state), state.places.get(tags.SYMTAB), state.symbol_count
    if place is None or symbols is None or not symbols.behind or place.offset + 2 * count > place.high:
        return frozenset()
    shndx = state.view.symbols.sections(symbols.offset, count)
    indices = np.frombuffer(state.view.raw, "<u2", len(shndx), place.offset) & 0x7FFF
    return frozenset(indices[(shndx == 0) & (indices > 1)].tolist())


def _to_come(state: State, tag: int) -> list[frozenset[int]]:
    """The indices that each table of a tag that may still be named defines."""
    if tag in state.seen:
        return []
    packed = tag == tags.VERNEED and state.view.strict and tags.RELR in state.seen
    found = state.view.versions(tag == tags.VERDEF, version_table(state, 0))
    if tag in state.foreseen:
        only = state.foreseen[tag]
        found = [item for item in found if only is not None and item[0] == only.address]
    return [table.indices for _, table in found if table.packed or not packed]


def raising(state: State, undefined: frozenset[int] = frozenset()) -> Iterator[tuple[int, int]]:
    """(greatest index, how many more tables): what the version tables that may still be named define.

    ``undefined``: indices that those of needs must have.
    """
    if tags.STRSZ not in state.seen:
        return
    needs, definitions = _to_come(state, tags.VERNEED), _to_come(state, tags.VERDEF)
    if not undefined <= state.needs:
        needs, definitions = [table for table in needs if undefined <= table], definitions if needs else []
        singles = needs
    else:
        singles = [*needs, *definitions]
    for indices in singles:
        yield contiguous(state.defined | indices), 1
    for one, other in islice(product(needs, definitions), _PAIRS):
        yield contiguous(state.defined | one | other), 2


def raise_owed(state: State) -> int | None:
    """How many version tables are owed besides, for the indices used or those owed; None where none can serve."""
    place, count = _indices(state), state.symbol_count
    if place is not None and tags.VERSYM in state.places and not place.behind:
        return 0  # the tables ahead see to it themselves
    if place is not None:
        owed = version_owed(state)
        if place.offset + 2 * count > place.high:
            return None
        undefined = _undefined(state)
        if owed <= state.highest and undefined <= state.needs:
            return 0
        return min((number for highest, number in raising(state, undefined) if highest >= owed), default=None)
    if tags.VERSYM in state.owed and tags.VERSYM in state.foreseen:
        return None
    if tags.VERSYM not in state.owed or state.view.indices(state.highest) >= count:
        return 0
    fitting = (number for highest, number in raising(state) if state.view.indices(highest) >= count)
    return min(fitting, default=None)
