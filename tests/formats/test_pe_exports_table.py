"""The table of what every Windows exports: each name is one of that machine's DLL; C++ runtimes have all of theirs."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from bytegen import formats
from bytegen.formats.oracles import panel
from bytegen.formats.oracles.rawpe import read_exports, read_raw_pe
from bytegen.formats.pe.directories.exported import Names, names
from bytegen.formats.pe.directories.make_exports import MISTAKEN, _mingw

_MACHINES = {"x86_64": True, "i386": False}
_MINGW = {"x86_64": "x86_64-w64-mingw32", "i386": "i686-w64-mingw32"}
# Names that pefile reads of a runtime's functions.
_DECORATED = re.compile(rb"\?[A-Za-z0-9._?@$()<>]+")
_CODE = """
void too_long(const char *);
int main(int count, char **words) { if (count > 9) too_long(words[0]); return 0; }
"""
_DEFINITIONS = """LIBRARY msvcp140.dll
EXPORTS
too_long == "?_Xlength_error@std@@YAXPBD@Z"
"""


def _folder(machine: str) -> Path:
    """Where Wine's DLLs for a machine are."""
    places = (f"/usr/lib/{machine}-linux-gnu/wine", "/usr/lib/wine", "/opt/wine-stable/lib/wine")
    for place in places:
        found = Path(place, f"{machine}-windows")
        if (found / "kernel32.dll").is_file():
            return found
    pytest.skip(f"Wine's DLLs for {machine} are not here (Debian's libwine, of that architecture)")


@cache
def _wine(path: Path) -> tuple[frozenset[bytes], frozenset[int]]:
    """Names and ordinals of a DLL."""
    exports = read_exports(read_raw_pe(path.read_bytes()))
    if exports is None:
        return frozenset(), frozenset()
    _, functions, listed = exports
    return frozenset(n for many in listed.values() for n in many), frozenset(o for o, _ in functions)


@cache
def _libraries(machine: str) -> dict[str, set[str]]:
    """What mingw-w64's import libraries say that Windows exports."""
    return _mingw(Path("/usr", _MINGW[machine], "lib"))


def _dlls(table: Names, folder: Path) -> list[tuple[str, Path]]:
    present = {path.name.lower(): path for path in folder.iterdir()}
    return [(dll, present[dll]) for dll in map(bytes.decode, table.dlls) if dll in present]


@pytest.mark.slow
@pytest.mark.parametrize("machine", _MACHINES)
def test_each_name_is_exported_by_that_machines_dll(machine: str) -> None:
    table, folder, wrong, seen = names(_MACHINES[machine]), _folder(machine), list[str](), 0
    if not _libraries(machine):
        pytest.skip(f"mingw-w64's import libraries for {machine} are not here")
    for dll, path in _dlls(table, folder):
        found, ordinals = _wine(path)
        known = found | {name.encode() for name in _libraries(machine).get(dll, ())}
        for exports in table.of(table.dll(dll.encode())):
            seen += len(exports.names)
            wrong += [f"{dll}: {name.decode()}" for name in set(exports.names) - known]
            wrong += [f"{dll}: {ordinal}" for ordinal in exports.ordinals - ordinals]
    assert wrong == []
    assert seen > 50_000


@pytest.mark.parametrize("machine", _MACHINES)
def test_runtimes_of_cpp_have_all_their_names(machine: str) -> None:
    table, folder, seen = names(_MACHINES[machine]), _folder(machine), 0
    for dll, path in _dlls(table, folder):
        if re.match(r"(msvcp|concrt|msvcr|msvcirt)", dll):
            decorated = {name for name in _wine(path)[0] if _DECORATED.fullmatch(name)}
            bit = table.dll(dll.encode())
            left_out = {name.decode() for name in decorated if not table.exporters(name) & bit}
            assert left_out <= (MISTAKEN if dll == "msvcp140.dll" else set())
            seen += len(decorated)
    assert seen > 10_000


@pytest.mark.parametrize(
    ("dll", "wide", "narrow"),
    [
        ("msvcp140.dll", "?_Xlength_error@std@@YAXPEBD@Z", "?_Xlength_error@std@@YAXPBD@Z"),
        ("msvcp90.dll", "??0locale@std@@QEAA@AEBV01@@Z", "??0locale@std@@QAE@ABV01@@Z"),
        ("vcruntime140.dll", "__C_specific_handler", "_except_handler4_common"),
        ("vcruntime140_1.dll", "__CxxFrameHandler4", None),
        ("user32.dll", "GetWindowLongPtrA", None),
        ("kernel32.dll", "RtlAddFunctionTable", None),
    ],
)
def test_machines_have_names_of_their_own(dll: str, wide: str, narrow: str | None) -> None:
    for machine, own, other in ((True, wide, narrow), (False, narrow, wide)):
        table = names(machine)
        bit = table.dll(dll.encode())
        assert own is None or table.exporters(own.encode()) & bit
        assert other is None or not table.exporters(other.encode()) & bit


def test_a_dll_of_one_machine_is_not_imported_on_the_other() -> None:
    assert names(True).dll(b"vcruntime140_1.dll")
    assert not names(False).dll(b"vcruntime140_1.dll")


@pytest.mark.skipif(shutil.which("i686-w64-mingw32-gcc") is None, reason="no mingw for i386")
def test_a_program_for_i386_imports_names_of_cpp(tmp_path: Path) -> None:
    (tmp_path / "p.c").write_text(_CODE)
    (tmp_path / "p.def").write_text(_DEFINITIONS)
    for command in (
        ["i686-w64-mingw32-dlltool", "-d", "p.def", "-l", "libp.a"],
        ["i686-w64-mingw32-gcc", "-O1", "-s", "p.c", "-L.", "-lp", "-o", "p.exe"],
    ):
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    data = (tmp_path / "p.exe").read_bytes()
    assert b"?_Xlength_error@std@@YAXPBD@Z\0" in data
    for level in ("parse", "load"):
        c = formats.constraint("pe32-i386", max_bytes=len(data), level=level)  # type: ignore[arg-type]
        assert formats.replay(c, data) is None
    assert panel.complaints(tmp_path / "p.exe", "pe32-i386", "load") == []
