"""The judges of the format tests, by the names the tests use, and programs from the compilers at hand."""

from __future__ import annotations

import os
from pathlib import Path

from bytegen.formats.oracles.compilers import static_programs
from bytegen.formats.oracles.kernel import kernel_accepts
from bytegen.formats.oracles.lief_judge import lief_judge
from bytegen.formats.oracles.panel import lacks_interpreter
from bytegen.formats.oracles.rawelf import read_raw_elf
from bytegen.formats.oracles.readelf import readelf_judge

__all__ = ["exec_judge", "lief_judge", "readelf_judge", "static_programs"]


def exec_judge(program: str | os.PathLike[str] | bytes) -> str | None:
    """None when the kernel starts the program with its entry in executable memory, else what it said.

    None as well where the interpreter that it names is not installed: the kernel has nothing to say of such a file.
    """
    data = program if isinstance(program, bytes) else Path(program).read_bytes()
    result = kernel_accepts(data)
    if result.outcome == "ENOENT" and lacks_interpreter(read_raw_elf(data), data):
        return None
    if not result.accepted:
        return result.outcome
    if result.entry_executable is False:
        return f"entry {result.entry:#x} is not executable"
    return None
