"""Driving a constraint: along a real file, and at random."""

from __future__ import annotations

import random
from typing import Literal

import numpy as np

from bytegen.formats.core.constraint import END, Constraint, Refusal
from bytegen.formats.core.steps import FreeStep
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
        if pick == "uniform":
            if mask[:END].all():
                _draw_free(c, rng, bool(mask[END]))
                continue
            choices = mask.nonzero()[0]
            c.advance(int(choices[rng.randrange(len(choices))]))
        else:
            choices = mask.nonzero()[0]
            c.advance(int(choices[0 if pick == "lowest" else -1]))


def _draw_free(c: Constraint, rng: random.Random, end: bool) -> None:
    """Bytes of a free run, drawn together; where the file may end, each is the last with chance 1/257."""
    step = c._step
    if not isinstance(step, FreeStep):
        c.advance(rng.randrange(256))
        return
    position = c.position
    stop = step.stop if end or step.end_from is None else min(step.stop, step.end_from)
    room = stop - position
    if end:
        for length in range(room):
            if rng.randrange(257) == 256:
                c.advance_many(rng.randbytes(length))
                c.advance(END)
                return
    c.advance_many(rng.randbytes(room))


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
