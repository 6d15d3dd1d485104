"""The 16 data directories: addresses that the sections, still to come, must hold."""

from __future__ import annotations

from collections.abc import Iterable

from bytegen.formats.core.intset import IntSet, exactly
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Piece, Span
from bytegen.formats.core.steps import IntStep, Step
from bytegen.formats.pe import section_table
from bytegen.formats.pe.constants import CERTIFICATE_TABLE, COFF_SIZE, DIRECTORIES, DIRECTORY_NAMES
from bytegen.formats.pe.layout import Layout, Range, greatest, up, with_need
from bytegen.formats.pe.plan import Plan
from bytegen.formats.pe.sets import Slot, When
from bytegen.formats.pe.spec import Directory, offered

_NONE = exactly(4, 0)
_IMPORTS, _RELOCATIONS = 1, 5


def begin(plan: Plan, data: bytearray) -> Step:
    """The step of the first directory."""
    return _address(plan, 0, data)


def layout(plan: Plan) -> Layout:
    """The sections, none of which is read yet."""
    start = up(plan.headers_size, plan.block)
    return Layout(
        plan.page,
        plan.block,
        start,
        plan.page,
        plan.image_size,
        plan.section_count,
        plan.raw_limit(),
        plan.ranges(),
    )


def _start(plan: Plan, index: int) -> int:
    return plan.lfanew + COFF_SIZE + plan.target.optional_size - 8 * (DIRECTORIES - index)


def _address(plan: Plan, index: int, data: bytearray) -> Step:
    if index == DIRECTORIES:
        return section_table.begin(plan, layout(plan), data)
    spec = offered(index)
    if spec is not None and not spec.when(plan):
        spec = None
    path = f"directory.{DIRECTORY_NAMES[index]}.address"
    if spec is None:
        choices, rule = _NONE, "0: not in files of this format"
    elif index == CERTIFICATE_TABLE:
        choices = IntSet(4, Span(0, 0), *_certificate_offsets(plan, spec))
        rule = "0, or an offset in the file, a multiple of 8, past the sections' data"
    elif spec.in_headers:
        spans = [Span(up(plan.headers_end, 4), plan.headers_size - spec.least(plan.target), 4)]
        choices = IntSet(4, Span(0, 0), *(span for span in spans if span.bounds()))
        rule = f"0, or a multiple of {spec.align} between the section table and the end of the headers"
    else:
        low = _after_imports(plan, index)
        choices = IntSet(4, Span(0, 0), _addresses(plan, spec, low))
        rule = f"0, or a multiple of {spec.align} where one section can hold it, clear of other directories"
        rule += f"; from {low:#x} on, past the imports" if low else ""
    return IntStep(
        _start(plan, index),
        4,
        choices,
        path,
        rule,
        lambda value, data: _size(plan, index, spec, value, data),
    )


def _clear(heads: tuple[Range, ...], start: int, end: int) -> bool:
    return all(end <= low or high <= start for low, high in heads)


def _after_imports(plan: Plan, index: int) -> int:
    """The least address of the relocations at level "load": when they are read, all of the imports has been.

    So they can leave alone what the loader reads of imports after it has relocated the image.
    """
    start, size = plan.directories[_IMPORTS]
    return start + size if plan.strict and index == _RELOCATIONS and size else 0


def _addresses(plan: Plan, spec: Directory, low: int) -> When:
    """Where the smallest directory of the kind can be, from ``low`` on."""
    least = spec.least(plan.target)
    head = spec.head(plan.target, least)
    sections = layout(plan)

    def allowed(x: int) -> bool:
        return (
            x >= low
            and x % spec.align == 0
            and _clear(plan.heads, x, x + head)
            and sections.fits(x, x + least)
        )

    def build() -> Iterable[Piece]:
        for slot in sections.places(least, spec.align):
            for part in _outside(slot, plan.heads, head):
                if part.hi >= low:
                    yield Slot(max(part.lo, low), part.hi, part.period, part.first, part.last, part.align)

    return When(allowed, build)


def _outside(slot: Slot, heads: tuple[Range, ...], size: int) -> list[Slot]:
    """The parts of a slot where ``size`` bytes touch no head."""
    parts, low = [], slot.lo
    for start, end in sorted(heads):
        if start - size >= low:
            parts.append((low, min(start - size, slot.hi)))
        low = max(low, end)
    parts.append((low, slot.hi))
    return [
        Slot(a, b, slot.period, slot.first, slot.last, slot.align) for a, b in parts if a <= b
    ]  # an empty one among them does no harm


def _most(plan: Plan, spec: Directory, address: int) -> int:
    """The greatest Size of a directory at that address."""
    target, least = plan.target, spec.least(plan.target)
    most = layout(plan).most(address, least)
    if spec.most is not None:
        most = min(most, spec.most)
    after = min((start for start, _ in plan.heads if start >= address), default=None)
    if after is None or address + spec.head(target, most) <= after:
        return most
    return greatest(least, most, lambda size: address + spec.head(target, size) <= after)


def _size(plan: Plan, index: int, spec: Directory | None, address: int, data: bytearray) -> Step:
    if spec is None or not address:
        choices, rule = _NONE, "0: there is none"
    else:
        least = spec.least(plan.target)
        if index == CERTIFICATE_TABLE:
            most = plan.ledger.room(address, plan.headers_end)
        elif spec.in_headers:
            most = plan.headers_size - address
        else:
            most = _most(plan, spec, address)
        step = spec.step_for(plan.target)
        choices = IntSet(4, Span(least, most, step, least))
        rule = f"{least} to {most}, {step} apart: inside one section and clear of other directories"
        if spec.in_headers:
            rule = f"{least} to {most}: within the headers"

    def following(value: int, data: bytearray) -> Step:
        settled = plan if spec is None or not address else _settled(plan, index, spec, address, value)
        return _address(settled, index + 1, data)

    return IntStep(
        _start(plan, index) + 4, 4, choices, f"directory.{DIRECTORY_NAMES[index]}.size", rule, following
    )


def _settled(plan: Plan, index: int, spec: Directory, address: int, size: int) -> Plan:
    """The plan that owes a directory."""
    directories = list(plan.directories)
    directories[index] = (address, size)
    plan = plan._replace(directories=tuple(directories))
    if index == CERTIFICATE_TABLE:
        region = Region(address, address + size, spec.kind, "the certificate table", index)
        return plan._replace(ledger=plan.ledger.add(region)).reach(address + size)
    if spec.in_headers:  # promised when the section table is read: what is raw data begins behind the headers
        return plan
    head = (address, address + spec.head(plan.target, size))
    plan = plan._replace(heads=with_need(plan.heads, head))
    return plan.owing(address, address + size, spec.flags)


def _certificate_offsets(plan: Plan, spec: Directory) -> list[Span]:
    """File offsets past the raw data that the sections need, with room for the smallest table."""
    least, sections = spec.least(plan.target), layout(plan)
    cost = sections.cost()
    found = []
    for low, high in plan.ledger.gaps(plan.headers_end):
        if low == plan.headers_end:
            low = max(low, plan.headers_size, sections.start + cost if cost else 0)
        if low <= high - least:
            found.append(Span(up(low, 8), high - least, 8))
    return found
