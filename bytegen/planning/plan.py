"""`plan`: memory, time and money for a model, a context and GPUs, before anyone rents them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from bytegen.cards import CARDS, Card
from bytegen.config import ModelConfig
from bytegen.errors import UserError
from bytegen.limits import total_memory
from bytegen.planning.flops import forward_flops, training_flops
from bytegen.planning.optimizers import OPTIMIZERS, Optimizer, state_bytes
from bytegen.planning.precision import GENERATION
from bytegen.planning.rates import Calibration, Rates, assumed
from bytegen.planning.search import (
    GenerationOption,
    Offer,
    TrainingOption,
    generation_offers,
    generation_option,
    training_offers,
    training_options,
)
from bytegen.planning.shapes import shape_of

PURPOSES = ("both", "train", "generate")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The answer: options on the GPUs asked for, the best first, and clusters by cost. Bytes, seconds, US dollars."""

    model: str
    config: ModelConfig
    context: int
    batch: int
    gpus: int
    gpu: str
    card: Card
    precision: str
    optimizer: Optimizer
    rates: Rates
    training: tuple[TrainingOption, ...]
    generation: tuple[GenerationOption, ...]
    training_offers: tuple[Offer, ...]
    generation_offers: tuple[Offer, ...]
    tokens: float
    files: int

    @property
    def fits(self) -> bool:
        """Whether everything that was asked for fits on the GPUs asked for."""
        return all(not options or options[0].fits for options in (self.training, self.generation))

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        config = self.config
        return {
            "model": self.model, "context": self.context, "batch": self.batch, "gpus": self.gpus, "gpu": self.gpu,
            "precision": self.precision, "optimizer": self.optimizer, "fits": self.fits,
            "config": dataclasses.asdict(config), "card": dataclasses.asdict(self.card),
            "rates": dataclasses.asdict(self.rates),
            "parameters": config.n_params(), "optimiser_bytes": state_bytes(config, self.optimizer),
            "flops_per_byte": {
                "forward": forward_flops(config, self.context).total / self.context,
                "training": training_flops(config, self.context, recompute=False) / self.context,
                "training_recompute": training_flops(config, self.context, recompute=True) / self.context,
            },
            "training": [_option(o) | _moments(o) for o in self.training],
            "generation": [_option(o) | {"parts": o.memory.parts()} for o in self.generation],
            "tokens": self.tokens, "files": self.files,
            "training_clusters": [dataclasses.asdict(o) | {"cost": o.cost} for o in self.training_offers],
            "generation_clusters": [dataclasses.asdict(o) | {"cost": o.cost} for o in self.generation_offers],
        }  # fmt: skip


def _option(option: TrainingOption | GenerationOption) -> dict[str, Any]:
    values = dataclasses.asdict(option)
    for gone in ("moments", "memory"):
        values.pop(gone, None)
    values["seconds"] |= {"total": option.seconds.total}
    return values | {"needed": option.needed, "fits": option.fits}


def _moments(option: TrainingOption) -> dict[str, Any]:
    return {"peak": option.peak.name, "moments": {m.name: m.parts for m in option.moments}}


