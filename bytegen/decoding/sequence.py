"""One file being written: what it has to feed, how it draws, and what has been counted."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from itertools import islice

from bytegen.decoding.drafts import Lookup
from bytegen.errors import UserError
from bytegen.formats import Constraint


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


@dataclass(eq=False)
class Sequence:
    """A file, from its prompt on. `index` and `sampling` are the caller's; `seed` decides every draw.

    `pending` are the ids that the model has not read yet. `logprob` is the natural log of the probability of the
    choices so far, `removed` what the constraint took of the probability at each; `sampled` and `forced` count the
    choices and the bytes that were none, `turns` the steps of the model in which it drew.
    """

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
    turns: int = 0
    cancelled: bool = False
    lookup: Lookup | None = None

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._ahead: deque[float] = deque()
        self.pending = list(self.prompt_ids)

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.cancelled or self.constraint.done

    def uniforms(self, count: int) -> list[float]:
        """The numbers in [0, 1) that the next `count` draws take."""
        while len(self._ahead) < count:
            self._ahead.append(self._random.random())
        return list(islice(self._ahead, count) if count < len(self._ahead) else self._ahead)

    def count_draw(self, logprob: float, removed: float) -> None:
        """One draw was made, with the first of those numbers."""
        self._ahead.popleft()
        self.logprob += logprob
        self.removed.append(removed)
        self.sampled += 1
