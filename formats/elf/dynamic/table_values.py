"""Where the tables that dynamic entries name may be: addresses of written ones, and of room ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial

import numpy as np

from bytegen.formats.core.pieces import Finite, Piece, Span
from bytegen.formats.elf.dynamic import accept, tags, version_places
from bytegen.formats.elf.dynamic.relocations import run_starts
from bytegen.formats.elf.dynamic.state import STRINGS, State, settle
from bytegen.formats.elf.dynamic.version_state import raising, version_table
from bytegen.formats.elf.written import Lazily, Provided

_NONE = np.zeros(0, np.uint64)
_UNBOUNDED = 1 << 31
_OR_NONE = (tags.RELA, tags.REL, tags.STRTAB)  # address 0 may say that there is none


def most_symbols(state: State) -> int:
    """The greatest number of symbols that may be used with what is settled; 0 when nothing can be."""
    if settle(state) is None:
        return 0
    if state.symbols is not None:
        # The symbols may have no tag yet, and no room for it.
        return state.used if settle(state.use(state.symbols)) is None else state.symbols
    low, high = state.used, state.used * 2
    while high < _UNBOUNDED and settle(state.use(high)) is not None:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if settle(state.use(middle)) is not None else (low, middle)
    return low


def tables(state: State, tag: int) -> list[Piece]:
    """Addresses of the table of a tag."""
    if tag in state.foreseen:
        place = state.foreseen[tag]
        return [] if place is None else [Provided(place.address, _is_foreseen, state, tag)]
    # Layouts differ in little: most of their pieces are the same.
    ahead = {(piece.lo, piece.hi, piece.mod, piece.rem): piece for piece in _ahead(state, tag)}
    pieces: list[Piece] = [_behind(state, tag), *ahead.values()]
    if tag in _OR_NONE and accept.table(state, tag, 0) is not None:
        pieces.append(Finite((0,)))
    return pieces


def exist(state: State, tag: int) -> bool:
    """Whether some address of the table of a tag can stand."""
    if tag in state.foreseen:
        return _is_foreseen(state, tag)
    found = state.view.found.get(tag)
    if found is not None and _is_behind(state, tag, found):
        return True
    if any(True for _ in _ahead(state, tag)) or (tag in _OR_NONE and accept.table(state, tag, 0) is not None):
        return True
    members = _members(state, tag)
    if len(members):
        state.view.found[tag] = int(members[0])
    return len(members) > 0


def _is_foreseen(state: State, tag: int) -> bool:
    place = state.foreseen[tag]
    return place is not None and accept.table(state, tag, place.address) is not None


def _is_behind(state: State, tag: int, address: int) -> bool:
    return state.view.map.behind(address) is not None and accept.table(state, tag, address) is not None


def _behind(state: State, tag: int) -> Lazily:
    return Lazily(partial(_is_behind, state, tag), lambda: _members(state, tag))


def _ahead(state: State, tag: int) -> Iterator[Span]:
    found = accept.ahead_base(state, tag)
    if found is None:
        return
    settled, _, size, align = found
    plain, first = tag == tags.GNU_HASH, version_places.first(state, tag)
    for base in accept.layouts(settled):
        yield from base.view.map.set_ahead(base.plan, first, size, align, plain)


def _members(state: State, tag: int) -> np.ndarray:
    """The addresses behind at which `accept.table` takes the table."""
    view = state.view
    find: Callable[[int, int], np.ndarray]
    if tag == tags.STRTAB:
        find = _string_tables(state)
    elif tag == tags.SYMTAB:
        find = _symbol_tables(state)
    elif tag in (tags.HASH, tags.GNU_HASH):
        find = _hash_tables(state, tag)
    elif tag in (tags.RELA, tags.REL, tags.JMPREL):
        count = max(1, state.seen.get(tags.PLTRELSZ, 0) // view.relocations.size if tag == tags.JMPREL else 1)
        after = state.with_tag(tag, 0)
        below = most_symbols(after.without("jmprel") if tag == tags.JMPREL else after)

        def find(low: int, high: int) -> np.ndarray:
            return view.relocations.tables(low, high, count, below)

    elif tag == tags.RELR:
        if not (state.packs or not view.strict) or settle(state.with_tag(tag, 0)) is None:
            return _NONE
        find = view.packed
    elif tag == tags.VERSYM:
        find = _index_tables(state)
    else:
        found = view.versions(tag == tags.VERDEF, version_table(state, 0))
        return np.array([a for a, _ in found if accept.table(state, tag, a) is not None], np.uint64)
    addresses = view.map.addresses(find)
    if tag == tags.GNU_HASH:
        plain = [accept.table(state, tag, address) is not None for address in addresses.tolist()]
        return addresses[np.array(plain, dtype=bool)]
    return addresses


def _string_tables(state: State) -> Callable[[int, int], np.ndarray]:
    view, strings = state.view, state.view.strings
    least = least_size(state.with_tag(tags.STRTAB, 0).without(STRINGS))

    def find(low: int, high: int) -> np.ndarray:
        if least is None:
            return np.zeros(0, np.int64)
        if view.strict and state.needed:
            starts = strings.tables_with(state.needed, low, high)
            sizes = np.array([strings.longest_from(x, high) for x in starts.tolist()], np.int64)
            return starts[sizes >= least]
        return strings.starts(low, high, least)

    return find


def least_size(state: State) -> int | None:
    """Bytes of the string table, which is behind, at least; None when no size will do."""
    need, view = state.string_need(), state.view
    if len(state.owed) + 1 > state.left:
        return None
    if tags.SYMTAB in state.owed:
        size, word = state.symbol_count * view.target.sym_size, view.target.word
        if state.reserve("dynsym", size, word) is None:
            names = view.symbols.least_names(state.symbol_count)
            return max(need, names) if names else None
    return need


def _symbol_tables(state: State) -> Callable[[int, int], np.ndarray]:
    view = state.view
    after = state.with_tag(tags.SYMTAB, 0).without("dynsym")
    known = after.string_size
    place = after.places.get(tags.STRTAB)
    if known is None and place is not None and place.behind:
        known = view.strings.longest_from(place.offset, place.high)
    elif known is None and place is not None:
        known = after.stop_of(after.region_of(STRINGS), place.address) - place.offset
    elif known is None:
        room = longest_gap(after.without(STRINGS)) if after.pins_fit() else 0
        known = max(after.longest_behind(), room)
    base = accept.symbols_base(state)

    def find(low: int, high: int) -> np.ndarray:
        if base is None:
            return np.zeros(0, np.int64)
        return view.symbols.tables(low, high, after.symbol_count, known)

    return find


def _hash_tables(state: State, tag: int) -> Callable[[int, int], np.ndarray]:
    view, after = state.view, state.with_tag(tag, 0)

    @cache
    def most() -> int:
        return most_symbols(after)

    def find(low: int, high: int) -> np.ndarray:
        found = view.hashed(tag == tags.GNU_HASH, low, high)
        if state.symbols is not None:
            good = (found.symbols == state.symbols) | (found.symbols == 0)
        else:
            good = (found.symbols == 0) | (found.symbols >= state.used)
        if not good.any() or not most():
            return found.starts[:0]
        if state.symbols is None:
            good &= found.symbols <= most()
        return found.starts[good]

    return find


def _index_tables(state: State) -> Callable[[int, int], np.ndarray]:
    view, count = state.view, state.symbol_count
    after = state.with_tag(tags.VERSYM, 0)
    spare = after.left - len(after.owed) - 1
    highest = state.highest if spare >= 0 else -1
    highest = max([highest, *(most for most, number in raising(state) if spare >= 2 * number)])

    def find(low: int, high: int) -> np.ndarray:
        base = low + low % 2
        room = max(0, high - base) // 2
        if room < count or highest < 0:
            return np.zeros(0, np.int64)
        good = np.frombuffer(view.raw, "<u2", room, base) & 0x7FFF <= highest
        bad = np.append(np.flatnonzero(~good), room)
        return run_starts(bad, count) * 2 + base

    return find


def longest_gap(state: State, align: int = 1) -> int:
    """The greatest size of a table that fits ahead."""
    gaps = state.view.map.gaps(state.plan, state.region.end)
    return max((high - (low + -low % align) for low, high, _ in gaps), default=0)
