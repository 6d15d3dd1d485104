"""What is known of a file, place by place, and its form as lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

KINDS = (
    "header", "table", "names", "symbols", "relocations", "dynamic", "hash", "versions", "notes", "imports",
    "exports", "resources", "unwind", "debug", "code", "data", "padding", "appended", "unknown",
)  # fmt: skip
"""What an area can hold; a map gives each a colour."""
SOURCES = ("rules", "reader", "none")
"""Who named a place: the constraint, the tolerant reader, or nobody."""
_LINE_ITEMS = 2000


class Area(NamedTuple):
    """Bytes [start, end) that belong together: a header, a table, a section, a gap.

    `kind` is one of `KINDS`; `note` says more ("section 3, SHT_SYMTAB, read-only"), `address` is where the
    first byte comes to lie in memory (None: nowhere, or not known).
    """

    start: int
    end: int
    name: str
    kind: str
    note: str = ""
    address: int | None = None


class Span(NamedTuple):
    """Bytes [start, end): one field, or a run of bytes.

    `value` is None for what is no integer; `forced` counts the bytes that had one choice only; `rule` is
    what the constraint asks of the field, empty where nobody does; `source` is one of `SOURCES`.
    """

    start: int
    end: int
    path: str
    value: int | None
    rule: str
    forced: int
    source: str


class Mark(NamedTuple):
    """A name for the record that begins at `offset`: a symbol's, a section's, a library's."""

    offset: int
    name: str


class Instruction(NamedTuple):
    """One instruction, or a byte that is none (text ".byte ..."), at `offset` in the file."""

    offset: int
    size: int
    text: str


@dataclass
class Account:
    """All that was found. Areas and spans are each in order, without gap or overlap, over the whole file.

    `format` and `level`: what the file was held to, None for a format we do not have. `refusal`: the first
    byte that the constraint refused, as (offset, field, rule), None if it took the file. `forced`: run
    lengths of bytes that had a choice and bytes that had none, in turn, starting with a choice; empty where
    there is no constraint. `names` holds names by file offset, `notes` what was left out and why.
    """

    what: str
    size: int
    format: str | None
    level: str
    order: str = "little"
    entry: int | None = None
    refusal: tuple[int, str, str] | None = None
    areas: list[Area] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    code: list[Instruction] = field(default_factory=list)
    forced: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def names(self) -> dict[int, str]:
        """Names of records by the offset of their first byte."""
        return dict(self.marks)

    def to_json(self) -> dict[str, Any]:
        """The account in plain JSON types; spans and the like are objects with their fields' names."""
        plain = {key: value for key, value in vars(self).items() if key not in _LISTS}
        plain |= {key: [item._asdict() for item in getattr(self, key)] for key in _LISTS}
        if self.refusal is not None:
            plain["refusal"] = dict(zip(("offset", "field", "rule"), self.refusal, strict=True))
        return plain

    def lines(self) -> Iterator[str]:
        """The account as lines of JSON, none of them long: the head, then pieces of the lists."""
        head = {key: value for key, value in vars(self).items() if key not in _LISTS}
        yield json.dumps(head)
        for key in _LISTS:
            items = getattr(self, key)
            for start in range(0, len(items), _LINE_ITEMS):
                yield json.dumps([key, items[start : start + _LINE_ITEMS]])

    @classmethod
    def from_lines(cls, lines: Iterable[str | bytes]) -> Account:
        """The account that `lines` gave. Raises ValueError, KeyError or TypeError for anything else."""
        parts = iter(lines)
        head = json.loads(next(parts, "null"))
        account = cls(**head)
        if account.refusal is not None:
            offset, path, rule = account.refusal
            account.refusal = (int(offset), str(path), str(rule))
        for line in parts:
            key, items = json.loads(line)
            kind = _LISTS[key]
            getattr(account, key).extend(kind(*item) for item in items)
        return account


_LISTS: dict[str, type[Any]] = {"areas": Area, "spans": Span, "marks": Mark, "code": Instruction}
