"""The section header table."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from bytegen.formats.core.intset import IntSet, exactly
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Finite, Piece
from bytegen.formats.core.quick import replacing
from bytegen.formats.core.steps import IntStep, Step
from bytegen.formats.elf import space, tables
from bytegen.formats.elf.notes import note_aligns, notes_fit
from bytegen.formats.elf.plan import Owed, Plan, Section, opener, proceed
from bytegen.formats.elf.sections import agreed, body, expected, foreseen, linked, links, naming
from bytegen.formats.elf.sections.types import (
    ARRAYS,
    DYNAMIC,
    DYNSYM,
    NOBITS,
    NOTE,
    PROGBITS,
    STRTAB,
    SYMBOLS,
    TABLES,
    entry_size,
    kinds,
)
from bytegen.formats.elf.target import Target
from bytegen.formats.elf.written import Behind, Provided, Table

_WORDS = ("sh_flags", "sh_addr", "sh_offset", "sh_size", "sh_addralign", "sh_entsize")
_ORDER = (
    "sh_name",
    "sh_type",
    "sh_flags",
    "sh_addr",
    "sh_offset",
    "sh_size",
    "sh_link",
    "sh_info",
    "sh_addralign",
    "sh_entsize",
)


@lru_cache(maxsize=8)
def _layout(target: Target) -> dict[str, tuple[int, int]]:
    """Field -> (offset in the header, size)."""
    places, start = {}, 0
    for name in _ORDER:
        size = target.word if name in _WORDS else 4
        places[name] = (start, size)
        start += size
    return places


@replacing
class Header(NamedTuple):
    """The fields of one section header read so far."""

    table: Table
    target: Target
    number: int
    name: int = 0
    kind: int = 0
    flags: int = 0
    address: int = 0
    offset: int = 0
    size: int = 0
    link: int = 0
    info: int = 0
    align: int = 0

    @property
    def start(self) -> int:
        """Offset of the header in the file."""
        return self.table.start + self.number * self.target.shdr_size

    def step(self, name: str, choices: IntSet, rule: str, then: object) -> Step:
        """The step of one field; ``then(value, data)`` gives the next."""
        offset, size = _layout(self.target)[name]
        path = ("shdr[{}].{}", self.number, name)
        return IntStep(self.start + offset, size, choices, path, rule, then)  # type: ignore[arg-type]


@opener("shdrs")
def _open(plan: Plan, region: Region, data: bytearray) -> Step:
    if plan.shstrndx:
        owed = Owed(frozenset({STRTAB}), 1, None, space.naming(plan).least)
        plan = plan._replace(owed=((plan.shstrndx, owed),))
    table = Table(region.start, region.end, Behind(bytes(data)))
    plan = tables.Hooks.before_sections(plan, table.behind.raw)
    return _null(plan, Header(table, plan.target, 0), 0, data)


def _null(plan: Plan, header: Header, i: int, data: bytearray) -> Step:
    """Section header 0, which is all zeros."""
    if i == len(_ORDER):
        return _entry(space.with_section(plan, Section(0, 0, 0, 0)), header.table, 1, data)
    name = _ORDER[i]
    zero = exactly(_layout(header.target)[name][1], 0)
    return header.step(
        name,
        zero,
        "the first section header is all zeros",
        lambda value, data: _null(plan, header, i + 1, data),
    )


def _entry(plan: Plan, table: Table, index: int, data: bytearray) -> Step:
    if index == plan.shnum:
        return proceed(foreseen.finish(plan, table), table.end, data)
    header = Header(table, plan.target, index)
    known = naming.naming(plan, table, index)
    return header.step(
        "sh_name",
        naming.choices(plan, known, index),
        f"at most {known.most - 1}: inside the section name table; no other section has a name tools look up",
        lambda value, data: _kind(_named(plan, known, value), plan, known, header._replace(name=value)),
    )


def _named(plan: Plan, known: naming.Naming, name: int) -> Plan:
    """The plan after a name: the name table, if still to come, holds it, and has room for one owed."""
    if len(plan.sections) > plan.shstrndx:
        return plan
    owed = plan.owed_at(plan.shstrndx)
    spare = known.asks._replace(plain=(*known.asks.plain, name)).least
    # Only the dynamic section may take the last name that leaves it one.
    spare = spare if spare <= known.most else known.asks.least
    if owed is not None and owed.sure > name and owed.spare >= spare:
        return plan
    return plan.owe(plan.shstrndx, frozenset({STRTAB}), name + 1, None, spare)


@lru_cache(maxsize=256)
def _listed(types: frozenset[int]) -> Finite:
    return Finite(types)


@lru_cache(maxsize=256)
def _tables(types: frozenset[int]) -> tuple[int, ...]:
    return tuple(sorted(types & TABLES.keys()))


def _kind(plan: Plan, before: Plan, known: naming.Naming, header: Header) -> Step:
    """``before``: the plan that has no room kept for another name, which the dynamic section does not ask for."""
    sets = kinds(plan.target)
    owed, number = plan.owed_at(header.number), header.number
    types = naming.types_left(plan, known, header.name, owed.types if owed is not None else sets.every)
    forced = owed is None and links.free_after(plan, number) < links.duties(plan)
    plain = frozenset() if forced else types & sets.plain
    pieces: list[Piece] = [_listed(plain)] if plain else []
    if NOTE in types and not forced:
        pieces.append(Provided(NOTE, notes_fit, plan, header.table, number))
    if DYNSYM in types and not forced:
        pieces.append(Provided(DYNSYM, agreed.symbols_fit, plan, header.table, number))
    if not forced and plan.dynamic is not None:
        for kind in _tables(types):
            pieces.append(Provided(kind, agreed.table_fits, plan, header.table, number, kind))
    if DYNAMIC in types and owed is None and links.dynamic_missing(plan) is not None:
        may = naming.dynamic_names(before, known)
        name = header.name
        pieces.append(Provided(DYNAMIC, lambda: any(piece.contains(name) for piece in may)))
    return header.step(
        "sh_type",
        IntSet(4, *pieces),
        "the type that an earlier header owes this section" if owed is not None else "a known section type",
        lambda value, data: _flags(_typed(plan, header, value), header._replace(kind=value)),
    )


def _typed(plan: Plan, header: Header, kind: int) -> Plan:
    """The plan after a type: the name table, if still to come, holds the name of the dynamic section."""
    if kind != DYNAMIC or len(plan.sections) > plan.shstrndx:
        return plan
    return plan.owe(plan.shstrndx, frozenset({STRTAB}), header.name + body.DYNAMIC_NAME, None, 0)


def _flags(plan: Plan, header: Header) -> Step:
    sets = kinds(plan.target)
    linked = header.kind not in SYMBOLS and header.kind not in TABLES and header.kind != DYNAMIC
    choices = sets.any_flags if linked else sets.unlinked
    if header.kind == PROGBITS:
        choices = IntSet(plan.target.word, *choices.pieces, body.compressed_flags(plan, header.table))
    return header.step(
        "sh_flags",
        choices,
        "known flags; SHF_COMPRESSED where a compressed section has been written",
        lambda value, data: _address(plan, header._replace(flags=value)),
    )


def _address(plan: Plan, header: Header) -> Step:
    if foreseen.rules(plan, header.kind):
        return _foreseen_address(foreseen.begun(plan, header.table, header.number, header.kind), header)
    fixed = body.address(plan, header.kind)
    return header.step(
        "sh_addr",
        kinds(plan.target).word if fixed is None else exactly(plan.target.word, fixed),
        "any address" if fixed is None else "the address that the dynamic section gives",
        lambda value, data: _offset(_movable(plan, header), header._replace(address=value)),
    )


def _movable(plan: Plan, header: Header) -> list[Plan]:
    """The plan, and those in which the room for symbols is elsewhere, for content that takes room itself."""
    moves = header.kind in body.TAKES_ROOM
    return expected.elsewhere(plan, header.table, header.number) if moves else [plan]


def _foreseen_address(plan: Plan, header: Header) -> Step:
    plans = (
        expected.elsewhere(plan, header.table, header.number) if header.kind in foreseen.HASHES else [plan]
    )
    ahead = [(each, foreseen.ahead(each, header.table, header.kind)) for each in plans]
    behind = foreseen.behind(plan, header.table, header.number, header.kind)

    def following(value: int, data: bytearray) -> Step:
        kept = [each for each, pieces in ahead if any(piece.contains(value) for piece in pieces)]
        return _offset(kept or [plan], header._replace(address=value))

    return header.step(
        "sh_addr",
        IntSet(plan.target.word, *(piece for _, pieces in ahead for piece in pieces), behind),
        "where such a table is mapped, or may be promised",
        following,
    )


def _offset(plans: list[Plan], header: Header) -> Step:
    """``plans``: those with the room for symbols at some place."""
    found = [(each, *body.offsets(each, header)) for each in plans]
    return header.step(
        "sh_offset",
        IntSet(header.target.word, *(piece for _, pieces, _ in found for piece in pieces)),
        found[0][2],
        lambda value, data: _size(
            [each for each, pieces, _ in found if any(piece.contains(value) for piece in pieces)],
            header._replace(offset=value),
        ),
    )


def _size(plans: list[Plan], header: Header) -> Step:
    """``plans``: those with the room for symbols at some place, where the offset stands."""
    found = [(each, *body.sizes(each, header)) for each in plans]

    def following(value: int, data: bytearray) -> Step:
        plan = next(each for each, pieces, _ in found if any(piece.contains(value) for piece in pieces))
        return _link(body.sized(plan, header, value), header._replace(size=value))

    return header.step(
        "sh_size",
        IntSet(header.target.word, *(piece for _, pieces, _ in found for piece in pieces)),
        found[0][2],
        following,
    )


def _link(plan: Plan, header: Header) -> Step:
    if header.kind in ARRAYS:
        choices, rule = exactly(4, 0), "0"
    else:
        pieces, rule = linked.link_choices(plan, header)
        choices = IntSet(4, *pieces)
    return header.step(
        "sh_link",
        choices,
        rule,
        lambda value, data: _info(linked.linked(plan, header, value), header._replace(link=value)),
    )


def _info(plan: Plan, header: Header) -> Step:
    pieces, rule = body.infos(plan, header)
    return header.step(
        "sh_info",
        IntSet(4, *pieces),
        rule,
        lambda value, data: _align(body.informed(plan, header, value), header._replace(info=value)),
    )


def _align(plan: Plan, header: Header) -> Step:
    choices, rule = kinds(plan.target).powers, "0 or a power of two"
    if header.kind == NOTE:
        aligns = note_aligns(plan, header.table, header.offset, header.size)
        choices = exactly(plan.target.word, *aligns)
        rule = "0, 1 or 4 for notes padded to 4 bytes, 8 for notes padded to 8"
    return header.step(
        "sh_addralign",
        choices,
        rule,
        lambda value, data: _entsize(plan, header._replace(align=value)),
    )


@lru_cache(maxsize=1024)
def _divisors(word: int, size: int) -> IntSet:
    """0 and the divisors of a size."""
    small = [d for d in range(1, int(size**0.5) + 1) if size % d == 0]
    return exactly(word, 0, *sorted({*small, *(size // d for d in small)}))


def _entsize(plan: Plan, header: Header) -> Step:
    word = plan.target.word
    fixed = entry_size(header.kind, plan.target)
    if fixed is not None:
        choices, rule = exactly(word, fixed), f"{fixed}"
    elif header.kind == NOBITS or not header.size:
        choices, rule = kinds(plan.target).word, "any"
    else:
        choices = _divisors(word, header.size)
        rule = f"0 or a divisor of the size {header.size}"
    return header.step("sh_entsize", choices, rule, lambda value, data: _done(plan, header, data))


def _done(plan: Plan, header: Header, data: bytearray) -> Step:
    kind, offset, size = header.kind, header.offset, header.size
    # Where it takes no bytes it still lies in the file, or the file would be refused under its own length.
    plan = plan.reach(offset if kind == NOBITS else offset + size)
    count = size // plan.target.sym_size if kind in SYMBOLS else 0
    section = Section(kind, offset, size, count, header.address, header.name, header.info)
    plan = space.with_section(plan, section)
    if plan.owed and plan.owed[0][0] == header.number:  # what owes is still to come
        plan = plan._replace(owed=plan.owed[1:])
    if size and offset >= header.table.end and kind != NOBITS:
        plan = body.promise(plan, header)
    return _entry(plan, header.table, header.number + 1, data)
