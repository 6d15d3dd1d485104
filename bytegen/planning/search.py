"""What fits: every way to lay a step or files on GPUs, with what each GPU keeps in reserve, and what clusters cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bytegen.cards import Card
from bytegen.config import ModelConfig
from bytegen.planning.decoding import GenerationMemory, generation_memory
from bytegen.planning.optimizers import Optimizer
from bytegen.planning.precision import training_precision
from bytegen.planning.rates import Rates
from bytegen.planning.times import (
    FileSeconds,
    StepSeconds,
    generation_seconds,
    training_seconds,
)
from bytegen.planning.training import Layout, Moment, training_moments, training_peak

CONTEXT_BYTES = 1_000_000_000
"""Kept back on each GPU for what torch does not count: CUDA's context, kernels, workspaces of cuBLAS."""
COLLECTIVES_BYTES = 1_000_000_000
"""Kept back where GPUs send each other something: NCCL's buffers."""
FRAGMENTATION = 0.05
"""Share of what is allocated that the caching allocator loses between its blocks."""
COUNTS = (1, 2, 4, 8, 16, 32, 64)
"""Sizes of clusters that are tried: parts of a node, then whole nodes of eight."""
_MOST_FILES = 1024


def reserve_bytes(allocated: int, gpus: int) -> int:
    """Return what one of so many GPUs keeps back beside what torch allocates."""
    return CONTEXT_BYTES + (COLLECTIVES_BYTES if gpus > 1 else 0) + int(FRAGMENTATION * allocated)


@dataclass(frozen=True, kw_only=True)
class TrainingOption:
    """One way to train: its layout, what a GPU holds at its peak, and the seconds of a step."""

    layout: Layout
    recompute: bool
    moments: tuple[Moment, ...]
    reserve: int
    available: int
    seconds: StepSeconds

    @property
    def peak(self) -> Moment:
        """The moment at which a GPU holds the most."""
        return training_peak(self.moments)

    def most(self, part: str) -> int:
        """Return the bytes of a part at its own most, whenever that is."""
        return max(moment.parts[part] for moment in self.moments)

    @property
    def needed(self) -> int:
        """Bytes that a GPU must have."""
        return self.peak.total + self.reserve

    @property
    def fits(self) -> bool:
        """Whether it has them."""
        return self.needed <= self.available


