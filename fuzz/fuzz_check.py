"""Coverage-guided fuzzing of everything `check` and `inspect` do with a file before other people's parsers.

    python fuzz/fuzz_check.py --seconds 300 [--corpus FOLDER] [--json benchmarks/fuzz.jsonl]

atheris instruments `bytegen.formats`; an input's first byte picks a format and level, the rest is the file.
What must hold is `bytegen.formats.oracles.consistency`: no exception, no dead end, exact refusals, fields and
accounts without gaps, and an answer within `MOST_SECONDS`. libFuzzer stops at the first crash, so it runs in
a child, which is started again; the same crash (by its message) is counted once. Exit code 1 if there is one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import mmap
import random
import re
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bytegen.formats import Constraint

MOST_SECONDS = 10.0
MOST_BYTES = 12_288
MEMORY_MIB = 2_048
MOST_CRASHES = 50
_SEED_BYTES = 2_048
_SEEDS = 4


def pairs(wanted: str) -> list[tuple[str, str]]:
    """Every format at every level whose "format/level" matches, in the order that a first byte counts by."""
    from bytegen import formats

    found = [(name, level) for name in formats.available() for level in formats.levels(name)]
    return [pair for pair in found if re.search(wanted, "/".join(pair))]


def write_seeds(folder: Path, known: list[tuple[str, str]]) -> None:
    """Random files of every format and level, small real programs, and the least file of each."""
    from bytegen import formats
    from bytegen.formats.oracles.compilers import static_programs

    with tempfile.TemporaryDirectory(prefix="bytegen-seeds-") as scratch:
        programs = static_programs(scratch, quick=True)
        real = [data for _, data in programs if len(data) <= MOST_BYTES]
    for index, (name, level) in enumerate(known):
        least = formats.least_bytes(name, level)
        samples = [formats.sample(name, seed, max(_SEED_BYTES, least), level) for seed in range(_SEEDS)]
        for data in [*samples, *real]:
            seed = bytes([index]) + data
            (folder / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)


def child(folder: Path, counter: Path, artifacts: Path, wanted: str, seconds: int, seed: int) -> None:
    """Fuzzes until the time is up or an input fails; counts inputs in the first 8 bytes of `counter`."""
    import atheris

    with atheris.instrument_imports(
        include=["bytegen.formats"], exclude=["bytegen.formats.oracles.compilers"]
    ):
        from bytegen import formats
        from bytegen.formats.annotate import fields  # noqa: F401  # instrumented here, used by consistency
        from bytegen.formats.oracles.consistency import inconsistencies

        known = pairs(wanted)

    with counter.open("r+b") as file:
        count = mmap.mmap(file.fileno(), 8)

    def one(data: bytes) -> None:
        count[:] = (int.from_bytes(count[:], "little") + 1).to_bytes(8, "little")
        if not data:
            return
        name, level = known[data[0] % len(known)]
        begun = time.process_time()
        # The account costs more than all else, so one input in four gets one, always the same ones.
        found = inconsistencies(data[1:], name, level, account=zlib.crc32(data) % 4 == 0)
        if found:
            raise AssertionError(f"{name} at level {level}: {found[0]}")
        taken = time.process_time() - begun
        if taken > MOST_SECONDS:
            raise AssertionError(
                f"{name} at level {level}: too slow: {taken:.1f} s for {len(data) - 1} bytes"
            )

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if len(data) < 2 or rng.random() < 0.6:
            return atheris.Mutate(data, most)
        name, level = known[data[0] % len(known)]
        limit = max(rng.choice((len(data) - 1, 4_096)), formats.least_bytes(name, level))
        constraint = formats.constraint(name, max_bytes=limit, level=level)
        return (data[:1] + follow(constraint, data[1:], rng))[:most]

    arguments = [
        sys.argv[0], str(folder), f"-max_total_time={seconds}", f"-max_len={MOST_BYTES + 1}", "-timeout=60",
        f"-rss_limit_mb={MEMORY_MIB}", f"-artifact_prefix={artifacts}/", f"-seed={seed}", "-len_control=0",
        "-print_final_stats=1",
    ]  # fmt: skip
    atheris.Setup(arguments, one, custom_mutator=mutate)
    atheris.Fuzz()


def follow(constraint: Constraint, data: bytes, rng: random.Random) -> bytes:
    """A file that keeps the rules up to a place, does as it likes within them for some bytes, and goes on."""
    cut = rng.randrange(len(data))
    taken = constraint.advance_many(data[:cut])
    for _ in range(rng.choice((1, 4, 16, 64))):
        choices = constraint.mask().nonzero()[0]
        choice = int(choices[rng.randrange(len(choices))])
        constraint.advance(choice)
        if constraint.done:
            return constraint.data
    return constraint.data + data[max(taken, constraint.position) :]


def crash_name(output: str) -> str:
    """The line that says why a child stopped: a Python exception, or libFuzzer's own word."""
    lines = [line.strip() for line in output.splitlines()]
    for i, line in enumerate(lines):
        if "Uncaught Python exception" in line:
            where = [text for text in lines[i:] if text.startswith("File ")]
            place = re.sub(r".*/(bytegen|formats|fuzz)/", r"\1/", where[-1].replace('"', "")) if where else ""
            message = lines[i + 1] if i + 1 < len(lines) else ""
            return f"{message} ({place})"
    errors = [line for line in lines if "ERROR: libFuzzer" in line]
    return errors[-1] if errors else "\n".join(lines[-3:])


