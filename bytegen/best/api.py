"""`best_of`: candidates in one batch, each run and judged while the others are still being written."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from bytegen.best.candidates import Candidate, Example, Judge, count_votes, ranked, share_passed
from bytegen.best.trials import EMULATED, PROBES, Behaviour, Trial, try_out
from bytegen.decoding import Sampling
from bytegen.errors import UserError
from bytegen.generation import DEFAULT_FORMAT, Output, generate_many

if TYPE_CHECKING:
    from bytegen.decoding.runners import LanguageModel


@dataclass(frozen=True)
class Tally:
    """How it stands so far: candidates written and judged, those that pass, and the most that behave alike."""

    written: int
    judged: int
    passing: int
    alike: int

    @property
    def pass_rate(self) -> float:
        """The share of the judged that pass; 0 before the first."""
        return self.passing / self.judged if self.judged else 0.0


OnTally = Callable[[Tally], None]


@dataclass(frozen=True)
class Best:
    """All candidates, in the order of their seeds, their places from best to worst, and the inputs of their runs."""

    candidates: tuple[Candidate, ...]
    ranking: tuple[int, ...]
    stdins: tuple[bytes, ...]

    @property
    def best(self) -> Candidate:
        """The candidate at the top; it need not pass."""
        return self.candidates[self.ranking[0]]

    @property
    def winner(self) -> Output:
        """The file at the top; see `passed`."""
        return self.best.output

    @property
    def passed(self) -> bool:
        """Whether the winner passes: all examples, the judge, or with neither that it ends by itself on every input."""
        return self.best.passes

    @property
    def pass_rate(self) -> float:
        """The share of the candidates that pass."""
        return sum(c.passes for c in self.candidates) / len(self.candidates)

    @cached_property
    def votes(self) -> dict[Behaviour, int]:
        """Candidates by what they do, the most usual first; those without a vote are left out."""
        seen = Counter(c.behaviour for c in self.candidates if c.behaviour is not None)
        return dict(seen.most_common())

    @property
    def distinct(self) -> int:
        """How many different files there are."""
        return len({c.first for c in self.candidates})


class _Verdict(NamedTuple):
    trial: Trial
    score: float
    passes: bool


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads that are kept, as their emulators are; a forked process has none of its parent's."""
    return ThreadPoolExecutor(threads, thread_name_prefix="bytegen-judge")


class _Judging:
    """Files on their way to a verdict, in threads; equal files share one. Leaving the context leaves none behind."""

    def __init__(
        self, workers: int | None, inputs: Sequence[bytes], examples: Sequence[Example], judge: Judge | None,
        on_tally: OnTally | None,
    ) -> None:  # fmt: skip
        threads = min(4, os.cpu_count() or 1) if workers is None else workers
        if threads < 1:
            raise UserError(f"workers={threads} must be at least 1")
        if judge is None and not examples and not inputs:
            raise UserError("there is nothing to judge by: give inputs, examples or a judge")
        self._pool = _pool(threads, os.getpid())
        self._examples, self._judge, self._on_tally = examples, judge, on_tally
        self._stdins = (*(stdin for stdin, _ in examples), *inputs)
        self._outputs: dict[int, Output] = {}
        self._verdicts: dict[bytes, Future[_Verdict]] = {}
        self._waiting: list[int] = []
        self._judged = self._passing = 0
        self._alike: Counter[Behaviour | None] = Counter()

    def __enter__(self) -> _Judging:
        return self

    def __exit__(self, *_: object) -> None:
        wait([f for f in self._verdicts.values() if not f.cancel()])

    def submit(self, place: int, output: Output) -> None:
        """Take a file that has been written; the verdicts that have come meanwhile are counted."""
        self._outputs[place] = output
        if output.data not in self._verdicts:
            self._verdicts[output.data] = self._pool.submit(self._verdict, output)
        self._waiting.append(place)
        self._count()

    def finish(self) -> Best:
        """Wait for the verdicts that are missing, and rank."""
        self._count(to_the_end=True)
        first: dict[bytes, int] = {}
        places = sorted(self._outputs)
        for number, place in enumerate(places):
            first.setdefault(self._outputs[place].data, number)
        candidates = []
        for place in places:
            output = self._outputs[place]
            verdict = self._verdicts[output.data].result()
            candidates.append(Candidate(output=output, first=first[output.data], **verdict._asdict()))
        candidates = count_votes(candidates)
        return Best(tuple(candidates), tuple(ranked(candidates)), self._stdins)

    def _count(self, *, to_the_end: bool = False) -> None:
        waiting, self._waiting = self._waiting, []
        for place in waiting:
            future = self._verdicts[self._outputs[place].data]
            if not (to_the_end or future.done()):
                self._waiting.append(place)
                continue
            verdict = future.result()
            self._judged += 1
            self._passing += verdict.passes
            if verdict.trial.behaviour is not None:
                self._alike[verdict.trial.behaviour] += 1
            if to_the_end:
                self._tell()
        if not to_the_end:
            self._tell()

    def _tell(self) -> None:
        if self._on_tally is not None:
            alike = max(self._alike.values(), default=0)
            self._on_tally(Tally(len(self._outputs), self._judged, self._passing, alike))

    def _verdict(self, output: Output) -> _Verdict:
        trial = try_out(output.data, self._stdins) if output.format == EMULATED else Trial()
        if self._judge is not None:
            score = _asked(self._judge, output)
            return _Verdict(trial, score, score > 0)
        if self._examples:
            score = share_passed(trial, self._examples)
            return _Verdict(trial, score, score == 1.0)
        return _Verdict(trial, float(trial.exits), trial.exits)


