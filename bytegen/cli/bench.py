"""`bytegen bench`: measurements, as tables and as JSON lines."""

import click

from bytegen.cli.bench_decode import decode_bench
from bytegen.cli.bench_formats import formats_bench
from bytegen.cli.bench_generate import generate_bench
from bytegen.cli.bench_kernels import kernels_bench
from bytegen.cli.bench_long import long_bench
from bytegen.cli.bench_sandbox import sandbox_bench


@click.group()
def bench() -> None:
    """Measure speed; every figure is a median of several rounds in one run on one machine."""


bench.add_command(decode_bench, "decode")
bench.add_command(formats_bench, "formats")
bench.add_command(generate_bench, "generate")
bench.add_command(kernels_bench, "kernels")
bench.add_command(long_bench, "long")
bench.add_command(sandbox_bench, "sandbox")
