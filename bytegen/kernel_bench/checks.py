"""The check of a row: sampled rows of a result against float64, on the device that made it."""

from __future__ import annotations

import torch
from torch import Tensor


def sampled_rows(length: int, count: int, seed: int = 0) -> list[int]:
    """Rows to check: the first, the last, and some between."""
    generator = torch.Generator().manual_seed(seed)
    return sorted({0, length - 1, *torch.randint(0, length, (count,), generator=generator).tolist()})


def _seen(q: Tensor, k: Tensor, v: Tensor, window: int | None, i: int) -> tuple[Tensor, Tensor, Tensor]:
    """Keys and values [K, Hkv, D] that row i sees, and its probabilities [Hkv, G, K], in float64."""
    low = 0 if window is None else max(0, i - window + 1)
    keys, values = k[0, low : i + 1].double(), v[0, low : i + 1].double()
    one = q[0, i].double().unflatten(0, (k.shape[2], -1))
    return keys, values, torch.softmax(torch.einsum("hgd,khd->hgk", one, keys) * q.shape[3] ** -0.5, -1)


def attention_rows(q: Tensor, k: Tensor, v: Tensor, window: int | None, rows: list[int]) -> Tensor:
    """Output of the rows, float64 [rows, Hq, D]; one sequence, B = 1."""
    out = []
    for i in rows:
        _, values, p = _seen(q, k, v, window, i)
        out.append(torch.einsum("hgk,khd->hgd", p, values).flatten(0, 1))
    return torch.stack(out)


def query_gradient_rows(
    q: Tensor, k: Tensor, v: Tensor, do: Tensor, window: int | None, rows: list[int]
) -> Tensor:
    """DQ of the rows, float64 [rows, Hq, D]."""
    out = []
    for i in rows:
        keys, values, p = _seen(q, k, v, window, i)
        dp = torch.einsum("hgd,khd->hgk", do[0, i].double().unflatten(0, (k.shape[2], -1)), values)
        ds = p * (dp - (p * dp).sum(-1, keepdim=True)) * q.shape[3] ** -0.5
        out.append(torch.einsum("hgk,khd->hgd", ds, keys).flatten(0, 1))
    return torch.stack(out)


def relative_error(got: Tensor, want: Tensor) -> float:
    """Norm of the difference over the norm of what is right; NaN counts as infinite."""
    error = float((got.double() - want).norm() / want.norm())
    return error if error == error else float("inf")
