"""`rope`: rotary embedding of queries and keys together, with a norm of each head before it where asked."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bytegen.kernels import backend
from bytegen.kernels.checks import check_norm_weights
from bytegen.kernels.library import LIBRARY, define


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


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
    # The angles are float32 beside narrower queries and keys; what is turned keeps its own type, as in the kernel.
    return rotate(q, cos, sin).to(q.dtype), rotate(k, cos, sin).to(k.dtype)


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


def normed(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Divide heads [..., D] by their root mean square and multiply by weight [D]; rounded to x's dtype in between."""
    wide = _wide(x)
    rstd = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return ((wide * rstd).to(x.dtype) * weight).to(x.dtype)


def _norm_compute(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, q_weight: Tensor, k_weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    if q.dtype != torch.float64 and backend.takes_triton(q):
        from bytegen.kernels.elementwise.fused import rope as fused

        return fused.rope(q, k, cos, sin, False, q_weight, k_weight, eps)
    turned = (rotate(normed(x, w, eps), cos, sin) for x, w in ((q, q_weight), (k, k_weight)))
    return next(turned).to(q.dtype), next(turned).to(k.dtype)


def _norm_fake(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, q_weight: Tensor, k_weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    return _fake(q, k, cos, sin, False)


def _through_norm(
    d: Tensor, x: Tensor, cos: Tensor, sin: Tensor, w: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Gradients of a tensor and its weight from that of its normed and turned heads."""
    wide = _wide(x)
    rstd = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    unit = wide * rstd
    d = rotate(_wide(d), _wide(cos), -_wide(sin))
    dw = (d * unit).sum((0, 1, 2))
    d = d * _wide(w)
    return ((d - unit * (d * unit).mean(-1, keepdim=True)) * rstd).to(x.dtype), dw.to(w.dtype)


def _norm_backward(
    dq: Tensor, dk: Tensor, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, q_weight: Tensor, k_weight: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    if q.dtype != torch.float64 and backend.takes_triton(q):
        from bytegen.kernels.elementwise.fused import rope as fused

        return fused.norm_backward(dq, dk, q, k, cos, sin, q_weight, k_weight, eps)
    dq, dq_weight = _through_norm(dq, q, cos, sin, q_weight, eps)
    dk, dk_weight = _through_norm(dk, k, cos, sin, k_weight, eps)
    return dq.contiguous(), dk.contiguous(), dq_weight, dk_weight


def _norm_backward_fake(
    dq: Tensor, dk: Tensor, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, q_weight: Tensor, k_weight: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return *_fake(q, k, cos, sin, True), torch.empty_like(q_weight), torch.empty_like(k_weight)


_NORM_NAME = define(
    "rope_norm(Tensor q, Tensor k, Tensor cos, Tensor sin, Tensor q_weight, Tensor k_weight, float eps) "
    "-> (Tensor, Tensor)",
    compute=_norm_compute,
    fake=_norm_fake,
)
define(
    "rope_norm_backward(Tensor dq, Tensor dk, Tensor q, Tensor k, Tensor cos, Tensor sin, Tensor q_weight, "
    "Tensor k_weight, float eps) -> (Tensor, Tensor, Tensor, Tensor)",
    compute=_norm_backward,
    fake=_norm_backward_fake,
)


def _norm_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.eps = inputs
    ctx.save_for_backward(*tensors)


def _norm_differentiate(ctx: Any, dq: Tensor, dk: Tensor) -> tuple[Any, ...]:
    dq, dk, dq_weight, dk_weight = torch.ops.bytegen.rope_norm_backward(dq, dk, *ctx.saved_tensors, ctx.eps)
    return dq, dk, None, None, dq_weight, dk_weight, None


torch.library.register_autograd(_NORM_NAME, _norm_differentiate, setup_context=_norm_setup, lib=LIBRARY)


def rope(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *, q_weight: Tensor | None = None,
    k_weight: Tensor | None = None, eps: float = 1e-6,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Turn q [B, T, Hq, D] and k [B, T, Hkv, D] by the angles of cos, sin [B, T, D/2], in one launch.

    Su et al. 2021, in the order of Llama's checkpoints: the two halves of a head are the pairs' members. With
    `q_weight` and `k_weight` [D] each head is first divided by its root mean square and multiplied by them, as in
    Qwen3 (QK norm; `eps` is added to the mean square). Differentiable in q, k and the weights; the backward is
    deterministic. Raises ValueError when shapes, dtypes or devices do not fit, or one weight comes alone.
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
    if q_weight is None and k_weight is None:
        return torch.ops.bytegen.rope(q, k, cos, sin, False)
    check_norm_weights(q, q_weight, k_weight, shapes)
    return torch.ops.bytegen.rope_norm(q, k, cos, sin, q_weight, k_weight, eps)
