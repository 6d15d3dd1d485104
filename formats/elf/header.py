"""The ELF header: which machine and kind of file, where the two tables lie, where the program starts.

Sources: System V gABI ch. 4 (fields), Linux fs/binfmt_elf.c (what a program's entry needs), LIEF's check_layout
(both tables inside the file, aligned to a word).
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from bytegen.formats.core.intset import IntSet, exactly, interval
from bytegen.formats.core.ledger import Ledger, Region
from bytegen.formats.core.pieces import Finite, Piece, Span
from bytegen.formats.core.steps import IntStep, Step
from bytegen.formats.elf import entry, names
from bytegen.formats.elf.constants import BSS_TOTAL, ET_DYN, ET_EXEC, MAX_SHNUM
from bytegen.formats.elf.plan import Plan, proceed
from bytegen.formats.elf.target import Target
from bytegen.formats.elf.worlds import dynamic_room


class _Fixed(NamedTuple):
    """A field whose values depend on the machine only."""

    path: str
    size: int
    choices: IntSet
    rule: str


@cache
def _before(target: Target) -> tuple[_Fixed, ...]:
    """The fields before e_type, and e_machine and e_version after it."""
    rows = (
        ("e_ident.magic", 4, (0x464C457F,), "an ELF file starts with 7f 45 4c 46"),
        ("e_ident.class", 1, (target.elf_class,), f"{target.elf_class}: {target.bits}-bit"),
        ("e_ident.data", 1, (1,), "1: little-endian; big-endian files are not supported"),
        ("e_ident.version", 1, (1,), "1: the current version"),
        ("e_ident.osabi", 1, (0, 3), "0 (System V) or 3 (GNU)"),
        ("e_ident.abiversion", 1, (0,), "0"),
        ("e_ident.pad", 7, (0,), "zero"),
        (
            "e_type",
            2,
            (ET_EXEC, ET_DYN),
            "2 (at a fixed address) or 3 (position-independent, or a shared object)",
        ),
        ("e_machine", 2, (target.machine,), f"{target.machine}: {target.instructions}"),
        ("e_version", 4, (1,), "1: the current version"),
    )
    return tuple(
        _Fixed(f"ehdr.{name}", size, exactly(size, *values), rule) for name, size, values, rule in rows
    )


@cache
def _sizes(target: Target) -> tuple[_Fixed, ...]:
    rows = (
        ("e_flags", 4, 0, f"0 on {target.instructions}"),
        ("e_ehsize", 2, target.ehdr_size, str(target.ehdr_size)),
        ("e_phentsize", 2, target.phdr_size, str(target.phdr_size)),
    )
    return tuple(_Fixed(f"ehdr.{name}", size, exactly(size, value), rule) for name, size, value, rule in rows)


def begin(target: Target, limit: int, level: str, *, static: bool = False) -> Step:
    """The first step of a file for that machine of at most ``limit`` bytes; ``static``: see `formats.constraint`."""
    strict = level != "parse"
    plan = Plan(
        target,
        limit,
        level,
        strict,
        Ledger(limit),
        target.ehdr_size,
        table_owed=True,
        bss_left=BSS_TOTAL,
        static=static,
    )
    return _ident(plan, 0, 0)


def _ident(plan: Plan, i: int, start: int) -> Step:
    fields = _before(plan.target)
    if i == len(fields):
        return _entry(plan)
    field = fields[i]

    def then(value: int, data: bytearray) -> Step:
        after = plan
        if field.path == "ehdr.e_type":
            lowest = plan.target.lowest if plan.strict and value == ET_EXEC else 0
            after = plan._replace(kind=value, low=lowest)
        return _ident(after, i + 1, start + field.size)

    if plan.static and field.path == "ehdr.e_type":
        return IntStep(start, field.size, _STATIC, field.path, "2: at a fixed address", then)
    return IntStep(start, field.size, field.choices, field.path, field.rule, then)


_STATIC = exactly(2, ET_EXEC)


def _entry(plan: Plan) -> Step:
    target, word = plan.target, plan.target.word

    def then(value: int, data: bytearray) -> Step:
        owed = plan.strict and (value != 0 or plan.kind == ET_EXEC)
        return _phoff(plan._replace(entry=value, entry_owed=owed))

    if not plan.strict:
        return IntStep(24, word, IntSet(word, Span(0, target.top)), "ehdr.e_entry", "any address", then)
    low, high = plan.low, plan.highest_entry
    pieces = entry.addresses(plan, max(low, 1), high)
    rule = f"an address from {low:#x} to {high:#x} that a segment of the file can hold"
    library = plan._replace(entry=0)
    if plan.kind == ET_DYN and plan.limit >= target.ehdr_size + _least_tables(library):
        pieces.append(Finite((0,)))
        rule = f"0 for a shared object, or {rule}"
    return IntStep(24, word, IntSet(word, *pieces), "ehdr.e_entry", rule, then)


def _least_tables(plan: Plan) -> int:
    """Bytes of the fewest program headers, and of what they owe a place in the file."""
    size = plan.target.phdr_size
    if not plan.dynamic_owed:
        return size
    return 2 * size + dynamic_room(plan)


def _least_sections(plan: Plan) -> int:
    """The fewest section headers, where there are any."""
    return names.LEAST_SECTIONS if plan.dynamic_owed else 1


def _phoff(plan: Plan) -> Step:
    target, word = plan.target, plan.target.word
    least = _least_tables(plan)
    count = 2 if plan.dynamic_owed else 1
    most = min(plan.near - count * target.phdr_size, plan.limit - least)
    return IntStep(
        24 + word,
        word,
        interval(word, target.ehdr_size, most if plan.level != "code" else target.ehdr_size, word),
        "ehdr.e_phoff",
        lambda: (
            f"{target.ehdr_size}: right behind the header"
            if plan.level == "code"
            else f"a multiple of {word} after the header, with {least} bytes of room before {plan.limit}"
        ),
        lambda value, data: _shoff(plan._replace(phoff=value)),
    )


def _shoff(plan: Plan) -> Step:
    target, word = plan.target, plan.target.word
    least = _least_tables(plan)
    top = min(plan.limit, target.top) - _least_sections(plan) * target.shdr_size
    start = plan.phoff + least
    if entry.owed(plan):
        start = max(start, entry.after(plan, start) + entry.size(plan))
    pieces: list[Piece] = [Finite((0,)), Span(start, top, word)]
    if not plan.dynamic_owed and not entry.owed(plan):
        pieces.append(Span(target.ehdr_size, plan.phoff - target.shdr_size, word))
    return IntStep(
        24 + 2 * word,
        word,
        IntSet(word, *pieces),
        "ehdr.e_shoff",
        lambda: f"0, or a multiple of {word} with room for a section header clear of what is owed",
        lambda value, data: _fixed_sizes(plan._replace(shoff=value), 0, 24 + 3 * word),
    )


def _fixed_sizes(plan: Plan, i: int, start: int) -> Step:
    fields = _sizes(plan.target)
    if i == len(fields):
        return _phnum(plan, start)
    path, size, choices, rule = fields[i]
    return IntStep(
        start, size, choices, path, rule, lambda value, data: _fixed_sizes(plan, i + 1, start + size)
    )


def _phnum(plan: Plan, start: int) -> Step:
    target = plan.target
    stop = plan.shoff if plan.shoff > plan.phoff else plan.limit
    least = 1
    if plan.dynamic_owed:
        least, stop = 2, stop - dynamic_room(plan)
    if entry.owed(plan):
        stop = entry.before(plan, stop)
    most = min(target.most_segments, (min(stop, plan.near) - plan.phoff) // target.phdr_size)
    return IntStep(
        start,
        2,
        interval(2, least, most),
        "ehdr.e_phnum",
        lambda: f"{least} to {most}: the entries that fit",
        lambda value, data: _shentsize(plan._replace(phnum=value), start + 2),
    )


def _shentsize(plan: Plan, start: int) -> Step:
    size = plan.target.shdr_size
    return IntStep(
        start,
        2,
        exactly(2, size) if plan.shoff else exactly(2, 0, size),
        "ehdr.e_shentsize",
        lambda: f"{size} (or 0 where there are no sections)",
        lambda value, data: _shnum(plan, start + 2),
    )


def _shnum(plan: Plan, start: int) -> Step:
    if not plan.shoff:
        choices, rule = exactly(2, 0), "0: there is no section header table"
    else:
        stop = plan.phoff if plan.phoff > plan.shoff else plan.limit
        most = min(MAX_SHNUM, (stop - plan.shoff) // plan.target.shdr_size)
        least = _least_sections(plan)
        choices, rule = interval(2, least, most), f"{least} to {most}: the entries that fit"
    return IntStep(
        start,
        2,
        choices,
        "ehdr.e_shnum",
        rule,
        lambda value, data: _shstrndx(plan._replace(shnum=value), start + 2),
    )


def _shstrndx(plan: Plan, start: int) -> Step:
    if plan.shnum <= 1:
        choices, rule = exactly(2, 0), "0: no section holds names"
    else:
        choices = interval(2, 1, plan.shnum - 1)
        rule = f"1 to {plan.shnum - 1}: a section that holds the names"
    return IntStep(start, 2, choices, "ehdr.e_shstrndx", rule, lambda value, data: _tables(plan, value, data))


def _tables(plan: Plan, shstrndx: int, data: bytearray) -> Step:
    target = plan.target
    ledger = plan.ledger.add(Region(plan.phoff, plan.phdrs_end, "phdrs", "the program header table"))
    if plan.shnum:
        end = plan.shoff + target.shdr_size * plan.shnum
        ledger = ledger.add(Region(plan.shoff, end, "shdrs", "the section header table"))
    plan = plan._replace(shstrndx=shstrndx, ledger=ledger).reach(ledger.end())
    kept = names.keep(plan)
    if not entry.owed(plan) or _entry_fits(plan, kept.ledger) or not _entry_fits(plan, plan.ledger):
        plan = kept
    return proceed(plan, target.ehdr_size, data)


def _entry_fits(plan: Plan, ledger: Ledger) -> bool:
    """Whether the entry has a place before the section headers: whatever the length limit, the answer is the same."""
    ranges = entry.without(entry.places(plan, ledger), plan.shoff or plan.limit, plan.limit)
    return bool(entry.candidates(plan, ranges))
