"""`python -m bytegen.formats.code.learn x86_64 -o x86_64.npz`: learn a table and write it with its provenance."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from bytegen.formats.code.learn.aarch64 import learn_aarch64
from bytegen.formats.code.learn.store import write_table
from bytegen.formats.code.learn.x86 import learn_x86


def main() -> int:
    """Run the learner; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m bytegen.formats.code.learn", description=__doc__)
    parser.add_argument("machine", choices=["x86_64", "i386", "aarch64"])
    parser.add_argument("-o", "--output", type=Path, required=True, help="the .npz file to write")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--quiet-strings", type=int, default=50_000_000, help="strings without a difference before it stops"
    )
    args = parser.parse_args()
    begun = time.monotonic()

    def say(line: str) -> None:
        print(line, flush=True)

    if args.machine == "aarch64":
        following, roles, accept = learn_aarch64(args.seed, args.quiet_strings, say)
    else:
        bits = 64 if args.machine == "x86_64" else 32
        following, roles, accept = learn_x86(bits, args.seed, args.quiet_strings, say)
    options = {"seed": args.seed, "quiet_strings": args.quiet_strings}
    facts = write_table(args.output, args.machine, following, roles, accept, options)
    say(f"{len(following)} states, {args.output.stat().st_size} bytes, {time.monotonic() - begun:.0f} s")
    say(f"table sha256 {facts['table_sha256']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
