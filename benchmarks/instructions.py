"""Agreement of the instruction tables with capstone: strings, words, and this machine's own code.

    python benchmarks/instructions.py [--strings 100000000] [--folders /usr /opt] [--json FILE] [--stepped]

Prints how often table and capstone agree, what the tables leave out by decision, rule by rule, and every other
difference; exit code 1 when there is one. Needs a C compiler (cc, or the ziglang package).
"""

from __future__ import annotations

import argparse
import os
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bytegen.benchmark import environment, write_json_lines
from bytegen.formats.code.automaton import load
from bytegen.formats.code.learn.aarch64 import WordProbe
from bytegen.formats.code.learn.agreement import Comparer
from bytegen.formats.code.learn.processor import refused
from bytegen.formats.code.learn.rules import RULES

_MACHINES = {62: "x86_64", 3: "i386", 183: "aarch64"}
_PE_MACHINES = {0x8664: "x86_64", 0x14C: "i386", 0xAA64: "aarch64"}


def elf_text(data: bytes) -> tuple[str, bytes] | None:
    """(machine, .text) of a little-endian ELF file; None for anything else."""
    if data[:4] != b"\x7fELF" or data[5:6] != b"\x01" or len(data) < 64:
        return None
    wide = data[4] == 2
    machine = _MACHINES.get(struct.unpack_from("<H", data, 18)[0])
    offset = struct.unpack_from("<Q" if wide else "<I", data, 40 if wide else 32)[0]
    size, count, names = struct.unpack_from("<HHH", data, 58 if wide else 46)
    layout = "<IIQQQQIIQQ" if wide else "<IIIIIIIIII"
    if (
        machine is None
        or offset + size * count > len(data)
        or size != struct.calcsize(layout)
        or names >= count
    ):
        return None
    headers = [struct.unpack_from(layout, data, offset + size * i) for i in range(count)]
    strings = headers[names][4]
    for header in headers:
        name = strings + header[0]
        if data[name : name + 6] == b".text\0" and header[1] == 1:
            return machine, data[header[4] : header[4] + header[5]]
    return None


def pe_text(data: bytes) -> tuple[str, bytes] | None:
    """(machine, .text) of a PE file; None for anything else."""
    if data[:2] != b"MZ" or len(data) < 64:
        return None
    at = struct.unpack_from("<I", data, 60)[0]
    if data[at : at + 4] != b"PE\0\0" or at + 24 > len(data):
        return None
    machine, count, optional = struct.unpack_from("<HH12xH", data, at + 4)
    if machine not in _PE_MACHINES:
        return None
    for i in range(count):
        header = data[at + 24 + optional + 40 * i :][:40]
        if len(header) == 40 and header[:6] == b".text\0":
            used, _, size, start = struct.unpack_from("<IIII", header, 8)
            return _PE_MACHINES[machine], data[start : start + min(used, size)]
    return None


def texts(folders: list[Path]) -> Iterator[tuple[Path, str, bytes]]:
    """(file, machine, .text) of every ELF and PE file under the folders, each file content once."""
    seen: set[tuple[int, int]] = set()
    for folder in folders:
        for parent, _, names in os.walk(folder):
            for name in names:
                path = Path(parent, name)
                try:
                    status = path.lstat()
                    key = (status.st_dev, status.st_ino)
                    if path.is_symlink() or not path.is_file() or status.st_size < 256 or key in seen:
                        continue
                    with path.open("rb") as file:
                        if file.read(4)[:2] not in (b"\x7fE", b"MZ"):
                            continue
                        data = path.read_bytes()
                except OSError:
                    continue
                seen.add(key)
                found = elf_text(data) or pe_text(data)
                if found and found[1]:
                    yield path, *found


