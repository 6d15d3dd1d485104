"""Launches the attention kernels: strides, grids, configurations; no checks beyond those of the interface."""

from __future__ import annotations

import functools
from typing import Any

import torch
import triton
from torch import Tensor

from bytegen.kernels.architectures import architecture_of
from bytegen.kernels.attention.fused.backward import delta_kernel, dkdv_kernel, dq_kernel
from bytegen.kernels.attention.fused.configs import Kernel, Tile, tile_for
from bytegen.kernels.attention.fused.forward import forward_kernel


def document_limits(cu_seqlens: Tensor | None, length: int) -> tuple[Tensor | None, Tensor | None]:
    """Start and end of each token's document, int32 [T] each, found on the device without a synchronisation."""
    if cu_seqlens is None:
        return None, None
    tokens = torch.arange(length, device=cu_seqlens.device, dtype=cu_seqlens.dtype)
    document = torch.searchsorted(cu_seqlens, tokens, right=True)
    limits = cu_seqlens.to(torch.int32)
    return limits[document - 1], limits[document]


def _strides(*tensors: Tensor) -> list[int]:
    return [x.stride(i) for x in tensors for i in range(3)]


def _rows_contiguous(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _described(x: Tensor, tile: Tile) -> bool:
    """Whether a descriptor can stand for x [B, T, H, D]: aligned, whole heads, and no tile across two batches."""
    n_batch, length, n_heads, head_dim = x.shape
    by_batch, by_row, by_head, _ = x.stride()
    return (
        head_dim == block_d(head_dim)
        and x.data_ptr() % 16 == 0
        and by_row * x.element_size() % 16 == 0
        and (n_heads - 1) * by_head + head_dim <= by_row
        and (
            n_batch == 1
            or (by_batch % by_row == 0 and length % tile.block_q == 0 and length % tile.block_k == 0)
        )
    )


def _fitting(asked: Tile | None, kernel: Kernel, *tensors: Tensor) -> Tile:
    """The tile asked for or the table's; one without descriptors where one of the tensors cannot have one."""
    q = tensors[0]
    row = architecture_of(q.device), kernel, q.shape[3], q.element_size() * 8
    tile = asked or tile_for(*row)
    if not tile.descriptors or all(_described(x, tile) for x in tensors):
        return tile
    return asked._replace(descriptors=False) if asked else tile_for(*row, descriptors=False)


def _sources(tile: Tile, *tensors: tuple[Tensor, int]) -> tuple[list[Any], list[int]]:
    """What a kernel loads from and its strides: tensors, or descriptors of tiles of that many rows of them."""
    if not tile.descriptors:
        return [x for x, _ in tensors], _strides(*(x for x, _ in tensors))
    from triton.tools.tensor_descriptor import TensorDescriptor

    sources, strides = [], []
    for x, rows in tensors:
        by_batch, by_row, by_head, _ = x.stride()
        a_batch = by_batch // by_row if x.shape[0] > 1 else x.shape[1]
        shape = [(x.shape[0] - 1) * a_batch + x.shape[1], (x.shape[2] - 1) * by_head + x.shape[3]]
        sources.append(TensorDescriptor(x, shape, [by_row, 1], [rows, x.shape[3]]))
        strides += [a_batch, by_row, by_head]
    return sources, strides


@functools.cache
def block_d(head_dim: int) -> int:
    """Columns of a tile: the power of two that holds a head, at least 16 (a dot's least)."""
    return max(16, triton.next_power_of_2(head_dim))


def _options(
    tile: Tile, q: Tensor, k: Tensor, window: int | None, documents: bool, softcap: float
) -> dict[str, Any]:
    return {
        "GROUPS": q.shape[2] // k.shape[2],
        "D": q.shape[3],
        "BLOCK_D": block_d(q.shape[3]),
        "BLOCK_Q": tile.block_q,
        "BLOCK_K": tile.block_k,
        "HAS_WINDOW": window is not None,
        "HAS_DOCUMENTS": documents,
        "HAS_SOFTCAP": softcap > 0,
        "DESCRIPTORS": tile.descriptors,
        # Ampere's default for float32 is tf32, which is not what a caller who chose float32 asked for.
        "PRECISION": "ieee",
        "num_warps": tile.warps,
        "num_stages": tile.stages,
    }


def forward(
    q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None, cu_seqlens: Tensor | None, window: int | None,
    scale: float, softcap: float, *, tile: Tile | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return o [B, T, Hq, D] in the dtype of q and lse [B, Hq, T] in float32."""
    q, k, v = map(_rows_contiguous, (q, k, v))
    n_batch, length, n_heads, _ = q.shape
    o = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    lse = torch.empty(n_batch, n_heads, length, dtype=torch.float32, device=q.device)
    if not q.numel():
        return o, lse
    starts, _ = document_limits(cu_seqlens, length)
    sinks = None if sinks is None else sinks.contiguous()
    tile = _fitting(tile, "forward", q, k, v)
    sources, strides = _sources(tile, (q, tile.block_q), (k, tile.block_k), (v, tile.block_k))
    grid = (n_heads, triton.cdiv(length, tile.block_q), n_batch)
    with torch.cuda.device_of(q):
        forward_kernel[grid](
            *sources, o, lse, sinks, starts, *strides, *_strides(o), length, window or 0, scale, softcap,
            HAS_SINKS=sinks is not None, **_options(tile, q, k, window, starts is not None, softcap),
        )  # fmt: skip
    return o, lse


def backward(
    do: Tensor, dlse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor, sinks: Tensor | None,
    cu_seqlens: Tensor | None, window: int | None, scale: float, softcap: float, *,
    dq_tile: Tile | None = None, dkdv_tile: Tile | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:  # fmt: skip
    """Return dq, dk, dv and, where there are sinks, their gradient [Hq]."""
    q, k, v, do = map(_rows_contiguous, (q, k, v, do))
    n_batch, length, n_heads, head_dim = q.shape
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    delta = torch.empty_like(lse)
    if not q.numel():
        return dq, dk, dv, None if sinks is None else torch.zeros_like(sinks)
    starts, ends = document_limits(cu_seqlens, length)
    if dlse is not None:
        dlse = dlse.to(torch.float32).contiguous()
    first = _fitting(dq_tile, "dq", q, k, v, do)
    second = _fitting(dkdv_tile, "dkdv", q, k, v, do)

    def loads(tile: Tile) -> tuple[list[Any], list[int]]:
        return _sources(tile, (q, tile.block_q), (k, tile.block_k), (v, tile.block_k), (do, tile.block_q))

    with torch.cuda.device_of(q):
        rows = 64
        delta_kernel[(n_heads, triton.cdiv(length, rows), n_batch)](
            do, o, dlse, delta, *_strides(do, o), length,
            D=head_dim, BLOCK_D=block_d(head_dim), BLOCK_Q=rows, HAS_DLSE=dlse is not None, num_warps=4,
        )  # fmt: skip
        sources, strides = loads(first)
        dq_kernel[(n_heads, triton.cdiv(length, first.block_q), n_batch)](
            *sources, lse, delta, dq, starts, *strides, *_strides(dq), length, window or 0, scale, softcap,
            **_options(first, q, k, window, starts is not None, softcap),
        )  # fmt: skip
        sources, strides = loads(second)
        for want_dk, want_dv in ((True, False), (False, True)) if second.split else ((True, True),):
            dkdv_kernel[(k.shape[2], triton.cdiv(length, second.block_k), n_batch)](
                *sources, lse, delta, dk, dv, ends, *strides, *_strides(dk, dv), length, window or 0, scale, softcap,
                WANT_DK=want_dk, WANT_DV=want_dv, **_options(second, q, k, window, ends is not None, softcap),
            )  # fmt: skip
    dsinks = None
    if sinks is not None:
        # A sink's score has the gradient -P delta in every row: it carries no value.
        p = torch.exp(sinks.to(torch.float32)[None, :, None] - lse)
        dsinks = -(p * delta).sum((0, 2)).to(sinks.dtype)
    return dq, dk, dv, dsinks
