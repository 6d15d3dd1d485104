"""What the judges found in a file: problems, each with its place and its judge, and facts."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field


def printable(text: str) -> str:
    """The text with whatever a terminal could take for a command (or cannot show) written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in text)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    `judge` says who found it: "rules" (our own), "lief", "capstone", or "reader" for what stops the others.
    `offset` is the byte where it was found, None when the judge does not say; `field` is the path of the
    field there ("ehdr.e_phoff", "phdr[2].p_vaddr", ...), empty when the judge does not say.
    """

    judge: str
    message: str
    offset: int | None = None
    field: str = ""

    def __str__(self) -> str:
        place = [] if self.offset is None else [f"byte {self.offset} ({self.offset:#x})"]
        if self.field:
            place.append(self.field)
        return printable(f"{self.judge}: {', '.join(place)}{': ' if place else ''}{self.message}")


@dataclass(frozen=True)
class Report:
    """The outcome of `formats.validate`: `ok` is True when no judge found a problem.

    `format` and `level` are what the file was held to; `format` is None when it is nothing we know. `facts`
    holds what else was learnt, in plain JSON types: "what" (a description), "size" in bytes, "sha256",
    "code" (what capstone decodes, see `formats.oracles.disassembly.sweep_code`).
    """

    format: str | None
    level: str
    problems: list[Problem] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every judge was content."""
        return not self.problems

    def __str__(self) -> str:
        what, size = self.facts.get("what", "file"), self.facts.get("size", "?")
        head = f"{'ok' if self.ok else 'not ok'}: {what}, {size} bytes"
        if self.format is not None:
            head += f", held to {self.format} at level {self.level}"
        return "\n".join([head, *(f"  {problem}" for problem in self.problems)])

    def to_json(self) -> str:
        """The report as one line of JSON: format, level, ok, problems, facts."""
        return json.dumps(
            {
                "format": self.format,
                "level": self.level,
                "ok": self.ok,
                "problems": [asdict(problem) for problem in self.problems],
                "facts": self.facts,
            }
        )
