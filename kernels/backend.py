"""The one switch: which code computes an operation, Triton kernels or the plain torch twins.

"auto" takes Triton for tensors on a GPU and the twins for the rest. `use` overrides it for experiments: the twins
on a GPU, Triton on the CPU through its interpreter (slow, for tests; needs TRITON_INTERPRET=1 when bytegen is
imported), or on Hopper (sm_90) attention forward in Gluon, where it takes the case, and Triton for everything else.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch

Backend = Literal["auto", "triton", "torch", "gluon"]
# Plain globals: the compiler (dynamo) reads and guards them.
_chosen: Backend = "auto"
_HAS_TRITON = importlib.util.find_spec("triton") is not None


@contextmanager
def use(backend: Backend) -> Iterator[None]:
    """Compute every operation of this library with `backend` inside the block, in every thread.

    Raises ValueError for an unknown name.
    """
    global _chosen
    if backend not in get_args(Backend):
        raise ValueError(f"backend {backend!r}; there are: {', '.join(get_args(Backend))}")
    before, _chosen = _chosen, backend
    try:
        yield
    finally:
        _chosen = before


def is_auto() -> bool:
    """Whether nothing was chosen: each device gets what is best there."""
    return _chosen == "auto"


def interpreted() -> bool:
    """Whether Triton runs kernels in its interpreter here, on CPU tensors."""
    if not _HAS_TRITON:
        return False
    import triton

    return bool(triton.knobs.runtime.interpret)


def _has_gluon() -> bool:
    """Whether the triton here has the Gluon that the kernel is written in: 3.6 or newer."""
    if not _HAS_TRITON:
        return False
    import triton

    return tuple(int(x) for x in triton.__version__.split(".")[:2]) >= (3, 6)


def _check_gluon(tensor: torch.Tensor) -> None:
    """Raise ValueError where Gluon was asked for and cannot be."""
    from bytegen.kernels.architectures import architecture_of

    if not _has_gluon():
        raise ValueError("backend 'gluon' needs triton 3.6 or newer")
    if not tensor.is_cuda:
        raise ValueError(f"backend 'gluon' takes tensors on a Hopper GPU (sm_90); got {tensor.device}")
    found = architecture_of(tensor.device).name
    if found != "sm_90":
        raise ValueError(f"backend 'gluon' takes tensors on a Hopper GPU (sm_90); {tensor.device} is {found}")


def takes_gluon() -> bool:
    """Whether attention forward is asked for in Gluon; where it cannot be, `takes_triton` has said so."""
    return _chosen == "gluon"


def takes_triton(tensor: torch.Tensor) -> bool:
    """Whether an operation on `tensor` goes to a Triton kernel; ValueError where that was asked for and cannot be."""
    if _chosen == "torch":
        return False
    if _chosen == "gluon":
        _check_gluon(tensor)
        return True
    if tensor.is_cuda:  # ROCm's devices answer to this name too
        if _chosen == "triton" and not _HAS_TRITON:
            raise ValueError("backend 'triton' was asked for, and triton is not installed")
        return _HAS_TRITON
    if _chosen == "auto":
        return False
    if not interpreted():
        raise ValueError(
            f"backend 'triton' takes tensors on a GPU; got {tensor.device}. To interpret kernels on the CPU, set "
            "TRITON_INTERPRET=1 before bytegen is imported"
        )
    return True
