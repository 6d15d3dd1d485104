"""Names of symbol versions in a string table: which there are, by their hashes, and which the C library has.

Source of the lists: the version definitions of glibc 2.36's libraries (``readelf -V``), which later ones keep.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from bytegen.formats.elf.dynamic.names import KNOWN_LIBRARIES, string_at
from bytegen.formats.elf.dynamic.versions import C_VERSION

# Versions that each of `KNOWN_LIBRARIES` has, so that a table with this name will do for whichever is needed.
SHARED = {
    "elf64-x86_64": b"GLIBC_2.2.5",
    "elf32-i386": b"GLIBC_2.1",
    "elf64-aarch64": b"GLIBC_2.17",
}
_C = "2.22 2.23 2.24 2.25 2.26 2.27 2.28 2.29 2.30 2.31 2.32 2.33 2.34 2.35 2.36 ABI_DT_RELR PRIVATE"
_FROM_4 = "2.4 2.5 2.6 2.7 2.8 2.9 2.10 2.11 2.12 2.13 2.14 2.15 2.16 2.17 2.18"
_M = "2.15 2.18 2.23 2.24 2.25 2.26 2.27 2.28 2.29 2.31 2.32 2.35"
_THREADS = "2.3.2 2.3.3 2.3.4 2.4 2.11 2.12 2.18 2.28 2.30 2.31"
_HAVE = {  # in the order of `KNOWN_LIBRARIES`
    "elf64-x86_64": (
        f"2.2.5 2.2.6 2.3 2.3.2 2.3.3 2.3.4 {_FROM_4} {_C}",
        f"2.2.5 2.4 {_M}",
        "2.2.5 2.3.3 2.3.4",
        f"2.2.5 2.2.6 {_THREADS}",
        "2.2.5 2.3.3 2.3.4 2.4 2.7",
    ),
    "elf32-i386": (
        f"2.0 2.1 2.1.1 2.1.2 2.1.3 2.2 2.2.1 2.2.2 2.2.3 2.2.4 2.2.6 2.3 2.3.2 2.3.3 2.3.4 {_FROM_4} {_C}",
        f"2.0 2.1 2.2 2.4 {_M}",
        "2.0 2.1 2.3.3 2.3.4",
        f"2.0 2.1 2.1.1 2.1.2 2.2 2.2.3 2.2.6 {_THREADS}",
        "2.1 2.2 2.3.3 2.3.4 2.4 2.7",
    ),
    "elf64-aarch64": (
        f"2.17 2.18 {_C}",
        "2.17 2.18 2.23 2.24 2.25 2.27 2.28 2.29 2.31 2.32 2.35",
        "2.17",
        "2.17 2.18 2.28 2.30 2.31",
        "2.17",
    ),
}
_MENTIONED = re.compile(rb"GLIBC_[0-9A-Z_.]{1,11}(?=\0)")
_LONGEST = 255  # characters of a version's name


@lru_cache(maxsize=8)
def versions_of(target: str) -> dict[bytes, frozenset[bytes]]:
    """The versions of each known library of a machine."""
    return {
        name: frozenset(b"GLIBC_" + version.encode() for version in have.split())
        for name, have in zip(KNOWN_LIBRARIES, _HAVE[target], strict=True)
    }


@lru_cache(maxsize=8)
def _every(target: str) -> frozenset[bytes]:
    return frozenset().union(*versions_of(target).values())


def may_have(target: str, file: bytes, version: bytes) -> bool:
    """Whether a file may have a version: of a library of the C library one that it has, or one newer than the lists."""
    if not version:
        return False
    have = versions_of(target).get(file)
    if have is None or version in have:
        return True
    return version not in _every(target) and C_VERSION.fullmatch(version) is not None


def mentioned(text: bytes) -> set[bytes]:
    """The versions of the C library that are whole strings in ``text``, or the tails of strings."""
    return {found for found in _MENTIONED.findall(text) if C_VERSION.fullmatch(found)}


def may_need(target: str, text: bytes, files: Iterable[bytes]) -> bool:
    """Whether a string table has the name of a version that one of these files, which it names, may have."""
    names = mentioned(text)
    return any(
        file not in KNOWN_LIBRARIES or any(may_have(target, file, version) for version in names)
        for file in files
    )


class Names:
    """A string table that is written, for the version tables that refer to it.

    ``text``: its bytes. ``hashes``: uint32 [i] of the string at i, where ``short`` says that it has 1 to 255
    characters.
    """

    def __init__(self, text: bytes, target: str) -> None:
        self.text, self.target = text, target
        self._hashes: tuple[np.ndarray, np.ndarray] | None = None
        self._places: dict[bytes, np.ndarray] = {}

    def files(self, names: Iterable[bytes]) -> list[int]:
        """Where the names of files begin that may have a version which is named here too."""
        found = list[int]()
        for name in set(names):
            if not may_need(self.target, self.text, (name,)):
                continue
            place = self.text.find(name + b"\0")
            while place >= 0:
                found.append(place)
                place = self.text.find(name + b"\0", place + 1)
        return sorted(found)

    def at(self, place: int) -> bytes:
        """The string at a place."""
        found = string_at(self.text, place, len(self.text))
        assert found is not None
        return found

    def _all(self) -> tuple[np.ndarray, np.ndarray]:
        if self._hashes is None:
            text = np.frombuffer(self.text, np.uint8).astype(np.uint32)
            hashes = np.zeros(len(text), np.uint32)
            open = np.flatnonzero(text)
            short = text != 0
            for ahead in range(_LONGEST + 1):
                letters = text[open + ahead]  # the table ends with a zero
                open, letters = open[letters != 0], letters[letters != 0]
                if not len(open):
                    break
                value = (hashes[open] << np.uint32(4)) + letters
                hashes[open] = (value ^ (value & np.uint32(0xF0000000)) >> np.uint32(24)) & np.uint32(
                    0x0FFFFFFF
                )
            short[open] = False
            self._hashes = hashes, short
        return self._hashes

    def versions(self, file: bytes) -> np.ndarray:
        """Where the names of versions begin that a file may have, ascending."""
        if file not in self._places:
            if file in KNOWN_LIBRARIES:
                good = [name for name in mentioned(self.text) if may_have(self.target, file, name)]
                places = list[int]()
                for name in good:
                    place = self.text.find(name + b"\0")
                    while place >= 0:
                        places.append(place)
                        place = self.text.find(name + b"\0", place + 1)
                self._places[file] = np.array(sorted(places), np.int64)
            else:
                self._places[file] = np.flatnonzero(self._all()[1])
        return self._places[file]

    def hashes(self, file: bytes) -> np.ndarray:
        """The hashes of the names of its versions, ascending."""
        return np.unique(self._all()[0][self.versions(file)])

    def with_hash(self, file: bytes, hashed: int) -> np.ndarray:
        """Where the names of its versions with that hash begin, ascending."""
        places = self.versions(file)
        return places[self._all()[0][places] == hashed]
