"""Symbol tables: the check of those already written, and the grammar of those ahead.

Good symbols: the first is all zeros; local ones come first; type and binding are known, and st_other has known
bits; the section exists, or is absolute or common; thread-local ones lie inside PT_TLS where there is one. At
level "code", functions that lie in executable memory begin where an instruction does.

Sources: gABI chapter 4, LIEF's check_layout (PT_TLS), binutils' readelf.c.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from bytegen.formats.core.intset import IntSet, anything, exactly, interval
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Finite, Piece, Span
from bytegen.formats.core.records import Record, RecordsStep
from bytegen.formats.core.steps import IntStep, Step
from bytegen.formats.elf import space, tables
from bytegen.formats.elf.contents.records import (
    SHN_ABS,
    SHN_COMMON,
    SHT_DYNSYM,
    STB_LOCAL,
    STT_FUNC,
    STT_GNU_IFUNC,
    STT_TLS,
    SYMBOL,
    SYMBOL_BINDS,
    SYMBOL_TYPES,
    others,
)
from bytegen.formats.elf.plan import Plan, opener, proceed
from bytegen.formats.elf.target import Target
from bytegen.formats.elf.written import Behind, Lazily, Table, until_bad

_CHUNK = 4096
_GOOD_INFO = np.zeros(256, dtype=bool)
_GOOD_INFO[[bind << 4 | kind for bind in SYMBOL_BINDS for kind in SYMBOL_TYPES]] = True
_NONE = np.zeros(0, np.uint64)
_NOTHING: Piece = Finite((0,))


class SymbolDetail(NamedTuple):
    """What symbols ahead need: the section of their string table, how many are local, and a string table's size.

    ``link`` 0: no section header links them yet. ``locals`` -1: any number. ``names`` 0: as long as that of
    ``link``.
    """

    link: int = 0
    locals: int = -1
    names: int = 0


class SymbolRun(NamedTuple):
    """The longest run of good symbols at a place, and running totals over its prefixes."""

    length: int
    names: np.ndarray  # [i]: the greatest name offset among the first i + 1
    locals: np.ndarray  # [i]: how many of the first i + 1 are local

    def within(self, size: int) -> int:
        """How many symbols, from the first on, have names in a string table of ``size`` bytes."""
        return int(np.searchsorted(self.names, size, side="left"))


# Symbols behind


def _good(plan: Plan, raw: bytes, table: np.ndarray) -> np.ndarray:
    """bool for each symbol, whatever its place in the table."""
    shndx, kind = table["shndx"], table["info"] & 15
    good = _GOOD_INFO[table["info"]] & (table["other"] & (0xFF ^ others(plan.target)) == 0)
    good &= (shndx < plan.shnum) | (shndx == SHN_ABS) | (shndx == SHN_COMMON)
    tls = kind == STT_TLS
    if not plan.segments_read:
        good &= ~tls
    elif plan.tls_size is not None and tls.any():
        value, size = table["value"].astype(np.uint64), np.uint64(plan.tls_size)
        room = size - np.minimum(value, size)
        good &= ~tls | ((value <= size) & (table["size"] <= room))
    if plan.level == "code":
        named = np.flatnonzero(((kind == STT_FUNC) | (kind == STT_GNU_IFUNC)) & (shndx != 0) & good)
        if len(named):
            addresses = table["value"][named].astype(np.uint64)
            good[named] = tables.Hooks.function_starts(plan, addresses, raw)
    return good


def _run(plan: Plan, raw: bytes, start: int) -> SymbolRun:
    record = SYMBOL[plan.target.bits]
    count = max(0, len(raw) - start) // record.itemsize
    names: list[np.ndarray] = []
    locals_: list[np.ndarray] = []
    seen = 0
    was_local = True
    while seen < count:
        have = min(_CHUNK, count - seen)
        table = np.frombuffer(raw, record, have, start + seen * record.itemsize)
        good = _good(plan, raw, table)
        if seen == 0:
            good[0] = not any(raw[start : start + record.itemsize])
        local = table["info"] >> 4 == STB_LOCAL
        good &= ~local | np.concatenate(([was_local], local[:-1]))
        run = until_bad(good)
        names.append(table["name"][:run].astype(np.uint64))
        locals_.append(local[:run])
        seen += run
        if run < have:
            break
        was_local = bool(local[-1])
    if not seen:
        return SymbolRun(0, _NONE, _NONE)
    return SymbolRun(seen, np.maximum.accumulate(np.concatenate(names)), np.cumsum(np.concatenate(locals_)))


def symbols_behind(plan: Plan, behind: Behind, start: int) -> SymbolRun:
    """The run of good symbols that begins at ``start``."""
    key = ("symbols", start)
    if key not in behind.cache:
        behind.cache[key] = _run(plan, behind.raw, start)
    run: SymbolRun = behind.cache[key]
    return run


# Symbols ahead


@lru_cache(maxsize=64)
def _sets(target: Target, tls: bool) -> dict[str, IntSet]:
    """The sets of st_info: of local symbols, of the others, and of both."""
    kinds = [kind for kind in SYMBOL_TYPES if tls or kind != STT_TLS]
    every = [bind << 4 | kind for bind in SYMBOL_BINDS for kind in kinds]
    rest = [bind << 4 | kind for bind in SYMBOL_BINDS[1:] for kind in kinds]
    return {"locals": exactly(1, *kinds), "rest": exactly(1, *rest), "all": exactly(1, *every)}


def _functions(plan: Plan, written: bytes) -> IntSet:
    """Addresses at which functions may begin: outside executable memory any, inside it where code does."""
    word, top = plan.target.word, plan.target.top
    ranges = sorted(getattr(plan, "executable", ()), key=lambda part: part[2])
    pieces: list[Piece] = []
    low = 0
    for start, end, address in ranges:
        pieces.append(Span(low, address - 1))
        low = address + end - start

        def contains(x: int, address: int = address, low: int = low) -> bool:
            return address <= x < low and bool(
                tables.Hooks.function_starts(plan, np.array([x], np.uint64), written)[0]
            )

        def build(address: int = address, low: int = low) -> np.ndarray:
            every = np.arange(address, low, dtype=np.uint64)
            found: np.ndarray = every[tables.Hooks.function_starts(plan, every, written)]
            return found

        pieces.append(Lazily(contains, build))
    return IntSet(word, *pieces, Span(low, top))


def symbol_record(
    plan: Plan, locals_: int, names: int, data: bytes, defined: frozenset[int] = frozenset()
) -> Record:
    """The fields of the symbols after the null one, ``locals_`` of which are local with it (-1: any).

    Those that depend on others look at st_info, which ELF32 has last. ``data``: the bytes so far, at level "code".
    ``defined``: the numbers of those that have a section, or are absolute or common.
    """
    target = plan.target
    word = target.word
    infos = _sets(target, plan.segments_read)
    any_word, tls = anything(word), plan.tls_size
    sections = IntSet(2, Span(0, max(plan.shnum, 1) - 1), Finite((SHN_ABS, SHN_COMMON)))
    somewhere = IntSet(2, Span(1, plan.shnum - 1), Finite((SHN_ABS, SHN_COMMON)))
    functions = _functions(plan, data) if plan.level == "code" else None
    inside = None if tls is None else interval(word, 0, tls)
    ends = None if locals_ < 0 else locals_

    def info(step: RecordsStep, index: int, raw: bytes) -> IntSet:
        # The first record, all zeros, is not among these: the second symbol has index 0 here.
        found = infos["all"] if ends is None else infos["locals"] if index + 1 < ends else infos["rest"]
        if word == 8:
            return found
        return _fitting(found, int.from_bytes(raw[4:8], "little"), int.from_bytes(raw[8:12], "little"))

    def _fitting(found: IntSet, value: int, size: int) -> IntSet:
        barred = set()
        if tls is not None and value + size > tls:
            barred.add(STT_TLS)
        if functions is not None and not functions.contains(value):
            barred |= {STT_FUNC, STT_GNU_IFUNC}
        if not barred:
            return found
        return exactly(1, *(x for x in range(256) if found.contains(x) and x & 15 not in barred))

    def value(step: RecordsStep, index: int, raw: bytes) -> IntSet:
        kind = raw[4] & 15
        if kind == STT_TLS and inside is not None:
            return inside
        defined = raw[6:8] != b"\0\0"
        return (
            functions if functions is not None and kind in (STT_FUNC, STT_GNU_IFUNC) and defined else any_word
        )

    def size(step: RecordsStep, index: int, raw: bytes) -> IntSet:
        if tls is None or raw[4] & 15 != STT_TLS:
            return any_word
        return interval(word, 0, tls - int.from_bytes(raw[8:16], "little"))

    def section(step: RecordsStep, index: int, raw: bytes) -> IntSet:
        return somewhere if index + 1 in defined else sections

    name = ("st_name", 4, interval(4, 0, names - 1), f"inside the string table of {names} bytes")
    kinds = "a known type; local below sh_info, global or weak from there on"
    bits = others(target)
    tail = (
        ("st_other", 1, exactly(1, *(x for x in range(256) if x & ~bits == 0)), "a visibility"),
        ("st_shndx", 2, section if defined else sections, "a section, absolute or common"),
    )
    if word == 4:
        head = (name, ("st_value", 4, any_word, "any"), ("st_size", 4, any_word, "any"))
        return Record(*head, ("st_info", 1, info, kinds), *tail)
    plain = ends is None and tls is None and functions is None
    return Record(
        name,
        ("st_info", 1, infos["all"] if plain else info, kinds),
        *tail,
        ("st_value", 8, any_word if plain else value, "any; inside PT_TLS where it is thread-local"),
        ("st_size", 8, any_word if plain else size, "any; inside PT_TLS where it is thread-local"),
    )


def local_symbols(plan: Plan, offset: int) -> int:
    """How many of the dynamic symbols at ``offset`` are local: what their section header said; -1 without one."""
    found = (plan.sections[i] for i in plan.of_kind.get(SHT_DYNSYM, ()))
    header = next((part for part in found if part.offset == offset), None)
    return -1 if header is None else header.info


@opener("symbols")
def _open(plan: Plan, region: Region, data: bytearray) -> Step:
    detail: SymbolDetail = region.detail
    tables_known = [
        size for size in (detail.names, plan.sections[detail.link].size if detail.link else 0) if size
    ]
    names = min(tables_known, default=1)
    size, word = plan.target.sym_size, 8
    count = (region.end - region.start) // size - 1
    path = f"{region.path}.sym"

    def rest(data: bytearray) -> Step:
        after = region.start + size
        if not count:
            return proceed(plan, after, data)
        record = symbol_record(plan, detail.locals, names, bytes(data) if plan.level == "code" else b"")
        return RecordsStep(after, count, record, path, lambda data: proceed(plan, region.end, data))

    def null(at: int) -> Step:
        return IntStep(
            region.start + at,
            word,
            exactly(word, 0),
            f"{path}.null",
            "the first symbol is all zeros",
            lambda value, data: null(at + word) if at + word < size else rest(data),
        )

    return null(0)


# What headers ask


def offsets(plan: Plan, table: Table, request: tables.Request) -> list[Piece]:
    """Where at least ``request.least`` bytes of symbols are or fit."""
    size = plan.target.sym_size
    least = max(request.least, size)
    names = request.detail.names if request.detail is not None else 0

    def fits(x: int) -> bool:
        if x + least > len(table.behind.raw):
            return False
        run = symbols_behind(plan, table.behind, x)
        return (run.within(names) if names else run.length) * size >= least

    def build() -> np.ndarray:
        zeros = b"\0" * size
        found, place = [], table.behind.raw.find(zeros)
        while place >= 0:
            if fits(place):
                found.append(place)
            place = table.behind.raw.find(zeros, place + 1)
        return np.array(found, np.uint64)

    return [
        Lazily(fits, build),
        *space.starts(plan, table, "symbols", request.index, least),
        space.same(plan, table, "symbols", least),
    ]


def sizes(plan: Plan, table: Table, offset: int, request: tables.Request) -> list[Piece]:
    """Sizes of a symbol table at ``offset`` whose names lie in a table of ``request.detail.names`` bytes."""
    size = plan.target.sym_size
    names = request.detail.names if request.detail is not None else 0
    least = space.up(request.least, size)
    nothing = [] if least else [_NOTHING]
    if offset < table.start:
        run = symbols_behind(plan, table.behind, offset)
        return [*nothing, Span(least, size * (run.within(names) if names else run.length), size)]
    return [*nothing, *space.ahead(plan, table, offset, "symbols", request.index, size, max(least, size))]


def promise(plan: Plan, offset: int, size: int, path: str, detail: Any) -> Plan:
    """The plan with symbols promised ahead; of two promises the stricter detail holds."""
    detail = detail if detail is not None else SymbolDetail()
    known = plan.ledger.at(offset, "symbols")
    if known is None:
        region = Region(offset, offset + size, "symbols", path, detail)
        return plan._replace(ledger=plan.ledger.add(region))
    old: SymbolDetail = known.detail
    sizes = [size for size in (old.names, detail.names) if size]
    merged = SymbolDetail(
        old.link or detail.link, old.locals if old.locals >= 0 else detail.locals, min(sizes, default=0)
    )
    if merged == old:
        return plan
    return plan._replace(ledger=plan.ledger.replace(known, known._replace(detail=merged)))


tables.register(tables.Kind("symbols", offsets, sizes, promise))
