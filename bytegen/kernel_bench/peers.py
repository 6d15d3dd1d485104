"""What people would use instead: each is offered where it imports and takes the case."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def _sdpa(backend: SDPBackend) -> Attend:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(backend):
            o = F.scaled_dot_product_attention(
                q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True,
                enable_gqa=q.shape[2] != k.shape[2],
            )  # fmt: skip
        return o.transpose(1, 2)

    return attend


def _masked_sdpa(length: int, window: int, device: torch.device) -> Attend:
    i = torch.arange(length, device=device)
    mask = (i[:, None] >= i[None, :]) & (i[:, None] - i[None, :] < window)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        o = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask,
            enable_gqa=q.shape[2] != k.shape[2],
        )  # fmt: skip
        return o.transpose(1, 2)

    return attend


def _flex(length: int, window: int | None, device: torch.device) -> Attend:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def seen(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return (i >= j) if window is None else (i >= j) & (i - j < window)

    block_mask = create_block_mask(seen, None, None, length, length, device=str(device))
    compiled: Any = torch.compile(flex_attention, dynamic=False)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        o = compiled(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), block_mask=block_mask,
            enable_gqa=q.shape[2] != k.shape[2],
        )  # fmt: skip
        return o.transpose(1, 2)

    return attend


def _varlen(length: int, window: int | None, device: torch.device) -> Attend:
    from torch.nn.attention.varlen import varlen_attn

    cu = torch.tensor([0, length], dtype=torch.int32, device=device)
    # Windows of flash-attn leave out the query itself.
    sizes = (-1, 0) if window is None else (window - 1, 0)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = (x.repeat_interleave(q.shape[2] // x.shape[2], 2) for x in (k, v))
        o = varlen_attn(q[0], k[0], v[0], cu, cu, length, length, window_size=sizes)
        return (o[0] if isinstance(o, tuple) else o).unsqueeze(0)

    return attend


def _flash(module: str, window: int | None) -> Attend:
    import importlib

    function = importlib.import_module(module).flash_attn_func
    sizes = (-1, -1) if window is None else (window - 1, 0)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        o = function(q, k, v, causal=True, window_size=sizes)
        return o[0] if isinstance(o, tuple) else o

    return attend


def attention_peers(length: int, window: int | None, device: torch.device) -> dict[str, Callable[[], Attend]]:
    """Makers of the peers by name; a maker may raise where its library is missing, and then says why."""
    found: dict[str, Callable[[], Attend]] = {"FlexAttention": lambda: _flex(length, window, device)}
    if device.type == "cuda":
        if window is None:
            found["SDPA flash"] = lambda: _sdpa(SDPBackend.FLASH_ATTENTION)
            found["SDPA cuDNN"] = lambda: _sdpa(SDPBackend.CUDNN_ATTENTION)
        found["varlen_attn"] = lambda: _varlen(length, window, device)
        found["flash-attn 2"] = lambda: _flash("flash_attn", window)
        found["flash-attn 3"] = lambda: _flash("flash_attn_interface", window)
    elif window is None:
        found["SDPA"] = lambda: _sdpa(SDPBackend.FLASH_ATTENTION)
    else:
        found["SDPA with a mask"] = lambda: _masked_sdpa(length, window, device)
    return found


@functools.cache
def liger() -> Any:
    """Liger's functional operations, or None where it is not installed."""
    try:
        import liger_kernel.transformers.functional as functional
    except ImportError:
        return None
    return functional
