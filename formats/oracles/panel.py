"""Who judges a file of each format at each level: everything that soundness and completeness are held against.

for judge in judges("elf64-x86_64", "load"):
    if judge.absent is None:
        complaints = judge.ask(path)
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable, Iterable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from bytegen.formats.oracles.rawelf import RawElf, read_raw_elf

_ET_EXEC, _PT_DYNAMIC, _PT_INTERP = 2, 2, 3
_LEVELS = ("parse", "load", "code")
_WINE = ("pe32plus-x86_64", "pe32-i386")


class Judge(NamedTuple):
    """One judge: its name, the level from which on it is asked, the question, and why it cannot be asked here.

    `ask(path)` gives the complaints about the file at that path, none if there are none; the file is
    executable. `absent` is None where the judge is at hand.
    """

    name: str
    level: str
    ask: Callable[[Path], list[str]]
    absent: str | None = None


@lru_cache(maxsize=32)
def judges(format: str, level: str) -> tuple[Judge, ...]:
    """The judges of a format at a level, those of the levels below included; absent ones too."""
    found = _elf_judges(format) if format.startswith("elf") else _pe_judges(format)
    found = (*found, Judge("capstone", "code", lambda path: _instructions(path, format)))
    return tuple(judge for judge in found if _LEVELS.index(judge.level) <= _LEVELS.index(level))


def complaints(path: Path, format: str, level: str) -> list[str]:
    """What the judges at hand have against the file at ``path``, each line with its judge's name."""
    return [
        f"{judge.name}: {line}"
        for judge in judges(format, level)
        if judge.absent is None
        for line in judge.ask(path)
    ]


def _instructions(path: Path, format: str) -> list[str]:
    from bytegen.formats.oracles.instructions import instructions_judge

    return instructions_judge(path.read_bytes(), format)


def _missing(package: str) -> str | None:
    return None if find_spec(package) else f"the package {package} is not installed"


# ELF


def _elf_judges(format: str) -> tuple[Judge, ...]:
    return (
        Judge("lief", "parse", _lief),
        Judge("readelf", "parse", _readelf, None if shutil.which("readelf") else "readelf is not installed"),
        Judge("pyelftools", "parse", _elftools, _missing("elftools")),
        _starter(format),
        _linker(format),
    )


def _lief(path: Path) -> list[str]:
    from bytegen.formats.oracles.lief_judge import lief_judge

    return lief_judge(path.read_bytes())


def _readelf(path: Path) -> list[str]:
    from bytegen.formats.oracles.readelf import readelf_judge

    return readelf_judge(path)


def _elftools(path: Path) -> list[str]:
    from bytegen.formats.oracles.elftools_judge import elftools_judge

    return elftools_judge(path.read_bytes())


def _raw(path: Path) -> RawElf | None:
    try:
        return read_raw_elf(path.read_bytes())
    except (ValueError, struct.error):
        return None


def starts(raw: RawElf) -> bool:
    """Whether an ELF file is a program, which the kernel is asked about: a shared object is not started."""
    types = {phdr["p_type"] for phdr in raw.phdrs}
    return raw.ehdr["e_type"] == _ET_EXEC or _PT_INTERP in types or raw.ehdr["e_entry"] != 0


def interpreter(raw: RawElf, data: bytes) -> str:
    """The path in PT_INTERP; empty where there is none."""
    for phdr in raw.phdrs:
        if phdr["p_type"] == _PT_INTERP:
            content = data[phdr["p_offset"] : phdr["p_offset"] + phdr["p_filesz"]]
            return content.split(b"\0", 1)[0].decode("utf-8", "replace")
    return ""


def lacks_interpreter(raw: RawElf, data: bytes, roots: Iterable[str] = ("",)) -> bool:
    """Whether a file names an interpreter under none of the folders: a C library not installed here (musl, say)."""
    loader = interpreter(raw, data)
    return bool(loader) and not any(os.path.exists(root + loader) for root in roots)


def links(raw: RawElf) -> bool:
    """Whether an ELF file has a dynamic section, which the dynamic loader reads."""
    return any(phdr["p_type"] == _PT_DYNAMIC for phdr in raw.phdrs)


def _starter(format: str) -> Judge:
    """The kernel where it runs such files, else QEMU's loader."""
    from bytegen.formats.oracles.kernel import kernel_accepts, runs_here
    from bytegen.formats.oracles.qemu import library_roots, qemu_accepts, qemu_command

    native = runs_here(format)

    def ask(path: Path) -> list[str]:
        raw = _raw(path)
        if raw is None or not starts(raw):
            return []
        if lacks_interpreter(raw, path.read_bytes(), ("", *library_roots(format))):
            return []  # nobody can be asked
        result = kernel_accepts(path) if native else qemu_accepts(path, format)
        if not result.accepted:
            return [result.outcome]
        return ["the entry is not executable"] if result.entry_executable is False else []

    absent = None if native or qemu_command(format) else "neither this kernel nor an emulator starts it"
    return Judge("kernel" if native else "qemu", "load", ask, absent)


def _linker(format: str) -> Judge:
    """glibc's dynamic loader: what `--verify` and `--list` say of files with a dynamic section."""
    from bytegen.formats.oracles.dynamic_loader import loader_lists, loader_of, loader_verifies

    def ask(path: Path) -> list[str]:
        raw = _raw(path)
        if raw is None or not links(raw):
            return []
        found = []
        for option, question in (("--verify", loader_verifies), ("--list", loader_lists)):
            result = question(path, format)
            if result is not None and not result.accepted:
                found.append(f"{option}: {result.outcome}")
        return found

    absent = None if loader_of(format) else f"no dynamic loader for {format} runs here"
    return Judge("ld.so", "load", ask, absent)


# PE


def _pe_judges(format: str) -> tuple[Judge, ...]:
    from bytegen.formats.oracles.wine import wine_missing

    absent = wine_missing() if format in _WINE else "Wine here runs no such machine"

    return (
        Judge("lief", "parse", _lief_pe),
        Judge("pefile", "parse", _pefile, _missing("pefile")),
        Judge("wine", "load", _wine, absent),
    )


def _lief_pe(path: Path) -> list[str]:
    from bytegen.formats.oracles.lief_pe import lief_pe_judge

    return lief_pe_judge(path.read_bytes())


def _pefile(path: Path) -> list[str]:
    from bytegen.formats.oracles.pefile_judge import pefile_judge

    return pefile_judge(path.read_bytes())


def _wine(path: Path) -> list[str]:
    from bytegen.formats.oracles.wine import wine_judge

    return wine_judge(path.read_bytes())
