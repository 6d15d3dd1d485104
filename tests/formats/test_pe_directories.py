"""The contents of PE directories: what compilers write replays, what is drawn passes the judges."""

import importlib.util
import random
import shutil
import struct
import subprocess
import sys
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("lief")
pytest.importorskip("pefile")

from steered import steered

from bytegen import formats
from bytegen.formats.oracles import rawpe
from bytegen.formats.oracles.disassembly import executable_parts
from bytegen.formats.oracles.instructions import instructions_judge
from bytegen.formats.oracles.lief_pe import lief_pe_judge
from bytegen.formats.oracles.pefile_judge import pefile_judge
from bytegen.formats.pe.constants import DIRECTORY_NAMES, MEM_READ
from bytegen.formats.pe.directories.exported import Continued, ContinuedDll, names
from bytegen.formats.pe.directories.load_config import SIZES, layout
from bytegen.formats.pe.directories.relocs import _slots, cost
from bytegen.formats.pe.directories.unwind import written

PROGRAM = """
#include <stdio.h>
#include <math.h>
#include <windows.h>
static __thread int calls = 3;
__declspec(dllexport) double root(double x) { calls++; return sqrt(x); }
int main(int argc, char **argv) { printf("%f %d %lu\\n", root(argc), calls, GetTickCount()); return 0; }
"""
RESOURCES = (
    '1 VERSIONINFO FILEVERSION 1,2,3,4 { BLOCK "StringFileInfo" { BLOCK "040904b0" { VALUE "A", "B" } } }\n'
)
RESOURCES += 'thing RCDATA { "some data" }\nSTRINGTABLE { 1 "one" 2 "two" }\n'
FORMATS = ("pe32plus-x86_64", "pe32-i386")


def _gcc(bits):
    return shutil.which({32: "i686", 64: "x86_64"}[bits] + "-w64-mingw32-gcc")


def _made(folder, bits, *options, by_zig=False):
    """A program or library by mingw, with resources, or else by zig."""
    source, output = folder / "p.c", folder / "p.exe"
    source.write_text(PROGRAM)
    gcc = None if by_zig else _gcc(bits)
    if gcc is not None:
        (folder / "p.rc").write_text(RESOURCES)
        windres = gcc.replace("gcc", "windres")
        subprocess.run([windres, folder / "p.rc", folder / "rc.o"], check=True)
        command = [gcc, str(source), str(folder / "rc.o")]
    elif importlib.util.find_spec("ziglang"):
        target = {32: "x86", 64: "x86_64"}[bits] + "-windows-gnu"
        command = [sys.executable, "-m", "ziglang", "cc", "-target", target, str(source)]
    else:
        pytest.skip("no compiler for Windows")
    subprocess.run([*command, *options, "-o", str(output)], check=True, capture_output=True)
    return output.read_bytes()


@pytest.mark.parametrize(
    "options", [("-O1",), ("-O2", "-s"), ("-shared", "-s", "-static-libgcc")], ids=" ".join
)
@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("level", ["parse", "load"])
def test_compiled_files_replay(tmp_path, bits, options, level):
    data = _made(tmp_path, bits, *options)
    c = formats.constraint(FORMATS[bits == 32], max_bytes=max(len(data), 200_000), level=level)
    assert formats.replay(c, data) is None


@pytest.mark.parametrize("bits", [32, 64])
def test_names_up_to_the_last_bytes_of_a_section_replay(tmp_path, bits):
    """lld writes names of functions, then of DLLs, and leaves no byte behind them for names in reserve."""
    data = _made(tmp_path, bits, "-O2", "-s", by_zig=True)
    c = formats.constraint(FORMATS[bits == 32], max_bytes=len(data), level="load")
    assert formats.replay(c, data) is None


def test_an_import_that_does_not_resolve_is_refused_at_load_alone(tmp_path):
    data = _made(tmp_path, 64, "-O2", "-s")
    raw = rawpe.read_raw_pe(data)
    place = next(i for i in rawpe.read_imports(raw) if i.thunks).fields[3]
    offset = raw.offset(place)
    broken = data[:offset] + b"q" + data[offset + 1 :]
    for level, refused in (("parse", False), ("load", True)):
        c = formats.constraint(FORMATS[0], max_bytes=len(data), level=level)
        assert (formats.replay(c, broken) is not None) == refused


@pytest.mark.parametrize("pick", ["uniform", "lowest", "highest"])
@pytest.mark.parametrize("level", ["parse", "load"])
@pytest.mark.parametrize("format", FORMATS)
def test_drawn_files_pass_the_judges(format, level, pick):
    for seed in range(6 if pick == "uniform" else 2):
        data = formats.sample(format, seed, max_bytes=6000, level=level, pick=pick)
        assert lief_pe_judge(data) + pefile_judge(data) == [], (format, level, pick, seed)


