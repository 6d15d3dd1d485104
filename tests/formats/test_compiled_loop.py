"""The compiled inner loop and the Python that it is made of give the same masks, bytes and refusals."""

from __future__ import annotations

import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

NAMES = ("branches", "pieces", "constraint", "intset", "masks", "records", "steps", "stream", "written")
CORE = "bytegen.formats.core"


class Pure(importlib.abc.MetaPathFinder):
    """Takes the Python file of a module that has been compiled too."""

    def find_spec(
        self, name: str, path: object = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in {f"{CORE}.{part}" for part in NAMES} or not path:
            return None
        source = Path(next(iter(path)), f"{name.rpartition('.')[2]}.py")  # type: ignore[call-overload]
        return importlib.util.spec_from_file_location(name, source)


def account() -> str:
    """A digest of masks, refusals and bytes along walks through every format, with forks and rollbacks."""
    from bytegen import formats

    seen = hashlib.sha256()
    for name in formats.available():
        for level in formats.levels(name):
            rng = random.Random(f"{name} {level}")
            constraint = formats.constraint(name, max_bytes=6_000, level=level)
            data = formats.sample(name, 3, 6_000, level, "lively")
            at = 0
            while at < len(data):
                mask = constraint.mask()
                seen.update(mask.tobytes())
                other = rng.randrange(257)
                if not mask[other]:
                    with pytest.raises(formats.FormatError) as refused:
                        constraint.advance(other)
                    seen.update(str(refused.value).encode())
                if rng.random() < 0.02:
                    twin, back = constraint.fork(), rng.randrange(min(at, 200) + 1)
                    twin.rollback(back)
                    taken = twin.advance_many(data[at - back : at + 50])
                    seen.update(twin.data[-64:] + bytes([taken & 255]) + twin.mask().tobytes())
                    seen.update(twin.forced() + twin.field().encode())
                constraint.advance(data[at])
                at += 1
            seen.update(constraint.mask().tobytes() + constraint.instruction_starts().tobytes())
            seen.update(repr([tuple(field) for field in constraint.fields()]).encode())
    return seen.hexdigest()


def compiled() -> list[ModuleType]:
    """The compiled modules at hand."""
    modules = [importlib.import_module(f"{CORE}.{name}") for name in NAMES]
    return [module for module in modules if not str(module.__file__).endswith(".py")]


def test_compiled_modules_are_of_the_source_beside_them() -> None:
    if not compiled():
        pytest.skip("nothing is compiled here (no C compiler, or BYTEGEN_PURE)")
    assert len(compiled()) == len(NAMES), "only some modules are compiled: make install"
    for module in compiled():
        binary = Path(str(module.__file__))
        source = binary.with_name(f"{binary.name.partition('.')[0]}.py")
        assert binary.stat().st_mtime >= source.stat().st_mtime, f"{source} has changed: make install"


def test_the_compiled_loop_does_what_the_python_one_does() -> None:
    if not compiled():
        pytest.skip("nothing is compiled here (no C compiler, or BYTEGEN_PURE)")
    pure = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=True, timeout=600)
    assert pure.stdout.split() == [*[f"{name}.py" for name in NAMES], account()]


if __name__ == "__main__":
    sys.meta_path.insert(0, Pure())
    loaded = [importlib.import_module(f"{CORE}.{name}") for name in NAMES]
    print(*(Path(str(module.__file__)).name for module in loaded), account())
