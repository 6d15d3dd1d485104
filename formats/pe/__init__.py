"""PE: PE32 and PE32+ images of x86-64, i386 and AArch64: programs, libraries, drivers, EFI applications."""

from __future__ import annotations

from bytegen.formats.pe import coff, directories, dos, symbols  # region grammars register themselves
from bytegen.formats.pe.target import TARGETS
from bytegen.formats.registry import Format, register

__all__ = ["directories", "symbols"]

for _target in TARGETS.values():
    register(
        Format(
            _target.name,
            ("parse", "load", "code"),
            lambda level, target=_target: dos.least(target, level),  # type: ignore[misc]
            lambda max_bytes, level, target=_target: (  # type: ignore[misc]
                lambda data: dos.begin(target, max_bytes, level, coff.begin)
            ),
            lambda max_bytes, level, imports, target=_target: (  # type: ignore[misc]
                lambda data: dos.begin(target, max_bytes, level, coff.begin, imports)
            ),
        )
    )