def measure_x86(
    bits: int, strings: int, seed: int, sections: list[bytes], folder: Path
) -> list[dict[str, object]]:
    """Rows for one x86 machine: structured strings, plain random strings, sections."""
    name = "x86_64" if bits == 64 else "i386"
    comparer = Comparer(bits, load(name, privileged=True), folder)
    rows = [
        comparer.strings(strings * 4 // 5, seed, plain=False),
        comparer.strings(strings // 5, seed + 1, plain=True),
    ]
    if sections:
        rows.append(comparer.text(sections))
    return rows


def measure_aarch64(words: int, seed: int, sections: list[bytes], folder: Path) -> list[dict[str, object]]:
    """Rows for AArch64: random words, half of them near valid ones, and sections."""
    probe, automaton = WordProbe(folder), load("aarch64", privileged=True)
    rng = np.random.default_rng(seed)

    def compare(what: str, source: Iterator[np.ndarray]) -> dict[str, object]:
        asked = accepted = broken = 0
        first: list[str] = []
        for batch in source:
            answers = probe.labels(batch)
            state = np.full(len(batch), automaton.start, np.int64)
            for k in range(4):
                state = automaton.following[state, (batch >> np.uint32(8 * k)) & np.uint32(255)].astype(
                    np.int64
                )
            mine = np.where(state >= automaton.accept, state - automaton.accept + 1, 0)
            wrong = np.flatnonzero(mine != answers)
            asked, accepted, broken = (
                asked + len(batch),
                accepted + int((answers > 0).sum()),
                broken + len(wrong),
            )
            first += [f"{int(batch[i]):08x}" for i in wrong[: 16 - len(first)]]
        return {"machine": "aarch64", "what": what, "asked": asked, "accepted": accepted, "rules": {},
                "disagreements": broken, "first": first}  # fmt: skip

    def drawn() -> Iterator[np.ndarray]:
        batch, kept = 1 << 18, np.zeros(1, np.uint32)
        for _ in range(0, words, batch):
            fresh = rng.integers(0, 1 << 32, batch, dtype=np.uint32)
            flips = np.uint32(1) << rng.integers(0, 32, batch // 2, dtype=np.uint32)
            fresh[: batch // 2] = rng.choice(kept, batch // 2) ^ flips
            kept = (
                fresh[probe.labels(fresh) > 0]
                if len(kept) == 1
                else np.concatenate([kept, fresh[:64]])[-65536:]
            )
            yield fresh

    rows = [compare("words", drawn())]
    if sections:
        rows.append(
            compare("text", (np.frombuffer(s[: len(s) & ~3], "<u4").astype(np.uint32) for s in sections))
        )
    return rows


def main() -> int:
    """Run the measurement; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--machines", nargs="*", default=["x86_64", "i386", "aarch64"])
    parser.add_argument("--strings", type=int, default=100_000_000, help="strings or words a machine")
    parser.add_argument("--folders", nargs="*", type=Path, default=[Path("/usr"), Path("/opt")])
    parser.add_argument(
        "--text-bytes", type=int, default=400_000_000, help="bytes of .text a machine at most"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stepped", action="store_true", help="step instructions on this processor")
    parser.add_argument("--json", type=Path, help="file to write one line of JSON a row to")
    args = parser.parse_args()
    sections: dict[str, list[bytes]] = {name: [] for name in args.machines}
    sizes: Counter[str] = Counter()
    for _, machine, text in texts(args.folders):
        if machine in sections and sizes[machine] < args.text_bytes:
            sections[machine].append(text)
            sizes[machine] += len(text)
    rows: list[dict[str, object]] = []
    stepped: list[dict[str, object]] = []
    for machine in args.machines:
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            if machine == "aarch64":
                fresh = measure_aarch64(args.strings, args.seed, sections[machine], Path(folder))
            else:
                bits = 64 if machine == "x86_64" else 32
                fresh = measure_x86(bits, args.strings, args.seed, sections[machine], Path(folder))
                if args.stepped:
                    stepped.append(refused(load(machine), 2, args.seed, Path(folder)))
        for row in fresh:
            row |= {"sections": len(sections[machine]) if row["what"] == "text" else 0}
            print(
                f"{row['machine']} {row['what']}: {row['asked']} asked, {row['accepted']} taken by capstone,"
            )
            print(f"    {row['disagreements']} disagreements {row['first'] or ''}")
            for rule, count in row["rules"].items():  # type: ignore[attr-defined]
                print(f"    {count:>12}  {rule}: {RULES[rule]}")
        rows += fresh
        print(f"{machine}: {time.monotonic() - begun:.0f} s", flush=True)
    for row in stepped:
        print(
            f"{row['machine']}: {row['asked']} instructions stepped, {row['refused']} refused; of mnemonics that run"
        )
        print(f"    here in some encoding: {row['refused_otherwise'] or 'none'}")
    if args.json:
        stamp = environment(("numpy", "capstone"))
        write_json_lines(
            args.json, [{"measure": "instructions", **row, "environment": stamp} for row in rows]
        )
    return 1 if any(row["disagreements"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
