"""Sequential Monte Carlo against the exact distribution of small formats, found by enumeration."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytegen.formats import FormatError, PrefixModel, smc
from bytegen.formats.core.constraint import END, Constraint
from bytegen.formats.core.intset import exactly
from bytegen.formats.core.steps import FreeStep, IntStep, Step

RUNS, PARTICLES = 120, 16


def tree(allowed: dict[bytes, tuple[int, ...]], limit: int) -> Constraint:
    """A format given by the bytes that may follow each prefix; a prefix that is no key ends the file."""

    def at(data: bytearray) -> Step:
        prefix = bytes(data)
        if prefix not in allowed:
            return FreeStep(len(prefix), len(prefix), len(prefix), "end", "the file ends here", None)
        return IntStep(len(prefix), 1, exactly(1, *allowed[prefix]), "byte", "listed", lambda _, d: at(d))

    return Constraint(at, format="tree", level="load", max_bytes=limit)


def files(start: Constraint) -> Iterator[bytes]:
    mask = start.mask()
    for choice in np.flatnonzero(mask).tolist():
        child = start.fork()
        child.advance(choice)
        if child.done:
            yield child.data
        else:
            yield from files(child)


def markov(seed: int, letters: int) -> PrefixModel:
    """A model whose next choice depends on the last byte and the length, over few letters and the end."""
    rng = np.random.default_rng(seed)
    table = rng.gumbel(size=(6, letters + 1, letters + 1)) * 0.5
    table -= np.log(np.exp(table).sum(-1, keepdims=True))

    def log_probs(prefixes: list[bytes]) -> np.ndarray:
        out = np.full((len(prefixes), 257), -math.inf)
        for row, prefix in enumerate(prefixes):
            part = table[min(len(prefix), 5), prefix[-1] + 1 if prefix else 0]
            out[row, :letters], out[row, END] = part[:-1], part[-1]
        return out

    return PrefixModel(log_probs)  # type: ignore[arg-type]


def exact(start: Constraint, model: PrefixModel) -> dict[bytes, tuple[float, float]]:
    """Of each file: its probability under the model left alone, and the weight of a particle that draws it."""
    found = {}
    for data in files(start):
        walk, log_p, log_w = start.fork(), 0.0, 0.0
        for place in range(len(data) + 1):
            choice = data[place] if place < len(data) else END
            log_probs = model._log_probs([data[:place]])[0]
            log_p += float(log_probs[choice])
            log_w += float(np.log(np.exp(log_probs[walk.mask()]).sum()))
            walk.advance(choice)
        found[data] = math.exp(log_p), math.exp(log_w)
    return found


def allowance(moment: float, mean: float, largest: float, count: int) -> float:
    """How far the mean of `count` draws may lie from the truth: Bernstein's bound at one in 10^9.

    From exact or bounded moments, not those seen: where a rare file has a great weight, samples that
    missed it show hardly any spread.
    """
    log_term = math.log(2e9)
    return math.sqrt(2 * log_term * max(moment - mean * mean, 0.0) / count) + largest * log_term / (3 * count)


def greatest_estimate(start: Constraint, model: PrefixModel) -> float:
    """Bound of one run's estimate of the mass: the product over the steps of the greatest mass left.

    A file that has ended keeps its weight, so from the end of the shortest file on no step bounds anything.
    """
    greatest: dict[int, float] = {}
    shortest = min(map(len, files(start)))

    def visit(walk: Constraint) -> None:
        mask = walk.mask()
        mass = float(np.exp(model._log_probs([walk.data])[0][mask]).sum())
        greatest[len(walk.data)] = max(mass, greatest.get(len(walk.data), 0.0))
        for choice in np.flatnonzero(mask).tolist():
            child = walk.fork()
            child.advance(choice)
            if not child.done:
                visit(child)

    visit(start)
    return math.prod(mass for depth, mass in greatest.items() if depth <= shortest)


@st.composite
def formats_of_few_files(draw: st.DrawFn) -> dict[bytes, tuple[int, ...]]:
    allowed: dict[bytes, tuple[int, ...]] = {}

    def grow(prefix: bytes, depth: int) -> None:
        if depth == 0 or (depth < 3 and draw(st.booleans())):
            return
        allowed[prefix] = tuple(draw(st.sets(st.integers(0, 2), min_size=1, max_size=3)))
        for byte in allowed[prefix]:
            grow(prefix + bytes([byte]), depth - 1)

    grow(b"", 4)
    return allowed


# The same examples every time: a test of chance must not fail by chance.
@settings(max_examples=8, deadline=None, derandomize=True)
@given(formats_of_few_files(), st.integers(0, 2**31), st.sampled_from([0.0, 0.5, 1.0]))
def test_the_estimate_of_every_file_is_unbiased(
    allowed: dict[bytes, tuple[int, ...]], seed: int, threshold: float
) -> None:
    start, model = tree(allowed, 4), markov(seed, 3)
    truth = exact(start, model)
    estimates = dict.fromkeys(truth, 0.0)
    for run in range(RUNS):
        result = smc(start, model, particles=PARTICLES, seed=run, threshold=threshold)
        for data, weight in zip(result.files, result.weights.tolist(), strict=True):
            estimates[data] += weight * math.exp(result.log_mass) / RUNS
    # Particles that are resampled depend on each other: then a whole run is one draw, with a looser bound.
    bound = greatest_estimate(start, model)
    count = RUNS if threshold else RUNS * PARTICLES
    truth = {data: (p, bound if threshold else weight) for data, (p, weight) in truth.items()}
    for data, (p, weight) in truth.items():
        assert abs(estimates[data] - p) <= allowance(p * weight, p, weight, count), (data, p)
    mass, moment = sum(p for p, _ in truth.values()), sum(p * weight for p, weight in truth.values())
    largest = max(weight for _, weight in truth.values())
    assert abs(sum(estimates.values()) - mass) <= allowance(moment, mass, largest, count) + 1e-12


# After 0 only a byte that the model hardly ever writes there may follow; after 1 the one that it writes.
BIASED = {b"": (0, 1), b"\0": (0,), b"\1": (1,)}


def biased_model() -> PrefixModel:
    def log_probs(prefixes: list[bytes]) -> np.ndarray:
        out = np.full((len(prefixes), 257), -math.inf)
        for row, prefix in enumerate(prefixes):
            if len(prefix) == 2:
                out[row, END] = 0.0
            else:
                out[row, :2] = np.log([0.5, 0.5] if not prefix else [0.02, 0.98])
        return out

    return PrefixModel(log_probs)  # type: ignore[arg-type]


def test_particles_draw_in_the_true_proportions_where_masking_does_not() -> None:
    start, model = tree(BIASED, 2), biased_model()
    rng = np.random.default_rng(3)
    runs = 500
    greedy = sum(smc(start, model, particles=1, seed=i).files[0] == b"\0\0" for i in range(runs))
    corrected = sum(smc(start, model, particles=24, seed=i).draw(rng) == b"\0\0" for i in range(runs))
    truth = 0.02
    assert abs(greedy / runs - 0.5) < 0.07
    assert abs(corrected / runs - truth) < 5 * math.sqrt(truth * (1 - truth) / runs)


def test_the_mass_of_the_format_is_estimated() -> None:
    result = smc(tree(BIASED, 2), biased_model(), particles=4000, seed=1)
    assert abs(math.exp(result.log_mass) - 0.5) < 0.05
    assert abs(result.weights.sum() - 1) < 1e-9


def test_what_cannot_be_done_is_said() -> None:
    start = tree(BIASED, 2)
    with pytest.raises(FormatError, match="at least 1"):
        smc(start, biased_model(), particles=0)
    with pytest.raises(FormatError, match="from 0 to 1"):
        smc(start, biased_model(), particles=2, threshold=1.5)
    with pytest.raises(FormatError, match=r"shape \(2, 5\)"):
        smc(start, PrefixModel(lambda prefixes: np.zeros((2, 5))), particles=2)
    with pytest.raises(FormatError, match="no probability"):
        smc(start, PrefixModel(lambda prefixes: np.full((2, 257), -math.inf)), particles=2)
