"""DLLs that come along with a file: what they export, read from the DLLs themselves.

python = formats.library("python311.dll")
c = formats.constraint("pe32plus-x86_64", level="load", imports=[python])
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bytegen.formats.errors import FormatError

# What imports may name: the letters that pefile takes; LIEF reads names of DLLs from 4 letters on.
_FUNCTION = re.compile(r"[A-Za-z0-9._?@$()<>]{1,4096}")
_DLL = re.compile(r"[A-Za-z0-9._@$()!#%&'^`{}~+,;=\[\]-]{4,255}")


class Library(NamedTuple):
    """A DLL: its file name, the names of its functions, and the ordinals of all of them."""

    name: str
    names: frozenset[str]
    ordinals: frozenset[int] = frozenset()


Imports = Literal["known", "any"] | Sequence[Library]
"""What files may import: see `bytegen.formats.constraint`."""


def library(path: str | os.PathLike[str], name: str | None = None) -> Library:
    """What a DLL exports. ``name`` is the file name by which it is imported; the default is that of ``path``.

    Names that no import can have (pefile's letters) are left out. Raises `FormatError` for a file that cannot be
    read or is no PE file, for one that exports no name, and for a file name that no import can have.
    """
    from bytegen.formats.oracles.rawpe import read_exports, read_raw_pe

    path = Path(path)
    name = path.name if name is None else name
    if not _DLL.fullmatch(name):
        raise FormatError(f"{name!r} cannot be imported: a name of 4 to 255 letters, digits and signs can")
    try:
        exports = read_exports(read_raw_pe(path.read_bytes()))
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise FormatError(f"{path}: no PE file: {error}") from None
    _, functions, named = exports or ({}, [], {})
    # A name without a function behind it resolves to nothing.
    present = {ordinal for ordinal, _ in functions}
    texts = {text.decode("latin-1") for ordinal in named.keys() & present for text in named[ordinal]}
    names = frozenset(text for text in texts if _FUNCTION.fullmatch(text))
    if not names:
        raise FormatError(f"{path}: exports no function by a name")
    return Library(name, names, frozenset(ordinal for ordinal in present if 0 < ordinal <= 0xFFFF))


def to_plain(imports: Imports) -> str | list[list[Any]]:
    """The same in JSON's types, for another process: see `from_plain`."""
    if isinstance(imports, str):
        return imports
    return [[library.name, sorted(library.names), sorted(library.ordinals)] for library in imports]


def from_plain(plain: str | list[list[Any]]) -> Imports:
    """What `to_plain` was given."""
    if isinstance(plain, str):
        return "any" if plain == "any" else "known"
    return [Library(name, frozenset(names), frozenset(ordinals)) for name, names, ordinals in plain]


__all__ = ["Imports", "Library", "library"]
