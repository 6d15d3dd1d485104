"""What a card's multiprocessor holds and does a cycle, and how many blocks of a compiled kernel lie on it at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from bytegen.cards import CARDS


@dataclass(frozen=True)
class Processor:
    """One multiprocessor of a card (AMD: compute unit) and how many there are.

    Registers of 32 bits and bytes of shared memory (LDS) for all its blocks; results a cycle: FLOPs of dense 16-bit
    products, float32 lanes, exponentials. `sustained` is the share of the peak of products that a maker's own library
    keeps up.
    """

    card: str
    architecture: str
    count: int
    registers: int
    shared: int
    threads: int
    products: int
    lanes: int
    exponentials: int
    sustained: float

    @property
    def clock(self) -> float:
        """Cycles a second, as the data sheet's peak implies them."""
        return CARDS[self.card].flops / (self.count * self.products)


# NVIDIA: CUDA C++ Programming Guide, tables of compute capabilities and of arithmetic throughput; AMD: CDNA 3 ISA and
# white paper. Sustained: 720 of 989 TFLOP/s on the H100 and 620 of 1,307 on the MI300X, as SemiAnalysis reported in
# December 2024 (remembered, not looked up); 0.85 for the A100 and 0.75 for the B200 are this project's guesses.
PROCESSORS = {
    p.card: p
    for p in (
        Processor("h100", "sm_90", 132, 65_536, 228 * 1024, 2048, 4096, 128, 16, 0.73),
        Processor("h200", "sm_90", 132, 65_536, 228 * 1024, 2048, 4096, 128, 16, 0.73),
        Processor("b200", "sm_100", 148, 65_536, 228 * 1024, 2048, 8192, 128, 16, 0.75),
        Processor("a100", "sm_80", 108, 65_536, 164 * 1024, 2048, 2048, 64, 16, 0.85),
        Processor("mi300x", "gfx942", 304, 131_072, 64 * 1024, 2048, 2048, 64, 16, 0.47),
    )
}


def blocks_at_once(row: dict[str, Any], processor: Processor) -> int:
    """Blocks of a row of the compile table that one processor holds: the least that registers, memory, threads allow.

    Registers go to a warp in units of 256 (AMD: 8 a lane); CUDA keeps 1 KB of shared memory a block for itself.
    """
    amd = processor.architecture.startswith("gfx")
    width, own = (64, 0) if amd else (32, 1024)
    warps = row["config"].get("num_warps", 4)
    a_warp = math.ceil(row["registers"] / 8) * 8 * width
    return min(
        processor.registers // a_warp // warps,
        processor.shared // (row["shared"] + own) if row["shared"] + own else processor.threads,
        processor.threads // (warps * width),
    )
