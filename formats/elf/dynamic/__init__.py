"""The dynamic section of ELF files and the tables that it names."""

from __future__ import annotations

from bytegen.formats.elf.dynamic import (
    ahead,
    ahead_hashes,
    ahead_indices,
    ahead_strings,
    ahead_versions,
    section,
)  # their region grammars register themselves
from bytegen.formats.elf.dynamic.tags import MOST_ENTRIES, least_entries

__all__ = [
    "MOST_ENTRIES",
    "ahead",
    "ahead_hashes",
    "ahead_indices",
    "ahead_strings",
    "ahead_versions",
    "least_entries",
    "section",
]
