"""The bar that commands show while they count something."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


def counter(console: Console, *, figures: bool = False) -> Progress:
    """A task's description, a bar, how many of how many, the task's field `figures` if asked, and times."""
    shown = [TextColumn("{task.fields[figures]}")] if figures else []
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *shown, TimeElapsedColumn(),
        TimeRemainingColumn(), console=console,
    )  # fmt: skip