def plan(
    model: str | Path | ModelConfig, *, context: int, gpus: int = 1, gpu: str = "h100", batch: int = 1,
    precision: str = "bfloat16", optimizer: str = "muon", purpose: str = "both", tokens: float = 1e9, files: int = 1000,
    bytes_per_step: float = 1.0, calibration: Calibration | None = None, prices: Mapping[str, float] | None = None,
) -> Plan:  # fmt: skip
    """Plan training and generation of `model` at `context` positions (prompt and file) on `gpus` GPUs of kind `gpu`.

    `model` is a preset, a packaged model's name, a folder with config.json, or a config; `batch` the sequences of a
    training step, and the files that each GPU writes side by side; `precision` "float32", "bfloat16" or "int8"
    (generation only: training is in bfloat16 then); `optimizer` "muon" (the trainer's) or "adamw"; `purpose` "train",
    "generate" or "both". Clusters are priced for `tokens` tokens of training and `files` files. `calibration` is what
    `read_calibration` gives, `prices` dollars a GPU and hour by kind. `gpu="cpu"` plans for the machine of the
    calibration. Raises UserError naming what does not make sense.
    """
    name, config = ("config", model) if isinstance(model, ModelConfig) else shape_of(model)
    _check(config, name, context, gpus, batch, precision, optimizer, purpose, tokens, files, bytes_per_step)
    cards = _priced(prices or {})
    card, rates = _device(gpu, gpus, cards, calibration)
    on_gpu, memory = gpu != "cpu", int(card.memory)
    optimizer_name = cast(Optimizer, optimizer)
    training_precision = "bfloat16" if precision == "int8" else precision
    priced = {
        key: (c, _in(precision, c, calibration.rates(c) if calibration else assumed(c)))
        for key, c in cards.items()
    }
    training_rates = _in(training_precision, card, rates)
    train, generate = purpose != "generate", purpose != "train"
    training = (
        training_options(
            config, length=context, batch=batch, gpus=gpus, memory=memory, precision=training_precision,
            optimizer=optimizer_name, rates=training_rates, on_gpu=on_gpu,
        ) if train else []
    )  # fmt: skip
    if train and not training:
        raise UserError(
            f"{batch} sequences of {context} positions cannot be shared out evenly over {gpus} GPUs"
        )
    kinds = [precision, *(p for p in GENERATION if p != precision)] if generate else []
    generation = [
        generation_option(
            config, length=context, batch=batch, memory=memory, precision=kind, rates=_in(kind, card, rates),
            bytes_per_step=bytes_per_step, stored=None if on_gpu else 2,
        ) for kind in kinds
    ]  # fmt: skip
    return Plan(
        model=name, config=config, context=context, batch=batch, gpus=gpus, gpu=gpu, card=card, precision=precision,
        optimizer=optimizer_name, rates=rates, training=tuple(training), generation=tuple(generation),
        training_offers=tuple(
            training_offers(config, priced, length=context, batch=batch, precision=training_precision,
                            optimizer=optimizer_name, tokens=tokens) if train and on_gpu else ()
        ),
        generation_offers=tuple(
            generation_offers(config, priced, length=context, batch=batch, precision=precision, files=files,
                              bytes_per_step=bytes_per_step) if generate and on_gpu else ()
        ),
        tokens=tokens, files=files,
    )  # fmt: skip


def _check(
    config: ModelConfig, name: str, context: int, gpus: int, batch: int, precision: str, optimizer: str, purpose: str,
    tokens: float, files: int, bytes_per_step: float,
) -> None:  # fmt: skip
    if not 1 <= context <= config.max_positions:
        raise UserError(f"--context {context}: {name} has positions for 1 to {config.max_positions}")
    for option, value in (("--gpus", gpus), ("--batch", batch), ("--files", files)):
        if value < 1:
            raise UserError(f"{option} {value}: it must be at least 1")
    if gpus > context:
        raise UserError(f"--gpus {gpus}: more than the {context} positions of --context; fewer GPUs would do")
    if not 0 < tokens < float("inf"):
        raise UserError(f"--tokens {tokens}: it must be more than 0")
    if not 1 <= bytes_per_step <= 1000:
        raise UserError(f"--bytes-per-step {bytes_per_step}: a step brings 1 to 1,000 bytes")
    for option, name, known in (
        ("--precision", precision, tuple(GENERATION)), ("--optimizer", optimizer, OPTIMIZERS),
        ("--for", purpose, PURPOSES),
    ):  # fmt: skip
        if name not in known:
            raise UserError(f"{option} {name!r}: there are {', '.join(known)}")


def _priced(prices: Mapping[str, float]) -> dict[str, Card]:
    for key, price in prices.items():
        if key not in CARDS:
            raise UserError(f"--price of {key!r}: the kinds of GPU are {', '.join(CARDS)}")
        if not 0 < price < float("inf"):
            raise UserError(f"--price {key}={price}: dollars an hour, more than 0")
    return {key: dataclasses.replace(c, price=prices.get(key, c.price)) for key, c in CARDS.items()}


def _in(precision: str, card: Card, rates: Rates) -> Rates:
    return rates.in_float32(card) if precision == "float32" else rates


def _device(
    gpu: str, gpus: int, cards: Mapping[str, Card], calibration: Calibration | None
) -> tuple[Card, Rates]:
    """Return the kind of GPU asked for and its rates; or this machine's processor and those of its benchmark."""
    if gpu == "cpu":
        if gpus != 1:
            raise UserError(f"--gpu cpu --gpus {gpus}: one machine's processor counts as 1")
        if calibration is None or calibration.card is not None:
            raise UserError(
                "--gpu cpu needs --calibrate FILE, rows of `bytegen bench kernels --device cpu --json FILE`"
            )
        memory = total_memory()
        if memory is None:
            raise UserError("--gpu cpu: this system does not say how much memory it has")
        card = Card(calibration.device, calibration.products, calibration.bandwidth, memory)
        return card, calibration.rates(None)
    if gpu not in cards:
        raise UserError(f"no GPU {gpu!r}; there are {', '.join(cards)}, and cpu with --calibrate")
    return cards[gpu], calibration.rates(cards[gpu]) if calibration else assumed(cards[gpu])
