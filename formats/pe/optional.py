"""The optional header up to its directories: how the image lies in memory and in the file.

Fields come before what they depend on: the entry point before the alignments, the image size before the
sections. Each field's set keeps some `Layout` of the sections possible.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from bytegen.formats.core.intset import IntSet, anything, exactly, interval
from bytegen.formats.core.pieces import Bits, Finite, Piece, Span
from bytegen.formats.core.steps import FreeStep, IntStep, Step
from bytegen.formats.pe import directories_table
from bytegen.formats.pe.constants import (
    APPCONTAINER,
    BLOCKS,
    COFF_SIZE,
    DIRECTORIES,
    DLL_CHARACTERISTICS,
    DYNAMIC_BASE,
    EFI_SUBSYSTEMS,
    FORCE_INTEGRITY,
    HIGHEST_IMAGE,
    IMAGE_FILE_DLL,
    IMAGE_FILE_RELOCS_STRIPPED,
    LEAST_BLOCK,
    LOADED_SUBSYSTEMS,
    MEM_EXECUTE,
    NX_COMPAT,
    PAGES,
    SUBSYSTEMS,
)
from bytegen.formats.pe.dos import least_content
from bytegen.formats.pe.layout import Layout, Range, up
from bytegen.formats.pe.plan import Plan
from bytegen.formats.pe.sets import When

Then = Callable[[Plan], Step]
_BASE_STEP = 0x10000
_LEAST_BASE = 0x10000
_MOST_RESERVE = {4: 1 << 28, 8: 1 << 30}
_MOST_COMMIT = 1 << 24


def begin(plan: Plan) -> Step:
    """The step of the magic."""
    start, magic = plan.lfanew + COFF_SIZE, plan.target.magic
    free = [("MajorLinkerVersion", 1), ("MinorLinkerVersion", 1), ("SizeOfCode", 4)]
    free += [("SizeOfInitializedData", 4), ("SizeOfUninitializedData", 4)]
    return IntStep(
        start,
        2,
        exactly(2, magic),
        "optional.Magic",
        f"{magic:#x} for {plan.target.name}",
        lambda value, data: _free(plan, start + 2, free, lambda plan: _entry(plan, start + 16)),
    )


def _free(plan: Plan, start: int, fields: list[tuple[str, int]], then: Then) -> Step:
    """Fields that may be anything, one after another."""
    (name, size), rest = fields[0], fields[1:]

    def following(data: bytearray) -> Step:
        return _free(plan, start + size, rest, then) if rest else then(plan)

    return FreeStep(start, start + size, None, f"optional.{name}", "", following)


def _layout(
    plan: Plan, page: int, block: int, needs: tuple[Range, ...], top: int = HIGHEST_IMAGE, headers: int = 0
) -> Layout:
    """The sections of an image with these alignments and the least headers, unless their size is given."""
    start = up(headers or plan.headers_end, block)
    return Layout(page, block, start, page, top, plan.section_count, plan.raw_limit(), needs)


def _entry(plan: Plan, start: int) -> Step:
    # At level code no directory may take what is there.
    size = least_content(plan.target, plan.level)

    def build() -> Iterable[Piece]:
        for page in PAGES:
            yield from _layout(plan, page, LEAST_BLOCK, ()).places(size, size)
        if plan.characteristics & IMAGE_FILE_DLL:
            yield Span(0, 0)

    def allowed(value: int) -> bool:
        if not value:
            return bool(plan.characteristics & IMAGE_FILE_DLL)
        return value % size == 0 and bool(_pages(plan, ((value, value + size),)))

    def following(value: int, data: bytearray) -> Step:
        settled = plan._replace(entry=value)
        if value:
            settled = settled.owing(value, value + size, MEM_EXECUTE)
            if plan.level == "code":
                settled = settled._replace(heads=((value, value + size),))
        fields = [("BaseOfCode", 4)] if plan.target.plus else [("BaseOfCode", 4), ("BaseOfData", 4)]
        return _free(settled, start + 4, fields, _base)

    return IntStep(
        start,
        4,
        IntSet(4, When(allowed, build)),
        "optional.AddressOfEntryPoint",
        "an address past the first page that a section of the file can hold (or 0 in a DLL)",
        following,
    )


def _pages(plan: Plan, needs: tuple[Range, ...]) -> list[int]:
    """The values of SectionAlignment with which the sections can hold what is owed."""
    return [page for page in PAGES if _layout(plan, page, LEAST_BLOCK, needs).feasible()]


def _least_image(plan: Plan, page: int) -> int:
    bounds = _layout(plan, page, LEAST_BLOCK, plan.ranges()).tops(HIGHEST_IMAGE).bounds()
    assert bounds is not None
    return bounds[0]


def _room(plan: Plan) -> tuple[Range, ...]:
    """The addresses among which the whole image lies."""
    target, flags = plan.target, plan.characteristics
    if not plan.strict:
        return ((0, 1 << 8 * target.word),)
    if not flags & IMAGE_FILE_DLL:
        return target.programs
    if flags & IMAGE_FILE_RELOCS_STRIPPED:
        return target.fixed_libraries
    return ((_LEAST_BASE, target.highest),)


def _base(plan: Plan) -> Step:
    size = plan.target.word
    start = plan.lfanew + COFF_SIZE + (24 if plan.target.plus else 28)
    image = min(_least_image(plan, page) for page in _pages(plan, plan.ranges()))
    ranges = _room(plan)
    spans = [Span(low, high - image, _BASE_STEP) for low, high in ranges if low + image <= high]
    where = " or ".join(f"{low:#x} to {high:#x}" for low, high in ranges)
    if _may_be_moved(plan):
        spans.append(Span(0, 0))
        where += ", or 0 for EFI"
    return IntStep(
        start,
        size,
        IntSet(size, *spans),
        "optional.ImageBase",
        f"a multiple of 64 KiB, with the image inside {where}",
        lambda value, data: _section_alignment(plan._replace(base=value)),
    )


def _may_be_moved(plan: Plan) -> bool:
    """Whether ImageBase may be 0 at a level that asks for more: firmware moves EFI images where it likes."""
    return plan.strict and not plan.characteristics & (IMAGE_FILE_DLL | IMAGE_FILE_RELOCS_STRIPPED)


def _top(plan: Plan) -> int:
    """The greatest image size."""
    if not plan.base:
        return HIGHEST_IMAGE
    high = next(high for low, high in _room(plan) if low <= plan.base < high)
    return min(HIGHEST_IMAGE, high - plan.base)


def _section_alignment(plan: Plan) -> Step:
    pages = [page for page in _pages(plan, plan.ranges()) if _least_image(plan, page) <= _top(plan)]
    return IntStep(
        plan.lfanew + COFF_SIZE + 32,
        4,
        exactly(4, *pages),
        "optional.SectionAlignment",
        "a power of two from 4096 on with which a section of the file can hold the entry",
        lambda value, data: _file_alignment(plan._replace(page=value)),
    )


def _file_alignment(plan: Plan) -> Step:
    blocks = [
        block
        for block in BLOCKS
        if block <= plan.page and _layout(plan, plan.page, block, plan.ranges()).feasible()
    ]
    fields = [("MajorOperatingSystemVersion", 2), ("MinorOperatingSystemVersion", 2)]
    fields += [("MajorImageVersion", 2), ("MinorImageVersion", 2)]
    start = plan.lfanew + COFF_SIZE + 36
    return IntStep(
        start,
        4,
        exactly(4, *blocks),
        "optional.FileAlignment",
        "a power of two from 512 to SectionAlignment that leaves room for the sections",
        lambda value, data: _free(plan._replace(block=value), start + 4, fields, _major),
    )


def _major(plan: Plan) -> Step:
    choices, rule = anything(2), "any"
    if plan.strict:
        choices, rule = interval(2, 3, 10), "3 to 10: versions of Windows (3.10 to 10.0)"
    start = plan.lfanew + COFF_SIZE + 48
    return IntStep(
        start,
        2,
        choices,
        "optional.MajorSubsystemVersion",
        rule,
        lambda value, data: _minor(plan, value, start + 2),
    )


def _minor(plan: Plan, major: int, start: int) -> Step:
    choices, rule = anything(2), "any"
    if plan.strict and major == 3:
        choices, rule = interval(2, 10, 0xFFFF), "from 10 on: Windows asks for 3.10 at least"
    elif plan.strict and major == 10:
        choices, rule = exactly(2, 0), "0: no Windows is above 10.0"
    return IntStep(
        start,
        2,
        choices,
        "optional.MinorSubsystemVersion",
        rule,
        lambda value, data: _win32_version(plan, start + 2),
    )


def _win32_version(plan: Plan, start: int) -> Step:
    choices, rule = (exactly(4, 0), "0: it would override the version") if plan.strict else (anything(4), "")
    return IntStep(
        start,
        4,
        choices,
        "optional.Win32VersionValue",
        rule,
        lambda value, data: _image_size(plan, start + 4),
    )


def _image_size(plan: Plan, start: int) -> Step:
    layout = _layout(plan, plan.page, plan.block, plan.ranges())
    return IntStep(
        start,
        4,
        IntSet(4, layout.tops(_top(plan))),
        "optional.SizeOfImage",
        f"a multiple of {plan.page:#x}, where the last section ends: past the headers, a page for each "
        "section, and the entry",
        lambda value, data: _headers_size(plan._replace(image_size=value), start + 4),
    )


def _headers_size(plan: Plan, start: int) -> Step:
    layout = _layout(plan, plan.page, plan.block, plan.ranges(), plan.image_size)
    limit, cost = plan.raw_limit(), layout.cost()
    most = (limit - cost) // plan.block * plan.block if cost else limit
    most = min(most, plan.page)

    def following(value: int, data: bytearray) -> Step:
        settled = plan._replace(headers_size=value).reach(value)
        return _free(settled, start + 4, [("CheckSum", 4)], lambda plan: _subsystem(plan, start + 8))

    return IntStep(
        start,
        4,
        interval(4, plan.headers_end, most),
        "optional.SizeOfHeaders",
        f"from {plan.headers_end}, the end of the section table, to {most}: within the first page and the file",
        following,
    )


def _subsystem(plan: Plan, start: int) -> Step:
    known: tuple[int, ...] = SUBSYSTEMS
    rule = "a known subsystem"
    if plan.strict:
        known = LOADED_SUBSYSTEMS if plan.base else EFI_SUBSYSTEMS
        rule = "a subsystem whose programs are loaded" if plan.base else "EFI, since ImageBase is 0"
    return IntStep(
        start,
        2,
        exactly(2, *known),
        "optional.Subsystem",
        rule,
        lambda value, data: _dll_flags(plan._replace(subsystem=value), start + 2),
    )


def _dll_flags(plan: Plan, start: int) -> Step:
    # LIEF refuses APPCONTAINER with relocations, and Windows refuses it without.
    may, must = DLL_CHARACTERISTICS & ~APPCONTAINER, 0
    rule = "known flags, without APPCONTAINER"
    if plan.strict:
        may, rule = may & ~FORCE_INTEGRITY, f"{rule} and FORCE_INTEGRITY, which asks for a signature"
    if not plan.target.legacy and not plan.characteristics & IMAGE_FILE_RELOCS_STRIPPED:
        must, rule = DYNAMIC_BASE | NX_COMPAT, f"{rule}, with DYNAMIC_BASE and NX_COMPAT on this machine"
    return IntStep(
        start,
        2,
        IntSet(2, Bits(may, must)),
        "optional.DllCharacteristics",
        rule,
        lambda value, data: _reserve(plan._replace(dll_flags=value), "Stack", start + 2),
    )


def _reserve(plan: Plan, name: str, start: int) -> Step:
    size = plan.target.word
    most = _MOST_RESERVE[size] if plan.strict else (1 << 8 * size) - 1
    return IntStep(
        start,
        size,
        interval(size, 0, most),
        f"optional.SizeOf{name}Reserve",
        f"at most {most:#x}",
        lambda value, data: _commit(plan, name, value, start + size),
    )


def _commit(plan: Plan, name: str, reserve: int, start: int) -> Step:
    size = plan.target.word
    most = min(max(reserve, 0x1000), _MOST_COMMIT) if plan.strict else (1 << 8 * size) - 1

    def following(value: int, data: bytearray) -> Step:
        if name == "Stack":
            return _reserve(plan, "Heap", start + size)
        return _free(plan, start + size, [("LoaderFlags", 4)], lambda plan: _count(plan, start + size + 4))

    return IntStep(
        start,
        size,
        interval(size, 0, most),
        f"optional.SizeOf{name}Commit",
        f"at most {most:#x}",
        following,
    )


def _count(plan: Plan, start: int) -> Step:
    return IntStep(
        start,
        4,
        IntSet(4, Finite((DIRECTORIES,)), only=DIRECTORIES),
        "optional.NumberOfRvaAndSizes",
        "16, as compilers write",
        lambda value, data: directories_table.begin(plan, data),
    )
