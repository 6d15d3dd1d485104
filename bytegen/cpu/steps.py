"""`Steps`: what an engine asks of a decoder at every step, in working memory that stays.

`Decoder` has the same, one operation at a time; here a step makes no arrays: at a third of a millisecond a step, that
is felt.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from bytegen.cpu.binding import BLOCK, library, padded
from bytegen.cpu.binding import threads as default_threads
from bytegen.cpu.cache import CpuCache
from bytegen.cpu.decoder import Decoder, check_choices


class _Room:
    """An array that is made larger when more is asked for, and where its values are."""

    def __init__(self, dtype: type, *shape: int) -> None:
        """`shape` is that of one item."""
        self._dtype, self._shape = dtype, shape
        self.array: np.ndarray = np.zeros((0, *shape), dtype)
        self.address = ctypes.c_void_p()

    def for_items(self, count: int) -> np.ndarray:
        """The first `count` items."""
        if len(self.array) < count:
            self.array = np.zeros((max(count, 2 * len(self.array)), *self._shape), self._dtype)
            self.address = ctypes.c_void_p(self.array.ctypes.data)
        return self.array[:count]


class Steps:
    """Steps of a decoder over a cache, and draws among the first `choices` ids after them."""

    def __init__(
        self, decoder: Decoder, cache: CpuCache, choices: int, *, threads: int | None = None
    ) -> None:
        check_choices(choices)
        self.cache, self._decoder, self._choices, self._threads = cache, decoder, choices, threads
        self._dim = padded(decoder.config.dim)
        self._ids, self._scratch = _Room(np.int64), _Room(np.float32)
        self._hidden, self._gathered = _Room(np.float32, self._dim), _Room(np.float32, self._dim)
        self._logits, self._mask = _Room(np.float32, padded(choices)), _Room(np.bool_, choices)
        self._places, self._choice = _Room(np.int64), _Room(np.int64)
        self._numbers, self._results = _Room(np.float64), _Room(np.float64)

    def feed(self, tokens: list[int], rows: list[int], positions: list[int]) -> None:
        """As `Decoder.hidden`: N ids, each to a row of the cache at a position; those of a row together, in order."""
        n, threads, rings = len(tokens), self._threads or default_threads(), self.cache.rings()
        self._scratch.for_items(self._decoder.scratch(n, threads))
        self._hidden.for_items(n)
        self._ids.for_items(3 * n)[:] = tokens + rows + positions
        library.bytegen_step(
            self._decoder.model, rings, self._ids.address, ctypes.c_int64(n), self._hidden.address,
            self._scratch.address, threads,
        )  # fmt: skip

    def draw(
        self, places: Sequence[int], masks: Sequence[np.ndarray], numbers: Sequence[float]
    ) -> list[tuple[int, float, float]]:
        """(choice, log probability, probability removed) after the ids at `places` among those just fed, N of them.

        `masks` are bool [choices] with a choice in each, `numbers` N uniform, then N temperatures, top_p and min_p.
        """
        n = len(places)
        for room in (self._gathered, self._logits, self._choice):
            room.for_items(n)
        self._places.for_items(n)[:] = places
        np.stack(masks, out=self._mask.for_items(n))
        self._numbers.for_items(4 * n)[:] = numbers
        results = self._results.for_items(2 * n)
        library.bytegen_draw(
            self._decoder.model, self._hidden.address, self._places.address, ctypes.c_int64(n),
            ctypes.c_int64(padded(self._choices) // BLOCK), ctypes.c_int64(self._choices), self._mask.address,
            self._numbers.address, self._gathered.address, self._logits.address, self._choice.address,
            self._results.address, self._threads or default_threads(),
        )  # fmt: skip
        found = results.tolist()
        return list(zip(self._choice.array[:n].tolist(), found[:n], found[n:], strict=True))
