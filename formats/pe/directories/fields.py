"""Records whose fields come one after another: what most directories are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bytegen.formats.core.intset import IntSet
from bytegen.formats.core.steps import IntStep, Step

Field = tuple[str, int, IntSet, str]  # name, size, values, rule
Done = Callable[[tuple[int, ...], bytearray], Step]


def fields(start: int, path: str, listed: Sequence[Field], then: Done, data: bytearray) -> Step:
    """The fields listed, and then what ``then`` gives for their values."""
    return _field(start, path, listed, 0, (), then, data)


def _field(
    start: int,
    path: str,
    listed: Sequence[Field],
    i: int,
    values: tuple[int, ...],
    then: Done,
    data: bytearray,
) -> Step:
    if i == len(listed):
        return then(values, data)
    name, size, choices, rule = listed[i]
    return IntStep(
        start,
        size,
        choices,
        f"{path}.{name}",
        rule,
        lambda value, data: _field(start + size, path, listed, i + 1, (*values, value), then, data),
    )
