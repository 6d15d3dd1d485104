"""How fast a device is: shares of a card's data sheet that are assumed, or what a benchmark measured on a machine.

`bytegen bench kernels --json FILE` measures products, copying, attention and decoding; `bytegen bench generate --json
FILE` what the engine adds to a step. Rows of both may stand in one file.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bytegen.cards import CARDS, NETWORK, Card
from bytegen.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What a device reaches: FLOP/s, bytes/s, and seconds that a step costs beside them.

    `forward` and `backward` are attention's, `cache` what decoding reads keys and values at; the first of each is of
    local layers, the second of global ones. A step of decoding pays `step`, `launch` for each layer and `host` for each
    file in it.
    """

    name: str
    source: str
    calibrated: bool
    products: float
    forward: tuple[float, float]
    backward: tuple[float, float]
    bandwidth: float
    cache: tuple[float, float]
    link: float
    network: float
    launch: float
    step: float
    host: float

    def in_float32(self, card: Card) -> Rates:
        """Return the rates of products in float32, in proportion to the card's peaks; a CPU's are so already."""
        if not card.flops_float32:
            return self
        ratio = card.flops_float32 / card.flops
        ahead, back = (tuple(ratio * rate for rate in pair) for pair in (self.forward, self.backward))
        return dataclasses.replace(
            self, products=ratio * self.products, forward=(ahead[0], ahead[1]), backward=(back[0], back[1])
        )


@dataclass(frozen=True)
class Shares:
    """Shares of a card's peaks that programs reach; see `Rates` for the names."""

    products: float
    forward: tuple[float, float]
    backward: tuple[float, float]
    bandwidth: float
    cache: tuple[float, float]


# Products: cuBLAS on an H100 gives 600-750 of 989 TFLOP/s in bfloat16 at these sizes. Attention: FlexAttention, which
# is written in Triton as ours is, gives 401-408 forward there, FlashAttention-2 337 backward (the figures of
# FlashAttention-3's paper, Shah et al. 2024). Reading memory in order gives nine tenths of its peak or less.
ASSUMED = Shares(0.68, (0.41, 0.41), (0.34, 0.34), 0.80, (0.50, 0.70))
LAUNCH = 14 * 5e-6
"""Seconds a layer of a step: 14 kernels that Python launches one by one, 5 microseconds each."""
LINKED = 0.75
"""Share of a link that collectives reach; NCCL's all-gather gives 330-370 of 450 GB/s on an H100 node."""


def assumed(card: Card) -> Rates:
    """Return rates of a card on which nothing was measured."""
    return _of(card, ASSUMED, "shares of the data sheet that are assumed", calibrated=False)


def _of(card: Card, shares: Shares, source: str, *, calibrated: bool) -> Rates:
    def both(pair: tuple[float, float], peak: float) -> tuple[float, float]:
        return pair[0] * peak, pair[1] * peak

    return Rates(
        name=card.name, source=source, calibrated=calibrated, products=shares.products * card.flops,
        forward=both(shares.forward, card.flops), backward=both(shares.backward, card.flops),
        bandwidth=shares.bandwidth * card.bandwidth, cache=both(shares.cache, card.bandwidth),
        link=LINKED * card.link, network=LINKED * NETWORK, launch=LAUNCH, step=0.0, host=0.0,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What a benchmark file says of the machine it was made on."""

    source: str
    device: str
    card: str | None  # its key in `CARDS`; None for a CPU, or a GPU that the table lacks
    products: float
    bandwidth: float
    forward: tuple[float, float]
    backward: tuple[float, float]
    cache: tuple[float, float]
    step: float = 0.0
    host: float = 0.0

    def rates(self, card: Card | None) -> Rates:
        """Return the rates of a card: those measured, or, for another card, their shares of the data sheets' peaks.

        None stands for the machine of the file itself.
        """
        own = CARDS.get(self.card or "")
        if card is None or card == own:
            launch = 0.0 if self.card is None else LAUNCH
            link, network = (LINKED * own.link, LINKED * NETWORK) if own else (0.0, 0.0)
            return Rates(
                name=self.device, source=self.source, calibrated=True, products=self.products, forward=self.forward,
                backward=self.backward, bandwidth=self.bandwidth, cache=self.cache, link=link, network=network,
                launch=launch, step=self.step, host=self.host,
            )  # fmt: skip
        if own is None:
            return assumed(card)
        shares = Shares(
            self.products / own.flops, _over(self.forward, own.flops), _over(self.backward, own.flops),
            self.bandwidth / own.bandwidth, _over(self.cache, own.bandwidth),
        )  # fmt: skip
        source = f"shares of the peaks that {self.source} measured on {self.device}"
        return dataclasses.replace(
            _of(card, shares, source, calibrated=False), step=self.step, host=self.host
        )


def _over(pair: tuple[float, float], peak: float) -> tuple[float, float]:
    return pair[0] / peak, pair[1] / peak


def read_calibration(path: Path) -> Calibration:
    """Read a benchmark file; UserError where it cannot be read, or lacks what times are made of."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise UserError(
                f"{path} line {number} is no JSON object; `bytegen bench kernels --json` writes such lines"
            )
        rows.append(row)
    try:
        return calibration(rows, path.name)
    except KeyError as error:
        raise UserError(
            f"{path} has no row of {error.args[0]}; `bytegen bench kernels --json FILE` measures all that is needed"
        ) from None


