"""Decode attention in Triton: rings that wrap, chunks, splits, rotary embedding and the write into the cache."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from naive_attention import attention as naive
from torch import Tensor

from bytegen.kernels import backend, decode_attention, rope
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


def _cached(
    pasts: list[int], capacity: int, keys: Tensor, values: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Caches that hold what keys and values [B, T, H, D] say of each sequence's past; the rest is large."""
    caches = tuple(torch.full((len(pasts), capacity, *keys.shape[2:]), 1e4, dtype=dtype) for _ in range(2))
    for b, past in enumerate(pasts):
        for position in range(past):
            for cache, source in zip(caches, (keys, values), strict=True):
                cache[b, position % capacity] = source[b, position].to(dtype)
    return caches[0].to(DEVICE), caches[1].to(DEVICE)


@settings(max_examples=30, deadline=None)
@given(
    window=st.none() | st.integers(1, 24),
    n_new=st.integers(1, 16),
    pasts=st.lists(st.integers(0, 60), min_size=1, max_size=2),
    groups=st.sampled_from([1, 3]),
    dim=st.sampled_from([16, 24]),
    splits=st.sampled_from([1, 3]),
    turned=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float16]),
    through=st.sampled_from(["triton", "torch"]),
    seed=st.integers(0, 1000),
)
@example(window=5, n_new=3, pasts=[9, 0], groups=3, dim=24, splits=3, turned=True, dtype=torch.float16,
         through="torch", seed=0)  # fmt: skip
def test_a_step_norms_and_turns_its_heads_and_caches_the_keys_that_come_of_it(
    window: int | None, n_new: int, pasts: list[int], groups: int, dim: int, splits: int, turned: bool,
    dtype: torch.dtype, through: str, seed: int,
) -> None:  # fmt: skip
    """Kernel and twin against float64, each sequence at a position of its own, in rings that wrap."""
    torch.manual_seed(seed)
    batch, total, eps = len(pasts), max(pasts) + n_new, 1e-2
    capacity = total if window is None else window + n_new - 1
    q = torch.randn(batch, total, 2 * groups, dim).to(dtype)
    k, v = (torch.randn(batch, total, 2, dim).to(dtype) for _ in range(2))
    q_weight, k_weight = ((torch.rand(dim) + 0.5).to(dtype) for _ in range(2))
    angles = torch.arange(total)[None, :, None] * 0.3 ** torch.arange(dim // 2) * turned
    cos, sin = (x.to(dtype).expand(batch, -1, -1) for x in (angles.cos(), angles.sin()))
    wide_q, wide_k = (
        rotate(F.rms_norm(x.double(), (dim,), w.double(), eps), cos.double(), sin.double())
        for x, w in ((q, q_weight), (k, k_weight))
    )
    want, _ = naive(wide_q, wide_k, v.double(), window, [0, total])
    caches = _cached(pasts, capacity, wide_k, v, dtype)
    new = torch.stack([torch.arange(past, past + n_new) for past in pasts])
    rows = torch.arange(batch)[:, None]
    angle = {"cos": cos[rows, new].to(DEVICE), "sin": sin[rows, new].to(DEVICE)} if turned else {}
    with pytest.MonkeyPatch.context() as patch, backend.use(through):
        patch.setattr(decode_launch, "decode_tile", lambda *_: DecodeTile(16, 4, 1))
        patch.setattr(decode_launch, "splits_for", lambda *_: splits)
        got = decode_attention(
            q[rows, new].to(DEVICE), *caches, torch.tensor(pasts).to(DEVICE), window=window,
            k_new=k[rows, new].to(DEVICE), v_new=v[rows, new].to(DEVICE), q_weight=q_weight.to(DEVICE),
            k_weight=k_weight.to(DEVICE), eps=eps, **angle,
        )  # fmt: skip
    assert got.dtype == dtype
    tolerance = 5e-5 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(got.double().cpu(), want[rows, new], atol=tolerance, rtol=tolerance)
    for cache, right in zip(caches, (wide_k, v.double()), strict=True):
        held = cache.cpu()[rows, new % capacity].double()
        torch.testing.assert_close(held, right[rows, new], atol=tolerance, rtol=tolerance)


def test_a_step_has_the_bits_of_a_norm_and_a_rotation_before_it() -> None:
    """What training computes in `rope` is what a cached step sees, so a cache never drifts from a forward."""
    torch.manual_seed(0)
    for dtype in (torch.float32, torch.float16):
        q, k, v = (torch.randn(2, 3, heads, 24).to(DEVICE, dtype) for heads in (6, 2, 2))
        cos, sin = (torch.rand(2, 3, 12).to(DEVICE, dtype) for _ in range(2))
        weights = {"q_weight": torch.rand(24).to(DEVICE, dtype), "k_weight": torch.rand(24).to(DEVICE, dtype)}
        caches = [torch.randn(2, 40, 2, 24).to(DEVICE, dtype) for _ in range(4)]
        caches[2:] = [cache.clone() for cache in caches[:2]]
        start = torch.tensor([30, 7]).to(DEVICE)
        with backend.use("triton"):
            together = decode_attention(
                q, *caches[:2], start, k_new=k, v_new=v, cos=cos, sin=sin, eps=1e-3, **weights
            )
            q, k = rope(q, k, cos, sin, eps=1e-3, **weights)
            apart = decode_attention(q, *caches[2:], start, k_new=k, v_new=v)
        bits = 2 if dtype == torch.float16 else 8  # last bits: the sum of squares is taken in another order
        torch.testing.assert_close(together, apart, rtol=0, atol=bits * torch.finfo(dtype).eps)
        torch.testing.assert_close(caches[0], caches[2], rtol=0, atol=bits * torch.finfo(dtype).eps)
        assert torch.equal(caches[1], caches[3])


@pytest.mark.parametrize("through", ["triton", "torch"])
def test_angles_and_weights_of_another_dtype_change_no_dtype(through: str) -> None:
    q, cache = torch.randn(1, 2, 2, 16).half(), torch.randn(1, 8, 1, 16).half()
    new, weight, angle = torch.randn(1, 2, 1, 16).half(), torch.rand(16), torch.rand(1, 2, 8)
    q, cache, new, weight, angle = (x.to(DEVICE) for x in (q, cache, new, weight, angle))
    with backend.use(through):
        o = decode_attention(
            q, cache, cache.clone(), torch.zeros(1, dtype=torch.int32).to(DEVICE), k_new=new, v_new=new, cos=angle,
            sin=angle, q_weight=weight, k_weight=weight,
        )  # fmt: skip
    assert (o.dtype, cache.dtype) == (torch.float16, torch.float16)


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
        ({"q_weight": torch.ones(16)}, "k_weight is missing"),
        ({"k_weight": torch.ones(16)}, "q_weight is missing"),
        ({"q_weight": torch.ones(16), "k_weight": torch.ones(8)}, r"k_weight is \[D\] .*got \(8,\)"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_before_any_launch(change: dict, message: str) -> None:
    cache = torch.zeros(1, 8, 1, 16)
    options = {"start": torch.tensor([7 if "window" in change else 0])} | change
    with pytest.raises(ValueError, match=message):
        decode_attention(torch.zeros(1, 2, 2, 16), cache, cache, options.pop("start"), **options)
