"""What computes a step for the engine: torch, on any device, or the C decoder on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from bytegen import cpu, tokenizer
from bytegen.cache import Cache
from bytegen.errors import UserError
from bytegen.kernels import masked_sample
from bytegen.model import ByteLM

BACKENDS = ("auto", "torch", "c")


class Draws(NamedTuple):
    """How N choices are drawn: a mask bool [257] and a number in [0, 1) each, and the sampling parameters."""

    masks: list[np.ndarray]
    uniform: list[float]
    temperature: list[float]
    top_p: list[float]
    min_p: list[float]


Drawn = list[tuple[int, float, float]]
"""(choice, log probability, probability that the mask removed) of each."""


class Runner(Protocol):
    """The caches of a batch, and steps over them."""

    cache: Cache | None

    def feed(self, fed: Sequence[Sequence[int]]) -> None:
        """Read so many ids for each row; the positions stay."""

    def draw(self, places: Sequence[tuple[int, int]], draws: Draws) -> Drawn:
        """Draw after (row, offset among the ids just fed)."""


def runner(lm: ByteLM, backend: str = "auto") -> Runner:
    """The C decoder where it is there and takes the model, else torch; `backend` names one. UserError if it cannot."""
    if backend not in BACKENDS:
        raise UserError(f"backend {backend!r}; there are: {', '.join(BACKENDS)}")
    there = cpu.available(lm)
    if backend == "c" and not there:
        raise UserError(
            "backend 'c' decodes float32 models on the CPU, and is compiled when bytegen is installed and finds a "
            f"C compiler; this model is {lm.embed.weight.dtype} on {lm.device}; backend 'torch' takes any"
        )
    return CpuRunner(lm) if there and backend != "torch" else TorchRunner(lm)


class TorchRunner:
    """Steps by `ByteLM.hidden`."""

    def __init__(self, lm: ByteLM) -> None:
        self.lm = lm
        self.cache: Cache | None = None
        self._hidden: Tensor | None = None

    @torch.no_grad()
    def feed(self, fed: Sequence[Sequence[int]]) -> None:
        """See `Runner`."""
        longest = max(map(len, fed))
        tokens = [[*ids, *[tokenizer.PADDING] * (longest - len(ids))] for ids in fed]
        self._hidden = self.lm.hidden(torch.tensor(tokens, device=self.lm.device), cache=self.cache)

    @torch.no_grad()
    def draw(self, places: Sequence[tuple[int, int]], draws: Draws) -> Drawn:
        """See `Runner`."""
        assert self._hidden is not None
        device = self.lm.device
        rows, offsets = torch.tensor(places, device=device).T
        logits = self.lm.logits(self._hidden[rows, offsets])[:, : tokenizer.N_CHOICES]

        def column(values: list[float]) -> Tensor | float:
            same = values.count(values[0]) == len(values)
            return values[0] if same else torch.tensor(values, dtype=torch.float64, device=device)

        drawn = masked_sample(
            logits, torch.from_numpy(np.stack(draws.masks)).to(device),
            torch.tensor(draws.uniform, dtype=torch.float64, device=device), temperature=column(draws.temperature),
            top_p=column(draws.top_p), min_p=column(draws.min_p),
        )  # fmt: skip
        return list(zip(drawn.choice.tolist(), drawn.logprob.tolist(), drawn.removed.tolist(), strict=True))


class CpuRunner:
    """Steps by the C decoder: what a row gives is the same bit for bit, whatever the batch, chunks and drafts."""

    def __init__(self, lm: ByteLM) -> None:
        self.cache: Cache | None = None
        self._decoder = cpu.decoder_of(lm)
        self._hidden = np.zeros((0, 0), np.float32)
        self._starts: list[int] = []

    def feed(self, fed: Sequence[Sequence[int]]) -> None:
        """See `Runner`."""
        assert self.cache is not None
        tokens, rows, positions = list[int](), list[int](), list[int]()
        self._starts = []
        for row, (ids, position) in enumerate(zip(fed, self.cache.positions.tolist(), strict=True)):
            self._starts.append(len(tokens))
            tokens += ids
            rows += [row] * len(ids)
            positions += range(position, position + len(ids))
        self.cache.reserve(max(map(len, fed)))
        self._hidden = self._decoder.hidden(tokens, rows, positions, self.cache)

    def draw(self, places: Sequence[tuple[int, int]], draws: Draws) -> Drawn:
        """See `Runner`."""
        hidden = self._hidden[[self._starts[row] + offset for row, offset in places]]
        logits = self._decoder.logits(hidden, tokenizer.N_CHOICES)
        return self._decoder.sample(
            logits, np.stack(draws.masks), draws.uniform, draws.temperature, draws.top_p, draws.min_p
        )
