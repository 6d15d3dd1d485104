"""What sections hold: string tables, symbols, relocations; each registers its kind (`tables`) and grammar."""

from __future__ import annotations

from bytegen.formats.elf.contents import compressed, relative, relocations, strings, symbols

__all__ = ["compressed", "relative", "relocations", "strings", "symbols"]
