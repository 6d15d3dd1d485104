"""What `bytegen train CONFIG` reads: a TOML file, checked field by field."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from bytegen import config as model_config
from bytegen.config import ModelConfig
from bytegen.errors import UserError
from bytegen.folders import model_folder, read_config

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(_Section):
    """Which examples, and how they weigh."""

    shards: Path
    level: str = "load"
    kinds: list[str] | None = None
    parameter_weight: float = Field(1.0, gt=0)
    heldout_examples: int = Field(512, ge=1)


class CurriculumConfig(_Section):
    """The short form: prompts followed by their parameters alone.

    `short_share` is a list of [step, share]: the probability that an example comes in short form, linear
    between the points and constant outside them.
    """

    short_share: list[tuple[int, float]] = [(0, 0.0)]

    @field_validator("short_share")
    @classmethod
    def _rising_steps(cls, points: list[tuple[int, float]]) -> list[tuple[int, float]]:
        steps = [step for step, _ in points]
        if not points or steps != sorted(set(steps)) or not all(0 <= share <= 1 for _, share in points):
            raise ValueError("it takes [step, share] pairs with rising steps and shares from 0 to 1")
        return points

    def at(self, step: int) -> float:
        """Return the probability that an example of `step` comes in short form."""
        steps, shares = zip(*self.short_share, strict=True)
        return float(np.interp(step, steps, shares))


class OptimConfig(_Section):
    """Muon and AdamW."""

    lr: float = Field(0.01, gt=0)
    embed_lr: float = Field(0.003, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    momentum: float = Field(0.95, ge=0, lt=1)
    betas: tuple[float, float] = (0.9, 0.95)
    warmup: int = Field(50, ge=0)
    decay: int = Field(500, ge=0)
    clip: float = Field(1.0, gt=0)


class MtpConfig(_Section):
    """Multi-token prediction heads, where the model has them: how their losses weigh beside the model's own.

    Head k's weighs `weight` * `falloff` ** (k - 1). `only` leaves all else as it is: heads for a model that is there.
    """

    weight: float = Field(0.3, gt=0)
    falloff: float = Field(0.8, gt=0, le=1)
    only: bool = False


class RunConfig(_Section):
    """How long, on what, and what is kept."""

    out: Path
    steps: int = Field(gt=0)
    tokens_per_batch: int = Field(8192, ge=16)
    seed: int = 0
    device: str = "cpu"
    threads: int | None = Field(None, ge=1)
    compile: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"
    evaluate_every: int = Field(200, ge=1)
    checkpoint_every: int = Field(100, ge=1)
    keep: int = Field(2, ge=1)


class TrainConfig(_Section):
    """The whole of a training configuration."""

    model: dict[str, Any]
    data: DataConfig
    curriculum: CurriculumConfig = CurriculumConfig()
    optim: OptimConfig = OptimConfig()
    mtp: MtpConfig = MtpConfig()
    run: RunConfig

    @property
    def weights(self) -> Path | None:
        """The folder whose weights the run starts from, which a packaged model's name means too; None where they are
        drawn."""
        name = self.model.get("weights")
        return None if name is None else model_folder(str(name))

    def shape(self) -> ModelConfig:
        """Return the model's shape: that of the named preset or of `weights`, other fields of [model] laid over it."""
        fields = dict(self.model)
        name, weights = fields.pop("preset", None), fields.pop("weights", None)
        if name is not None and weights is not None:
            raise UserError("[model] has both preset and weights; the shape comes from one of them")
        if weights is not None:
            base = dataclasses.asdict(read_config(model_folder(str(weights))))
        elif name is not None:
            base = dataclasses.asdict(model_config.preset(str(name)))
        else:
            return ModelConfig.from_json(json.dumps(fields), where="[model]")
        unknown = sorted(set(fields) - set(base))
        if unknown:
            raise UserError(
                f"[model] has the unknown field {unknown[0]!r}; known are preset, weights, {', '.join(base)}"
            )
        return ModelConfig.from_json(json.dumps({**base, **fields}), where="[model]")


def _assign(table: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or key.count(".") != 1:
        raise UserError(f"--set {override!r}: it takes section.field=value, such as run.steps=100")
    section, field = key.split(".")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    table.setdefault(section, {})[field] = parsed


def load_config(path: str | Path, overrides: tuple[str, ...] = ()) -> TrainConfig:
    """Read `path` and lay `section.field=value` overrides over it; UserError names the field that is wrong."""
    try:
        table = tomllib.loads(Path(path).read_text())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is no TOML: {error}") from None
    for override in overrides:
        _assign(table, override)
    try:
        config = TrainConfig.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(x) for x in first["loc"])
        raise UserError(f"{path}: {where}: {first['msg']}") from None
    shape = config.shape()
    if config.mtp.only and not shape.mtp_heads:
        raise UserError(f"{path}: mtp.only trains heads alone, and the model has none: give model.mtp_heads")
    return config
