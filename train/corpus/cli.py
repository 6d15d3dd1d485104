"""The command group `bytegen corpus`."""

import random
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from bytegen.errors import UserError
from bytegen.train.corpus.program import KINDS, programs_of
from bytegen.train.corpus.scan.cli import scan


@click.group()
def corpus() -> None:
    """Corpora of described programs, each compiled small and run against its oracle; real files as a measure."""


corpus.add_command(scan)


@corpus.command("build")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--samples", type=click.IntRange(min=1), default=10_000, show_default=True, help="Rows.")
@click.option("--seed", type=int, default=0, show_default=True, help="Decides every draw.")
@click.option("--kinds", default="", help="Kinds to draw from, separated by commas. Default: all of them.")
@click.option("--jobs", type=click.IntRange(min=1), default=None, help="Processes. Default: all cores.")
@click.option("--heldout-only", is_flag=True, help="Only behaviours that no training sample shows.")
@click.option("--train-only", is_flag=True, help="Only behaviours of the training split.")
@click.option(
    "--shard-rows", type=click.IntRange(min=1), default=8192, show_default=True, help="Rows in a file."
)
@click.option(
    "--inputs",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Runs of each sample.",
)
def build_command(
    out: Path,
    samples: int,
    seed: int,
    kinds: str,
    jobs: int | None,
    heldout_only: bool,
    train_only: bool,
    shard_rows: int,
    inputs: int,
) -> None:
    """Write a corpus into the new folder OUT: Parquet shards and a manifest."""
    from bytegen.train.corpus.build import build

    if heldout_only and train_only:
        raise UserError("--heldout-only and --train-only exclude each other: give at most one")
    programs = programs_of([kind.strip() for kind in kinds.split(",")] if kinds else KINDS)
    split = "heldout" if heldout_only else "train" if train_only else None
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("samples", total=samples, rate="")

        def progress(done: int, total: int) -> None:
            elapsed = bar.tasks[0].elapsed or 0
            bar.update(task, completed=done, rate=f"{done / elapsed:.0f}/s" if elapsed else "")

        manifest = build(
            out,
            samples=samples,
            seed=seed,
            programs=programs,
            split=split,
            jobs=jobs,
            shard_rows=shard_rows,
            inputs_per_sample=inputs,
            progress=progress,
        )
    splits = ", ".join(f"{count} {name}" for name, count in manifest["splits"].items())
    shards = manifest["shards"]
    click.echo(f"{out}: {samples} samples ({splits}) in {len(shards)} shard{'s' * (len(shards) != 1)}")


@corpus.command("drafts")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--least", type=click.IntRange(min=1), default=2, show_default=True, help="Times a context is met."
)
def drafts_command(folder: Path, out: Path, least: int) -> None:
    """Learn what bytes follow which in the corpus FOLDER, for generation to guess ahead with.

    Beside a model's weights as drafts.safetensors the table is used without further ado. Guesses change how long
    a file takes, not what is in it.
    """
    from bytegen.decoding import NGrams
    from bytegen.train.corpus.shards import read_table

    files = read_table(folder, "train", ["data"])["data"].to_pylist()
    table = NGrams.learn(files, least=least)
    table.save(out)
    click.echo(f"{out}: {len(table)} contexts of {len(files)} files")


@corpus.command("show")
@click.option("--seed", type=int, default=0, show_default=True, help="Decides the examples.")
@click.option("--programs", "each", is_flag=True, help="A row for every program, not only for every kind.")
@click.option("--markdown", is_flag=True, help="As a Markdown table.")
def show_command(seed: int, each: bool, markdown: bool) -> None:
    """Print the kinds of programs, how many there are of each, and an example prompt."""
    rows = _program_rows(seed) if each else _kind_rows(seed)
    heads = ("kind", "program", "an example prompt") if each else ("kind", "programs", "an example prompt")
    if markdown:
        click.echo(f"| {' | '.join(heads)} |")
        click.echo("|---|---|---|")
        for row in rows:
            click.echo(f"| {row[0]} | {row[1]} | `{row[2]}` |")
        return
    table = Table(*heads, box=None, header_style="bold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def _program_rows(seed: int) -> list[tuple[str, str, str]]:
    rows = []
    for program in programs_of(KINDS):
        rng = random.Random(f"{seed} {program.name}")
        rows.append((program.kind, program.name, rng.choice(program.prompts(program.draw(rng)))))
    return rows


def _kind_rows(seed: int) -> list[tuple[str, str, str]]:
    rows = []
    for kind in KINDS:
        rng = random.Random(f"{seed} {kind}")
        programs = programs_of([kind])
        program = rng.choice(programs)
        rows.append((kind, str(len(programs)), rng.choice(program.prompts(program.draw(rng)))))
    return rows
