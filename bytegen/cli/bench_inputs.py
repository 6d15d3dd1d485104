"""What `bytegen bench formats` is timed on: compiled programs, files of this system, random walks."""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from bytegen.cli.check import read_regular_file
from bytegen.errors import UserError

_TOOLS = ("true", "env", "ls", "sort")
_MOST_LIBRARIES = 6
_MOST_BYTES = 400_000


class Input(NamedTuple):
    """A file to walk: its name, its format, its bytes."""

    name: str
    format: str
    data: bytes


def compiled(folder: Path, names: Collection[str]) -> Iterator[Input]:
    """The programs of these names that the compilers at hand make."""
    from bytegen.formats.oracles.compilers import compiled_programs

    for recipe, data in compiled_programs(folder, names=names):
        yield Input(recipe.name, recipe.format, data)


def named(path: Path) -> Input:
    """A file that the user names; `UserError` where it is of no format there is."""
    from bytegen import formats

    data = read_regular_file(path)
    format_name = formats.detect(data)
    if format_name not in formats.available():
        raise UserError(f"{path}: not a file of {', '.join(formats.available())}")
    return Input(path.name, str(format_name), data)


def of_this_system() -> Iterator[Input]:
    """A few programs of this system, and the smaller libraries that this process has mapped."""
    tools = [Path(found).resolve() for found in map(shutil.which, _TOOLS) if found]
    maps = Path("/proc/self/maps")
    lines = maps.read_text().splitlines() if sys.platform == "linux" and maps.exists() else []
    mapped = {Path(line.split(maxsplit=5)[5]) for line in lines if ".so" in line and "/" in line}
    system = [path for path in mapped if path.is_file() and path.parts[1] in ("lib", "lib64", "usr")]
    system.sort(key=lambda path: (path.stat().st_size, path))
    for path in (*tools, *system[:_MOST_LIBRARIES]):
        if path.stat().st_size <= _MOST_BYTES:
            try:
                yield named(path)
            except UserError:  # a script, or another machine's
                continue


def random_walk(format_name: str, level: str, seed: int, size: int) -> Input:
    """A file drawn uniformly inside the masks that ends where it must, so that it has about ``size`` bytes."""
    from bytegen import formats

    constraint = formats.constraint(
        format_name, max_bytes=max(size, formats.least_bytes(format_name, level)), level=level
    )
    rng = random.Random(f"{format_name} {level} {seed}")
    advance: Callable[[int], None] = constraint.advance
    while not constraint.done:
        free = constraint.free()
        if free:
            constraint.advance_many(rng.randbytes(free))
            continue
        choices = constraint.mask()[: formats.END].nonzero()[0]
        advance(int(rng.choice(choices)) if len(choices) else formats.END)
    return Input(f"{seed}, {constraint.position:,} bytes", format_name, constraint.data)
