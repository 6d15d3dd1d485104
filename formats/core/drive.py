"""Driving a constraint: along a real file, and at random."""

from __future__ import annotations

import random
from typing import Literal

import numpy as np

from bytegen.formats.core.constraint import END, Constraint, Refusal
from bytegen.formats.errors import FormatError

Pick = Literal["uniform", "lowest", "highest"]
PICKS = ("uniform", "lowest", "highest")


def replay(c: Constraint, data: bytes) -> Refusal | None:
    """Drive the constraint along ``data`` and its end: the first refused offset and rule, or None.

    The constraint is left at the refusal, or ended.
    """
    taken = c.advance_many(data)
    if taken < len(data) or not c.mask()[END]:
        return c.refusal()
    c.advance(END)
    return None


def draw(c: Constraint, rng: random.Random, pick: Pick = "uniform") -> None:
    """Drive the constraint to the end of a file, choosing among what it allows.

    ``uniform``: every allowed byte, and the end, with the same probability; ``lowest`` and ``highest``: the
    least and the greatest of them, the end counting as 256.
    """
    if pick not in PICKS:
        raise FormatError(f"unknown pick {pick!r}; there are: {', '.join(PICKS)}")
    while not c.done:
        mask = c.mask()
        if pick == "uniform" and c.free():
            _draw_free(c, rng, bool(mask[END]))
            continue
        choices = mask.nonzero()[0]
        place = rng.randrange(len(choices)) if pick == "uniform" else 0 if pick == "lowest" else -1
        c.advance(int(choices[place]))


def _draw_free(c: Constraint, rng: random.Random, end: bool) -> None:
    """The bytes of a free run, drawn together; where the file may end, it does with chance 1/257 at each."""
    room = c.free()
    length = next((i for i in range(room) if rng.randrange(257) == END), room) if end else room
    c.advance_many(rng.randbytes(length))
    if length < room:
        c.advance(END)


def random_file(c: Constraint, seed: int, pick: Pick = "uniform") -> bytes:
    """The file that `draw` writes from this seed."""
    draw(c, random.Random(seed), pick)
    return c.data


def forced_flags(c: Constraint, data: bytes) -> np.ndarray:
    """bool[len(data) + 1]: the bytes of ``data``, and its end, that the constraint leaves no choice of.

    Raises `FormatError` with offset, field and rule for data that the constraint refuses.
    """
    taken = c.advance_many(data)
    if taken < len(data) or not c.mask()[END]:
        raise FormatError(f"not a {c.format} file at level {c.level}: {c.refusal()}")
    return c.forced_flags()
