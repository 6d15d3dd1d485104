"""The grammars of what the dynamic section promises ahead: symbols, relocations; and what they all have to know."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bytegen.formats.core.intset import IntSet, anything, exactly
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Span, Window
from bytegen.formats.core.records import Record, RecordsStep
from bytegen.formats.core.steps import Step
from bytegen.formats.elf.contents.symbols import local_symbols, symbol_record
from bytegen.formats.elf.dynamic import tags, version_places
from bytegen.formats.elf.dynamic.addresses import AddressMap
from bytegen.formats.elf.dynamic.settled import MOST, settle_places, version_indices
from bytegen.formats.elf.dynamic.state import State
from bytegen.formats.elf.dynamic.version_debts import must_be_defined, symbols_known
from bytegen.formats.elf.dynamic.version_state import unneeded
from bytegen.formats.elf.plan import Plan, opener, proceed


class Facts(NamedTuple):
    """What the tables ahead need to know of the dynamic section, once that is read.

    ``names``: size of the string table; ``symtab``: offset of the symbols, -1 for none, and address;
    ``used``: how many there are at least; ``exact``: how many there are, where a hash table says it;
    ``indices``: how many version indices may serve; ``hash_address``: of the hash table; ``needed``: where
    libraries' names begin; ``stop``: where the table ends at the latest, 0 where room ahead says it; ``defined``:
    symbols that must be defined, as tools look for their versions among the definitions; ``version``: the
    strings ahead have the name of one that a library which is needed may have.
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
    version: bool = False


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
        MOST if version_places.is_ahead(state, tags.VERSYM) else version_indices(state),
        0,
        tuple(sorted(set(state.needed))),
        version=state.view.strict and version_places.is_ahead(state, tags.VERNEED),
    )
    ledger, count = state.plan.ledger, state.symbol_count
    if state.symbols is None:
        count = max(count, facts.indices)
    indices = state.places.get(tags.VERSYM)
    if indices is not None and indices.behind and symtab is not None and not symtab.behind:
        facts = facts._replace(defined=frozenset(np.flatnonzero(unneeded(state, count)).tolist()))
    for region in ledger.regions:
        if region.kind in _KINDS:
            # Section headers may have said all but which symbols must be defined.
            hashed = state.places.get(tags.HASH if region.kind == "hash" else tags.GNU_HASH)
            facts = facts._replace(hash_address=hashed.address if hashed is not None else 0)
            known = facts if region.detail is None else region.detail._replace(defined=facts.defined)
            ledger = ledger.replace(region, region._replace(detail=known))
    return state.plan._replace(
        ledger=ledger, named=settle_places(state), versions=version_places.debts(state)
    )  # fmt: skip


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
        defined = facts.defined | must_be_defined(plan, data, count + 1)
        record = symbol_record(plan, locals_, max(facts.names, 1), bytes(data), defined)
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
    symbols = max(symbols, symbols_known(plan, data, facts.names))
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
