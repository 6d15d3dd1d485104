"""What a program of the corpus is, and the registry of all of them."""

import hashlib
import importlib
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from bytegen.errors import UserError

KINDS = (
    "text",
    "sequences",
    "arithmetic",
    "shapes",
    "animations",
    "text-tools",
    "integer-tools",
    "arrays",
    "bitwise",
    "games",
)
"""The kinds of programs, in the order of tables; module `programs.text_tools` holds kind `text-tools`."""

Params = tuple[str, ...]


@dataclass(frozen=True)
class Behaviour:
    """What a run shows: standard output, exit code and the time slept in ns (None: not compared)."""

    stdout: bytes
    exit_code: int = 0
    slept_ns: int | None = None


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program whose machine code is constant and whose parameters are texts in a block at the file's end.

    `draw(rng)` gives the parameters; `phrasings` are format strings that name every parameter as it
    stands in the block ("count from {0} to {1}"); `oracle(params, stdin)` is the exact behaviour;
    `inputs(rng, params)` draws a standard input, None when the program reads nothing.
    """

    name: str
    kind: str
    source: str = field(repr=False)
    block: int
    draw: Callable[[random.Random], Params] = field(repr=False)
    phrasings: tuple[str, ...] = field(repr=False)
    oracle: Callable[[Params, bytes], Behaviour] = field(repr=False)
    inputs: Callable[[random.Random, Params], bytes] | None = field(default=None, repr=False)

    def parameter_block(self, params: Params) -> bytes:
        """The block of `params`: each text closed by NUL, then NULs up to `block` bytes.

        Raises UserError when a text is not printable ASCII or the block is too small.
        """
        for text in params:
            if not text or not all(" " <= letter <= "~" for letter in text):
                raise UserError(f"{self.name}: parameter {text!r} must be printable ASCII")
        texts = b"".join(text.encode("ascii") + b"\0" for text in params)
        if len(texts) > self.block:
            raise UserError(
                f"{self.name}: parameters {list(params)} take {len(texts)} bytes, the block has {self.block}"
            )
        return texts.ljust(self.block, b"\0")

    def prompts(self, params: Params) -> tuple[str, ...]:
        """Every phrasing, with the parameters put in."""
        return tuple(phrasing.format(*params) for phrasing in self.phrasings)

    def stdins(self, rng: random.Random, params: Params, count: int) -> tuple[bytes, ...]:
        """`count` drawn standard inputs, or one empty one when the program reads nothing."""
        if self.inputs is None:
            return (b"",)
        return tuple(self.inputs(rng, params) for _ in range(count))


@lru_cache(maxsize=1)
def all_programs() -> tuple[Program, ...]:
    """Every program, in the order of KINDS. Names are unique."""
    found: list[Program] = []
    for kind in KINDS:
        module = importlib.import_module(f"bytegen.train.corpus.programs.{kind.replace('-', '_')}")
        found += module.PROGRAMS
    names = [program.name for program in found]
    if len(set(names)) != len(names):
        raise ValueError(f"two programs share a name: {sorted(n for n in set(names) if names.count(n) > 1)}")
    return tuple(found)


def program_named(name: str) -> Program:
    """The program called `name`. Raises UserError when there is none."""
    for program in all_programs():
        if program.name == name:
            return program
    raise UserError(f"no program is called {name!r}; there are: {', '.join(p.name for p in all_programs())}")


def programs_of(kinds: Iterable[str]) -> tuple[Program, ...]:
    """The programs of `kinds`, in the order of KINDS. Raises UserError on an unknown kind."""
    wanted = set(kinds)
    unknown = sorted(wanted - set(KINDS))
    if unknown:
        raise UserError(f"unknown kind {', '.join(map(repr, unknown))}; there are: {', '.join(KINDS)}")
    return tuple(program for program in all_programs() if program.kind in wanted)


HELDOUT_SHARE = 0.05
"""Share of behaviours that no training sample shows."""


def split_of(name: str, params: Params) -> str:
    """ "train" or "heldout", by a hash of program and parameters: never drawn, the same in every corpus."""
    digest = hashlib.sha256("\0".join((name, *params)).encode()).digest()
    return "heldout" if int.from_bytes(digest[:8], "big") < HELDOUT_SHARE * 2**64 else "train"
