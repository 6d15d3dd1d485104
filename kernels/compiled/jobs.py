"""Which launches are compiled: those whose generated code differs in registers, shared memory or tensor cores.

A masked window inside documents, and in decoding a window with a norm of heads, is the fullest code, so it stands for
the plainer ones; at the head dimension that models have, the plainest and the most bent variant are compiled beside
it. float16 and bfloat16 differ in the name of the instruction alone, so float16 is compiled once; float32 takes its
own tiles, and is compiled for one head dimension. What does not depend on the architecture is compiled for one NVIDIA
GPU and one AMD GPU. The most telling come first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from bytegen.kernels.architectures import ARCHITECTURES, Architecture
from bytegen.kernels.attention.fused import decode_launch, launch
from bytegen.kernels.compiled.capture import Launch, recording
from bytegen.kernels.elementwise.fused import cross_entropy, rms_norm, rope, swiglu
from bytegen.kernels.sampling import fused as sampling

ORDER = ("sm_90", "gfx942", "sm_80", "sm_100", "sm_86")
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
USUAL = 128
"""The head dimension that gets every variant and every dtype."""


class Job(NamedTuple):
    """One kernel to compile: `variant` says what is switched on."""

    kernel: str
    architecture: str
    variant: str
    head_dim: int
    dtype: str
    config: dict[str, Any]
    launch: Launch


_FULL = "window, documents"
_VARIANTS: dict[str, dict[str, Any]] = {
    _FULL: {"window": 512, "documents": True},
    "global": {"window": None},
    "window, documents, softcap, sinks": {"window": 512, "documents": True, "softcap": 30.0, "sinks": True},
}
_STEPS = ("16 new, window, norm", "16 new, window", "1 new, global")


def _attention(architecture: Architecture, head_dim: int, dtype: str, variant: str) -> Iterator[Launch]:
    options, kind = _VARIANTS[variant], DTYPES[dtype]
    q, k = (torch.empty(1, 1024, heads, head_dim, dtype=kind) for heads in (8, 2))
    cu = torch.tensor([0, 100, 1024]) if options.get("documents") else None
    sinks = torch.zeros(8) if options.get("sinks") else None
    rest = (sinks, cu, options["window"], 0.1, options.get("softcap", 0.0))
    with recording(architecture) as launches:
        launch.forward(q, k, k, *rest)
        launch.backward(q, None, q, k, k, q, torch.empty(1, 8, 1024), *rest)
    for one in launches:
        if one.name != "delta_kernel" or (architecture.name, variant) == (ORDER[0], "global"):
            yield one


def _decoding(architecture: Architecture, head_dim: int, dtype: str, variant: str) -> Iterator[Launch]:
    """Of a step that writes and turns; a norm, where there is one, is in the same launch."""
    n_new, window, kind = int(variant.split()[0]), 512 if "window" in variant else None, DTYPES[dtype]
    q, new = (torch.empty(1, n_new, heads, head_dim, dtype=kind) for heads in (8, 2))
    cache, turn = torch.empty(1, 1024, 2, head_dim, dtype=kind), torch.empty(1, n_new, head_dim // 2)
    start = torch.zeros(1, dtype=torch.int32)
    weight = torch.empty(head_dim, dtype=kind) if "norm" in variant else None
    with recording(architecture) as launches:
        decode_launch.decode(
            q, cache, cache, start, new, new, turn, turn, weight, weight, None, window, 0.1, 0.0, 1e-6, splits=4
        )  # fmt: skip
    for one in launches:
        if one.name != "combine_kernel" or (head_dim, dtype, n_new) == (USUAL, "bfloat16", 1):
            yield one


def _others(architecture: Architecture) -> Iterator[tuple[str, Launch]]:
    x, weight = torch.empty(64, 4096, dtype=torch.bfloat16), torch.empty(4096, dtype=torch.bfloat16)
    rstd, logits = torch.empty(64), torch.empty(64, 320, dtype=torch.bfloat16)
    targets, one = torch.zeros(64, dtype=torch.int64), torch.zeros(64)
    q, angle = torch.empty(1, 64, 32, 128, dtype=torch.bfloat16), torch.empty(1, 64, 64, dtype=torch.bfloat16)
    table = torch.zeros(16, 256, dtype=torch.int32), torch.zeros(16, dtype=torch.int32), 16
    calls: list[tuple[str, Callable[[], object]]] = [
        ("257, automaton", lambda: sampling.sample(
            logits[:, :257], torch.zeros(64, 9, dtype=torch.int32), None, targets, targets, one, one.int(), one, one,
            *table, one.int(), one.int())),
        ("4096, residual", lambda: rms_norm.backward(x, x, x, weight, rstd)),
        ("4096, residual", lambda: rms_norm.forward(x, weight, x, 1e-6)),
        ("elementwise", lambda: swiglu.forward(x, x)),
        ("elementwise", lambda: swiglu.backward(x, x, x)),
        ("128, norm", lambda: rope.rope(q, q, angle, angle, False, weight[:128], weight[:128], 1e-6)),
        ("128, norm", lambda: rope.norm_backward(q, q, q, q, angle, angle, weight[:128], weight[:128], 1e-6)),
        ("320", lambda: cross_entropy.forward(logits, targets, -100)),
        ("320", lambda: cross_entropy.backward(one, logits, targets, one, -100)),
    ]  # fmt: skip
    everywhere = 2
    for variant, call in calls if architecture.name in ORDER[:2] else calls[:everywhere]:
        with recording(architecture) as launches:
            call()
        yield from ((variant, launched) for launched in launches)


def _of_16_bits(architecture: Architecture) -> Iterator[Job]:
    for head_dim in (USUAL, 64, 256):
        for variant in _VARIANTS if head_dim == USUAL and architecture.name != "sm_86" else [_FULL]:
            for one in _attention(architecture, head_dim, "bfloat16", variant):
                yield _job(architecture, one, variant, head_dim, "bfloat16")
    for head_dim in (USUAL, 64, 256):
        for variant in _STEPS if head_dim == USUAL else _STEPS[:1]:
            for one in _decoding(architecture, head_dim, "bfloat16", variant):
                yield _job(architecture, one, variant, head_dim, "bfloat16")
    for variant, one in _others(architecture):
        yield _job(architecture, one, variant, 0, "bfloat16")


def _of_other_dtypes(architecture: Architecture) -> Iterator[Job]:
    for dtype in ("float32", "float16") if architecture.name == ORDER[0] else ("float32",):
        for one in _attention(architecture, USUAL, dtype, _FULL):
            yield _job(architecture, one, _FULL, USUAL, dtype)
        for one in _decoding(architecture, USUAL, dtype, _STEPS[0]):
            yield _job(architecture, one, _STEPS[0], USUAL, dtype)


def jobs(names: list[str] | None = None) -> Iterator[Job]:
    """Every compilation that says something, the most telling first, or those for the architectures named."""
    for make in (_of_16_bits, _of_other_dtypes):
        for name in ORDER:
            if not names or name in names:
                yield from make(ARCHITECTURES[name])


def _job(architecture: Architecture, one: Launch, variant: str, head_dim: int, dtype: str) -> Job:
    kept = ("BLOCK_Q", "BLOCK_K", "ROWS", "BLOCK", "num_warps", "num_stages", "DESCRIPTORS",
            "WANT_DK", "WANT_DV")  # fmt: skip
    config = {name: one.options[name] for name in kept if name in one.options}
    module = one.function.__module__.split(".")
    place = "" if "attention" in module else "sample." if "sampling" in module else f"{module[-1]}."
    return Job(f"{place}{one.name}", architecture.name, variant, head_dim, dtype, config, one)
