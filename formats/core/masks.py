"""Masks: bool[257], read-only, the bytes that may come next and whether the file may end; and packed, 9 words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from bytegen.formats.errors import FormatError

END = 256
WORDS = 9  # 32-bit words that hold 257 bits
_MOST_KEPT = 16_384
_ROWS = 32


def constant(any_byte: bool, end: bool) -> np.ndarray:
    """A mask of all bytes or none, and the end or not."""
    mask = np.full(257, any_byte)
    mask[END] = end
    mask.flags.writeable = False
    return mask


ANY, ANY_OR_END, ONLY_END = constant(True, False), constant(True, True), constant(False, True)
ANY_BYTE = ANY

_shared: dict[bytes, np.ndarray] = {}


def shared(raw: bytes) -> np.ndarray:
    """The mask of 257 bytes, each 0 or 1; the same object for the same bytes, as long as it is kept."""
    found = _shared.get(raw)
    if found is None:
        if len(_shared) >= _MOST_KEPT:
            _shared.clear()
        found = _shared[raw] = np.frombuffer(raw, dtype=bool)
    return found


# Masks come back again and again as the same objects. The packed form is kept beside the mask itself, which
# keeps its id from being given to another.
_packed: dict[int, tuple[np.ndarray, bytes]] = {}


def packed(mask: np.ndarray) -> bytes:
    """36 bytes: bit i of 32-bit little-endian word i // 32 is mask[i]; the bits past 256 are 0."""
    found = _packed.get(id(mask))
    if found is not None:
        return found[1]
    raw = np.packbits(mask, bitorder="little").tobytes() + b"\0\0\0"
    if len(_packed) >= _MOST_KEPT:
        _packed.clear()
    _packed[id(mask)] = mask, raw
    return raw


class Blanks:
    """Masks without a byte, to be written into once and then only read: made many at a time, they cost least.

    ``cells``: uint8[rows, 257], ``open[row]`` the same row as bool[257], ``views[row]`` that, read-only.
    """

    __slots__ = ("_rows", "cells", "open", "views")

    def __init__(self) -> None:
        rows = np.zeros((_ROWS, 257), np.uint8)
        self.cells = memoryview(rows)  # type: ignore[arg-type]
        masks = rows.view(bool)
        self.open = list(masks)
        masks.flags.writeable = False
        self.views = list(masks)
        self._rows = iter(range(_ROWS))  # each goes to one taker, whatever the threads

    def take(self) -> int:
        """A row that nobody else has; -1 when all are taken."""
        return next(self._rows, -1)


_supply = [Blanks()]


def blank() -> tuple[Blanks, int]:
    """A row of a mask to be written, of which nobody else knows."""
    blanks = _supply[0]
    row = blanks.take()
    if row < 0:
        blanks = Blanks()
        row = blanks.take()
        _supply[0] = blanks
    return blanks, row


class Masked(Protocol):
    """What has a mask."""

    def mask(self) -> np.ndarray:
        """bool[257], read-only."""


def fill_bitmasks(constraints: Sequence[Masked], out: np.ndarray | None = None) -> np.ndarray:
    """int32[B, words]: the masks of B constraints, one bit a symbol, in xgrammar's and llguidance's layout.

    Bit i % 32 of word i // 32 stands for byte i, bit 0 of word 8 for the end. Written into ``out``, whose
    words past the ninth (of a padded vocabulary) become 0; a new int32[B, 9] where there is none. Raises
    `FormatError` where ``out`` is of another type, or too small.
    """
    rows = b"".join([packed(constraint.mask()) for constraint in constraints])
    words = np.frombuffer(rows, "<i4").reshape(len(constraints), WORDS)
    if out is None:
        return words.copy()
    if out.dtype != np.int32 or out.ndim != 2 or out.shape[0] < len(constraints) or out.shape[1] < WORDS:
        raise FormatError(
            f"bitmasks take int32[{len(constraints)}, {WORDS}] or more, got {out.dtype}{list(out.shape)}"
        )
    out[: len(constraints), :WORDS] = words
    out[: len(constraints), WORDS:] = 0
    return out
