"""`bytegen bench sandbox`: instructions a second with the exact count on, and what a tiny program costs."""

from __future__ import annotations

import struct
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from bytegen.benchmark import Timing, environment, measure, summarise, write_json_lines
from bytegen.errors import UserError
from bytegen.sandbox import run

BASE = 0x400000
EXIT = bytes.fromhex("b83c000000 31ff 0f05")  # mov eax, 60; xor edi, edi; syscall
HELLO = bytes.fromhex("b801000000 bf01000000 488d3509000000 ba05000000 0f05") + EXIT + b"hello"
LOOPS = {
    "arithmetic and memory": "4801c8 4831c2 488d3410 48897424f8 ffc9 75ed",  # add, xor, lea, mov [rsp-8], dec, jnz
    "arithmetic": "4801c8 4831c2 488d3410 ffc9 75f2",
    "dec and jnz alone": "ffc9 75fc",
}
LENGTHS = {"arithmetic and memory": 6, "arithmetic": 5, "dec and jnz alone": 2}


def program(code: bytes) -> bytes:
    """Return the least ELF file that runs `code`: one header, one segment."""
    size, entry = 120 + len(code), BASE + 120
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, entry, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    return header + struct.pack("<IIQQQQQQ", 1, 5, 0, BASE, BASE, size, size, 4096) + code


def loop_speed(name: str, rounds: int, instructions: int) -> Timing:
    """Return instructions a second of one of `LOOPS`; raises UserError when the count is not what it must be."""
    turns = instructions // LENGTHS[name]
    data = program(b"\xb9" + struct.pack("<I", turns) + bytes.fromhex(LOOPS[name]) + EXIT)
    speeds = []
    for _ in range(rounds + 1):
        result = run(data, max_instructions=2 * instructions, timeout=120.0)
        if result.instructions != turns * LENGTHS[name] + 4:
            raise UserError(
                f"{name}: {result.instructions} instructions counted, {turns * LENGTHS[name] + 4} executed"
            )
        speeds.append(result.instructions / result.seconds)
    return summarise(speeds[1:])  # the first round warms up


@click.command("sandbox")
@click.option("--rounds", default=5, show_default=True)
@click.option("--instructions", default=100_000_000, show_default=True, help="Executed a round.")
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), default=None, help="Write JSON lines here."
)
def sandbox_bench(rounds: int, instructions: int, json_path: Path | None) -> None:
    """Million instructions a second, counted exactly, and the milliseconds that a tiny program takes."""
    if rounds < 1 or instructions < 1000:
        raise UserError("--rounds must be at least 1, --instructions at least 1000")
    figures = {
        name: ("M instructions/s", loop_speed(name, rounds, instructions).scaled(1e-6)) for name in LOOPS
    }
    hello = program(HELLO)
    figures["a program that prints hello"] = ("ms", measure(lambda: run(hello), rounds, calls=50).scaled(1e3))
    table = Table("program", "median", "p20-p80", "")
    for name, (unit, timing) in figures.items():
        table.add_row(name, f"{timing.median:.3g}", f"{timing.p20:.3g}-{timing.p80:.3g}", unit)
    Console().print(table)
    if json_path is not None:
        stamp = environment(("unicorn",))
        rows = [
            {"bench": "sandbox", "program": name, "unit": unit, "median": t.median, "p20": t.p20, "p80": t.p80,
             "rounds": t.rounds, **stamp}
            for name, (unit, t) in figures.items()
        ]  # fmt: skip
        write_json_lines(json_path, rows)
