"""`cross_entropy`: the loss of next-byte logits, without a float32 copy of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bytegen.kernels import backend
from bytegen.kernels.library import LIBRARY, define

_ROWS = 8192
"""Rows that the twin widens at once: its float32 copies stay this small."""


def _forward(logits: Tensor, targets: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    if logits.dtype != torch.float64 and backend.takes_triton(logits):
        from bytegen.kernels.elementwise.fused import cross_entropy as fused

        return fused.forward(logits, targets, ignore_index)
    wide = torch.promote_types(logits.dtype, torch.float32)
    loss, lse = (torch.empty(len(logits), dtype=wide, device=logits.device) for _ in range(2))
    for i in range(0, len(logits), _ROWS):
        x, target = logits[i : i + _ROWS].to(wide), targets[i : i + _ROWS]
        lse[i : i + _ROWS] = total = x.logsumexp(1)
        ignored = target == ignore_index
        at_target = x.gather(1, target.long().masked_fill(ignored, 0).unsqueeze(1)).squeeze(1)
        loss[i : i + _ROWS] = (total - at_target).masked_fill(ignored, 0.0)
    return loss, lse


def _backward(dloss: Tensor, logits: Tensor, targets: Tensor, lse: Tensor, ignore_index: int) -> Tensor:
    if logits.dtype != torch.float64 and backend.takes_triton(logits):
        from bytegen.kernels.elementwise.fused import cross_entropy as fused

        return fused.backward(dloss, logits, targets, lse, ignore_index)
    out = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    for i in range(0, len(logits), _ROWS):
        target = targets[i : i + _ROWS]
        ignored = target == ignore_index
        p = torch.exp(logits[i : i + _ROWS].to(lse.dtype) - lse[i : i + _ROWS, None])
        index = target.long().masked_fill(ignored, 0).unsqueeze(1)
        p.scatter_add_(1, index, torch.full_like(index, -1, dtype=p.dtype))
        out[i : i + _ROWS] = p * dloss[i : i + _ROWS].masked_fill(ignored, 0.0).unsqueeze(1)
    return out


def _forward_fake(logits: Tensor, targets: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return logits.new_empty(len(logits), dtype=dtype), logits.new_empty(len(logits), dtype=dtype)


_NAME = define(
    "cross_entropy(Tensor logits, Tensor targets, int ignore_index) -> (Tensor, Tensor)",
    compute=_forward,
    fake=_forward_fake,
)
define(
    "cross_entropy_backward(Tensor dloss, Tensor logits, Tensor targets, Tensor lse, int ignore_index) -> Tensor",
    compute=_backward,
    fake=lambda dloss, logits, *_: torch.empty(logits.shape, dtype=logits.dtype, device=logits.device),
)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    logits, targets, ctx.ignore_index = inputs
    ctx.save_for_backward(logits, targets, output[1])
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, dloss: Tensor, _: Any) -> tuple[Any, ...]:
    logits, targets, lse = ctx.saved_tensors
    return torch.ops.bytegen.cross_entropy_backward(dloss, logits, targets, lse, ctx.ignore_index), None, None


torch.library.register_autograd(_NAME, _differentiate, setup_context=_setup, lib=LIBRARY)


def cross_entropy(logits: Tensor, targets: Tensor, *, ignore_index: int = -100) -> Tensor:
    """Return -log softmax(logits)[target] a row: logits [N, V], targets int64 [N], loss [N] in float32 or float64.

    Rows whose target is `ignore_index` give 0 and no gradient. Made for small vocabularies (V at most 16,384): a
    row stays in registers, and only its log-sum-exp is kept for the backward. Targets are not checked on a GPU.
    Raises ValueError when shapes, dtypes or devices do not fit.
    """
    shapes = f"logits {tuple(logits.shape)} {logits.dtype}, targets {tuple(targets.shape)} {targets.dtype}"
    if logits.dim() != 2 or targets.shape != logits.shape[:1] or not 1 <= logits.shape[1] <= 16_384:
        raise ValueError(f"cross_entropy takes logits [N, V], V at most 16384, and targets [N]; got {shapes}")
    if not logits.is_floating_point() or targets.dtype != torch.int64 or targets.device != logits.device:
        raise ValueError(f"logits are floating-point, targets int64, on one device; got {shapes}")
    return torch.ops.bytegen.cross_entropy(logits, targets, ignore_index)[0]
