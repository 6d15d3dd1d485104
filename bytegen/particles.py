"""Particle sampling with a byte language model: `formats.smc` over its caches."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bytegen import formats, tokenizer
from bytegen.cache import Cache
from bytegen.errors import UserError
from bytegen.generation import DEFAULT_FORMAT, DEFAULT_LEVEL
from bytegen.model import ByteLM


class LanguageParticles:
    """A `formats.ParticleModel` of one prompt: N rows of one batch, copied among each other on resampling."""

    def __init__(
        self, lm: ByteLM, prompt: str, *, format: str, max_bytes: int, temperature: float = 1.0
    ) -> None:
        if not temperature > 0:
            raise UserError(
                f"temperature {temperature} must be above 0: particles are draws from a distribution"
            )
        self.lm, self.temperature = lm, temperature
        self.head = tokenizer.encode_prompt(prompt, tokenizer.format_tag(format))
        self._length = len(self.head) + max_bytes + 1
        self._cache: Cache | None = None

    def _log_probs(self, logits: Tensor) -> np.ndarray:
        logits = logits[:, : tokenizer.N_CHOICES].double() / self.temperature
        return torch.log_softmax(logits, dim=-1).cpu().numpy()

    @torch.no_grad()
    def begin(self, n: int) -> np.ndarray:
        """Read the prompt once for every particle; log probabilities [n, 257] of the first byte."""
        lm = self.lm
        self._cache = Cache(
            lm.config, batch=1, max_length=self._length, dtype=lm.embed.weight.dtype, device=lm.device
        )
        logits = lm.prefill(torch.tensor([self.head], device=lm.device), self._cache)
        self._cache.select(torch.zeros(n, dtype=torch.int64, device=lm.device))
        return self._log_probs(logits.expand(n, -1))

    @torch.no_grad()
    def step(self, choices: np.ndarray) -> np.ndarray:
        """Feed one choice a particle; a row that has ended is fed padding and what it says is not used."""
        assert self._cache is not None
        ended = choices == tokenizer.END_OF_FILE
        tokens = torch.from_numpy(np.where(ended, tokenizer.PADDING, choices)).to(self.lm.device)
        logits = self.lm.step(tokens.unsqueeze(1), self._cache)
        # An ended row stays where it is, so that it never reaches the end of its cache.
        self._cache.positions = self._cache.positions - torch.from_numpy(ended).to(self.lm.device).long()
        return self._log_probs(logits)

    def select(self, ancestors: np.ndarray) -> None:
        """Particle i goes on as a copy of particle ancestors[i]."""
        assert self._cache is not None
        self._cache.select(torch.from_numpy(ancestors).to(self.lm.device))


def generate_particles(
    lm: ByteLM, prompt: str, *, particles: int = 16, format: str = DEFAULT_FORMAT, level: str = DEFAULT_LEVEL,
    max_bytes: int = 4096, seed: int = 0, temperature: float = 1.0, threshold: float = 0.5,
    weigh_forced: bool = False, static: bool = True, min_bytes: int = 0,
) -> formats.Particles:  # fmt: skip
    """Files for one prompt, weighted so that they stand for the model's own distribution inside the format.

    Bytes that have one choice only count as given unless `weigh_forced`: our models are trained without them.
    Raises UserError for a prompt that does not fit the context or a temperature of 0, FormatError as
    `formats.constraint` and `formats.smc` do.
    """
    start = formats.constraint(format, max_bytes=max_bytes, level=level, static=static, min_bytes=min_bytes)
    model = LanguageParticles(lm, prompt, format=format, max_bytes=max_bytes, temperature=temperature)
    return formats.smc(
        start, model, particles=particles, seed=seed, threshold=threshold, weigh_forced=weigh_forced
    )
