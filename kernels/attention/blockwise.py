"""Blockwise attention in plain torch: memory linear in length, forward and backward, log-sum-exp out.

The twin that every faster kernel is checked against, and what runs on a CPU. A tile of queries
meets only the keys that its window and document allow; tiles are merged by an online softmax
(Milakov and Gimelshein 2018), and the backward recomputes the probabilities from the
log-sum-exp (Dao et al. 2022), so nothing of size length x length is ever kept.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

QUERY_BLOCK = 256
KEY_BLOCK = 2048


def tile_mask(q_pos: Tensor, k_pos: Tensor, window: int | None) -> Tensor:
    """Return which keys a query sees: bool [..., Tq, Tk] from positions [..., Tq] and [..., Tk].

    A key is seen when it is not in the future, not further back than `window` - 1, and written
    (position >= 0).
    """
    distance = q_pos.unsqueeze(-1) - k_pos.unsqueeze(-2)
    seen = (distance >= 0) & (k_pos >= 0).unsqueeze(-2)
    return seen if window is None else seen & (distance < window)


def scores_of(q: Tensor, k: Tensor, scale: float, mask: Tensor | None, softcap: float = 0.0) -> Tensor:
    """Return float32 (or float64) scores [..., Hkv, G*Tq, Tk]; unseen keys are -inf.

    q is [..., Hkv, G*Tq, D], k is [..., Hkv, Tk, D]; mask is [..., 1, Tq, Tk] over each group's rows.
    """
    dtype = torch.promote_types(q.dtype, torch.float32)
    s = bend(torch.matmul(q.to(dtype) * scale, k.to(dtype).transpose(-1, -2)), softcap)
    if mask is not None:
        groups = s.shape[-2] // mask.shape[-2]
        s = (
            s.unflatten(-2, (groups, mask.shape[-2]))
            .masked_fill(~mask.unsqueeze(-3), float("-inf"))
            .flatten(-3, -2)
        )
    return s


def bend(s: Tensor, softcap: float) -> Tensor:
    """Return softcap * tanh(s / softcap), as Gemma 2 bounds its scores; 0 leaves them as they are."""
    return softcap * torch.tanh(s / softcap) if softcap else s


def per_row(sinks: Tensor, n_kv: int, length: int, dtype: torch.dtype) -> Tensor:
    """Return the sinks [Hq] as one score a row of a tile: [Hkv, G*length, 1]."""
    return sinks.to(dtype).view(n_kv, -1, 1).expand(-1, -1, length).flatten(1, 2).unsqueeze(-1)


class OnlineSoftmax:
    """Merges tiles of keys for one tile of queries; rows with every key unseen give output 0, LSE -inf."""

    def __init__(self) -> None:
        self.maximum: Tensor | None = None
        self.total: Tensor | None = None
        self.out: Tensor | None = None

    def add(self, s: Tensor, v: Tensor) -> None:
        """Take scores [..., Hkv, R, Tk] and values [..., Hkv, Tk, D]."""
        top = s.amax(-1, keepdim=True)
        new = top if self.maximum is None else torch.maximum(self.maximum, top)
        safe = new.masked_fill(new == float("-inf"), 0.0)
        p = torch.exp(s - safe)
        total, out = p.sum(-1, keepdim=True), torch.matmul(p, v.to(p.dtype))
        if self.maximum is not None and self.total is not None and self.out is not None:
            shrink = torch.exp(self.maximum - safe)
            total, out = total + self.total * shrink, out + self.out * shrink
        self.maximum, self.total, self.out = new, total, out

    def add_sinks(self, scores: Tensor) -> None:
        """Take one more key a row, with these scores [..., Hkv, R, 1] and no value (Xiao et al. 2023)."""
        self.add(scores, scores.new_zeros(*scores.shape[:-2], 1, 1))

    def result(self) -> tuple[Tensor, Tensor]:
        """Return (output [..., Hkv, R, D], LSE [..., Hkv, R]) in the scores' dtype."""
        assert self.maximum is not None
        assert self.total is not None
        assert self.out is not None
        none = self.total == 0
        out = self.out / self.total.masked_fill(none, 1.0)
        lse = (self.maximum + torch.log(self.total)).masked_fill(none, float("-inf"))
        return out, lse.squeeze(-1)


def _tiles(bounds: list[int], window: int | None) -> Iterator[tuple[int, int, int, int]]:
    """Yield (q_start, q_end, k_start, k_end): every tile that holds a seen pair, documents kept apart."""
    for first, last in itertools.pairwise(bounds):
        for q0 in range(first, last, QUERY_BLOCK):
            q1 = min(q0 + QUERY_BLOCK, last)
            low = first if window is None else max(first, q0 - window + 1)
            for k0 in range(low, q1, KEY_BLOCK):
                yield q0, q1, k0, min(k0 + KEY_BLOCK, q1)


