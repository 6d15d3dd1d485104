"""Sequential Monte Carlo under a constraint: files in the proportions in which the model itself has them.

Masking each byte and renormalising bends a model's distribution: a prefix is taken for what its bytes cost,
not for how much of the model's mass inside the format lies behind it. Particles carry the mass that each
mask kept as a weight and are resampled by it, which corrects that (Loula et al. 2025, "Syntactic and
semantic control of large language models via sequential Monte Carlo"; Doucet and Johansen 2009, ch. 3).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from bytegen.formats.core.constraint import END, Constraint
from bytegen.formats.errors import FormatError

_CHOICES = 257


class ParticleModel(Protocol):
    """A model of bytes, run for N particles at once. Choices are 0..255 and 256, the end of the file."""

    def begin(self, n: int) -> np.ndarray:
        """Natural log probabilities [n, 257] of the first choice."""

    def step(self, choices: np.ndarray) -> np.ndarray:
        """Append one choice a particle (int [n]); the log probabilities [n, 257] of the next."""

    def select(self, ancestors: np.ndarray) -> None:
        """Particle i goes on as a copy of particle ancestors[i]."""


class PrefixModel:
    """A `ParticleModel` from a function: prefixes (a list of bytes) to log probabilities [n, 257]."""

    def __init__(self, log_probs: Callable[[Sequence[bytes]], np.ndarray]) -> None:
        self._log_probs = log_probs
        self._prefixes: list[bytes] = []

    def begin(self, n: int) -> np.ndarray:
        """See `ParticleModel.begin`."""
        self._prefixes = [b""] * n
        return self._log_probs(self._prefixes)

    def step(self, choices: np.ndarray) -> np.ndarray:
        """See `ParticleModel.step`; a particle that has ended keeps its prefix."""
        self._prefixes = [
            prefix + bytes([choice]) if choice < END else prefix
            for prefix, choice in zip(self._prefixes, choices.tolist(), strict=True)
        ]
        return self._log_probs(self._prefixes)

    def select(self, ancestors: np.ndarray) -> None:
        """See `ParticleModel.select`."""
        self._prefixes = [self._prefixes[i] for i in ancestors.tolist()]


class Particles(NamedTuple):
    """Weighted files: ``weights`` (float64 [n], summing to 1) and the log of the estimated mass of the format.

    ``log_mass`` estimates, without bias on the linear scale, the log probability that the model writes a file
    of the format. ``resampled`` counts the resampling steps; ``effective`` is the final effective sample size.
    """

    constraints: tuple[Constraint, ...]
    weights: np.ndarray
    log_mass: float
    resampled: int
    effective: float

    @property
    def files(self) -> tuple[bytes, ...]:
        """The bytes of each particle."""
        return tuple(c.data for c in self.constraints)

    def draw(self, rng: np.random.Generator) -> bytes:
        """One file, by weight."""
        return self.constraints[int(rng.choice(len(self.weights), p=self.weights))].data


def smc(
    start: Constraint,
    model: ParticleModel,
    *,
    particles: int,
    seed: int = 0,
    threshold: float = 0.5,
    weigh_forced: bool = True,
) -> Particles:
    """Run ``particles`` files side by side from ``start``, resampling when their weights drift apart.

    Resampling is systematic, and happens when the effective sample size falls below ``threshold`` times the
    number of particles (0: never, which is importance sampling). With ``weigh_forced`` False a byte that has
    one choice only counts as given, whatever the model makes of it: for models trained without such bytes.
    Raises `FormatError` for no particles, a
    threshold outside [0, 1], or a model whose distribution gives a mask no probability at all.
    """
    if particles < 1:
        raise FormatError(f"particles is {particles}; it must be at least 1")
    if not 0 <= threshold <= 1:
        raise FormatError(f"threshold is {threshold}; it must be from 0 to 1")
    rng = np.random.default_rng(seed)
    states = [start.fork() for _ in range(particles)]
    log_weights = np.zeros(particles)
    log_mass, resampled = 0.0, 0
    log_probs = _checked(model.begin(particles), particles)
    while not all(state.done for state in states):
        choices = np.full(particles, END)
        for i, state in enumerate(states):
            if not state.done:
                choices[i], kept, only = _choose(log_probs[i], state, rng)
                log_weights[i] += 0.0 if only and not weigh_forced else kept
        if np.all(log_weights == -math.inf):
            raise FormatError("the model gives no probability to anything that the format allows")
        for state, choice in zip(states, choices.tolist(), strict=True):
            state.advance(choice)
        total = _log_sum(log_weights)
        if math.exp(2 * total - _log_sum(2 * log_weights)) < threshold * particles:
            log_mass += total - math.log(particles)
            ancestors = _systematic(np.exp(log_weights - total), rng)
            states = [states[i].fork() for i in ancestors.tolist()]
            model.select(ancestors)
            choices = choices[ancestors]
            log_weights = np.zeros(particles)
            resampled += 1
        if not all(state.done for state in states):
            log_probs = _checked(model.step(choices), particles)
    total = _log_sum(log_weights)
    weights = np.exp(log_weights - total)
    return Particles(
        tuple(states),
        weights,
        log_mass + total - math.log(particles),
        resampled,
        float(1.0 / np.square(weights).sum()),
    )


def _choose(log_probs: np.ndarray, state: Constraint, rng: np.random.Generator) -> tuple[int, float, bool]:
    """A choice from the masked distribution, the log of the mass that the mask kept, whether it was the only one."""
    allowed = np.flatnonzero(state.mask())
    part = log_probs[allowed]
    kept = _log_sum(part)
    if kept == -math.inf:
        return int(allowed[0]), -math.inf, len(allowed) == 1
    cumulative = np.cumsum(np.exp(part - kept))
    place = int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
    return int(allowed[min(place, len(allowed) - 1)]), kept, len(allowed) == 1


def _checked(log_probs: np.ndarray, n: int) -> np.ndarray:
    log_probs = np.asarray(log_probs, dtype=np.float64)
    if log_probs.shape != (n, _CHOICES):
        raise FormatError(f"the model gave log probabilities of shape {log_probs.shape}, not {(n, _CHOICES)}")
    return log_probs


def _log_sum(values: np.ndarray) -> float:
    top = float(values.max())
    return top if top == -math.inf else top + math.log(float(np.exp(values - top).sum()))


def _systematic(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Indices of the survivors: n evenly spaced points, one random offset (Kitagawa 1996)."""
    n = len(weights)
    points = (np.arange(n) + rng.random()) / n
    return np.minimum(np.searchsorted(np.cumsum(weights), points, side="right"), n - 1)
