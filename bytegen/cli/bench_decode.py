"""`bytegen bench decode`: what a byte costs at the far end of a long file, for shapes of any size with random weights.

    bytegen bench decode --shape 1b --shape 7b --batch 1 --batch 25 --context 143360 --device cuda

The caches are filled with random numbers, not by writing so many bytes: a step costs the same. Steps are timed where
the windows of local layers are full, in the file's middle and at its end; in between a step grows evenly (global layers
read one key more a byte), so Simpson's rule gives the time of whole files. `--files` writes real ones beside.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from bytegen.benchmark import environment, write_json_lines
from bytegen.errors import UserError

if TYPE_CHECKING:
    import torch

    from bytegen.config import ModelConfig
    from bytegen.model import ByteLM

FILES = 25
BYTECRAFT: dict[str, Any] = {"files": FILES, "seconds": 600.0, "device": "A100 80 GB"}
"""By ByteCraft's README: 25 files at a time in about 10 minutes through vLLM, of up to 32K tokens, at most 140 KB."""


def random_model(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> ByteLM:
    """A model of fresh weights, made where it will run."""
    import torch

    from bytegen.weights import empty_model

    lm = empty_model(config).to(dtype).to_empty(device=device)
    with torch.no_grad():
        for name, p in lm.named_parameters():
            if name.endswith("conv.weight"):
                p.zero_()[0] = 1.0
            elif p.dim() == 1:
                p.fill_(0.0 if name.endswith("bias") else 1.0)
        lm.reset_parameters()
    lm.refresh_buffers()
    return lm.eval()


def memory_left(device: torch.device) -> int | None:
    """Bytes free on a device; None where nobody says."""
    import torch

    from bytegen.limits import available_memory

    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()


def memory_held(device: torch.device) -> int | None:
    """The most bytes that torch has had on a GPU since the count began; None on a CPU."""
    import torch

    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


class Steps:
    """One byte more for each of `batch` files, at a place of one's choice: model, masks and draw."""

    def __init__(self, lm: ByteLM, batch: int, context: int) -> None:
        import torch

        from bytegen import tokenizer
        from bytegen.cache import Cache

        device, dtype = lm.device, lm.embed.weight.dtype
        self.lm, self.choices = lm, tokenizer.N_CHOICES
        self.cache = Cache(lm.config, batch=batch, max_length=context, chunk=1, dtype=dtype, device=device)
        self.cache.seek(context - 1)
        self.cache.reserve(1)
        for layer in self.cache.layers:
            for ring in layer.rings():
                ring.data.normal_()
        self.tokens = torch.randint(0, 256, (batch, 1), device=device)
        self.mask = torch.ones(batch, self.choices, dtype=torch.bool, device=device)
        self.uniform = torch.rand(batch, dtype=torch.float64, device=device)

    def __call__(self) -> Any:
        """One step; the place stays."""
        import torch

        from bytegen.kernels import masked_sample

        with torch.no_grad():
            hidden = self.lm.hidden(self.tokens, cache=self.cache)
            logits = self.lm.logits(hidden[:, -1])[:, : self.choices]
            return masked_sample(logits, self.mask, self.uniform, temperature=1.0)


def whole_file(seconds: list[float], context: int) -> float:
    """Seconds of `context` steps of which one at the beginning, in the middle and at the end take so long (Simpson)."""
    first, middle, last = seconds
    return context * (first + 4 * middle + last) / 6


def cases(
    lm: ByteLM, shape: str, batches: tuple[int, ...], context: int, seconds: float
) -> Iterator[dict[str, Any]]:
    """A row for every number of files side by side; where memory is too small, how much it would take."""
    import torch

    from bytegen.kernel_bench.clock import Clock

    device, config = lm.device, lm.config
    each = lm.embed.weight.element_size()
    clock = Clock(device, seconds)
    for batch in batches:
        cached = config.cache_bytes(context, batch=batch, chunk=1, bytes_per_value=each)
        row: dict[str, Any] = {
            "bench": "decode", "shape": shape, "params": config.n_params(), "batch": batch, "context": context,
            "device": str(device), "dtype": str(lm.embed.weight.dtype), "weight_bytes": config.n_params() * each,
            "cache_bytes": cached,
        }  # fmt: skip
        free = memory_left(device)
        if free is not None and 1.1 * cached > free:
            yield row | {"absent": f"caches of {cached / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"}
            continue
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        try:
            steps = Steps(lm, batch, context)
            taken: dict[str, list[float]] = {"eager": [], "graph": []}
            for place in (min(config.window, context // 2), context // 2, context - 1):
                steps.cache.seek(place)
                taken["eager"].append(clock.time(steps).median)
                if device.type == "cuda":
                    taken["graph"].append(clock.in_graph(steps, calls=4).median)
        except RuntimeError as error:
            yield row | {"absent": f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"}
            continue
        row |= {f"step_seconds_{name}": some for name, some in taken.items() if some}
        best = min((some for some in taken.values() if some), key=lambda some: some[-1])
        row |= {
            "bytes_per_second_at_end": batch / best[-1],
            "bytes_per_second": batch * context / whole_file(best, context),
            "seconds_for_files": whole_file(best, context) * math.ceil(FILES / batch),
            "files": FILES,
            "memory": memory_held(device),
        }
        del steps
        yield row


def write_files(lm: ByteLM, shape: str, count: int, size: int) -> dict[str, Any]:
    """Really write `count` files of `size` bytes side by side, under the constraint."""
    from bytegen import decoding, generation

    timing, began = decoding.Timing(), time.perf_counter()
    outputs = generation.generate_many(
        lm, [f"file {i}" for i in range(count)], batch_size=count, max_bytes=size, min_bytes=size, temperature=1.0,
        drafts=False, timing=timing,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    return {
        "bench": "decode", "measure": "written", "shape": shape, "params": lm.config.n_params(), "batch": count,
        "files": len(outputs), "bytes": sum(len(o.data) for o in outputs), "seconds_for_files": seconds,
        "bytes_per_second": sum(len(o.data) for o in outputs) / seconds, "device": str(lm.device),
        "dtype": str(lm.embed.weight.dtype), "model_seconds": timing.model, "constraint_seconds": timing.constraint,
        "cache_bytes": timing.cache_bytes, "memory": memory_held(lm.device),
    }  # fmt: skip


def _of_shape(
    shape: str, config: ModelConfig, device: torch.device, dtype: torch.dtype, batches: tuple[int, ...], context: int,
    seconds: float, files: int,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """All rows of one shape, whose weights go when they are through."""
    free, needed = memory_left(device), config.n_params() * dtype.itemsize
    if free is not None and needed > free:
        raise UserError(
            f"the weights of shape {shape} take {needed / 1e9:.1f} GB in {dtype}; {free / 1e9:.1f} GB are free on"
            f" {device}; choose a smaller --shape"
        )
    lm = random_model(config, device, dtype)
    yield from cases(lm, shape, batches, context, seconds)
    if files:
        yield write_files(lm, shape, files, context)


def _show(rows: list[dict[str, Any]], console: Console) -> None:
    table = Table(
        "shape", "files side by side", "bytes/s", "at the end", f"{FILES} files", "caches", "memory",
        title="random weights; model and draw, the constraint apart",
    )  # fmt: skip
    for row in rows:
        head = row["shape"], str(row["batch"])
        caches = f"{row['cache_bytes'] / 1e9:.2f} GB"
        if "absent" in row:
            table.add_row(*head, row["absent"], "", "", caches, "")
            continue
        end = row.get("bytes_per_second_at_end")
        table.add_row(
            *head, f"{row['bytes_per_second']:,.1f}", "written" if end is None else f"{end:,.1f}",
            f"{row['seconds_for_files'] / 60:,.1f} min", caches,
            "" if row["memory"] is None else f"{row['memory'] / 1e9:.2f} GB",
        )  # fmt: skip
    console.print(table)
    console.print(
        f"Beside it: ByteCraft (7B, up to 32K tokens a file) writes {BYTECRAFT['files']} files in about "
        f"{BYTECRAFT['seconds'] / 60:.0f} minutes on one {BYTECRAFT['device']}, by its authors."
    )


@click.command("decode")
@click.option(
    "--shape", "shapes", multiple=True, default=("1b", "7b"), show_default=True, help="Presets of the config."
)
@click.option(
    "--batch", "batches", multiple=True, type=click.IntRange(min=1), default=(1, FILES), show_default=True
)
@click.option(
    "--context", type=click.IntRange(min=3), default=143_360, show_default=True, help="Bytes of a file."
)
@click.option("--device", default=None, help="[default: cuda where there is one, else cpu]")
@click.option(
    "--dtype", type=click.Choice(["bfloat16", "float16", "float32"]), default="bfloat16", show_default=True
)
@click.option("--seconds", default=0.5, show_default=True, help="Time for each place.")
@click.option(
    "--files", type=click.IntRange(min=0), default=0, help="Also write so many files, every byte of them."
)
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), default=None, help="Write JSON lines here."
)
def decode_bench(
    shapes: tuple[str, ...], batches: tuple[int, ...], context: int, device: str | None, dtype: str, seconds: float,
    files: int, json_path: Path | None,
) -> None:  # fmt: skip
    """Bytes a second and memory of big shapes with random weights, deep into long files."""
    import torch

    from bytegen.config import preset

    configs = {shape: preset(shape) for shape in shapes}
    for shape, config in configs.items():
        if context > config.max_positions:
            raise UserError(
                f"--context {context} is more than the {config.max_positions} positions of shape {shape}"
            )
    try:
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from None
    kind = getattr(torch, dtype)
    stamp = environment(("numpy", "torch", "triton"))
    stamp["gpu"] = torch.cuda.get_device_name(place) if place.type == "cuda" else None
    rows: list[dict[str, Any]] = []
    for shape, config in configs.items():
        for row in _of_shape(shape, config, place, kind, batches, context, seconds, files):
            rows.append(row | {"beside": BYTECRAFT} | stamp)
            if json_path is not None:  # as they come: a run that is cut short leaves what it has
                write_json_lines(json_path, rows)
    _show(rows, Console(width=max(Console().width, 120)))
