"""`rms_norm`: root-mean-square normalisation, with the residual added in the same launch."""

from __future__ import annotations

from typing import Any, overload

import torch
from torch import Tensor

from bytegen.kernels import backend
from bytegen.kernels.library import LIBRARY, define


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _forward(x: Tensor, weight: Tensor, residual: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    if x.dtype != torch.float64 and backend.takes_triton(x):
        from bytegen.kernels.elementwise.fused import rms_norm as fused

        y, h, rstd = fused.forward(x, weight, residual, eps)
        return y, h if residual is not None else x.new_empty(0), rstd
    h = x if residual is None else x + residual
    wide = _wide(h)
    rstd = torch.rsqrt(wide.square().mean(-1) + eps)
    y = (wide * rstd.unsqueeze(-1)).to(x.dtype) * weight
    return y, x.new_empty(0) if residual is None else h, rstd.flatten()


def _forward_fake(
    x: Tensor, weight: Tensor, residual: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    rstd = x.new_empty(x.shape[:-1].numel(), dtype=torch.promote_types(x.dtype, torch.float32))
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    return y, x.new_empty(0) if residual is None else torch.empty_like(y), rstd


def _backward(
    dy: Tensor, dh: Tensor | None, h: Tensor, weight: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor]:
    if h.dtype != torch.float64 and backend.takes_triton(h):
        from bytegen.kernels.elementwise.fused import rms_norm as fused

        return fused.backward(dy, dh, h, weight, rstd)
    normed = _wide(h) * rstd.view(*h.shape[:-1], 1)
    d = _wide(dy) * _wide(weight)
    dx = (d - normed * (d * normed).mean(-1, keepdim=True)) * rstd.view(*h.shape[:-1], 1)
    if dh is not None:
        dx = dx + dh
    dw = (_wide(dy) * normed).flatten(0, -2).sum(0)
    return dx.to(h.dtype), dw.to(weight.dtype)


def _backward_fake(
    dy: Tensor, dh: Tensor | None, h: Tensor, weight: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor]:
    return torch.empty(h.shape, dtype=h.dtype, device=h.device), torch.empty_like(weight)


_NAME = define(
    "rms_norm(Tensor x, Tensor weight, Tensor? residual, float eps) -> (Tensor, Tensor, Tensor)",
    compute=_forward,
    fake=_forward_fake,
)
define(
    "rms_norm_backward(Tensor dy, Tensor? dh, Tensor h, Tensor weight, Tensor rstd) -> (Tensor, Tensor)",
    compute=_backward,
    fake=_backward_fake,
)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, residual, _ = inputs
    _, h, rstd = output
    ctx.has_residual = residual is not None
    ctx.save_for_backward(h if ctx.has_residual else x, weight, rstd)
    ctx.mark_non_differentiable(rstd)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, dy: Tensor | None, dh: Tensor | None, _: Any) -> tuple[Any, ...]:
    h, weight, rstd = ctx.saved_tensors
    dy = torch.zeros_like(h) if dy is None else dy
    dx, dw = torch.ops.bytegen.rms_norm_backward(dy, dh if ctx.has_residual else None, h, weight, rstd)
    return dx, dw, dx if ctx.has_residual else None, None


torch.library.register_autograd(_NAME, _differentiate, setup_context=_setup, lib=LIBRARY)


@overload
def rms_norm(x: Tensor, weight: Tensor, *, eps: float = ..., residual: None = ...) -> Tensor: ...


@overload
def rms_norm(x: Tensor, weight: Tensor, *, eps: float = ..., residual: Tensor) -> tuple[Tensor, Tensor]: ...


def rms_norm(
    x: Tensor, weight: Tensor, *, eps: float = 1e-6, residual: Tensor | None = None
) -> Tensor | tuple[Tensor, Tensor]:
    """Normalise the last dimension of x [..., D] by its root mean square, times weight [D], in float32.

    Zhang and Sennrich 2019. With `residual` [..., D] the sum h = x + residual is normalised, and (y, h) returned.
    Differentiable; the backward is deterministic. Raises ValueError when shapes, dtypes or devices differ.
    """
    shapes = f"x {tuple(x.shape)} {x.dtype}, weight {tuple(weight.shape)} {weight.dtype}"
    if x.dim() < 1 or weight.shape != x.shape[-1:] or not 1 <= x.shape[-1] <= 65_536:
        raise ValueError(f"rms_norm takes x [..., D] and weight [D], D at most 65536; got {shapes}")
    if weight.device != x.device or not x.is_floating_point():
        raise ValueError(f"rms_norm takes floating-point tensors on one device; got {shapes}")
    if residual is not None and (
        residual.shape != x.shape or residual.dtype != x.dtype or residual.device != x.device
    ):
        raise ValueError(f"the residual is not like x: {tuple(residual.shape)} {residual.dtype}; {shapes}")
    y, h, _ = torch.ops.bytegen.rms_norm(x, weight, residual, eps)
    return y if residual is None else (y, h)
