"""The C library `decoder.c` through ctypes: its structures, filled from a model's weights."""

from __future__ import annotations

import ctypes
import importlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from bytegen.model import ByteLM

BLOCK = 64
"""Outputs of a matrix whose weights lie side by side; the rows of what it gives are padded to a multiple of it."""


def padded(size: int) -> int:
    """`size` rounded up to a multiple of `BLOCK`."""
    return -(-size // BLOCK) * BLOCK


class Linear(ctypes.Structure):
    """`linear_t`."""

    _fields_ = [
        ("weights", ctypes.c_void_p), ("bias", ctypes.c_void_p), ("blocks", ctypes.c_int64), ("width", ctypes.c_int64),
    ]  # fmt: skip


class Layer(ctypes.Structure):
    """`layer_t`."""

    _fields_ = [
        *((name, Linear) for name in ("q", "k", "v", "o", "gate", "up", "down")),
        *((name, ctypes.c_void_p) for name in ("attention_norm", "ffn_norm", "q_norm", "k_norm", "conv")),
        ("window", ctypes.c_int64),
    ]


class Model(ctypes.Structure):
    """`model_t`."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("dim", "layers", "heads", "kv_heads", "head_dim", "taps")),
        ("half", ctypes.c_int64), ("lanes", ctypes.c_int64),
        ("eps", ctypes.c_float), ("layer", ctypes.POINTER(Layer)), ("embed", ctypes.c_void_p),
        ("norm", ctypes.c_void_p), ("inv_freq", ctypes.c_void_p), ("head", Linear),
    ]  # fmt: skip


class Ring(ctypes.Structure):
    """`ring_t`."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("keys", "values", "conv")),
        ("capacity", ctypes.c_int64), ("conv_capacity", ctypes.c_int64),
    ]  # fmt: skip


def _library() -> Any:
    """The library; None where it could not be compiled when bytegen was installed."""
    try:
        module = importlib.import_module("bytegen.cpu._decoder")
    except ImportError:
        return None
    assert module.__file__ is not None
    library = ctypes.CDLL(module.__file__)
    library.bytegen_scratch.restype = ctypes.c_int64
    for name in ("step", "logits", "sample"):
        getattr(library, f"bytegen_{name}").restype = None
    return library


library = _library()


def exact_in_half(lm: ByteLM) -> bool:
    """Whether float16 holds every weight of the matrices as it is, so that they can be read in half the bytes."""
    return all(bool((p.half().float() == p).all()) for p in lm.parameters() if p.dim() == 2)


class Weights:
    """A model's weights as `decoder.c` reads them. `model` points into tensors that this object keeps."""

    def __init__(self, lm: ByteLM, *, half: bool, lanes: int) -> None:
        self._kept: list[Any] = []
        self._half = half
        config = lm.config
        layers = [self._layer(block, config.windows()[i]) for i, block in enumerate(lm.blocks)]
        table = (Layer * len(layers))(*layers)
        self._kept.append(table)
        self.model = Model(
            config.dim, config.n_layers, config.n_heads, config.n_kv_heads, config.head_dim, config.conv_taps,
            int(half), lanes, config.norm_eps, table, self._pointer(lm.embed.weight), self._pointer(lm.norm.weight),
            self._pointer(lm.inv_freq), self._linear(lm.embed.weight if lm.head is None else lm.head.weight),
        )  # fmt: skip

    def _pointer(self, tensor: Tensor | None, dtype: torch.dtype = torch.float32) -> int | None:
        if tensor is None:
            return None
        kept = tensor.detach().to(dtype, copy=True).contiguous()
        self._kept.append(kept)
        return kept.data_ptr()

    def _linear(self, weight: Tensor, bias: Tensor | None = None) -> Linear:
        out, width = weight.shape
        filled = torch.zeros(padded(out), width)
        filled[:out] = weight.detach()
        blocks = filled.view(-1, BLOCK, width).transpose(1, 2)
        stored = self._pointer(blocks, torch.float16 if self._half else torch.float32)
        if bias is not None:
            bias = torch.nn.functional.pad(bias.detach(), (0, padded(out) - out))
        return Linear(stored, self._pointer(bias), len(blocks), width)

    def _layer(self, block: Any, window: int | None) -> Layer:
        a, f = block.attention, block.ffn
        linears = [self._linear(x.weight, x.bias) for x in (a.q, a.k, a.v, a.out, f.gate, f.up, f.down)]
        norms = (block.attention_norm, block.ffn_norm, a.q_norm, a.k_norm, a.conv)
        pointers = [self._pointer(None if x is None else x.weight) for x in norms]
        return Layer(*linears, *pointers, window or 0)
