"""What people would use instead: each is offered where it imports and takes the case."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from bytegen.kernels import backend, local_attention
from bytegen.kernels.attention.blockwise import tile_mask
from bytegen.kernels.attention.decode import slot_positions

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def _heads_first(function: Callable[..., Tensor], **options: Any) -> Attend:
    """`function` takes [B, H, T, D], as torch's own do."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return function(q, k, v, enable_gqa=q.shape[1] != k.shape[1], **options).transpose(1, 2)

    return attend


def _sdpa(backend: SDPBackend) -> Attend:
    attend = _heads_first(F.scaled_dot_product_attention, is_causal=True)

    def pinned(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(backend):
            return attend(q, k, v)

    return pinned


def _masked_sdpa(length: int, window: int, device: torch.device) -> Attend:
    i = torch.arange(length, device=device)
    mask = (i[:, None] >= i[None, :]) & (i[:, None] - i[None, :] < window)
    return _heads_first(F.scaled_dot_product_attention, attn_mask=mask)


def _flex(length: int, window: int | None, device: torch.device) -> Attend:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def seen(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return (i >= j) if window is None else (i >= j) & (i - j < window)

    block_mask = create_block_mask(seen, None, None, length, length, device=str(device))
    compiled: Any = torch.compile(flex_attention, dynamic=False)
    return _heads_first(compiled, block_mask=block_mask)


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


def attention_twin(window: int | None) -> dict[str, Callable[[], Attend]]:
    """Ours without torch's SDPA, which it takes on a CPU where no window cuts; nothing where it computes anyhow."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with backend.use("torch"):
            return local_attention(q, k, v, window=window)

    return {"blockwise twin": lambda: attend} if window is None else {}


def sdpa_on_cache(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, start: Tensor, window: int | None
) -> Callable[[], Tensor]:
    """SDPA of q [B, T, Hq, D] over caches [B, C, Hkv, D] as they lie, all sequences at one position.

    A mask says which slots a query sees; it is made before, and left out where one query sees all.
    """
    n_new, capacity = q.shape[1], k_cache.shape[1]
    at = start[:1, None] + torch.arange(n_new, device=q.device)  # [1, T]
    slots = slot_positions(capacity, start[:1] + n_new, capacity)  # [1, C]
    mask = tile_mask(at, slots, window)  # [1, T, C]
    attend = _heads_first(F.scaled_dot_product_attention, attn_mask=None if bool(mask.all()) else mask)
    return lambda: attend(q, k_cache, v_cache)


@functools.cache
def liger() -> Any:
    """Liger's functional operations, or None where it is not installed."""
    try:
        import liger_kernel.transformers.functional as functional
    except ImportError:
        return None
    return functional
