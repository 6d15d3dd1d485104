"""Timing on a device, and what the card itself can do: peak and bandwidth, measured in the same run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from bytegen.benchmark import Timing, seconds_of, summarise

_CACHE_BYTES = {"cuda": 256 << 20, "cpu": 64 << 20}
"""More than any L2, and than a core's share of an L3: written between calls, so that inputs come from memory."""


class Clock:
    """Times calls on one device for about `budget` seconds each; seconds out."""

    def __init__(self, device: torch.device, budget: float) -> None:
        self.device, self.budget = device, budget
        self._flush = torch.empty(_CACHE_BYTES.get(device.type, 0), dtype=torch.int8, device=device)

    def time(self, call: Callable[[], object]) -> Timing:
        """Median and p20/p80 of a call; CUDA events on a GPU, one call before (it may compile)."""
        if self.device.type != "cuda":
            rounds = max(3, min(20, int(self.budget / max(seconds_of(call), 1e-6))))
            return summarise(self._from_memory(call) for _ in range(rounds))
        for _ in range(3):
            call()
        torch.cuda.synchronize()
        begun = time.perf_counter()
        call()
        torch.cuda.synchronize()
        rounds = max(5, min(100, int(self.budget / max(time.perf_counter() - begun, 1e-6))))
        events = [
            (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
            for _ in range(rounds)
        ]
        for begin, end in events:
            self._flush.zero_()
            begin.record()
            call()
            end.record()
        torch.cuda.synchronize()
        return summarise(begin.elapsed_time(end) / 1e3 for begin, end in events)

    def _from_memory(self, call: Callable[[], object]) -> float:
        self._flush.zero_()
        return seconds_of(call)

    def in_graph(self, call: Callable[[], object], calls: int = 20) -> Timing:
        """A call's share of a CUDA graph of `calls` of them: the launches without the host."""
        for _ in range(3):
            call()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(calls):
                call()
        return self.time(graph.replay).scaled(1 / calls)


class Ceiling(NamedTuple):
    """What the device reached: dense matrix products (FLOP/s) and copying (bytes/s, read and written)."""

    flops: float
    bandwidth: float


def ceiling(clock: Clock, dtype: torch.dtype) -> Ceiling:
    """Measure both on the device: what the faster fifth of the calls reach, for a ceiling is not what is usual."""
    gpu = clock.device.type == "cuda"
    n = 8192 if gpu else 2048
    a = torch.randn(n, n, device=clock.device, dtype=dtype)
    result = torch.empty_like(a)
    big = torch.empty((1 << 30) if gpu else (1 << 26), dtype=torch.int8, device=clock.device)
    other = torch.empty_like(big)
    product, copy = clock.time(lambda: torch.mm(a, a, out=result)), clock.time(lambda: other.copy_(big))
    return Ceiling(2 * n**3 / product.p20, 2 * big.numel() / copy.p20)


def peak_memory(device: torch.device, call: Callable[[], object]) -> int | None:
    """Bytes that a call takes beyond what lives already; None on a CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return int(torch.cuda.max_memory_allocated() - before)
