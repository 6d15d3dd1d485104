"""Attention forward in Gluon on the GPU that it is for; `make gpu` runs this last, under a time limit."""

from typing import Any

import pytest
import torch
from naive_attention import attention as naive

from bytegen.kernels import backend, local_attention

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0),
    reason="needs a Hopper GPU (sm_90)",
)


def tensors(seed: int, length: int, dim: int, batch: int = 1, heads: int = 4) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(batch, length, h, dim) for h in (heads, heads // 2, heads // 2)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).cuda() for shape in shapes]


def relative(x: torch.Tensor, want: torch.Tensor) -> float:
    return float((x.double() - want).norm() / want.norm())


BF16, FP16 = torch.bfloat16, torch.float16


@pytest.mark.parametrize(
    ("dtype", "dim", "length", "window", "bounds"),
    [
        (BF16, 128, 1000, 300, None),
        (BF16, 128, 777, None, None),
        (BF16, 128, 640, 200, [0, 5, 130, 391, 640]),
        (BF16, 64, 900, 128, None),
        (BF16, 256, 500, 100, None),
        (FP16, 128, 641, 129, None),
        (FP16, 64, 513, None, None),
    ],
)
def test_half_precision_errs_at_most_twice_as_much_as_torch_does(
    dtype: torch.dtype, dim: int, length: int, window: int | None, bounds: list[int] | None
) -> None:
    """Output and log-sum-exp, into memory that was NaN before."""
    q, k, v = tensors(dim + length, length, dim)
    limits = bounds or [0, length]
    want = naive(q, k, v, window, limits)
    low = [x.to(dtype) for x in (q, k, v)]
    theirs = naive(*low, window, limits)
    poison = [torch.full_like(x, float("nan")) for x in theirs]
    del poison  # what is allocated next may lie there
    cu = None if bounds is None else torch.tensor(bounds, device="cuda")
    with backend.use("gluon"):
        ours = local_attention(*low, window=window, cu_seqlens=cu, return_lse=True)
    errors = [[relative(x, y) for x, y in zip(one, want, strict=True)] for one in (ours, theirs)]
    assert all(a <= 2 * b for a, b in zip(*errors, strict=True)), errors


def test_gradients_that_the_triton_backward_makes_of_its_output_err_no_more() -> None:
    wide = [x.requires_grad_() for x in tensors(5, 1000, 128)]
    want, _ = naive(*wide, 300, [0, 1000])
    do = torch.randn_like(want)
    want_grads = torch.autograd.grad((want * do).sum(), wide)

    def errors(attend: Any) -> list[float]:
        low = [x.detach().bfloat16().requires_grad_() for x in wide]
        grads = torch.autograd.grad((attend(*low) * do.bfloat16()).sum(), low)
        return [relative(a, b) for a, b in zip(grads, want_grads, strict=True)]

    theirs = errors(lambda q, k, v: naive(q, k, v, 300, [0, 1000])[0])
    with backend.use("gluon"):
        ours = errors(lambda q, k, v: local_attention(q, k, v, window=300))
    assert all(a <= 2 * b for a, b in zip(ours, theirs, strict=True)), (ours, theirs)


def test_it_agrees_with_the_triton_kernel_at_a_long_length_and_gives_equal_bits_twice() -> None:
    q, k, v = (x.bfloat16() for x in tensors(0, 20_000, 128, heads=8))
    for window in (8192, None):
        with backend.use("triton"):
            want, want_lse = local_attention(q, k, v, window=window, return_lse=True)
        with backend.use("gluon"):
            o, lse = local_attention(q, k, v, window=window, return_lse=True)
            assert torch.equal(o, local_attention(q, k, v, window=window))
        assert relative(o, want.double()) < 1e-2
        torch.testing.assert_close(lse, want_lse, atol=1e-3, rtol=1e-3)


def test_batches_and_strided_heads_as_a_fused_projection_leaves_them() -> None:
    qkv = torch.cat(tensors(1, 333, 128, batch=3), dim=2).bfloat16()
    q, k, v = qkv[:, :, :4], qkv[:, :, 4:6], qkv[:, :, 6:]
    with backend.use("gluon"):
        o, lse = local_attention(q, k, v, window=150, return_lse=True)
    want, want_lse = naive(q.double(), k.double(), v.double(), 150, [0, 333])
    assert relative(o, want) < 1e-2
    torch.testing.assert_close(lse.double(), want_lse, atol=1e-2, rtol=1e-2)


def test_tiles_outside_the_window_are_never_read() -> None:
    q, k, v = (x.bfloat16() for x in tensors(2, 1024, 128))
    k[:, :512], v[:, :512] = float("nan"), float("nan")
    with backend.use("gluon"):
        assert not local_attention(q, k, v, window=100)[:, 768:].isnan().any()


def test_what_it_does_not_take_goes_to_the_triton_kernel() -> None:
    q, k, v = (x.bfloat16() for x in tensors(3, 200, 128))
    calls: list[tuple[list[torch.Tensor], dict[str, Any]]] = [
        ([q, k, v], {"softcap": 20.0}),
        ([x[..., :96] for x in (q, k, v)], {}),
    ]
    for inputs, options in calls:
        with backend.use("gluon"):
            o = local_attention(*inputs, **options)  # type: ignore[call-overload]
        with backend.use("triton"):
            assert torch.equal(o, local_attention(*inputs, **options))  # type: ignore[call-overload]
