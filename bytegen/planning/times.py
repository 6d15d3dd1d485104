"""Seconds of a training step and of a file, from FLOPs, bytes and the rates of a device."""

from __future__ import annotations

from dataclasses import dataclass

from bytegen.cards import NODE
from bytegen.config import ModelConfig
from bytegen.planning.activations import widths
from bytegen.planning.decoding import value_bytes, weight_bytes, widened
from bytegen.planning.flops import (
    BACKWARD_ATTENTION,
    BACKWARD_PRODUCTS,
    forward_flops,
    product_flops,
    recomputed_products,
    seen_pairs,
)
from bytegen.planning.optimizers import Optimizer, state_bytes, step_flops
from bytegen.planning.precision import Precision
from bytegen.planning.rates import Rates
from bytegen.planning.training import Layout


@dataclass(frozen=True)
class StepSeconds:
    """Where the time of a training step goes; what GPUs send each other runs beside what they compute."""

    products: float
    attention: float
    small: float
    update: float
    communication: float

    @property
    def total(self) -> float:
        """The step: the slower of computing and sending, then the update."""
        return max(self.products + self.attention + self.small, self.communication) + self.update


def training_seconds(
    config: ModelConfig,
    layout: Layout,
    precision: Precision,
    optimizer: Optimizer,
    rates: Rates,
    *,
    recompute: bool,
) -> StepSeconds:
    """Return the seconds of one step; work is taken to lie evenly on the GPUs."""
    share = layout.batch / layout.gpus
    f = forward_flops(config, layout.length)
    forwards = 2.0 if recompute else 1.0
    again = recomputed_products(config, layout.length) if recompute else 0.0
    forward = f.products + layout.length * config.mtp_flops()
    products = (forward * (1 + BACKWARD_PRODUCTS) + again) * share / rates.products
    attention = sum(
        flops * share * (forwards / ahead + BACKWARD_ATTENTION / back)
        for flops, ahead, back in zip((f.local, f.whole), rates.forward, rates.backward, strict=True)
    )
    return StepSeconds(
        products=products,
        attention=attention,
        small=_small_bytes(config, precision) * layout.rows * (forwards + 1.5) / rates.bandwidth,
        update=_update_seconds(config, optimizer, rates, layout.gpus),
        communication=_communication(config, layout, precision, rates, forwards),
    )


def _small_bytes(config: ModelConfig, precision: Precision) -> float:
    """Bytes a token that norms, residuals, rotary embedding, gate and taps move in one forward."""
    q, kv = widths(config)
    taps = config.conv_taps if config.conv_taps > 1 else 0
    stream = (2 * 2 + 2 * 3 + 4 * taps) * config.dim * precision.stream
    return float(config.n_layers * (stream + (2 * (q + kv) + 3 * config.ffn_dim) * precision.compute))


def _update_seconds(config: ModelConfig, optimizer: Optimizer, rates: Rates, gpus: int) -> float:
    # Gradients are read for the norm, scaled, and read again; weights and moments read and written.
    moved = 4.0 * 6 * config.n_params() + 2.0 * state_bytes(config, optimizer)
    return (moved / rates.bandwidth + step_flops(config, optimizer) / rates.products) / gpus


def _communication(
    config: ModelConfig, layout: Layout, precision: Precision, rates: Rates, forwards: float
) -> float:
    """Seconds that one GPU sends: shards of weights and gradients, halos and gathered keys and values."""
    gpus = layout.gpus
    if gpus == 1:
        return 0.0
    rate = rates.link if gpus <= NODE else rates.network
    if not rate:
        return 0.0
    others = (gpus - 1) / gpus
    weights = config.n_params() * (2 * precision.compute + 4) * others  # gathered twice, gradients reduced
    _, kv = widths(config)
    own = layout.rows
    foreign = sum(layout.key_rows(w) - own for w in config.windows()) if layout.context > 1 else 0
    # Forwards bring keys and values; the backward brings them once more and sends their gradients back.
    halos = 2.0 * kv * foreign * precision.compute * (forwards + 1)
    inside = rates.link if layout.context <= NODE else rates.network
    return weights / rate + halos / inside


@dataclass(frozen=True)
class FileSeconds:
    """The time of one file: seconds to read its prompt are left out, for it is short."""

    weights: float
    attention: float
    launches: float
    host: float
    steps: float

    @property
    def total(self) -> float:
        """Seconds from the first byte to the last; `batch` files are ready then."""
        return self.weights + self.attention + self.launches + self.host


def generation_seconds(
    config: ModelConfig, length: int, rates: Rates, *, batch: int = 1, precision: str = "bfloat16",
    bytes_per_step: float = 1.0, stored: int | None = None,
) -> FileSeconds:  # fmt: skip
    """Return the seconds to write `batch` files of `length` bytes side by side.

    `bytes_per_step` counts the bytes of one file that a step brings (drafts and forced runs make it more than one);
    `stored` are the bytes of a weight where the decoder holds them otherwise than `precision`, as the C decoder does.
    """
    steps = length / bytes_per_step
    held = weight_bytes(config, precision) if stored is None else stored * config.n_params()
    if precision == "int8" and stored is None:
        held += 4 * widened(config)[0]  # written in bfloat16, and read again
    products = bytes_per_step * product_flops(config) + config.mtp_flops()
    step = max(held / rates.bandwidth, batch * products / rates.products)
    q, kv = widths(config)
    attention = 0.0
    for window in config.windows():
        kind = 0 if window is not None else 1
        pairs = seen_pairs(length, window)
        moved = 2.0 * kv * pairs / bytes_per_step * value_bytes(precision)
        attention += batch * max(moved / rates.cache[kind], 4.0 * q * pairs / rates.products)
    return FileSeconds(
        weights=steps * step, attention=attention, launches=steps * (config.n_layers * rates.launch + rates.step),
        host=steps * batch * rates.host, steps=steps,
    )  # fmt: skip
