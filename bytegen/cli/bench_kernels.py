"""`bytegen bench kernels`: every kernel against what people would use instead, each row checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from bytegen.benchmark import environment, write_json_lines
from bytegen.errors import UserError

KINDS = ("attention", "decode", "sampling", "small")
TOLERANCE = {"torch.bfloat16": 2e-2, "torch.float16": 4e-3, "torch.float32": 1e-4}


def _cases(kinds: list[str], device: Any, dtype: Any, lengths: list[int]) -> Iterator[Any]:
    from bytegen.kernel_bench import cases

    sizes = cases.GPU if device.type == "cuda" else cases.CPU
    if "attention" in kinds:
        yield from cases.attention_cases(sizes, device, dtype, lengths or [sizes.length])
    if "decode" in kinds:
        yield from cases.decode_cases(sizes, device, dtype)
    if "sampling" in kinds:
        yield from cases.sampling_cases(sizes, device)
    if "small" in kinds:
        yield from cases.small_cases(sizes, device, dtype)


def _row(case: Any, entry: Any, clock: Any, roof: Any) -> dict[str, Any]:
    """One implementation, timed and checked; where it cannot run, the reason."""
    from bytegen.kernel_bench import apart, cases

    row: dict[str, Any] = {
        "measure": "kernel", "kind": case.kind, "label": case.label, "implementation": entry.name,
        "dtype": str(case.dtype), **case.shape,
    }  # fmt: skip
    try:
        if isinstance(entry, cases.Apart):
            row |= {"graph": False, **apart.measured(entry.request, clock.budget)}
        else:
            row |= _measured(case, entry, clock)
    except Exception as problem:
        return row | {"absent": f"{type(problem).__name__}: {str(problem).splitlines()[0][:160]}"}
    if row.get("relative_error") is not None:
        row["right"] = row["relative_error"] <= TOLERANCE[str(case.dtype)]
    if case.flops:
        rate = case.flops / row["seconds"]
        row |= {"flops": case.flops, "flops_per_second": rate, "of_peak": rate / roof.flops}
    if case.moved:
        rate = case.moved / row["seconds"]
        row |= {"bytes": case.moved, "bytes_per_second": rate, "of_bandwidth": rate / roof.bandwidth}
    return row


def _measured(case: Any, entry: Any, clock: Any) -> dict[str, Any]:
    """Time, memory and, where there is something to hold it to, the error of one implementation, here."""
    from bytegen.kernel_bench.clock import peak_memory

    call = entry.make()
    out = call()
    error = None if entry.check is None else entry.check(out)
    del out
    on_graph = case.graph and clock.device.type == "cuda"
    timing = clock.in_graph(call) if on_graph else clock.time(call)
    row = {"seconds": timing.median, "p20": timing.p20, "p80": timing.p80, "rounds": timing.rounds}
    row |= {"graph": on_graph, "memory": peak_memory(clock.device, call)}
    return row if error is None else row | {"relative_error": error}


def _scaled(value: float, unit: str) -> str:
    """A rate with the prefix that it reads best with."""
    prefix, size = next(((p, s) for p, s in (("T", 1e12), ("G", 1e9)) if value >= s), ("M", 1e6))
    return f"{value / size:.3g} {prefix}{unit}"


def _timed(row: dict[str, Any]) -> tuple[str, str]:
    """The median and p20-p80 of a row, in the unit that the median reads best in."""
    unit, size = next(((u, s) for u, s in (("s", 1.0), ("ms", 1e-3)) if row["seconds"] >= s), ("us", 1e-6))
    return f"{row['seconds'] / size:.4g} {unit}", f"{row['p20'] / size:.4g}-{row['p80'] / size:.4g}"


def _shown(row: dict[str, Any], ours: float | None) -> tuple[str, ...]:
    label = f"{row['label']}, {row['length']} tokens" if "length" in row else row["label"]
    if "absent" in row:
        return row["kind"], label, row["implementation"], "absent", "", "", "", "", row["absent"][:60]
    work = (
        f"{_scaled(row['flops_per_second'], 'FLOP/s')} ({row['of_peak']:.0%})"
        if "flops" in row and row["kind"] != "decode"
        else f"{_scaled(row['bytes_per_second'], 'B/s')} ({row['of_bandwidth']:.0%})"
    )
    memory = "" if row["memory"] is None else f"{row['memory'] / 2**20:.0f} MiB"
    ratio = "" if ours is None else f"{row['seconds'] / ours:.2f}x"
    verdict = "not checked"
    if "right" in row:
        verdict = ("" if row["right"] else "WRONG ") + f"{row['relative_error']:.1e}"
    return row["kind"], label, row["implementation"], *_timed(row), work, memory, ratio, verdict


@click.command("kernels")
@click.option("--only", multiple=True, type=click.Choice(KINDS), help="These kinds only; may be repeated.")
@click.option("--device", default="auto", show_default=True, help="cuda, cpu, or auto.")
@click.option("--dtype", default=None, type=click.Choice(["bfloat16", "float16", "float32"]))
@click.option("--length", "lengths", multiple=True, type=click.IntRange(16), help="Tokens; may be repeated.")
@click.option(
    "--seconds", default=1.0, show_default=True, type=click.FloatRange(0.01), help="Spent on a row."
)
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="JSON lines.")
@click.option("--plots", type=click.Path(file_okay=False, path_type=Path), help="Folder for PNG plots.")
@click.option("--tune", is_flag=True, help="Search tile shapes on this GPU and print table rows instead.")
@click.option("--estimate", is_flag=True, help="Run nothing: bytes, FLOPs, times on a card.")
@click.option(
    "--card",
    "cards",
    multiple=True,
    default=["h100"],
    show_default=True,
    help="Of an estimate; may be repeated.",
    type=click.Choice(["h100", "h200", "b200", "a100", "mi300x"]),
)
@click.option(
    "--compiled",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The compile table (benchmarks/compiled.jsonl): an estimate gets expected times too.",
)
@click.option("--markdown", type=click.Path(dir_okay=False, path_type=Path), help="An estimate's page.")
def kernels_bench(
    only: tuple[str, ...], device: str, dtype: str | None, lengths: tuple[int, ...], seconds: float,
    json_path: Path | None, plots: Path | None, tune: bool, estimate: bool, cards: tuple[str, ...],
    compiled: Path | None, markdown: Path | None,
) -> None:  # fmt: skip
    """Time kernels and their peers in one run: median, p20-p80, rate, share of this device's own ceiling.

    On a machine without a GPU the path of a CPU is timed, at a length that it gets through.
    """
    if estimate:
        from bytegen.cli.kernel_estimates import show

        show(list(cards), list(only) or list(KINDS), list(lengths), compiled, json_path, markdown)
        return
    if compiled or markdown:
        raise UserError("--compiled and --markdown are an estimate's: add --estimate")
    import torch

    from bytegen.kernel_bench.clock import Clock, ceiling

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(device)
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {device}: {str(error).splitlines()[0]}") from error
    kind = getattr(torch, dtype or ("bfloat16" if place.type == "cuda" else "float32"))
    console = Console(width=None if Console().is_terminal else 190)
    if tune:
        from bytegen.kernel_bench.tune import tune_attention

        if place.type != "cuda":
            raise UserError("--tune measures on a GPU; there is none here")
        tune_attention(place, kind, seconds, console)
        return
    clock = Clock(place, seconds)
    roof = ceiling(clock, kind)
    name = (
        torch.cuda.get_device_name(place)
        if place.type == "cuda"
        else f"the CPU with {torch.get_num_threads()} threads: plain torch, no GPU here; ours is torch's SDPA where no "
        "window cuts, the blockwise twin elsewhere"
    )
    console.print(
        f"{name}; measured ceilings: {_scaled(roof.flops, 'FLOP/s')}, {_scaled(roof.bandwidth, 'B/s')}"
    )
    rows = []
    machine = environment() | {
        "device": torch.cuda.get_device_name(place) if place.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(), "ceiling_flops": roof.flops, "ceiling_bandwidth": roof.bandwidth,
    }  # fmt: skip
    columns = ("kind", "case", "implementation", "median", "p20-p80", "rate", "memory", "to ours", "error")
    table = Table(*columns)
    for case in _cases(list(only) or list(KINDS), place, kind, list(lengths)):
        ours = None
        for entry in case.entries:
            row = _row(case, entry, clock, roof)
            if entry.name == "bytegen":
                ours = row.get("seconds")
            rows.append(row | machine)
            table.add_row(*_shown(row, ours))
        if json_path:  # whole after each case, so that a run that is cut short leaves what it measured
            write_json_lines(json_path, rows)
        if place.type == "cuda":
            torch.cuda.empty_cache()
    console.print(table)
    if plots:
        from bytegen.kernel_bench.plots import draw

        for path in draw(rows, plots):
            console.print(f"wrote {path}")
    if any(not row.get("right", False) for row in rows if row["implementation"] == "bytegen"):
        raise UserError("a row of ours is wrong or absent (see the table)")
