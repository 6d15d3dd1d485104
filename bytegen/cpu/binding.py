"""The C library `decoder.c` through ctypes, and its structures."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import math
import mmap
import sys
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
    for name in ("step", "logits", "sample"):
        getattr(library, f"bytegen_{name}").restype = None
    return module, library


calls, library = _library()


def threads() -> int:
    """Threads that a step may take: torch's number where torch is in use, else OMP_NUM_THREADS or the processors."""
    torch = sys.modules.get("torch")
    found: int = library.bytegen_threads() if torch is None else torch.get_num_threads()
    return found


HUGE_PAGE = 1 << 21


def aligned(size: int) -> np.ndarray:
    """`size` bytes of zeros that begin at a multiple of 64: a vector then lies in one line of the processor's caches.

    From half of 2 MB on they are in pages of that size, where the system has them: a step of a small model reads from
    more pages of 4 KB than a processor remembers the places of.
    """
    if size >= HUGE_PAGE // 2 and hasattr(mmap, "MADV_HUGEPAGE"):
        pages = mmap.mmap(-1, (-(-size // HUGE_PAGE) + 1) * HUGE_PAGE)
        with contextlib.suppress(OSError):  # a system without them
            pages.madvise(mmap.MADV_HUGEPAGE)
        raw, boundary = np.frombuffer(pages, np.uint8), HUGE_PAGE
    else:
        raw, boundary = np.zeros(size + 64, np.uint8), 64
    start = -raw.ctypes.data % boundary
    return raw[start : start + size]


class Arena:
    """Arrays of zeros in one piece of memory of `size` bytes, each from a multiple of 64 on."""

    def __init__(self, size: int) -> None:
        self._left = aligned(size)

    @property
    def left(self) -> int:
        """Bytes that can still be taken."""
        return len(self._left)

    def take(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """The next array."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        found, self._left = self._left[:size], self._left[lines(size) :]
        return found.view(dtype).reshape(shape)


def lines(size: int) -> int:
    """Bytes rounded up to whole lines of the processor's caches."""
    return -(-size // 64) * 64


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    """Where an array's values are; it must be contiguous and outlive the call."""
    return ctypes.c_void_p(array.ctypes.data)
