"""Steps: the places of a file between which the format's rules run.

A format is a function from one step to the next. A step is either one little-endian integer with the exact
set of its values, or a run of bytes that nothing constrains. Steps are immutable and linked to their
predecessor, so that a fork shares them and a rollback walks back.
"""

from __future__ import annotations

from collections.abc import Callable

from bytegen.formats.core.intset import IntSet


class IntStep:
    """One integer of ``size`` bytes at offset ``start``, one of ``choices``."""

    __slots__ = ("choices", "parent", "path", "rule", "size", "start", "then")

    def __init__(
        self,
        start: int,
        size: int,
        choices: IntSet,
        path: str,
        rule: str,
        then: Callable[[int, bytearray], Step],
    ) -> None:
        self.parent: Step | None = None
        self.start = start
        self.size = size
        self.choices = choices
        self.path = path
        self.rule = rule
        self.then = then


class FreeStep:
    """Any bytes from ``start`` to ``stop``; from ``end_from`` on (None: nowhere) the file may end.

    ``then`` gives the step that begins at ``stop``; None where ``stop`` is the length limit, which only the
    end of the file can follow.
    """

    __slots__ = ("end_from", "parent", "path", "rule", "start", "stop", "then")

    def __init__(
        self,
        start: int,
        stop: int,
        end_from: int | None,
        path: str,
        rule: str,
        then: Callable[[bytearray], Step] | None,
    ) -> None:
        self.parent: Step | None = None
        self.start = start
        self.stop = stop
        self.end_from = end_from
        self.path = path
        self.rule = rule
        self.then = then


Step = IntStep | FreeStep
