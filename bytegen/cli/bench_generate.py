"""`bytegen bench generate`: bytes a second from prompt to finished file, and where the time goes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from bytegen.benchmark import Timing, environment, interleave, summarise, write_json_lines
from bytegen.errors import UserError

PROMPTS = (
    "count from 3 to 9",
    'print "hello" 3 times',
    "draw a square of 5 stars",
    "the gcd of pairs of numbers from the input",
)


@dataclass
class Split:
    """What the rounds of one batch size gave, a figure a round."""

    bytes_per_second: list[float]
    model: list[float]
    constraint: list[float]
    sampling: list[float]
    bytes_written: int = 0
    bytes_per_step: float = 0.0  # of one file, forced bytes included
    accepted: float = 0.0  # bytes guessed right a step
    accepted_from: dict[str, float] = field(default_factory=dict)  # the same by where the guesses came from
    drafted: float = 0.0


def kinds_of_drafts(lm: Any) -> dict[str, bool | tuple[str, ...]]:
    """What is measured, by name: no drafts, those of n-grams, and where the model has heads those and both."""
    from bytegen.decoding.guesses import FILE, HEADS, TABLE

    kinds: dict[str, bool | tuple[str, ...]] = {"none": False, "n-grams": (FILE, TABLE)}
    return kinds | ({"heads": (HEADS,), "both": True} if lm.config.mtp_heads else {})


def run_once(lm: Any, batch: int, drafts: bool | tuple[str, ...], max_bytes: int, split: Split) -> float:
    """Write files, `batch` of them side by side, and note the figures; return bytes a second."""
    from bytegen import decoding, generation
    from bytegen.cli.bench_generators import TURNS

    timing = decoding.Timing()
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(TURNS * batch)]
    began = time.perf_counter()
    outputs = generation.generate_many(
        lm, prompts, seed=0, batch_size=batch, timing=timing, max_bytes=max_bytes, drafts=drafts
    )
    seconds = time.perf_counter() - began
    written = sum(len(o.data) for o in outputs)
    split.bytes_written = written
    split.bytes_per_step = written / timing.turns
    split.accepted, split.drafted = timing.accepted / timing.turns, timing.drafted / timing.turns
    split.accepted_from = {source: count / timing.turns for source, count in timing.accepted_from.items()}
    for name in ("model", "constraint", "sampling"):
        getattr(split, name).append(getattr(timing, name) / seconds / timing.groups)
    split.bytes_per_second.append(written / seconds)
    return written / seconds


def _shown(timing: Timing, form: str) -> str:
    return f"{timing.median:{form}} ({timing.p20:{form}}-{timing.p80:{form}})"


def _beside_peers(
    lm: Any, batches: tuple[int, ...], rounds: int, precision: str, peers: bool, console: Console
) -> list[dict[str, Any]]:
    """The same shape and random weights with nothing forced and nothing guessed, and what others make of it."""
    import torch

    from bytegen.cli import bench_generators as generators

    taken = interleave(generators.subjects(lm, batches, precision, peers=peers), rounds)
    least = min(batches)
    base = taken[f"bytegen, {least} side by side"].median
    table = Table(
        "every byte sampled, no constraint", "bytes/s (p20-p80)", f"against bytegen, {least} side by side"
    )
    rows = []
    for name, timing in taken.items():
        table.add_row(name, _shown(timing, ".0f"), f"{timing.median / base:.3f}")
        rows.append(
            {"bench": "generate", "measure": "every byte sampled", "subject": name, "bytes": generators.NEW_BYTES,
             "prompt": generators.PROMPT_BYTES, "bytes_per_second": timing.median, "p20": timing.p20,
             "p80": timing.p80, "rounds": rounds, "threads": torch.get_num_threads(), "precision": precision,
             "ratio": timing.median / base}
        )  # fmt: skip
    console.print(table)
    if peers and (why := generators.without_llama(generators.same_shape(lm))) is not None:
        console.print(f"llama.cpp is left out: {why}")
    return rows


@click.command("generate")
@click.option(
    "--model", default=None, help="A packaged model's name or a folder; the packaged default otherwise."
)
@click.option("--batch", "batches", multiple=True, type=int, default=(1, 16), show_default=True)
@click.option("--precision", default="fp32", show_default=True, help="Of bytegen, not of its peers.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--max-bytes", default=1024, show_default=True, help="The longest file it may write.")
@click.option("--device", default="cpu", show_default=True)
@click.option(
    "--peers/--no-peers",
    default=True,
    show_default=True,
    help="On the CPU beside torch, and beside transformers and llama.cpp where they are installed.",
)
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), default=None, help="Write JSON lines here."
)
def generate_bench(
    model: str | None,
    batches: tuple[int, ...],
    precision: str,
    rounds: int,
    max_bytes: int,
    device: str,
    peers: bool,
    json_path: Path | None,
) -> None:
    """Bytes a second end to end, and the shares of model, constraint and sampling."""
    import torch

    from bytegen.weights import load

    if rounds < 1 or min(batches) < 1:
        raise UserError("--rounds and --batch must be at least 1")
    lm = load(model, device=device, precision=precision)
    kinds = kinds_of_drafts(lm)
    cases = [(batch, kind) for batch in batches for kind in kinds]
    splits = {case: Split([], [], [], []) for case in cases}
    subjects = {
        str((batch, kind)): partial(run_once, lm, batch, kinds[kind], max_bytes, splits[batch, kind])
        for batch, kind in cases
    }
    interleave(subjects, rounds)
    stamp = environment(("numpy", "torch", "lief", "capstone", "transformers", "llama-cpp-python"))
    rows = []
    table = Table(
        "files side by side", "drafts", "bytes", "bytes/s (p20-p80)", "bytes/step", "guessed", "right", "model",
        "constraint", "sampling", "threads",
    )  # fmt: skip
    for (batch, kind), split in splits.items():
        figures = {
            name: summarise(getattr(split, name)[1:])  # the first round warms up
            for name in ("bytes_per_second", "model", "constraint", "sampling")
        }
        table.add_row(
            str(batch), kind, str(split.bytes_written),
            _shown(figures["bytes_per_second"], ".0f"), f"{split.bytes_per_step:.2f}", f"{split.drafted:.2f}",
            ", ".join([f"{split.accepted:.2f}", *(f"{s} {n:.2f}" for s, n in split.accepted_from.items())]),
            *(_shown(figures[name], ".1%") for name in ("model", "constraint", "sampling")),
            str(torch.get_num_threads()),
        )  # fmt: skip
        rows.append(
            {"bench": "generate", "batch": batch, "drafts": kind, "bytes_per_step": split.bytes_per_step,
             "drafted_per_step": split.drafted, "accepted_per_step": split.accepted,
             "accepted_per_step_from": split.accepted_from,
             "bytes": split.bytes_written, "device": device, "rounds": rounds,
             "params": lm.config.n_params(), "precision": precision, "threads": torch.get_num_threads(),
             **{name: t.median for name, t in figures.items()},
             **{f"{name}_p20": t.p20 for name, t in figures.items()},
             **{f"{name}_p80": t.p80 for name, t in figures.items()},
             **stamp}
        )  # fmt: skip
    console = Console(width=max(Console().width, 150))
    console.print(table)
    if device == "cpu":
        rows += [row | stamp for row in _beside_peers(lm, batches, rounds, precision, peers, console)]
    if json_path is not None:
        write_json_lines(json_path, rows)
