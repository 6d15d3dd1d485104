"""The dynamic section: its entries up to DT_NULL, and the padding after it.

Joint rules, from glibc elf/get-dynamic-info.h, dl-load.c, dl-setup_hash.c and dl-version.c, from LIEF's
check_layout, and from the gABI: one entry of each tag but DT_NEEDED; a table comes with its size and entry size;
addresses are those of tables, written already (and then judged by their bytes) or promised ahead; names lie in
the string table; hash tables, versions and relocations agree on the number of symbols.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import NamedTuple

from bytegen.formats.core.intset import IntSet, anything, exactly
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Finite, Piece, Span
from bytegen.formats.core.records import Record, RecordsStep
from bytegen.formats.core.steps import IntStep, Step
from bytegen.formats.elf.dynamic import accept, table_values, tags, values, version_places
from bytegen.formats.elf.dynamic.addresses import PF_W, map_of
from bytegen.formats.elf.dynamic.ahead import promise_details
from bytegen.formats.elf.dynamic.foreseen import begin
from bytegen.formats.elf.dynamic.state import State, settle
from bytegen.formats.elf.dynamic.version_state import raise_owed
from bytegen.formats.elf.dynamic.view import View
from bytegen.formats.elf.plan import Plan, opener, proceed
from bytegen.formats.elf.written import Provided

# Entries left beside those owed from which on their number does not decide what can stand: the tables that one entry
# may come to owe take fewer.
_MUCH_ROOM = 16
_PADDING = {
    word: Record(
        ("d_tag", word, exactly(word, 0), "0: nothing but padding comes after DT_NULL"),
        ("d_val", word, anything(word), "any"),
    )
    for word in (4, 8)
}


@opener("dynamic")
def _open(plan: Plan, region: Region, data: bytearray) -> Step:
    raw = bytes(data)
    map = map_of(plan, region.start, raw)
    view = View(raw, map, plan.target, plan.strict, plan.tls_size)
    state = State(plan, region, view)
    if plan.foreseen is not None:
        state = begin(state)
    if plan.strict:
        owed = frozenset({tags.STRTAB, tags.STRSZ})
        found = settle(state._replace(owed=owed))
        # A zero byte is mapped, that of the program headers at least, and three entries were asked for.
        state = found if found is not None else state
    else:
        # Where there is none, LIEF looks for it beyond the section, to the end of the file.
        known = (tags.STRSZ,) if tags.STRTAB in state.foreseen else ()
        state = state._replace(owed=frozenset({tags.STRTAB, *known}))
    return _entry(state._replace(known={}))


def _entry(state: State) -> Step:
    word = state.view.target.word
    return IntStep(
        state.start,
        word,
        IntSet(word, *_tags(state)),
        ("dynamic[{}].d_tag", state.number),
        lambda: _tag_rule(state),
        lambda value, data: _value(state, value, data),
    )


def _tag_rule(state: State) -> str:
    owed = ", ".join(f"DT_{tags.LABELS[tag]}" for tag in sorted(state.owed))
    rule = "a tag whose value can stand, each once but DT_NEEDED, DT_NULL at the end"
    return f"{rule}; owed in the {state.left} entries left: {owed}" if owed else rule


class _Room(NamedTuple):
    """How many more tags than those owed now the entries left have place for, the next one among them.

    ``raised``: so many version tables are owed besides, and take two each.
    """

    state: State
    spare: int
    raised: int

    def fits(self, tag: int) -> bool:
        """Whether the entries left suffice for what is owed after a tag."""
        state = self.state
        seen, owed, strict = state.seen, state.owed, state.view.strict
        partners = tags.partners(tag, strict)
        if state.nameless and tags.STRSZ in partners:
            return False
        if tag == tags.STRTAB and not strict and tag not in state.foreseen:
            partners = ()  # DT_STRTAB may be 0
        new = -(tag in owed)
        for other in partners:
            if other not in seen and other not in owed:
                new += 1
        if self.raised:
            new += 2 * (self.raised - (tag in (tags.VERNEED, tags.VERDEF)))
        return new <= self.spare


def _tags(state: State) -> list[Piece]:
    """The tags that may come: plain ones, and others where some value of theirs can stand."""
    left = state.left
    room = _Room(state, left - 2 - len(state.owed), raise_owed(state) or 0)
    simple = [tag for tag in _simple(state) if room.fits(tag)]
    # LIEF reads on beyond the section where DT_NULL is its first entry.
    if not state.owed and not room.raised and (state.number or left == 1):
        simple.append(tags.NULL)
    pieces: list[Piece] = [Finite(simple)]
    names = cache(partial(_possible, state, tags.SONAME))  # the names of paths may be the same
    for tag in _conditional(state):
        if room.fits(tag):
            pieces.append(Provided(tag, names) if tag in tags.PATHS else Provided(tag, _possible, state, tag))
    return pieces


def _simple(state: State) -> Iterator[int]:
    """Tags that have a value whatever came before, and those owed."""
    seen, vocabulary = state.seen, tags.vocabulary(state.view.target)
    # A size is owed along with its table, and comes after it.
    yield from (tag for tag in state.owed if tags.SIZED.get(tag) not in state.owed)
    for tag in (*vocabulary.fixed, *vocabulary.numbers, tags.FLAGS, tags.FLAGS_1):
        if tag in seen or tag in state.owed or tag == tags.PLTREL:
            continue
        if tag != tags.DEBUG or _writable(state):
            yield tag
    if vocabulary.leading not in seen and tags.SIZES[vocabulary.relocations] in seen:
        yield vocabulary.leading
    for group, pieces in (
        (vocabulary.pointers, values.pointers),
        (tags.CODE, values.code),
        (tags.ARRAYS, values.arrays),
    ):
        if pieces(state):
            yield from (tag for tag in group if tag not in seen)


def _writable(state: State) -> bool:
    """Whether a loader may write to the section, as glibc's does to DT_DEBUG's value."""
    plan = state.plan
    if not plan.strict or plan.dynamic is None:
        return True
    load = state.view.map.find(plan.dynamic[2])
    return load is not None and bool(load.flags & PF_W)


def _conditional(state: State) -> Iterator[int]:
    seen, vocabulary = state.seen, tags.vocabulary(state.view.target)
    yield tags.NEEDED
    if not state.view.strict or tags.SONAME not in seen:
        yield from (tag for tag in tags.PATHS if tag not in seen)
    else:
        yield from (tag for tag in (tags.RPATH, tags.RUNPATH) if tag not in seen)
    wanted = [tags.STRTAB, tags.SYMTAB, tags.HASH, tags.GNU_HASH, vocabulary.relocations, tags.RELR]
    wanted += [tags.JMPREL, tags.PLTRELSZ]
    if tags.STRSZ in seen and tags.SYMTAB in seen:
        wanted += [tags.VERNEED, tags.VERDEF, tags.VERSYM]
    elif tags.STRSZ in seen and not state.view.strict:
        wanted += [tags.VERNEED, tags.VERDEF]
    yield from (tag for tag in wanted if tag not in seen and tag not in state.owed)


def _possible(state: State, tag: int) -> bool:
    """Whether some value of the tag can stand, which plain entries change only by the room that they take."""
    key = tag, min(state.left - len(state.owed), _MUCH_ROOM)
    if key not in state.known:
        state.known[key] = _can_stand(state, tag)
    return state.known[key]


def _can_stand(state: State, tag: int) -> bool:
    if tag == tags.PLTRELSZ:  # the smaller, the easier
        return accept.plt_size(state, state.view.relocations.size) is not None
    if tag in accept.TABLES:
        return table_values.exist(state, tag)
    return any(piece.bounds() is not None for piece in _pieces(state, tag)[::-1])


def _pieces(state: State, tag: int) -> list[Piece]:
    """The values of a tag."""
    vocabulary = tags.vocabulary(state.view.target)
    if tag in vocabulary.fixed:
        return [Finite((vocabulary.fixed[tag],))]
    if tag in accept.TABLES:
        return table_values.tables(state, tag)
    if tag in vocabulary.numbers:
        return [Span(0, (1 << 31) - 1)]
    if tag in vocabulary.pointers:
        return values.pointers(state)
    if tag in (tags.RELASZ, tags.RELSZ):
        return values.relocation_sizes(state, tag)
    if tag == tags.PLTRELSZ:
        return values.relocation_sizes(state, tag) if tags.JMPREL in state.seen else values.plt_sizes(state)
    if tag == tags.RELRSZ:
        return values.packed_sizes(state)
    if tag in (tags.VERNEEDNUM, tags.VERDEFNUM):
        return values.version_counts(state, tag)
    if tag in tags.SIZED and tags.SIZED[tag] in tags.ARRAYS:
        return values.array_sizes(state, tag)
    return _OTHERS[tag](state)


_OTHERS: dict[int, Callable[[State], list[Piece]]] = {
    tags.NULL: lambda state: [Finite((0,))],
    tags.NEEDED: values.needed,
    tags.STRSZ: values.string_sizes,
    tags.FLAGS: lambda state: values.flags(state, tags.FLAGS),
    tags.FLAGS_1: lambda state: values.flags(state, tags.FLAGS_1),
    tags.RELACOUNT: values.relative_count,
    tags.RELCOUNT: values.relative_count,
    **dict.fromkeys(tags.PATHS, values.paths),
    **dict.fromkeys(tags.CODE, values.code),
    **dict.fromkeys(tags.ARRAYS, values.arrays),
}


def _value(state: State, tag: int, data: bytearray) -> Step:
    word = state.view.target.word
    label = tags.label(state.view.target, tag)
    code = state.plan.code if tag in tags.CODE else None

    def then(value: int, data: bytearray) -> Step:
        if tag == tags.NULL:
            return _end(state, data)
        if code is not None:
            code.promise(value, data)
        return _entry(_after(state, tag, value))

    return IntStep(
        state.start + word,
        word,
        IntSet(word, *_pieces(state, tag)),
        ("dynamic[{}].{}", state.number, label),
        lambda: tags.rule(tag),
        then,
    )


def _after(state: State, tag: int, value: int) -> State:
    """The state after an entry whose value is one of its set."""
    found: State | None
    if tag in accept.TABLES:
        found = accept.table(state, tag, value)
    elif tag == tags.NEEDED:
        found = accept.needed(state, value)
    elif tag in tags.PATHS:
        found = accept.path(state, tag, value)
    elif tag == tags.STRSZ:
        found = accept.string_size(state, value)
    elif tag == tags.PLTRELSZ and tags.JMPREL not in state.seen:
        found = accept.plt_size(state, value)
    elif tag in (tags.RELASZ, tags.RELSZ, tags.PLTRELSZ):
        found = accept.relocation_size(state, tag, value)
    elif tag in (tags.VERNEEDNUM, tags.VERDEFNUM):
        found = version_places.counted(state, tag, value)
    else:
        found = state.with_tag(tag, value)
    assert found is not None, f"DT_{tags.LABELS.get(tag, hex(tag))} {value:#x}"
    return found if _is_plain(state, tag) else found._replace(known={})


def _is_plain(state: State, tag: int) -> bool:
    """Whether an entry of that tag only takes room: no other table depends on it."""
    vocabulary = tags.vocabulary(state.view.target)
    return (
        tag in vocabulary.fixed
        or tag in vocabulary.numbers
        or tag in vocabulary.pointers
        or tag in tags.CODE
        or tag in tags.ARRAYS
        or tag in (tags.FLAGS, tags.FLAGS_1)
    )


def _end(state: State, data: bytearray) -> Step:
    """The padding after DT_NULL."""
    start, end, word = state.start + state.view.target.dyn_size, state.region.end, state.view.target.word
    plan = promise_details(state)
    if start == end:
        return proceed(plan, end, data)
    count = (end - start) // (2 * word)
    return RecordsStep(start, count, _PADDING[word], "dynamic.padding", lambda data: proceed(plan, end, data))
