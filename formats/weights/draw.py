"""Drawing a file by weights: fields as real files fill them, content that looks like something."""

from __future__ import annotations

import random

import numpy as np

from bytegen.formats.core.constraint import END, Constraint
from bytegen.formats.weights.table import Content, Weights, family, load_weights

BOLD = 0.08  # the share of choices made without weights, so that everything the format allows is still met
_END = 1 / 24  # chance that the file ends where it may, a byte
_STRETCH = 24  # mean length of a stretch of one kind of content
_TEXT = np.zeros(256)
_TEXT[[*b"etaoinshrdlucmfwypvbgkjqxz_.ETAOIN0123456789 "]] = 1.0
_TEXT[0] = 6.0
_TEXT /= _TEXT.sum()


def draw_lively(c: Constraint, rng: random.Random, weights: Weights | None = None) -> None:
    """Drive the constraint to the end of a file, choosing among what it allows by weights.

    An integer field takes a value that real files have there, where the constraint allows one; free bytes
    are stretches of zeros, text and other bytes in the proportions of real files. One choice in twelve is
    made evenly. Every file of the format keeps a chance.
    """
    weights = weights or load_weights(c.format)
    generator = np.random.default_rng(rng.getrandbits(64))
    start, path = 0, ""
    while not c.done:
        room = c.free()
        mask = c.mask()
        name = c.field()
        known = weights.fields.get(family(name))
        if name != path or (known is not None and c.position - start >= known.size):
            start, path = c.position, name
        if known is None and room > 1:
            _free(c, rng, generator, weights.content(family(name)), room, bool(mask[END]))
            continue
        allowed = mask.nonzero()[0]
        if len(allowed) == 1:
            c.advance(int(allowed[0]))
            continue
        weight = None
        if known is not None and rng.random() >= BOLD:
            k = c.position - start
            weight = known.next_bytes(k, int.from_bytes(c.tail(k), "little"))
        c.advance(_pick(allowed, weight, rng))


def _pick(allowed: np.ndarray, weight: np.ndarray | None, rng: random.Random) -> int:
    if weight is not None:
        part = weight[allowed]
        total = float(part.sum())
        if total > 0:
            place = int(np.searchsorted(np.cumsum(part), rng.random() * total, side="right"))
            return int(allowed[min(place, len(allowed) - 1)])
    if allowed[-1] == END and rng.random() < _END:
        return END
    return int(allowed[rng.randrange(len(allowed))])


def _free(
    c: Constraint, rng: random.Random, generator: np.random.Generator, content: Content, room: int, end: bool
) -> None:
    """One stretch of free bytes; where the file may end, it soon does."""
    length = min(room, 1 + int(rng.expovariate(1 / _STRETCH)))
    if end:
        length = min(length, int(rng.expovariate(_END)))
    kind = rng.random()
    if kind < content.zeros:
        c.advance_many(bytes(length))
    else:
        frequencies = _TEXT if kind < content.zeros + content.text else content.bytes
        c.advance_many(generator.choice(256, length, p=frequencies).astype(np.uint8).tobytes())
    if end and (length < room or rng.random() < 0.5):
        c.advance(END)
