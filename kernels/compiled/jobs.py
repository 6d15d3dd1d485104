"""Which launches are compiled: those whose generated code differs in registers, shared memory or tensor cores.

A masked window inside documents with softcap and sinks, and in decoding a window with a norm of heads and a softcap,
is the fullest code, so it stands for the plainer ones; at the head dimension that models have, plainer variants are
compiled beside it. Heads of 48, 96 and 192 are padded, and on sm_90 and sm_100 stand for all that has no descriptor.
float16 and bfloat16 differ in the name of the instruction alone, so float16 is compiled once an architecture;
float32 takes its own tiles. The most telling come first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from bytegen.kernels.architectures import ARCHITECTURES, Architecture
from bytegen.kernels.attention.fused import decode_launch, launch
from bytegen.kernels.attention.gluon import launch as gluon_launch
from bytegen.kernels.compiled.capture import Launch, recording
from bytegen.kernels.elementwise.fused import cross_entropy, rms_norm, rope, swiglu
from bytegen.kernels.sampling import fused as sampling

ORDER = ("sm_90", "gfx942", "sm_80", "sm_100", "sm_86")
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
USUAL = 128
"""The head dimension that gets every variant."""


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
_FULLEST = "window, documents, softcap, sinks"
_VARIANTS: dict[str, dict[str, Any]] = {
    _FULL: {"window": 512, "documents": True},
    "global": {"window": None},
    _FULLEST: {"window": 512, "documents": True, "softcap": 30.0, "sinks": True},
}
_STEPS = ("16 new, window, norm, softcap", "16 new, window, norm", "1 new, global")
_ROWS = ("1 new, window, norm, softcap", *(f"{_STEPS[0]}, {groups} heads a key head" for groups in (2, 7)))
"""With the 4 heads a key head of the others, tiles of 16, 32, 64 and 128 rows; 7 and 6 heads are those of the presets
of 7B and 32B."""


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


_HOPPER_VARIANTS: dict[str, dict[str, Any]] = {
    _FULL: _VARIANTS[_FULL],
    "global": _VARIANTS["global"],
    "window": {"window": 512},
}


def _hopper(architecture: Architecture) -> Iterator[Job]:
    """Forward in Gluon, for every head that it takes; float16 in the plainest variant."""
    for head_dim, variant, dtype in (
        *((USUAL, variant, "bfloat16") for variant in _HOPPER_VARIANTS),
        *((dim, variant, "bfloat16") for dim in (64, 256) for variant in (_FULL, "global")),
        (USUAL, "global", "float16"),
    ):
        options = _HOPPER_VARIANTS[variant]
        q, k = (torch.empty(1, 1024, heads, head_dim, dtype=DTYPES[dtype]) for heads in (8, 2))
        cu = torch.tensor([0, 100, 1024]) if options.get("documents") else None
        with recording(architecture) as launches:
            gluon_launch.forward(q, k, k, cu, options["window"], 0.1)
        for one in launches:
            yield _job(architecture, one, variant, head_dim, dtype)


def _decoding(architecture: Architecture, head_dim: int, dtype: str, variant: str) -> Iterator[Launch]:
    """Of a step that writes and turns; norm and softcap, where there are any, are in the same launch."""
    n_new, window, kind = int(variant.split()[0]), 512 if "window" in variant else None, DTYPES[dtype]
    groups = int(variant.split()[-5]) if "heads a key head" in variant else 4
    q, new = (torch.empty(1, n_new, heads, head_dim, dtype=kind) for heads in (2 * groups, 2))
    cache, turn = torch.empty(1, 1024, 2, head_dim, dtype=kind), torch.empty(1, n_new, head_dim // 2)
    start = torch.zeros(1, dtype=torch.int32)
    weight = torch.empty(head_dim, dtype=kind) if "norm" in variant else None
    with recording(architecture) as launches:
        decode_launch.decode(
            q, cache, cache, start, new, new, turn, turn, weight, weight, None, window, 0.1,
            30.0 if "softcap" in variant else 0.0, 1e-6, splits=4,
        )  # fmt: skip
    for one in launches:
        if one.name != "combine_kernel" or (head_dim, dtype, variant) == (USUAL, "bfloat16", _STEPS[2]):
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
    for variant, call in calls:
        with recording(architecture) as launches:
            call()
        yield from ((variant, launched) for launched in launches)


def _of_16_bits(architecture: Architecture) -> Iterator[Job]:
    for head_dim in (USUAL, 64, 256, 96, 192, 48, 32):
        for variant in _VARIANTS if head_dim == USUAL else [_FULLEST]:
            if _says_something(architecture, head_dim):
                for one in _attention(architecture, head_dim, "bfloat16", variant):
                    yield _job(architecture, one, variant, head_dim, "bfloat16")
    for head_dim in (USUAL, 64, 256):
        for variant in (*_STEPS, *_ROWS) if head_dim == USUAL else _STEPS[:1]:
            for one in _decoding(architecture, head_dim, "bfloat16", variant):
                yield _job(architecture, one, variant, head_dim, "bfloat16")
    if architecture.name == "sm_90":
        yield from _hopper(architecture)
    for variant, one in _others(architecture):
        yield _job(architecture, one, variant, 0, "bfloat16")


def _says_something(architecture: Architecture, head_dim: int) -> bool:
    """Padded heads where they have tiles of their own; small ones where the compiler weighs occupancy otherwise."""
    by_descriptors = architecture.name in ("sm_90", "sm_100")
    return head_dim in (USUAL, 64, 256) or (by_descriptors if head_dim != 32 else not by_descriptors)


def _of_other_dtypes(architecture: Architecture) -> Iterator[Job]:
    for dtype, head_dim in (("float16", USUAL), ("float32", USUAL), ("float32", 256), ("float32", 64)):
        for one in _attention(architecture, head_dim, dtype, _FULL):
            yield _job(architecture, one, _FULL, head_dim, dtype)
        for variant in (_STEPS[0], _STEPS[2]) if dtype == "float32" and head_dim == USUAL else _STEPS[:1]:
            for one in _decoding(architecture, head_dim, dtype, variant):
                yield _job(architecture, one, variant, head_dim, dtype)


def jobs(names: list[str] | None = None) -> Iterator[Job]:
    """Every compilation that says something, the most telling first, or those for the architectures named."""
    for make in (_of_16_bits, _of_other_dtypes):
        for name in ORDER:
            if not names or name in names:
                yield from make(ARCHITECTURES[name])


def _job(architecture: Architecture, one: Launch, variant: str, head_dim: int, dtype: str) -> Job:
    kept = ("BLOCK_Q", "BLOCK_K", "ROWS", "BLOCK", "num_warps", "num_stages", "DESCRIPTORS",
            "WANT_DK", "WANT_DV", "STAGES", "TURNS")  # fmt: skip
    config = {name: one.options[name] for name in kept if name in one.options}
    module = one.function.__module__.split(".")
    place = "" if "attention" in module else "sample." if "sampling" in module else f"{module[-1]}."
    return Job(f"{place}{one.name}", architecture.name, variant, head_dim, dtype, config, one)
