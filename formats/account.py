"""What a constraint did to a model: the probability it took away, byte by byte and field by field."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from bytegen.formats.core.constraint import END, Constraint, Field
from bytegen.formats.errors import FormatError

_NUMBER = re.compile(r"\[\d+\]")


class FieldAccount(NamedTuple):
    """Totals of one field, or of all fields of one name: ``path`` has [*] for an index.

    ``forced`` of the ``bytes`` had one choice only. Over the others, ``removed`` is the mean probability taken
    and ``nats`` the sum of -log(kept probability): what the constraint told the model. ``forced_nats`` is
    that sum over the forced ones, which says little of a model trained without them.
    """

    path: str
    bytes: int
    forced: int
    removed: float
    nats: float
    forced_nats: float


class Account:
    """The log of the probability that the mask kept, for each byte of a file and its end.

    ``log_kept``: float64 [n + 1], natural logs, at most 0; ``forced``: bool [n + 1], where there was one
    choice; ``fields`` are those of `Constraint.fields`. Raises `FormatError` when lengths differ.
    """

    def __init__(
        self, log_kept: np.ndarray | Sequence[float], forced: np.ndarray, fields: Sequence[Field]
    ) -> None:
        self.log_kept = np.minimum(np.asarray(log_kept, dtype=np.float64), 0.0)
        self.forced = np.asarray(forced, dtype=bool)
        self.fields = tuple(fields)
        covered = self.fields[-1].end if self.fields else 0
        if not covered == len(self.log_kept) - 1 == len(self.forced) - 1:
            raise FormatError(
                f"{len(self.log_kept)} and {len(self.forced)} entries for {covered} bytes and the end of the file"
            )

    @property
    def removed(self) -> np.ndarray:
        """float64 [n + 1]: the probability that the mask took away at each byte, and at the end."""
        return -np.expm1(self.log_kept)

    @property
    def nats(self) -> float:
        """The sum of -log(kept probability) over the bytes that had a choice."""
        return float(-self.log_kept[~self.forced].sum())

    @property
    def forced_nats(self) -> float:
        """The same sum over the bytes that had none."""
        return float(-self.log_kept[self.forced].sum())

    def by_field(self, *, together: bool = True) -> list[FieldAccount]:
        """Totals a field, those that took most first; ``together`` merges fields that differ by an index."""
        rows: dict[str, list[float]] = {}
        ends = [*self.fields, Field(len(self.log_kept) - 1, len(self.log_kept), "end", None, 0)]
        for field in ends:
            path = _NUMBER.sub("[*]", field.path) if together else field.path
            part, forced = self.log_kept[field.start : field.end], self.forced[field.start : field.end]
            row = rows.setdefault(path, [0, 0, 0.0, 0.0, 0.0])
            row[0] += len(part)
            row[1] += int(forced.sum())
            row[2] += float(-np.expm1(part[~forced]).sum())
            row[3] += float(-part[~forced].sum())
            row[4] += float(-part[forced].sum())
        found = [
            FieldAccount(
                path, int(size), int(forced), taken / (size - forced) if size > forced else 0.0, nats, given
            )
            for path, (size, forced, taken, nats, given) in rows.items()
        ]
        return sorted(found, key=lambda row: -row.nats)


def account(c: Constraint, data: bytes, log_probs: Iterable[np.ndarray]) -> Account:
    """Holds a model's distributions against the masks along a file.

    ``log_probs`` gives, in order and in parts of any length, natural log probabilities [k, 257] of the choice
    at each byte of ``data`` and at its end (n + 1 rows in all). The constraint is driven to the end. Raises
    `FormatError` for a file that does not replay, or too few or too many rows.
    """
    log_kept = np.zeros(len(data) + 1)
    forced = np.zeros(len(data) + 1, dtype=bool)
    choices = [*data, END]
    place = 0
    for part in log_probs:
        if place + len(part) > len(choices):
            raise FormatError(f"more than {len(choices)} rows of log probabilities for {len(data)} bytes")
        for row in np.asarray(part, dtype=np.float64):
            allowed = row[c.mask()]
            forced[place] = len(allowed) == 1
            top = allowed.max()
            log_kept[place] = top + np.log(np.exp(allowed - top).sum()) if top > -np.inf else -np.inf
            c.advance(choices[place])
            place += 1
    if place != len(choices):
        raise FormatError(
            f"{place} rows of log probabilities; {len(data)} bytes and an end have {len(choices)}"
        )
    return Account(log_kept, forced, c.fields())
