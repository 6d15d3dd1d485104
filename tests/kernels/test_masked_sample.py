"""The draw under a mask: its distribution, its filters, its limits."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from bytegen.kernels import masked_sample


def expected_distribution(
    logits: np.ndarray, mask: np.ndarray, t: float, top_p: float, min_p: float
) -> np.ndarray:
    """The filters, written the slow way."""
    w = np.where(mask, np.exp((logits - logits[mask].max()) / t), 0.0)
    p = w / w.sum()
    order = sorted(range(len(p)), key=lambda i: (-p[i], i))
    kept, mass = np.zeros(len(p), bool), 0.0
    for i in order:
        if (mass >= top_p and mass > 0) or p[i] < min_p * p[order[0]] or p[i] == 0:
            break
        kept[i] = True
        mass += p[i]
    p = np.where(kept, p, 0.0)
    return p / p.sum()


@pytest.mark.parametrize(
    ("t", "top_p", "min_p"), [(1.0, 1.0, 0.0), (0.6, 1.0, 0.0), (1.0, 0.8, 0.0), (1.3, 0.95, 0.05)]
)
def test_draws_follow_the_masked_distribution(t: float, top_p: float, min_p: float) -> None:
    rng = np.random.default_rng(1)
    logits, mask = rng.normal(size=24) * 1.5, rng.random(24) < 0.6
    p = expected_distribution(logits, mask, t, top_p, min_p)
    n = 40_000
    drawn = masked_sample(
        torch.tensor(logits).expand(n, -1), torch.tensor(mask).expand(n, -1), torch.tensor(rng.random(n)),
        temperature=t, top_p=top_p, min_p=min_p,
    )  # fmt: skip
    counts = np.bincount(drawn.choice.numpy(), minlength=24)
    assert counts[p == 0].sum() == 0
    assert chisquare(counts[p > 0], n * p[p > 0]).pvalue > 1e-4
    np.testing.assert_allclose(drawn.logprob.numpy(), np.log(p[drawn.choice.numpy()]), atol=1e-9)
    whole = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(drawn.removed.numpy(), whole[~mask].sum(), atol=1e-9)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True), st.sampled_from([0.0, 0.2, 1.0, 5.0]),
       st.sampled_from([0.01, 0.5, 1.0]), st.sampled_from([0.0, 0.3, 1.0]))  # fmt: skip
def test_whatever_is_drawn_is_allowed_and_does_not_depend_on_the_batch(
    seed: int, u: float, t: float, top_p: float, min_p: float
) -> None:
    rng = np.random.default_rng(seed)
    logits = torch.tensor(rng.normal(size=(3, 257)) * rng.choice([0.1, 3.0, 60.0]))
    mask = torch.tensor(rng.random((3, 257)) < rng.choice([0.01, 0.5]))
    mask[:, int(rng.integers(257))] = True
    uniform = torch.tensor([u, 0.3, 0.999999])
    together = masked_sample(logits, mask, uniform, temperature=t, top_p=top_p, min_p=min_p)
    assert bool(mask.gather(1, together.choice[:, None]).all())
    alone = masked_sample(logits[:1], mask[:1], uniform[:1], temperature=t, top_p=top_p, min_p=min_p)
    assert int(alone.choice) == int(together.choice[0])


def test_temperature_zero_takes_the_likeliest_that_is_allowed() -> None:
    logits = torch.tensor([[5.0, 1.0, 4.0]])
    drawn = masked_sample(logits, torch.tensor([[False, True, True]]), torch.tensor([0.99]), temperature=0.0)
    assert int(drawn.choice) == 2
    assert float(drawn.logprob) == 0.0


def test_a_mask_that_allows_nothing_and_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="allows nothing"):
        masked_sample(torch.zeros(1, 4), torch.zeros(1, 4, dtype=torch.bool), torch.zeros(1))
    with pytest.raises(ValueError, match=r"\(1, 4\)"):
        masked_sample(torch.zeros(1, 4), torch.ones(1, 5, dtype=torch.bool), torch.zeros(1))
