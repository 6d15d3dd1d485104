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


DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def test_philox_gives_the_published_words() -> None:
    """Known answers of Random123's kat_vectors for philox4x32-10."""
    from bytegen.kernels.sampling.random import philox

    assert philox(torch.tensor([0]), torch.tensor([0])).tolist() == [0x6627E8D5]
    ones = torch.tensor([-1])
    # All counter words set needs the upper two as well; the key and the lower two are what a draw uses.
    assert philox(ones, torch.tensor([0])).tolist() != philox(torch.tensor([0]), torch.tensor([0])).tolist()


def test_seeds_draw_uniformly_and_apart() -> None:
    from bytegen.kernels.sampling.random import uniform

    steps = torch.arange(50_000)
    u = uniform(torch.full_like(steps, 7), steps)
    assert chisquare(np.histogram(u.numpy(), bins=64, range=(0, 1))[0]).pvalue > 1e-4
    other = uniform(torch.full_like(steps, 8), steps)
    assert abs(np.corrcoef(u.numpy(), other.numpy())[0, 1]) < 0.02
    assert uniform(torch.tensor([7 + 2**40]), torch.tensor([0])) != u[0]
    assert uniform(torch.tensor([7]), torch.tensor([2**40])) != u[0]


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.booleans(), st.sampled_from([9, 64, 257]), st.sampled_from([0, 3]),
       st.sampled_from([1.0, 0.7]), st.sampled_from([0.0, 0.2]))  # fmt: skip
def test_the_triton_kernel_draws_what_the_twin_draws(
    seed: int, bits: bool, n: int, top_k: int, top_p: float, min_p: float
) -> None:
    from bytegen.kernels import backend

    rng = np.random.default_rng(seed)
    rows = 6
    logits = torch.tensor(rng.normal(size=(rows, n)) * 2, dtype=torch.float32, device=DEVICE)
    mask = torch.tensor(rng.random((rows, n)) < 0.5)
    mask[:, int(rng.integers(n))] = True
    packed = np.packbits(np.pad(mask.numpy(), ((0, 0), (0, -n % 32))), axis=1, bitorder="little").view(
        np.int32
    )
    given_mask = (torch.tensor(packed) if bits else mask).to(DEVICE)
    options = {
        "seed": torch.tensor(rng.integers(0, 2**62, rows), device=DEVICE), "step": torch.arange(rows, device=DEVICE),
        "temperature": torch.tensor([0.0, 0.3, 1.0, 1.0, 2.0, 1.0], device=DEVICE),
        "top_k": top_k, "top_p": top_p, "min_p": min_p,
    }  # fmt: skip
    with backend.use("torch"):
        want = masked_sample(logits, given_mask, **options)
    with backend.use("triton"):
        got = masked_sample(logits, given_mask, **options)
    assert torch.equal(got.choice, want.choice)
    torch.testing.assert_close(got.logprob, want.logprob.double(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(got.removed, want.removed.double(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("machine", ["x86_64", "i386", "aarch64"])
def test_code_rows_step_the_automaton_as_the_constraint_does(machine: str) -> None:
    """Whole instructions, the last of which ends with the budget, whatever is drawn."""
    from bytegen.formats.code.automaton import load
    from bytegen.kernels import backend
    from bytegen.kernels.sampling import InstructionTable

    automaton = load(machine)
    table = InstructionTable(
        torch.tensor(automaton.following.astype(np.int32), device=DEVICE),
        torch.tensor(automaton.least_array.astype(np.int32), device=DEVICE), automaton.accept,
    )  # fmt: skip
    rows, length = 3, 24
    words = torch.full((rows, 9), -1, dtype=torch.int32, device=DEVICE)
    for name in ("torch", "triton"):
        state = torch.tensor([1, 1, 0], dtype=torch.int32, device=DEVICE)
        written: list[list[int]] = []
        for place in range(length if name == "torch" else 8):
            budget = torch.full((rows,), length - place, dtype=torch.int32, device=DEVICE)
            with backend.use(name):  # type: ignore[arg-type]
                drawn = masked_sample(
                    torch.zeros(rows, 257, device=DEVICE), words, seed=torch.arange(rows, device=DEVICE),
                    step=torch.full((rows,), place, device=DEVICE), table=table, state=state, budget=budget,
                )  # fmt: skip
            written.append(drawn.choice.tolist())
        if name == "torch":
            for row in range(2):
                code = bytes(step[row] for step in written)
                assert automaton.starts(code)[1] == length, code.hex()
            assert state.tolist() == [1, 1, 0]
            first = written
        else:
            assert written == first[:8]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": torch.ones(2, 8, dtype=torch.bool)}, "bool mask"),
        ({"mask": torch.ones(2, 0, dtype=torch.int32)}, "int32 bitmask"),
        ({"mask": torch.ones(3, 9, dtype=torch.bool)}, "a mask a row"),
        ({"uniform": None}, "either uniform, or seed and step"),
        ({"seed": torch.tensor([1, 2])}, "either uniform, or seed and step"),
        ({"uniform": torch.zeros(3)}, "one number a row"),
        ({"top_p": torch.ones(3)}, "top_p is a number or one a row"),
    ],
)
def test_what_does_not_fit_is_named(change: dict, message: str) -> None:
    options = {"mask": torch.ones(2, 9, dtype=torch.bool), "uniform": torch.zeros(2)} | change
    with pytest.raises(ValueError, match=message):
        masked_sample(torch.zeros(2, 9), options.pop("mask"), options.pop("uniform"), **options)
