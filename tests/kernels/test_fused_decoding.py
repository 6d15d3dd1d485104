"""Decode attention in Triton: rings that wrap, chunks, splits, rotary embedding and the write into the cache."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_attention import attention as naive

from bytegen.kernels import backend, decode_attention
from bytegen.kernels.attention.fused import decode_launch
from bytegen.kernels.attention.fused.decode_launch import DecodeTile, splits_for
from bytegen.kernels.elementwise.rope import rotate

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@settings(max_examples=25, deadline=None)
@given(
    window=st.none() | st.integers(1, 24),
    n_new=st.sampled_from([1, 2, 5, 16, 19]),
    pasts=st.lists(st.integers(0, 60), min_size=1, max_size=2),
    slack=st.integers(0, 2),
    groups=st.sampled_from([1, 3]),
    dim=st.sampled_from([16, 24]),
    splits=st.sampled_from([1, 2, 3]),
    written=st.booleans(),
    softcap=st.sampled_from([0.0, 3.0]),
    sinks=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_a_step_is_full_attention_at_the_new_positions(
    window: int | None, n_new: int, pasts: list[int], slack: int, groups: int, dim: int, splits: int,
    written: bool, softcap: float, sinks: bool, seed: int,
) -> None:  # fmt: skip
    """Sequences at positions of their own; what a ring has forgotten is NaN in neither result."""
    torch.manual_seed(seed)
    batch, total, n_kv = len(pasts), max(pasts) + n_new, 2
    heads = n_kv * groups
    capacity = total + slack if window is None else window + n_new - 1 + slack
    q = torch.randn(batch, total, heads, dim, dtype=torch.float64)
    k, v = (torch.randn(batch, total, n_kv, dim, dtype=torch.float64) for _ in range(2))
    bias = torch.randn(heads) if sinks else None
    angles = torch.arange(total)[None, :, None] * 0.3 ** torch.arange(dim // 2)
    cos, sin = angles.cos().double().expand(batch, -1, -1), angles.sin().double().expand(batch, -1, -1)
    turned = rotate(q, cos, sin), rotate(k, cos, sin)
    want, _ = naive(*turned, v, window, [0, total], softcap=softcap, sinks=bias)
    caches = [torch.full((batch, capacity, n_kv, dim), 1e4) for _ in range(2)]
    for b, past in enumerate(pasts):
        for position in range(past + (n_new if written else 0)):
            caches[0][b, position % capacity] = turned[1][b, position].float()
            caches[1][b, position % capacity] = v[b, position].float()
    start = torch.tensor(pasts, dtype=torch.int32)
    new = torch.stack([torch.arange(past, past + n_new) for past in pasts])
    rows = torch.arange(batch)[:, None]
    fresh = (
        {}
        if written
        else {"k_new": k[rows, new], "v_new": v[rows, new], "cos": cos[rows, new], "sin": sin[rows, new]}
    )
    queries = turned[0][rows, new] if written else q[rows, new]
    move = lambda x: x.float().to(DEVICE)  # noqa: E731
    caches = [x.to(DEVICE) for x in caches]
    with pytest.MonkeyPatch.context() as patch, backend.use("triton"):
        patch.setattr(decode_launch, "decode_tile", lambda *_: DecodeTile(16, 4, 1))
        patch.setattr(decode_launch, "splits_for", lambda *_: splits)
        got = decode_attention(
            move(queries), *caches, start.to(DEVICE), window=window, softcap=softcap,
            sinks=None if bias is None else bias.to(DEVICE), **{name: move(x) for name, x in fresh.items()},
        )  # fmt: skip
    torch.testing.assert_close(got.double().cpu(), want[rows, new], atol=5e-5, rtol=5e-5)
    for cache, rows_of in zip(caches, (turned[1], v), strict=True):
        held = cache.cpu()[rows, new % capacity].double()
        torch.testing.assert_close(held, rows_of[rows, new], atol=1e-5, rtol=1e-5)


@given(st.integers(1, 400), st.integers(1, 200_000), st.sampled_from([16, 64, 128]), st.integers(1, 200))
def test_splits_fill_the_processors_and_no_more(
    programs: int, keys: int, block: int, processors: int
) -> None:
    splits = splits_for(programs, keys, block, processors)
    tiles = -(-keys // block)
    assert 1 <= splits <= max(1, tiles)
    assert splits <= 128
    if programs >= processors:
        assert splits == 1
    elif tiles >= 1000 and processors <= 128 * programs:
        waves = programs * splits / processors
        assert waves / -(-programs * splits // processors) >= 0.5


def test_a_whole_step_of_one_sequence_does_not_depend_on_the_batch() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, 16), torch.randn(3, 40, 1, 16), torch.randn(3, 40, 1, 16)
    start = torch.tensor([39, 5, 17])
    q, k, v, start = (x.to(DEVICE) for x in (q, k, v, start))
    with backend.use("triton"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode_launch, "splits_for", lambda *_: 2)
        whole = decode_attention(q, k, v, start)
        for b in range(3):
            one = decode_attention(q[b : b + 1], k[b : b + 1], v[b : b + 1], start[b : b + 1])
            assert torch.equal(one, whole[b : b + 1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": torch.tensor([1.0])}, "start is int32 or int64"),
        ({"k_new": torch.zeros(1, 2, 1, 16)}, "one of a pair is missing"),
        ({"cos": torch.zeros(1, 2, 8)}, "one of a pair is missing"),
        ({"k_new": torch.zeros(1, 3, 1, 16), "v_new": torch.zeros(1, 3, 1, 16)}, "differ in length"),
        ({"cos": torch.zeros(1, 2, 7), "sin": torch.zeros(1, 2, 7)}, r"\[B, T, D/2\] = \(1, 2, 8\)"),
        ({"window": 9}, "need 10"),
        ({"start": torch.tensor([7])}, "need 9"),
        ({"sinks": torch.zeros(3)}, "one score a query head"),
        ({"scale": 0.0}, "scale=0.0"),
        ({"softcap": -1.0}, "softcap=-1.0"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_before_any_launch(change: dict, message: str) -> None:
    cache = torch.zeros(1, 8, 1, 16)
    options = {"start": torch.tensor([7 if "window" in change else 0])} | change
    with pytest.raises(ValueError, match=message):
        decode_attention(torch.zeros(1, 2, 2, 16), cache, cache, options.pop("start"), **options)
