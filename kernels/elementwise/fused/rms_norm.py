"""RMSNorm with a residual, forward and backward; the weight's gradient is summed without atomics."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_PARTS = 256
"""Programs of the backward: each sums the weight's gradient over its own rows, in order."""


@triton.jit(do_not_specialize=["rows"])
def forward_kernel(x, residual, weight, y, h, rstd, rows, eps,
                   DIM: tl.constexpr, BLOCK: tl.constexpr, HAS_RESIDUAL: tl.constexpr):  # fmt: skip
    """One row: h = x + residual, y = h / rms(h) * weight."""
    row = tl.program_id(0).to(tl.int64)
    dims = tl.arange(0, BLOCK)
    inside = dims < DIM
    value = tl.load(x + row * DIM + dims, mask=inside, other=0.0)
    if HAS_RESIDUAL:
        # Rounded as the residual stream is, so that the norm sees what the next layer will.
        value = (value + tl.load(residual + row * DIM + dims, mask=inside, other=0.0)).to(h.dtype.element_ty)
        tl.store(h + row * DIM + dims, value, mask=inside)
    value = value.to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value, 0) / DIM + eps)
    tl.store(rstd + row, scale)
    normed = (value * scale).to(y.dtype.element_ty)
    w = tl.load(weight + dims, mask=inside, other=0.0)
    tl.store(y + row * DIM + dims, (normed * w).to(y.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["rows", "share"])
def backward_kernel(dy, dh, h, weight, rstd, dx, dw_parts, rows, share,
                    DIM: tl.constexpr, BLOCK: tl.constexpr, HAS_DH: tl.constexpr):  # fmt: skip
    """Rows of one program: dx, and its part of the weight's gradient."""
    program = tl.program_id(0)
    dims = tl.arange(0, BLOCK)
    inside = dims < DIM
    w = tl.load(weight + dims, mask=inside, other=0.0).to(tl.float32)
    dw = tl.zeros([BLOCK], tl.float32)
    begin = program * share
    base = begin.to(tl.int64) * DIM + dims
    for i in tl.range(tl.minimum(share, rows - begin)):
        at = base + i * DIM
        scale = tl.load(rstd + begin + i)
        normed = tl.load(h + at, mask=inside, other=0.0).to(tl.float32) * scale
        d = tl.load(dy + at, mask=inside, other=0.0).to(tl.float32)
        dw += d * normed
        d = d * w
        out = (d - normed * (tl.sum(d * normed, 0) / DIM)) * scale
        if HAS_DH:
            out += tl.load(dh + at, mask=inside, other=0.0).to(tl.float32)
        tl.store(dx + at, out.to(dx.dtype.element_ty), mask=inside)
    tl.store(dw_parts + program.to(tl.int64) * DIM + dims, dw, mask=inside)


def _warps(block: int) -> int:
    return max(1, min(16, block // 256))


def forward(x: Tensor, weight: Tensor, residual: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return (y, h, rstd): shapes of x, x and [rows]."""
    x, weight = x.contiguous(), weight.contiguous()
    dim = x.shape[-1]
    rows = x.numel() // dim if dim else 0
    y = torch.empty_like(x)
    h = torch.empty_like(x) if residual is not None else x
    rstd = torch.empty(rows, dtype=torch.float32, device=x.device)
    if rows:
        block = triton.next_power_of_2(dim)
        with torch.cuda.device_of(x):
            forward_kernel[(rows,)](
                x, None if residual is None else residual.contiguous(), weight, y, h, rstd, rows, eps,
                DIM=dim, BLOCK=block, HAS_RESIDUAL=residual is not None, num_warps=_warps(block),
            )  # fmt: skip
    return y, h, rstd


def backward(dy: Tensor, dh: Tensor | None, h: Tensor, weight: Tensor, rstd: Tensor) -> tuple[Tensor, Tensor]:
    """Return (dx, dweight)."""
    h, dy, weight = h.contiguous(), dy.contiguous(), weight.contiguous()
    dim, rows = h.shape[-1], rstd.numel()
    dx = torch.empty_like(h)
    if not rows:
        return dx, torch.zeros_like(weight)
    share = triton.cdiv(rows, min(_PARTS, rows))
    parts = triton.cdiv(rows, share)
    dw = torch.empty(parts, dim, dtype=torch.float32, device=h.device)
    block = triton.next_power_of_2(dim)
    with torch.cuda.device_of(h):
        backward_kernel[(parts,)](
            dy, None if dh is None else dh.contiguous(), h, weight, rstd, dx, dw, rows, share,
            DIM=dim, BLOCK=block, HAS_DH=dh is not None, num_warps=_warps(block),
        )  # fmt: skip
    return dx, dw.sum(0).to(weight.dtype)
