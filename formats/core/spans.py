"""What a constraint has read, span by span, and which bytes had one choice only."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bytegen.formats.core.masks import END
from bytegen.formats.core.records import RecordsStep
from bytegen.formats.core.steps import FreeStep, IntStep, Step, StreamStep

if TYPE_CHECKING:
    from bytegen.formats.core.constraint import Constraint
    from bytegen.formats.core.intset import IntSet


class Field(NamedTuple):
    """Bytes [start, end) of the file: what they are, how many of them had one choice only, and the rule."""

    start: int
    end: int
    path: str
    value: int | None
    forced: int
    rule: str = ""


def only_byte(mask: np.ndarray) -> int | None:
    """The byte of a mask that allows one byte and nothing else."""
    chosen = mask.nonzero()[0]
    return int(chosen[0]) if len(chosen) == 1 and chosen[0] != END else None


def fields(c: Constraint, last: Step, data: bytes) -> list[Field]:
    """The spans up to ``last``, the step under the cursor of ``c``, which has read ``data``."""
    spans: list[Field] = []
    position = len(data)
    flags = forced_flags(c, last, data)
    steps, _ = chain(last)
    for i, step in enumerate(steps):
        end = min(step.stop, position, steps[i + 1].start if i + 1 < len(steps) else position)
        if end <= step.start:
            continue
        if isinstance(step, RecordsStep):
            spans += _record_fields(step, data[:end], flags)
        elif isinstance(step, IntStep):
            value = int.from_bytes(data[step.start : end], "little") if end == step.stop else None
            forced = int(flags[step.start : end].sum())
            spans.append(Field(step.start, end, step.path, value, forced, step.rule))
        elif spans and spans[-1].path == step.path:
            forced = spans[-1].forced + int(flags[step.start : end].sum())
            spans[-1] = spans[-1]._replace(end=end, value=None, forced=forced)
        else:
            forced = int(flags[step.start : end].sum())
            spans.append(Field(step.start, end, step.path, None, forced, step.rule))
    return spans


def code_spans(last: Step, position: int) -> list[tuple[int, int]]:
    """The ranges (start, end) of instructions up to ``last``, the step under a cursor at ``position``."""
    found = []
    steps, _ = chain(last)
    for step, after in zip(steps, [*steps[1:], None], strict=True):
        if isinstance(step, StreamStep):
            end = min(step.stop, position)
            if after is not None and after.start < end:
                end = after.start - 2  # lists of addresses, which begin with two bytes of ones, take the rest
            if step.start < end:
                found.append((step.start, end))
    return found


def _record_fields(step: RecordsStep, data: bytes, flags: np.ndarray) -> list[Field]:
    spans = []
    at = step.start
    while at < len(data):
        path, rule = step.name(at)
        size = step.cell(at)[1].size
        end = min(at + size, len(data))
        value = int.from_bytes(data[at:end], "little") if end == at + size else None
        spans.append(Field(at, end, path, value, int(flags[at:end].sum()), rule))
        at = end
    return spans


def forced_flags(c: Constraint, last: Step, data: bytes) -> np.ndarray:
    """bool[len(data) + 1]: which bytes had one choice only; the last entry: the end here has.

    Free bytes are never forced. Those of instructions are walked again, which costs what reading them did.
    """
    position = len(data)
    flags = np.zeros(position + 1, dtype=bool)
    streams = []
    written = bytearray(data)
    steps, _ = chain(last)
    for step in steps:
        if isinstance(step, FreeStep):
            continue
        if isinstance(step, StreamStep):
            streams.append(step)
        elif isinstance(step, IntStep):
            _flag_field(step.start, step.choices, data, flags)
        else:
            at = step.start
            while at < min(step.stop, position):
                start, size, choices = step.choices(at, written)
                _flag_field(start, choices, data, flags)
                at = start + size
    for step in reversed(streams):
        after = [other.start for other in steps if other.start > step.start]
        _flag_stream(c.fork(), step, min([step.stop, position, *after[:1]]), data, flags)
    mask = c.mask()
    flags[-1] = bool(mask[END]) and not mask[:END].any()
    return flags


def _flag_field(start: int, choices: IntSet, data: bytes, flags: np.ndarray) -> None:
    if choices.full:
        return
    raw = data[start : start + choices.size]
    if choices.only is not None:
        flags[start : start + len(raw)] = True
        return
    for k in range(len(raw)):
        prefix = int.from_bytes(raw[:k], "little")
        flags[start + k] = only_byte(choices.mask(k, prefix)) is not None


def _flag_stream(twin: Constraint, step: StreamStep, stop: int, data: bytes, flags: np.ndarray) -> None:
    twin.rollback(twin.position + twin.done - step.start)
    for at in range(step.start, stop):
        flags[at] = only_byte(twin.mask()) is not None
        twin.advance(data[at])


def chain(step: Step | None) -> tuple[list[Step], bool]:
    """The steps from the first to this one, and whether some may be missing between them."""
    steps: list[Step] = []
    missing = False
    while step is not None:
        missing = missing or (step.parent is not None and step.parent.stop != step.start)
        steps.append(step)
        step = step.parent
    return steps[::-1], missing


def before(step: Step, count: int) -> tuple[Step, int]:
    """The step so many before this one, or the last that none is missing after, and how far back it is."""
    for back in range(count):
        if step.parent is None or step.parent.stop != step.start:
            return step, back
        step = step.parent
    return step, count
