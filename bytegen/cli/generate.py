"""`bytegen generate`: writes executables from prompts."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from bytegen.cli import best
from bytegen.cli.progress import counter
from bytegen.errors import UserError
from bytegen.files import read_file, write_atomically
from bytegen.limits import memory_errors


def _prompts(prompt: str | None, prompts: Path | None) -> list[str]:
    if (prompt is None) == (prompts is None):
        raise UserError("give either a PROMPT or --prompts FILE with one prompt a line")
    if prompts is None:
        assert prompt is not None
        return [prompt]
    try:
        lines = [line.strip() for line in read_file(prompts).decode("utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise UserError(f"{prompts} is no UTF-8 at byte {error.start}") from None
    found = [line for line in lines if line]
    if not found:
        raise UserError(f"{prompts} holds no prompts; write one a line")
    return found


def _target(out: Path, prompts: int, samples: int, index: int) -> Path:
    """Return where output `index` goes: `out` itself when it is the only one, else a file in the folder `out`."""
    if prompts * samples == 1:
        return out
    prompt, sample = divmod(index, samples)
    return out / (f"{prompt:04d}" if samples == 1 else f"{prompt:04d}-{sample:02d}")


@click.command()
@click.argument("prompt", required=False)
@click.option(
    "-o",
    "--output",
    "out",
    type=click.Path(path_type=Path),
    required=True,
    help="The file to write; with several prompts or samples, a folder.",
)
@click.option("--format", "format_", default="elf64-x86_64", show_default=True, help="The file format.")
@click.option("--level", default="load", show_default=True, help="How much the constraint promises.")
@click.option("--max-bytes", default=4096, show_default=True, help="The longest file it may write.")
@click.option(
    "--min-bytes",
    default=0,
    show_default=True,
    help="The shortest: the file goes on where it would end earlier.",
)
@click.option("--seed", default=0, show_default=True, help="The seed; sample j uses seed + j.")
@click.option("--temperature", type=float, default=None, help="0 takes the likeliest byte.  [default: 0.3]")
@click.option("--top-p", type=float, default=1.0, show_default=True)
@click.option("--min-p", type=float, default=0.0, show_default=True)
@click.option("--samples", type=int, default=None, help="Files per prompt.  [default: 1, with --best-of 64]")
@click.option(
    "--model", default=None, help="A packaged model's name or a folder; the packaged default otherwise."
)
@click.option("--device", default="cpu", show_default=True)
@click.option(
    "--precision",
    default=None,
    help="Weights as they are (fp32), in bf16 or int8, or int8-dynamic, which multiplies whole numbers.  [default:"
    " int8-dynamic for the packaged model in the C decoder on a CPU, else fp32]",
)
@click.option(
    "--run",
    "run_it",
    is_flag=True,
    help="Run the file in the emulator and print its output; the best of many: on its first input.",
)
@click.option(
    "--stdin-file",
    "stdin_files",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Standard input for --run; with --best-of as --stdin, from a file.",
)
@click.option(
    "--best-of",
    is_flag=True,
    help="Write --samples files (64 unless given), run them in the emulator, and keep the best one.",
)
@click.option(
    "--stdin",
    "stdins",
    multiple=True,
    help="A line of input on which --best-of tells files apart; with --expect, an example of what is asked.",
)
@click.option(
    "--expect",
    "expects",
    multiple=True,
    help="What the program has to print for the --stdin of the same place.",
)
@click.option(
    "--expect-file",
    "expect_files",
    type=click.Path(path_type=Path),
    multiple=True,
    help="As --expect, from a file, for the --stdin-file of the same place.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the account of --best-of as JSON.")
@click.option(
    "--prompts", type=click.Path(path_type=Path), default=None, help="A text file, one prompt a line."
)
@click.option("--batch-size", default=32, show_default=True, help="Files written side by side.")
@click.option(
    "--drafts/--no-drafts",
    default=True,
    show_default=True,
    help="Guess bytes ahead: faster, and the same files.",
)
@click.option(
    "--particles",
    type=click.IntRange(min=1),
    default=None,
    help="Draw one file from this many particles, which corrects the bias of masking (one prompt).",
)
@click.option(
    "--account", "show_account", is_flag=True, help="Print what the constraint took, field by field."
)
def generate(
    prompt: str | None, out: Path, format_: str, level: str, max_bytes: int, min_bytes: int, seed: int,
    temperature: float | None, top_p: float, min_p: float, samples: int | None, model: str | None, device: str,
    precision: str | None, run_it: bool, stdin_files: tuple[Path, ...], best_of: bool, stdins: tuple[str, ...],
    expects: tuple[str, ...], expect_files: tuple[Path, ...], as_json: bool, prompts: Path | None, batch_size: int,
    drafts: bool,
    particles: int | None, show_account: bool,
) -> None:  # fmt: skip
    """Write the program that PROMPT describes."""
    from bytegen import formats
    from bytegen.decoding import Sampling

    texts = _prompts(prompt, prompts)
    task = None
    if best_of:
        if prompts is not None or particles or show_account:
            raise UserError("--best-of is for one PROMPT, without --prompts, --particles and --account")
        task = best.task(stdins, expects, stdin_files, expect_files, run_it=run_it, as_json=as_json)
        samples = best.SAMPLES if samples is None else samples
        best.check(task, format=format_, samples=samples, temperature=temperature)
    else:
        best.refuse(stdins=stdins, expects=expects, expect_files=expect_files, as_json=as_json)
        if len(stdin_files) > 1:
            raise UserError("--stdin-file was given more than once; --run takes one, --best-of several")
        samples = 1 if samples is None else samples
    many = len(texts) * samples > 1 and not best_of
    stdin = read_file(stdin_files[0]) if stdin_files and not best_of else b""
    Sampling(temperature=0.0 if temperature is None else temperature, top_p=top_p, min_p=min_p)
    formats.constraint(
        format_, max_bytes=max_bytes, level=level, min_bytes=min_bytes
    )  # complains before the model loads
    if many and out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; {len(texts) * samples} programs need a folder")
    if not many and (out.is_dir() or not out.parent.is_dir()):
        raise UserError(
            f"{out} is {'a folder' if out.is_dir() else 'in a folder that does not exist'}; -o names a file"
        )
    options: dict[str, Any] = {
        "format": format_, "level": level, "max_bytes": max_bytes, "min_bytes": min_bytes, "seed": seed,
        "samples": samples, "temperature": temperature, "top_p": top_p, "min_p": min_p, "batch_size": batch_size,
        "drafts": drafts,
    }  # fmt: skip
    if many and (particles or show_account):
        raise UserError("--particles and --account are for one prompt and one sample")
    precision = default_precision(model, device) if precision is None else precision
    lm = _load(model, device, precision, whole=bool(particles or show_account))
    if particles:
        options["particles"] = particles
    length = max_bytes + max(len(text.encode()) for text in texts) + 3  # with the marks around the prompt
    side_by_side = particles or min(batch_size, len(texts) * samples)
    advice = partial(_memory_advice, lm, length, side_by_side, device, precision)
    with memory_errors(f"writing {'files' if many else out}", advice):
        if task is not None:
            code = best.generate_best(lm, texts[0], out, options, task)
        elif many:
            _generate_many(lm, texts, out, samples, options, stdin, run_it)
            return
        else:
            code = _generate_one(lm, texts[0], out, options, stdin, run_it, show_account)
    sys.exit(code)


def default_precision(model: str | None, device: str) -> str:
    """What files are written in unless it is asked for: the fastest that was measured to be as good, on this model."""
    from bytegen.cpu.binding import library
    from bytegen.precision import DYNAMIC

    return DYNAMIC if model is None and device == "cpu" and library is not None else "fp32"


def _memory_advice(lm: Any, length: int, batch: int, device: str, precision: str) -> str:
    """What `bytegen plan` says of files of so many positions, prompt and marks included."""
    from bytegen.planning.refusal import of_generation

    name = {"fp32": "float32", "bf16": "bfloat16"}.get(precision, "int8")
    decoder = getattr(lm, "decoder", None)  # of a model that the C decoder runs
    cached = None if decoder is None else decoder.cache_bytes_a_number
    return of_generation(lm.config, length=length, batch=batch, device=device, precision=name, cached=cached)


def _load(model: str | None, device: str, precision: str, *, whole: bool) -> Any:
    """The model; for the C decoder alone where that is all it takes, which leaves out importing torch."""
    if device == "cpu" and not whole:
        from bytegen.cpu import LightLM

        light = LightLM.load(model, precision=precision)
        if light is not None:
            return light
    import torch

    from bytegen.weights import load

    try:
        torch.device(device)
        return load(model, device=device, precision=precision)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from None


def _generate_one(
    lm: Any, prompt: str, out: Path, options: dict[str, Any], stdin: bytes, run_it: bool, show_account: bool
) -> int:
    from bytegen import sandbox
    from bytegen.cli.hexview import HexView
    from bytegen.decoding import Sequence
    from bytegen.generation import generate_many

    console = Console(stderr=True)
    if "particles" in options:
        data, told = _by_particles(lm, prompt, options)
    elif run_it and console.is_terminal:
        with HexView(console, prompt) as view:

            def show(row: Sequence, new: bytes) -> None:
                view.show(bytes(row.constraint.data), row.constraint.fields(), row.constraint.field())

            output = generate_many(lm, [prompt], on_bytes=show, **options)[0]
    else:
        output = generate_many(lm, [prompt], **options)[0]
    if "particles" not in options:
        data = output.data
        told = f"{output.sampled} sampled and {output.forced} forced, in {output.turns} steps"
    write_atomically(out, data, executable=True)
    click.echo(f"{out}: {len(data)} bytes, {told}", err=True)
    if show_account:
        _show_account(lm, prompt, data, options, console)
    if not run_it:
        return 0
    result = sandbox.run(data, stdin=stdin)
    sys.stdout.buffer.write(result.stdout)
    sys.stdout.buffer.flush()
    sys.stderr.buffer.write(result.stderr)
    if result.exit_code is None:
        click.echo(
            f"bytegen: {out}: {result.fault or 'stopped at the limit of ' + str(result.limit)}", err=True
        )
        return 1
    return 0


def _by_particles(lm: Any, prompt: str, options: dict[str, Any]) -> tuple[bytes, str]:
    """A file drawn from weighted particles, and a word on how they fared."""
    import numpy as np

    from bytegen.decoding import Sampling
    from bytegen.particles import generate_particles

    if options["top_p"] != 1.0 or options["min_p"] != 0.0:
        raise UserError("--particles draws from the whole distribution: leave --top-p and --min-p out")
    names = ("particles", "format", "level", "max_bytes", "min_bytes", "seed", "temperature")
    chosen = {name: options[name] for name in names}
    if chosen["temperature"] is None:
        chosen["temperature"] = Sampling().temperature
    result = generate_particles(lm, prompt, **chosen)
    data = result.draw(np.random.default_rng(options["seed"]))
    return data, (
        f"drawn from {options['particles']} particles (effective {result.effective:.1f}, resampled "
        f"{result.resampled} times); the masks keep {np.exp(result.log_mass):.3g} of the model's mass"
    )


def _show_account(lm: Any, prompt: str, data: bytes, options: dict[str, Any], console: Console) -> None:
    from rich.table import Table

    from bytegen.scoring import account

    names = ("format", "level", "max_bytes", "min_bytes")
    found = account(lm, data, prompt=prompt, **{name: options[name] for name in names})
    table = Table(
        "field", "bytes", "forced", "mean probability removed", "nats", box=None, header_style="bold"
    )
    for row in found.by_field()[:20]:
        table.add_row(row.path, str(row.bytes), str(row.forced), f"{row.removed:.2e}", f"{row.nats:.4f}")
    console.print(table)
    console.print(
        f"in all {found.nats:.4f} nats over {int((~found.forced).sum())} choices, and "
        f"{found.forced_nats:.1f} over {int(found.forced.sum())} forced bytes"
    )


def _generate_many(
    lm: Any, prompts: list[str], out: Path, samples: int, options: dict[str, Any], stdin: bytes, run_it: bool
) -> None:
    from bytegen.generation import Output, generate_many

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out} cannot be made: {error.strerror}") from None
    console = Console(stderr=True)
    total = len(prompts) * samples
    index: list[dict[str, Any] | None] = [None] * total
    with counter(console) as progress:
        task = progress.add_task("writing", total=total)

        def done(i: int, output: Output) -> None:
            target = _target(out, len(prompts), samples, i)
            write_atomically(target, output.data, executable=True)
            row: dict[str, Any] = {
                "file": target.name, "prompt": output.prompt, "seed": output.seed, "bytes": len(output.data),
                "logprob": output.logprob,
            }  # fmt: skip
            if run_it:
                result = output.run(stdin=stdin)
                row["exit_code"] = result.exit_code
                row["stdout"] = result.stdout.decode("utf-8", "backslashreplace")
                row["stopped"] = str(result.fault or result.limit or "") or None
            index[i] = row
            progress.advance(task)

        generate_many(lm, prompts, on_output=done, **options)
    lines = "".join(json.dumps(row) + "\n" for row in index)
    write_atomically(out / "index.jsonl", lines.encode())
    click.echo(f"{total} files and index.jsonl in {out}", err=True)
