"""The one switch: which code computes an operation, Triton kernels or the plain torch twins.

"auto" takes Triton for tensors on a GPU and the twins for the rest. `use` overrides it for experiments: the twins
on a GPU, or Triton on the CPU through its interpreter (slow, for tests; needs TRITON_INTERPRET=1 when bytegen is
imported).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, get_args

import torch

Backend = Literal["auto", "triton", "torch"]
_chosen: ContextVar[Backend] = ContextVar("bytegen_kernels_backend", default="auto")


@contextmanager
def use(backend: Backend) -> Iterator[None]:
    """Compute every operation of this library with `backend` inside the block; ValueError for an unknown name."""
    if backend not in get_args(Backend):
        raise ValueError(f"backend {backend!r}; there are: {', '.join(get_args(Backend))}")
    token = _chosen.set(backend)
    try:
        yield
    finally:
        _chosen.reset(token)


def interpreted() -> bool:
    """Whether Triton runs kernels in its interpreter here, on CPU tensors."""
    if importlib.util.find_spec("triton") is None:
        return False
    import triton

    return bool(triton.knobs.runtime.interpret)


def takes_triton(tensor: torch.Tensor) -> bool:
    """Whether an operation on `tensor` goes to a Triton kernel; ValueError where that was asked for and cannot be."""
    backend = _chosen.get()
    if backend == "torch":
        return False
    if tensor.is_cuda:  # ROCm's devices answer to this name too
        if importlib.util.find_spec("triton") is not None:
            return True
        if backend == "triton":
            raise ValueError("backend 'triton' was asked for, and triton is not installed")
        return False
    if backend == "auto":
        return False
    if not interpreted():
        raise ValueError(
            f"backend 'triton' takes tensors on a GPU; got {tensor.device}. To interpret kernels on the CPU, set "
            "TRITON_INTERPRET=1 before bytegen is imported"
        )
    return True
