"""Functions on whole files: replay, random files, forced bytes."""

from __future__ import annotations

import math
import random
from typing import Literal, get_args

import numpy as np

from bytegen.formats.core import drive
from bytegen.formats.core.constraint import Constraint, Refusal
from bytegen.formats.errors import FormatError
from bytegen.formats.libraries import Imports
from bytegen.formats.registry import constraint, least_bytes

Pick = Literal["uniform", "lowest", "highest", "lively"]
PICKS: tuple[str, ...] = get_args(Pick)


def replay(c: Constraint, data: bytes) -> Refusal | None:
    """Drive a constraint along ``data`` and its end: the first refused offset and rule, or None."""
    return drive.replay(c, data)


def replay_whole(
    data: bytes, format: str, level: str = "load", imports: Imports = "known"
) -> tuple[Constraint, Refusal | None]:
    """A constraint driven along a file, which it is left at the end of or at the first byte refused, and the refusal.

    The limit is the file's own length, so that a promise past its end is refused at the field that makes it. But rules
    keep room for what may turn out to need none: what a wider limit takes to its end is no refusal.
    """
    found, least = list[tuple[Constraint, Refusal | None]](), least_bytes(format, level)
    for limit in (max(len(data), least), max(143_360, 2 * len(data), least)):
        c = constraint(format, max_bytes=limit, level=level, imports=imports)
        found.append((c, drive.replay(c, data)))
        if found[-1][1] is None:
            return found[-1]
    return found[0]


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
    format: str,
    seed: int,
    max_bytes: int = 143_360,
    level: str = "load",
    pick: Pick = "uniform",
    min_bytes: int = 0,
) -> bytes:
    """A random file of a format, the same for the same arguments.

    ``pick`` says how to choose among the allowed bytes: ``uniform``, ``lowest``, ``highest``, or ``lively``: by
    weights learnt from real files, so that tables and contents look like something (`weights`). The length
    limit of the file is drawn first, evenly on a logarithmic scale from the least size to ``max_bytes``, so
    that sizes are mixed; with ``min_bytes``, from that where it is greater. Raises `FormatError` as `constraint`
    does, and for an unknown pick.
    """
    if pick not in PICKS:
        raise FormatError(f"unknown pick {pick!r}; there are: {', '.join(PICKS)}")
    least = max(least_bytes(format, level), min_bytes)
    constraint(format, max_bytes=max_bytes, level=level, min_bytes=min_bytes)
    rng = random.Random(f"{format} {level} {pick} {seed}")
    limit = round(math.exp(rng.uniform(math.log(least), math.log(max_bytes))))
    limit = min(max(limit, least), max_bytes)
    c = constraint(format, max_bytes=limit, level=level, min_bytes=min_bytes)
    if pick == "lively":
        from bytegen.formats.weights import draw_lively

        draw_lively(c, rng)
    else:
        drive.draw(c, rng, pick)
    return c.data
