"""What a draft guesses, place by place: by the model's multi-token prediction heads, and by n-grams.

Heads know of the whole file and n-grams of eight bytes, but heads know only files such as they were trained on. So who
leads is decided file by file, as between two predictors of branches (McFarling 1993, "Combining branch predictors"):
both guess the first byte of every draft, and a counter goes up where the heads alone were right, down where the n-grams
were. Heads that are mostly wrong are left alone.

Where a wrong guess costs as much to read as a right one, as on a CPU, only who leads is followed; where a step takes
its time whatever it reads, as on a GPU, n-grams always go on where heads that lead end (`eager`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from bytegen.decoding.drafts import FILE, TABLE, Copying
from bytegen.decoding.runners import Expected
from bytegen.errors import UserError
from bytegen.tokenizer import END_OF_FILE

HEADS = "heads"
SOURCES = (FILE, TABLE, HEADS)
"""Where guesses come from: n-grams of the prompt and the file, of a table learnt from a corpus, the model's heads."""

FIRST_DRAFT, LEAST_DRAFT, MOST_DRAFT = 8, 4, 32
"""Bytes guessed by n-grams at first, at least and at most: the number doubles after a draft that was right, and falls
to what was right of it after one that was not. No draft is longer than the most."""

LEAST_LOG_CHANCE = math.log(0.4)
"""Heads guess on while the chance that the whole draft is right, as they see it, has at least this natural log."""

MOST_LEAD = 7
"""The counter of who leads is kept from minus this much to this much, and begins there."""

REST = 16
"""Turns from one in which heads are asked to the next, where they were wrong more often than right."""

SURE = 16
"""Drafts in a row whose first byte n-grams must have guessed, to go on where heads that lead end though not eager."""


def sources(drafts: bool | Iterable[str]) -> frozenset[str]:
    """The sources that `drafts` means: all, none, or those it names. UserError for a name that is none."""
    if isinstance(drafts, bool):
        return frozenset(SOURCES if drafts else ())
    named = frozenset((drafts,) if isinstance(drafts, str) else drafts)
    if unknown := sorted(named - set(SOURCES)):
        raise UserError(f"drafts from {unknown[0]!r}; there are: {', '.join(SOURCES)}")
    return named


NOTHING = Expected([], [], np.empty((0, END_OF_FILE + 1), np.float32))
"""What heads expect that were not asked."""


class Trust:
    """How heads and n-grams have done in one file; `reach` is how far n-grams guess."""

    def __init__(self, *, eager: bool = False) -> None:
        self._eager = eager
        self.reach = FIRST_DRAFT
        self._lead = MOST_LEAD
        self._heads = MOST_LEAD  # goes down where they were wrong, to -1
        self._rest = 0
        self._copied = 0

    @property
    def heads_lead(self) -> bool:
        """Whether the heads' guesses come before the n-grams'."""
        return self._lead >= 0 and self.heads_are_right

    @property
    def heads_are_right(self) -> bool:
        """Whether the heads' guesses are worth following."""
        return self._heads >= 0

    def asks_heads(self) -> bool:
        """Whether to ask the heads in this turn: where they were wrong more often than right, now and then only."""
        if self.heads_are_right:
            return True
        self._rest = self._rest - 1 if self._rest else REST
        return not self._rest

    @property
    def copies_go_on(self) -> bool:
        """Whether n-grams go on where the heads end."""
        return self._eager or self._copied >= SURE

    def judge_first(self, byte: int, by_heads: int | None, by_copies: int | None) -> None:
        """Take note of the byte drawn first, and of what both had guessed; None by heads that were not asked."""
        if by_heads is None:
            return
        self._copied = self._copied + 1 if byte == by_copies else 0
        self._heads = max(-1, min(MOST_LEAD, self._heads + (1 if byte == by_heads else -1)))
        step = (byte == by_heads) - (byte == by_copies)
        self._lead = max(-MOST_LEAD, min(MOST_LEAD, self._lead + step))

    def judge_draft(self, length: int, right: int, wrong: str) -> None:
        """Take note of how much of a draft was right, and of the source that was `wrong` then, if one was."""
        if right == length:
            self.reach = min(2 * self.reach, MOST_DRAFT)
        elif wrong != HEADS:
            self.reach = max(right, LEAST_DRAFT)


class Guesses:
    """Guesses for one draft: `guess` makes the next, `take` goes on by bytes.

    `expected` is what the heads say, where there are heads to be asked; the first byte of the draft is the one `known`
    places behind the byte that they were asked at. `copying` are the n-grams. `first` is what heads and n-grams guess
    of the first byte, where there are both.
    """

    def __init__(
        self, copying: Copying | None, expected: Expected | None, trust: Trust, *, known: int = 1
    ) -> None:
        self._copying, self._trust = copying, trust
        self._heads_lead = expected is not None and trust.heads_lead
        self._best, self._log, self._logs = NOTHING if expected is None else expected
        self._at = 0
        self._known = known - 1  # the index of the head that guesses the first byte
        self._log_chance = 0.0
        self._unread = b""  # bytes of the draft that the n-grams have not been told of
        self.first: tuple[int | None, int | None] = (None, None)

    def guess(self, mask: np.ndarray) -> tuple[int, str] | None:
        """The byte that comes next, one of those that the mask allows, and the source; None where nobody is sure."""
        if self._at == 0 and self._known < len(self._best):
            copied = None if self._copying is None else self._copying.guess()
            self.first = self._likeliest(mask)[0], None if copied is None else copied[0]
        if self._heads_lead:
            return self._by_heads(mask) or (self._by_copies(mask) if self._trust.copies_go_on else None)
        found = self._by_copies(mask)
        if found is None and self._at == 0 and self._trust.heads_are_right:
            self._heads_lead, found = True, self._by_heads(mask)
        return found

    def _by_copies(self, mask: np.ndarray) -> tuple[int, str] | None:
        if self._copying is None or self._at >= (MOST_DRAFT if self._heads_lead else self._trust.reach):
            return None
        if self._unread:
            self._copying.take(self._unread)
            self._unread = b""
        copied = self._copying.guess()
        return copied if copied is not None and mask[copied[0]] else None

    def _by_heads(self, mask: np.ndarray) -> tuple[int, str] | None:
        if self._known + self._at >= len(self._best):
            return None
        best, log = self._likeliest(mask)
        self._log_chance += log
        return (best, HEADS) if best != END_OF_FILE and self._log_chance >= LEAST_LOG_CHANCE else None

    def _likeliest(self, mask: np.ndarray) -> tuple[int, float]:
        """The heads' likeliest choice that the mask allows, and the log of its probability among those."""
        head = self._known + self._at
        best = self._best[head]
        if mask[best]:
            return best, self._log[head]
        allowed = np.where(mask, self._logs[head], -np.inf)
        best = int(allowed.argmax())
        return best, -math.log(float(np.exp(allowed - allowed[best]).sum()))

    def take(self, data: bytes) -> None:
        """Go on by bytes that are part of the draft, guessed or forced."""
        self._at += len(data)
        self._unread += data
