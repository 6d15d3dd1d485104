"""What PE files may import: what every Windows has, DLLs that come along, or anything."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

pytest.importorskip("lief")
pytest.importorskip("pefile")

import pefile

from bytegen import formats
from bytegen.formats.core import drive
from bytegen.formats.errors import FormatError
from bytegen.formats.oracles import rawpe
from bytegen.formats.oracles.compilers import compiled_programs
from bytegen.formats.oracles.lief_pe import lief_pe_judge
from bytegen.formats.oracles.pefile_judge import pefile_judge
from bytegen.formats.pe.directories.exported import names

OWN = formats.Library("own.dll", frozenset({"first", "second_one"}), frozenset({1, 2, 7}))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A program and a library."""
    folder = tmp_path_factory.mktemp("libraries")
    found = {
        r.name: data for r, data in compiled_programs(folder, names=("mingw-stripped-64", "mingw-dll-64"))
    }
    if len(found) < 2:
        pytest.skip("no compiler for Windows")
    return found


def _refusal(data: bytes, imports: formats.Library | str) -> formats.Refusal | None:
    given = imports if isinstance(imports, str) else [imports]
    c = formats.constraint("pe32plus-x86_64", max_bytes=len(data), imports=given)  # type: ignore[arg-type]
    return formats.replay(c, data)


def test_a_dll_that_comes_along_is_for_those_who_say_so(made: dict[str, bytes]) -> None:
    program = made["mingw-stripped-64"]
    assert _refusal(program, "known") is None
    image = pefile.PE(data=program)
    taken = next(d for d in image.DIRECTORY_ENTRY_IMPORT if d.dll == b"KERNEL32.dll")
    wanted = frozenset(entry.name.decode() for entry in taken.imports)
    other = program.replace(b"KERNEL32.dll", b"KERNELXX.dll")
    refused = _refusal(other, "known")
    assert refused is not None
    assert refused.field.startswith("imports[")
    assert _refusal(other, "any") is None
    assert _refusal(other, formats.Library("kernelxx.DLL", wanted)) is None
    short = _refusal(other, formats.Library("KERNELXX.dll", wanted - {min(wanted)}))
    assert short is not None
    assert short.field.startswith("imports[")


def test_a_library_is_what_the_dll_exports(made: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "total.dll"
    path.write_bytes(made["mingw-dll-64"])
    found = formats.library(path)
    symbols = pefile.PE(data=made["mingw-dll-64"]).DIRECTORY_ENTRY_EXPORT.symbols
    assert found == ("total.dll", {s.name.decode() for s in symbols}, {s.ordinal for s in symbols})
    assert found.names >= {"total", "copy_of", "counter"}
    assert formats.library(path, "other.dll") == found._replace(name="other.dll")


@pytest.mark.parametrize("seed", range(6))
def test_drawn_files_import_what_some_dll_exports(seed: int) -> None:
    format = ("pe32plus-x86_64", "pe32-i386")[seed % 2]
    c = formats.constraint(format, max_bytes=6_000, imports=[OWN])
    drive.draw(c, random.Random(seed), "uniform")
    table = names(format != "pe32-i386", (OWN,))
    for found in rawpe.read_imports(rawpe.read_raw_pe(c.data)):
        dll = table.dll(found.name)
        assert dll
        for thunk in found.thunks:
            assert dll & (
                table.exporters(thunk.name) if thunk.name else table.with_ordinal(thunk.ordinal or 0)
            )
    assert lief_pe_judge(c.data) + pefile_judge(c.data) == []
    assert formats.replay(formats.constraint(format, imports=[OWN]), c.data) is None


def test_a_library_takes_the_place_of_a_known_dll_of_its_name() -> None:
    table = names(True, (formats.Library("KERNEL32.dll", frozenset({"only"})),))
    assert table.exporters(b"only") == table.dll(b"kernel32.dll")
    assert not table.exporters(b"GetTickCount") & table.dll(b"kernel32.dll")
    assert names(True).exporters(b"GetTickCount") & names(True).dll(b"kernel32.dll")


def test_what_is_wrong_with_a_library_is_said(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="No such file"):
        formats.library(tmp_path / "absent.dll")
    (tmp_path / "text.dll").write_bytes(b"text")
    with pytest.raises(FormatError, match="no PE file"):
        formats.library(tmp_path / "text.dll")
    (tmp_path / "empty.dll").write_bytes(formats.sample("pe32-i386", 1, 600, pick="lowest"))
    with pytest.raises(FormatError, match="exports no function"):
        formats.library(tmp_path / "empty.dll")
    with pytest.raises(FormatError, match="cannot be imported"):
        formats.library(tmp_path / "text.dll", "a b")
    with pytest.raises(FormatError, match="imports is 'all'"):
        formats.constraint("pe32-i386", imports="all")  # type: ignore[arg-type]
    with pytest.raises(FormatError, match="at least one name"):
        formats.constraint("pe32-i386", imports=[formats.Library("own.dll", frozenset())])


def test_elf_files_have_nothing_to_say_about_imports() -> None:
    c, d = (formats.constraint("elf64-x86_64", max_bytes=400, imports=given) for given in ("known", "any"))  # type: ignore[arg-type]
    assert (c.mask() == d.mask()).all()
