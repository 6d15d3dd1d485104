"""Makes `exports.txt.gz`, the table of names that the DLLs of every Windows export.

Usage: python -m bytegen.formats.pe.directories.make_exports WINE WINE_I386 MINGW_LIBRARIES OUTPUT

The names are facts read from two places: the export directories of Wine's own DLLs for x86-64 and for i386 (WINE and
WINE_I386, such as /usr/lib/x86_64-linux-gnu/wine/x86_64-windows and /usr/lib/i386-linux-gnu/wine/i386-windows of
Debian's libwine), and the import libraries of mingw-w64 for i386 and for x86-64 (MINGW_LIBRARIES, such as
/usr/i686-w64-mingw32/lib, and its sibling). A DLL is in the table if Wine has it for x86-64 and Windows has it too (an
import library of mingw-w64 names it, or `_ALSO`); Wine's own extensions are left out, and so are the thunks of Windows
95 that only Wine's DLLs for i386 have. Each machine has its own names. The table that ships was made from Wine 8.0 and
mingw-w64 10.0.0 of Debian 12.
"""

from __future__ import annotations

import gzip
import re
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from bytegen.formats.oracles.rawpe import read_exports, read_raw_pe

# DLLs of Windows or of Microsoft's runtimes that have no import library in mingw-w64.
_ALSO = frozenset(
    """
    rtworkq.dll webservices.dll d3d10core.dll
    combase.dll kernelbase.dll win32u.dll gdi32full.dll bcryptprimitives.dll dxcore.dll d3d10_1.dll
    vulkan-1.dll opencl.dll vcruntime140.dll vcruntime140_1.dll vcomp140.dll concrt140.dll msvcp80.dll msvcp90.dll
    msvcp100.dll msvcp110.dll msvcp120.dll msvcp140.dll msvcp140_1.dll msvcp140_2.dll msvcp140_atomic_wait.dll
    """.split()  # noqa: SIM905  # a list of words reads better so
)
# Wine has the first two only where Mono and Gecko are installed; the others are in folders of "Common Files", where
# no loader looks for a name.
_NOT_EVERYWHERE = frozenset({"mscoree.dll", "mshtml.dll", "msado15.dll", "oledb32.dll"})
# Microsoft's runtimes, whose names Wine has as they are; elsewhere Wine's names for i386 alone are of Windows 95.
_RUNTIME = re.compile(r"^(msvc|vcruntime)")
# Names of other machines that Wine's msvcp140.dll has, and Microsoft's has not.
MISTAKEN = frozenset(
    (
        "??4?$_Iosb@H@std@@QAAAAV01@ABV01@@Z",
        "??4?$_Iosb@H@std@@QAEAAV01@$$QAV01@@Z",
        "?_Tidy@ios_base@std@@AAAXXZ",
    )
)
_WINE_ONLY = re.compile(r"^_*wine_|^__wine|^DllMain$|^Dll(Register|Unregister)Server$")
_LEGAL = re.compile(r"^[A-Za-z0-9._?@$()<>]+$")
_USER_DLL = re.compile(r"\.(dll|drv|cpl|ocx)$")


def _wine(folder: Path) -> dict[str, tuple[set[str], set[int]]]:
    """DLL -> (names, fixed ordinals without a name) of Wine's DLLs."""
    found: dict[str, tuple[set[str], set[int]]] = {}
    for path in sorted(folder.iterdir()):
        if not _USER_DLL.search(path.name.lower()):
            continue
        try:
            exports = read_exports(read_raw_pe(path.read_bytes()))
        except ValueError:
            continue
        if exports is None:
            continue
        _, functions, names = exports
        texts = {name.decode("latin-1") for listed in names.values() for name in listed}
        good = {name for name in texts if _LEGAL.match(name) and not _WINE_ONLY.match(name)}
        if path.name.lower() == "msvcp140.dll":
            good -= MISTAKEN
        # Ordinals are part of a DLL's interface where functions have no other name, or where they were not
        # merely counted.
        ordinals = {ordinal for ordinal, _ in functions}
        stable = any(o not in names for o in ordinals) or ordinals != set(range(1, len(ordinals) + 1))
        if good or stable:
            found[path.name.lower()] = (good, ordinals if stable else set())
    return found


def _archive(data: bytes) -> Iterator[bytes]:
    position = 8
    while data.startswith(b"!<arch>\n") and position + 60 <= len(data):
        size = int(data[position + 48 : position + 58])
        yield data[position + 60 : position + 60 + size]
        position += 60 + size + (size & 1)


