"""What a loader reads of the imports once it has relocated the image, found in a file that is written so far.

That is all there is to imports: descriptors up to the null one, tables, names of functions, names of DLLs. By the time
that relocations are read all of it is written, at level "load" (see `directories_table`). Linkers give the directory
the size of the whole section (GNU ld), which holds other things too: address tables of delayed imports, which must
be relocated.
"""

from __future__ import annotations

from collections.abc import Iterator

from bytegen.formats.pe.directories.groups import HINT
from bytegen.formats.pe.directories.memory import mapping
from bytegen.formats.pe.layout import Range
from bytegen.formats.pe.plan import Plan

_IMPORTS, RELOCATIONS = 1, 5
_DESCRIPTOR = 20
_ANYWHERE = 1 << 40


def stop_of_imports(plan: Plan) -> int:
    """The file offset by which all of the imports is written: at level "load", where the relocations begin."""
    address, size = plan.directories[RELOCATIONS]
    offset = mapping(plan.sections).offset(address) if plan.strict and size else None
    return _ANYWHERE if offset is None else offset


def read_of_imports(plan: Plan, raw: bytes | bytearray) -> list[Range]:
    """The addresses that are read, as ranges [start, end), ascending and apart from each other."""
    merged: list[Range] = []
    for start, end in sorted(set(_ranges(plan, raw))):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def _ranges(plan: Plan, raw: bytes | bytearray) -> Iterator[Range]:
    address, size = plan.directories[_IMPORTS]
    offset = mapping(plan.sections).offset(address) if size else None
    if offset is None:
        return
    for at in range(offset, offset + size - _DESCRIPTOR + 1, _DESCRIPTOR):
        yield address + at - offset, address + at - offset + _DESCRIPTOR
        lookup, _, _, name, addresses = (
            int.from_bytes(raw[at + i : at + i + 4], "little") for i in range(0, _DESCRIPTOR, 4)
        )
        if not name or not addresses:
            return
        yield _text(plan, raw, name, 0)
        for table in {lookup, addresses} - {0}:
            # Names are read from the lookup table, where there is one.
            yield from _table(plan, raw, table, named=not lookup or table == lookup)


def _text(plan: Plan, raw: bytes | bytearray, address: int, before: int) -> Range:
    """A string that ends with a zero, ``before`` bytes after an address."""
    offset = mapping(plan.sections).offset(address)
    end = -1 if offset is None else raw.find(0, offset + before)
    return address, address + (1 if offset is None or end < 0 else end + 1 - offset)


def _table(plan: Plan, raw: bytes | bytearray, address: int, named: bool) -> Iterator[Range]:
    word, offset = plan.target.word, mapping(plan.sections).offset(address)
    flag, count = 1 << 8 * word - 1, 1
    while offset is not None:
        value = int.from_bytes(raw[offset : offset + word], "little")
        if not value:
            break
        if named and not value & flag:
            yield _text(plan, raw, value, HINT)
        offset, count = offset + word, count + 1
    yield address, address + word * count


__all__ = ["RELOCATIONS", "read_of_imports", "stop_of_imports"]
