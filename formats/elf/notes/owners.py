"""Which notes tools can decode: owners, types and descriptors.

Tools decode the notes of owners they know, so a name may begin like one of theirs only where its content is
covered here: "GNU" (ABI tag, hardware capabilities, build id, gold version, properties), "Go", "FDO" (package
metadata), "stapsdt" (probes) and build attributes ("GA" and one of "*$!+").

Sources: gABI chapter 5, the Linux extensions to gABI (properties ascend by type), binutils' readelf.c
(process_note and what it calls), the watermark specification of annobin.
"""

from __future__ import annotations

from functools import lru_cache

from bytegen.formats.core.intset import IntSet, exactly
from bytegen.formats.core.pieces import Piece, Span, Window
from bytegen.formats.elf.target import AARCH64, X86_64, Target

HEAD = 12
LEAST = 16  # a note with a name of at least one byte
MOST_DESC = 1 << 20  # LIEF reads no longer descriptors
GNU = int.from_bytes(b"GNU\0", "little")
GO = int.from_bytes(b"Go\0\0", "little")
FDO = int.from_bytes(b"FDO\0", "little")
STAPSDT = int.from_bytes(b"stapsdt\0", "little")
GNU_PROPERTY_NAME = b"\5\0\0\0GNU\0"  # type and name
NT_GNU_PROPERTY, NT_STAPSDT, NT_GO_BUILD_ID, NT_FDO_PACKAGE = 5, 3, 4, 0xCAFE1A7E
ATTRIBUTE_OPEN, ATTRIBUTE_FUNC = 0x100, 0x101  # types of build attributes
_ATTRIBUTE_NUMBERS = frozenset(range(1, 9))  # version, stack protector, relro, ...: known attributes

# The first letters of owners whose notes tools decode; "*$!+" mark build attributes.
VENDOR_FIRST = frozenset(b"GAFNPOSICLXQVaglstn*$!+")
_VENDORS = (
    b"GNU", b"GA", b"*", b"$", b"!", b"+", b"Go", b"FDO", b"stapsdt", b"FreeBSD", b"NetBSD", b"OpenBSD", b"PaX",
    b"SPU/", b"IPF/VMS", b"QNX", b"CORE", b"LINUX", b"AMD", b"Android", b"Xen", b"VMS", b"NVIDIA", b"LLVM", b"XNU",
)  # fmt: skip
_SAFE_RANGES = tuple(
    (low, high)
    for low, high in zip(
        [0, *(b + 1 for b in sorted(VENDOR_FIRST))],
        [*(b - 1 for b in sorted(VENDOR_FIRST)), 255],
        strict=True,
    )
    if low <= high
)
# Names of four bytes, the last a zero, that begin like no known owner.
SAFE_NAMES: tuple[Piece, ...] = tuple(Window(0, 0xFFFFFF, 256, low, high) for low, high in _SAFE_RANGES)
SAFE_TYPES = IntSet(4, Span(0, 0xFF), Span(0x102, 0xFFFFFFFF))  # no build attributes


def up(value: int, align: int) -> int:
    """The least multiple of ``align`` that is at least ``value``."""
    return -(-value // align) * align


@lru_cache(maxsize=256)
def letters(begun: bytes) -> IntSet | None:
    """The bytes after the beginning of an owner's name that make it begin like no known one; None: any."""
    near = [name for name in _VENDORS if name.startswith(begun)]
    if not near:
        return None
    barred = {name[len(begun)] for name in near if len(name) == len(begun) + 1}
    return exactly(1, *(letter for letter in range(256) if letter not in barred))


@lru_cache(maxsize=8)
def properties(target: Target) -> dict[int, int]:
    """Property type -> data size, in ascending order: stack size, no copy on protected, and bit masks."""
    found = {1: target.word, 2: 0, 0xB0008000: 4}
    if target.machine == AARCH64.machine:
        return {**found, 0xC0000000: 4}
    return {
        **found,
        0xC0000002: 4,
        0xC0008001: 4,
        0xC0008002: 4,
        0xC0010001: 4,
        0xC0010002: 4,
    }


@lru_cache(maxsize=8)
def fills(target: Target) -> tuple[frozenset[int], ...]:
    """[i]: the sizes of descriptors made of some of the property types from the i-th on, 0 included."""
    sizes = {0}
    found = [frozenset(sizes)]
    for size in reversed(properties(target).values()):
        sizes = sizes | {more + 8 + up(size, target.word) for more in sizes}
        found.append(frozenset(sizes))
    return tuple(reversed(found))


@lru_cache(maxsize=8)
def property_sizes(target: Target) -> tuple[int, ...]:
    """Sizes of a note of GNU properties."""
    return tuple(sorted(16 + size for size in fills(target)[0] if size))


PROPERTY_SIZES = property_sizes(X86_64)


def gnu_fits(kind: int, descsz: int, target: Target) -> bool:
    """Whether a GNU note of this type may have a descriptor of this size."""
    if kind == 1:
        return descsz >= 16
    if kind == 2:
        return descsz >= 8
    if kind == NT_GNU_PROPERTY:
        return descsz > 0 and descsz in fills(target)[0]
    return kind in (3, 4)


def stapsdt_fits(kind: int, descsz: int, target: Target) -> bool:
    """Whether a probe's note may have a descriptor of this size: three addresses and three strings."""
    return kind == NT_STAPSDT and descsz >= 3 * target.word + 3


def attribute_fits(name: bytes, descsz: int, target: Target) -> bool:
    """Whether a build attribute of this name may have a descriptor of this size: none, or a range."""
    if name[:2] != b"GA" or len(name) < 5 or name[2] not in b"*$!+" or descsz not in (0, 2 * target.word):
        return False
    if name[3] in _ATTRIBUTE_NUMBERS:
        return name[2] != 0x2A or len(name) <= 13  # the number after "*" has up to 8 bytes
    text = name[3:].split(b"\0", 1)
    return text[0].isascii() and text[0].decode().isprintable() and bool(text[0]) and len(text[1]) <= 8


def name_fits(name: bytes, kind: int, descsz: int, target: Target) -> bool:
    """Whether a note of this owner (its bytes, with the zero at the end) may have this type and size."""
    if name[-1]:
        return False
    if kind in (ATTRIBUTE_OPEN, ATTRIBUTE_FUNC):
        return attribute_fits(name, descsz, target)
    if name == b"GNU\0":
        return gnu_fits(kind, descsz, target)
    if name == b"Go\0\0":
        return kind == NT_GO_BUILD_ID
    if name == b"FDO\0":
        return kind == NT_FDO_PACKAGE and descsz > 0
    if name == b"stapsdt\0":
        return stapsdt_fits(kind, descsz, target)
    return not name.startswith(_VENDORS)


def probe_fits(desc: bytes, target: Target) -> bool:
    """Whether a probe's descriptor ends in three strings."""
    text = desc[3 * target.word :]
    return text.count(0) == 3 and text[-1] == 0


def properties_fit(desc: bytes, target: Target) -> bool:
    """Whether a descriptor holds known properties, ascending, of their sizes."""
    known = properties(target)
    position, last = 0, -1
    while position < len(desc):
        kind = int.from_bytes(desc[position : position + 4], "little")
        size = int.from_bytes(desc[position + 4 : position + 8], "little")
        stop = position + 8 + up(size, target.word)
        if kind <= last or known.get(kind) != size or stop > len(desc):
            return False
        if any(desc[position + 8 + size : stop]):
            return False
        position, last = stop, kind
    return position == len(desc)
