"""`bytegen bench long`: one file of the longest size, start to end, and what it took: time, memory, caches.

    bytegen bench long --json benchmarks/long.jsonl

The file is held to its length by the constraint (`min_bytes`), then asked of every judge and of the kernel.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from bytegen.benchmark import environment, write_json_lines
from bytegen.errors import UserError
from bytegen.files import write_atomically

if TYPE_CHECKING:
    from bytegen.config import ModelConfig

PARTS = 8
"""The file's time is told in so many equal parts: global layers make later bytes dearer."""


def peak_memory() -> int | None:
    """The most bytes that this process has had in memory; None where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def cache_sizes(config: ModelConfig, positions: int, chunk: int) -> dict[str, int]:
    """Bytes of float32 caches for one sequence of `positions`: as the model is, and were all its layers global."""
    shapes = {"as_it_is": config, "all_global": replace(config, pattern="G")}
    return {name: shape.cache_bytes(positions, chunk=chunk) for name, shape in shapes.items()}


def write_long(lm: Any, prompt: str, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Write one file of exactly `options["max_bytes"]` bytes; it, and what it took."""
    from bytegen import decoding, generation

    size, timing = options["max_bytes"], decoding.Timing()
    written, marks = 0, list[float]()
    before, began, used = peak_memory(), time.perf_counter(), time.process_time()

    def note(_: Any, new: bytes) -> None:
        nonlocal written
        written += len(new)
        while len(marks) < PARTS and written * PARTS >= size * (len(marks) + 1):
            marks.append(time.perf_counter() - began)

    output = generation.generate_many(lm, [prompt], on_bytes=note, timing=timing, **options)[0]
    seconds, used = time.perf_counter() - began, time.process_time() - used
    after = peak_memory()
    return output, {
        "bytes": len(output.data), "seconds": seconds, "processor_seconds": used,
        "bytes_per_second": len(output.data) / seconds, "seconds_at_parts": marks,
        "steps": timing.steps, "bytes_per_step": len(output.data) / timing.steps,
        "drafted": timing.drafted, "accepted": timing.accepted,
        "accepted_from": dict(timing.accepted_from), "model_seconds": timing.model,
        "constraint_seconds": timing.constraint, "sampling_seconds": timing.sampling,
        "peak_memory": after, "peak_memory_before": before, "cache_bytes": timing.cache_bytes,
    }  # fmt: skip


def judged(data: bytes, format: str, level: str) -> dict[str, Any]:
    """What `bytegen check` finds, and what this machine's kernel says of the exec (None where it cannot be asked)."""
    from bytegen import formats
    from bytegen.formats.oracles.kernel import kernel_accepts, runs_here

    report = formats.validate(data, format=format, level=level)
    asked = sys.platform == "linux" and format.startswith("elf") and runs_here(format)
    return {
        "problems": [str(problem) for problem in report.problems],
        "kernel_accepts": kernel_accepts(data).accepted if asked else None,
    }


def _show(row: dict[str, Any], console: Console) -> None:
    table = Table(title=f"{row['bytes']:,} bytes, {row['format']}, {row['threads']} threads")
    for name in ("what", "figure"):
        table.add_column(name)
    shown = {
        "seconds (of processor)": f"{row['seconds']:.1f} ({row['processor_seconds']:.1f})",
        "bytes a second": f"{row['bytes_per_second']:.1f}",
        "bytes a step": f"{row['bytes_per_step']:.2f}",
        f"seconds at each {PARTS}th": " ".join(f"{x:.0f}" for x in row["seconds_at_parts"]),
        "most memory of the process": _megabytes(row["peak_memory"]),
        "before": _megabytes(row["peak_memory_before"]),
        "caches": _megabytes(row["cache_bytes"]),
        "by the config, in float32": _megabytes(row["cache_bytes_as_it_is"]),
        "were every layer global": _megabytes(row["cache_bytes_all_global"]),
        "problems": "; ".join(row["problems"]) or "none",
        "the kernel takes it": str(row["kernel_accepts"]),
    }
    for pair in shown.items():
        table.add_row(*pair)
    console.print(table)


def _megabytes(size: int | None) -> str:
    return "not known" if size is None else f"{size / 1e6:,.1f} MB"


@click.command("long")
@click.argument("prompt", default="count from 3 to 9")
@click.option(
    "--model", default=None, help="A packaged model's name or a folder; the packaged default otherwise."
)
@click.option("--bytes", "size", default=143_360, show_default=True, help="The file's size, exactly.")
@click.option("--format", "format_", default="elf64-x86_64", show_default=True)
@click.option("--level", default="load", show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--drafts/--no-drafts", default=True, show_default=True, help="Guess bytes ahead.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--precision", default=None, help="As of `bytegen generate`, whose default it takes.")
@click.option(
    "-o", "--output", "out", type=click.Path(path_type=Path), default=None, help="Keep the file here."
)
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), default=None, help="Write JSON lines here."
)
def long_bench(
    prompt: str, model: str | None, size: int, format_: str, level: str, seed: int, drafts: bool, device: str,
    precision: str | None, out: Path | None, json_path: Path | None,
) -> None:  # fmt: skip
    """One file of exactly --bytes: seconds, memory, and caches beside those of a model with global layers only."""
    import torch

    from bytegen import formats, tokenizer
    from bytegen.cli.generate import default_precision
    from bytegen.weights import load

    for path in (out, json_path):
        if path is not None and not path.parent.is_dir():
            raise UserError(f"{path} is in a folder that does not exist; name a file in one that does")
    formats.constraint(
        format_, max_bytes=size, level=level, min_bytes=size
    )  # complains before the model loads
    precision = default_precision(model, device) if precision is None else precision
    lm = load(model, device=device, precision=precision)
    options: dict[str, Any] = {
        "format": format_, "level": level, "max_bytes": size, "min_bytes": size, "seed": seed, "drafts": drafts,
    }  # fmt: skip
    output, row = write_long(lm, prompt, options)
    positions = len(tokenizer.encode_prompt(prompt, tokenizer.format_tag(format_))) + size
    sizes = cache_sizes(lm.config, positions, chunk=64)
    row = {
        "bench": "long", "prompt": prompt, "format": format_, "level": level, "seed": seed, "drafts": drafts,
        "device": device, "precision": precision, "params": lm.config.n_params(), "threads": torch.get_num_threads(),
        "positions": positions,
        **row, **{f"cache_bytes_{name}": value for name, value in sizes.items()},
        **judged(output.data, format_, level), **environment(("numpy", "torch", "lief", "capstone")),
    }  # fmt: skip
    if out is not None:
        write_atomically(out, output.data, executable=True)
    _show(row, Console(width=max(Console().width, 100)))
    if json_path is not None:
        write_json_lines(json_path, [row])
