"""What computes a step for the engine: torch, on any device, or the C decoder on the CPU, which needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

import numpy as np

from bytegen import cpu, tokenizer
from bytegen.config import ModelConfig
from bytegen.decoding.drafts import NGrams
from bytegen.errors import UserError

if TYPE_CHECKING:
    from bytegen.model import ByteLM

BACKENDS = ("auto", "torch", "c")

LEAST_GROUP = 4
"""Sequences that share the reading of the weights well enough for a thread of their own."""


class Draws(NamedTuple):
    """How N choices are drawn: a mask bool [257] and a number in [0, 1) each, and the sampling parameters."""

    masks: list[np.ndarray]
    uniform: list[float]
    temperature: list[float]
    top_p: list[float]
    min_p: list[float]


class Expected(NamedTuple):
    """What K multi-token prediction heads expect after a place, head k at index k - 1.

    The likeliest choice and the natural log of its probability by each [K], and the logs of all, float32 [K, 257]:
    those of head k are of the byte k places behind the one that is drawn at the place.
    """

    best: list[int]
    log: list[float]
    logs: np.ndarray


Drawn = list[tuple[int, float, float]]
"""(choice, log probability, probability that the mask removed) of each."""


class LanguageModel(Protocol):
    """What the engine asks of a model: `ByteLM`, or `cpu.LightLM`."""

    @property
    def config(self) -> ModelConfig:
        """Its shape."""

    @property
    def draft_table(self) -> NGrams | None:
        """Guesses for its files, where it has any."""


class Runner(Protocol):
    """A batch of sequences, each at a position of its own, and steps over them.

    `eager` says whether a step takes its time whatever it reads, so that long drafts pay (see `guesses`).
    """

    eager: bool

    def extend(self, count: int) -> None:
        """Let `count` sequences join, at position 0."""

    def select(self, rows: Sequence[int]) -> None:
        """Keep the sequences `rows`, in that order; none of them ends the batch."""

    def restart(self, row: int) -> None:
        """Put a sequence at position 0: its row is another's from now on."""

    def feed(self, fed: list[list[int]]) -> None:
        """Read so many ids for each row; the positions stay."""

    def draw(self, places: list[tuple[int, int]], draws: Draws) -> Drawn:
        """Draw after (row, offset among the ids just fed)."""

    def ahead(self, places: list[tuple[int, int]]) -> list[Expected]:
        """What the multi-token prediction heads expect after places as `draw` takes them."""

    def advance(self, counts: Sequence[int]) -> None:
        """Move each sequence on by its own count, at most what it was fed."""

    def cache_bytes(self) -> int:
        """The bytes that the caches take now."""


def runner(
    lm: LanguageModel, backend: str = "auto", *, max_length: int, chunk: int, threads: int | None = None
) -> Runner:
    """The C decoder where it is there and takes the model, else torch; `backend` names one. UserError if it cannot.

    A sequence takes at most `max_length` positions, and at most `chunk` ids in a step. `threads` is the C decoder's.
    """
    if backend not in BACKENDS:
        raise UserError(f"backend {backend!r}; there are: {', '.join(BACKENDS)}")
    if isinstance(lm, cpu.LightLM):
        if backend == "torch":
            raise UserError(
                "this model was loaded for the C decoder alone; backend 'torch' takes one of bytegen.load()"
            )
        return CpuRunner(lm.decoder, max_length=max_length, chunk=chunk, threads=threads)
    whole = cast("ByteLM", lm)  # its class is not asked for: that would import torch
    there = cpu.available(whole)
    if backend == "c" and not there:
        raise UserError(
            "backend 'c' decodes float32 models on the CPU, and is compiled when bytegen is installed and finds a "
            f"C compiler; this model is {whole.embed.weight.dtype} on {whole.device}; backend 'torch' takes any"
        )
    if there and backend != "torch":
        return CpuRunner(cpu.decoder_of(whole), max_length=max_length, chunk=chunk, threads=threads)
    from bytegen.decoding.torch_runner import TorchRunner

    return TorchRunner(whole, max_length=max_length, chunk=chunk)


def groups(lm: LanguageModel, backend: str, batch_size: int) -> int:
    """Groups that a batch is best decoded in at the same time: one a thread of the C decoder, of four or more each."""
    light = isinstance(lm, cpu.LightLM)
    if not light and (backend == "torch" or not cpu.available(cast("ByteLM", lm))):
        return 1
    return max(1, min(cpu.threads(), batch_size // LEAST_GROUP))


class CpuRunner:
    """Steps by the C decoder: what a row gives is the same bit for bit, whatever the batch, chunks and drafts."""

    eager = False

    def __init__(
        self, decoder: cpu.Decoder, *, max_length: int, chunk: int, threads: int | None = None
    ) -> None:
        self._cache = decoder.cache(max_length=max_length, chunk=chunk)
        self._steps = cpu.Steps(decoder, self._cache, tokenizer.N_CHOICES, threads=threads)

    def extend(self, count: int) -> None:
        """See `Runner`."""
        self._cache.extend(count)

    def select(self, rows: Sequence[int]) -> None:
        """See `Runner`."""
        self._cache.select(rows)

    def restart(self, row: int) -> None:
        """See `Runner`."""
        self._cache.restart(row)

    def cache_bytes(self) -> int:
        """See `Runner`."""
        return self._cache.nbytes()

    def feed(self, fed: list[list[int]]) -> None:
        """See `Runner`."""
        self._cache.reserve([len(ids) for ids in fed])
        self._steps.feed(fed, self._cache.positions)

    def draw(self, places: list[tuple[int, int]], draws: Draws) -> Drawn:
        """See `Runner`."""
        return self._steps.draw(places, *draws)

    def ahead(self, places: list[tuple[int, int]]) -> list[Expected]:
        """See `Runner`."""
        best, logs = self._steps.ahead(places)
        return [Expected(*one, log) for one, log in zip(best, logs, strict=True)]

    def advance(self, counts: Sequence[int]) -> None:
        """See `Runner`."""
        self._cache.advance(counts)
