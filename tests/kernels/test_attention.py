"""Local and global attention against torch's own in float64 with an explicit mask."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_attention import attention as reference

from bytegen.kernels import decode_attention, local_attention
from bytegen.kernels.attention import blockwise


@st.composite
def cases(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int | None, list[int]]:
    lengths = draw(st.lists(st.integers(1, 60), min_size=1, max_size=4))
    n_kv, groups, dim = (
        draw(st.sampled_from([1, 2])),
        draw(st.sampled_from([1, 3])),
        draw(st.sampled_from([4, 8])),
    )
    window = draw(st.none() | st.integers(1, 70))
    batch = draw(st.integers(1, 2)) if len(lengths) == 1 else 1
    torch.manual_seed(draw(st.integers(0, 1000)))
    total = sum(lengths)
    q = torch.randn(batch, total, n_kv * groups, dim, dtype=torch.float64, requires_grad=True)
    k, v = (torch.randn(batch, total, n_kv, dim, dtype=torch.float64, requires_grad=True) for _ in range(2))
    return q, k, v, window, [0, *torch.tensor(lengths).cumsum(0).tolist()]


@settings(max_examples=40, deadline=None)
@given(cases(), st.sampled_from([1, 7, 64]), st.sampled_from([1, 5, 64]), st.booleans())
def test_output_lse_and_gradients_are_those_of_masked_attention(
    case: tuple, query_block: int, key_block: int, packed: bool
) -> None:
    q, k, v, window, bounds = case
    want, want_lse = reference(q, k, v, window, bounds)
    cu = torch.tensor(bounds) if len(bounds) > 2 or (packed and q.shape[0] == 1) else None
    with pytest.MonkeyPatch.context() as patch:  # small blocks, so that short inputs cross them
        patch.setattr(blockwise, "QUERY_BLOCK", query_block)
        patch.setattr(blockwise, "KEY_BLOCK", key_block)
        got, lse = local_attention(q, k, v, window=window, cu_seqlens=cu, return_lse=True)
        torch.testing.assert_close(got, want)
        torch.testing.assert_close(lse, want_lse)
        do, dlse = torch.randn_like(got), torch.randn_like(lse)
        got_grads = torch.autograd.grad((got * do).sum() + (lse * dlse).sum(), (q, k, v))
    want_grads = torch.autograd.grad((want * do).sum() + (want_lse * dlse).sum(), (q, k, v))
    torch.testing.assert_close(got_grads, want_grads)
    plain = local_attention(q, k, v, window=window, cu_seqlens=cu)
    torch.testing.assert_close(plain, want)


def test_float32_stays_within_rounding_of_float64() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 700, 4, 32) for _ in range(3))
    o, _ = local_attention(q, k, v, window=100, return_lse=True)
    want, _ = reference(q.double(), k.double(), v.double(), 100, [0, 700])
    assert float((o - want).norm() / want.norm()) < 1e-6


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(0, 50),
    st.none() | st.integers(1, 12),
    st.integers(0, 3),
    st.integers(0, 1000),
)
def test_decode_over_a_wrapped_ring_is_masked_attention(
    n_new: int, past: int, window: int | None, slack: int, seed: int
) -> None:
    """Including capacities of exactly window + new - 1, and one more and more."""
    torch.manual_seed(seed)
    total = past + n_new
    capacity = total + slack if window is None else window + n_new - 1 + slack
    q = torch.randn(2, total, 4, 8, dtype=torch.float64)
    k, v = (torch.randn(2, total, 2, 8, dtype=torch.float64) for _ in range(2))
    want, _ = reference(q, k, v, window, [0, total])
    k_cache, v_cache = (torch.full((2, capacity, 2, 8), float("nan"), dtype=torch.float64) for _ in range(2))
    for position in range(total):
        k_cache[:, position % capacity], v_cache[:, position % capacity] = k[:, position], v[:, position]
    unwritten = torch.isnan(k_cache)
    k_cache[unwritten], v_cache[unwritten] = 1e3, 1e3  # never to be seen
    start = torch.full((2,), past)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bytegen.kernels.attention.decode.DENSE_SCORES", 64)
        patch.setattr("bytegen.kernels.attention.decode.KEY_BLOCK", 5)
        got = decode_attention(q[:, past:], k_cache, v_cache, start, window=window)
    torch.testing.assert_close(got, want[:, past:])


def test_memory_is_linear_in_length() -> None:
    """The largest tensor that forward and backward make grows with the length, not with its square."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = func(*args, **(kwargs or {}))
            for t in out if isinstance(out, (tuple, list)) else (out,):
                if isinstance(t, torch.Tensor):
                    self.numel = max(self.numel, t.numel())
            return out

    largest = []
    for length in (4096, 8192):
        q, k, v = (torch.randn(1, length, 1, 8, requires_grad=True) for _ in range(3))
        with Largest() as seen:
            o, lse = local_attention(q, k, v, return_lse=True)
            (o.sum() + lse.sum()).backward()
        largest.append(seen.numel)
    assert largest[1] <= 2 * largest[0]


def _tensors(
    q: tuple = (1, 4, 2, 8), k: tuple = (1, 4, 2, 8), dtype: torch.dtype = torch.float32
) -> list[torch.Tensor]:
    return [torch.zeros(q), torch.zeros(k, dtype=dtype), torch.zeros(k, dtype=dtype)]


@pytest.mark.parametrize(
    ("tensors", "options", "word"),
    [
        (_tensors(q=(4, 2, 8)), {}, "B, T, H, D"),
        (_tensors(k=(1, 4, 3, 8)), {}, "multiple"),
        (_tensors(k=(1, 4, 2, 4)), {}, "head dimension"),
        (_tensors(k=(1, 5, 2, 8)), {}, "length"),
        (_tensors(dtype=torch.float64), {}, "dtype"),
        (_tensors(), {"window": 0}, "window=0"),
        (_tensors(), {"cu_seqlens": torch.tensor([0, 3])}, "cu_seqlens"),
        (_tensors(q=(2, 4, 2, 8), k=(2, 4, 2, 8)), {"cu_seqlens": torch.tensor([0, 4])}, "B = 1"),
    ],
)
def test_arguments_that_do_not_fit_raise_with_what_they_are(tensors: list, options: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        local_attention(*tensors, **options)


def test_a_ring_too_small_for_its_window_is_refused() -> None:
    q, cache = torch.zeros(1, 4, 2, 8), torch.zeros(1, 8, 2, 8)
    with pytest.raises(ValueError, match="need 9"):
        decode_attention(q, cache, cache, torch.tensor([20]), window=6)
