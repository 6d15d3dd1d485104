"""`python -m bytegen.kernels.compiled [--architecture sm_90] [--json FILE]`: compile everything and print the table.

Exit code 1 when a kernel spills, does not fit or does not compile.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path


def main() -> int:
    """Run it; see the module's docstring."""
    os.environ["TRITON_INTERPRET"] = (
        "0"  # before triton is imported: the interpreter's functions do not compile
    )
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
    from bytegen.kernels.architectures import ARCHITECTURES
    from bytegen.kernels.compiled import table
    from bytegen.kernels.compiled.jobs import jobs

    parser = argparse.ArgumentParser(prog="python -m bytegen.kernels.compiled", description=__doc__)
    parser.add_argument("--architecture", action="append", choices=list(ARCHITECTURES), help="these only")
    parser.add_argument(
        "--bits", type=int, action="append", choices=[16, 32], help="elements of this many bits only"
    )
    parser.add_argument("--kernel", help="kernels whose name holds this")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    begun, found, broken = time.monotonic(), [], 0
    wanted = (
        job
        for job in jobs(args.architecture, bits=tuple(args.bits or (16, 32)))
        if not args.kernel or args.kernel in job.kernel
    )
    print(
        f"{'kernel':<28}{'GPU':<8}{'head':>5}{'bits':>5}{'registers':>10}{'spills':>7}{'shared':>8}  tensor core"
    )
    for row in table.rows(wanted):
        found.append(row)
        complaints = table.complaints(row)
        broken += bool(complaints)
        config = " ".join(f"{k.lower()}={v}" for k, v in row["config"].items())
        print(
            f"{row['kernel']:<28}{row['architecture']:<8}{row['head_dim']:>5}{row['bits']:>5}"
            f"{row.get('registers', ''):>10}{row.get('spills', ''):>7}{row.get('shared', ''):>8}  "
            f"{row.get('tensor_core', ''):<16} {row['variant']}; {config}"
            + (f" <- {'; '.join(complaints)}" if complaints else ""),
            flush=True,
        )
    print(f"{len(found)} kernels, {broken} with a complaint, {time.monotonic() - begun:.0f} s")
    if args.json:
        table.write(args.json, found)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
