"""Candidates, and which of them is best: what they were asked for first, then the most usual behaviour.

Files whose runs look the same vote for each other (Shi et al. 2022, "Natural Language to Code Translation with
Execution"; Wang et al. 2022, "Self-Consistency"): what many samples agree on is more often right than any one of them.
A file with a run that did not end by itself has no vote.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from bytegen.best.trials import Behaviour, Trial
from bytegen.generation import Output

Example = tuple[bytes, bytes]
"""Standard input, and the standard output that is wanted for it."""

Judge = Callable[[Output], float]
"""A judge of the caller's: the greater the better, and a pass where above 0; True and False are 1 and 0."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A file and how it fared.

    `score` is the judge's, or the share of the examples that it passes, or 1 where it has a vote and 0 else; `votes`
    counts the candidates that behave as this one does, itself too; `first` is the place of the first candidate with
    the same bytes, which alone was run and judged.
    """

    output: Output
    trial: Trial
    score: float
    passes: bool
    first: int
    votes: int = 0

    @cached_property
    def well_formed(self) -> bool:
        """Whether LIEF, capstone and our own rules find nothing wrong; asked when it is read."""
        return self.output.report.ok

    @property
    def behaviour(self) -> Behaviour | None:
        """See `Trial.behaviour`."""
        return self.trial.behaviour


def agrees(stdout: bytes, wanted: bytes) -> bool:
    """Whether an output is the wanted one; line breaks at the end do not count."""
    return stdout.rstrip(b"\r\n") == wanted.rstrip(b"\r\n")


def share_passed(trial: Trial, examples: Sequence[Example]) -> float:
    """Return the share of the examples, the first inputs of the trial, that end by themselves with what is wanted."""
    if not trial.loads:
        return 0.0
    passed = sum(
        run.ok and agrees(run.stdout, wanted)
        for run, (_, wanted) in zip(trial.runs[: len(examples)], examples, strict=True)
    )
    return passed / len(examples)


def count_votes(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return the candidates with their votes."""
    listed = list(candidates)
    seen = Counter(c.behaviour for c in listed if c.behaviour is not None)
    return [replace(c, votes=0 if c.behaviour is None else seen[c.behaviour]) for c in listed]


def ranked(candidates: Sequence[Candidate]) -> list[int]:
    """Return the places of candidates, best first: by score, votes, log probability; then by bytes and place.

    The file at the top does not depend on the order of the candidates.
    """

    def key(place: int) -> tuple[float, int, float, bytes, int]:
        c = candidates[place]
        return (-c.score, -c.votes, -c.output.logprob, c.output.data, place)

    return sorted(range(len(candidates)), key=key)
