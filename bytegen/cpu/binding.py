"""The C library `decoder.c` through ctypes, and its structures."""

from __future__ import annotations

import ctypes
import importlib
import math
import os
import sys
from functools import cache
from typing import Any

import numpy as np

BLOCK = 64
"""Outputs of a matrix whose weights lie side by side; the rows of what it gives are padded to a multiple of it."""


def padded(size: int) -> int:
    """`size` rounded up to a multiple of `BLOCK`."""
    return -(-size // BLOCK) * BLOCK


class Linear(ctypes.Structure):
    """`linear_t`."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("weights", "bias", "scale", "sums")),
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
        *((name, ctypes.c_int64) for name in ("dim", "layers", "heads", "kv_heads", "head_dim", "taps")),
        ("cache_kind", ctypes.c_int64), ("lanes", ctypes.c_int64),
        ("eps", ctypes.c_float), ("layer", ctypes.POINTER(Layer)), ("embed", ctypes.c_void_p),
        ("norm", ctypes.c_void_p), ("inv_freq", ctypes.c_void_p), ("head", Linear),
        ("mtp", ctypes.POINTER(Linear)), ("mtp_heads", ctypes.c_int64),
    ]  # fmt: skip


class Ring(ctypes.Structure):
    """`ring_t`."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("keys", "values", "conv")),
        ("capacity", ctypes.c_int64), ("conv_capacity", ctypes.c_int64),
    ]  # fmt: skip


def _library() -> tuple[Any, Any]:
    """The module and the library; None where it could not be compiled when bytegen was installed."""
    try:
        module = importlib.import_module("bytegen.cpu._decoder")
    except ImportError:
        return None, None
    assert module.__file__ is not None
    library = ctypes.CDLL(module.__file__)
    library.bytegen_scratch.restype = ctypes.c_int64
    for name in ("step", "logits", "ahead", "sample"):
        getattr(library, f"bytegen_{name}").restype = None
    return module, library


calls, library = _library()


def threads() -> int:
    """Threads that a step may take: torch's number where torch is in use, else OMP_NUM_THREADS or the processors."""
    torch = sys.modules.get("torch")
    if torch is not None:
        found: int = torch.get_num_threads()
        return found
    return _threads_at_start()


@cache
def _threads_at_start() -> int:
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if asked.isdecimal() and int(asked):
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Zeros that begin at a multiple of 64 bytes: a vector then lies in one line of the processor's caches."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.zeros(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    """Where an array's values are; it must be contiguous and outlive the call."""
    return ctypes.c_void_p(array.ctypes.data)
