"""What a family of formats does between the things that it reads: open the next promise, or pass over free bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from bytegen.formats.core.ledger import Ledger, Region
from bytegen.formats.core.steps import FreeStep, Step


class Promised(Protocol):
    """What a plan has settled, as far as free bytes are concerned.

    ``limit``: the file is at most this long; ``min_end``: at least this long; ``labels``: (start, end, name) of
    free bytes that have a name, in the order in which they were named.
    """

    @property
    def limit(self) -> int: ...  # noqa: D102
    @property
    def min_end(self) -> int: ...  # noqa: D102
    @property
    def ledger(self) -> Ledger: ...  # noqa: D102
    @property
    def labels(self) -> tuple[tuple[int, int, str], ...]: ...  # noqa: D102


P = TypeVar("P", bound=Promised)


class Grammar(Generic[P]):
    """The grammars of a family's kinds of regions; ``behind`` names the bytes after the last label."""

    def __init__(self, behind: str = "gap") -> None:
        self.openers: dict[str, Callable[[P, Region, bytearray], Step]] = {}
        self._behind = behind

    def opener(
        self, kind: str
    ) -> Callable[[Callable[[P, Region, bytearray], Step]], Callable[[P, Region, bytearray], Step]]:
        """Register the grammar of a kind of region."""

        def register(
            function: Callable[[P, Region, bytearray], Step],
        ) -> Callable[[P, Region, bytearray], Step]:
            self.openers[kind] = function
            return function

        return register

    def proceed(self, plan: P, position: int, data: bytearray) -> Step:
        """The step at ``position``, where nothing is being read: the promise there, or bytes up to the next."""
        region = plan.ledger.after(position)
        if region is not None and region.start == position:
            return self.openers[region.kind](plan, region, data)
        stop = region.start if region is not None else plan.limit
        path = "gap"
        for start, end, name in plan.labels:
            if start <= position < end:
                path, stop = name, min(stop, end)
            elif position < start < stop:
                stop = start
        if path == "gap" and plan.labels and position >= plan.labels[-1][1]:
            path = self._behind
        end_from: int | None = None
        if region is None:
            # The bytes behind all that is promised are free up to the limit, so any length in between can be had.
            end_from = max(plan.min_end, getattr(data, "min_bytes", 0))
            rule = f"the file is at least {end_from} and at most {plan.limit} bytes long"
            if stop == plan.limit:
                return FreeStep(position, stop, end_from, path, rule, None)
        else:
            rule = f"{region.path} is promised at offset {region.start:#x}"
        return FreeStep(position, stop, end_from, path, rule, lambda data: self.proceed(plan, stop, data))
