"""`python -m bytegen.kernels.compiled [--json FILE] [--seconds N]`: compile what FILE does not hold yet; print all.

Rows of FILE that are of these sources, configurations and this triton are kept, so that the table can be built in
pieces. `--check` compiles nothing. Exit code 1 when a row is missing, or a kernel spills, does not fit or does not
compile.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any


def _line(row: dict[str, Any], complaints: list[str]) -> str:
    config = " ".join(f"{k.lower()}={v}" for k, v in row["config"].items())
    return (
        f"{row['kernel']:<28}{row['architecture']:<8}{row['head_dim']:>5} {row['dtype']:<9}"
        f"{row.get('registers', ''):>10}{row.get('spills', ''):>7}{row.get('shared', ''):>8}  "
        f"{'+'.join(row.get('tensor_core', [])):<16} {row['variant']}; {config}"
        + (f" <- {'; '.join(complaints)}" if complaints else "")
    )


def main() -> int:
    """Run it; see the module's docstring."""
    # Before triton is imported: the interpreter's functions do not compile.
    os.environ["TRITON_INTERPRET"] = "0"
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
    from bytegen.kernels.compiled import table
    from bytegen.kernels.compiled.jobs import ORDER, jobs

    parser = argparse.ArgumentParser(prog="python -m bytegen.kernels.compiled", description=__doc__)
    parser.add_argument("--architecture", action="append", choices=list(ORDER), help="these only")
    parser.add_argument("--kernel", default="", help="kernels whose name holds this")
    parser.add_argument("--json", type=Path, help="keep the rows here, after each compilation")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin none after this many")
    parser.add_argument("--check", action="store_true", help="compile nothing: hold the file to the sources")
    args = parser.parse_args()
    begun, made, broken, missing = time.monotonic(), 0, 0, 0
    before = table.read(args.json) if args.json else []
    rows: list[dict[str, Any]] = []
    print(
        f"{'kernel':<28}{'GPU':<8}{'head':>5} {'dtype':<9}{'registers':>10}{'spills':>7}{'shared':>8}  tensor core"
    )
    for job in jobs():
        row = table.kept(before, job)
        wanted = job.architecture in (args.architecture or ORDER) and args.kernel in job.kernel
        if row is None and wanted:
            if args.check or time.monotonic() - begun > args.seconds:
                missing += 1
                what = f"{job.kernel} {job.architecture} {job.head_dim} {job.dtype} ({job.variant})"
                print(f"{what}: no row of these sources")
                continue
            row, made = table.compiled(job), made + 1
            if args.json:  # what is left of the old rows stays until its turn comes
                table.write(args.json, [*rows, row, *(old for old in before if old not in rows)])
        if row is not None:
            rows.append(row)
            if wanted:
                complaints = table.complaints(row)
                broken += bool(complaints)
                print(_line(row, complaints), flush=True)
    if args.json and not args.check:
        table.write(args.json, rows)
    stale = sum(row not in rows for row in before) if args.check else 0
    print(
        f"{len(rows)} rows, {made} compiled now, {missing} missing, {stale} of other sources, "
        f"{broken} with a complaint, {time.monotonic() - begun:.0f} s"
    )
    return 1 if broken or missing or stale else 0


if __name__ == "__main__":
    sys.exit(main())
