"""The grammars of what the dynamic section promises ahead: strings, symbols, relocations."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bytegen.formats.core.intset import IntSet, anything, exactly
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Span, Window
from bytegen.formats.core.records import Record, RecordsStep
from bytegen.formats.core.steps import FreeStep, IntStep, Step
from bytegen.formats.elf.contents.symbols import local_symbols, symbol_record
from bytegen.formats.elf.dynamic import tags
from bytegen.formats.elf.dynamic.addresses import AddressMap
from bytegen.formats.elf.dynamic.names import KNOWN_LIBRARIES, SHORTEST_KNOWN, next_letters
from bytegen.formats.elf.dynamic.settled import settle_places, version_indices
from bytegen.formats.elf.dynamic.state import State
from bytegen.formats.elf.dynamic.version_state import unneeded
from bytegen.formats.elf.plan import Plan, opener, proceed


class Facts(NamedTuple):
    """What the tables ahead need to know of the dynamic section, once that is read.

    ``names``: size of the string table; ``symtab``: offset of the symbols, -1 for none, and address;
    ``used``: how many there are at least; ``exact``: how many there are, where a hash table says it;
    ``indices``: how many version indices may serve; ``hash_address``: of the hash table; ``needed``: where
    libraries' names begin; ``stop``: where the table ends at the latest, 0 where room ahead says it; ``defined``:
    symbols that must be defined, as tools look for their versions among the definitions.
    """

    map: AddressMap
    strict: bool
    names: int
    symtab: int
    address: int
    used: int
    exact: int | None
    indices: int
    hash_address: int
    needed: tuple[int, ...]
    stop: int = 0
    defined: frozenset[int] = frozenset()


_KINDS = ("dynstr", "dynsym", "dynrel", "hash", "gnu_hash")


def promise_details(state: State) -> Plan:
    """The plan after the section: its promises know the facts, and nothing is reserved any more."""
    for name, _ in state.reserved:
        state = state.without(name)
    symtab = state.places.get(tags.SYMTAB)
    facts = Facts(
        state.view.map,
        state.view.strict,
        state.seen.get(tags.STRSZ, 0),
        symtab.offset if symtab is not None else -1,
        symtab.address if symtab is not None else 0,
        state.used,
        state.symbols,
        version_indices(state),
        0,
        tuple(sorted(set(state.needed))),
    )
    ledger, count = state.plan.ledger, state.symbol_count
    if state.symbols is None:
        count = max(count, facts.indices)
    if tags.VERSYM in state.places and symtab is not None and not symtab.behind:
        facts = facts._replace(defined=frozenset(np.flatnonzero(unneeded(state, count)).tolist()))
    for region in ledger.regions:
        if region.kind in _KINDS:
            # Section headers may have said all but which symbols must be defined.
            hashed = state.places.get(tags.HASH if region.kind == "hash" else tags.GNU_HASH)
            facts = facts._replace(hash_address=hashed.address if hashed is not None else 0)
            known = facts if region.detail is None else region.detail._replace(defined=facts.defined)
            ledger = ledger.replace(region, region._replace(detail=known))
    return state.plan._replace(ledger=ledger, named=settle_places(state))


# Strings


@opener("dynstr")
def _open_strings(plan: Plan, region: Region, data: bytearray) -> Step:
    facts: Facts = region.detail
    pins = [region.start + place for place in facts.needed] if facts.strict else []
    zero = exactly(1, 0)

    def end(data: bytearray) -> Step:
        return IntStep(region.end - 1, 1, zero, "dynstr.end", "a string table ends with a zero", after)

    def after(_: int, data: bytearray) -> Step:
        return proceed(plan, region.end, data)

    def room(number: int) -> int:
        return (pins[number + 1] if number + 1 < len(pins) else region.end) - pins[number]

    def free(start: int, number: int, data: bytearray) -> Step:
        """Any bytes from ``start`` to the next name that is needed, or to the last zero.

        Where no known name has room, a zero comes before the name: it is not the tail of another string then.
        """
        stop = pins[number] if number < len(pins) else region.end - 1
        if start == stop:
            return name(number, 0, data) if number < len(pins) else end(data)
        if number == len(pins) or room(number) >= SHORTEST_KNOWN:
            return FreeStep(start, stop, None, "dynstr", "", lambda data: free(stop, number, data))
        if start == stop - 1:
            rule = "a library's name comes next"
            return IntStep(start, 1, zero, "dynstr", rule, lambda value, data: name(number, 0, data))
        return FreeStep(start, stop - 1, None, "dynstr", "", lambda data: free(stop - 1, number, data))

    def name(number: int, done: int, data: bytearray) -> Step:
        start, left = pins[number], room(number) - done
        names = frozenset(known + b"\0" for known in KNOWN_LIBRARIES if len(known) < room(number))
        letters = next_letters(bytes(data[start : start + done]), left, not data[start - 1], names)

        def letter(value: int, data: bytearray) -> Step:
            if value:
                return name(number, done + 1, data)
            at = start + done + 1
            return after(0, data) if at == region.end else free(at, number + 1, data)

        rule = "the name of a library; where it is the tail of a string, of one that every system has"
        return IntStep(start + done, 1, letters, f"dynstr.needed[{number}]", rule, letter)

    def first(_: int, data: bytearray) -> Step:
        return (
            proceed(plan, region.end, data)
            if region.end == region.start + 1
            else free(region.start + 1, 0, data)
        )

    return IntStep(region.start, 1, zero, "dynstr.begin", "a string table begins with a zero", first)


# Symbols


@opener("dynsym")
def _open_symbols(plan: Plan, region: Region, data: bytearray) -> Step:
    facts: Facts = region.detail
    size, word = plan.target.sym_size, plan.target.word
    null = Record(
        *((f"null[{i}]", word, exactly(word, 0), "the first symbol is null") for i in range(size // word))
    )

    def rest(data: bytearray) -> Step:
        count = (region.end - region.start) // size - 1
        if not count:
            return proceed(plan, region.end, data)
        locals_ = local_symbols(plan, region.start)
        record = symbol_record(plan, locals_, max(facts.names, 1), bytes(data), facts.defined)
        return RecordsStep(
            region.start + size, count, record, "dynsym", lambda data: proceed(plan, region.end, data)
        )

    return RecordsStep(region.start, 1, null, "dynsym.null", rest)


# Relocations


@opener("dynrel")
def _open_relocations(plan: Plan, region: Region, data: bytearray) -> Step:
    facts, target = region.detail, plan.target
    word = target.word
    shift = 32 if target.bits == 64 else 8
    symbols = max(1, facts.exact or facts.used) if facts.symtab >= 0 else 1
    info = IntSet(word, Window(0, (symbols << shift) - 1, 1 << shift, 0, target.highest_relocation))
    place = anything(word)
    if facts.strict:
        loads = [load for load in facts.map.loads if load.memsz]
        place = IntSet(word, *(Span(load.address, load.address + load.memsz - 1) for load in loads))
    fields = [
        ("r_offset", word, place, "any; in the memory of a segment at level load"),
        ("r_info", word, info, f"a known type, and a symbol below {symbols}"),
    ]
    if target.rela:
        fields.append(("r_addend", word, anything(word), "any"))
    record = Record(*fields)
    count = (region.end - region.start) // record.size
    return RecordsStep(
        region.start, count, record, f"dynamic.{region.path}", lambda data: proceed(plan, region.end, data)
    )
