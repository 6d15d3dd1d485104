"""`bytegen check`: holds files to a format and says where they break it."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bytegen.errors import UserError

if TYPE_CHECKING:
    from bytegen.formats.libraries import Imports


def read_regular_file(path: Path) -> bytes:
    """The bytes of a regular file; UserError when it is missing, unreadable or something else."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UserError(f"{click.format_filename(path)}: not a regular file")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{click.format_filename(path)}: {error.strerror}") from error


def _imports(given: tuple[str, ...]) -> Imports:
    """What `--imports` says; UserError for a word beside others, FormatError for a file that is no DLL."""
    from bytegen.formats import library

    words = [word for word in given if word in ("known", "any")]
    if words and len(given) > 1:
        raise UserError(f"--imports {words[0]} stands alone: give it once, or DLLs that come along")
    if words == ["any"]:
        return "any"
    return [library(path) for path in given if path != "known"] or "known"


@click.command(name="check")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--format", "format_name", metavar="F", help="The format to hold to; found by the file when left out."
)
@click.option(
    "--level", metavar="L", default="load", show_default=True, help="How much is asked of the file."
)
@click.option(
    "--imports",
    "imports",
    multiple=True,
    metavar="WHAT",
    help="What PE files may import: known (what every Windows has; the default), any, or a DLL that comes along, by "
    "its file; more than one of those.",
)
@click.option("--json", "as_json", is_flag=True, help="One line of JSON a file instead of text.")
@click.pass_context
def check(
    context: click.Context,
    files: tuple[Path, ...],
    format_name: str | None,
    level: str,
    imports: tuple[str, ...],
    as_json: bool,
) -> None:
    """Hold each FILE to its format: our own rules, LIEF and capstone say what is wrong, and where.

    Exit code 0 when all pass, 1 when one does not, 2 for bad usage.
    """
    from rich.console import Console
    from rich.text import Text

    from bytegen.formats.report import printable
    from bytegen.formats.validation import validate

    console = Console(highlight=False, soft_wrap=True)
    passed, allowed = True, _imports(imports)
    for path in files:
        report = validate(read_regular_file(path), format=format_name, level=level, imports=allowed)
        passed &= report.ok
        name = click.format_filename(path)
        if as_json:
            click.echo(json.dumps({"file": name} | json.loads(report.to_json())))
            continue
        summary, *problems = str(report).splitlines()
        verdict, _, account = summary.partition(": ")
        line = Text(verdict, style="bold green" if report.ok else "bold red")
        line.append(f"  {printable(name)}: {account}", style="default")
        console.print(line)
        for problem in problems:
            console.print(Text(problem, style="red"))
    if not passed:
        context.exit(1)
