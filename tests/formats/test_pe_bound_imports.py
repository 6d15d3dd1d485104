"""Bound imports: what bind.exe writes replays at every level, what is drawn is read back by every judge."""

from __future__ import annotations

import random
import struct

import pytest

pytest.importorskip("lief")
pytest.importorskip("pefile")

from binding import bound
from hypothesis import given, settings
from hypothesis import strategies as st
from steered import steered

from bytegen import formats
from bytegen.formats.core.constraint import END
from bytegen.formats.oracles import rawpe
from bytegen.formats.oracles.compilers import compiled_programs
from bytegen.formats.oracles.lief_pe import lief_pe_judge
from bytegen.formats.oracles.pefile_judge import pefile_judge
from bytegen.formats.oracles.wine import wine_judge, wine_missing

FORMATS = ("pe32plus-x86_64", "pe32-i386", "pe32plus-aarch64")
_OTHERS = ("exports", "resources", "exceptions", "certificates", "relocs", "debug", "tls", "load_config",
           "delay_imports", "clr")  # fmt: skip


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A program of mingw's for each machine: lookup tables come before address tables."""
    folder = tmp_path_factory.mktemp("bound")
    found = {
        r.format: data
        for r, data in compiled_programs(folder, names=("mingw-stripped-64", "mingw-stripped-32"))
    }
    if not found:
        pytest.skip("no compiler for Windows")
    return found


def test_a_bound_program_replays_and_the_judges_take_it(programs: dict[str, bytes]) -> None:
    for format, data in programs.items():
        made = bound(data, {b"KERNEL32.dll": [b"NTDLL.dll"]})
        raw = rawpe.read_raw_pe(made)
        listed = rawpe.read_bound_imports(raw)
        assert [one.name for one in listed] == [one.name for one in rawpe.read_imports(raw)]
        assert [name for one in listed for _, name in one.forwarders] == [b"NTDLL.dll"]
        assert lief_pe_judge(made) + pefile_judge(made) == []
        for level in ("parse", "load"):
            c = formats.constraint(format, max_bytes=len(made), level=level)
            assert formats.replay(c, made) is None, level
        if wine_missing() is None and format == "pe32plus-x86_64":
            assert wine_judge(made) == []


def test_what_a_bound_program_may_not_say_is_refused_by_its_field(programs: dict[str, bytes]) -> None:
    for format, data in programs.items():
        made = bound(data)
        start, size = rawpe.read_raw_pe(made).directory(rawpe.BOUND_IMPORT)
        for place, form, value, field in (
            (start + 4, "<H", 8, "OffsetModuleName"),  # inside the descriptors
            (start + 4, "<H", size, "OffsetModuleName"),  # behind the directory
            (start + 6, "<H", 200, "NumberOfModuleForwarderRefs"),
            (start + size - 1, "<B", 0x41, "bound_imports.name"),  # without its zero
        ):
            bad = bytearray(made)
            struct.pack_into(form, bad, place, value)
            refusal = formats.replay(
                formats.constraint(format, max_bytes=len(bad), level="parse"), bytes(bad)
            )
            assert refusal is not None
            assert field in refusal.field
        unknown = made.replace(b"KERNEL32.dll", b"KERNELXX.dll")
        refusal = formats.replay(formats.constraint(format, max_bytes=len(made)), unknown)
        assert refusal is not None
        assert refusal.field.startswith("bound_imports.name")


@settings(max_examples=10, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 1 << 32), format=st.sampled_from(FORMATS), level=st.sampled_from(("parse", "load"))
)
def test_drawn_directories_are_read_back(seed: int, format: str, level: str) -> None:
    rng = random.Random(seed)
    wanted = {
        "dos.e_lfanew": 64, "coff.NumberOfSections": 1, "coff.PointerToSymbolTable": 0,
        "optional.AddressOfEntryPoint": 0x1000, "optional.SectionAlignment": 4096, "optional.SizeOfImage": 0x2000,
        "optional.FileAlignment": 512, "optional.SizeOfHeaders": 1024, "directory.bound_imports.address": 512,
        "directory.bound_imports.size": rng.choice((32, 40, 100, 300)),
        "NumberOfModuleForwarderRefs": rng.choice((0, 1, 2)),
        **{f"directory.{name}.address": 0 for name in _OTHERS},
    }  # fmt: skip
    data = steered(formats.constraint(format, max_bytes=4000, level=level), rng, wanted)
    raw = rawpe.read_raw_pe(data)
    assert rawpe.read_bound_imports(raw)
    assert lief_pe_judge(data) + pefile_judge(data) == []
    assert formats.replay(formats.constraint(format, level=level), data) is None


def _with_tables_first(c: formats.Constraint, rng: random.Random, per: int) -> bytes:
    """A file whose imports follow address tables of ``per`` - 1 words each, as Microsoft's linker orders them."""
    wanted = {
        "dos.e_lfanew": 64, "coff.NumberOfSections": 1, "coff.PointerToSymbolTable": 0,
        "optional.SectionAlignment": 4096, "optional.FileAlignment": 512, "optional.SizeOfImage": 0x2000,
        "optional.AddressOfEntryPoint": 0x17FC, "optional.SizeOfHeaders": 0x200,
        "section[0].VirtualSize": 0x800, "section[0].SizeOfRawData": 0x800,
        "directory.iat.address": 0x1000, "directory.iat.size": 0x80,
        "directory.imports.address": 0x1080, "directory.imports.size": 100,
        **{f"directory.{name}.address": 0 for name in (*_OTHERS, "bound_imports")},
    }  # fmt: skip
    word = 4 if c.format == "pe32-i386" else 8
    path, start, value = "", 0, -1
    while not c.done:
        mask, name = c.mask(), c.field()
        if name != path:
            path, start, value = name, c.position, wanted.get(name, -1)
        byte = value >> 8 * (c.position - start) & 0xFF
        if 0x200 <= c.position < 0x280:
            byte = 0 if (c.position - 0x200) // word % per == per - 1 else rng.randrange(1, 256)
        elif value < 0 or not mask[byte]:
            allowed = mask.nonzero()[0]
            if name.startswith("imports[") and "Thunk" in name + "Thunk" * name.endswith(".Name"):
                allowed = allowed[allowed != 0] if len(allowed) > 1 else allowed
            byte = END if mask[END] and rng.random() < 0.1 else int(allowed[rng.randrange(len(allowed))])
        c.advance(byte)
    return c.data


@pytest.mark.parametrize("imports", ["known", "any"])
def test_drawn_lookup_tables_have_as_many_entries_as_the_bound_table_behind(imports: str) -> None:
    behind = 0
    for seed in range(6):
        format, level = FORMATS[seed % 3], ("load", "parse")[seed // 3]
        per = (2, 4, 6)[seed // 3 + seed % 2]
        c = formats.constraint(format, max_bytes=4000, level=level, imports=imports)  # type: ignore[arg-type]
        data = _with_tables_first(c, random.Random(seed), per)
        assert lief_pe_judge(data) + pefile_judge(data) == [], seed
        raw = rawpe.read_raw_pe(data)
        for found in rawpe.read_imports(raw):
            if found.fields[4] < 0x1080:
                behind += 1
                word = raw.bits // 8
                end = raw.at(found.fields[4] + word * len(found.thunks), word)
                assert found.thunks
                assert not any(end), seed
        again = formats.constraint(format, level=level, imports=imports)  # type: ignore[arg-type]
        assert formats.replay(again, data) is None, seed
    assert behind > 1
