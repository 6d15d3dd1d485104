"""Which GPU a tensor lies on, by the name its configurations go by."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch


class Architecture(NamedTuple):
    """A row of the configuration tables: what a compiler is asked for, and what a block may take."""

    name: str
    backend: str  # "cuda" or "hip"
    target: int | str  # what triton's GPUTarget takes
    warp_size: int
    shared_bytes: int  # most shared memory (LDS) of one block
    registers: int  # of one thread, at most


ARCHITECTURES: dict[str, Architecture] = {
    a.name: a
    for a in (
        Architecture("sm_80", "cuda", 80, 32, 163 * 1024, 255),
        Architecture("sm_86", "cuda", 86, 32, 99 * 1024, 255),
        Architecture("sm_90", "cuda", 90, 32, 227 * 1024, 255),
        Architecture("sm_100", "cuda", 100, 32, 227 * 1024, 255),
        Architecture("gfx942", "hip", "gfx942", 64, 64 * 1024, 512),
    )
}

# Consumer chips have the instruction set of their generation and the shared memory of sm_86.
_CAPABILITY = {(8, 0): "sm_80", (8, 7): "sm_80", (9, 0): "sm_90", (10, 0): "sm_100", (10, 3): "sm_100"}


# Set while kernels are compiled for a GPU that is not there.
_pretended: Architecture | None = None


@functools.cache
def _of_device(index: int) -> Architecture:
    properties = torch.cuda.get_device_properties(index)
    if torch.version.hip is not None:
        return ARCHITECTURES["gfx942"]
    return ARCHITECTURES[_CAPABILITY.get((properties.major, properties.minor), "sm_86")]


def architecture_of(device: torch.device) -> Architecture:
    """The table row for a device; the interpreter on a CPU takes sm_80's, which asks for nothing special."""
    if _pretended is not None:
        return _pretended
    if device.type != "cuda":
        return ARCHITECTURES["sm_80"]
    return _of_device(torch.cuda.current_device() if device.index is None else device.index)


def processors_of(device: torch.device) -> int:
    """How many blocks run at once, one a processor: what the rule for splits fills."""
    if _pretended is not None or device.type != "cuda":
        return 132
    return _processors(torch.cuda.current_device() if device.index is None else device.index)


@functools.cache
def _processors(index: int) -> int:
    return int(torch.cuda.get_device_properties(index).multi_processor_count)