def _asked(judge: Judge, output: Output) -> float:
    """The judge's score. UserError where it raises, or gives no number."""
    try:
        score = judge(output)
    except Exception as error:
        said = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"the judge raised {type(error).__name__} on the file of seed {output.seed}: {said}"
        ) from error
    try:
        number = float(score)
    except (TypeError, ValueError):
        number = math.nan
    if math.isnan(number):
        raise UserError(
            f"the judge gave {score!r} for the file of seed {output.seed}; it must give a number, or True or False"
        )
    return number


def check(
    *, format: str, samples: int, temperature: float | None, examples: Sequence[Example], judge: Judge | None
) -> None:
    """Raise UserError for what `best_of` cannot do; it does so before anything is written."""
    if samples < 2:
        raise UserError(f"the best of {samples} is no choice; write 2 samples or more")
    if temperature == 0:
        raise UserError(
            "temperature 0 writes the same file each time; the best of many needs more, such as 0.3"
        )
    if examples and judge is not None:
        raise UserError("examples and a judge were given; one of them decides, so leave the other out")
    if judge is None and format != EMULATED:
        raise UserError(
            f"the emulator runs {EMULATED}, so nothing of {format} can be observed; give a judge of your own"
        )


def best_of(
    lm: LanguageModel, prompt: str, *, samples: int = 64, examples: Sequence[Example] = (), judge: Judge | None = None,
    inputs: Sequence[bytes] = PROBES, workers: int | None = None, on_tally: OnTally | None = None,
    format: str = DEFAULT_FORMAT, temperature: float | None = None, **options: Any,
) -> Best:  # fmt: skip
    """Write `samples` files for a prompt, sample j with seed `seed` + j, and rank them by what they do.

    With `examples` (standard input, wanted standard output) the file that passes most of them wins; with a `judge`, a
    function of an `Output`, the one with the greatest score; then, and with neither, the one whose behaviour over the
    examples' inputs and `inputs` most candidates share; then the likeliest. Behaviour is standard output, standard
    error, exit code and virtual time slept; an output agrees with an example's up to line breaks at the end.

    Files run in the emulator, never natively, in up to `workers` threads (the machine's cores, 4 at most) with a
    process each, while others are still being written; equal files run once. The judge is called in those threads,
    once a file that differs: with `workers=1` never twice at a time. `on_tally` hears in the caller's thread how it
    stands; other options are those of `generate_many`.

    Raises UserError for fewer than 2 samples, temperature 0, examples together with a judge, a format that cannot
    be run where there is no judge, a judge that raises or gives no number; and what `generate_many` raises.
    """
    check(format=format, samples=samples, temperature=temperature, examples=examples, judge=judge)
    Sampling(temperature=Sampling().temperature if temperature is None else temperature)
    with _Judging(workers, inputs, examples, judge, on_tally) as judging:
        generate_many(
            lm, [prompt], samples=samples, format=format, temperature=temperature, on_output=judging.submit, **options
        )  # fmt: skip
        return judging.finish()


def choose(
    outputs: Iterable[Output], *, examples: Sequence[Example] = (), judge: Judge | None = None,
    inputs: Sequence[bytes] = PROBES, workers: int | None = None, on_tally: OnTally | None = None,
) -> Best:  # fmt: skip
    """Rank files that are there already, as `best_of` does those that it writes.

    Raises UserError where there is no file, and for examples and judges as `best_of` does.
    """
    listed = list(outputs)
    if not listed:
        raise UserError("there are no files to choose from; give at least one")
    for name in {output.format for output in listed}:
        check(format=name, samples=2, temperature=None, examples=examples, judge=judge)
    with _Judging(workers, inputs, examples, judge, on_tally) as judging:
        for place, output in enumerate(listed):
            judging.submit(place, output)
        return judging.finish()