def _mask_of(tile: tuple[int, int, int, int], window: int | None, device: torch.device) -> Tensor | None:
    q0, q1, k0, k1 = tile
    inside = k1 - 1 <= q0 and (window is None or q1 - 1 - k0 < window)
    if inside:
        return None  # only edge tiles need a mask
    return tile_mask(torch.arange(q0, q1, device=device), torch.arange(k0, k1, device=device), window)[None]


def _rows(x: Tensor, start: int, end: int, n_kv: int) -> Tensor:
    """[B, T, H, D] -> [B, Hkv, G*(end - start), D]: a tile's rows grouped by the KV head they read."""
    tile = x[:, start:end].transpose(1, 2)  # [B, H, t, D]
    return tile.unflatten(1, (n_kv, -1)).flatten(2, 3)


def _unrows(x: Tensor, length: int) -> Tensor:
    """[B, Hkv, G*t, D] -> [B, t, H, D]."""
    return x.unflatten(2, (-1, length)).flatten(1, 2).transpose(1, 2)


def forward(
    q: Tensor, k: Tensor, v: Tensor, window: int | None, bounds: list[int], scale: float,
    softcap: float = 0.0, sinks: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return (o [B, T, Hq, D], lse [B, Hq, T] float32); `bounds` are the documents' limits, 0 and T included."""
    n_batch, length, n_heads, _ = q.shape
    n_kv = k.shape[2]
    out = torch.empty_like(q)
    dtype = torch.promote_types(q.dtype, torch.float32)
    lse = torch.empty(n_batch, n_heads, length, dtype=dtype, device=q.device)
    state, current = OnlineSoftmax(), (0, 0)

    def close() -> None:
        q0, q1 = current
        if q1 > q0:
            if sinks is not None:
                rows = per_row(sinks, n_kv, q1 - q0, dtype)
                state.add_sinks(rows.expand(n_batch, -1, -1, -1))
            o_tile, lse_tile = state.result()
            out[:, q0:q1] = _unrows(o_tile, q1 - q0).to(q.dtype)
            lse[:, :, q0:q1] = lse_tile.unflatten(2, (-1, q1 - q0)).flatten(1, 2)

    for tile in _tiles(bounds, window):
        q0, q1, k0, k1 = tile
        if (q0, q1) != current:
            close()
            state, current = OnlineSoftmax(), (q0, q1)
            q_tile = _rows(q, q0, q1, n_kv)
        s = scores_of(q_tile, k[:, k0:k1].transpose(1, 2), scale, _mask_of(tile, window, q.device), softcap)
        state.add(s, v[:, k0:k1].transpose(1, 2))
    close()
    return out, lse


def backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor,
    dlse: Tensor | None, window: int | None, bounds: list[int], scale: float,
    softcap: float = 0.0, sinks: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:  # fmt: skip
    """Return (dq, dk, dv, dsinks); probabilities are recomputed tile by tile from the LSE."""
    n_kv = k.shape[2]
    dtype = lse.dtype
    dq, dk, dv = (torch.zeros(x.shape, dtype=dtype, device=x.device) for x in (q, k, v))
    delta = (do.to(dtype) * o.to(dtype)).sum(-1).transpose(1, 2)  # [B, Hq, T]
    if dlse is not None:
        delta = delta - dlse
    for tile in _tiles(bounds, window):
        q0, q1, k0, k1 = tile
        q_tile, do_tile = _rows(q, q0, q1, n_kv), _rows(do, q0, q1, n_kv).to(dtype)
        k_tile, v_tile = k[:, k0:k1].transpose(1, 2).to(dtype), v[:, k0:k1].transpose(1, 2).to(dtype)
        lse_tile = lse[:, :, q0:q1].unflatten(1, (n_kv, -1)).flatten(2, 3).unsqueeze(-1)
        delta_tile = delta[:, :, q0:q1].unflatten(1, (n_kv, -1)).flatten(2, 3).unsqueeze(-1)
        s = scores_of(q_tile, k_tile, scale, _mask_of(tile, window, q.device), softcap)
        p = torch.exp(s - lse_tile)
        dv[:, k0:k1] += torch.matmul(p.transpose(-1, -2), do_tile).transpose(1, 2)
        ds = p * (torch.matmul(do_tile, v_tile.transpose(-1, -2)) - delta_tile) * scale
        if softcap:
            ds = ds * (1.0 - (s.masked_fill(p == 0, 0.0) / softcap) ** 2)
        dq[:, q0:q1] += _unrows(torch.matmul(ds, k_tile), q1 - q0)
        dk[:, k0:k1] += torch.matmul(ds.transpose(-1, -2), q_tile.to(dtype)).transpose(1, 2)
    dsinks = None
    if sinks is not None:
        # A sink carries no value, so its score has the gradient -P delta in every row.
        dsinks = -(torch.exp(sinks.to(dtype)[None, :, None] - lse) * delta).sum((0, 2)).to(sinks.dtype)
    return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype), dsinks
