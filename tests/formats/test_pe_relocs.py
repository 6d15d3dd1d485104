"""Base relocations leave alone what a loader reads of the imports once it has relocated the image.

pefile says where imports and relocations are.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bytegen import formats
from bytegen.formats.core.ledger import Ledger
from bytegen.formats.oracles.compilers import compiled_programs
from bytegen.formats.pe.directories.import_reads import read_of_imports
from bytegen.formats.pe.directories.relocs import _slots
from bytegen.formats.pe.plan import Plan, Section
from bytegen.formats.pe.target import I386, X86_64

pefile = pytest.importorskip("pefile")

_IMPORTS, _RELOCATIONS = 1, 5


def _reads(image: pefile.PE) -> Iterator[tuple[int, int]]:
    """The addresses that a loader reads of imports: descriptors, tables, names of functions, names of DLLs."""
    word = 8 if image.PE_TYPE == pefile.OPTIONAL_HEADER_MAGIC_PE_PLUS else 4
    dlls = getattr(image, "DIRECTORY_ENTRY_IMPORT", [])
    if dlls:
        start = image.OPTIONAL_HEADER.DATA_DIRECTORY[_IMPORTS].VirtualAddress
        yield start, start + 20 * (len(dlls) + 1)
    for dll in dlls:
        yield dll.struct.Name, dll.struct.Name + len(dll.dll) + 1
        for table in {dll.struct.OriginalFirstThunk, dll.struct.FirstThunk} - {0}:
            yield table, table + word * (len(dll.imports) + 1)
        for entry in dll.imports:
            if entry.name is not None and entry.name_offset is not None:
                begin = image.get_rva_from_offset(entry.name_offset) - 2
                yield begin, begin + 2 + len(entry.name) + 1


def _relocated(image: pefile.PE) -> list[int]:
    return [
        entry.rva
        for block in getattr(image, "DIRECTORY_ENTRY_BASERELOC", [])
        for entry in block.entries
        if entry.type
    ]


@pytest.mark.parametrize("name", ["pe32plus-x86_64", "pe32-i386"])
def test_random_files_relocate_nothing_that_is_read_of_imports(name: str) -> None:
    for seed in range(12):
        image = pefile.PE(data=formats.sample(name, seed, 8_000, "load", "lively"))
        word = 8 if name.startswith("pe32plus") else 4
        reads, relocated = list(_reads(image)), _relocated(image)
        assert not [x for x in relocated for low, high in reads if low < x + word and x < high], (
            f"seed {seed}"
        )
        rows = image.OPTIONAL_HEADER.DATA_DIRECTORY
        if rows[_IMPORTS].Size and rows[_RELOCATIONS].Size:
            assert rows[_RELOCATIONS].VirtualAddress > rows[_IMPORTS].VirtualAddress


@pytest.mark.parametrize("recipe", ["mingw-64", "mingw-stripped-64", "mingw-stripped-32", "mingw-dll-64"])
def test_what_is_read_of_imports_is_found_and_left_alone(recipe: str, tmp_path: Path) -> None:
    found = list(compiled_programs(tmp_path, names=(recipe,)))
    if not found:
        pytest.skip("no such compiler here")
    data = found[0][1]
    image = pefile.PE(data=data)
    target = X86_64 if recipe.endswith("64") else I386
    plan = Plan(target, len(data), "load", True, True, Ledger(len(data)), 0)._replace(
        directories=tuple((row.VirtualAddress, row.Size) for row in image.OPTIONAL_HEADER.DATA_DIRECTORY),
        sections=tuple(
            Section(
                s.Name,
                s.VirtualAddress,
                s.Misc_VirtualSize,
                s.PointerToRawData,
                s.SizeOfRawData,
                s.Characteristics,
            )
            for s in image.sections
        ),
    )
    pinned = read_of_imports(plan, data)
    expected = {x for low, high in _reads(image) for x in range(low, high)}
    assert expected
    assert {x for low, high in pinned for x in range(low, high)} == expected
    for page in sorted({x & ~0xFFF for x in expected}):
        places = [page + x for low, high in _slots(plan, page, (), pinned) for x in range(low, high + 1)]
        assert not [x for x in places if not expected.isdisjoint(range(x, x + target.word))]
