"""What a plan would have said, in one line, for work that ran out of memory: what it needs, and what there is."""

from __future__ import annotations

from bytegen.config import ModelConfig
from bytegen.limits import gigabytes, total_memory
from bytegen.planning.decoding import CHUNK, generation_memory
from bytegen.planning.precision import AUTOCAST, FLOAT32
from bytegen.planning.training import Layout, training_moments, training_peak


def device_memory(device: str) -> int | None:
    """Return the bytes of memory of "cpu" or of a GPU by torch's name for it; None where nobody says."""
    if device.partition(":")[0] == "cpu":
        return total_memory()
    try:
        import torch

        return int(torch.cuda.mem_get_info(torch.device(device))[1])
    except (ImportError, RuntimeError, ValueError, AssertionError):
        return None


def against(parts: dict[str, int], device: str) -> str:
    """Return "bytegen plan counts ... of which ...; the device has ...": the parts by size, the least left out."""
    total = sum(parts.values())
    ordered = sorted(parts.items(), key=lambda part: -part[1])
    named = ", ".join(f"{name} {gigabytes(size)}" for name, size in ordered if size >= total / 100)
    there = device_memory(device)
    has = "" if there is None else f"; {device} has {gigabytes(there)}"
    return f"bytegen plan counts {gigabytes(total)} ({named}){has}"


def of_generation(
    config: ModelConfig,
    *,
    length: int,
    batch: int,
    device: str,
    precision: str = "float32",
    chunk: int = CHUNK,
    cached: int | None = None,
) -> str:
    """Return the line for writing `batch` files side by side: see `generation_memory`."""
    memory = generation_memory(config, length, batch=batch, chunk=chunk, precision=precision, cached=cached)
    return f"{against(memory.parts(), device)}; fewer files side by side or a shorter limit take less"


def of_training(config: ModelConfig, *, tokens: int, device: str, precision: str) -> str:
    """Return the line for the trainer's steps of `tokens` tokens in "float32" or "bfloat16" on one device."""
    numbers = FLOAT32 if precision == "float32" else AUTOCAST
    on_gpu = not device.startswith("cpu")
    moments = training_moments(config, Layout(length=tokens), numbers, "muon", recompute=False, on_gpu=on_gpu)
    peak = training_peak(moments)
    return f"{against(peak.parts, device)} in {peak.name}; a lower run.tokens_per_batch or a smaller model takes less"