def same(name: str) -> str:
    """A crash's name without its numbers."""
    return re.sub(r"0x[0-9a-f]+|\d+", "#", name)


def campaign(seconds: int, corpus: Path, artifacts: Path, wanted: str) -> tuple[int, list[dict[str, str]]]:
    """Runs children until the time is up: inputs tried, and each crash once with the input's file."""
    artifacts.mkdir(parents=True, exist_ok=True)
    crashes: dict[str, dict[str, str]] = {}
    tried = 0
    end = time.monotonic() + seconds
    runs = 0
    while (left := int(end - time.monotonic())) > 0 and runs < MOST_CRASHES:
        runs += 1
        with tempfile.TemporaryDirectory(prefix="bytegen-fuzz-") as scratch:
            counter = Path(scratch) / "count"
            counter.write_bytes(bytes(8))
            command = [sys.executable, __file__, "--child", str(corpus), str(counter), str(artifacts), wanted]
            before = set(artifacts.iterdir())
            done = subprocess.run(
                [*command, str(left), str(runs)], capture_output=True, text=True, errors="replace"
            )
            tried += int.from_bytes(counter.read_bytes(), "little")
            if done.returncode == 0:
                continue
            fresh = sorted(set(artifacts.iterdir()) - before)
            name = crash_name(done.stdout + done.stderr)
            crashes.setdefault(same(name), {"crash": name, "input": str(fresh[0]) if fresh else ""})
            print(f"crash: {name} {fresh[0] if fresh else ''}", flush=True)
    return tried, list(crashes.values())


def main() -> None:
    """Runs a campaign, or its child."""
    if sys.argv[1:2] == ["--child"]:
        folder, counter, artifacts, wanted, seconds, seed = sys.argv[2:]
        sys.argv = sys.argv[:1]
        child(Path(folder), Path(counter), Path(artifacts), wanted, int(seconds), int(seed))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seconds", type=int, default=300, help="time for all children (default: %(default)s)"
    )
    parser.add_argument("--corpus", type=Path, help="keep the corpus here, and go on from it")
    parser.add_argument("--artifacts", type=Path, default=Path("runs/fuzz"), help="where crashing inputs go")
    parser.add_argument("--only", default="", help='a pattern of "format/level", such as "^pe.*/parse"')
    parser.add_argument("--json", type=Path, help="add a line with the figures to this file")
    options = parser.parse_args()
    known = pairs(options.only)
    if not known or options.seconds < 1:
        parser.error("--only must match a format and level, and --seconds be at least 1")
    with tempfile.TemporaryDirectory(prefix="bytegen-corpus-") as scratch:
        corpus = options.corpus or Path(scratch)
        corpus.mkdir(parents=True, exist_ok=True)
        write_seeds(corpus, known)
        begun = time.monotonic()
        tried, crashes = campaign(options.seconds, corpus, options.artifacts, options.only)
        taken = time.monotonic() - begun
    print(
        f"{tried} inputs in {taken:.0f} s over {len(known)} formats and levels, {len(crashes)} distinct crashes"
    )
    if options.json is not None:
        from bytegen.benchmark import environment

        row = {
            "bench": "fuzz", "inputs": tried, "seconds": round(taken), "crashes": crashes,
            "formats": [f"{name}/{level}" for name, level in known],
        } | environment(("atheris", "numpy", "capstone"))  # fmt: skip
        options.json.parent.mkdir(parents=True, exist_ok=True)
        with options.json.open("a") as file:
            file.write(json.dumps(row) + "\n")
    sys.exit(1 if crashes else 0)


if __name__ == "__main__":
    main()
