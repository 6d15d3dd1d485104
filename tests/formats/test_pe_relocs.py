"""Base relocations leave alone what a loader reads of the imports once it has relocated the image.

pefile says where imports and relocations are.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bytegen import formats
from bytegen.formats.oracles.compilers import compiled_programs

pefile = pytest.importorskip("pefile")

_IMPORTS, _RELOCATIONS = 1, 5


def _reads(image: pefile.PE) -> Iterator[tuple[int, int]]:
    """The addresses that a loader reads of imports: tables, names of functions, names of DLLs."""
    word = 8 if image.PE_TYPE == pefile.OPTIONAL_HEADER_MAGIC_PE_PLUS else 4
    for dll in getattr(image, "DIRECTORY_ENTRY_IMPORT", []):
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
    for seed in range(40):
        image = pefile.PE(data=formats.sample(name, seed, 30_000, "load", "lively"))
        word = 8 if name.startswith("pe32plus") else 4
        reads, relocated = list(_reads(image)), _relocated(image)
        assert not [x for x in relocated for low, high in reads if low < x + word and x < high], (
            f"seed {seed}"
        )
        rows = image.OPTIONAL_HEADER.DATA_DIRECTORY
        if rows[_IMPORTS].Size and rows[_RELOCATIONS].Size:
            assert rows[_RELOCATIONS].VirtualAddress > rows[_IMPORTS].VirtualAddress


@pytest.mark.parametrize("recipe", ["zig-windows-64", "zig-windows-32"])
def test_an_entry_may_not_name_a_byte_of_an_import(recipe: str, tmp_path: Path) -> None:
    found = list(compiled_programs(tmp_path, names=(recipe,)))
    if not found:
        pytest.skip("no zig here")
    data = found[0][1]
    image = pefile.PE(data=data)
    rows = image.OPTIONAL_HEADER.DATA_DIRECTORY
    if not rows[_RELOCATIONS].Size:
        pytest.skip("this linker writes no relocations")
    word, kind = (8, 10) if recipe.endswith("64") else (4, 3)
    start = image.get_offset_from_rva(rows[_RELOCATIONS].VirtualAddress)
    constraint = formats.constraint(found[0][0].format, max_bytes=len(data), level="load")
    assert constraint.advance_many(data[:start]) == start
    reads = list(_reads(image))
    name, end = next(part for part in reads if part[1] - part[0] > word + 4)
    page = min(_relocated(image)) & ~0xFFF
    assert page <= name & ~0xFFF
    page = name & ~0xFFF
    assert constraint.advance_many(page.to_bytes(4, "little")) == 4
    assert constraint.advance_many((12).to_bytes(4, "little")) == 4
    assert constraint.field().endswith("entry[0]")

    def taken(address: int) -> bool:
        value = kind << 12 | address - page
        return constraint.fork().advance_many(value.to_bytes(2, "little")) == 2

    inside = [x for x in range(name - word + 1, end) if page <= x < page + 0x1000]
    assert inside
    assert not any(map(taken, inside))
    free = [
        x
        for x in range(page, page + 0x1000 - word)
        if all(x + word <= low or x >= high for low, high in reads)
        and all(
            x + word <= rows[i].VirtualAddress or x >= rows[i].VirtualAddress + rows[i].Size
            for i in (1, 5, 12)
        )
    ]
    assert any(map(taken, free))
