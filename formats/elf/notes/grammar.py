"""Notes promised ahead.

A note is namesz, descsz, type (4 bytes each), the name, the descriptor; name and descriptor are padded with
zeros so that the descriptor and the next note start at a multiple of ``align`` (4 or 8) from the first note,
which itself starts at a multiple of 4. Some tools pad to 4 bytes whatever the alignment (LIEF, pyelftools),
others to 8 where the segment says so (readelf), so notes padded to 8 are those of which both read the same.
A name ends with a zero. Build attributes are not written here, for readelf looks up what they refer to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from bytegen.formats.core.intset import IntSet, anything, exactly, interval
from bytegen.formats.core.ledger import Region
from bytegen.formats.core.pieces import Finite, Span, Window
from bytegen.formats.core.steps import FreeStep, IntStep, Step
from bytegen.formats.elf.notes.owners import (
    FDO,
    GNU,
    GO,
    HEAD,
    LEAST,
    MOST_DESC,
    NT_FDO_PACKAGE,
    NT_GNU_PROPERTY,
    NT_GO_BUILD_ID,
    SAFE_NAMES,
    SAFE_TYPES,
    STAPSDT,
    fills,
    gnu_fits,
    letters,
    properties,
    stapsdt_fits,
    up,
)
from bytegen.formats.elf.plan import Plan, opener, proceed

_ZEROS = {size: exactly(size, 0) for size in range(1, 8)}
_NOT_ZERO = interval(1, 1, 255)
_FOUR, _FIVE = exactly(4, 4), exactly(4, NT_GNU_PROPERTY)
_FIRST8 = tuple(
    Window(0, (1 << 56) - 1, 256, piece.first, piece.last)
    for piece in SAFE_NAMES
    if isinstance(piece, Window)
)


class NoteDetail(NamedTuple):
    """Padding of a note region (4 or 8), and whether it is a single GNU property note."""

    align: int
    single: bool


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


Then = Callable[[_Note, bytearray], Step]


@opener("notes")
def _open(plan: Plan, region: Region, data: bytearray) -> Step:
    return _note(_Note(plan, region, region.start, 0), data)


def _note(note: _Note, data: bytearray) -> Step:
    if note.start == note.region.end:
        return proceed(note.plan, note.start, data)
    room = note.region.end - note.start
    single = note.region.detail.single
    if single:
        choices = _FOUR
    elif note.align == 4:
        choices = interval(4, 1, room - HEAD)
    else:
        choices = IntSet(4, Window(1, room - HEAD, 8, 1, 4))
    return IntStep(
        note.start,
        4,
        choices,
        lambda: note.path("namesz"),
        "4" if single else lambda: f"1 to {room - HEAD}: the name fits",
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
        lambda: note.path("descsz"),
        lambda: f"fills the {room} bytes left, or leaves room for one more note",
        lambda value, data: _kind(note._replace(descsz=value)),
    )


def _kind(note: _Note) -> Step:
    return IntStep(
        note.start + 8,
        4,
        _FIVE if note.region.detail.single else SAFE_TYPES,
        lambda: note.path("type"),
        "5 in a property note; no build attribute (0x100, 0x101)",
        lambda value, data: _name(note._replace(kind=value), data),
    )


def _name(note: _Note, data: bytearray) -> Step:
    start, target = note.start + HEAD, note.plan.target
    rule = "an owner whose notes of this type and size tools can decode, or one they do not know"
    known: list[int] = []
    if note.namesz == 4:
        size, safe = 4, () if note.region.detail.single else SAFE_NAMES
        if gnu_fits(note.kind, note.descsz, target):
            known.append(GNU)
        if note.kind == NT_GO_BUILD_ID:
            known.append(GO)
        if note.kind == NT_FDO_PACKAGE and note.descsz:
            known.append(FDO)
    elif note.namesz == 8 and stapsdt_fits(note.kind, note.descsz, target):
        size, safe = 8, _FIRST8
        known.append(STAPSDT)
    else:
        return _letter(note, 0, data)
    return IntStep(
        start,
        size,
        IntSet(size, Finite(known), *safe),
        lambda: note.path("name"),
        rule,
        lambda value, data: _padding_of_name(note, data),
    )


def _letter(note: _Note, i: int, data: bytearray) -> Step:
    """Byte ``i`` of a name that may still begin like a known owner's; its end where it may not."""
    start, last = note.start + HEAD, note.start + HEAD + note.namesz - 1
    choices = letters(bytes(data[start : start + i]))

    def end(note: _Note, data: bytearray) -> Step:
        return _padding(note, last, last + 1, "name.end", _padding_of_name, data)

    if choices is None or start + i == last:
        return _free(note, start + i, last - start - i, "name", end, data)
    rule = "a name that begins like that of no owner whose notes tools decode"
    return IntStep(
        start + i, 1, choices, lambda: note.path("name"), rule, lambda value, data: _letter(note, i + 1, data)
    )


