"""`bytegen inspect`: a field-by-field account of any file, in the terminal, as JSON, as a page and as a map."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bytegen.cli.check import read_regular_file
from bytegen.errors import UserError

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

    from bytegen.formats.annotate import Account
    from bytegen.formats.annotate.tree import Node

MOST_BYTES = 64 << 20
_MOST_SIBLINGS = 14
_MOST_INSTRUCTIONS = 12


@click.command(name="inspect")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--format", "format_name", metavar="F", help="The format to read it as; found by the file otherwise."
)
@click.option(
    "--level", metavar="L", default="load", show_default=True, help="How much is asked of the file."
)
@click.option("--full", is_flag=True, help="Show every entry of long tables and all disassembly.")
@click.option("--json", "as_json", is_flag=True, help="The account as one JSON object.")
@click.option(
    "--html", type=click.Path(path_type=Path), metavar="OUT", help="Write a page with a map of the file."
)
@click.option("--png", type=click.Path(path_type=Path), metavar="OUT", help="Write a picture of the map.")
@click.option(
    "--model",
    metavar="M",
    help="Map the bits a byte of this model: 'packaged', a name or a folder.",
)
@click.option("--prompt", metavar="TEXT", help="What the model is told before the file.")
def inspect(
    file: Path,
    format_name: str | None,
    level: str,
    full: bool,
    as_json: bool,
    html: Path | None,
    png: Path | None,
    model: str | None,
    prompt: str | None,
) -> None:
    """Say what every byte of FILE is: fields and their rules, where it fails, disassembly.

    Works on any file. Exit code 0, also for a file that fails its format (see `bytegen check`); 2 for bad
    usage.
    """
    from bytegen.formats.annotate import account_of

    data = read_regular_file(file)
    name = click.format_filename(file)
    if len(data) > MOST_BYTES:
        raise UserError(f"{name} has {len(data)} bytes; inspect reads files of at most {MOST_BYTES}")
    account = account_of(data, format=format_name, level=level)
    bits = _bits(data, account, model, prompt) if model else None
    if html is not None:
        from bytegen.files import write_atomically
        from bytegen.formats.annotate.page import page

        write_atomically(html, page(account, data, name, bits).encode())
    if png is not None:
        from bytegen.files import write_atomically
        from bytegen.formats.annotate.png import picture

        write_atomically(png, picture(account, data, name, bits))
    if as_json:
        plain = {"file": name} | account.to_json()
        if bits is not None:
            plain["bits"] = [round(float(b), 3) for b in bits]
        click.echo(json.dumps(plain))
    elif html is None and png is None:
        _print(account, data, name, full)
    else:
        _print_summary(account, name, [path for path in (html, png) if path is not None])


def _print(account: Account, data: bytes, name: str, full: bool) -> None:
    """The account as a tree."""
    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree

    from bytegen.formats.annotate.colours import HEX
    from bytegen.formats.annotate.tree import build

    console = Console(highlight=False, soft_wrap=True)
    _print_head(console.print, account, name)
    code = _CodeLines(account, full)
    tree = Tree(Text("offset      name  value  rule", style="dim"), guide_style="dim")
    for node in build(account):
        assert node.area is not None
        line = _line(node, style=f"bold {HEX.get(node.area.kind, '')}".strip())
        line.append(f"  {node.end - node.start} bytes, {node.area.kind}", style="dim")
        branch = tree.add(line)
        _add(branch, node.children, data, account, full)
        if node.area.kind == "code":
            for text in code.of(node):
                branch.add(text)
    console.print(tree)


def _print_head(show: object, account: Account, name: str) -> None:
    from rich.text import Text

    from bytegen.formats.report import printable

    assert callable(show)
    held = f", held to {account.format} at level {account.level}" if account.format else ""
    show(Text(printable(f"{name}: {account.what}, {account.size} bytes{held}"), style="bold"))
    if account.refusal is not None:
        offset, path, rule = account.refusal
        place = f"byte {offset} ({offset:#x}), {path}"
        show(Text(printable(f"refused at {place}: {rule}"), style="bold red"))
        show(
            Text(
                "what follows that byte is a tolerant reader's account, which holds it to no rule",
                style="red",
            )
        )
    elif account.format:
        forced = sum(account.forced[1::2])
        show(
            Text(
                f"every byte obeys its rule; {forced} of {account.size} bytes had one choice only",
                style="green",
            )
        )
    for note in account.notes:
        show(Text(printable(f"note: {note}"), style="yellow"))


def _print_summary(account: Account, name: str, written: list[Path]) -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    _print_head(console.print, account, name)
    for path in written:
        console.print(f"wrote {click.format_filename(path)}", markup=False)


def _line(node: Node, style: str = "") -> Text:
    """Offset, name and label of a node."""
    from rich.text import Text

    from bytegen.formats.report import printable

    line = Text(f"{node.start:#08x}  ", style="dim")
    line.append(printable(node.name), style=style or "default")
    if node.label:
        line.append(f"  {printable(node.label)}", style="italic")
    return line


def _add(branch: Tree, nodes: list[Node], data: bytes, account: Account, full: bool) -> None:
    from rich.text import Text

    from bytegen.formats.annotate.tree import collapse, shown
    from bytegen.formats.report import printable

    for node in collapse(nodes, len(nodes) if full else _MOST_SIBLINGS):
        if isinstance(node, int):
            branch.add(Text(f"... {node} more (--full shows them)", style="dim"))
            continue
        line = _line(node)
        span = node.span
        if span is not None:
            refused = account.refusal is not None and span.start <= account.refusal[0] < span.end
            line.append(f"  {printable(shown(span, data))}", style="bold red" if refused else "cyan")
            if span.rule:
                line.append(f"  {printable(span.rule)}", style="bold red" if refused else "dim")
            if span.forced == span.end - span.start:
                line.append("  (forced)", style="dim")
        _add(branch.add(line), node.children, data, account, full)


class _CodeLines:
    """The disassembly of one area after another."""

    def __init__(self, account: Account, full: bool) -> None:
        self.code, self.names, self.full, self.at = account.code, account.names, full, 0

    def of(self, node: Node) -> list[Text]:
        """The lines of the area of a node; the areas come in order."""
        from rich.text import Text

        from bytegen.formats.report import printable

        lines: list[Text] = []
        skipped = 0
        while self.at < len(self.code) and self.code[self.at].offset < node.end:
            place = self.code[self.at]
            self.at += 1
            if len(lines) >= _MOST_INSTRUCTIONS and not self.full:
                skipped += 1
                continue
            line = Text(f"{place.offset:#08x}  ", style="dim")
            line.append(printable(place.text))
            if name := self.names.get(place.offset):
                line.append(f"  <{printable(name)}>", style="italic")
            lines.append(line)
        if skipped:
            lines.append(Text(f"... {skipped} more instructions (--full shows them)", style="dim"))
        return lines


def _bits(data: bytes, account: Account, model: str, prompt: str | None) -> list[float]:
    """Bits the model needs for each byte, among the bytes that the constraint allows if it takes the file.

    UserError when the model cannot take the file.
    """
    import numpy as np
    from rich.console import Console

    import bytegen
    from bytegen import formats
    from bytegen.scoring import log_probs

    if account.format is None:
        raise UserError(f"--model: no format for this file ({account.what}); name one with --format")
    lm = bytegen.load(None if model == "packaged" else model)
    constraint = None
    if account.refusal is None:
        limit = max(143_360, len(data))
        constraint = formats.constraint(account.format, max_bytes=limit, level=account.level)
    else:
        account.notes.append("the file is refused, so the model's bits are those without a constraint")
    bits: list[float] = []
    with Console(stderr=True).status("the model reads the file") as status:
        for part in log_probs(lm, data, format=account.format, prompt=prompt or ""):
            for row in part[: len(data) - len(bits)]:
                byte = data[len(bits)]
                total = 0.0
                if constraint is not None:
                    total = float(np.logaddexp.reduce(row[constraint.mask()]))
                    constraint.advance(byte)
                bits.append(max(0.0, (total - float(row[byte])) / math.log(2)))
            status.update(f"the model has read {len(bits):,} of {len(data):,} bytes")
    return bits