def test_drawn_imports_resolve():
    table, found = names(True), 0
    for seed in range(36):
        data = formats.sample(FORMATS[0], seed, max_bytes=8000, level="load")
        for imported in rawpe.read_imports(rawpe.read_raw_pe(data)):
            dll = table.dll(imported.name)
            assert dll
            for thunk in imported.thunks:
                found += 1
                exporters = table.exporters(thunk.name) if thunk.name else table.with_ordinal(thunk.ordinal)
                assert exporters & dll
    assert found


@given(st.binary(max_size=3), st.integers(1, 24))
@settings(max_examples=15, deadline=None)
def test_masks_of_names_agree_with_membership(prefix, room):
    import numpy as np

    table = names(True)
    for piece in (Continued(table, table.all, prefix, room), ContinuedDll(table, table.all, prefix, room)):
        mask = np.zeros(257, dtype=bool)
        piece.mark(0, 0, mask)
        assert [piece.contains(x) for x in range(256)] == mask[:256].tolist()


def test_the_table_has_the_common_dlls():
    for wide in (False, True):
        table = names(wide)
        for dll, name in (
            (b"KERNEL32.dll", b"ExitProcess"),
            (b"ntdll.dll", b"NtTerminateProcess"),
            (b"USER32.dll", b"MessageBoxA"),
            (b"msvcrt.dll", b"printf"),
            (b"api-ms-win-crt-stdio-l1-1-0.dll", b"__acrt_iob_func"),
        ):
            assert table.dll(dll) & table.exporters(name)
        assert table.dll(b"OLEAUT32.dll") & table.with_ordinal(2)
        assert not table.dll(b"winex11.drv")
        assert not table.dll(b"oledb32.dll")  # in a folder where no loader looks for names
        assert not table.exporters(b"__wine_dbg_output")


def test_sizes_of_the_load_configuration_are_those_of_windows():
    # IMAGE_LOAD_CONFIG_DIRECTORY of Windows XP, 8, 10 and 11
    assert {0x70, 0x94, 0xA0, 0x100, 0x108, 0x118, 0x138, 0x140} <= set(SIZES[True])
    assert {0x48, 0x5C, 0x68, 0xA0, 0xA4, 0xAC, 0xBC, 0xC0} <= set(SIZES[False])
    assert [4 + sum(size for _, size, _ in layout(plus)) for plus in (False, True)] == [0xC4, 0x148]


def test_cost_of_relocations():
    assert cost([]) == 0
    assert cost([0x1000]) == cost([0x1000, 0x1008]) == 12
    assert cost([0x1000, 0x2000]) == 24


def test_unwind_information_is_judged_by_its_codes():
    good = bytes((1, 4, 2, 0, 4, 0x42, 2, 0x30))  # sub rsp, push rbx
    assert written(good, 0, len(good)) == (8, None)
    assert written(good[:7], 0, 7) is None
    assert written(bytes((1, 4, 1, 0, 4, 0x0B, 0, 0)), 0, 8) is None  # no operation 11
    assert written(bytes((1, 4, 1, 0, 4, 0x01, 0, 0)), 0, 8) is None  # takes two slots, has one
    chained = bytes((0x21, 0, 0, 0)) + (0x1234).to_bytes(4, "little") + bytes(8)
    assert written(chained, 0, len(chained)) == (16, 0x1234)


def test_functions_without_a_place_for_unwind_information_share_a_beginning():
    for functions in (1, 3):
        size = 12 * functions
        wanted = {
            "coff.NumberOfSections": 1, "coff.PointerToSymbolTable": 0, "coff.Characteristics": 0x2022,
            "optional.AddressOfEntryPoint": 0, "optional.SectionAlignment": 4096, "optional.FileAlignment": 512,
            "optional.SizeOfImage": 0x2000, "directory.exceptions.address": 0x1000,
            "directory.exceptions.size": size, "section[0].VirtualSize": size, "section[0].SizeOfRawData": size,
            **{f"directory.{name}.address": 0 for name in ("exports", "imports", "resources", "certificates", "relocs",
               "debug", "tls", "load_config", "iat", "delay_imports", "clr")},
        }  # fmt: skip
        c = formats.constraint("pe32plus-x86_64", max_bytes=2000, level="parse")
        data = steered(c, random.Random(functions), wanted)
        found = rawpe.read_functions(rawpe.read_raw_pe(data))
        assert [unwind for _, _, unwind in found] == [0x1000] * functions
        assert lief_pe_judge(data) + pefile_judge(data) == []