def _free(note: _Note, start: int, size: int, name: str, then: Then, data: bytearray) -> Step:
    """``size`` free bytes, then ``then(note, data)``."""
    if not size:
        return then(note, data)
    return FreeStep(start, start + size, None, lambda: note.path(name), "any", lambda data: then(note, data))


def _padding(note: _Note, start: int, stop: int, name: str, then: Then, data: bytearray) -> Step:
    """Zeros from ``start`` to ``stop``, then ``then(note, data)``."""
    if start == stop:
        return then(note, data)
    return IntStep(
        start,
        stop - start,
        _ZEROS[stop - start],
        lambda: note.path(name),
        "zero",
        lambda value, data: then(note, data),
    )


def _padding_of_name(note: _Note, data: bytearray) -> Step:
    return _padding(note, note.start + HEAD + note.namesz, note.desc, "name.pad", _descriptor, data)


def _descriptor(note: _Note, data: bytearray) -> Step:
    name = data[note.start + HEAD : note.start + HEAD + note.namesz]
    if note.kind == NT_GNU_PROPERTY and name == b"GNU\0":
        return _property(note, note.desc, 0, data)
    if name == b"stapsdt\0":
        addresses = 3 * note.plan.target.word

        def strings(note: _Note, data: bytearray) -> Step:
            return _string(note, note.desc + addresses, 3, data)

        return _free(note, note.desc, addresses, "desc", strings, data)
    return _free(note, note.desc, note.descsz, "desc", _padding_of_desc, data)


def _string(note: _Note, position: int, zeros: int, data: bytearray) -> Step:
    """The byte at ``position`` of strings that hold ``zeros`` more zeros, one of them the last byte."""
    left = note.desc + note.descsz - position
    if not left:
        return _padding_of_desc(note, data)
    choices = _ZEROS[1] if left == zeros else _NOT_ZERO if zeros == 1 else anything(1)
    return IntStep(
        position,
        1,
        choices,
        lambda: note.path("desc"),
        "three strings fill the descriptor",
        lambda value, data: _string(note, position + 1, zeros - (value == 0), data),
    )


def _padding_of_desc(note: _Note, data: bytearray) -> Step:
    return _padding(note, note.desc + note.descsz, note.end, "desc.pad", _next, data)


def _next(note: _Note, data: bytearray) -> Step:
    return _note(_Note(note.plan, note.region, note.end, note.number + 1), data)


def _property(note: _Note, position: int, first: int, data: bytearray) -> Step:
    """The property at ``position``, of a type from the ``first`` on."""
    left = note.desc + note.descsz - position
    if not left:
        return _padding_of_desc(note, data)
    target = note.plan.target
    known, later = properties(target), fills(target)
    choices = [
        kind
        for i, (kind, size) in enumerate(known.items())
        if i >= first and left - 8 - up(size, target.word) in later[i + 1]
    ]
    return IntStep(
        position,
        4,
        exactly(4, *choices),
        lambda: note.path("desc.pr_type"),
        "a known property, ascending, with the rest of the descriptor filled by later ones",
        lambda value, data: _property_size(note, position, value),
    )


def _property_size(note: _Note, position: int, kind: int) -> Step:
    known = properties(note.plan.target)
    size, later = known[kind], list(known).index(kind) + 1
    stop = position + 8 + up(size, note.plan.target.word)

    def after(note: _Note, data: bytearray) -> Step:
        return _property(note, stop, later, data)

    def padded(note: _Note, data: bytearray) -> Step:
        return _padding(note, position + 8 + size, stop, "desc.pad", after, data)

    def value(_: int, data: bytearray) -> Step:
        if not size:
            return after(note, data)
        return IntStep(
            position + 8,
            size,
            anything(size),
            lambda: note.path("desc.pr_data"),
            "any",
            lambda value, data: padded(note, data),
        )

    return IntStep(
        position + 4,
        4,
        exactly(4, size),
        lambda: note.path("desc.pr_datasz"),
        lambda: f"{size} for this type",
        value,
    )
