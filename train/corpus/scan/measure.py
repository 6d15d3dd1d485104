"""One real file against the rules and the judges, and the account of many.

A file is held to `parse`; where the judges of `load` accept it, to `load`; and to `code`, which real files
need not pass (data in code, jumps over a prefix). A rule that refuses a file its judges accept is a fault of
the rule; a file that the rules take and a judge refuses is one too.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bytegen import formats
from bytegen.formats.oracles import panel
from bytegen.train.corpus.scan.collect import Found

_IN_FLIGHT_BYTES = 512 << 20


@dataclass
class Row:
    """What was found about one file.

    ``format`` is None for what is in no format of ours, ``what`` describes it. ``refused`` maps a level to
    the first refusal there (offset, field, rule), ``judged`` to the complaints of that level's own judges;
    a level that was not tried is in neither.
    """

    path: str
    size: int
    format: str | None
    what: str
    refused: dict[str, str | None] = field(default_factory=dict)
    rules: dict[str, str] = field(default_factory=dict)
    judged: dict[str, list[str]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        """The row in plain JSON types."""
        return asdict(self)


def measure(found: Found, *, judge: bool = True, levels: tuple[str, ...] = ("parse", "load", "code")) -> Row:
    """Replays one file at each level, the limit being its own length, and asks the judges at hand."""
    from bytegen.formats.identify import describe, detect

    data = found.data
    name = detect(data)
    row = Row(found.path, len(data), name if name in formats.available() else None, describe(data))
    if row.format is None:
        return row
    with tempfile.TemporaryDirectory(prefix="bytegen-scan-") as folder:
        path = Path(folder) / "file"
        path.write_bytes(data)
        path.chmod(0o700)
        for level in levels:
            if level not in formats.levels(row.format):
                continue
            if judge and level in ("parse", "load"):
                row.judged[level] = [
                    f"{one.name}: {line}"
                    for one in panel.judges(row.format, level)
                    if one.level == level and one.absent is None
                    for line in one.ask(path)
                ]
            _replay(row, data, level)
    return row


def _replay(row: Row, data: bytes, level: str) -> None:
    assert row.format is not None
    least = formats.least_bytes(row.format, level)
    if len(data) < least:
        row.refused[level] = f"the file ends at byte {len(data)}; the least file has {least}"
        row.rules[level] = "shorter than the least file"
        return
    constraint = formats.constraint(row.format, max_bytes=len(data), level=level)
    refusal = formats.replay(constraint, data)
    row.refused[level] = None if refusal is None else str(refusal)
    if refusal is not None:
        row.rules[level] = _family(refusal.field, refusal.rule)


def _family(path: str, rule: str) -> str:
    """A refusal without its numbers, so that like ones are counted together."""

    def plain(text: str) -> str:
        kept = "".join("#" if c.isdigit() else c for c in text)
        while "##" in kept:
            kept = kept.replace("##", "#")
        return kept

    return f"{plain(path)}: {plain(rule)}"


def measure_all(
    files: Iterable[Found], executor: Executor, *, judge: bool = True, most: int | None = None
) -> Iterator[Row]:
    """The rows of many files, in their order; at most 512 MiB of them wait at a time."""
    waiting: list[tuple[Future[Row], int]] = []
    size = 0
    for number, found in enumerate(files):
        if most is not None and number >= most:
            break
        while waiting and (size + len(found.data) > _IN_FLIGHT_BYTES or len(waiting) >= 64):
            done, length = waiting.pop(0)
            size -= length
            yield done.result()
        waiting.append((executor.submit(measure, found, judge=judge), len(found.data)))
        size += len(found.data)
    for done, _ in waiting:
        yield done.result()


@dataclass
class Account:
    """The totals of one format."""

    files: int = 0
    bytes: int = 0
    replays: Counter[str] = field(default_factory=Counter)
    tried: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)  # by every judge up to that level
    replays_accepted: Counter[str] = field(default_factory=Counter)  # of those, by the rules too
    rules: dict[tuple[str, bool, str], list[str]] = field(default_factory=dict)
    unsound: list[str] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Count one row."""
        self.files += 1
        self.bytes += row.size
        fine = True
        for level, refusal in row.refused.items():
            fine = fine and not row.judged.get(level)
            self.tried[level] += 1
            self.replays[level] += refusal is None
            self.accepted[level] += fine
            self.replays_accepted[level] += fine and refusal is None
            if refusal is not None:
                self.rules.setdefault((level, fine, row.rules[level]), []).append(row.path)
            elif row.judged.get(level):
                self.unsound.append(f"{row.path}: {level}: {row.judged[level][0]}")


def account(rows: Iterable[Row]) -> tuple[dict[str, Account], Counter[str]]:
    """The totals a format, and what else there was, by description."""
    accounts: dict[str, Account] = {}
    others: Counter[str] = Counter()
    for row in rows:
        if row.format is None:
            others[row.what] += 1
        else:
            accounts.setdefault(row.format, Account()).add(row)
    return accounts, others
