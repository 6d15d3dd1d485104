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
        *((name, ctypes.c_void_p) for name in ("weights", "bias", "scale")),
        *((name, ctypes.c_int64) for name in ("blocks", "width", "kind")),
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
        *((name, ctypes.c_int64) for name in ("dim", "layers", "heads", "kv_heads", "head_dim", "taps", "lanes")),
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


KINDS = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2, torch.int8: 3}
"""How `decoder.c` numbers the dtypes of weights."""


def narrowest(lm: ByteLM) -> torch.dtype:
    """The dtype of 16 bits that holds every weight of the matrices as it is, or float32; those in int8 stay so."""
    matrices = [p for p in lm.parameters() if p.dim() == 2]
    for dtype in (torch.float16, torch.bfloat16):
        if all(bool((p.to(dtype).float() == p).all()) for p in matrices):
            return dtype
    return torch.float32


class Weights:
    """A model's weights as `decoder.c` reads them. `model` points into tensors that this object keeps."""

    def __init__(self, lm: ByteLM, *, held: torch.dtype, lanes: int) -> None:
        self._kept: list[Any] = []
        self._held = held
        config = lm.config
        layers = [self._layer(block, config.windows()[i]) for i, block in enumerate(lm.blocks)]
        table = (Layer * len(layers))(*layers)
        self._kept.append(table)
        self.model = Model(
            config.dim, config.n_layers, config.n_heads, config.n_kv_heads, config.head_dim, config.conv_taps,
            lanes, config.norm_eps, table, self._pointer(lm.embed.weight), self._pointer(lm.norm.weight),
            self._pointer(lm.inv_freq), self._linear(lm.embed if lm.head is None else lm.head),
        )  # fmt: skip

    @property
    def nbytes(self) -> int:
        """The bytes of all weights."""
        return sum(kept.nbytes for kept in self._kept if isinstance(kept, Tensor))

    def _pointer(self, tensor: Tensor | None, dtype: torch.dtype = torch.float32) -> int | None:
        if tensor is None:
            return None
        kept = tensor.detach().to(dtype, copy=True).contiguous()
        self._kept.append(kept)
        return kept.data_ptr()

    def _linear(self, module: Any) -> Linear:
        """The matrix of a linear map, in int8 where that is what it has, or of an embedding."""
        weight: Tensor = module.weight
        dtype = torch.int8 if weight.dtype == torch.int8 else self._held
        out, width = weight.shape
        filled = torch.zeros(padded(out), width, dtype=weight.dtype)
        filled[:out] = weight.detach()
        blocks = filled.view(-1, BLOCK, width).transpose(1, 2)
        columns = [
            None if x is None else torch.nn.functional.pad(x.detach(), (0, padded(out) - out))
            for x in (getattr(module, name, None) for name in ("bias", "scale"))
        ]
        return Linear(
            self._pointer(blocks, dtype), *map(self._pointer, columns), len(blocks), width, KINDS[dtype]
        )

    def _layer(self, block: Any, window: int | None) -> Layer:
        a, f = block.attention, block.ffn
        linears = [self._linear(x) for x in (a.q, a.k, a.v, a.out, f.gate, f.up, f.down)]
        norms = (block.attention_norm, block.ffn_norm, a.q_norm, a.k_norm, a.conv)
        pointers = [self._pointer(None if x is None else x.weight) for x in norms]
        return Layer(*linears, *pointers, window or 0)
