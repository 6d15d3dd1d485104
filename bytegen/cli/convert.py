"""`bytegen convert` and `bytegen export`: checkpoints of transformers to byte models, and back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn

from bytegen.errors import UserError

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def parse_size(text: str) -> int:
    """Return a size such as "2GB" in bytes (units of 1,000); UserError where it is none."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?B?)\s*", text.upper())
    size = int(float(match[1]) * _UNITS[match[2]]) if match and match[2] in _UNITS else 0
    if size < 1:
        raise UserError(f"{text!r} is no size; write it as 500MB or 2GB")
    return size


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int], None]]:
    """Show on a terminal how many bytes were read."""
    console = Console(stderr=True)
    columns = (TextColumn(what), DownloadColumn(), TransferSpeedColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda n_bytes: progress.advance(task, n_bytes)


_MAX_SHARD = click.option(
    "--max-shard-size", default="2GB", show_default=True, help="The longest file; memory stays near it."
)


@click.command()
@click.argument("source", metavar="HF_FOLDER", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--keep-vocabulary",
    is_flag=True,
    help="Keep the checkpoint's tokens: its own logits, not a model of bytes.",
)
@click.option(
    "--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), default=None,
    help="Of the weights.  [default: the checkpoint's]",
)  # fmt: skip
@click.option("--pattern", default=None, help="Layers that are local (L) and global (G), such as LLLG.")
@click.option("--window", type=int, default=None, help="Keys that a query of a local layer sees.")
@click.option("--max-positions", type=int, default=None, help="The context, such as 163840.")
@_MAX_SHARD
def convert(
    source: Path, out: Path, keep_vocabulary: bool, dtype: str | None, pattern: str | None, window: int | None,
    max_positions: int | None, max_shard_size: str,
) -> None:  # fmt: skip
    """Make a byte model in the new folder OUT of a Qwen2, Qwen2.5, Qwen3, Llama 3 or CWM checkpoint.

    HF_FOLDER holds config.json, safetensors and the tokenizer's files. The layers are taken as they are; each byte
    takes the embedding of its token. --pattern, --window and --max-positions prepare it for training on long files.
    """
    limit = parse_size(max_shard_size)
    import torch

    from bytegen.convert import convert as run

    with _progress("converting") as on_tensor:
        config = run(
            source, out, keep_vocabulary=keep_vocabulary, dtype=getattr(torch, dtype) if dtype else None,
            pattern=pattern, window=window, max_positions=max_positions, max_shard_bytes=limit, on_tensor=on_tensor,
        )  # fmt: skip
    click.echo(f"{config.n_params() / 1e6:,.1f}M parameters in {out}", err=True)


@click.command()
@click.argument("model", metavar="LM")
@click.argument("out", type=click.Path(path_type=Path))
@_MAX_SHARD
def export(model: str, out: Path, max_shard_size: str) -> None:
    """Write LM (a packaged model's name, or a folder) as a transformers checkpoint in the new folder OUT."""
    limit = parse_size(max_shard_size)
    from bytegen.convert import export as run
    from bytegen.folders import model_folder, read_config

    with _progress("exporting") as on_tensor:
        model_type = run(model, out, max_shard_bytes=limit, on_tensor=on_tensor)
    heads = read_config(model_folder(model)).mtp_heads
    left = f"; {heads} multi-token prediction heads are left out, which transformers has not" if heads else ""
    click.echo(f"a checkpoint of model_type {model_type} in {out}{left}", err=True)
