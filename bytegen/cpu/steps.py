"""`Steps`: what an engine asks of a decoder at every step, in working memory that stays.

`Decoder` has the same, one operation at a time; here a step is a call of C that takes lists and makes no arrays
(`calls.h`): at a quarter of a millisecond a step, that is felt.
"""

from __future__ import annotations

import ctypes

import numpy as np

from bytegen.cpu.binding import calls
from bytegen.cpu.binding import threads as default_threads
from bytegen.cpu.cache import CpuCache
from bytegen.cpu.decoder import Decoder, check_choices


class Steps:
    """Steps of a decoder over a cache, and draws among the first `choices` ids after them."""

    def __init__(
        self, decoder: Decoder, cache: CpuCache, choices: int, *, threads: int | None = None
    ) -> None:
        check_choices(choices)
        self.cache, self._decoder, self._choices, self._threads = cache, decoder, choices, threads
        self._work = calls.work()
        self._model = decoder.address
        self._rings: object = None
        self._rings_at = 0

    def feed(self, fed: list[list[int]], positions: list[int]) -> None:
        """Ids for each row of the cache, from its position on. The cache must have room; its positions stay."""
        rings = self.cache.rings()
        if rings is not self._rings:
            self._rings, self._rings_at = rings, ctypes.addressof(rings)
        calls.feed(
            self._work, self._model, self._rings_at, fed, positions, self._threads or default_threads()
        )

    def ahead(self, places: list[tuple[int, int]]) -> tuple[list[tuple[list[int], list[float]]], np.ndarray]:
        """What the K multi-token prediction heads expect at N places, (row, offset among the ids just fed).

        Of each place the likeliest choice by each head, and the logs of their probabilities; and all of them, as
        `Decoder.ahead` gives them.
        """
        best, found = calls.ahead(
            self._work, self._model, places, self._choices, self._threads or default_threads()
        )
        heads = self._decoder.config.mtp_heads
        return best, np.frombuffer(found, np.float32).reshape(len(places), heads, self._choices)

    def draw(
        self, places: list[tuple[int, int]], masks: list[np.ndarray], uniform: list[float],
        temperature: list[float], top_p: list[float], min_p: list[float],
    ) -> list[tuple[int, float, float]]:  # fmt: skip
        """(choice, log probability, probability removed) at N places, (row, offset among the ids just fed).

        `masks` are bool [choices] with a choice in each; the others have N numbers.
        """
        return calls.draw(  # type: ignore[no-any-return]
            self._work, self._model, places, masks, uniform, temperature, top_p, min_p, self._choices,
            self._threads or default_threads(),
        )  # fmt: skip
