"""`convert`: a checkpoint of transformers becomes a byte model, tensor by tensor."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from bytegen.card import write_card
from bytegen.config import ModelConfig
from bytegen.convert.architectures import model_config, read_json
from bytegen.convert.tensors import IGNORED, theirs
from bytegen.convert.transplant import ByteRows, find_rows
from bytegen.errors import UserError
from bytegen.limits import check_disk, check_memory, memory_errors
from bytegen.shards import (
    MAX_SHARD_BYTES,
    LazyTensor,
    Shape,
    Shards,
    cast,
    check_shapes,
    peak_bytes,
    write_shards,
)
from bytegen.tokenizer import VOCAB_SIZE
from bytegen.weights import empty_model, memory_advice, new_folder, shapes_of

_EMBEDDINGS = ("embed.weight", "head.weight")


def convert(
    source: str | Path, out: str | Path, *, keep_vocabulary: bool = False, dtype: torch.dtype | None = None,
    pattern: str | None = None, window: int | None = None, max_positions: int | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES, on_tensor: Callable[[int], None] | None = None,
) -> ModelConfig:  # fmt: skip
    """Write the checkpoint in folder `source` as a model that `bytegen.load(out)` reads; return its config.

    The layers are taken exactly: with `keep_vocabulary` the logits are those of transformers. Without it the byte
    transplant replaces embedding and head (see `bytegen.convert.transplant`). `pattern`, `window` and
    `max_positions` change the config, for training on: longer contexts, or local layers where there were global
    ones; then the logits differ. Values keep their dtype unless `dtype` is given. Memory: the tensors of one file of
    at most `max_shard_bytes`, or the largest tensor. `on_tensor` hears of the bytes of each as it is read.

    Raises UserError for an architecture, tokenizer or tensor that does not fit (names each), shards that are missing,
    pickled weights, an `out` that is there already, a full disk, or too little memory. Nothing is left half-written.
    """
    source, out = Path(source), Path(out)
    if not source.is_dir():
        raise UserError(
            f"{source} is no folder; download a checkpoint first, such as: hf download Qwen/Qwen2.5-7B"
        )
    values = read_json(source / "config.json", "what says the checkpoint's architecture")
    theirs_config = model_config(values, where=str(source / "config.json"))
    rows = None if keep_vocabulary else find_rows(source, values, theirs_config.vocab_size)
    changes: dict[str, Any] = {"pattern": pattern, "window": window, "max_positions": max_positions}
    if rows is not None:
        changes["vocab_size"] = VOCAB_SIZE
    config = dataclasses.replace(theirs_config, **{k: v for k, v in changes.items() if v is not None})
    advice = f"--max-shard-size makes it less; the model: {memory_advice(config)}"
    with memory_errors(f"converting {source}", advice):
        shards = Shards(source)
        shapes = shapes_of(empty_model(theirs_config))
        check_checkpoint(shards, shapes)
        tensors = {name: _tensor(shards, name, rows, dtype) for name in shapes}
        check_memory(peak_bytes(tensors, max_shard_bytes), f"converting {source}", advice)
        with new_folder(out) as scratch:
            check_disk(sum(lazy.nbytes for lazy in tensors.values()), out)
            write_shards(scratch, tensors, max_shard_bytes=max_shard_bytes, on_tensor=on_tensor)
            (scratch / "config.json").write_text(config.to_json())
            write_card(
                scratch / "README.md", config, name=out.name, origin=_origin(source, values, rows, changes)
            )
    return config


def check_checkpoint(shards: Shards, shapes: Mapping[str, Shape]) -> None:
    """Hold the checkpoint's tensors to `shapes`, which go by our names; UserError names each that does not fit.

    A head beside tied embeddings must equal them: transformers 5 takes both where they differ, against the config.
    """
    wanted = {theirs(name): shape for name, shape in shapes.items()}
    head, embedding = "lm_head.weight", "model.embed_tokens.weight"
    found = {name: shape for name, shape in shards.shapes.items() if not IGNORED.fullmatch(name)}
    tied_twice = head not in wanted and found.get(head) == wanted[embedding]
    if tied_twice:
        del found[head]
    check_shapes(found, wanted, shards.where)
    for name in wanted:
        shards.dtype(name)
    if tied_twice and not torch.equal(shards.read(head), shards.read(embedding)):
        raise UserError(
            f"{shards.where} has a {head} that differs from {embedding}, but its config ties them; set"
            " tie_word_embeddings to false in config.json to keep both"
        )


def _tensor(shards: Shards, name: str, rows: ByteRows | None, dtype: torch.dtype | None) -> LazyTensor:
    """Return our tensor `name`, to be read from the checkpoint when it is written."""
    other = theirs(name)
    if rows is None or name not in _EMBEDDINGS:
        return shards.lazy(other, dtype)
    kept = dtype or shards.dtype(other)
    shape = (VOCAB_SIZE, *shards.shapes[other][1:])
    return LazyTensor(shape, kept, lambda: cast(rows.transplant(shards, other), kept, other))


def _origin(source: Path, values: dict[str, Any], rows: ByteRows | None, changes: dict[str, Any]) -> str:
    """Say in a sentence or two where the weights come from, for the model card."""
    text = f"Converted by `bytegen convert` from {source.absolute().name} (`{values['model_type']}`). "
    if rows is None:
        text += "Its vocabulary was kept: ids are the checkpoint's tokens, not bytes."
    else:
        text += (
            "Embedding and head are a byte transplant: the rows of the 256 single-byte tokens; special ids have the"
            " mean row, or the rows of the checkpoint's end and beginning of text. It has seen no training on bytes."
        )
    changed = [f"{k} {v}" for k, v in changes.items() if v is not None and k != "vocab_size"]
    if changed:
        text += f" Changed in the config: {', '.join(changed)}."
    return text + " The licence is the checkpoint's."
