"""Soundness of the constraints: random files inside the masks, judged by LIEF, readelf and the kernel.

    python benchmarks/soundness.py --files 10000 --max-bytes 143360 --seed 0 [--level load] [--keep FOLDER]

Prints a table by sampler and one JSON line. Exit code 1 when a judge refused a file: a bug in a rule.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from bytegen import formats
from bytegen.formats.core.drive import PICKS
from bytegen.formats.oracles.kernel import kernel_accepts
from bytegen.formats.oracles.lief_judge import lief_judge
from bytegen.formats.oracles.readelf import readelf_judge


def judge(data: bytes, path: Path, level: str) -> list[str]:
    """The complaints of every judge of the level about one file."""
    complaints = [f"lief: {line}" for line in lief_judge(data)]
    path.write_bytes(data)
    path.chmod(0o755)
    complaints += [f"readelf: {line}" for line in readelf_judge(str(path))]
    if level == "load":
        result = kernel_accepts(str(path))
        if not result.accepted:
            complaints.append(f"kernel: {result.outcome}")
        elif result.entry_executable is False:
            complaints.append("kernel: the entry is not executable")
    path.unlink()
    return complaints


def main() -> int:
    """Run the measurement; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--format", default="elf64-x86_64")
    parser.add_argument("--level", default="load")
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--max-bytes", type=int, default=143_360)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picks", default="uniform,uniform,uniform,uniform,uniform,uniform,lowest,highest")
    parser.add_argument("--keep", help="folder for refused files")
    parser.add_argument("--show", type=int, default=20, help="how many refused files to list")
    args = parser.parse_args()
    picks = args.picks.split(",")
    if bad := set(picks) - set(PICKS):
        parser.error(f"unknown picks {sorted(bad)}; there are: {', '.join(PICKS)}")
    begun = time.monotonic()
    files: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    sizes: dict[str, list[int]] = {pick: [] for pick in picks}
    with tempfile.TemporaryDirectory() as folder:
        for i in range(args.files):
            pick, seed = picks[i % len(picks)], args.seed + i
            data = formats.sample(args.format, seed, args.max_bytes, args.level, pick)  # type: ignore[arg-type]
            files[pick] += 1
            sizes[pick].append(len(data))
            complaints = judge(data, Path(folder) / f"file{i}", args.level)
            if complaints:
                refused[pick] += 1
                if sum(refused.values()) <= args.show:
                    print(f"seed {seed} {pick} {len(data)} bytes: {complaints[:3]}", flush=True)
                    if args.keep:
                        (Path(args.keep) / f"{pick}-{seed}").write_bytes(data)
    print(f"{'sampler':<10}{'files':>8}{'refused':>9}{'least':>9}{'median':>9}{'most':>9} bytes")
    for pick in dict.fromkeys(picks):
        known = sorted(sizes[pick])
        if known:
            print(
                f"{pick:<10}{files[pick]:>8}{refused[pick]:>9}{known[0]:>9}{known[len(known) // 2]:>9}{known[-1]:>9}"
            )
    row = {
        "measure": "soundness",
        "format": args.format,
        "level": args.level,
        "files": dict(files),
        "refused": dict(refused),
        "max_bytes": args.max_bytes,
        "seed": args.seed,
        "seconds": round(time.monotonic() - begun, 1),
    }
    print(json.dumps(row))
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
