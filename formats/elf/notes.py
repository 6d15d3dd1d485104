"""Notes: the grammar of note regions ahead, and the check of note bytes already written.

A note is namesz, descsz, type (4 bytes each), the name, the descriptor; name and descriptor are padded with
zeros so that the descriptor and the next note start at a multiple of ``align`` (4 or 8) from the first note,
which itself starts at a multiple of 4. Some tools pad to 4 bytes whatever the alignment (LIEF), others to 8
where the segment says so (readelf), so notes padded to 8 are those of which both read the same.
Tools decode the notes of owners they know, so a name may begin like one of theirs only where its content is
covered here: "GNU" (ABI tag, hardware capabilities, build id, gold version, properties) and "Go".

Sources: gABI chapter 5, the Linux extensions to gABI (properties ascend by type), binutils' readelf.c.
"""

from __future__ import annotations

from typing import NamedTuple

from bytegen.formats.core.intset import Finite, IntSet, Piece, Span, Window, anything, exactly, interval
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.steps import FreeStep, IntStep, Step
from bytegen.formats.elf.plan import Plan, opener, proceed

HEAD = 12
LEAST = 16  # a note with a name of at least one byte
GNU = int.from_bytes(b"GNU\0", "little")
GO = int.from_bytes(b"Go\0\0", "little")
GNU_PROPERTY_NAME = b"\5\0\0\0GNU\0"  # type and name
MOST_DESC = 1 << 20  # LIEF reads no longer descriptors

# property type -> data size: stack size, no copy on protected, and the x86 bit masks
PROPERTIES = {
    1: 8,
    2: 0,
    0xC0000002: 4,
    0xC0008001: 4,
    0xC0008002: 4,
    0xC0010001: 4,
    0xC0010002: 4,
}
_PROPERTY_TYPES = tuple(PROPERTIES)
# The first letters of owners whose notes tools decode; "*$!+" mark build attributes.
_VENDOR_FIRST = frozenset(b"GAFNPOSICLXQVaglstn*$!+")
_SAFE_RANGES = tuple(
    (low, high)
    for low, high in zip(
        [0, *(b + 1 for b in sorted(_VENDOR_FIRST))],
        [*(b - 1 for b in sorted(_VENDOR_FIRST)), 255],
        strict=True,
    )
    if low <= high
)
_SAFE_FIRST = IntSet(1, *(Span(low, high) for low, high in _SAFE_RANGES))
_SAFE_NAMES = tuple(Window(0, 0xFFFFFFFF, 256, low, high) for low, high in _SAFE_RANGES)
_TYPES = IntSet(4, Span(0, 0xFF), Span(0x102, 0xFFFFFFFF))  # 0x100 and 0x101 are build attributes


class NoteDetail(NamedTuple):
    """Padding of a note region (4 or 8), and whether it is a single GNU property note."""

    align: int
    single: bool


