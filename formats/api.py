"""Functions on whole files: replay, random files, forced bytes."""

from __future__ import annotations

import math
import random
from typing import Literal, get_args

import numpy as np

from bytegen.formats.core import drive
from bytegen.formats.core.constraint import Constraint, Refusal
from bytegen.formats.errors import FormatError
from bytegen.formats.registry import constraint, least_bytes

Pick = Literal["uniform", "lowest", "highest", "lively"]
PICKS: tuple[str, ...] = get_args(Pick)


def replay(c: Constraint, data: bytes) -> Refusal | None:
    """Drive a constraint along ``data`` and its end: the first refused offset and rule, or None."""
    return drive.replay(c, data)


def forced_bytes(
    format: str, data: bytes, *, level: str = "load", max_bytes: int | None = None, static: bool = False
) -> np.ndarray:
    """bool[len(data) + 1]: which bytes of a file, and whether its end, leave no choice.

    ``max_bytes`` is the limit under which they count as forced; the default is that of `constraint`, or the
    length of the file if greater; ``static`` is that of `constraint`. Raises `FormatError` (offset, field, rule)
    for a file that does not replay.
    """
    limit = max(143_360, len(data)) if max_bytes is None else max_bytes
    return drive.forced_flags(constraint(format, max_bytes=limit, level=level, static=static), data)


def sample(
    format: str, seed: int, max_bytes: int = 143_360, level: str = "load", pick: Pick = "uniform"
) -> bytes:
    """A random file of a format, the same for the same arguments.

    ``pick`` says how to choose among the allowed bytes: ``uniform``, ``lowest``, ``highest``, or ``lively``: by
    weights learnt from real files, so that tables and contents look like something (`weights`). The length
    limit of the file is drawn first, evenly on a logarithmic scale from the least size to ``max_bytes``, so
    that sizes are mixed. Raises `FormatError` as `constraint` does, and for an unknown pick.
    """
    if pick not in PICKS:
        raise FormatError(f"unknown pick {pick!r}; there are: {', '.join(PICKS)}")
    least = least_bytes(format, level)
    constraint(format, max_bytes=max_bytes, level=level)
    rng = random.Random(f"{format} {level} {pick} {seed}")
    limit = round(math.exp(rng.uniform(math.log(least), math.log(max_bytes))))
    c = constraint(format, max_bytes=min(max(limit, least), max_bytes), level=level)
    if pick == "lively":
        from bytegen.formats.weights import draw_lively

        draw_lively(c, rng)
    else:
        drive.draw(c, rng, pick)
    return c.data