def _library(data: bytes) -> tuple[set[str], set[str]]:
    """The DLLs and the imported names of an import library (sections .idata$7 and .idata$6 of its members)."""
    dlls: set[str] = set()
    names: set[str] = set()
    for member in _archive(data):
        if len(member) < 20 or struct.unpack_from("<H", member)[0] not in (0x8664, 0x14C):
            continue
        sections, optional = struct.unpack_from("<H", member, 2)[0], struct.unpack_from("<H", member, 16)[0]
        for i in range(sections):
            head = 20 + optional + 40 * i
            size, place = struct.unpack_from("<II", member, head + 16)
            content = member[place : place + size] if place else b""
            kind = member[head : head + 8]
            if kind == b".idata$7" and len(content) > 4:
                dlls.add(content.split(b"\0")[0].decode("latin-1").lower())
            elif kind == b".idata$6" and len(content) > 3:
                names.add(content[2:].split(b"\0")[0].decode("latin-1"))
    return dlls, {name for name in names if _LEGAL.match(name)}


def _mingw(folder: Path) -> dict[str, set[str]]:
    """DLL -> names of the import libraries in a folder."""
    found: dict[str, set[str]] = {}
    for path in sorted(folder.glob("lib*.a")):
        dlls, names = _library(path.read_bytes())
        if len(dlls) == 1:
            found.setdefault(dlls.pop(), set()).update(names)
    return found


def _versions(contract: str) -> list[str]:
    """The names by which an API set is found: loaders do not look at the last number, and lower ones came before."""
    name, _, last = contract.removesuffix(".dll").rpartition("-")
    return [f"{name}-{number}.dll" for number in range(int(last) + 1)] if last.isdecimal() else [contract]


def _api_sets(folder: Path) -> dict[str, str]:
    """API set -> the DLL that stands behind it, from the namespace in Wine's apisetschema.dll."""
    raw = read_raw_pe((folder / "apisetschema.dll").read_bytes())
    place = raw.names.index(b".apiset\0")
    start = raw.sections[place]["PointerToRawData"]
    data = raw.data[start : start + raw.sections[place]["SizeOfRawData"]]
    _, _, _, count, entries, *_ = struct.unpack_from("<7I", data)
    found = {}
    for i in range(count):
        _, name, size, _, values, number = struct.unpack_from("<6I", data, entries + 24 * i)
        contract = data[name : name + size].decode("utf-16-le").lower()
        for j in reversed(range(number)):
            _, _, _, host, length = struct.unpack_from("<5I", data, values + 20 * j)
            if length:
                found[f"{contract}.dll"] = data[host : host + length].decode("utf-16-le").lower()
                break
    return found


def table(wine: Path, wine_i386: Path, libraries: Path) -> str:
    """The table's text: for each set of names a line of DLLs, and then its names.

    "=" begins the line of DLLs, "#" that of ordinals (first-last or single ones); a name begins with "-" where
    only x86-64 has it, and with "+" where only i386 has it.
    """
    theirs, theirs_i386, small = _wine(wine), _wine(wine_i386), _mingw(libraries)
    large = _mingw(libraries.parent.parent / "x86_64-w64-mingw32" / "lib")
    known = (set(small) | set(large) | _ALSO) - _NOT_EVERYWHERE
    sets: dict[tuple[tuple[str, ...], tuple[int, ...]], list[str]] = {}
    for dll in sorted(set(theirs) & known):
        names, ordinals = theirs[dll]
        wide = names | large.get(dll, set())
        narrow = small.get(dll, set())
        if dll in theirs_i386:
            names_i386, ordinals_i386 = theirs_i386[dll]
            ordinals = ordinals & ordinals_i386
            narrow = narrow | {n for n in names_i386 if n in names or n[0] == "?" or _RUNTIME.match(dll)}
        lines = {n if n in narrow else f"-{n}" for n in wide} | {f"+{n}" for n in narrow - wide}
        sets.setdefault((tuple(sorted(lines)), tuple(sorted(ordinals))), []).append(dll)
    hosts = {dll: listed for listed in sets.values() for dll in listed}
    contracts = {name: host for listed, host in _api_sets(wine).items() for name in _versions(listed)}
    for contract, host in sorted(contracts.items()):
        if host in hosts and contract.startswith("api-"):
            hosts[host].append(contract)
    text = []
    for (lines_, ordinals_), dlls in sorted(sets.items(), key=lambda item: item[1][0]):
        text.append("= " + " ".join(dlls))
        if ordinals_:
            text.append("# " + " ".join(_runs(ordinals_)))
        text += lines_
    return "\n".join(text) + "\n"


def _runs(numbers: tuple[int, ...]) -> list[str]:
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return [str(a) if a == b else f"{a}-{b}" for a, b in runs]


def main() -> None:
    """Writes the table to OUTPUT."""
    if len(sys.argv) != 5:
        sys.exit("usage: make_exports WINE WINE_I386 MINGW_LIBRARIES OUTPUT")
    wine, wine_i386, libraries, output = map(Path, sys.argv[1:])
    output.write_bytes(gzip.compress(table(wine, wine_i386, libraries).encode("ascii"), 9, mtime=0))


if __name__ == "__main__":
    main()
