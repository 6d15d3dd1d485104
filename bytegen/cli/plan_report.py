"""The tables of `bytegen plan`."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from bytegen.planning import Offer, Plan
from bytegen.planning.flops import forward_flops, training_flops
from bytegen.planning.search import described

_GB = 1e9


def show(plan: Plan) -> None:
    """Print a plan: the model, training, generation, clusters."""
    console = Console(width=None if Console().is_terminal else 150, highlight=False)
    _heading(plan, console)
    if plan.training:
        _training(plan, console)
    if plan.generation:
        _generation(plan, console)
    for title, offers in (
        (
            f"training on {_count(plan.tokens)} tokens, {plan.batch} x {plan.context:,} a step",
            plan.training_offers,
        ),
        (f"{plan.files:,} files of {plan.context:,} bytes", plan.generation_offers),
    ):
        if offers:
            _clusters(title, offers, console)
    if plan.training and plan.gpu != "cpu" and not plan.training_offers:
        console.print("training fits on no cluster of up to 64 GPUs of one kind")


def _heading(plan: Plan, console: Console) -> None:
    c, rates = plan.config, plan.rates
    local = sum(w is not None for w in c.windows())
    console.print(
        f"[bold]{plan.model}[/bold]: {_count(c.n_params())} parameters, {c.n_layers} layers"
        + (f", {local} of them local with a window of {c.window:,}" if local else "")
        + f"; {plan.context:,} positions"
    )
    ahead, back = forward_flops(c, plan.context).total, training_flops(c, plan.context, recompute=False)
    console.print(
        f"FLOPs a byte, mean over {plan.context:,}: {_count(ahead / plan.context)} to read or write, "
        f"{_count(back / plan.context)} to train on"
    )
    label = "calibrated" if rates.calibrated else "an estimate, not calibrated"
    console.print(
        f"{plan.gpus} x {plan.card.name}, {plan.card.memory / _GB:.0f} GB each; times are {label}: {rates.source}"
    )


def _training(plan: Plan, console: Console) -> None:
    numbers = "bfloat16, float32 masters" if plan.precision != "float32" else "float32"
    title = f"training ({numbers}, {plan.optimizer}), batch {plan.batch}: each part at its most, and all at their peak"
    parts = ("parameters", "gradients", "optimiser state", "activations", "whole and cast weights", "update")
    table = Table(
        "GB a GPU", "parameters", "gradients", "optimiser", "activations", "whole layers", "update", "peak", "needed",
        "fits", "s a step", "tokens/s", title=title, title_justify="left",
    )  # fmt: skip
    for option in plan.training:
        seconds = option.seconds.total
        table.add_row(
            described(option), *(f"{option.most(part) / _GB:.2f}" for part in parts), f"{option.peak.total / _GB:.2f}",
            f"{option.needed / _GB:.2f}", _verdict(option.fits), f"{seconds:.3g}",
            f"{plan.batch * plan.context / seconds:,.0f}",
        )  # fmt: skip
    console.print(table)
    best = plan.training[0]
    s = best.seconds
    console.print(
        f"peak of the first: {best.peak.name}; needed: {best.reserve / _GB:.2f} GB more, kept for CUDA, "
        f"collectives and fragments. Of its step products take {s.products:.3g} s, attention {s.attention:.3g}, "
        f"small operations {s.small:.3g}, the update {s.update:.3g}; "
        f"communication, {s.communication:.3g}, runs beside them"
    )


def _generation(plan: Plan, console: Console) -> None:
    table = Table(
        "GB a GPU", "weights", "cache", "other", "reserve", "needed", "fits", "most at once", "seconds", "bytes/s",
        title=f"generation, {plan.batch} side by side on each GPU", title_justify="left",
    )  # fmt: skip
    for option in plan.generation:
        m, seconds = option.memory, option.seconds.total
        table.add_row(
            option.precision, f"{m.weights / _GB:.2f}", f"{m.cache / _GB:.2f}", f"{(m.growth + m.step) / _GB:.2f}",
            f"{option.reserve / _GB:.2f}", f"{option.needed / _GB:.2f}", _verdict(option.fits), str(option.most_files),
            f"{seconds:.4g}", f"{plan.batch * plan.context / seconds:.4g}",
        )  # fmt: skip
    console.print(table)


def _clusters(title: str, offers: Sequence[Offer], console: Console) -> None:
    """The cheapest cluster of each kind, in all and by the hour."""
    table = Table("cluster", "$ an hour", "hours", "$ in all", "how", title=title, title_justify="left")
    cheapest = {
        kind: min((o for o in offers if o.card == kind), key=lambda o: o.cost) for kind in _kinds(offers)
    }
    for offer in cheapest.values():
        _add(table, offer, "")
    hourly = min(offers, key=lambda o: (o.hourly, o.cost))
    if hourly not in cheapest.values():
        _add(table, hourly, " (least an hour)")
    console.print(table)
    best = offers[0]
    console.print(
        f"cheapest in all: {best.gpus} x {best.card}, ${best.cost:,.0f}; by the hour: {hourly.gpus} x {hourly.card}, "
        f"${hourly.hourly:.2f}. Rents are a table's (bytegen/cards.py); --price takes yours"
    )


def _kinds(offers: Sequence[Offer]) -> list[str]:
    return list(dict.fromkeys(offer.card for offer in offers))


def _add(table: Table, offer: Offer, note: str) -> None:
    table.add_row(
        f"{offer.gpus} x {offer.card}{note}",
        f"{offer.hourly:.2f}",
        f"{offer.hours:,.1f}",
        f"{offer.cost:,.0f}",
        offer.how,
    )


def _verdict(fits: bool) -> str:
    return "[green]yes[/green]" if fits else "[red]no[/red]"


def _count(value: float) -> str:
    """A count with the prefix that it reads best with."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= size:
            return f"{value / size:,.3g}{unit}"
    return f"{value:,.0f}"
