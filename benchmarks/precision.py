"""What generating with less precision costs and gives: bits a byte, the funnel, bytes of weights, time a token.

    python benchmarks/precision.py --per-kind 6 --files 40 --json benchmarks/precision.jsonl
    python benchmarks/precision.py --only speed

Quality: held-out files of the corpus as a trainer's evaluation has them, by what generates here (bits of the bytes that
had a choice, over all bytes of the files; the share of files that the likeliest byte at each place writes exactly), and
the funnel of `bytegen eval`, with the same prompts and seeds at each precision. torchao's int8 weight-only quantisation
is asked for its bits where it is installed. Speed: milliseconds of processor time a token in the C decoder on one
thread, for the model and for random weights of the shape 125m; the precisions take turns.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import itertools
import math
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

import bytegen
from bytegen import cpu
from bytegen.benchmark import environment, interleave, write_json_lines
from bytegen.config import PRESETS
from bytegen.cpu.of_torch import new_decoder
from bytegen.generation import DEFAULT_FORMAT, DEFAULT_LEVEL
from bytegen.model import ByteLM
from bytegen.precision import PRECISIONS
from bytegen.quantised import reduce_precision
from bytegen.train.corpus.compile import assemble, template
from bytegen.train.data import Batch, Encoder, Example, batches
from bytegen.train.evaluation import draw_tasks, funnel

BATCH_IDS = 4096
TOKENS = 32  # positions before the token that is timed
CHUNK = 64


def heldout(per_kind: int, seed: int) -> list[Batch]:
    """Held-out files of every kind, each under one of its prompts."""
    examples = [
        Example(
            task.prompt, assemble(template(task.program), task.program, task.params), DEFAULT_FORMAT,
            task.program.kind, b"".join(text.encode() + b"\0" for text in task.params),
        )
        for task in draw_tasks(per_kind, seed=seed)
    ]  # fmt: skip
    return list(batches(examples, Encoder(level=DEFAULT_LEVEL), BATCH_IDS))


def logits_by_torch(lm: ByteLM) -> Callable[[Batch], np.ndarray]:
    """Logits [T, V] of a batch, by torch."""

    @torch.no_grad()
    def logits(batch: Batch) -> np.ndarray:
        return lm(batch.tokens, cu_seqlens=batch.cu_seqlens)[0].float().numpy()

    return logits


def logits_by_decoder(decoder: cpu.Decoder) -> Callable[[Batch], np.ndarray]:
    """Logits [T, V] of a batch, by the C decoder with its caches, as when it writes."""

    def logits(batch: Batch) -> np.ndarray:
        ids, found = batch.tokens[0].tolist(), []
        for start, end in itertools.pairwise(batch.cu_seqlens.tolist()[: batch.documents + 1]):
            cache = decoder.cache(batch=1, max_length=end - start, chunk=CHUNK)
            for at in range(start, end, CHUNK):
                part = ids[at : min(at + CHUNK, end)]
                cache.reserve([len(part)])
                places = list(range(at - start, at - start + len(part)))
                hidden = decoder.hidden(part, [0] * len(part), places, cache)
                cache.advance([len(part)])
                found.append(decoder.logits(hidden, decoder.config.vocab_size))
        return np.concatenate(found)

    return logits


def bits(logits_of: Callable[[Batch], np.ndarray], found: list[Batch]) -> dict[str, float]:
    """Bits a file byte, and the share of files that greedy decoding writes exactly."""
    nats = file_bytes = exact = documents = 0.0
    for batch in found:
        logits = torch.from_numpy(logits_of(batch))
        targets, judged = batch.targets[0][: len(logits)], batch.weights[0][: len(logits)] > 0
        nats += float(F.cross_entropy(logits, targets, reduction="none")[judged].sum())
        wrong = ((logits.argmax(-1) != targets) & judged).numpy()
        bounds = batch.cu_seqlens.tolist()[: batch.documents + 1]
        exact += sum(not wrong[start:end].any() for start, end in itertools.pairwise(bounds))
        file_bytes, documents = file_bytes + batch.file_bytes, documents + batch.documents
    return {"bits_per_byte": nats / math.log(2) / file_bytes, "exact": exact / documents, "files": documents}


def quality(args: argparse.Namespace, console: Console) -> Iterator[dict[str, Any]]:
    """A row for each precision."""
    found, tasks = heldout(args.files, args.seed), draw_tasks(args.per_kind, seed=args.seed)
    exact = 0.0
    for precision in args.precisions:
        lm = bytegen.load(args.model, precision=precision)
        there = cpu.available(lm)
        logits_of = logits_by_decoder(cpu.decoder_of(lm)) if there else logits_by_torch(lm)
        row: dict[str, Any] = {"measure": "quality", "precision": precision, **bits(logits_of, found)}
        exact = row["bits_per_byte"] if precision == "fp32" else exact
        if there:
            row["weight_bytes"] = cpu.decoder_of(lm).nbytes
        if tasks:
            total = funnel(lm, tasks, samples=args.samples, seed=args.seed)[-1].to_json()
            row |= {name: total[name] for name in total if name != "name"}
        yield row | ({"bits_against_fp32": row["bits_per_byte"] - exact} if exact else {})
        console.print(f"{precision}: {row['bits_per_byte']:.5f} bits a byte")
    if importlib.util.find_spec("torchao") is not None:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        lm = bytegen.load(args.model)
        quantize_(lm, Int8WeightOnlyConfig())
        row = {"measure": "quality", "precision": "int8 by torchao", **bits(logits_by_torch(lm), found)}
        yield row | ({"bits_against_fp32": row["bits_per_byte"] - exact} if exact else {})


def milliseconds(decoder: cpu.Decoder, rows: int, chunk: int, repeats: int) -> float:
    """Processor time of a step, a token."""
    cache = decoder.cache(batch=rows, max_length=TOKENS + chunk, chunk=max(chunk, TOKENS))
    cache.reserve([TOKENS] * rows)
    for row in range(rows):
        decoder.hidden(list(range(TOKENS)), [row] * TOKENS, list(range(TOKENS)), cache)
    cache.advance([TOKENS] * rows)
    cache.reserve([chunk] * rows)
    tokens, lines = [5] * (rows * chunk), [row for row in range(rows) for _ in range(chunk)]
    places = [TOKENS + i for _ in range(rows) for i in range(chunk)]
    began = time.process_time()
    for _ in range(repeats):
        decoder.logits(decoder.hidden(tokens, lines, places, cache), 257)
    return 1e3 * (time.process_time() - began) / (repeats * len(tokens))


def decoders(name: str, args: argparse.Namespace) -> dict[str, cpu.Decoder]:
    """The C decoder of a model at each precision."""
    if name == "model":
        return {p: cpu.decoder_of(bytegen.load(args.model, precision=p)) for p in args.precisions}
    torch.manual_seed(args.seed)
    exact = ByteLM(PRESETS[name]).eval()
    made = {}
    for precision in args.precisions:
        lm = copy.deepcopy(exact)
        reduce_precision(lm, precision)
        made[precision] = new_decoder(lm)
    return made


def speed(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for each precision, shape, and number of tokens a step."""
    torch.set_num_threads(1)
    for name in ("model", *args.shapes):
        made = decoders(name, args)
        small = name == "model"
        for rows, chunk in ((1, 1), (16, 1), (1, CHUNK)):
            repeats = max(1, (64 if small else 4) // (rows * chunk))
            subjects: dict[str, Callable[[], float]] = {
                p: partial(milliseconds, decoder, rows, chunk, repeats) for p, decoder in made.items()
            }
            for precision, timing in interleave(subjects, args.rounds).items():
                yield {
                    "measure": "speed", "precision": precision, "shape": name, "rows": rows, "chunk": chunk,
                    "weight_bytes": made[precision].nbytes, "held": made[precision].held,
                    "ms_a_token": timing.median, "p20": timing.p20, "p80": timing.p80, "rounds": args.rounds,
                    "threads": 1,
                }  # fmt: skip


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """Both tables."""
    table = Table("precision", "weights", "bits a byte", "exact when greedy", "pass@1", "pass@n")

    def shown(row: dict[str, Any], name: str, form: str, scale: float = 1) -> str:
        return format(row[name] / scale, form) if name in row else ""

    for row in (r for r in rows if r["measure"] == "quality"):
        table.add_row(
            row["precision"], shown(row, "weight_bytes", ".2f", 1e6) + " MB", shown(row, "bits_per_byte", ".5f"),
            shown(row, "exact", ".1%"), shown(row, "pass_at_1", ".1%"), shown(row, "pass_at_n", ".1%"),
        )  # fmt: skip
    console.print(table)
    times = Table("shape", "rows", "tokens a row", "precision", "weights", "ms a token (p20-p80)")
    for row in (r for r in rows if r["measure"] == "speed"):
        times.add_row(
            row["shape"], str(row["rows"]), str(row["chunk"]), row["precision"],
            shown(row, "weight_bytes", ".1f", 1e6) + " MB",
            f"{row['ms_a_token']:.3f} ({row['p20']:.3f}-{row['p80']:.3f})",
        )  # fmt: skip
    console.print(times)


def main() -> int:
    """Run the measurement; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", help="a packaged model's name or a folder; the packaged default otherwise")
    parser.add_argument("--precisions", nargs="*", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--files", type=int, default=40, help="held-out files a kind, for bits")
    parser.add_argument(
        "--per-kind", type=int, default=6, help="prompts a kind, for the funnel; 0 leaves it out"
    )
    parser.add_argument("--samples", type=int, default=8, help="files a prompt, for the funnel")
    parser.add_argument(
        "--shapes", nargs="*", choices=sorted(PRESETS), default=["125m"], help="shapes to time"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=("quality", "speed"))
    parser.add_argument("--json", type=Path, help="file to write one line of JSON a row to")
    args = parser.parse_args()
    if args.files < 1 or args.per_kind < 0 or args.samples < 1 or args.rounds < 1:
        parser.error("--files, --samples and --rounds must be at least 1, --per-kind at least 0")
    console = Console(width=max(Console().width, 110))
    rows: list[dict[str, Any]] = []
    if args.only != "speed":
        rows += quality(args, console)
    if args.only != "quality" and cpu.binding.library is not None:
        rows += speed(args)
    show(rows, console)
    if args.json:
        stamp = environment(("torch", "torchao", "unicorn", "lief"))
        about = {"bench": "precision", "model": args.model or "packaged", "seed": args.seed}
        write_json_lines(args.json, [about | row | stamp for row in rows])
    return 0


if __name__ == "__main__":
    sys.exit(main())
