"""A live hex view of the file being written: the last rows, coloured by field, and the field's name."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from bytegen.formats import Field

WIDTH = 16
ROWS = 14
COLOURS = (
    "cyan",
    "green",
    "yellow",
    "magenta",
    "blue",
    "bright_red",
    "bright_green",
    "bright_cyan",
    "bright_magenta",
)


def colour_of(path: str) -> str:
    """Return the colour of a field: the same for all fields of one table."""
    return COLOURS[zlib.crc32(path.split(".")[0].encode()) % len(COLOURS)]


class HexView:
    """Shows bytes as they come; a context manager around `rich.live.Live`."""

    def __init__(self, console: Console, title: str) -> None:
        self.console, self.title = console, title
        self.data = b""
        self.current = ""
        self.paths: list[str] = []
        self.coloured = 0
        self.live = Live(self._render(), console=console, refresh_per_second=20)

    def __enter__(self) -> HexView:
        self.live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.live.update(self._render())
        self.live.__exit__(kind, error, trace)

    def show(self, data: bytes, fields: Sequence[Field], current: str) -> None:
        """Show `data`; `fields` are the spans so far, `current` the field that the next byte belongs to."""
        self.data, self.current = data, current
        for field in fields[self.coloured :]:
            self.paths[field.start :] = [field.path] * (field.end - field.start)
        self.coloured = max(0, len(fields) - 1)  # the last may still grow
        self.paths[len(self.paths) :] = [current] * (len(data) - len(self.paths))
        self.live.update(self._render())

    def _render(self) -> Panel:
        lines = []
        first = max(0, (len(self.data) + WIDTH - 1) // WIDTH - ROWS) * WIDTH
        for row in range(first, len(self.data), WIDTH):
            line = Text(f"{row:06x}  ", style="dim")
            chunk = self.data[row : row + WIDTH]
            for i, byte in enumerate(chunk):
                style = colour_of(self.paths[row + i])
                line.append(f"{byte:02x} ", style=style if byte else f"dim {style}")
            line.append("   " * (WIDTH - len(chunk)) + " ")
            for i, byte in enumerate(chunk):
                shown = chr(byte) if 32 <= byte < 127 else "."
                line.append(shown, style=colour_of(self.paths[row + i]))
            lines.append(line)
        return Panel(
            Group(*lines),
            title=Text(self.title),
            subtitle=f"{len(self.data)} bytes  {self.current}",
            width=84,
        )
