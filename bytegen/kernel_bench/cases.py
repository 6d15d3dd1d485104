"""The workloads: attention forward and backward, decoding, sampling, small operations.

A case names its shape and work; a row is one implementation of it, timed and checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bytegen.kernel_bench import apart, checks, estimate, peers
from bytegen.kernel_bench.estimate import Sizes
from bytegen.kernels import (
    cross_entropy,
    decode_attention,
    local_attention,
    masked_sample,
    rms_norm,
    rope,
    swiglu,
)
from bytegen.kernels.architectures import architecture_of
from bytegen.kernels.elementwise.rope import rotate


@dataclass
class Entry:
    """One implementation: `make` builds the call (or raises what keeps it away); `check` gives a relative error.

    `check` is None where there is nothing to hold a result to, as for draws of another generator.
    """

    name: str
    make: Callable[[], Callable[[], Any]]
    check: Callable[[Any], float] | None


@dataclass
class Apart:
    """An implementation that may hang or crash: measured and checked in a process of its own."""

    name: str
    request: apart.Request


@dataclass
class Case:
    """One workload; flops of unmasked pairs only, bytes that must be moved at least."""

    kind: str
    label: str
    shape: dict[str, Any]
    dtype: torch.dtype
    flops: float = 0.0
    moved: float = 0.0
    graph: bool = False
    entries: list[Entry | Apart] = field(default_factory=list)


GPU = Sizes(143_360, 8192, 32, 8, 128, 16_384, 4096, (1, 8, 64))
CPU = Sizes(4096, 512, 4, 2, 64, 1024, 512, (1, 16))


CHECKED_ROWS = 14
"""Rows of an attention's output that are held to float64, beside the first and the last."""


def queries_keys_values(
    sizes: Sizes, length: int, device: torch.device, dtype: torch.dtype, grad: bool
) -> list[Tensor]:
    """Random q, k, v of one sequence, the same ones in every process on a kind of device."""
    generator = torch.Generator(device).manual_seed(0)
    heads = (sizes.heads, sizes.kv_heads, sizes.kv_heads)
    return [
        torch.randn(1, length, h, sizes.dim, generator=generator, device=device, dtype=dtype).requires_grad_(
            grad
        )
        for h in heads
    ]


def attention_cases(
    sizes: Sizes, device: torch.device, dtype: torch.dtype, lengths: list[int]
) -> Iterator[Case]:
    """Local and global, forward and backward, at each length."""
    for length in lengths:
        for window in (sizes.window, None):
            if window is None or window < length:
                yield from _attention_pair(sizes, length, window, device, dtype)


def _attention_pair(
    sizes: Sizes, length: int, window: int | None, device: torch.device, dtype: torch.dtype
) -> tuple[Case, Case]:
    q, k, v = queries_keys_values(sizes, length, device, dtype, grad=True)
    do = torch.randn_like(q.detach())
    rows = checks.sampled_rows(length, CHECKED_ROWS)
    detached = q.detach(), k.detach(), v.detach()
    want = checks.attention_rows(*detached, window, rows)
    want_dq = checks.query_gradient_rows(*detached, do, window, rows)
    shape = {"length": length, "window": window, "heads": sizes.heads, "kv_heads": sizes.kv_heads,
             "head_dim": sizes.dim}  # fmt: skip
    kind = "global" if window is None else "local"
    forward = Case(
        "attention forward",
        kind,
        shape,
        dtype,
        *estimate.attention_forward(sizes, length, window, q.element_size()),
    )
    backward = Case(
        "attention backward",
        kind,
        shape,
        dtype,
        *estimate.attention_backward(sizes, length, window, q.element_size()),
    )

    def once(attend: peers.Attend) -> Callable[[], Tensor]:
        def call() -> Tensor:
            # Detached: FlexAttention on a CPU refuses what asks for gradients, whether they are taken or not.
            return attend(*detached)

        return call

    def back(attend: peers.Attend) -> Callable[[], tuple[Tensor, ...]]:
        o = attend(q, k, v)
        return lambda: torch.autograd.grad(o, (q, k, v), do, retain_graph=True)

    makers: dict[str, Callable[[], peers.Attend]] = {
        "bytegen": lambda: lambda q, k, v: local_attention(q, k, v, window=window),
        **(peers.attention_twin(window) if device.type == "cpu" else {}),
        **peers.attention_peers(length, window, device),
    }
    for name, make in makers.items():
        forward.entries.append(
            Entry(name, partial(_then, make, once), lambda o: checks.relative_error(o[0, rows], want))
        )
        backward.entries.append(
            Entry(name, partial(_then, make, back), lambda g: checks.relative_error(g[0][0, rows], want_dq))
        )
    if takes_gluon(device, dtype):
        request = apart.Request("gluon", sizes, length, window, str(dtype).split(".")[1], str(device))
        forward.entries.append(Apart("bytegen, Gluon", request))
    return forward, backward


