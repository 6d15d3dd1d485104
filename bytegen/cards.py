"""GPUs by their data sheets, and what they rent for: the one table that benchmarks and `bytegen plan` read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """Peaks of a data sheet: dense products of 16-bit elements (FLOP/s), memory (bytes/s and bytes).

    `link` is what a card sends to others of its node (bytes/s, one direction); `price` is a rent in US dollars an hour;
    `flops_float32` are products of float32 that are not rounded to less (no TF32), as torch makes them.
    """

    name: str
    flops: float
    bandwidth: float
    memory: float = 0.0
    link: float = 0.0
    price: float = 0.0
    flops_float32: float = 0.0


GB = 1e9
"""Data sheets count gigabytes of 10**9; drivers report up to 7% more than these."""

NODE = 8
"""Cards of a node, joined by links."""

NETWORK = 50e9
"""Bytes a second that a card sends out of its node: one 400 Gbit/s adapter each, as in NVIDIA's DGX H100 and AMD's
MI300X platforms."""

# NVIDIA's sheets of Hopper and Blackwell print products with sparsity: twice the dense ones that stand here. Links are
# half of what sheets print, which count both directions.
#
# Rents: on demand, a card an hour, the middle of what specialised clouds ask (hyperscalers ask twice as much): A100
# 1.10-1.50, H100 2.50-3.50, H200 3.50-4.50 in May 2026 (mercatus-ai.com/blog/cloud-gpu-pricing), B200 4.50-6.00 in
# March 2026 (lyceum.technology/magazine/nvidia-b200-gpu-cloud-pricing-2026), MI300X 1.99 the median of May 2026
# (cliffcenter.com/research/amd-inference-economics). They move; `bytegen plan --price` takes your own.
CARDS = {
    # NVIDIA H100 data sheet: bfloat16 1,979 TFLOP/s with sparsity, 3.35 TB/s, 80 GB, NVLink 900 GB/s.
    "h100": Card("H100 SXM", 989e12, 3.35e12, 80 * GB, 450e9, 3.00, 67e12),
    # NVIDIA H200 data sheet: the products of the H100, 4.8 TB/s, 141 GB.
    "h200": Card("H200 SXM", 989e12, 4.8e12, 141 * GB, 450e9, 4.00, 67e12),
    # NVIDIA Blackwell architecture brief, HGX B200: 4.5 PFLOP/s with sparsity, 8 TB/s at most, 180 GB, NVLink 1.8 TB/s.
    # Its drivers report a bus of 7,680 bits at 3,996 MHz, which is 7.67 TB/s (pytorch/ao, pull request 4002).
    "b200": Card("B200 SXM", 2250e12, 8e12, 180 * GB, 900e9, 5.25, 75e12),
    # NVIDIA A100 data sheet, 80 GB SXM: 312 TFLOP/s (624 with sparsity), 2,039 GB/s, NVLink 600 GB/s.
    "a100": Card("A100 SXM 80 GB", 312e12, 2.039e12, 80 * GB, 300e9, 1.30, 19.5e12),
    # AMD Instinct MI300X data sheet: 1,307.4 TFLOP/s (304 units x 2,048 a cycle x 2.1 GHz), 5.3 TB/s, 192 GB; seven
    # links of 128 GB/s, both directions.
    "mi300x": Card("MI300X", 1307.4e12, 5.3e12, 192 * GB, 448e9, 1.99, 163.4e12),
}
