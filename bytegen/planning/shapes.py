"""Which shape `--model` means: a preset, a packaged model, a byte model's folder, or one of transformers."""

from __future__ import annotations

import json
from pathlib import Path

from bytegen.config import PRESETS, ModelConfig
from bytegen.errors import UserError

ALIASES = {"qwen2.5-7b": "7b", "cwm": "cwm-32b", "32b": "cwm-32b"}
_PACKAGED = Path(__file__).parent.parent / "packaged"


def shape_of(model: str | Path) -> tuple[str, ModelConfig]:
    """Return the name and the shape of a model; UserError lists what names there are. No weights are read."""
    name = str(model)
    key = ALIASES.get(name.lower(), name.lower())
    if key in PRESETS:
        return key, PRESETS[key]
    for folder in (_PACKAGED / name, Path(model)):
        path = folder / "config.json"
        if path.is_file():
            return name, _read(path)
    packaged = sorted(path.parent.name for path in _PACKAGED.glob("*/config.json"))
    raise UserError(
        f"no model {name!r}: it is no preset ({', '.join([*PRESETS, *ALIASES])}), no packaged model "
        f"({', '.join(packaged)}) and no folder with config.json"
    )


def _read(path: Path) -> ModelConfig:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    try:
        values = json.loads(text)
    except ValueError:
        values = None  # from_json says what is wrong
    if isinstance(values, dict) and "model_type" in values:
        from bytegen.convert.architectures import model_config

        return model_config(values, where=str(path))
    return ModelConfig.from_json(text, where=str(path))
