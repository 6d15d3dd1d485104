"""Runs executables in the sandbox and holds what they did against the oracle."""

from collections.abc import Sequence
from dataclasses import dataclass

from bytegen.errors import UserError
from bytegen.sandbox import run
from bytegen.train.corpus.program import Behaviour, Params, Program

MAX_INSTRUCTIONS = 20_000_000
MAX_OUTPUT = 1 << 16
SECONDS = 20.0
"""Limits of one run; programs of the corpus stay far below them."""


class OracleMismatch(UserError):
    """A program of the corpus did not do what its oracle says."""


@dataclass(frozen=True)
class Observation:
    """What a run showed; `trouble` names the fault or the limit, empty when it exited by itself."""

    stdout: bytes
    exit_code: int | None
    slept_ns: int
    trouble: str


def observe(data: bytes, stdin: bytes) -> Observation:
    """Runs `data` in the sandbox on `stdin`."""
    result = run(data, stdin=stdin, max_instructions=MAX_INSTRUCTIONS, max_output=MAX_OUTPUT, timeout=SECONDS)
    trouble = "" if result.ok else result.ending
    return Observation(result.stdout, result.exit_code, result.slept_ns, trouble)


def observe_all(jobs: Sequence[tuple[bytes, bytes]]) -> list[Observation]:
    """Runs several (executable, stdin); the unit of work that executors get."""
    return [observe(data, stdin) for data, stdin in jobs]


def agrees(seen: Observation, expected: Behaviour) -> bool:
    """Whether the run is exactly the behaviour: output, exit code and, where given, the time slept."""
    return (
        not seen.trouble
        and seen.stdout == expected.stdout
        and seen.exit_code == expected.exit_code
        and (expected.slept_ns is None or seen.slept_ns == expected.slept_ns)
    )


def require(program: Program, params: Params, stdin: bytes, expected: Behaviour, seen: Observation) -> None:
    """Raises OracleMismatch, naming all of it, unless the run is exactly the behaviour."""
    if not agrees(seen, expected):
        raise OracleMismatch(
            f"{program.name}{params} on stdin {stdin!r}: expected {expected}, the sandbox saw {seen}"
        )
