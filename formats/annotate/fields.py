"""The account of a file: the constraint's fields, and a tolerant reader's where the constraint has none."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

import numpy as np

from bytegen.formats.annotate.account import Account, Area, Mark, Span
from bytegen.formats.annotate.code import disassemble
from bytegen.formats.annotate.elf_areas import read_elf
from bytegen.formats.annotate.other_areas import read_other
from bytegen.formats.annotate.pe_areas import read_pe
from bytegen.formats.annotate.reading import Reading, flatten
from bytegen.formats.annotate.structs import read_table
from bytegen.formats.core.constraint import Constraint, Field
from bytegen.formats.identify import describe, resolve

MOST_SPANS = 200_000
MOST_FORCED_BYTES = 4 << 20
_DEFAULT_LIMIT = 143_360
_LONGEST_FIELD = 16


def annotate(
    data: bytes,
    *,
    format: str | None = None,
    level: str = "load",
    instructions: int = 100_000,
    rules: bool = True,
) -> Account:
    """The account of any file; runs in the caller's process (see `isolation.account_of`).

    `format` is found by the first bytes when None; without `rules` the file is held to none. At most
    `instructions` are disassembled, and at most `MOST_SPANS` places named: beyond that the fields of a
    record, then the records of a table, count as one.
    Raises FormatError for an unknown `format` or `level`; never for anything in `data`.
    """
    data = bytes(data)
    found = resolve(data, format, level) if rules else None
    reading = _read(data)
    account = Account(
        describe(data), len(data), found, level, reading.order, reading.entry, notes=list(reading.notes)
    )
    ruled, flags = (
        _replay(account, data, found, level) if found is not None else ([], np.zeros(0, dtype=bool))
    )
    account.areas = flatten(reading, data)
    account.spans = _spans(data, ruled, flags, account, reading)
    account.marks = _marks(reading, account.areas)
    account.code = disassemble(data, account.areas, reading.machine, instructions)
    return account


def _read(data: bytes) -> Reading:
    if data[:4] == b"\x7fELF":
        return read_elf(data)
    return read_pe(data) if data[:2] == b"MZ" else read_other(data)


def _marks(reading: Reading, areas: Sequence[Area]) -> list[Mark]:
    """One name for a place, the first that was given; names of addresses go where the address lies."""
    names: dict[int, str] = {}
    for mark in reading.marks:
        names.setdefault(mark.offset, mark.name)
    mapped = sorted((area.address, area) for area in areas if area.address is not None)
    starts = [address for address, _ in mapped]
    for address, name in reading.addresses:
        i = bisect_right(starts, address) - 1
        if i >= 0 and address < starts[i] + mapped[i][1].end - mapped[i][1].start:
            names.setdefault(mapped[i][1].start + address - starts[i], name)
    return [Mark(offset, names[offset]) for offset in sorted(names)]


def _replay(account: Account, data: bytes, format: str, level: str) -> tuple[list[Field], np.ndarray]:
    """Drives the constraint along the file and notes its refusal: the fields, and which bytes were forced."""
    from bytegen.formats.api import replay_whole

    constraint, refusal = replay_whole(data, format, level)
    if refusal is not None:
        account.refusal = (refusal.offset, refusal.field, refusal.rule)
    fields = constraint.fields()
    if len(data) > MOST_FORCED_BYTES:
        account.notes.append(f"which bytes are forced is not worked out above {MOST_FORCED_BYTES} bytes")
        return fields, np.zeros(0, dtype=bool)
    flags = _forced(constraint, data)
    account.forced = _runs(flags)
    return fields, flags


def _forced(constraint: Constraint, data: bytes) -> np.ndarray:
    """bool[...]: the bytes that had one choice, under the usual length limit where the file gets as far there."""
    from bytegen import formats

    limit = max(_DEFAULT_LIMIT, len(data))
    if limit > constraint.max_bytes:
        wider = formats.constraint(constraint.format, max_bytes=limit, level=constraint.level)
        if wider.advance_many(data) >= constraint.position:
            constraint = wider
    return constraint.forced_flags()[:-1]


def _runs(flags: np.ndarray) -> list[int]:
    """Run lengths of flags, in turn, those of False first (0 when the first flag is True)."""
    if not len(flags):
        return []
    edges = np.flatnonzero(np.diff(flags)) + 1
    lengths = np.diff([0, *edges.tolist(), len(flags)]).tolist()
    return [0, *lengths] if flags[0] else lengths


class _Reader:
    """What the tolerant reader names: its tables' spans, in order, and for the rest the areas."""

    def __init__(self, data: bytes, reading: Reading, areas: Sequence[Area], most: int) -> None:
        self.areas = areas
        self.area_starts = [area.start for area in areas]
        tables = sorted(reading.tables, key=lambda table: table.start)
        fields = sum(table.number * len(table.fields) for table in tables)
        records = sum(table.number for table in tables)
        detail = "fields" if fields <= most else "records" if records <= most else "table"
        self.spans: list[Span] = []
        position = 0
        for table in tables:
            for span in read_table(data, table, reading.order, detail):
                if span.start >= position:
                    self.spans.append(span)
                    position = span.end
        self.starts = [span.start for span in self.spans]

    def beginning(self, start: int) -> Span | None:
        """The table field that begins there."""
        i = bisect_left(self.starts, start)
        return self.spans[i] if i < len(self.spans) and self.starts[i] == start else None

    def covering(self, start: int, end: int, path: str, rule: str, source: str) -> Iterator[Span]:
        """Spans over all of [start, end): fields of tables, and between them the areas' own bytes."""
        position = start
        for span in self.spans[bisect_left(self.starts, start) : bisect_left(self.starts, end)]:
            if span.end > end:
                break
            yield from self._plain(position, span.start, path, rule, source)
            yield span._replace(rule=rule)
            position = span.end
        yield from self._plain(position, end, path, rule, source)

    def _plain(self, start: int, end: int, path: str, rule: str, source: str) -> Iterator[Span]:
        while start < end:
            area = self.areas[bisect_right(self.area_starts, start) - 1]
            stop = min(area.end, end)
            yield Span(start, stop, path or area.name, None, rule, 0, source)
            start = stop


