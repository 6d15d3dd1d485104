"""Checks that operations make before any launch; every message holds the shapes."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

HEAD_DIMS = range(1, 257)
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_attention_args(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> None:
    """Raise ValueError, with the shapes in it, when the arguments do not fit each other."""
    shapes = f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
    if q.dim() != 4 or k.dim() != 4 or v.dim() != 4:
        raise ValueError(f"attention takes [B, T, H, D] tensors; got {shapes}")
    if k.shape != v.shape:
        raise ValueError(f"k and v differ in shape: {shapes}")
    if q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        raise ValueError(f"q and k differ in batch or head dimension: {shapes}")
    if k.shape[2] == 0 or q.shape[2] % k.shape[2]:
        raise ValueError(f"the query heads are not a multiple of the key heads: {shapes}")
    if q.shape[3] not in HEAD_DIMS:
        raise ValueError(f"a head dimension of 1 to 256 is supported: {shapes}")
    if not (q.dtype == k.dtype == v.dtype):
        raise ValueError(f"q, k, v differ in dtype: {q.dtype}, {k.dtype}, {v.dtype}; {shapes}")
    if q.dtype not in FLOATS:
        raise ValueError(f"attention takes float16, bfloat16, float32 or float64, not {q.dtype}; {shapes}")
    if not (q.device == k.device == v.device):
        raise ValueError(f"q, k, v lie on different devices: {q.device}, {k.device}, {v.device}; {shapes}")
    if window is not None and window < 1:
        raise ValueError(
            f"window={window}: it counts the query itself, so at least 1, or None for global; {shapes}"
        )


def check_scores(q: Tensor, scale: float, softcap: float, sinks: Tensor | None) -> None:
    """Raise ValueError when what bends the scores does not fit q [B, T, Hq, D]."""
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"scale={scale}: it must be a positive number; q {tuple(q.shape)}")
    if not (math.isfinite(softcap) and softcap >= 0):
        raise ValueError(
            f"softcap={softcap}: it must be a positive number, or 0 for none; q {tuple(q.shape)}"
        )
    if sinks is not None and (sinks.shape != q.shape[2:3] or sinks.device != q.device):
        raise ValueError(
            f"sinks are one score a query head, on the device of q: sinks {tuple(sinks.shape)} on {sinks.device}, "
            f"q {tuple(q.shape)} on {q.device}"
        )


def check_norm_weights(q: Tensor, q_weight: Tensor | None, k_weight: Tensor | None, shapes: str) -> None:
    """Raise ValueError when the weights of a norm of heads do not fit q [..., D], or one comes alone."""
    if q_weight is None and k_weight is None:
        return
    for name, weight in (("q_weight", q_weight), ("k_weight", k_weight)):
        if weight is None:
            raise ValueError(f"q_weight and k_weight come together; {name} is missing; {shapes}")
        if weight.shape != q.shape[-1:] or weight.device != q.device:
            got = f"{tuple(weight.shape)} on {weight.device}"
            raise ValueError(f"{name} is [D] on the device of q; got {got}; {shapes}")


def check_cu_seqlens(cu_seqlens: Tensor | None, q: Tensor) -> None:
    """Raise ValueError when document limits do not fit q; on a GPU their values are trusted (no synchronisation)."""
    if cu_seqlens is None:
        return
    if q.shape[0] != 1:
        raise ValueError(f"cu_seqlens goes with packed documents, B = 1; got q {tuple(q.shape)}")
    shape = tuple(cu_seqlens.shape)
    if cu_seqlens.dim() != 1 or cu_seqlens.shape[0] < 1 or cu_seqlens.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"cu_seqlens is int32 or int64 [documents + 1]; got {cu_seqlens.dtype} {shape}")
    if cu_seqlens.device != q.device:
        raise ValueError(f"cu_seqlens lies on {cu_seqlens.device}, q {tuple(q.shape)} on {q.device}")


def document_bounds(cu_seqlens: Tensor | None, length: int) -> list[int]:
    """Return the documents' limits as a list from 0 to `length`; ValueError when they do not fit."""
    if cu_seqlens is None:
        return [0, length]
    bounds = [int(x) for x in cu_seqlens.tolist()]
    if bounds[0] != 0 or bounds[-1] != length or any(a > b for a, b in itertools.pairwise(bounds)):
        raise ValueError(
            f"cu_seqlens must rise from 0 to the length {length}; got {bounds[:4]}...{bounds[-1:]}"
        )
    return bounds
