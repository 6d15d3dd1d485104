"""What the headers must know of each data directory: sizes, alignment, and what it reserves at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from bytegen.formats.pe.constants import DIRECTORY_NAMES, MEM_READ
from bytegen.formats.pe.plan import Plan
from bytegen.formats.pe.target import Target


def _whole(target: Target, size: int) -> int:
    return size


def _always(plan: Plan) -> bool:
    return True


class Directory(NamedTuple):
    """A kind of data directory that files may have.

    ``least(target)`` is its smallest Size; others are ``step`` apart, up to ``most``. Its address is a
    multiple of ``align`` (a power of two, at most 256). ``head(target, size)`` bytes from the address on are
    reserved for it alone; its grammar can always complete inside them, and claims whatever else it describes
    as it is read. The section that holds it has ``flags``. ``when(plan)`` says whether the headers so far allow
    it, the directories before it among them. One that is ``in_headers`` lies between the section table and the end of
    the headers instead, where addresses are offsets in the file.
    """

    kind: str
    least: Callable[[Target], int]
    head: Callable[[Target, int], int] = _whole
    step: int | Callable[[Target], int] = 1
    most: int | None = None
    align: int = 4
    flags: int = MEM_READ
    when: Callable[[Plan], bool] = _always
    in_headers: bool = False

    def step_for(self, target: Target) -> int:
        """How far apart its sizes are."""
        return self.step if isinstance(self.step, int) else self.step(target)

    @property
    def number(self) -> int:
        """Its place among the 16 directories."""
        return DIRECTORY_NAMES.index(self.kind)


_directories: dict[int, Directory] = {}


def directory(spec: Directory) -> None:
    """Offer a directory; its grammar is registered with `bytegen.formats.pe.plan.opener` under its kind."""
    if spec.number in _directories:
        raise ValueError(f"directory {spec.kind} is registered twice")
    _directories[spec.number] = spec


def offered(index: int) -> Directory | None:
    """What is known of the directory at that place; None where files leave it out."""
    return _directories.get(index)
