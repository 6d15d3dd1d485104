"""Where models are, and what their config says; without torch."""

from __future__ import annotations

import json
from pathlib import Path

from bytegen.config import ModelConfig
from bytegen.errors import UserError

PACKAGED = Path(__file__).parent / "packaged"
DEFAULT = "first-flight"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
"""The weights in one file; or where each tensor is, beside files of shards."""

DRAFTS = "drafts.safetensors"
"""Beside the weights, where there is one: a table of guesses (see `decoding.drafts`)."""


HEADS, MTP = "mtp_heads.safetensors", "mtp."
"""Multi-token prediction heads, where there are any: the file beside the weights that holds them, so that they can be
added to a model whose weights stay as they are, and how the names of their tensors begin."""


def packaged_models() -> list[str]:
    """Return the names of the models in the package."""
    return sorted(p.name for p in PACKAGED.glob("*") if (p / "config.json").exists())


def model_folder(name: str | Path | None) -> Path:
    """Return the folder of a packaged model by name, or `name` itself where it is a folder with config.json.

    UserError lists the packaged models when it is neither.
    """
    for folder in (PACKAGED / str(name or DEFAULT), Path(name or DEFAULT)):
        if (folder / "config.json").exists():
            return folder
    raise UserError(
        f"no model {str(name or DEFAULT)!r}: neither a packaged one ({', '.join(packaged_models()) or 'none here'})"
        " nor a folder with config.json and model.safetensors"
    )


def read_config(folder: Path) -> ModelConfig:
    """Read the config.json of a byte model; UserError when it is another's, or damaged."""
    path = folder / "config.json"
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    try:
        foreign = json.loads(text).get("model_type")
    except (ValueError, AttributeError):
        foreign = None  # from_json says what is wrong
    if foreign is not None:
        raise UserError(
            f"{folder} is a checkpoint of transformers (model_type {foreign!r}), not a byte model;"
            f" make one of it with: bytegen convert {folder} OUT"
        )
    return ModelConfig.from_json(text, where=str(path))
