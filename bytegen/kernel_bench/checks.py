"""The check of a row: sampled rows of a result against float64, on the device that made it."""

from __future__ import annotations

import torch
from torch import Tensor

from bytegen.kernels.attention.interface import local_attention  # noqa: F401  (registers the operators)


def sampled_rows(length: int, count: int, seed: int = 0) -> list[int]:
    """Rows to check: the first, the last, and some between."""
    generator = torch.Generator().manual_seed(seed)
    return sorted({0, length - 1, *torch.randint(0, length, (count,), generator=generator).tolist()})


def attention_rows(q: Tensor, k: Tensor, v: Tensor, window: int | None, rows: list[int]) -> Tensor:
    """Output of the rows, float64 [rows, Hq, D]; one sequence, B = 1."""
    groups, scale = q.shape[2] // k.shape[2], q.shape[3] ** -0.5
    out = []
    for i in rows:
        low = 0 if window is None else max(0, i - window + 1)
        keys, values = k[0, low : i + 1].double(), v[0, low : i + 1].double()
        one = q[0, i].double().unflatten(0, (-1, groups))  # [Hkv, G, D]
        p = torch.softmax(torch.einsum("hgd,khd->hgk", one, keys) * scale, -1)
        out.append(torch.einsum("hgk,khd->hgd", p, values).flatten(0, 1))
    return torch.stack(out)


def query_gradient_rows(
    q: Tensor, k: Tensor, v: Tensor, do: Tensor, window: int | None, rows: list[int]
) -> Tensor:
    """DQ of the rows, float64 [rows, Hq, D]."""
    groups, scale = q.shape[2] // k.shape[2], q.shape[3] ** -0.5
    out = []
    for i in rows:
        low = 0 if window is None else max(0, i - window + 1)
        keys, values = k[0, low : i + 1].double(), v[0, low : i + 1].double()
        one, d = (x[0, i].double().unflatten(0, (-1, groups)) for x in (q, do))
        p = torch.softmax(torch.einsum("hgd,khd->hgk", one, keys) * scale, -1)
        dp = torch.einsum("hgd,khd->hgk", d, values)
        ds = p * (dp - (p * dp).sum(-1, keepdim=True)) * scale
        out.append(torch.einsum("hgk,khd->hgd", ds, keys).flatten(0, 1))
    return torch.stack(out)


def relative_error(got: Tensor, want: Tensor) -> float:
    """Norm of the difference over the norm of what is right; NaN counts as infinite."""
    error = float((got.double() - want).norm() / want.norm())
    return error if error == error else float("inf")
