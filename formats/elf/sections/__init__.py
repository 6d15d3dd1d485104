"""Section headers."""

from __future__ import annotations

from bytegen.formats.elf.sections import header

__all__ = ["header"]
