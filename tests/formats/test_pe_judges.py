"""The judges of PE files: each finds what is broken, none complains of what compilers make."""

import importlib.util
import random
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("lief")
pytest.importorskip("pefile")

from steered import steered

from bytegen import formats
from bytegen.formats.oracles import rawpe
from bytegen.formats.oracles.lief_pe import lief_pe_judge
from bytegen.formats.oracles.pefile_judge import pefile_judge
from bytegen.formats.oracles.wine import runs_to_end, shared_server, wine_judge, wine_missing

SOURCE = """
#include <stdio.h>
#include <stdlib.h>
__declspec(dllexport) int twice(int x) { return 2 * x; }
int main(int argc, char **argv) { printf("hello %d\\n", twice(argc * 21)); return 7; }
"""
needs_wine = pytest.mark.skipif(wine_missing() is not None, reason=str(wine_missing()))


def _compiler(bits):
    machine = {32: "i686", 64: "x86_64"}[bits]
    if gcc := shutil.which(f"{machine}-w64-mingw32-gcc"):
        return [gcc]
    if importlib.util.find_spec("ziglang"):
        target = {32: "x86-windows-gnu", 64: "x86_64-windows-gnu"}[bits]
        return [sys.executable, "-m", "ziglang", "cc", "-target", target]
    return None


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("pe"), {}
    source = folder / "hello.c"
    source.write_text(SOURCE)
    for bits in (32, 64):
        compiler = _compiler(bits)
        if compiler is None:
            pytest.skip("no compiler for Windows")
        path = folder / f"hello{bits}.exe"
        done = subprocess.run([*compiler, "-O1", "-s", str(source), "-o", str(path)], capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        made[bits] = path
    return made


@pytest.mark.parametrize("bits", [32, 64])
def test_compiled_programs_pass(programs, bits):
    data = programs[bits].read_bytes()
    assert lief_pe_judge(data) == []
    assert pefile_judge(data) == []


def test_raw_reader_sees_what_was_compiled(programs):
    raw = rawpe.read_raw_pe(programs[64].read_bytes())
    assert raw.bits == 64
    imported = {t.name for i in rawpe.read_imports(raw) for t in i.thunks}
    assert b"printf" in imported or any(b"printf" in name for name in imported)
    fields, functions, names = rawpe.read_exports(raw)
    assert [b"twice"] in names.values()
    assert fields["NumberOfFunctions"] == len(functions) == 1
    assert rawpe.read_functions(raw) == sorted(rawpe.read_functions(raw))
    assert all(page % 4096 == 0 for page, _ in rawpe.read_relocations(raw))


@pytest.mark.parametrize("cut", [0, 1, 63, 64, 128, 200, 400])
def test_cut_headers_are_refused(programs, cut):
    data = programs[64].read_bytes()[:cut]
    assert lief_pe_judge(data)
    assert pefile_judge(data)


def _patched(data, directory, address, size):
    raw = rawpe.read_raw_pe(data)
    start = raw.lfanew + 24 + {32: 96, 64: 112}[raw.bits] + 8 * directory
    return data[:start] + struct.pack("<II", address, size) + data[start + 8 :]


@pytest.mark.parametrize("bits", [32, 64])
def test_broken_directories_are_found(programs, bits):
    data = programs[bits].read_bytes()
    raw = rawpe.read_raw_pe(data)
    # Without the directory of address tables there are no imports; a relocation block cannot be 3 bytes long.
    assert lief_pe_judge(_patched(data, rawpe.IAT, 0, 0))
    start, size = raw.directory(rawpe.BASERELOC)
    place = raw.offset(start)
    broken = data[: place + 4] + struct.pack("<I", 3) + data[place + 8 :]
    assert lief_pe_judge(broken)
    assert size


@pytest.mark.parametrize("bits", [32, 64])
def test_exports_of_nothing_but_zeros_are_no_complaint(programs, bits):
    """pefile leaves them out without a word; with a date in them it has them."""
    data = bytearray(programs[bits].read_bytes())
    raw = rawpe.read_raw_pe(bytes(data))
    place = raw.offset(raw.directory(rawpe.EXPORT)[0])
    data[place : place + 40] = bytes(40)
    assert pefile_judge(bytes(data)) == []
    data[place + 4] = 1
    assert pefile_judge(bytes(data)) == []


def test_a_wrong_import_name_is_found_by_pefile(programs):
    data = programs[64].read_bytes()
    raw = rawpe.read_raw_pe(data)
    imported = rawpe.read_imports(raw)[0]
    place = raw.offset(imported.fields[0])
    hint = int.from_bytes(data[place : place + 8], "little")
    name = raw.offset(hint) + 2
    assert pefile_judge(data[:name] + b"\x01" + data[name + 1 :])


@needs_wine
def test_wine_maps_and_finds_the_entry(programs):
    for bits in (32, 64):
        assert wine_judge(programs[bits].read_bytes()) == []


@needs_wine
def test_wine_refuses_what_is_no_image(programs):
    data = programs[64].read_bytes()
    raw = rawpe.read_raw_pe(data)
    assert wine_judge(data[: raw.lfanew + 4] + b"\0\0" + data[raw.lfanew + 6 :])
    assert wine_judge(b"MZ" + bytes(100))
    # SizeOfImage 0
    at = raw.lfanew + 24 + 56
    assert wine_judge(data[:at] + bytes(4) + data[at + 4 :])


@needs_wine
def test_wine_misses_a_dll_that_is_not_there(programs):
    data = programs[64].read_bytes()
    raw = rawpe.read_raw_pe(data)
    name = rawpe.read_imports(raw)[0]
    place = raw.offset(name.fields[3])
    broken = data[:place] + b"zzqqx" + data[place + 5 :]
    assert wine_judge(broken)
    assert wine_judge(broken, entry=False) == []


@needs_wine
def test_programs_of_ours_run_to_the_end(programs):
    done = runs_to_end(programs[64], "more")
    assert (done.returncode, done.stdout.split()) == (7, [b"hello", b"84"])


@needs_wine
def test_the_server_survives_a_file_that_fails(programs):
    server = shared_server()
    assert not server.ask("process", b"MZ" + bytes(62)).accepted
    assert server.ask("process", programs[64].read_bytes()).accepted
    assert not list(Path(server.folder).glob("[0-9]*"))


def test_what_lief_and_pefile_misread_is_no_complaint():
    # A function that is exported by ordinal alone and forwarded, in a DLL without an entry point; two resources of
    # which LIEF takes the second for a loop: the table's offset in the file is the leaf's in the tree.
    absent = ("imports", "exceptions", "certificates", "relocs", "debug", "tls", "load_config", "iat", "clr")
    wanted = {
        "coff.NumberOfSections": 1, "coff.PointerToSymbolTable": 0, "coff.Characteristics": 0x2022,
        "optional.AddressOfEntryPoint": 0, "optional.SectionAlignment": 4096, "optional.FileAlignment": 512,
        "optional.SizeOfImage": 0x2000, "optional.SizeOfHeaders": 0x200,
        "section[0].VirtualSize": 0x800, "section[0].SizeOfRawData": 0x800, "section[0].PointerToRawData": 0x200,
        "dos.e_lfanew": 0x40,
        "directory.exports.address": 0x1000, "directory.exports.size": 0x100,
        "directory.resources.address": 0x1100, "directory.resources.size": 0x700,
        **{f"directory.{name}.address": 0 for name in (*absent, "delay_imports")},
        "exports.Name": 0, "exports.Base": 1, "exports.NumberOfFunctions": 1, "exports.NumberOfNames": 0,
        "exports.AddressOfFunctions": 0x1030, "exports.function[0]": 0x1040,
        "resources.NumberOfNamedEntries": 0, "resources.NumberOfIdEntries": 2,
        "resources.entry[0].OffsetToData": 0x80000100, "resources.entry[1].OffsetToData": 0x400,
        "resources.entry[0].Id": 10, "resources.entry[1].Id": 11,
        "resources[0].NumberOfNamedEntries": 0, "resources[0].NumberOfIdEntries": 0,
    }  # fmt: skip
    c = formats.constraint("pe32-i386", max_bytes=4000, level="parse")
    data = steered(c, random.Random(3), wanted)
    raw = rawpe.read_raw_pe(data)
    assert rawpe.read_exports(raw)[1] == [(1, 0x1040)]
    assert [leaf.path for leaf in rawpe.read_resources(raw)] == [(11,)]
    assert raw.offset(0x1100) + 0x100 == 0x400
    assert lief_pe_judge(data) + pefile_judge(data) == []


def _import_library(folder, dll, names):
    definitions, library = folder / f"{dll}.def", folder / f"lib{dll}.a"
    definitions.write_text(f"LIBRARY {dll}.dll\nEXPORTS\n" + "".join(f"{name}\n" for name in names))
    tool = shutil.which("x86_64-w64-mingw32-dlltool")
    command = [tool] if tool else [sys.executable, "-m", "ziglang", "dlltool", "-m", "i386:x86-64"]
    subprocess.run([*command, "-d", str(definitions), "-l", str(library)], check=True, capture_output=True)
    return str(library)


@needs_wine
@pytest.mark.parametrize("missing_first", [False, True])
def test_a_missing_dll_is_found_behind_many_missing_functions(tmp_path, missing_first):
    compiler = _compiler(64)
    if compiler is None:
        pytest.skip("no compiler for Windows")
    names = [f"lacking_{i}" for i in range(20)]
    source = tmp_path / "many.c"
    declared = "".join(f"__declspec(dllimport) int {name}(void);\n" for name in (*names, "gone"))
    calls = " + ".join(f"{name}()" for name in (*names, "gone"))
    source.write_text(f"{declared}__declspec(dllexport) int all(void) {{ return {calls}; }}\n")
    libraries = [
        _import_library(tmp_path, "user32", names),
        _import_library(tmp_path, "zzz_nowhere", ["gone"]),
    ]
    made = tmp_path / "many.dll"
    ordered = libraries[::-1] if missing_first else libraries
    subprocess.run(
        [*compiler, "-O1", "-s", "-shared", str(source), *ordered, "-o", str(made)],
        check=True,
        capture_output=True,
    )
    assert wine_judge(made.read_bytes()) == ["wine: library: no DLL zzz_nowhere.dll"]
