"""`swiglu`: the gate of a gated feed-forward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bytegen.kernels import backend
from bytegen.kernels.library import LIBRARY, define


def _forward(gate: Tensor, up: Tensor) -> Tensor:
    if gate.dtype != torch.float64 and backend.takes_triton(gate):
        from bytegen.kernels.elementwise.fused import swiglu as fused

        return fused.forward(gate, up)
    return torch.nn.functional.silu(gate) * up


def _backward(dout: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    if gate.dtype != torch.float64 and backend.takes_triton(gate):
        from bytegen.kernels.elementwise.fused import swiglu as fused

        return fused.backward(dout, gate, up)
    wide = torch.promote_types(gate.dtype, torch.float32)
    g, u, d = gate.to(wide), up.to(wide), dout.to(wide)
    s = torch.sigmoid(g)
    return (d * u * (s + g * s * (1.0 - s))).to(gate.dtype), (d * g * s).to(up.dtype)


def _like(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


_NAME = define(
    "swiglu(Tensor gate, Tensor up) -> Tensor", compute=_forward, fake=lambda gate, up: torch.empty_like(gate)
)
define(
    "swiglu_backward(Tensor dout, Tensor gate, Tensor up) -> (Tensor, Tensor)",
    compute=_backward,
    fake=lambda dout, gate, up: (_like(gate), _like(up)),
)


def _setup(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, dout: Tensor) -> tuple[Tensor, Tensor]:
    return torch.ops.bytegen.swiglu_backward(dout, *ctx.saved_tensors)


torch.library.register_autograd(_NAME, _differentiate, setup_context=_setup, lib=LIBRARY)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Return silu(gate) * up, elementwise, both of one shape (Shazeer 2020).

    Differentiable; the backward computes the gate again. Raises ValueError when shapes, dtypes or devices differ.
    """
    if gate.shape != up.shape or gate.dtype != up.dtype or gate.device != up.device:
        raise ValueError(
            f"swiglu takes two tensors alike; got gate {tuple(gate.shape)} {gate.dtype} on {gate.device}, "
            f"up {tuple(up.shape)} {up.dtype} on {up.device}"
        )
    return torch.ops.bytegen.swiglu(gate, up)
