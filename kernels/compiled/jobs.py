"""Which launches are compiled: every shipped configuration, in the plain case and with everything switched on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from bytegen.kernels.architectures import ARCHITECTURES, Architecture
from bytegen.kernels.attention.fused import decode_launch, launch
from bytegen.kernels.attention.fused.configs import ROWS
from bytegen.kernels.compiled.capture import Launch, recording
from bytegen.kernels.elementwise.fused import cross_entropy, rms_norm, rope, swiglu
from bytegen.kernels.sampling import fused as sampling

DTYPES = {16: torch.bfloat16, 32: torch.float32}


class Job(NamedTuple):
    """One kernel to compile: `variant` says what is switched on."""

    kernel: str
    architecture: str
    variant: str
    head_dim: int
    bits: int
    config: dict[str, Any]
    launch: Launch


_VARIANTS: dict[str, dict[str, Any]] = {
    "window": {"window": 512},
    "global": {"window": None},
    "window, documents, softcap, sinks": {"window": 512, "documents": True, "softcap": 30.0, "sinks": True},
}


def _attention(architecture: Architecture, head_dim: int, bits: int) -> Iterator[tuple[str, Launch]]:
    dtype = DTYPES[bits]
    q, k = torch.empty(1, 1024, 8, head_dim, dtype=dtype), torch.empty(1, 1024, 2, head_dim, dtype=dtype)
    lse = torch.empty(1, 8, 1024)
    for variant, options in _VARIANTS.items():
        cu = torch.tensor([0, 100, 1024]) if options.get("documents") else None
        sinks = torch.zeros(8) if options.get("sinks") else None
        rest = (sinks, cu, options["window"], 0.1, options.get("softcap", 0.0))
        with recording(architecture) as launches:
            launch.forward(q, k, k, *rest)
            launch.backward(q, None, q, k, k, q, lse, *rest)
        yield from ((variant, one) for one in launches)


def _decoding(architecture: Architecture, head_dim: int, bits: int) -> Iterator[tuple[str, Launch]]:
    dtype = DTYPES[bits]
    start, angles = torch.zeros(1, dtype=torch.int32), torch.empty(1, 1, head_dim // 2)
    for n_new in (1, 16):
        q, new = (
            torch.empty(1, n_new, 8, head_dim, dtype=dtype),
            torch.empty(1, n_new, 2, head_dim, dtype=dtype),
        )
        cache, turn = torch.empty(1, 1024, 2, head_dim, dtype=dtype), angles.expand(1, n_new, -1).contiguous()
        for window in (512, None):
            with recording(architecture) as launches:
                decode_launch.decode(
                    q, cache, cache, start, new, new, turn, turn, None, window, 0.1, 0.0, splits=4
                )
            yield from ((f"{n_new} new, {'window' if window else 'global'}", one) for one in launches)


def _others(architecture: Architecture) -> Iterator[tuple[str, Launch]]:
    x, weight = torch.empty(64, 4096, dtype=torch.bfloat16), torch.empty(4096, dtype=torch.bfloat16)
    rstd, logits = torch.empty(64), torch.empty(64, 320, dtype=torch.bfloat16)
    targets, one = torch.zeros(64, dtype=torch.int64), torch.zeros(64)
    q, angle = torch.empty(1, 64, 32, 128, dtype=torch.bfloat16), torch.empty(1, 64, 64, dtype=torch.bfloat16)
    table = torch.zeros(16, 256, dtype=torch.int32), torch.zeros(16, dtype=torch.int32), 16
    calls: list[tuple[str, Callable[[], object]]] = [
        ("4096", lambda: rms_norm.forward(x, weight, None, 1e-6)),
        ("4096, residual", lambda: rms_norm.forward(x, weight, x, 1e-6)),
        ("4096, residual", lambda: rms_norm.backward(x, x, x, weight, rstd)),
        ("elementwise", lambda: swiglu.forward(x, x)),
        ("elementwise", lambda: swiglu.backward(x, x, x)),
        ("128", lambda: rope.rope(q, q, angle, angle, False)),
        ("320", lambda: cross_entropy.forward(logits, targets, -100)),
        ("320", lambda: cross_entropy.backward(one, logits, targets, one, -100)),
        ("257", lambda: sampling.sample(
            logits[:, :257], torch.zeros(64, 9, dtype=torch.int32), None, targets, targets, one, one.int(), one, one,
            None, None, 0, None, None)),
        ("257, automaton", lambda: sampling.sample(
            logits[:, :257], torch.zeros(64, 9, dtype=torch.int32), None, targets, targets, one, one.int(), one, one,
            *table, one.int(), one.int())),
    ]  # fmt: skip
    for variant, call in calls:
        with recording(architecture) as launches:
            call()
        yield from ((variant, launched) for launched in launches)


def jobs(names: list[str] | None = None, *, bits: tuple[int, ...] = (16, 32)) -> Iterator[Job]:
    """Every kernel x architecture x shipped configuration, or those of the architectures named."""
    for name, architecture in ARCHITECTURES.items():
        if names and name not in names:
            continue
        dims = sorted(
            {(row.head_dim, row.bits) for row in ROWS if row.architecture == name and row.bits in bits}
        )
        for head_dim, width in dims:
            for make in (_attention, _decoding):
                for variant, one in make(architecture, head_dim, width):
                    yield Job(one.name, name, variant, head_dim, width, _config(one), one)
        for variant, one in _others(architecture):
            yield Job(
                f"{one.function.__module__.rsplit('.', 1)[1]}.{one.name}",
                name,
                variant,
                0,
                16,
                _config(one),
                one,
            )


def _config(one: Launch) -> dict[str, Any]:
    kept = ("BLOCK_Q", "BLOCK_K", "ROWS", "BLOCK", "num_warps", "num_stages", "DESCRIPTORS")
    return {name: one.options[name] for name in kept if name in one.options}
