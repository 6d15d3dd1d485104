"""The decoding loop: a batch of sequences, each with its own constraint, at positions of their own.

One turn feeds every sequence what it has pending (its prompt, or the byte it chose and the bytes that
follow from it), then draws a byte for those that are up to date. A run that the constraint forces is
never sampled: it is fed in one chunk. A sequence that ends hands its row to the next request.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from bytegen import tokenizer
from bytegen.cache import Cache
from bytegen.errors import UserError
from bytegen.formats import Constraint
from bytegen.kernels import masked_sample
from bytegen.model import ByteLM


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a byte is drawn; temperature 0 takes the likeliest (see `kernels.masked_sample`)."""

    temperature: float = 0.3
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise UserError(f"temperature {self.temperature} must be 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top-p {self.top_p} must be above 0 and at most 1")
        if not 0 <= self.min_p <= 1:
            raise UserError(f"min-p {self.min_p} must be from 0 to 1")


@dataclass
class Timing:
    """Seconds spent, and on how many bytes."""

    model: float = 0.0
    constraint: float = 0.0
    sampling: float = 0.0
    sampled: int = 0
    forced: int = 0
    steps: int = 0


@dataclass(eq=False)
class Sequence:
    """One file being written."""

    index: int
    prompt_ids: list[int]
    constraint: Constraint
    sampling: Sampling
    seed: int
    pending: list[int] = field(default_factory=list)
    logprob: float = 0.0
    removed: list[float] = field(default_factory=list)
    sampled: int = 0
    forced: int = 0

    def __post_init__(self) -> None:
        self.uniform = random.Random(self.seed)
        self.pending = list(self.prompt_ids)


OnBytes = Callable[[Sequence, bytes], None]


class Decoder:
    """Runs sequences through a model, at most `batch_size` at a time."""

    def __init__(self, lm: ByteLM, *, batch_size: int = 16, max_length: int, chunk: int = 64) -> None:
        self.lm, self.batch_size, self.chunk = lm, batch_size, chunk
        self.max_length = max_length
        self.timing = Timing()

    def run(self, waiting: Iterable[Sequence], *, on_bytes: OnBytes | None = None) -> Iterator[Sequence]:
        """Yield each sequence as it ends; `on_bytes(sequence, new)` hears of every run of bytes."""
        queue = iter(waiting)
        rows = [s for _, s in zip(range(self.batch_size), queue, strict=False)]
        if not rows:
            return
        cache = Cache(
            self.lm.config, batch=len(rows), max_length=self.max_length, chunk=self.chunk,
            dtype=self.lm.embed.weight.dtype, device=self.lm.device,
        )  # fmt: skip
        for sequence in rows:
            self._follow(sequence, on_bytes)
        while rows:
            logits = self._feed(rows, cache)
            ready = [i for i, s in enumerate(rows) if not s.pending]
            if not ready:
                continue
            self._choose([rows[i] for i in ready], logits[ready], on_bytes)
            kept: list[int] = []
            for i in list(range(len(rows))):
                if rows[i].constraint.done:
                    yield rows[i]
                    successor = next(queue, None)
                    if successor is None:
                        continue
                    rows[i] = successor
                    cache.positions[i] = 0
                    self._follow(successor, on_bytes)
                kept.append(i)
            if len(kept) < len(rows):
                rows = [rows[i] for i in kept]
                if rows:
                    cache.select(torch.tensor(kept, device=self.lm.device))

    def _feed(self, rows: list[Sequence], cache: Cache) -> Tensor:
        """Feed each row up to a chunk of what it has pending; return the logits of all rows."""
        began = time.perf_counter()
        counts = [min(len(s.pending), self.chunk) for s in rows]
        longest = max(counts)
        tokens = [
            s.pending[:n] + [tokenizer.PADDING] * (longest - n) for s, n in zip(rows, counts, strict=True)
        ]
        device = self.lm.device
        logits = self.lm.step(torch.tensor(tokens, device=device), cache, torch.tensor(counts, device=device))
        for s, n in zip(rows, counts, strict=True):
            del s.pending[:n]
        self.timing.model += time.perf_counter() - began
        self.timing.steps += 1
        return logits

    def _choose(self, rows: list[Sequence], logits: Tensor, on_bytes: OnBytes | None) -> None:
        began = time.perf_counter()
        mask = np.stack([s.constraint.mask() for s in rows])
        masked = time.perf_counter()
        uniform = torch.tensor([s.uniform.random() for s in rows], dtype=torch.float64, device=logits.device)

        def column(name: str) -> Tensor:
            return torch.tensor(
                [getattr(s.sampling, name) for s in rows], dtype=torch.float64, device=logits.device
            )

        drawn = masked_sample(
            logits[:, : tokenizer.N_CHOICES], torch.from_numpy(mask).to(logits.device), uniform,
            temperature=column("temperature"), top_p=column("top_p"), min_p=column("min_p"),
        )  # fmt: skip
        results = zip(
            rows, drawn.choice.tolist(), drawn.logprob.tolist(), drawn.removed.tolist(), strict=True
        )
        self.timing.sampling += time.perf_counter() - masked
        self.timing.constraint += masked - began
        for s, choice, logprob, removed in results:
            s.logprob += logprob
            s.removed.append(removed)
            s.sampled += 1
            self.timing.sampled += 1
            began = time.perf_counter()
            s.constraint.advance(choice)
            self.timing.constraint += time.perf_counter() - began
            if choice == tokenizer.END_OF_FILE:
                continue
            s.pending.append(choice)
            if on_bytes is not None:
                on_bytes(s, bytes([choice]))
            self._follow(s, on_bytes)

    def _follow(self, s: Sequence, on_bytes: OnBytes | None) -> None:
        """Take the bytes that leave no choice, and the end of the file where it is the only one."""
        began = time.perf_counter()
        run = s.constraint.forced()
        for byte in run:
            s.constraint.advance(byte)
        mask = s.constraint.mask()
        if mask[tokenizer.END_OF_FILE] and mask.sum() == 1:
            s.constraint.advance(tokenizer.END_OF_FILE)
        self.timing.constraint += time.perf_counter() - began
        s.pending.extend(run)
        s.forced += len(run)
        self.timing.forced += len(run)
        if run and on_bytes is not None:
            on_bytes(s, run)
