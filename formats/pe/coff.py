"""The PE signature and the COFF file header: how many sections there are, and where symbols lie."""

from __future__ import annotations

from bytegen.formats.core.intset import IntSet, anything, exactly, interval
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Bits, Span
from bytegen.formats.core.steps import IntStep, Step
from bytegen.formats.pe import optional
from bytegen.formats.pe.constants import (
    COFF_SIZE,
    FILE_CHARACTERISTICS,
    HEADERS_END,
    IMAGE_FILE_EXECUTABLE_IMAGE,
    IMAGE_FILE_UP_SYSTEM_ONLY,
    LEAST_BLOCK,
    MAX_SECTIONS,
    SECTION_SIZE,
    SYMBOL_SIZE,
)
from bytegen.formats.pe.dos import RICH, least_content
from bytegen.formats.pe.layout import up
from bytegen.formats.pe.plan import Plan
from bytegen.formats.pe.sets import NotBeginning

_ANY4 = anything(4)
_NO_RICH = IntSet(4, NotBeginning(4, RICH))
_FLAGS = IntSet(2, Bits(FILE_CHARACTERISTICS, IMAGE_FILE_EXECUTABLE_IMAGE))
_LOADED_FLAGS = IntSet(
    2, Bits(FILE_CHARACTERISTICS & ~IMAGE_FILE_UP_SYSTEM_ONLY, IMAGE_FILE_EXECUTABLE_IMAGE)
)


def begin(plan: Plan, data: bytearray) -> Step:
    """The step of the PE signature."""
    start = plan.lfanew
    return IntStep(
        start, 4, exactly(4, 0x4550), "coff.Signature", "PE and two zeros", lambda value, data: _machine(plan)
    )


def _machine(plan: Plan) -> Step:
    machine = plan.target.machine
    return IntStep(
        plan.lfanew + 4,
        2,
        exactly(2, machine),
        "coff.Machine",
        f"{machine:#x} for {plan.target.name}",
        lambda value, data: _sections(plan),
    )


def _sections(plan: Plan) -> Step:
    fixed = plan.lfanew + COFF_SIZE + plan.target.optional_size
    content = least_content(plan.target, plan.level)
    room = min((plan.limit - content) // LEAST_BLOCK * LEAST_BLOCK, HEADERS_END - 1)
    most = min(MAX_SECTIONS, (room - fixed) // SECTION_SIZE)
    return IntStep(
        plan.lfanew + 6,
        2,
        interval(2, 1, most),
        "coff.NumberOfSections",
        f"1 to {most}: as many headers as fit the first page and the file",
        lambda value, data: _timestamp(plan._replace(section_count=value)),
    )


def _timestamp(plan: Plan) -> Step:
    if plan.rich:
        choices, rule = _ANY4, "any"
    else:
        choices, rule = _NO_RICH, 'any but "Rich", which would be taken for the end of a Rich header'
    return IntStep(
        plan.lfanew + 8, 4, choices, "coff.TimeDateStamp", rule, lambda value, data: _symbols(plan)
    )


def _symbols(plan: Plan) -> Step:
    least = up(plan.headers_end, LEAST_BLOCK) + least_content(plan.target, plan.level)
    return IntStep(
        plan.lfanew + 12,
        4,
        IntSet(4, Span(0, 0), Span(least, min(plan.limit - 4, 0x7FFFFFFF))),
        "coff.PointerToSymbolTable",
        f"0, or from {least} on, past the headers and the entry point, with room for a string table",
        lambda value, data: _symbol_count(plan._replace(symbols=value)),
    )


def _symbol_count(plan: Plan) -> Step:
    most, rule = 0, "0: there is no symbol table"
    if plan.symbols:
        most = min((plan.limit - plan.symbols - 4) // SYMBOL_SIZE, 0x0FFFFFFF)
        rule = f"at most {most}: the symbols that fit, with the size of the string table after them"
    return IntStep(
        plan.lfanew + 16,
        4,
        interval(4, 0, most),
        "coff.NumberOfSymbols",
        rule,
        lambda value, data: _optional_size(_promised(plan, value)),
    )


def _promised(plan: Plan, count: int) -> Plan:
    """The plan that promises the symbols and the string table."""
    plan = plan._replace(symbol_count=count)
    if not plan.symbols:
        return plan
    ledger, end = plan.ledger, plan.symbols + SYMBOL_SIZE * count
    if count:
        ledger = ledger.add(Region(plan.symbols, end, "coff_symbols", "the symbol table"))
    ledger = ledger.add(Region(end, end + 4, "coff_strings", "the string table"))
    return plan._replace(ledger=ledger, string_need=4).reach(end + 4)


def _optional_size(plan: Plan) -> Step:
    size = plan.target.optional_size
    return IntStep(
        plan.lfanew + 20,
        2,
        exactly(2, size),
        "coff.SizeOfOptionalHeader",
        f"{size}: with 16 directories",
        lambda value, data: _characteristics(plan),
    )


def _characteristics(plan: Plan) -> Step:
    return IntStep(
        plan.lfanew + 22,
        2,
        _LOADED_FLAGS if plan.strict else _FLAGS,
        "coff.Characteristics",
        "known flags, EXECUTABLE_IMAGE among them",
        lambda value, data: optional.begin(plan._replace(characteristics=value)),
    )