def layouts(length: int, batch: int, gpus: int) -> Iterator[Layout]:
    """Yield every split of `gpus` into data groups, each with sequences of its own, and GPUs that share a sequence."""
    for data in range(1, min(batch, gpus) + 1):
        if gpus % data == 0 and batch % data == 0 and gpus // data <= length:
            yield Layout(length=length, batch=batch, data=data, context=gpus // data)


def training_options(
    config: ModelConfig, *, length: int, batch: int, gpus: int, memory: int, precision: str, optimizer: Optimizer,
    rates: Rates, on_gpu: bool = True,
) -> list[TrainingOption]:  # fmt: skip
    """Return all ways to train on so many GPUs of `memory` bytes: those that fit first, the fastest at the front."""
    numbers = training_precision(precision, gpus)
    found = []
    for layout in layouts(length, batch, gpus):
        for recompute in (False, True):
            moments = training_moments(config, layout, numbers, optimizer, recompute=recompute, on_gpu=on_gpu)
            found.append(
                TrainingOption(
                    layout=layout, recompute=recompute, moments=tuple(moments),
                    reserve=reserve_bytes(training_peak(moments).total, gpus),
                    available=memory,
                    seconds=training_seconds(config, layout, numbers, optimizer, rates, recompute=recompute),
                )
            )  # fmt: skip
    # Equal in three digits is as fast; the one that takes less memory comes first then.
    return sorted(
        found, key=lambda o: (not o.fits, float(f"{o.seconds.total:.3g}") if o.fits else 0.0, o.needed)
    )


@dataclass(frozen=True, kw_only=True)
class GenerationOption:
    """Writing files: what a GPU that holds a whole model takes, and the seconds of `batch` files side by side."""

    precision: str
    batch: int
    most_files: int
    memory: GenerationMemory
    reserve: int
    available: int
    seconds: FileSeconds

    @property
    def needed(self) -> int:
        """Bytes that a GPU must have."""
        return self.memory.total + self.reserve

    @property
    def fits(self) -> bool:
        """Whether it has them."""
        return self.needed <= self.available


def _needed(config: ModelConfig, length: int, batch: int, precision: str) -> int:
    total = generation_memory(config, length, batch=batch, precision=precision).total
    return total + reserve_bytes(total, 1)


def most_files(config: ModelConfig, length: int, memory: int, precision: str) -> int:
    """Return how many files fit side by side into `memory` bytes (1,024 at most, 0 when not even one does)."""
    low, high = 0, _MOST_FILES + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _needed(config, length, middle, precision) <= memory else (low, middle)
    return low


def generation_option(
    config: ModelConfig, *, length: int, batch: int, memory: int, precision: str, rates: Rates,
    bytes_per_step: float = 1.0, stored: int | None = None,
) -> GenerationOption:  # fmt: skip
    """Return what writing `batch` files at once takes on one GPU of `memory` bytes."""
    found = generation_memory(config, length, batch=batch, precision=precision)
    return GenerationOption(
        precision=precision, batch=batch, most_files=most_files(config, length, memory, precision), memory=found,
        reserve=reserve_bytes(found.total, 1), available=memory,
        seconds=generation_seconds(
            config, length, rates, batch=batch, precision=precision, bytes_per_step=bytes_per_step, stored=stored
        ),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A cluster on which the work fits: dollars an hour, hours and dollars in all."""

    card: str
    gpus: int
    hourly: float
    hours: float
    how: str

    @property
    def cost(self) -> float:
        """Dollars for the whole work."""
        return self.hourly * self.hours


def training_offers(
    config: ModelConfig, cards: Mapping[str, tuple[Card, Rates]], *, length: int, batch: int, precision: str,
    optimizer: Optimizer, tokens: float,
) -> list[Offer]:  # fmt: skip
    """Return the clusters that train on `tokens` tokens, the cheapest in all first."""
    offers = []
    for key, (card, rates) in cards.items():
        for gpus in COUNTS:
            options = training_options(
                config, length=length, batch=batch, gpus=gpus, memory=int(card.memory), precision=precision,
                optimizer=optimizer, rates=rates,
            )  # fmt: skip
            if options and options[0].fits:
                best = options[0]
                hours = tokens / (batch * length) * best.seconds.total / 3600
                offers.append(
                    Offer(card=key, gpus=gpus, hourly=gpus * card.price, hours=hours, how=described(best))
                )
    return sorted(offers, key=lambda offer: offer.cost)


def generation_offers(
    config: ModelConfig, cards: Mapping[str, tuple[Card, Rates]], *, length: int, batch: int, precision: str,
    files: int, bytes_per_step: float = 1.0,
) -> list[Offer]:  # fmt: skip
    """Return the single GPUs that write `files` files, `batch` at once, the cheapest in all first.

    More GPUs write as many times more at the same cost, each with a whole model of its own.
    """
    offers = []
    for key, (card, rates) in cards.items():
        option = generation_option(
            config, length=length, batch=batch, memory=int(card.memory), precision=precision, rates=rates,
            bytes_per_step=bytes_per_step,
        )  # fmt: skip
        if option.fits:
            hours = -(-files // batch) * option.seconds.total / 3600
            how = f"{batch} side by side in {precision}"
            offers.append(Offer(card=key, gpus=1, hourly=card.price, hours=hours, how=how))
    return sorted(offers, key=lambda offer: offer.cost)


def described(option: TrainingOption) -> str:
    """Return a few words on how an option lies on its GPUs."""
    layout = option.layout
    split = "one GPU" if layout.gpus == 1 else f"FSDP {layout.gpus}, context {layout.context}"
    return f"{split}, {'recomputing' if option.recompute else 'keeping all'}"
