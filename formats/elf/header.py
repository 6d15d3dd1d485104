"""The ELF header: where the two tables lie, how long they are, and where the program starts."""

from __future__ import annotations

from bytegen.formats.core.intset import Finite, IntSet, Piece, Span, Window, exactly, interval
from bytegen.formats.core.ledger import Ledger, Region
from bytegen.formats.core.steps import IntStep, Step
from bytegen.formats.elf.constants import (
    BSS_TOTAL,
    EHDR_SIZE,
    HIGHEST_ENTRY,
    LOWEST_ADDRESS,
    MAX64,
    MAX_PHNUM,
    MAX_SHNUM,
    PAGE,
    PHDR_SIZE,
    SHDR_SIZE,
)
from bytegen.formats.elf.plan import Plan, proceed

# (name, size, values, rule) of the fields before e_entry, which depend on nothing
_FIXED = (
    ("e_ident.magic", 4, (0x464C457F,), "an ELF file starts with 7f 45 4c 46"),
    ("e_ident.class", 1, (2,), "2: 64-bit"),
    ("e_ident.data", 1, (1,), "1: little-endian"),
    ("e_ident.version", 1, (1,), "1: the current version"),
    ("e_ident.osabi", 1, (0, 3), "0 (System V) or 3 (GNU)"),
    ("e_ident.abiversion", 1, (0,), "0"),
    ("e_ident.pad", 7, (0,), "zero"),
    ("e_type", 2, (2,), "2: an executable at a fixed address"),
    ("e_machine", 2, (62,), "62: x86-64"),
    ("e_version", 4, (1,), "1: the current version"),
)
_FIXED_SETS = tuple(exactly(size, *values) for _, size, values, _ in _FIXED)


def begin(limit: int, level: str) -> Step:
    """The first step of a file of at most ``limit`` bytes."""
    strict = level == "load"
    plan = Plan(
        limit,
        strict,
        Ledger(limit),
        EHDR_SIZE,
        low=LOWEST_ADDRESS if strict else 0,
        entry_owed=strict,
        table_owed=True,
        bss_left=BSS_TOTAL,
    )
    return _fixed(plan, 0, 0)


def _fixed(plan: Plan, i: int, start: int) -> Step:
    if i == len(_FIXED):
        return _entry(plan)
    name, size, _, rule = _FIXED[i]
    path = f"ehdr.{name}"
    return IntStep(
        start, size, _FIXED_SETS[i], path, rule, lambda value, data: _fixed(plan, i + 1, start + size)
    )


def _entry(plan: Plan) -> Step:
    if plan.strict:
        # The page holds the entry's byte at its offset within the page, and the file must reach it.
        piece: Piece = Span(LOWEST_ADDRESS, HIGHEST_ENTRY)
        if plan.limit < PAGE:
            piece = Window(LOWEST_ADDRESS, HIGHEST_ENTRY, PAGE, 0, plan.limit - 1)
        rule = (
            f"an address from {LOWEST_ADDRESS:#x} to {HIGHEST_ENTRY:#x} that a segment of the file can hold"
        )
    else:
        piece, rule = Span(0, MAX64), "any address"
    return IntStep(
        24, 8, IntSet(8, piece), "ehdr.e_entry", rule, lambda value, data: _phoff(plan._replace(entry=value))
    )


def _phoff(plan: Plan) -> Step:
    return IntStep(
        32,
        8,
        interval(8, EHDR_SIZE, plan.limit - PHDR_SIZE, 8),
        "ehdr.e_phoff",
        f"a multiple of 8 after the header, with {PHDR_SIZE} bytes of room before {plan.limit}",
        lambda value, data: _shoff(plan._replace(phoff=value)),
    )


def _shoff(plan: Plan) -> Step:
    choices = IntSet(
        8,
        Finite((0,)),
        Span(EHDR_SIZE, plan.phoff - SHDR_SIZE, 8),
        Span(plan.phoff + PHDR_SIZE, plan.limit - SHDR_SIZE, 8),
    )
    rule = "0, or a multiple of 8 with room for a section header clear of the program headers"
    return IntStep(
        40, 8, choices, "ehdr.e_shoff", rule, lambda value, data: _sizes(plan._replace(shoff=value), 0, 48)
    )


_SIZES = (
    ("e_flags", 4, exactly(4, 0), "0 on x86-64"),
    ("e_ehsize", 2, exactly(2, EHDR_SIZE), "64"),
    ("e_phentsize", 2, exactly(2, PHDR_SIZE), "56"),
)


def _sizes(plan: Plan, i: int, start: int) -> Step:
    if i == len(_SIZES):
        return _phnum(plan)
    name, size, choices, rule = _SIZES[i]
    return IntStep(
        start, size, choices, f"ehdr.{name}", rule, lambda value, data: _sizes(plan, i + 1, start + size)
    )


def _phnum(plan: Plan) -> Step:
    stop = plan.shoff if plan.shoff > plan.phoff else plan.limit
    most = min(MAX_PHNUM, (stop - plan.phoff) // PHDR_SIZE)
    return IntStep(
        56,
        2,
        interval(2, 1, most),
        "ehdr.e_phnum",
        f"1 to {most}: the entries that fit",
        lambda value, data: _shentsize(plan._replace(phnum=value)),
    )


def _shentsize(plan: Plan) -> Step:
    choices = exactly(2, SHDR_SIZE) if plan.shoff else exactly(2, 0, SHDR_SIZE)
    return IntStep(
        58,
        2,
        choices,
        "ehdr.e_shentsize",
        "64 (or 0 where there are no sections)",
        lambda value, data: _shnum(plan),
    )


def _shnum(plan: Plan) -> Step:
    if not plan.shoff:
        choices, rule = exactly(2, 0), "0: there is no section header table"
    else:
        stop = plan.phoff if plan.phoff > plan.shoff else plan.limit
        most = min(MAX_SHNUM, (stop - plan.shoff) // SHDR_SIZE)
        choices, rule = interval(2, 1, most), f"1 to {most}: the entries that fit"
    return IntStep(
        60, 2, choices, "ehdr.e_shnum", rule, lambda value, data: _shstrndx(plan._replace(shnum=value))
    )


def _shstrndx(plan: Plan) -> Step:
    if plan.shnum <= 1:
        choices, rule = exactly(2, 0), "0: no section holds names"
    else:
        choices, rule = (
            interval(2, 1, plan.shnum - 1),
            f"1 to {plan.shnum - 1}: a section that holds the names",
        )
    return IntStep(62, 2, choices, "ehdr.e_shstrndx", rule, lambda value, data: _tables(plan, value, data))


def _tables(plan: Plan, shstrndx: int, data: bytearray) -> Step:
    ledger = plan.ledger.add(
        Region(plan.phoff, plan.phoff + PHDR_SIZE * plan.phnum, "phdrs", "the program header table")
    )
    if plan.shnum:
        ledger = ledger.add(
            Region(plan.shoff, plan.shoff + SHDR_SIZE * plan.shnum, "shdrs", "the section header table")
        )
    plan = plan._replace(shstrndx=shstrndx, ledger=ledger).reach(ledger.end())
    return proceed(plan, EHDR_SIZE, data)
