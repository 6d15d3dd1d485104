"""`bytegen bench kernels --tune`: tries tile shapes on the card at hand and prints rows for the table."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from rich.console import Console

from bytegen.benchmark import Timing
from bytegen.kernel_bench.clock import Clock


def _tiles(kernel: str) -> Iterator[Any]:
    from bytegen.kernels.attention.fused.configs import Tile

    widths = [32, 64, 128] if kernel != "forward" else [64, 128]
    for q, k, warps, stages, descriptors in itertools.product(
        widths, [32, 64, 128], [4, 8], [1, 2, 3], [True, False]
    ):
        yield Tile(q, k, warps, stages, descriptors)


def _call(function: Callable[..., object], name: str, tile: Any) -> object:
    return function(**{name: tile})


def tune_attention(device: torch.device, dtype: torch.dtype, seconds: float, console: Console) -> None:
    """Print, for each kernel and head dimension, the tiles in order of speed, the best as a row of the table."""
    from bytegen.kernels.architectures import architecture_of
    from bytegen.kernels.attention.fused import launch

    clock = Clock(device, min(seconds, 0.05))
    for dim in (64, 128, 256):
        q, k, v = (torch.randn(1, 16_384, h, dim, device=device, dtype=dtype) for h in (16, 4, 4))
        rest = (None, None, 8192, 1 / math.sqrt(dim), 0.0)
        o, lse = launch.forward(q, k, v, *rest)
        back = partial(launch.backward, q, None, q, k, v, o, lse, *rest)
        calls: dict[str, Callable[[Any], object]] = {
            "forward": partial(_call, partial(launch.forward, q, k, v, *rest), "tile"),
            "dq": partial(_call, back, "dq_tile"),
            "dkdv": partial(_call, back, "dkdv_tile"),
        }
        for kernel, call in calls.items():
            found: list[tuple[Timing, Any]] = []
            for tile in _tiles(kernel):
                try:
                    found.append((clock.time(partial(call, tile)), tile))
                except Exception:  # does not fit this card
                    continue
            found.sort(key=lambda pair: pair[0].median)
            for timing, tile in found[:3]:
                console.print(f"  {1e3 * timing.median:.3f} ms  {tile}")
            if found:
                best = found[0][1]
                console.print(
                    f'("{kernel}", {dim}): {best!r},  # {architecture_of(device).name}', highlight=False
                )
