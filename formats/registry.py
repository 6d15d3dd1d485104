"""The formats there are. A format is a folder of this package that registers itself on import."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple

from bytegen.formats.core.constraint import Constraint
from bytegen.formats.core.steps import Step
from bytegen.formats.errors import FormatError
from bytegen.formats.libraries import Imports

_FOLDERS = ("elf", "pe")


class Format(NamedTuple):
    """A format: its name, its levels in ascending order, and how a file of it begins.

    ``least(level)`` is the size of its smallest file; ``begin(max_bytes, level)`` gives the function from
    the (still empty) bytes to the first step; ``begin_importing`` does that for imports other than "known", and
    is None where a format has no table of what can be imported.
    """

    name: str
    levels: tuple[str, ...]
    least: Callable[[str], int]
    begin: Callable[[int, str], Callable[[bytearray], Step]]
    begin_importing: Callable[[int, str, Imports], Callable[[bytearray], Step]] | None = None


_formats: dict[str, Format] = {}


def register(format: Format) -> None:
    """Add a format; a name stands for one format only."""
    if format.name in _formats:
        raise ValueError(f"format {format.name} is registered twice")
    _formats[format.name] = format


def _known() -> dict[str, Format]:
    for folder in _FOLDERS:
        import_module(f"bytegen.formats.{folder}")
    return _formats


def available() -> tuple[str, ...]:
    """Names of the formats."""
    return tuple(sorted(_known()))


def _find(format: str, level: str | None = None) -> Format:
    known = _known()
    if format not in known:
        raise FormatError(f"unknown format {format!r}; there are: {', '.join(sorted(known))}")
    found = known[format]
    if level is not None and level not in found.levels:
        raise FormatError(f"unknown level {level!r} of {format}; there are: {', '.join(found.levels)}")
    return found


def levels(format: str) -> tuple[str, ...]:
    """Levels of a format, each including the one before. Raises `FormatError` for an unknown format."""
    return _find(format).levels


def least_bytes(format: str, level: str = "load") -> int:
    """Size of the smallest file of a format at a level. Raises `FormatError` where either is unknown."""
    return _find(format, level).least(level)


def constraint(
    format: str,
    *,
    max_bytes: int = 143_360,
    level: str = "load",
    privileged: bool = False,
    static: bool = False,
    min_bytes: int = 0,
    imports: Imports = "known",
) -> Constraint:
    """A constraint at the start of a file of at least ``min_bytes`` and at most ``max_bytes`` bytes.

    Every level lets bytes follow all that a file's headers describe, so each length from the smallest file to
    ``max_bytes`` can be asked for, and ``min_bytes == max_bytes`` asks for exactly that one.

    ``privileged`` lets level ``code`` hold privileged and system instructions, ports, interrupts and far
    transfers; without it code's way into the system is the system call. Other levels do not look at code.

    ``static`` keeps ELF files to programs at a fixed address without a dynamic section (ET_EXEC, statically
    linked); PE files have no such kind, and it does nothing there.

    ``imports`` says what PE files may import at levels ``load`` and ``code``: ``"known"``, what every Windows has;
    DLLs that come along with the file beside that, a sequence of `Library` (``formats.library("python311.dll")``);
    or ``"any"``: what is imported is nobody's business, and a file loads only where it is found. ELF files name
    the libraries they need, and whether those are there is never looked at.

    Raises `FormatError` for an unknown format or level (listing those there are), for a limit below the
    smallest file (saying its size), and for a ``min_bytes`` that is negative or above the limit.
    """
    found = _find(format, level)
    least = found.least(level)
    if max_bytes < least:
        raise FormatError(f"max_bytes is {max_bytes}, but the smallest {format} file has {least} bytes")
    if max_bytes > MOST_BYTES:
        raise FormatError(f"max_bytes is {max_bytes}; it may be at most {MOST_BYTES}")
    if not 0 <= min_bytes <= max_bytes:
        raise FormatError(f"min_bytes is {min_bytes}; it may be from 0 to max_bytes, which is {max_bytes}")
    if isinstance(imports, str) and imports not in ("known", "any"):
        raise FormatError(f'imports is {imports!r}; it may be "known", "any", or a list of libraries')
    if not isinstance(imports, str):
        for library in imports:
            if not library.names:
                raise FormatError(f"{library.name}: a library to import from has at least one name")
    if imports == "known" or found.begin_importing is None:
        begin = found.begin(max_bytes, level)
    else:
        begin = found.begin_importing(max_bytes, level, imports)
    return Constraint(
        begin,
        format=format,
        level=level,
        max_bytes=max_bytes,
        privileged=privileged,
        static=static,
        min_bytes=min_bytes,
    )


MOST_BYTES = 1 << 32