@pytest.mark.parametrize("format", FORMATS)
def test_relocations_lie_in_pages_that_wine_unlocks(format):
    found = 0
    for seed in range(30):
        raw = rawpe.read_raw_pe(formats.sample(format, seed, max_bytes=4000, level="load"))
        width = raw.bits // 8
        for page, entries in rawpe.read_relocations(raw):
            for place in (page + (entry & 0xFFF) for entry in entries if entry):
                found += 1
                section = next(
                    s for s in raw.sections if 0 <= place - s["VirtualAddress"] <= s["VirtualSize"] - width
                )
                stored = -(-section["SizeOfRawData"] // 4096) * 4096
                writable = section["Characteristics"] & 0x80000000
                assert writable or place + width <= section["VirtualAddress"] + stored
    assert found


@pytest.mark.parametrize("max_bytes", [0, 600, 3000])
def test_aarch64_files_at_level_code_have_place_for_their_entry(max_bytes):
    format = "pe32plus-aarch64"
    most = max(max_bytes, formats.least_bytes(format, "code"))
    for seed in range(10):
        data = formats.sample(
            format, seed, most, "code", ("uniform", "lively", "lowest", "highest")[seed % 4]
        )
        assert lief_pe_judge(data) + pefile_judge(data) + instructions_judge(data, format) == [], seed


def test_a_word_that_begins_as_lists_do_is_an_instruction_on_aarch64():
    # The entry point of this file lay in such lists.
    data = formats.sample("pe32plus-aarch64", 11, 30_000, "code", "highest")
    assert instructions_judge(data, "pe32plus-aarch64") == []


class _Relocating(NamedTuple):
    """What `_slots` reads of a plan."""

    target: Any
    strict: bool
    sections: tuple[Any, ...]
    directories: tuple[tuple[int, int], ...]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(
        [(5, 0x2100, 40), (1, 0x1FF8, 20), (12, 0x2FFC, 16), (5, 0x2000, 0x1000), (3, 0x2100, 40)]
    ),
    st.sets(st.integers(0x2000, 0x2FF0), max_size=3),
)
def test_relocations_leave_what_is_read_after_them_alone(
    table: tuple[int, int, int], duties: set[int]
) -> None:
    index, address, size = table
    directories = [(0, 0)] * 16
    directories[index] = (address, size)
    section = SimpleNamespace(address=0x1000, size=0x2800, raw_size=0x2800, flags=0)
    plan = _Relocating(SimpleNamespace(word=8), True, (section,), tuple(directories))
    # What is read of the imports is part of their directories, whose sizes linkers draw wider.
    pinned = [(address, address + size)] if index in (1, 12) else []
    found = {0x2000 + i for low, high in _slots(plan, 0x2000, duties, pinned) for i in range(low, high + 1)}  # type: ignore[arg-type]
    kept = index == 3
    want = {
        a for a in range(0x2000, 0x3000) if a in duties or kept or a + 8 <= address or a >= address + size
    }
    assert found == want


def test_a_dll_without_an_entry_point_has_none_to_judge() -> None:
    for seed in range(40):
        data = formats.sample("pe32plus-x86_64", seed, 4000, "load")
        peheader = int.from_bytes(data[60:64], "little")
        start = int.from_bytes(data[peheader + 40 : peheader + 44], "little")
        entry, _ = executable_parts(data)
        assert (entry == 0) == (start == 0)


@pytest.mark.parametrize("format", FORMATS)
def test_what_loaders_read_of_imports_lies_where_they_can_read(format):
    """Sections without MEM_READ are drawn as often as others, and what imports need may lie anywhere else."""
    without, found = 0, 0
    rng = random.Random(format)
    others = (name for name in DIRECTORY_NAMES if name not in ("imports", "iat"))
    wanted = {
        **{f"directory.{name}.address": 0 for name in others},
        **{"coff.NumberOfSections": 4, "directory.imports.size": 80, "directory.iat.size": 64},
    }
    for _ in range(40):
        c = formats.constraint(format, max_bytes=5_000, level="load")
        raw = rawpe.read_raw_pe(steered(c, rng, wanted))
        without += any(not s["Characteristics"] & MEM_READ for s in raw.sections)
        for descriptor in rawpe.read_imports(raw):
            lookup, _, _, name, addresses = descriptor.fields
            word = struct.Struct("<I" if raw.bits == 32 else "<Q")
            entries = [
                raw.integers(word, (lookup or addresses) + word.size * i)[0]
                for i in range(len(descriptor.thunks))
            ]
            names = [entry for entry in entries if not entry >> (raw.bits - 1)]
            for place in filter(None, (lookup, name, addresses, *names)):
                found += 1
                section = next(s for s in raw.sections if 0 <= place - s["VirtualAddress"] < s["VirtualSize"])
                assert section["Characteristics"] & MEM_READ
    assert without > 20
    assert found > 50
