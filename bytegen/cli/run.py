"""`bytegen run FILE`: a program in the emulator, with this terminal's input and output."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TextIO

import click

from bytegen.errors import UserError

_LIMIT_CODE = 124


@click.command("run")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("arguments", nargs=-1)
@click.option(
    "--stdin-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What the program reads.",
)
@click.option("--max-instructions", type=click.IntRange(1), default=1_000_000_000, show_default=True)
@click.option(
    "--timeout", type=click.FloatRange(0, min_open=True), default=10.0, show_default=True, help="Seconds."
)
@click.option("--max-output", type=click.IntRange(0), default=1 << 20, show_default=True, help="Bytes.")
@click.option("--memory", type=click.IntRange(1), default=256, show_default=True, help="MB.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the program's random numbers.")
@click.option(
    "--native", is_flag=True, help="On this machine's kernel, inside bubblewrap, in place of the emulator."
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print the whole result as JSON in place of the program's output."
)
def run(
    file: Path,
    arguments: tuple[str, ...],
    stdin_file: Path | None,
    max_instructions: int,
    timeout: float,
    max_output: int,
    memory: int,
    seed: int,
    native: bool,
    as_json: bool,
) -> None:
    """Run a static ELF program in the emulator: no files, no network, no processes.

    Without --stdin-file the program reads this command's standard input, unless that is a terminal.

    The exit code is the program's own; 128 plus the signal's number where it died by one; 124 where a limit
    stopped it; 2 where the file is no program. A fault or a limit prints one line on stderr.
    """
    from bytegen.sandbox import run as emulate
    from bytegen.sandbox.native import run_native

    try:
        data = file.read_bytes()
        stdin = _stdin(stdin_file)
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from None
    try:
        if native:
            if arguments:
                raise UserError("--native passes no arguments to the program")
            result = run_native(
                data, stdin=stdin, timeout=timeout, max_output=max_output, memory=memory << 20
            )
        else:
            result = emulate(
                data,
                stdin=stdin,
                argv=(file.name, *arguments),
                max_instructions=max_instructions,
                timeout=timeout,
                max_output=max_output,
                memory=memory << 20,
                seed=seed,
            )
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    if as_json:
        click.echo(json.dumps(result.to_dict()))
    else:
        _write(sys.stdout, result.stdout)
        _write(sys.stderr, result.stderr)
        if not result.ok:
            click.echo(f"{file.name}: {result.ending}", err=True)
    if result.exit_code is not None:
        sys.exit(result.exit_code)
    sys.exit(128 + result.fault.signal_number if result.fault is not None else _LIMIT_CODE)


def _stdin(path: Path | None) -> bytes:
    if path is not None:
        return path.read_bytes()
    return b"" if sys.stdin.isatty() else sys.stdin.buffer.read()


def _write(stream: TextIO, data: bytes) -> None:
    stream.flush()
    stream.buffer.write(data)
    stream.buffer.flush()