def up(value: int, align: int) -> int:
    """The least multiple of ``align`` that is at least ``value``."""
    return -(-value // align) * align


def _sums(types: tuple[int, ...]) -> frozenset[int]:
    """The sizes of descriptors made of some of these property types, the empty one included."""
    sizes = {0}
    for kind in types:
        sizes |= {size + 8 + up(PROPERTIES[kind], 8) for size in sizes}
    return frozenset(sizes)


_FILLS = tuple(_sums(_PROPERTY_TYPES[i:]) for i in range(len(_PROPERTY_TYPES) + 1))
PROPERTY_SIZES = tuple(sorted(16 + size for size in _FILLS[0] if size))


def gnu_fits(kind: int, descsz: int) -> bool:
    """Whether a GNU note of this type may have a descriptor of this size."""
    if kind == 1:
        return descsz >= 16
    if kind == 2:
        return descsz >= 8
    if kind == 5:
        return descsz > 0 and descsz in _FILLS[0]
    return kind in (3, 4)


def name_fits(name: bytes, kind: int, descsz: int) -> bool:
    """Whether a note of this owner may have this type and size of descriptor."""
    if name == b"GNU\0":
        return gnu_fits(kind, descsz)
    if name == b"Go\0\0":
        return kind == 4
    return name[0] not in _VENDOR_FIRST


def name_starts(byte: int) -> bool:
    """Whether some name that may be used begins with this byte."""
    return byte == b"G"[0] or byte not in _VENDOR_FIRST


class _Note(NamedTuple):
    """A note being read: its place and the fields known."""

    plan: Plan
    region: Region
    start: int
    number: int
    namesz: int = 0
    descsz: int = 0
    kind: int = 0

    def path(self, name: str) -> str:
        return f"{self.region.path}.note[{self.number}].{name}"

    @property
    def align(self) -> int:
        align: int = self.region.detail.align
        return align

    @property
    def desc(self) -> int:
        """Offset of the descriptor."""
        return self.region.start + up(self.start - self.region.start + HEAD + self.namesz, self.align)

    @property
    def end(self) -> int:
        """Offset of the next note."""
        return self.region.start + up(self.desc - self.region.start + self.descsz, self.align)


@opener("notes")
def _open(plan: Plan, region: Region, data: bytearray) -> Step:
    return _note(_Note(plan, region, region.start, 0), data)


def _note(note: _Note, data: bytearray) -> Step:
    if note.start == note.region.end:
        return proceed(note.plan, note.start, data)
    room = note.region.end - note.start
    single = note.region.detail.single
    if single:
        choices = exactly(4, 4)
    elif note.align == 4:
        choices = interval(4, 1, room - HEAD)
    else:
        choices = IntSet(4, Window(1, room - HEAD, 8, 1, 4))
    return IntStep(
        note.start,
        4,
        choices,
        note.path("namesz"),
        "4" if single else f"1 to {room - HEAD}: the name fits",
        lambda value, data: _descsz(note._replace(namesz=value)),
    )


def _descsz(note: _Note) -> Step:
    room = note.region.end - note.desc
    if note.region.detail.single:
        choices = exactly(4, room)
    elif note.align == 4:
        choices = IntSet(
            4, Span(0, min(room - LEAST, MOST_DESC)), Span(max(0, room - 3), min(room, MOST_DESC))
        )
    else:
        spans = [(0, min(room - LEAST, MOST_DESC)), (max(0, room - 3), min(room, MOST_DESC))]
        choices = IntSet(4, *(Window(a, b, 8, c, d) for a, b in spans if a <= b for c, d in ((0, 0), (5, 7))))
    return IntStep(
        note.start + 4,
        4,
        choices,
        note.path("descsz"),
        f"fills the {room} bytes left, or leaves room for one more note",
        lambda value, data: _kind(note._replace(descsz=value)),
    )


def _kind(note: _Note) -> Step:
    choices = exactly(4, 5) if note.region.detail.single else _TYPES
    return IntStep(
        note.start + 8,
        4,
        choices,
        note.path("type"),
        "5 in a property note; no build attribute (0x100, 0x101)",
        lambda value, data: _name(note._replace(kind=value), data),
    )


def _name(note: _Note, data: bytearray) -> Step:
    start = note.start + HEAD
    rule = "an owner whose notes of this type and size tools can decode, or one they do not know"
    if note.namesz != 4:
        return IntStep(
            start,
            1,
            _SAFE_FIRST,
            note.path("name"),
            rule,
            lambda value, data: _free(note, start + 1, note.namesz - 1, "name", _padding_of_name, data),
        )
    known = [GNU] if gnu_fits(note.kind, note.descsz) else []
    if note.kind == 4:
        known.append(GO)
    pieces: tuple[Piece, ...] = () if note.region.detail.single else _SAFE_NAMES
    return IntStep(
        start,
        4,
        IntSet(4, Finite(known), *pieces),
        note.path("name"),
        rule,
        lambda value, data: _padding(note, start + 4, note.desc, "name", _descriptor, data),
    )


def _free(note: _Note, start: int, size: int, name: str, then: object, data: bytearray) -> Step:
    """``size`` free bytes, then ``then(note, data)``."""
    assert callable(then)
    if not size:
        step: Step = then(note, data)
        return step
    return FreeStep(start, start + size, None, note.path(name), "", lambda data: then(note, data))


def _padding(note: _Note, start: int, stop: int, name: str, then: object, data: bytearray) -> Step:
    """Zeros from ``start`` to ``stop``, then ``then(note, data)``."""
    assert callable(then)
    if start == stop:
        step: Step = then(note, data)
        return step
    return IntStep(
        start,
        stop - start,
        exactly(stop - start, 0),
        note.path(f"{name}.pad"),
        "zero",
        lambda value, data: then(note, data),
    )


def _padding_of_name(note: _Note, data: bytearray) -> Step:
    return _padding(note, note.start + HEAD + note.namesz, note.desc, "name", _descriptor, data)


def _descriptor(note: _Note, data: bytearray) -> Step:
    if note.kind == 5 and note.namesz == 4 and data[note.start + HEAD : note.start + HEAD + 4] == b"GNU\0":
        return _property(note, note.desc, 0, data)
    return _free(note, note.desc, note.descsz, "desc", _padding_of_desc, data)


def _padding_of_desc(note: _Note, data: bytearray) -> Step:
    return _padding(note, note.desc + note.descsz, note.end, "desc", _next, data)


def _next(note: _Note, data: bytearray) -> Step:
    return _note(_Note(note.plan, note.region, note.end, note.number + 1), data)


def _property(note: _Note, position: int, first: int, data: bytearray) -> Step:
    """The property at ``position``, of a type from the ``first`` on."""
    left = note.desc + note.descsz - position
    if not left:
        return _padding_of_desc(note, data)
    choices = [
        kind
        for i, kind in enumerate(_PROPERTY_TYPES)
        if i >= first and left - 8 - up(PROPERTIES[kind], 8) in _FILLS[i + 1]
    ]
    return IntStep(
        position,
        4,
        exactly(4, *choices),
        note.path("desc.pr_type"),
        "a known property, ascending, with the rest of the descriptor filled by later ones",
        lambda value, data: _property_size(note, position, value),
    )


def _property_size(note: _Note, position: int, kind: int) -> Step:
    size = PROPERTIES[kind]
    later = _PROPERTY_TYPES.index(kind) + 1
    stop = position + 8 + up(size, 8)

    def after(note: _Note, data: bytearray) -> Step:
        return _property(note, stop, later, data)

    def padded(note: _Note, data: bytearray) -> Step:
        return _padding(note, position + 8 + size, stop, "desc", after, data)

    def value(_: int, data: bytearray) -> Step:
        if not size:
            return after(note, data)
        return IntStep(
            position + 8,
            size,
            anything(size),
            note.path("desc.pr_data"),
            "any",
            lambda value, data: padded(note, data),
        )

    return IntStep(
        position + 4, 4, exactly(4, size), note.path("desc.pr_datasz"), f"{size} for this type", value
    )
