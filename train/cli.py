"""The commands of training: `bytegen corpus`, `bytegen train`, `bytegen eval`."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from rich.console import Console

from bytegen.benchmark import environment
from bytegen.cli.progress import counter
from bytegen.errors import UserError
from bytegen.train.corpus.cli import corpus

if TYPE_CHECKING:
    from bytegen.train.config import TrainConfig

__all__ = ["corpus", "evaluate", "train"]


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "--set", "overrides", multiple=True, metavar="SECTION.FIELD=VALUE", help="Override a field of CONFIG."
)
def train(config: Path, overrides: tuple[str, ...]) -> None:
    """Train a byte model as CONFIG (a TOML file, or the name of a packaged one) says; resumes where it stopped."""
    from bytegen.limits import memory_errors
    from bytegen.planning.refusal import of_training
    from bytegen.train.config import load_config

    path = config
    packaged = Path(__file__).parent / "configs" / f"{config}.toml"
    if not config.exists() and packaged.exists():
        path = packaged
    settings = load_config(path, overrides)
    run = settings.run
    advice = partial(
        of_training, settings.shape(), tokens=run.tokens_per_batch, device=run.device, precision=run.precision
    )
    with memory_errors("training", advice):
        _train(settings)


def _train(settings: TrainConfig) -> None:
    """Train to the end, with a bar."""
    from bytegen.train.trainer import Trainer, drive

    trainer = Trainer(settings)
    resumed = trainer.resume()
    console = Console(stderr=True)
    n_params = settings.shape().n_params()
    console.print(
        f"{n_params / 1e6:.2f}M parameters, {len(trainer.stream.examples)} examples, {len(trainer.heldout)} held out; "
        + (f"resuming after step {trainer.step}" if resumed else "from the start")
    )
    with counter(console, figures=True) as progress:
        task = progress.add_task("train", total=settings.run.steps, completed=trainer.step, figures="")

        def show(row: dict[str, Any]) -> None:
            figures = f"loss {row['loss']:.3f}  {row['tokens_per_second']:.0f} tokens/s"
            progress.update(task, completed=row["step"], figures=figures)
            if "heldout_loss" in row:
                heads = ", ".join(f"{share:.1%}" for share in row.get("heldout_mtp", []))
                progress.console.print(
                    f"step {row['step']}: held out {row['heldout_loss']:.4f} nats a judged byte,"
                    f" {row['heldout_bits_per_byte']:.4f} bits a byte, {row['heldout_exact']:.1%} exact when greedy"
                    + (f"; heads right in {heads}" if heads else "")
                )

        drive(trainer, on_step=show)
    console.print(f"weights in {settings.run.out / 'final'}")


@click.command("eval")
@click.option(
    "--model", default=None, help="A packaged model's name or a folder; the packaged default otherwise."
)
@click.option(
    "--corpus",
    "folder",
    type=click.Path(path_type=Path),
    default=None,
    help="Shards whose held-out part is asked; drawn afresh otherwise.",
)
@click.option("--per-kind", default=20, show_default=True, help="Held-out behaviours of each kind.")
@click.option("--samples", default=8, show_default=True, help="Files per prompt: n of pass@k.")
@click.option("--temperature", type=float, default=None, help="[default: that of `bytegen generate`]")
@click.option("--seed", default=0, show_default=True)
@click.option("--batch-size", default=64, show_default=True)
@click.option(
    "--by", type=click.Choice(["kind", "program"]), default="kind", show_default=True, help="A row each."
)
@click.option("--device", default="cpu", show_default=True)
@click.option("--precision", default="fp32", show_default=True, help="As in `bytegen generate`.")
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), default=None, help="Append rows as JSON lines."
)
def evaluate(
    model: str | None, folder: Path | None, per_kind: int, samples: int, temperature: float | None, seed: int,
    batch_size: int, by: Literal["kind", "program"], device: str, precision: str,
    json_path: Path | None,
) -> None:  # fmt: skip
    """Print the funnel of a model on held-out prompts: well formed, loads, exits by itself, behaves as asked."""
    from bytegen.train.evaluation import draw_tasks, funnel, funnel_table, read_tasks
    from bytegen.weights import load

    if per_kind < 1 or samples < 1:
        raise UserError(f"--per-kind {per_kind} and --samples {samples} must be at least 1")
    lm = load(model, device=device, precision=precision)
    tasks = draw_tasks(per_kind, seed=seed) if folder is None else read_tasks(folder, per_kind, seed=seed)
    console = Console(stderr=True)
    with counter(console) as progress:
        bar = progress.add_task("evaluating", total=len(tasks) * samples)
        rows = funnel(
            lm, tasks, samples=samples, temperature=temperature, seed=seed, batch_size=batch_size, by=by,
            on_judged=lambda: progress.advance(bar),
        )  # fmt: skip
    Console(width=max(Console().width, 110)).print(funnel_table(rows))
    if json_path is not None:
        about = {"bench": "eval", "model": model or "packaged", "temperature": temperature, "seed": seed}
        about |= {} if precision == "fp32" else {"precision": precision}
        stamp = environment(("torch", "unicorn", "lief"))
        with json_path.open("a") as file:
            for row in rows:
                file.write(json.dumps({**about, **row.to_json(), **stamp}) + "\n")
