"""`rope`: rotary embedding of queries and keys together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bytegen.kernels import backend
from bytegen.kernels.library import LIBRARY, define


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn x [B, T, H, D] by the angles of cos, sin [B, T, D/2]; the two halves of a head are the pairs' members."""
    a, b = x.chunk(2, dim=-1)
    cos, sin = cos.unsqueeze(2), sin.unsqueeze(2)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def _compute(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, back: bool) -> tuple[Tensor, Tensor]:
    if q.dtype != torch.float64 and backend.takes_triton(q):
        from bytegen.kernels.elementwise.fused import rope as fused

        return fused.rope(q, k, cos, sin, back)
    sin = -sin if back else sin
    return rotate(q, cos, sin), rotate(k, cos, sin)


def _fake(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, back: bool) -> tuple[Tensor, Tensor]:
    return (
        torch.empty(q.shape, dtype=q.dtype, device=q.device),
        torch.empty(k.shape, dtype=k.dtype, device=k.device),
    )


_NAME = define(
    "rope(Tensor q, Tensor k, Tensor cos, Tensor sin, bool back) -> (Tensor, Tensor)",
    compute=_compute,
    fake=_fake,
)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, _, cos, sin, back = inputs
    ctx.save_for_backward(cos, sin)
    ctx.back = back


def _differentiate(ctx: Any, dq: Tensor, dk: Tensor) -> tuple[Any, ...]:
    cos, sin = ctx.saved_tensors
    return *torch.ops.bytegen.rope(dq, dk, cos, sin, not ctx.back), None, None, None


torch.library.register_autograd(_NAME, _differentiate, setup_context=_setup, lib=LIBRARY)


def rope(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Turn q [B, T, Hq, D] and k [B, T, Hkv, D] by the angles of cos, sin [B, T, D/2], in one launch.

    Su et al. 2021, in the order of Llama's checkpoints: the two halves of a head are the pairs' members.
    Differentiable in q and k. Raises ValueError when shapes, dtypes or devices do not fit.
    """
    shapes = f"q {tuple(q.shape)}, k {tuple(k.shape)}, cos {tuple(cos.shape)}, sin {tuple(sin.shape)}"
    if (
        q.dim() != 4
        or k.dim() != 4
        or q.shape[:2] != k.shape[:2]
        or q.shape[3] != k.shape[3]
        or q.shape[3] % 2
    ):
        raise ValueError(f"rope takes q, k [B, T, H, D], D even; got {shapes}")
    if cos.shape != (*q.shape[:2], q.shape[3] // 2) or sin.shape != cos.shape:
        raise ValueError(f"cos and sin are [B, T, D/2]; got {shapes}")
    if q.dtype != k.dtype or not (q.device == k.device == cos.device == sin.device):
        raise ValueError(f"rope takes q and k of one dtype on one device: {q.dtype}, {k.dtype}; {shapes}")
    return torch.ops.bytegen.rope(q, k, cos, sin, False)
