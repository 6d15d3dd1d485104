"""The decoding engine: a batch of sequences at positions of their own, which join and leave between turns.

One turn feeds every sequence what it has pending (its prompt, or the bytes since the last turn) and a draft of what
may follow, then draws. A run that the constraint forces is never sampled: it is fed in the same chunk. A draft is a
guess at the choices to come; where the byte that is drawn is the one guessed, the model has read it already and the
next choice is drawn from the same turn's logits. Each choice is drawn from the model's own masked distribution with
the sequence's own next number, so drafts change neither that distribution nor the file, only how many turns it takes
(speculative sampling, Leviathan et al. 2023, with guesses that are certain of themselves). What was fed in vain is
undone by putting the sequence back: see `bytegen.cache`.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from threading import Lock

import numpy as np

from bytegen import tokenizer
from bytegen.decoding.drafts import FILE, TABLE, Lookup, NGrams
from bytegen.decoding.guesses import HEADS, MOST_DRAFT, NOTHING, Guesses, Trust, sources
from bytegen.decoding.runners import Drawn, Draws, LanguageModel, runner
from bytegen.decoding.sequence import Sequence
from bytegen.formats import Constraint

OnBytes = Callable[[Sequence, bytes], None]


@dataclass
class Timing:
    """Seconds spent, and on how many bytes. `drafted` bytes were guessed and read, `accepted` of them kept, and of
    these `accepted_from` each source of guesses (see `guesses`); what is forced behind a guess counts with it.

    Seconds are added up over the `groups` of sequences that were decoded at the same time (see `together`).
    `cache_bytes` adds up the most that the caches of each group took when one of its sequences ended.
    """

    groups: int = 1
    model: float = 0.0
    constraint: float = 0.0
    sampling: float = 0.0
    drafting: float = 0.0
    sampled: int = 0
    forced: int = 0
    steps: int = 0
    turns: int = 0  # steps, counted once for each sequence in them that drew
    drafted: int = 0
    accepted: int = 0
    accepted_from: Counter[str] = field(default_factory=Counter)
    cache_bytes: int = 0
    _caches: dict[int, int] = field(default_factory=dict, repr=False, compare=False)  # by group

    def note_caches(self, group: int, size: int) -> None:
        """Take note of what the caches of a group, which a number stands for, take now."""
        self._caches[group] = max(size, self._caches.get(group, 0))
        self.cache_bytes = sum(self._caches.values())


@dataclass(slots=True)
class _Choice:
    """A choice on the way of a draft: `after` bytes of the draft come before it.

    `guess` is what the draft chooses, -1 at its end, by `source`; `run` the bytes that are forced then, `ends` whether
    the file can only end after them.
    """

    mask: np.ndarray
    after: int
    guess: int = -1
    source: str = ""
    run: bytes = b""
    ends: bool = False


class _Row:
    """A sequence in the batch, and its draft of this turn."""

    def __init__(self, sequence: Sequence, *, eager: bool) -> None:
        self.sequence = sequence
        self.trust = Trust(eager=eager)
        self.first: tuple[int | None, int | None] = (None, None)  # see `Guesses`
        self.fed = 0  # ids of `pending` in this turn
        self.draft = b""
        self.choices: list[_Choice] = []
        self.expected = NOTHING  # by heads, of the bytes behind the last one drawn


class Engine:
    """Runs sequences through a model, at most `batch_size` at a time.

    `max_length` is the most positions that a sequence takes, `chunk` the most that it is fed in one step. `drafts`
    says whether to guess ahead, or names the sources of guesses (see `guesses`); `table` is that of the n-grams.
    `backend` is "c", "torch" or "auto": see `runners`. Engines in threads of their own share a `lock`, which whoever
    calls `turn` holds: an engine lets go of it only while it computes, on `threads` threads (all that there are by
    default). UserError for a source or a backend that is none.
    """

    def __init__(self, lm: LanguageModel, *, max_length: int, batch_size: int = 16, chunk: int = 64,
                 drafts: bool | Iterable[str] = True, table: NGrams | None = None, backend: str = "auto",
                 lock: Lock | None = None, threads: int | None = None) -> None:  # fmt: skip
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1")
        self.lm, self.batch_size, self.chunk, self.max_length = lm, batch_size, chunk, max_length
        self.lock = lock
        drafts = sources(drafts)
        self._file = FILE in drafts
        self._table = table if TABLE in drafts else None
        self._heads = HEADS in drafts and lm.config.mtp_heads > 0
        self.timing = Timing()
        self.on_bytes: OnBytes | None = None
        self._rows: list[_Row | None] = []  # None: a place in the cache that is free
        self._waiting: deque[Sequence] = deque()
        self._runner = runner(lm, backend, max_length=max_length, chunk=chunk, threads=threads)

    # Joining and leaving

    @property
    def busy(self) -> bool:
        """Whether any sequence is being written or waits."""
        return bool(self._waiting) or any(row is not None for row in self._rows)

    def submit(self, sequence: Sequence) -> None:
        """Let a sequence join as soon as there is a place."""
        self._waiting.append(sequence)

    def cancel(self, sequence: Sequence) -> None:
        """Let a sequence leave before the next turn; it ends as it stands."""
        sequence.cancelled = True

    def run(
        self, sequences: Iterable[Sequence] = (), *, on_bytes: OnBytes | None = None
    ) -> Iterator[Sequence]:
        """Yield each sequence as it ends; `on_bytes(sequence, new)` hears of every run of bytes.

        Sequences are taken from the iterable when there is a place for them, not before.
        """
        self.on_bytes = on_bytes
        source = iter(sequences)
        while self.fill(source):
            yield from self.turn()

    def fill(self, source: Iterator[Sequence]) -> bool:
        """Take as many sequences as there are places for; whether anything is left to write."""
        taken = sum(row is not None for row in self._rows) + len(self._waiting)
        self._waiting.extend(islice(source, max(self.batch_size - taken, 0)))
        return self.busy

    def turn(self) -> list[Sequence]:
        """One step of the batch; the sequences that ended or were cancelled, which have left."""
        gone = self._settle()
        rows = [row for row in self._rows if row is not None]
        if rows:
            self._step(rows)
        ended = {id(row) for row in rows if row.sequence.ended}
        if ended:
            self.timing.note_caches(id(self), self._runner.cache_bytes())
        self._rows = [row if id(row) not in ended else None for row in self._rows]
        return gone + [row.sequence for row in rows if id(row) in ended]

    def _settle(self) -> list[Sequence]:
        """Give the free places to those that wait, and close up what stays free; return who left meanwhile."""
        if not self._waiting and all(row is not None and not row.sequence.ended for row in self._rows):
            return []
        gone = [row.sequence for row in self._rows if row is not None and row.sequence.ended]
        rows = [None if row is None or row.sequence.ended else row for row in self._rows]
        for i, row in enumerate(rows):
            if row is None and (successor := self._next(gone)) is not None:
                self._runner.restart(i)
                rows[i] = successor
        kept = [i for i, row in enumerate(rows) if row is not None]
        if len(kept) < len(rows):
            self._runner.select(kept)
        rows = [rows[i] for i in kept]
        while len(rows) < self.batch_size and (row := self._next(gone)) is not None:
            rows.append(row)
        if len(rows) > len(kept):
            self._runner.extend(len(rows) - len(kept))
        self._rows = rows
        return gone

    def _next(self, gone: list[Sequence]) -> _Row | None:
        """The next of those that wait; those that have ended before they began are `gone`."""
        while self._waiting:
            row = self._begin(self._waiting.popleft())
            if not row.sequence.ended:
                return row
            gone.append(row.sequence)
        return None

    def _begin(self, sequence: Sequence) -> _Row:
        row = _Row(sequence, eager=self._runner.eager)
        if not sequence.cancelled:
            if self._file or self._table is not None:
                prompt = tokenizer.decode_bytes(sequence.prompt_ids)
                sequence.lookup = Lookup(prompt, self._table, file=self._file)
            began = time.perf_counter()
            run = _forced(sequence.constraint)
            self.timing.constraint += time.perf_counter() - began
            sequence.pending.extend(run)
            self._wrote(sequence, run, len(run))
        return row

    def _wrote(self, sequence: Sequence, new: bytes, forced: int) -> None:
        """Count and tell of bytes, so many of which were no choice."""
        sequence.forced += forced
        self.timing.forced += forced
        if sequence.lookup is not None:
            sequence.lookup.extend(new)
        if new and self.on_bytes is not None:
            self.on_bytes(sequence, new)

    # A turn

    def _step(self, rows: list[_Row]) -> None:
        timing = self.timing
        began = time.perf_counter()
        for row in rows:
            self._plan(row)
        fed = [[*row.sequence.pending[: row.fed], *row.draft] for row in rows]
        places, draws = self._asked(rows)
        timing.drafting += time.perf_counter() - began
        drawn = iter(self._compute(rows, fed, places, draws))
        began = time.perf_counter()
        for row in rows:
            del row.sequence.pending[: row.fed]
        timing.steps += 1
        timing.turns += sum(bool(row.choices) for row in rows)
        counts = [row.fed + self._take(row, drawn) for row in rows]
        timing.constraint += time.perf_counter() - began
        self._runner.advance(counts)

    def _compute(
        self, rows: list[_Row], fed: list[list[int]], places: list[tuple[int, int]], draws: Draws
    ) -> Drawn:
        """The step itself; meanwhile other engines may go on (`lock`)."""
        if self.lock is not None:
            self.lock.release()
        try:
            began = time.perf_counter()
            self._runner.feed(fed)
            read = time.perf_counter()
            drawn = self._runner.draw(places, draws) if places else []
            ended = time.perf_counter()
            if self._heads:
                self._look_ahead(rows, drawn)
            looked = time.perf_counter()
        finally:
            if self.lock is not None:
                self.lock.acquire()
        self.timing.model += read - began
        self.timing.sampling += ended - read
        self.timing.drafting += looked - ended
        return drawn

    def _look_ahead(self, rows: list[_Row], drawn: Drawn) -> None:
        """Ask the heads at the place of each row where the draft ends."""
        asked, places, start = list[_Row](), list[tuple[int, int]](), 0
        for i, row in enumerate(rows):
            row.expected = NOTHING
            last, start = start, start + len(row.choices)
            for one, (choice, _, _) in zip(row.choices, drawn[last:start], strict=True):
                if choice != one.guess:
                    if choice != tokenizer.END_OF_FILE and row.trust.asks_heads():
                        asked.append(row)
                        places.append((i, row.fed - 1 + one.after))
                    break
        if asked:
            for row, expected in zip(asked, self._runner.ahead(places), strict=True):
                row.expected = expected

    def _plan(self, row: _Row) -> None:
        """What to feed of what is pending, and when that is all of it a draft behind."""
        s = row.sequence
        row.fed = min(len(s.pending), self.chunk)
        row.choices, row.draft = [], b""
        if row.fed < len(s.pending):
            return
        copying = None if s.lookup is None else s.lookup.copying()
        guesses = Guesses(copying, row.expected if self._heads else None, row.trust, known=row.fed)
        self._follow(row, guesses, self.chunk - row.fed)
        row.first = guesses.first

    def _follow(self, row: _Row, guesses: Guesses, room: int) -> None:
        """Draft as far as there are guesses that the constraint allows; what it forces on the way belongs to it."""
        c = row.sequence.constraint
        draft, longest, mask = bytearray(), min(room, MOST_DRAFT), c.mask()
        while True:
            choice = _Choice(mask, len(draft))
            row.choices.append(choice)
            guess = guesses.guess(mask) if len(draft) < longest else None
            if guess is None:
                break
            c.advance(guess[0])
            run = c.forced()
            if len(draft) + 1 + len(run) > room:
                c.rollback(1)
                break
            if run:
                c.advance_many(run)
            mask = c.mask()
            (choice.guess, choice.source), choice.run = guess, run
            choice.ends = _only_ends(mask)
            taken = bytes((choice.guess,)) + run
            draft += taken
            if choice.ends:
                break
            guesses.take(taken)
        row.draft = bytes(draft)

    def _asked(self, rows: list[_Row]) -> tuple[list[tuple[int, int]], Draws]:
        """Every choice of every draft, in their order: where it is drawn, and how."""
        places, draws = list[tuple[int, int]](), Draws([], [], [], [], [])
        masks, uniform, temperature, top_p, min_p = draws
        for i, row in enumerate(rows):
            last, sampling = row.fed - 1, row.sequence.sampling
            for one in row.choices:
                places.append((i, last + one.after))
                masks.append(one.mask)
                temperature.append(sampling.temperature)
                top_p.append(sampling.top_p)
                min_p.append(sampling.min_p)
            uniform += row.sequence.uniforms(len(row.choices))
        return places, draws

    def _take(self, row: _Row, results: Iterator[tuple[int, float, float]]) -> int:
        """Take the draws of a row up to the first that its draft did not guess; how many of its bytes were right."""
        s, c = row.sequence, row.sequence.constraint
        if not row.choices:
            return 0
        s.turns += 1
        right, forced, written, before = len(row.draft), 0, bytearray(), s.sampled
        draws = list(islice(results, len(row.choices)))
        row.trust.judge_first(draws[0][0], *row.first)
        for one, (choice, logprob, removed) in zip(row.choices, draws, strict=True):
            s.count_draw(logprob, removed)
            if choice == one.guess:
                written += bytes((choice,)) + one.run
                forced += len(one.run)
                self.timing.accepted_from[one.source] += 1 + len(one.run)
                if one.ends:
                    c.advance(tokenizer.END_OF_FILE)
                continue
            right = one.after
            c.rollback(len(row.draft) - right)
            c.advance(choice)
            if choice != tokenizer.END_OF_FILE:
                run = _forced(c)
                s.pending = [choice, *run]
                written += bytes(s.pending)
                forced += len(run)
            break
        self.timing.sampled += s.sampled - before
        if row.draft:
            row.trust.judge_draft(len(row.draft), right, one.source)
            self.timing.drafted += len(row.draft)
            self.timing.accepted += right
        self._wrote(s, bytes(written), forced)
        return right


def _only_ends(mask: np.ndarray) -> bool:
    return bool(mask[tokenizer.END_OF_FILE]) and int(mask.sum()) == 1


def _forced(constraint: Constraint) -> bytes:
    """Take the bytes that leave no choice, and the end of the file where it is the only one."""
    run = constraint.forced()
    constraint.advance_many(run)
    if _only_ends(constraint.mask()):
        constraint.advance(tokenizer.END_OF_FILE)
    return run