def _spans(
    data: bytes, ruled: Sequence[Field], flags: np.ndarray, account: Account, reading: Reading
) -> list[Span]:
    """The whole file: ruled fields; within what they leave free, and after them, what the reader knows."""
    reader = _Reader(data, reading, account.areas, MOST_SPANS)
    spans: list[Span] = []
    position = 0
    for field in _within(ruled, MOST_SPANS):
        position = field.end
        if field.value is not None:
            spans.append(Span(field.start, field.end, field.path, field.value, field.rule, 0, "rules"))
        elif _cut_short(field, account.refusal, len(data)):
            position = field.start
        else:
            spans += reader.covering(field.start, field.end, field.path, field.rule, "rules")
    if account.refusal is not None and position <= account.refusal[0] < len(data):
        refused = _refused(reader, position, account.refusal, len(data))
        spans.append(refused)
        position = refused.end
    spans += reader.covering(position, len(data), "", "", "reader")
    total = np.concatenate([[0], np.cumsum(flags)])
    last = len(flags)
    return [
        span._replace(forced=int(total[min(span.end, last)] - total[min(span.start, last)])) for span in spans
    ]


def _cut_short(field: Field, refusal: tuple[int, str, str] | None, size: int) -> bool:
    """Whether these are the first bytes of an integer whose next byte was refused."""
    if refusal is None or refusal[0] == size or field.end - field.start > _LONGEST_FIELD:
        return False
    return field.end == refusal[0] and field.path == refusal[1]


def _refused(reader: _Reader, start: int, refusal: tuple[int, str, str], size: int) -> Span:
    """The field that holds the first refused byte: as long as the reader takes it to be, or up to that byte."""
    offset, path, rule = refusal
    known = reader.beginning(start)
    if known is not None and known.end > offset:
        return Span(start, known.end, path, known.value, rule, 0, "rules")
    return Span(start, min(offset + 1, size), path, None, rule, 0, "rules")


def _within(fields: Sequence[Field], most: int) -> Sequence[Field]:
    """The fields; where there are too many, neighbours of one record (then of one table) count as one."""
    while len(fields) > most:
        coarse: list[Field] = []
        for field in fields:
            parent = field.path.rpartition(".")[0] or field.path.rpartition("[")[0] or field.path
            if coarse and coarse[-1].path == parent:
                coarse[-1] = coarse[-1]._replace(end=field.end)
            else:
                coarse.append(field._replace(path=parent, value=None))
        if len(coarse) == len(fields):
            step = -(-len(fields) // most)
            return [fields[i]._replace(end=fields[min(i + step, len(fields)) - 1].end, value=None)
                    for i in range(0, len(fields), step)]  # fmt: skip
        fields = coarse
    return fields
