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
from bytegen.kernel_bench import apart, cases
from bytegen.kernel_bench.clock import Clock
from bytegen.kernel_bench.estimate import Sizes
from bytegen.kernels.architectures import ARCHITECTURES


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
    if cases.takes_gluon(device, dtype):
        for dim in (64, 128, 256):
            _tune_gluon(dim, str(device), str(dtype).split(".")[1], seconds, console)


def gluon_tiles(dim: int) -> Iterator[tuple[int, int, bool]]:
    """Keys a tile, stages, turns: those that fit Hopper's shared memory beside 128 queries and the barriers."""
    for block_k, stages, turns in itertools.product((32, 64, 128), (2, 3, 4), (True, False)):
        if (128 + 2 * stages * block_k) * dim * 2 + 1024 <= ARCHITECTURES["sm_90"].shared_bytes:
            yield block_k, stages, turns


def _tune_gluon(dim: int, device: str, dtype: str, seconds: float, console: Console) -> None:
    """Print the tiles of the kernel in Gluon in order of speed: each in a process of its own, for one may hang."""
    sizes = Sizes(16_384, 8192, 16, 4, dim, 0, 0, ())
    found = []
    for tile in gluon_tiles(dim):
        request = apart.Request("gluon", sizes, sizes.length, sizes.window, dtype, device, tile)
        try:
            row = apart.measured(request, min(seconds, 0.05))
        except apart.ChildError as problem:
            console.print(f"  {tile}: {problem}", highlight=False)
            continue
        found.append((row["seconds"], tile, row["relative_error"]))
    for took, tile, error in sorted(found)[:3]:
        console.print(
            f"  Gluon, heads of {dim}: {1e3 * took:.3f} ms  {tile}, relative error {error:.1e}",
            highlight=False,
        )
