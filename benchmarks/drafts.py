"""What drafts give: bytes a step by where the guesses came from, and bytes a second, on held-out prompts, taking turns.

    python benchmarks/drafts.py --json benchmarks/drafts.jsonl
    python benchmarks/drafts.py --batch 16 --threads 2
    python benchmarks/drafts.py --bytes 20000 --prompts 1 --rounds 1       # one long file
    python benchmarks/drafts.py --model runs/first-flight-heads/final --eager

No drafts, those of n-grams (of the file and of the table beside the weights), and where the model has multi-token
prediction heads theirs alone and both; under the constraint, and where every byte may follow every other (files of
`--bytes`, 245 by default, of the same prompts). Every kind of drafts writes the same files, which is checked.
Bytes a second are of the processor's time, which other work on the machine disturbs least; ratios are medians of
rounds.
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from bytegen import tokenizer
from bytegen.benchmark import environment, interleave, summarise, write_json_lines
from bytegen.cli.bench_generate import kinds_of_drafts
from bytegen.cli.bench_generators import Anything
from bytegen.cpu import LightLM
from bytegen.decoding import Sampling, Sequence, Timing, decode
from bytegen.decoding.runners import CpuRunner
from bytegen.errors import UserError
from bytegen.generation import DEFAULT_FORMAT, generate_many
from bytegen.train.evaluation import draw_tasks

FREE_BYTES = 245  # of a file without a constraint: as many as "count from 3 to 9" has

Drafts = bool | tuple[str, ...]


def constrained(
    lm: Any, prompts: list[str], drafts: Drafts, args: argparse.Namespace, timing: Timing
) -> list[bytes]:
    """Files for the prompts, under the constraint."""
    length = {"max_bytes": 1024} if args.bytes is None else {"max_bytes": args.bytes, "min_bytes": args.bytes}
    made = generate_many(lm, prompts, batch_size=args.batch, drafts=drafts, timing=timing, **length)
    return [o.data for o in made]


def unconstrained(
    lm: Any, prompts: list[str], drafts: Drafts, args: argparse.Namespace, timing: Timing
) -> list[bytes]:
    """As many bytes for each prompt, whatever they are."""
    length, tag = args.bytes or FREE_BYTES, tokenizer.format_tag(DEFAULT_FORMAT)
    ids = [tokenizer.encode_prompt(prompt, tag) for prompt in prompts]
    free: list[Any] = [Anything(length) for _ in ids]
    rows = (Sequence(i, one, free[i], Sampling(), i) for i, one in enumerate(ids))
    found = decode(
        lm, rows, lambda s: (s.index, bytes(s.constraint.data)), batch_size=args.batch, drafts=drafts,
        max_length=max(map(len, ids)) + length, table=lm.draft_table, timing=timing,
    )  # fmt: skip
    return [data for _, data in sorted(found)]


def measured(
    lm: Any, prompts: list[str], args: argparse.Namespace, *, constraint: bool
) -> list[dict[str, Any]]:
    """A row for each kind of drafts, from rounds in which they take turns."""
    write = constrained if constraint else unconstrained
    wall: dict[str, list[float]] = {}
    processor: dict[str, list[float]] = {}
    timings: dict[str, Timing] = {}
    files: dict[str, list[bytes]] = {}

    def once(kind: str, drafts: Drafts) -> float:
        timings[kind] = Timing()
        began, used = time.perf_counter(), time.process_time()
        files[kind] = write(lm, prompts, drafts, args, timings[kind])
        count = sum(map(len, files[kind]))
        wall.setdefault(kind, []).append(count / (time.perf_counter() - began))
        processor.setdefault(kind, []).append(count / (time.process_time() - used))
        return processor[kind][-1]

    kinds = kinds_of_drafts(lm)
    interleave({kind: partial(once, kind, drafts) for kind, drafts in kinds.items()}, args.rounds)
    rows = []
    for kind in kinds:
        if files[kind] != files["none"]:
            raise UserError(f"drafts from {kind} changed a file, which they must not")
        t, taken, against = timings[kind], summarise(processor[kind][1:]), processor["n-grams"][1:]
        rows.append(
            {"constraint": constraint, "drafts": kind, "files": len(prompts), "bytes": sum(map(len, files[kind])),
             "steps": t.turns, "bytes_per_step": sum(map(len, files[kind])) / t.turns,
             "drafted_per_step": t.drafted / t.turns, "accepted_per_step": t.accepted / t.turns,
             "accepted_per_step_from": {source: n / t.turns for source, n in t.accepted_from.items()},
             "bytes_per_processor_second": taken.median, "p20": taken.p20, "p80": taken.p80,
             "bytes_per_second": summarise(wall[kind][1:]).median,
             "ratio_to_n_grams": summarise(a / b for a, b in zip(processor[kind][1:], against, strict=True)).median,
             "rounds": args.rounds}
        )  # fmt: skip
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print the rows."""
    table = Table(
        "constraint", "drafts", "bytes/step", "guessed", "right", "bytes/processor s", "against n-grams"
    )
    for row in rows:
        sources = "".join(f", {source} {n:.2f}" for source, n in row["accepted_per_step_from"].items())
        table.add_row(
            "yes" if row["constraint"] else "no", row["drafts"], f"{row['bytes_per_step']:.2f}",
            f"{row['drafted_per_step']:.2f}", f"{row['accepted_per_step']:.2f}{sources}",
            f"{row['bytes_per_processor_second']:.0f} ({row['p20']:.0f}-{row['p80']:.0f})",
            f"{row['ratio_to_n_grams']:.3f}",
        )  # fmt: skip
    Console(width=max(Console().width, 130)).print(table)


def main() -> int:
    """Run the measurement; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", help="a packaged model's name or a folder; the packaged default otherwise")
    parser.add_argument("--precision", default="int8-dynamic")
    parser.add_argument("--batch", type=int, default=1, help="files side by side")
    parser.add_argument("--prompts", type=int, default=40, help="held-out prompts")
    parser.add_argument("--bytes", type=int, help="write files of exactly so many bytes")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--eager", action="store_true", help="draft as where a step takes its time whatever it reads"
    )
    parser.add_argument("--json", type=Path, help="file to write one line of JSON a row to")
    args = parser.parse_args()
    if min(args.batch, args.prompts, args.rounds, args.threads) < 1:
        parser.error("--batch, --prompts, --rounds and --threads must be at least 1")
    torch.set_num_threads(args.threads)
    CpuRunner.eager = args.eager
    lm = LightLM.load(args.model, precision=args.precision)
    if lm is None:
        parser.error("the C decoder was not compiled here, or does not take this model")
    prompts = [task.prompt for task in draw_tasks(-(-args.prompts // 10), seed=args.seed)][: args.prompts]
    rows = [row for constraint in (True, False) for row in measured(lm, prompts, args, constraint=constraint)]
    show(rows)
    if args.json:
        about = {"bench": "drafts", "model": args.model or "packaged", "precision": args.precision,
                 "batch": args.batch, "threads": args.threads, "eager": args.eager, "seed": args.seed}  # fmt: skip
        stamp = environment()
        write_json_lines(args.json, [about | row | stamp for row in rows])
    return 0


if __name__ == "__main__":
    sys.exit(main())
