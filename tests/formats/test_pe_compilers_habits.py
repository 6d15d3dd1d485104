"""Habits of compilers and linkers that no rule may refuse: equal functions folded, export names out of order."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

pytest.importorskip("lief")
pytest.importorskip("pefile")

from steered import steered

from bytegen import formats
from bytegen.formats.oracles import rawpe
from bytegen.formats.oracles.compilers import compiled_programs
from bytegen.formats.oracles.lief_pe import lief_pe_judge
from bytegen.formats.oracles.pefile_judge import pefile_judge
from bytegen.formats.oracles.wine import wine_judge, wine_missing


@pytest.mark.parametrize("level", ["parse", "load"])
def test_functions_folded_into_one_have_a_record_each(level: str) -> None:
    for seed in range(4):
        wanted = {
            "dos.e_lfanew": 64, "coff.NumberOfSections": 1, "coff.PointerToSymbolTable": 0,
            "optional.SectionAlignment": 4096, "optional.FileAlignment": 512, "optional.SizeOfImage": 0x2000,
            "optional.AddressOfEntryPoint": 0x1300, "section[0].VirtualSize": 0x400, "section[0].SizeOfRawData": 0x400,
            "directory.exceptions.address": 0x1000, "directory.exceptions.size": 36,
            **{f"directory.{name}.address": 0 for name in ("exports", "imports", "resources", "tls", "delay_imports")},
            "exceptions[0].BeginAddress": 0x1310, "exceptions[0].EndAddress": 0x1320,
            "exceptions[1].BeginAddress": 0x1310, "exceptions[2].BeginAddress": 0x1310,
        }  # fmt: skip
        c = formats.constraint("pe32plus-x86_64", max_bytes=4000, level=level)
        data = steered(c, random.Random(seed), wanted)
        functions = rawpe.read_functions(rawpe.read_raw_pe(data))
        assert [row[:2] for row in functions] == [(0x1310, 0x1320)] * 3
        assert lief_pe_judge(data) + pefile_judge(data) == []
        assert formats.replay(formats.constraint("pe32plus-x86_64", level=level), data) is None
        apart = bytearray(data)
        place = data.find((0x1310).to_bytes(4, "little") + (0x1320).to_bytes(4, "little")) + 16
        apart[place] += 1  # the second ends elsewhere
        assert formats.replay(formats.constraint("pe32plus-x86_64", level=level), bytes(apart)) is not None


def test_exports_whose_names_are_out_of_order_are_taken(tmp_path: Path) -> None:
    """Loaders find a name by bisection, and some of these not; none looks before it maps the file."""
    found = list(compiled_programs(tmp_path, names=("mingw-dll-64",)))
    if not found:
        pytest.skip("no compiler for Windows")
    data = bytearray(found[0][1])
    raw = rawpe.read_raw_pe(bytes(data))
    exports = rawpe.read_exports(raw)
    assert exports is not None
    fields = exports[0]
    for table, width in (("AddressOfNames", 4), ("AddressOfNameOrdinals", 2)):
        start = raw.offset(fields[table])
        assert start is not None
        stop = start + width * fields["NumberOfNames"]
        rows = [data[i : i + width] for i in range(start, stop, width)]
        data[start:stop] = b"".join(reversed(rows))
    turned = bytes(data)
    changed = rawpe.read_exports(rawpe.read_raw_pe(turned))
    assert changed is not None
    assert [n for listed in changed[2].values() for n in listed] != sorted(
        n for listed in changed[2].values() for n in listed
    )
    assert lief_pe_judge(turned) + pefile_judge(turned) == []
    if wine_missing() is None:
        # The compiler's own library comes along.
        assert [line for line in wine_judge(turned) if "no DLL libgcc" not in line] == []
    for level in ("parse", "load"):
        c = formats.constraint("pe32plus-x86_64", max_bytes=len(turned), level=level, imports="any")
        assert formats.replay(c, turned) is None
