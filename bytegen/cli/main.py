"""Entry point of the `bytegen` command: finds the commands, and turns user errors into one line and exit code 2."""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import entry_points

import click

from bytegen.errors import UserError
from bytegen.formats import FormatError

COMMANDS = {
    "generate": "bytegen.cli.generate:generate",
    "run": "bytegen.cli.run:run",
    "check": "bytegen.cli.check:check",
    "inspect": "bytegen.cli.inspect:inspect",
    "bench": "bytegen.cli.bench:bench",
    "plan": "bytegen.cli.plan:plan",
    "convert": "bytegen.cli.convert:convert",
    "export": "bytegen.cli.convert:export",
}
"""Commands of `bytegen` itself; sub-packages add theirs as entry points of the group `bytegen.commands`."""


def _resolve(target: str) -> click.Command:
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


class LazyGroup(click.Group):
    """A group that imports a command when it is asked for, so that `--help` needs no torch."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*COMMANDS, *(e.name for e in entry_points(group="bytegen.commands"))})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command `cmd_name`."""
        if cmd_name in COMMANDS:
            return _resolve(COMMANDS[cmd_name])
        for entry in entry_points(group="bytegen.commands", name=cmd_name):
            return entry.load()
        return None

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; a user's mistake becomes one line and exit code 2."""
        try:
            return super().invoke(ctx)
        except (UserError, FormatError) as error:
            click.echo(f"bytegen: {error}", err=True)
            sys.exit(2)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="bytegen")
def cli() -> None:
    """Write executables byte by byte from a description, and check, run, train and measure."""


def main() -> None:
    """Run the command line."""
    cli.main(prog_name="bytegen")