def _positive(row: Mapping[str, Any], key: str) -> float | None:
    value = row.get(key)
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")
    return float(value) if good and value is not None else None


def calibration(rows: Iterable[Mapping[str, Any]], source: str) -> Calibration:
    """Make rates of rows: medians over the sizes measured. KeyError names a kind that has no row."""
    rows = list(rows)
    ours = [r for r in rows if r.get("measure") == "kernel" and r.get("implementation") == "bytegen"]

    def rate(kind: str, label: str, key: str) -> float:
        found = [
            value for r in ours if r.get("kind") == kind and str(r.get("label", "")).startswith(label)
            if (value := _positive(r, key)) is not None
        ]  # fmt: skip
        if not found:
            raise KeyError(f"{kind}, {label}")
        return median(found)

    def both(kind: str, key: str) -> tuple[float, float]:
        return rate(kind, "local", key), rate(kind, "global", key)

    def ceiling(key: str) -> float:
        found = [value for r in ours if (value := _positive(r, key)) is not None]
        if not found:
            raise KeyError(f"kernels with {key}")
        return median(found)

    forward, backward = (
        both("attention forward", "flops_per_second"),
        both("attention backward", "flops_per_second"),
    )
    device = next((str(r["device"]) for r in ours if r.get("device")), "")
    on_cpu = all(r.get("memory") is None for r in ours)
    if not device or device == "cpu":
        device = str(ours[0].get("cpu", "a CPU")) if on_cpu else "a GPU"
    card = (
        None
        if on_cpu
        else next((key for key in CARDS if key in device.lower().replace("-", " ").split()), None)
    )
    bandwidth = ceiling("ceiling_bandwidth")
    # On a CPU the rows of decoding are the torch twin's; the C decoder, which writes files, reads as memory gives.
    cache = (bandwidth, bandwidth) if on_cpu else both("decode", "bytes_per_second")
    step, host = _engine(rows, bandwidth)
    return Calibration(
        source=source, device=device, card=card, products=ceiling("ceiling_flops"), bandwidth=bandwidth,
        forward=forward, backward=backward, cache=cache, step=step, host=host,
    )  # fmt: skip


def _engine(rows: Iterable[Mapping[str, Any]], bandwidth: float) -> tuple[float, float]:
    """Seconds that a step costs beside reading its weights, and a file in it outside the model; 0 without rows.

    By rows of `bytegen bench generate` without drafts: the first by those of one file, whose weights the C decoder
    holds in two bytes each.
    """
    steps, hosts = [], []
    for row in rows:
        if row.get("bench") != "generate" or row.get("drafts") or row.get("precision", "fp32") != "fp32":
            continue
        speed, per_step, share, batch, params = (
            _positive(row, key) for key in ("bytes_per_second", "bytes_per_step", "model", "batch", "params")
        )
        if speed and per_step and share:
            # So many files take a step together, each `per_step` bytes of it: what a file costs in one is this.
            hosts.append(per_step / speed * max(0.0, 1.0 - share))
            if batch == 1 and params:
                steps.append(max(0.0, per_step / speed * share - 2 * params / bandwidth))
    return median(steps) if steps else 0.0, median(hosts) if hosts else 0.0
