"""Files drawn by hand: fields of some paths get what a test wants, the others are drawn."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from bytegen.formats.core.constraint import END, Constraint

Wanted = int | Callable[[random.Random], int]


def steered(c: Constraint, rng: random.Random, wanted: Mapping[str, Wanted]) -> bytes:
    """A file in which the field at a path, or of a name (what follows the path's last dot), has the value wanted.

    A byte of a value that the masks do not allow, and every other byte, is drawn evenly among those that they do.
    """
    start, path, value = 0, "", 0
    while not c.done:
        mask, name = c.mask(), c.field()
        if name != path or (name.rpartition(".")[2] in wanted and c.position - start >= 2):
            start, path = c.position, name
            want = wanted.get(name, wanted.get(name.rpartition(".")[2], -1))
            value = want if isinstance(want, int) else want(rng)
        byte = value >> 8 * (c.position - start) & 0xFF
        if value < 0 or not mask[byte]:
            allowed = mask.nonzero()[0]
            byte = END if mask[END] and rng.random() < 0.1 else int(allowed[rng.randrange(len(allowed))])
        c.advance(byte)
    return c.data
