"""The contents of data directories: one module a directory registers its size rules and its grammar."""

from __future__ import annotations

from bytegen.formats.pe.directories import imports, thunks, trivial
from bytegen.formats.pe.spec import Directory, directory

__all__ = ["imports", "thunks", "trivial"]

directory(Directory("imports", lambda target: imports.SIZE, lambda target, size: imports.SIZE))
