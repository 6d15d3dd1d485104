"""Programs at a fixed address whose read-only sections the linker puts in an order of ours."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bytegen.formats.oracles.rawelf import read_raw_elf

MACHINES = {"elf64-x86_64": "-m64", "elf32-i386": "-m32"}
_CODE = """
int printf(const char *, ...);
int abs(int);
int counter = 3;
int add(int a, int b) { printf("%d\\n", a + b + counter); return abs(b); }
int main(int count, char **words) { return add(count, count) - count; }
"""
_VERSIONS = "V1 { global: add; }; V2 { global: main; } V1;"

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")


def _script(machine: str, order: tuple[str, ...]) -> str:
    """The linker's own script with output sections in that order; the rest of the read-only ones follow.

    ``".room"`` is a section that holds nothing of use.
    """
    said = subprocess.run(["gcc", machine, "-no-pie", "-Wl,--verbose"], capture_output=True, text=True).stdout
    script = said.split("=" * 50)[1]
    moved = ""
    for name in order:
        if name == ".room":
            moved += "  .room : { LONG(1); . = . + 4096; }\n"
            continue
        found = re.search(rf"^ *{re.escape(name)} .*\n", script, re.MULTILINE)
        assert found is not None
        script = script.replace(found[0], "", 1)
        moved += found[0]
    return script.replace("  .interp ", moved + "  .interp ", 1)


def relinked(folder: Path, target: str, options: tuple[str, ...], order: tuple[str, ...]) -> bytes:
    """The program of a machine, linked with these options; `add.map` is a script of versions."""
    (folder / "add.c").write_text(_CODE)
    (folder / "add.map").write_text(_VERSIONS)
    (folder / "add.ld").write_text(_script(MACHINES[target], order))
    command = ["gcc", MACHINES[target], "-O1", "-no-pie", *options, "-Wl,-T,add.ld", "-o", "add", "add.c"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"gcc makes no such program here: {done.stderr[-200:]}")
    return (folder / "add").read_bytes()


def dynamic_of(data: bytes) -> tuple[int, int]:
    """Offset and size of PT_DYNAMIC."""
    header = next(header for header in read_raw_elf(data).phdrs if header["p_type"] == 2)
    return header["p_offset"], header["p_filesz"]
