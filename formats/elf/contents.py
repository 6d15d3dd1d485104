"""The grammars of what sections promise ahead: string tables, symbol tables, relocation tables."""

from __future__ import annotations

from typing import NamedTuple

from bytegen.formats.core.intset import Finite, IntSet, Span, Window, anything, exactly, interval
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.steps import FreeStep, IntStep, Step
from bytegen.formats.elf.constants import (
    HIGHEST_RELOCATION,
    RELA_SIZE,
    SHN_ABS,
    SHN_COMMON,
    STT_TLS,
    SYM_SIZE,
    SYMBOL_BINDS,
    SYMBOL_TYPES,
)
from bytegen.formats.elf.plan import Plan, opener, proceed


@opener("strings")
def _open_strings(plan: Plan, region: Region, data: bytearray) -> Step:
    first, last = region.start, region.end - 1

    def end(data: bytearray) -> Step:
        return IntStep(
            last,
            1,
            exactly(1, 0),
            f"{region.path}.end",
            "a string table ends with a zero",
            lambda value, data: proceed(plan, region.end, data),
        )

    def middle(_: int, data: bytearray) -> Step:
        return end(data) if first + 1 == last else FreeStep(first + 1, last, None, region.path, "", end)

    if first == last:
        return end(data)
    return IntStep(
        first, 1, exactly(1, 0), f"{region.path}.begin", "a string table begins with a zero", middle
    )


@opener("relocations")
def _open_relocations(plan: Plan, region: Region, data: bytearray) -> Step:
    link = region.detail.link
    symbols = max(plan.sections[link].entries, 1) if link else 1
    info = IntSet(8, Window(0, (symbols << 32) - 1, 1 << 32, 0, HIGHEST_RELOCATION))
    rule = f"a known type, and a symbol below {symbols}"

    def entry(start: int, data: bytearray) -> Step:
        if start == region.end:
            return proceed(plan, start, data)
        path = f"{region.path}.rela[{(start - region.start) // RELA_SIZE}]"

        def addend(_: int, data: bytearray) -> Step:
            after = start + RELA_SIZE
            return IntStep(
                start + 16, 8, anything(8), f"{path}.r_addend", "any", lambda value, data: entry(after, data)
            )

        def kind(_: int, data: bytearray) -> Step:
            return IntStep(start + 8, 8, info, f"{path}.r_info", rule, addend)

        return IntStep(start, 8, anything(8), f"{path}.r_offset", "any", kind)

    return entry(region.start, data)


class _Symbol(NamedTuple):
    """A symbol being read in a region ahead."""

    plan: Plan
    region: Region
    number: int
    names: int  # size of the string table
    kind: int = 0
    value: int = 0

    @property
    def start(self) -> int:
        return self.region.start + SYM_SIZE * self.number

    def path(self, name: str) -> str:
        return f"{self.region.path}.sym[{self.number}].{name}"


@opener("symbols")
def _open_symbols(plan: Plan, region: Region, data: bytearray) -> Step:
    return _null_symbol(_Symbol(plan, region, 0, plan.sections[region.detail.link].size), 0)


def _null_symbol(symbol: _Symbol, at: int) -> Step:
    def after(_: int, data: bytearray) -> Step:
        return _null_symbol(symbol, at + 8) if at < 16 else _symbol(symbol._replace(number=1), data)

    return IntStep(
        symbol.start + at, 8, exactly(8, 0), symbol.path("null"), "the first symbol is all zeros", after
    )


def _symbol(symbol: _Symbol, data: bytearray) -> Step:
    if symbol.start == symbol.region.end:
        return proceed(symbol.plan, symbol.start, data)
    return IntStep(
        symbol.start,
        4,
        interval(4, 0, symbol.names - 1),
        symbol.path("st_name"),
        f"inside the string table of {symbol.names} bytes",
        lambda value, data: _symbol_kind(symbol),
    )


def _symbol_kind(symbol: _Symbol) -> Step:
    plan = symbol.plan
    local = symbol.number < symbol.region.detail.info
    binds = SYMBOL_BINDS[:1] if local else SYMBOL_BINDS[1:]
    kinds = [kind for kind in SYMBOL_TYPES if kind != STT_TLS or plan.segments_read]
    sections = IntSet(2, Span(0, plan.shnum - 1), Finite((SHN_ABS, SHN_COMMON)))
    start = symbol.start

    def section(_: int, data: bytearray, kind: int) -> Step:
        return IntStep(
            start + 6,
            2,
            sections,
            symbol.path("st_shndx"),
            "a section, absolute or common",
            lambda value, data: _symbol_value(symbol._replace(kind=kind)),
        )

    def other(info: int, data: bytearray) -> Step:
        return IntStep(
            start + 5,
            1,
            interval(1, 0, 3),
            symbol.path("st_other"),
            "a visibility",
            lambda value, data: section(value, data, info & 15),
        )

    return IntStep(
        start + 4,
        1,
        exactly(1, *(bind << 4 | kind for bind in binds for kind in kinds)),
        symbol.path("st_info"),
        "a known type; local below sh_info, global or weak from there on",
        other,
    )


def _symbol_value(symbol: _Symbol) -> Step:
    most = symbol.plan.tls_size if symbol.kind == STT_TLS else None
    choices = anything(8) if most is None else interval(8, 0, most)
    return IntStep(
        symbol.start + 8,
        8,
        choices,
        symbol.path("st_value"),
        "any" if most is None else f"inside the {most} bytes of PT_TLS",
        lambda value, data: _symbol_size(symbol, None if most is None else most - value),
    )


def _symbol_size(symbol: _Symbol, most: int | None) -> Step:
    choices = anything(8) if most is None else interval(8, 0, most)
    return IntStep(
        symbol.start + 16,
        8,
        choices,
        symbol.path("st_size"),
        "any" if most is None else f"at most {most}: inside PT_TLS",
        lambda value, data: _symbol(symbol._replace(number=symbol.number + 1), data),
    )
