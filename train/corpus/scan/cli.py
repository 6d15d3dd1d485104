"""`bytegen corpus scan`: how many real files replay, and the rule behind each refusal."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.table import Table

    from bytegen.train.corpus.scan.kept import KeptRows
    from bytegen.train.corpus.scan.measure import Account, Row

LEVELS = ("parse", "load", "code")


@click.command("scan")
@click.argument("folders", metavar="FOLDER...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--jobs", type=click.IntRange(min=1), default=None, help="Processes. Default: all cores.")
@click.option("--most", type=click.IntRange(min=1), default=None, help="Stop after that many files.")
@click.option(
    "--judges/--no-judges", default=True, show_default=True, help="Ask the loaders and parsers too."
)
@click.option("--seconds", type=click.FloatRange(min=0), default=None, help="Begin no file after that long.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the totals as JSON lines.")
@click.option(
    "--rows",
    "rows_path",
    type=click.Path(path_type=Path),
    help="Write one JSON line a file, as each is done.",
)
@click.option(
    "--resume", is_flag=True, help="Keep the rows that --rows holds and go on with the other files."
)
def scan(
    folders: tuple[Path, ...],
    jobs: int | None,
    most: int | None,
    judges: bool,
    seconds: float | None,
    json_path: Path | None,
    rows_path: Path | None,
    resume: bool,
) -> None:
    """Replay every executable file in each FOLDER, packages opened, at every level.

    Prints the rate per format and level and the rule behind each refusal. The judges of a level (LIEF,
    readelf, pyelftools, pefile; the kernel, the dynamic loader, Wine) say which files a loader takes: a
    refusal of one of those is marked, and beside the others is what a judge says.

    A PE file that imports DLLs which come along with it, such as python311.dll, is refused at `load`, where imports are
    what every Windows has; so PE files are held to `load` a second time with any imports, in a table of their own.

    Object files and core dumps, which nobody loads, are counted with the files in no format of ours.
    Interrupted (Ctrl-C), it gives the account of the files that were done.
    """
    from bytegen.benchmark import environment, write_json_lines
    from bytegen.errors import UserError
    from bytegen.train.corpus.scan.collect import collect
    from bytegen.train.corpus.scan.kept import KeptRows
    from bytegen.train.corpus.scan.measure import account, measure_all

    for folder in folders:
        if not folder.exists():
            raise UserError(f"{click.format_filename(folder)}: no such file or folder")
    if resume and rows_path is None:
        raise UserError("--resume goes on with the rows of a file: name it with --rows")
    with KeptRows(rows_path, resume=resume) as kept:
        files = (found for found in collect(folders) if not kept.holds(found))
        _follow(
            kept, measure_all(files, jobs or os.cpu_count() or 1, judge=judges, most=most, seconds=seconds)
        )
    if not kept.rows:
        raise UserError(f"no ELF or PE file in {', '.join(map(click.format_filename, folders))}")
    accounts, others = account(kept.rows)
    _show(accounts, others, judges)
    if json_path is not None:
        machine = environment()
        write_json_lines(
            json_path,
            [
                {
                    "measure": "completeness", "format": name, "files": total.files, "bytes": total.bytes,
                    "replays": dict(total.replays), "accepted_by_judges": dict(total.accepted),
                    "accepted_and_replays": dict(total.replays_accepted), "judges": judges,
                    "seconds": dict(total.seconds), **machine,
                }
                for name, total in sorted(accounts.items())
            ],
        )  # fmt: skip


def _follow(kept: KeptRows, rows: Iterator[Row]) -> None:
    """Take the rows in as they come, beside a count of files and bytes."""
    from rich.console import Console
    from rich.progress import Progress, TimeElapsedColumn

    size = sum(row.size for row in kept.rows)
    with Progress("{task.description}", TimeElapsedColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("0 files", total=None)
        try:
            for row in rows:
                kept.add(row)
                size += row.size
                bar.update(task, advance=1, description=f"{len(kept.rows)} files, {size / 1e6:.0f} MB")
        except KeyboardInterrupt:
            bar.console.print("interrupted: the account is of the files that were done")


def _show(accounts: dict[str, Account], others: Counter[str], judged: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    from bytegen.formats.report import printable
    from bytegen.train.corpus.scan.measure import ANY_IMPORTS

    console = Console(width=None if Console().is_terminal else 140, highlight=False)
    table = Table("format", "files", "MB")
    for level in LEVELS:
        table.add_column(f"{level}: replay", justify="right")
        if judged and level != "code":
            table.add_column("of those the judges take", justify="right")
    table.add_column("us/byte", justify="right")
    for name, total in sorted(accounts.items()):
        cells = [name, str(total.files), f"{total.bytes / 1e6:.0f}"]
        for level in LEVELS:
            cells.append(_share(total.replays[level], total.tried[level]))
            if judged and level != "code":
                cells.append(_share(total.replays_accepted[level], total.accepted[level]))
        tried = sum(total.tried[level] > 0 for level in LEVELS)
        spent = sum(total.seconds[level] for level in LEVELS)
        cells.append(f"{1e6 * spent / max(1, tried * total.bytes):.2f}")
        table.add_row(*cells)
    console.print(table)
    if rows := [(name, total) for name, total in sorted(accounts.items()) if total.tried[ANY_IMPORTS]]:
        console.print(_any_imports(rows, judged))
    for name, total in sorted(accounts.items()):
        if not total.rules and not total.unsound:
            continue
        console.print(f"\n{name}: refusals", style="bold", markup=False)
        for key, paths in sorted(total.rules.items(), key=lambda item: -len(item[1])):
            level, fine, rule = key
            mark = "  (the judges take it)" if fine and judged and level != "code" else ""
            console.print(f"  {len(paths):5} {level}: {printable(rule)}{mark}", markup=False)
            console.print(f"        first: {printable(paths[0])}", markup=False)
            if key in total.words:
                console.print(f"        a judge of it: {printable(total.words[key])}", markup=False)
        for line in total.unsound:
            console.print(f"  replays, but a judge refuses: {printable(line)}", markup=False)
    if others:
        console.print("\nin no format of ours:", style="bold")
        for what, count in others.most_common(20):
            console.print(f"  {count:5} {printable(what)}", markup=False)


def _any_imports(rows: list[tuple[str, Account]], judged: bool) -> Table:
    """How many PE files would load where all that they import is found."""
    from rich.table import Table

    from bytegen.train.corpus.scan.measure import ANY_IMPORTS

    table = Table("load, whatever is imported", "files")
    table.add_column("replay", justify="right")
    if judged:
        table.add_column("of those the judges take, DLLs that are not here aside", justify="right")
    for name, total in rows:
        cells = [name, str(total.files), _share(total.replays[ANY_IMPORTS], total.tried[ANY_IMPORTS])]
        if judged:
            cells.append(_share(total.replays_accepted[ANY_IMPORTS], total.accepted[ANY_IMPORTS]))
        table.add_row(*cells)
    return table


def _share(part: int, whole: int) -> str:
    return f"{part}/{whole} ({100 * part / whole:.1f}%)" if whole else "-"
