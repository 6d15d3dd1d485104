"""Notes in the bytes already written."""

from __future__ import annotations

import struct

import numpy as np

from bytegen.formats.elf.notes.owners import (
    GNU_PROPERTY_NAME,
    HEAD,
    MOST_DESC,
    NT_GNU_PROPERTY,
    name_fits,
    probe_fits,
    properties_fit,
    up,
)
from bytegen.formats.elf.target import Target
from bytegen.formats.elf.written import Behind, Lazily

_HEAD = struct.Struct("<III")
_NONE = np.zeros(0, np.uint64)


def _note_end(raw: bytes, position: int, start: int, align: int, target: Target) -> int | None:
    """Where the note at ``position``, in notes that begin at ``start``, ends; None when it is not good."""
    if position + HEAD >= len(raw):
        return None
    namesz, descsz, kind = _HEAD.unpack_from(raw, position)
    desc = start + up(position - start + HEAD + namesz, align)
    end = start + up(desc - start + descsz, align)
    if not namesz or end > len(raw) or descsz > MOST_DESC:
        return None
    if align == 8 and (desc - position - HEAD - namesz >= 4 or end - desc - descsz >= 4):
        return None
    name = raw[position + HEAD : position + HEAD + namesz]
    if any(raw[position + HEAD + namesz : desc]) or any(raw[desc + descsz : end]):
        return None
    if not name_fits(name, kind, descsz, target):
        return None
    if name == b"GNU\0" and kind == NT_GNU_PROPERTY:
        return end if properties_fit(raw[desc : desc + descsz], target) else None
    if name == b"stapsdt\0":
        return end if probe_fits(raw[desc : desc + descsz], target) else None
    return end


def note_ends(behind: Behind, target: Target, start: int, align: int) -> tuple[int, ...]:
    """Where the run of good notes that begins at ``start`` may end, ascending."""
    key = ("notes", start, align)
    if key not in behind.cache:
        ends = []
        position = start
        if start % 4 == 0:
            while (end := _note_end(behind.raw, position, start, align, target)) is not None:
                ends.append(end)
                position = end
        behind.cache[key] = tuple(ends)
    found: tuple[int, ...] = behind.cache[key]
    return found


def first_end(behind: Behind, target: Target, start: int) -> int | None:
    """Where the first of good notes, padded to 4 bytes, that begin at ``start`` ends; None when there are none."""
    ends: dict[int, int | None] = behind.cache.setdefault("first ends", {})
    if start not in ends:
        ends[start] = None if start % 4 else _note_end(behind.raw, start, start, 4, target)
    return ends[start]


def _candidates(behind: Behind) -> np.ndarray:
    """Offsets of words that may begin a good note, by its sizes and the zero that ends its name."""
    whole = len(behind.raw) // 4
    if whole < 4:
        return _NONE
    words = np.frombuffer(behind.raw, "<u4", whole)
    left = np.arange(whole, 3, -1, dtype=np.int64) * 4
    namesz, descsz = words[:-3], words[1:-2]
    places = np.flatnonzero((namesz > 0) & (descsz <= MOST_DESC) & (namesz <= left) & (descsz <= left))
    size = namesz[places].astype(np.int64)
    places = places[size + descsz[places] + HEAD <= left[places]]
    last = places * 4 + HEAD + namesz[places].astype(np.int64) - 1
    good: np.ndarray = places[np.frombuffer(behind.raw, np.uint8)[last] == 0] * 4
    return good


def _starts(behind: Behind, target: Target) -> np.ndarray:
    key = "notes"
    if key not in behind.cache:
        places = _candidates(behind).tolist()
        found = [x for x in places if first_end(behind, target, x) is not None]
        behind.cache[key] = np.array(found, np.uint64)
    starts: np.ndarray = behind.cache[key]
    return starts


def written_offsets(behind: Behind, target: Target) -> Lazily:
    """Where good notes begin. Those padded to 8 bytes are among those padded to 4."""
    return Lazily(
        lambda x: x < len(behind.raw) and bool(note_ends(behind, target, x, 4)),
        lambda: _starts(behind, target),
    )


def has_notes(behind: Behind, target: Target) -> bool:
    """Whether there is any good note."""
    key = "any note"
    if key not in behind.cache:
        places = _candidates(behind).tolist()
        behind.cache[key] = any(first_end(behind, target, x) is not None for x in places)
    return bool(behind.cache[key])


def property_end(behind: Behind, target: Target, start: int) -> int | None:
    """Where the GNU property note that begins at ``start`` ends; None when there is none."""
    raw = behind.raw
    if raw[start : start + 4] != b"\4\0\0\0" or raw[start + 8 : start + 16] != GNU_PROPERTY_NAME:
        return None
    ends = note_ends(behind, target, start, target.word)
    return ends[0] if ends else None


def property_starts(behind: Behind, target: Target) -> list[int]:
    """Where GNU property notes begin."""
    found = []
    place = behind.raw.find(GNU_PROPERTY_NAME)
    while place >= 0:
        if place >= 8 and property_end(behind, target, place - 8) is not None:
            found.append(place - 8)
        place = behind.raw.find(GNU_PROPERTY_NAME, place + 1)
    return found