def takes_gluon(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernel in Gluon is for these: 16 bits on Hopper."""
    return device.type == "cuda" and dtype.itemsize == 2 and architecture_of(device).name == "sm_90"


def _then(make: Callable[[], Any], wrap: Callable[[Any], Callable[[], Any]]) -> Callable[[], Any]:
    return wrap(make())


def decode_cases(sizes: Sizes, device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """One new position against a full ring and against the whole past; 16 new ones for drafts."""
    for window, batch, n_new in estimate.decode_shapes(sizes):
        past = sizes.length - n_new
        capacity = sizes.length if window is None else window + 64
        cache = [
            torch.randn(batch, capacity, sizes.kv_heads, sizes.dim, device=device, dtype=dtype)
            for _ in range(2)
        ]
        q = torch.randn(batch, n_new, sizes.heads, sizes.dim, device=device, dtype=dtype)
        new = [
            torch.randn(batch, n_new, sizes.kv_heads, sizes.dim, device=device, dtype=dtype) for _ in range(2)
        ]
        angle = torch.rand(batch, n_new, sizes.dim // 2, device=device, dtype=dtype)
        start = torch.full((batch,), past, dtype=torch.int32, device=device)
        shape = {"batch": batch, "new": n_new, "positions": sizes.length, "window": window,
                 "heads": sizes.heads, "kv_heads": sizes.kv_heads, "head_dim": sizes.dim}  # fmt: skip
        work = estimate.decode(sizes, batch, n_new, window, q.element_size())
        label = estimate.decode_label(window, batch, n_new)
        case = Case("decode", label, shape, dtype, *work, graph=True)

        def ours(q: Tensor = q, cache: list[Tensor] = cache, start: Tensor = start, new: list[Tensor] = new,
                 angle: Tensor = angle, window: int | None = window) -> Callable[[], Tensor]:  # fmt: skip
            k, v = cache
            return lambda: decode_attention(
                q, k, v, start, k_new=new[0], v_new=new[1], cos=angle, sin=angle, window=window
            )

        def want(q: Tensor = q, cache: list[Tensor] = cache, start: Tensor = start, new: list[Tensor] = new,
                 angle: Tensor = angle, window: int | None = window) -> Tensor:  # fmt: skip
            wide = [x.double() for x in (q, *cache, *new, angle)]
            return decode_attention(
                wide[0], wide[1], wide[2], start, k_new=wide[3], v_new=wide[4], cos=wide[5], sin=wide[5],
                window=window,
            )  # fmt: skip

        case.entries.append(Entry("bytegen", ours, partial(_against, want)))

        def want_of_cache(q: Tensor = q, cache: list[Tensor] = cache, start: Tensor = start,
                          window: int | None = window) -> Tensor:  # fmt: skip
            wide = [x.double() for x in (q, *cache)]
            return decode_attention(wide[0], wide[1], wide[2], start, window=window)

        # It neither turns nor writes: less work than ours, the nearest that torch has.
        sdpa = partial(peers.sdpa_on_cache, q, cache[0], cache[1], start, window)
        case.entries.append(Entry("SDPA on the cache", sdpa, partial(_against, want_of_cache)))
        yield case


def _against(want: Callable[[], Tensor], out: Tensor) -> float:
    return checks.relative_error(out, want())


def sampling_cases(sizes: Sizes, device: torch.device) -> Iterator[Case]:
    """One draw a sequence under a bitmask; the peer is the sum of torch calls that people write."""
    for batch in sizes.batches:
        logits = torch.randn(batch, 257, device=device)
        bits = torch.randint(-(2**31), 2**31, (batch, 9), device=device, dtype=torch.int64).to(torch.int32)
        bits[:, 0] |= 1
        seed = torch.arange(batch, device=device)
        case = Case("sampling", f"batch {batch}", {"batch": batch, "choices": 257}, torch.float32,
                    *estimate.sampling(batch), graph=True)  # fmt: skip

        def ours(logits: Tensor = logits, bits: Tensor = bits, seed: Tensor = seed) -> Callable[[], Any]:
            t = torch.full_like(logits[:, 0], 0.8)
            return lambda: masked_sample(
                logits, bits, seed=seed, step=seed, temperature=t, top_p=0.95, top_k=50
            )

        def torch_calls(logits: Tensor = logits, bits: Tensor = bits) -> Callable[[], Tensor]:
            i = torch.arange(257, device=device)

            def call() -> Tensor:
                allowed = ((bits[:, i // 32] >> (i % 32)) & 1).bool()
                p = torch.softmax(logits.masked_fill(~allowed, float("-inf")) / 0.8, -1)
                ordered, order = p.sort(-1, descending=True)
                ordered = ordered.masked_fill(ordered.cumsum(-1) - ordered > 0.95, 0.0)
                ordered[:, 50:] = 0.0
                return order.gather(1, torch.multinomial(ordered, 1))

            return call

        def check(out: Any, logits: Tensor = logits, bits: Tensor = bits, seed: Tensor = seed) -> float:
            t = torch.full_like(logits[:, 0], 0.8)
            want = masked_sample(
                logits.double(), bits, seed=seed, step=seed, temperature=t, top_p=0.95, top_k=50
            )
            return float((out.choice != want.choice).double().mean())

        case.entries += [Entry("bytegen", ours, check), Entry("torch calls", torch_calls, None)]
        yield case


def small_cases(sizes: Sizes, device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """RMSNorm, SwiGLU, RoPE and cross-entropy, against torch compiled and Liger where it imports."""
    n, d = sizes.tokens, sizes.width
    x, r, w = (torch.randn(*s, device=device, dtype=dtype) for s in ((n, d), (n, d), (d,)))
    logits, targets = (
        torch.randn(n, 320, device=device, dtype=dtype),
        torch.randint(0, 257, (n,), device=device),
    )
    q, k = (
        torch.randn(1, n, h, sizes.dim, device=device, dtype=dtype) for h in (sizes.heads, sizes.kv_heads)
    )
    angle = torch.rand(1, n, sizes.dim // 2, device=device, dtype=dtype)
    works = estimate.small(sizes, x.element_size())

    def turned(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return rotate(q, angle, angle), rotate(k, angle, angle)

    def entry_cases() -> Iterator[tuple[str, Callable[..., Any], Callable[..., Any], tuple[Tensor, ...]]]:
        yield ("rms_norm + residual", lambda x, r: rms_norm(x, w, residual=r),
               lambda x, r: (F.rms_norm(x + r, (d,), w.to(x), 1e-6), x + r), (x, r))  # fmt: skip
        yield "swiglu", swiglu, lambda g, u: F.silu(g) * u, (x, r)
        yield (
            "rope",
            lambda q, k: rope(q, k, angle, angle),
            turned,
            (q, k),
        )
        yield ("cross_entropy", lambda x: cross_entropy(x, targets),
               lambda x: F.cross_entropy(x.float(), targets, reduction="none"), (logits,))  # fmt: skip

    functional = peers.liger() if device.type == "cuda" else None
    liger: dict[str, Callable[[], Any]] = {}
    if functional is not None:
        liger = {
            "swiglu": lambda: functional.liger_swiglu(x, r),
            "rms_norm + residual": lambda: functional.liger_fused_add_rms_norm(x, r, w, 1e-6),
        }
    for label, ours, torch_way, inputs in entry_cases():
        wide = tuple(t.double() for t in inputs)
        want = _flat(torch_way(*(inputs if label == "rope" else wide)))

        def check(out: Any, want: Tensor = want) -> float:
            return checks.relative_error(_flat(out), want)

        case = Case("small", label, {"tokens": n, "width": d}, dtype, *works[label])
        for name, make in (
            ("bytegen", partial(_bound, ours, inputs, False)),
            ("torch", partial(_bound, torch_way, inputs, False)),
            ("torch.compile", partial(_bound, torch_way, inputs, True)),
        ):
            case.entries.append(Entry(name, make, check))
        if label in liger:
            case.entries.append(Entry("Liger", partial(partial, liger[label]), check))
        yield case


def _bound(function: Callable[..., Any], inputs: tuple[Tensor, ...], compiled: bool) -> Callable[[], Any]:
    return partial(torch.compile(function, dynamic=False) if compiled else function, *inputs)


def _flat(out: Any) -> Tensor:
    return torch.cat([o.double().flatten() for o in (out if isinstance(out, tuple) else (out,))])
