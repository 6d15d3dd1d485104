"""Steps by torch, on any device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bytegen import tokenizer
from bytegen.cache import Cache
from bytegen.decoding.runners import Drawn, Draws, Expected
from bytegen.kernels import masked_sample
from bytegen.model import ByteLM


class TorchRunner:
    """Steps by `ByteLM.hidden`; see `runners.Runner`."""

    def __init__(self, lm: ByteLM, *, max_length: int, chunk: int) -> None:
        self.lm, self.max_length, self.chunk = lm, max_length, chunk
        self.eager = lm.device.type != "cpu"
        self._cache: Cache | None = None
        self._hidden: Tensor | None = None
        self._longest = 0

    def extend(self, count: int) -> None:
        """See `Runner`."""
        if self._cache is not None:
            self._cache.extend(count)
            return
        lm = self.lm
        self._cache = Cache(
            lm.config, batch=count, max_length=self.max_length, chunk=self.chunk, dtype=lm.embed.weight.dtype,
            device=lm.device,
        )  # fmt: skip

    def select(self, rows: Sequence[int]) -> None:
        """See `Runner`."""
        if not rows:
            self._cache = None
        elif self._cache is not None:
            self._cache.select(torch.tensor(rows, device=self.lm.device))

    def restart(self, row: int) -> None:
        """See `Runner`."""
        assert self._cache is not None
        self._cache.restart(row)

    def cache_bytes(self) -> int:
        """See `Runner`."""
        return 0 if self._cache is None else self._cache.nbytes()

    @torch.no_grad()
    def feed(self, fed: list[list[int]]) -> None:
        """See `Runner`."""
        self._longest = max(map(len, fed))
        tokens = [[*ids, *[tokenizer.PADDING] * (self._longest - len(ids))] for ids in fed]
        self._hidden = self.lm.hidden(torch.tensor(tokens, device=self.lm.device), cache=self._cache)

    @torch.no_grad()
    def draw(self, places: list[tuple[int, int]], draws: Draws) -> Drawn:
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

    @torch.no_grad()
    def ahead(self, places: list[tuple[int, int]]) -> list[Expected]:
        """See `Runner`."""
        assert self._hidden is not None
        rows, offsets = torch.tensor(places, device=self.lm.device).T
        logits = self.lm.mtp_logits(self._hidden[rows, offsets])[..., : tokenizer.N_CHOICES]
        logs = torch.log_softmax(logits.float(), dim=-1).transpose(0, 1)
        log, best = logs.max(-1)
        return [Expected(*one) for one in zip(best.tolist(), log.tolist(), logs.cpu().numpy(), strict=True)]

    def advance(self, counts: Sequence[int]) -> None:
        """See `Runner`."""
        assert self._cache is not None
        self._cache.advance(self._longest, torch.tensor(counts, device=self.lm.device))
