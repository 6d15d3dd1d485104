"""Cross-entropy over a small vocabulary: logits are read as they are and widened in registers only."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def forward_kernel(logits, targets, losses, lses, row_stride, IGNORE: tl.constexpr, N: tl.constexpr,
                   BLOCK: tl.constexpr):  # fmt: skip
    """One row: log-sum-exp and loss, 0 where the target is ignored."""
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK)
    x = tl.load(logits + row * row_stride + i, mask=i < N, other=float("-inf")).to(tl.float32)
    top = tl.max(x, 0)
    lse = top + tl.log(tl.sum(tl.exp(x - top), 0))
    target = tl.load(targets + row)
    at_target = tl.sum(tl.where(i == target, x, 0.0), 0)
    tl.store(lses + row, lse)
    tl.store(losses + row, tl.where(target == IGNORE, 0.0, lse - at_target))


@triton.jit
def backward_kernel(dlosses, logits, targets, lses, dlogits, row_stride, d_stride, IGNORE: tl.constexpr,
                    N: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Softmax less one at the target, in the dtype of the logits."""
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK)
    x = tl.load(logits + row * row_stride + i, mask=i < N, other=float("-inf")).to(tl.float32)
    target = tl.load(targets + row)
    p = tl.exp(x - tl.load(lses + row)) - tl.where(i == target, 1.0, 0.0)
    d = tl.where(target == IGNORE, 0.0, tl.load(dlosses + row * d_stride).to(tl.float32))
    tl.store(dlogits + row * N + i, (p * d).to(dlogits.dtype.element_ty), mask=i < N)


def _warps(block: int) -> int:
    return max(1, min(8, block // 256))


def forward(logits: Tensor, targets: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Return (loss, log-sum-exp), float32 [rows] both."""
    logits = logits if logits.stride(1) == 1 else logits.contiguous()
    rows, n = logits.shape
    loss, lse = (torch.empty(rows, dtype=torch.float32, device=logits.device) for _ in range(2))
    if rows:
        block = triton.next_power_of_2(n)
        with torch.cuda.device_of(logits):
            forward_kernel[(rows,)](
                logits, targets.contiguous(), loss, lse, logits.stride(0), IGNORE=ignore_index, N=n, BLOCK=block,
                num_warps=_warps(block),
            )  # fmt: skip
    return loss, lse


def backward(dloss: Tensor, logits: Tensor, targets: Tensor, lse: Tensor, ignore_index: int) -> Tensor:
    """Return the gradient of the logits."""
    logits = logits if logits.stride(1) == 1 else logits.contiguous()
    rows, n = logits.shape
    dlogits = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    if rows:
        block = triton.next_power_of_2(n)
        with torch.cuda.device_of(logits):
            backward_kernel[(rows,)](
                dloss, logits, targets.contiguous(), lse, dlogits, logits.stride(0), dloss.stride(0),
                IGNORE=ignore_index, N=n, BLOCK=block, num_warps=_warps(block),
            )  # fmt: skip
    return dlogits
