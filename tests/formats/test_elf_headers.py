"""ELF headers and program headers over the three machines: what they must say, and what refuses them."""

from __future__ import annotations

import random
import struct
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from oracles import exec_judge, lief_judge

from bytegen import formats
from bytegen.formats.oracles.rawelf import RawElf, read_raw_elf

MACHINES = {"elf64-x86_64": (64, 62), "elf32-i386": (32, 3), "elf64-aarch64": (64, 183)}
FORMATS = tuple(MACHINES)
LOAD, DYNAMIC, INTERP, NOTE, PHDR, TLS = 1, 2, 3, 4, 6, 7
STACK, RELRO = 0x6474E551, 0x6474E552
PAGE = 4096
INTERPRETERS = {
    "elf64-x86_64": b"/lib64/ld-linux-x86-64.so.2\0",
    "elf32-i386": b"/lib/ld-linux.so.2\0",
    "elf64-aarch64": b"/lib/ld-linux-aarch64.so.1\0",
}
Row = dict[str, int]


def head(format: str, kind: int, entry: int, rows: list[Row]) -> bytes:
    """An ELF header and its program headers; p_memsz, p_paddr and p_align have defaults."""
    bits, machine = MACHINES[format]
    word, ehdr, phdr = ("Q", 64, 56) if bits == 64 else ("I", 52, 32)
    ident = bytes([0x7F, *b"ELF", bits // 32, 1, 1]).ljust(16, b"\0")
    numbers = (kind, machine, 1, entry, ehdr, 0, 0, ehdr, phdr, len(rows), 0, 0, 0)
    data = ident + struct.pack(f"<HHI{word}{word}{word}IHHHHHH", *numbers)
    for row in rows:
        p = {"flags": 4, "align": 1, **row}
        p.setdefault("paddr", p["vaddr"])
        p.setdefault("memsz", p["filesz"])
        names = ["type", "offset", "vaddr", "paddr", "filesz", "memsz", "align"]
        names.insert(1 if bits == 64 else 6, "flags")
        codes = "".join("I" if name in ("type", "flags") else word for name in names)
        data += struct.pack("<" + codes, *(p[name] for name in names))
    return data


def program(format: str) -> list[Row]:
    """Program headers like those of a position-independent program with an interpreter."""
    bits = MACHINES[format][0]
    ehdr, phdr = (64, 56) if bits == 64 else (52, 32)
    size, word = 9 * phdr, bits // 8
    path = len(INTERPRETERS[format])
    return [
        {"type": PHDR, "offset": ehdr, "vaddr": ehdr, "filesz": size, "align": word},
        {"type": INTERP, "offset": 0x300, "vaddr": 0x300, "filesz": path},
        {"type": LOAD, "offset": 0, "vaddr": 0, "filesz": 0x900, "align": PAGE},
        {"type": LOAD, "flags": 5, "offset": 0x1000, "vaddr": 0x1000, "filesz": 0x500, "align": PAGE},
        {
            "type": LOAD, "flags": 6, "offset": 0x2E00, "vaddr": 0x3E00, "filesz": 0x300, "memsz": 0x400,
            "align": PAGE,
        },
        {"type": DYNAMIC, "flags": 6, "offset": 0x2E00, "vaddr": 0x3E00, "filesz": 0x100, "align": word},
        {"type": TLS, "offset": 0x2F00, "vaddr": 0x3F00, "filesz": 0x10, "memsz": 0x20, "align": 8},
        {"type": STACK, "flags": 6, "offset": 0, "vaddr": 0, "filesz": 0, "align": 16},
        {"type": RELRO, "offset": 0x2E00, "vaddr": 0x3E00, "filesz": 0x200, "align": 1},
    ]  # fmt: skip


def refusal(format: str, data: bytes, level: str) -> formats.Refusal | None:
    """Where the bytes leave the format; None when all of them are taken."""
    c = formats.constraint(format, level=level)
    return c.refusal() if c.advance_many(data) < len(data) else None


@pytest.mark.parametrize("level", ["parse", "load"])
@pytest.mark.parametrize("format", FORMATS)
def test_the_headers_of_a_dynamic_program_replay(format: str, level: str) -> None:
    assert refusal(format, head(format, 3, 0x1040, program(format)), level) is None
    fixed = [
        {**row, "vaddr": row["vaddr"] + (0x400000 if row["type"] != STACK else 0)} for row in program(format)
    ]
    assert refusal(format, head(format, 2, 0x401040, fixed), level) is None


@pytest.mark.parametrize("format", FORMATS)
def test_the_headers_of_a_shared_object_replay(format: str) -> None:
    rows = [row for row in program(format) if row["type"] not in (PHDR, INTERP)]
    for level in ("parse", "load"):
        assert refusal(format, head(format, 3, 0, rows), level) is None


# (what is wrong, index of the header, its fields, the field refused)
WRONG = [
    ("PT_PHDR elsewhere in the file", 0, {"offset": 0x80}, "p_offset"),
    ("PT_PHDR at an address that its segment does not map", 0, {"vaddr": 0x1040}, "p_"),
    ("PT_INTERP of another length than any loader's path", 1, {"filesz": 9, "memsz": 9}, "p_filesz"),
    ("PT_INTERP at another address than its segment's", 1, {"vaddr": 0x301}, "p_vaddr"),
    ("PT_LOAD not congruent", 2, {"vaddr": 0x10}, "p_vaddr"),
    ("PT_LOAD that does not hold the table", 2, {"filesz": 0x80, "memsz": 0x80}, "p_filesz"),
    ("PT_LOAD aligned to less than a page", 2, {"align": 8}, "p_align"),
    ("code that is not executable", 3, {"flags": 4}, "p_"),
    ("PT_LOAD on the page of the one before", 4, {"vaddr": 0x1E00}, "p_vaddr"),
    ("PT_LOAD smaller in memory than in the file", 4, {"memsz": 0x10}, "p_memsz"),
    ("PT_DYNAMIC that no segment maps", 5, {"offset": 0x2000}, "p_"),
    ("PT_DYNAMIC not a whole number of entries", 5, {"filesz": 0x101, "memsz": 0x101}, "p_filesz"),
    ("PT_TLS whose bytes are not mapped there", 6, {"vaddr": 0x3F08}, "p_filesz"),
    ("PT_TLS aligned to no power of two", 6, {"align": 3}, "p_align"),
    ("PT_GNU_RELRO beyond its segment", 8, {"memsz": 0x2000}, "p_memsz"),
]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("case", WRONG, ids=[case[0] for case in WRONG])
def test_headers_that_a_loader_refuses_are_refused(format: str, case: tuple[str, int, Row, str]) -> None:
    _, index, fields, field = case
    rows = program(format)
    rows[index] = {**rows[index], **fields}
    found = refusal(format, head(format, 3, 0x1040, rows), "load")
    assert found is not None
    assert found.field.startswith("phdr[")
    assert found.field.split(".")[1].startswith(field), found


def test_a_program_with_an_interpreter_needs_a_dynamic_section() -> None:
    rows = [{**row, "type": 0} if row["type"] == DYNAMIC else row for row in program("elf64-x86_64")]
    found = refusal("elf64-x86_64", head("elf64-x86_64", 3, 0x1040, rows), "load")
    assert found is not None
    assert found.field == "phdr[8].p_type"


def test_the_interpreter_is_one_that_systems_have() -> None:
    format = "elf64-x86_64"
    data = head(format, 3, 0x1040, program(format)).ljust(0x300, b"\0")
    assert refusal(format, data + INTERPRETERS[format], "load") is None
    found = refusal(format, data + b"/lib64/ld-linux-x86-64.so.3\0", "load")
    assert found is not None
    assert found.field == "interp"
    assert refusal(format, data + b"/lib64/ld-linux-x86-64.so.3\0", "parse") is None


def test_big_endian_files_are_refused_with_their_name() -> None:
    data = bytearray(head("elf64-aarch64", 2, 0x400000, program("elf64-aarch64")))
    data[5] = 2
    data[18:20] = (183).to_bytes(2, "big")
    report = formats.validate(bytes(data), isolate=False)
    assert report.format is None
    assert any("big-endian" in problem.message for problem in report.problems)
    found = refusal("elf64-aarch64", bytes(data), "parse")
    assert found is not None
    assert (found.offset, "big-endian" in found.rule) == (5, True)


def _maps(loads: list[Row], offset: int, address: int, size: int) -> bool:
    return any(
        load["p_offset"] <= offset
        and offset + size <= load["p_offset"] + load["p_filesz"]
        and address - offset == load["p_vaddr"] - load["p_offset"]
        for load in loads
    )


def broken(raw: RawElf) -> Iterator[str]:
    """What of the rules of level load a file's headers break; written apart from the engine."""
    loads = [row for row in raw.phdrs if row["p_type"] == LOAD]
    kinds = [row["p_type"] for row in raw.phdrs]
    entry, dynamic = raw.ehdr["e_entry"], raw.ehdr["e_type"] == 3
    for row in loads:
        if (row["p_vaddr"] - row["p_offset"]) % PAGE and (row["p_filesz"] or dynamic):
            yield "congruence"
        if dynamic and (row["p_align"] < PAGE or (row["p_vaddr"] - row["p_offset"]) % row["p_align"]):
            yield "alignment"
    for one, other in pairwise(loads):
        if -(-(one["p_vaddr"] + one["p_memsz"]) // PAGE) > other["p_vaddr"] // PAGE:
            yield "shared pages"
    code = [row for row in loads if row["p_flags"] & 1]
    held = any(row["p_vaddr"] <= entry < row["p_vaddr"] + row["p_filesz"] for row in code)
    if not held and not (dynamic and entry == 0):
        yield "entry"
    if (INTERP in kinds or (dynamic and entry == 0)) and kinds.count(DYNAMIC) != 1:
        yield "no dynamic section"
    for row in raw.phdrs:
        if row["p_type"] in (PHDR, INTERP, DYNAMIC, NOTE) and not _maps(
            loads, row["p_offset"], row["p_vaddr"], row["p_filesz"]
        ):
            yield f"{row['p_type']} is not mapped"


@pytest.mark.parametrize("format", FORMATS)
def test_random_files_keep_the_rules_of_headers(format: str) -> None:
    seen: set[int] = set()
    kinds: set[int] = set()
    for seed in range(60):
        pick = random.Random(seed).choice(["uniform", "uniform", "lowest", "highest"])
        data = formats.sample(format, 500 + seed, 3_000, "load", pick)  # type: ignore[arg-type]
        raw = read_raw_elf(data)
        assert list(broken(raw)) == [], seed
        seen |= {row["p_type"] for row in raw.phdrs}
        kinds.add(raw.ehdr["e_type"])
    assert {LOAD, NOTE, STACK, RELRO} <= seen
    assert kinds == {2, 3}


@pytest.mark.parametrize("format", FORMATS)
def test_random_files_pass_lief(format: str) -> None:
    for seed in range(20):
        data = formats.sample(format, 900 + seed, 2_000, "load")
        assert lief_judge(data) == [], seed


@pytest.mark.parametrize("path", ["/bin/true", "/bin/sh", sys.executable])
def test_programs_of_this_system_replay_up_to_their_headers_end(path: str) -> None:
    file = Path(path)
    data = file.read_bytes() if file.exists() else b""
    format = formats.detect(data)
    if format not in FORMATS:
        pytest.skip(f"{path} is no ELF file of a machine we know")
    raw = read_raw_elf(data)
    end = raw.ehdr["e_phoff"] + raw.ehdr["e_phentsize"] * raw.ehdr["e_phnum"]
    for level in ("parse", "load"):
        c = formats.constraint(format, max_bytes=len(data), level=level)
        assert c.advance_many(data[:end]) == end, c.refusal()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux")
def test_position_independent_files_start() -> None:
    started = 0
    for seed in range(40):
        data = formats.sample("elf64-x86_64", seed, 2_000)
        if data[16] == 3 and data[24:32] != bytes(8):
            assert exec_judge(data) is None, seed
            started += 1
    assert started > 5
