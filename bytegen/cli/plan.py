"""`bytegen plan`: memory, time and money of training and generation, before anyone rents the GPUs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from bytegen.errors import UserError


def _prices(values: tuple[str, ...]) -> dict[str, float]:
    """Read KIND=DOLLARS pairs."""
    prices = {}
    for value in values:
        kind, equals, dollars = value.partition("=")
        try:
            prices[kind] = float(dollars)
        except ValueError:
            equals = ""
        if not equals:
            raise UserError(
                f"--price {value!r}: it takes a kind of GPU and dollars an hour, such as h100=2.50"
            )
    return prices


@click.command()
@click.option(
    "--model",
    required=True,
    help="A preset (7b, cwm-32b, 1b ...), a packaged model, or a folder with config.json.",
)
@click.option(
    "--context", type=int, default=None, help="Positions of prompt and file.  [default: the model's own]"
)
@click.option("--gpus", type=int, default=1, show_default=True, help="How many.")
@click.option(
    "--gpu",
    default="h100",
    show_default=True,
    help="Which: a100, h100, h200, b200, mi300x, or cpu (--calibrate).",
)
@click.option(
    "--batch",
    type=int,
    default=1,
    show_default=True,
    help="Sequences of a training step; files that a GPU writes side by side.",
)
@click.option(
    "--precision",
    default="bfloat16",
    show_default=True,
    help="float32, bfloat16 (float32 masters in training), or int8 (generation).",
)
@click.option(
    "--optimizer",
    default="muon",
    show_default=True,
    help="muon (Muon and AdamW, as `bytegen train`) or adamw.",
)
@click.option("--for", "purpose", default="both", show_default=True, help="train, generate or both.")
@click.option(
    "--tokens",
    type=float,
    default=1e9,
    show_default=True,
    help="Tokens of training that clusters are priced for.",
)
@click.option("--files", type=int, default=1000, show_default=True, help="Files that GPUs are priced for.")
@click.option(
    "--bytes-per-step",
    type=float,
    default=1.0,
    show_default=True,
    help="Bytes of a file that a step brings: drafts and forced runs.",
)
@click.option(
    "--calibrate",
    type=click.Path(path_type=Path),
    default=None,
    help="JSON lines of `bytegen bench kernels` and `bench generate`.",
)
@click.option(
    "--price", "prices", multiple=True, metavar="KIND=DOLLARS", help="A GPU's rent an hour; may be repeated."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def plan(
    model: str, context: int | None, gpus: int, gpu: str, batch: int, precision: str, optimizer: str, purpose: str,
    tokens: float, files: int, bytes_per_step: float, calibrate: Path | None, prices: tuple[str, ...], as_json: bool,
) -> None:  # fmt: skip
    """Say what a model takes on GPUs, how long it takes there, and which cluster does it for least.

    Exit code 0 when all that was asked for fits on the GPUs, 1 when not, 2 for bad usage.
    """
    from bytegen.planning import plan as run
    from bytegen.planning import read_calibration, shape_of

    calibration = None if calibrate is None else read_calibration(calibrate)
    length = shape_of(model)[1].max_positions if context is None else context
    found = run(
        model, context=length, gpus=gpus, gpu=gpu, batch=batch, precision=precision, optimizer=optimizer,
        purpose=purpose, tokens=tokens, files=files, bytes_per_step=bytes_per_step, calibration=calibration,
        prices=_prices(prices),
    )  # fmt: skip
    if as_json:
        click.echo(json.dumps(found.to_json()))
    else:
        from bytegen.cli.plan_report import show

        show(found)
    sys.exit(0 if found.fits else 1)
