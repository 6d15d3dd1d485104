"""What a file does: a run in the emulator for each input, and the behaviour that they show together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bytegen import sandbox
from bytegen.errors import UserError

EMULATED = "elf64-x86_64"
"""The one format that the emulator runs."""

PROBES = (
    b"",
    b"7\n",
    b"12 -5 30\n4\n",
    b"Hello world\nthe quick brown fox, 42 times\n",
)
"""Inputs on which files are told apart where the caller gives none: nothing, a number, several numbers, text."""

MAX_INSTRUCTIONS = 20_000_000
MAX_OUTPUT = 1 << 16
TIMEOUT = 10.0
"""Limits of one run: instructions, bytes, seconds. The first two strike alike on every machine."""

Behaviour = tuple[tuple[bytes, bytes, int, int], ...]
"""Standard output, standard error, exit code and nanoseconds slept (virtual), for each input."""


@dataclass(frozen=True)
class Trial:
    """A run for each input; or none, and why the loader refuses the file."""

    runs: tuple[sandbox.Result, ...] = ()
    refusal: str = ""

    @property
    def loads(self) -> bool:
        """Whether the emulator's loader takes the file, as Linux would; False for one that was not tried."""
        return bool(self.runs)

    @property
    def exits(self) -> bool:
        """Whether every run ended by itself: no fault, no limit."""
        return self.loads and all(run.ok for run in self.runs)

    @property
    def behaviour(self) -> Behaviour | None:
        """What was observed on all inputs; None where a run did not end by itself."""
        if not self.exits:
            return None
        return tuple((run.stdout, run.stderr, run.exit_code or 0, run.slept_ns) for run in self.runs)


def try_out(data: bytes, stdins: Sequence[bytes]) -> Trial:
    """Run a file on every input, in this thread's emulator process."""
    try:
        return Trial(
            tuple(
                sandbox.run(
                    data,
                    stdin=stdin,
                    max_instructions=MAX_INSTRUCTIONS,
                    max_output=MAX_OUTPUT,
                    timeout=TIMEOUT,
                )
                for stdin in stdins
            )
        )
    except UserError as error:
        return Trial(refusal=str(error))
