"""Bad input: cut, flipped, overlapping, counted in billions. Refused at a named field, in bounded time and memory."""

from __future__ import annotations

import struct
import subprocess
import sys
from functools import cache

import pytest
from handmade import minimal_elf, patched
from hypothesis import given, settings
from hypothesis import strategies as st

from bytegen import formats
from bytegen.formats.annotate import structs
from bytegen.formats.oracles.consistency import inconsistencies
from bytegen.formats.oracles.examine import ask
from bytegen.formats.oracles.rawelf import SHDR, SHDR_NAMES

SMALLEST = minimal_elf()
HEADERS = 0x78
FORMAT = "elf64-x86_64"
PAIRS = [(name, level) for name in formats.available() for level in formats.levels(name)]
HEAD = 200


def problems(data: bytes, format: str = FORMAT, level: str = "load") -> list[dict[str, object]]:
    return ask("rules", data, format, level)["problems"]


@cache
def samples(format: str, level: str, number: int, most: int = 1_500) -> list[bytes]:
    most = max(most, formats.least_bytes(format, level))
    return [formats.sample(format, seed, most, level) for seed in range(number)]


def refused_well(data: bytes, format: str, level: str) -> bool:
    """Whatever is wrong is one problem that names a place inside the file, a field and a rule."""
    found = problems(data, format, level)
    assert len(found) <= 1
    for problem in found:
        offset = problem["offset"]
        assert isinstance(offset, int)
        assert 0 <= offset <= len(data)
        assert problem["field"]
        assert problem["message"]
    return bool(found)


@pytest.mark.parametrize(("format", "level"), PAIRS)
def test_a_file_cut_anywhere_is_refused_at_a_named_field(format: str, level: str) -> None:
    (data,) = samples(format, level, 1, 400)
    refusals = 0
    for length in range(0, len(data), 1 + len(data) // 60):
        refusals += refused_well(data[:length], format, level)
    assert refusals, "a file cut inside its header cannot be whole"
    assert problems(data[: formats.least_bytes(format, level) - 1], format, level)


@pytest.mark.parametrize(("format", "level"), PAIRS)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_any_byte_of_a_header_with_any_value_gives_consistent_answers(
    format: str, level: str, data: st.DataObject
) -> None:
    (whole,) = samples(format, level, 1)
    at = data.draw(st.integers(0, min(HEAD, len(whole)) - 1), label="at")
    value = data.draw(st.integers(0, 255), label="value")
    changed = whole[:at] + bytes([value]) + whole[at + 1 :]
    refused_well(changed, format, level)
    assert inconsistencies(changed, format, level) == []


@pytest.mark.parametrize(("format", "level"), PAIRS)
@settings(max_examples=5, deadline=None)
@given(noise=st.binary(max_size=400), cut=st.integers(0, 400))
def test_noise_behind_a_good_beginning_gives_consistent_answers(
    format: str, level: str, noise: bytes, cut: int
) -> None:
    (whole,) = samples(format, level, 1)
    assert inconsistencies(whole[:cut] + noise, format, level) == []


@pytest.mark.full
@pytest.mark.parametrize(("format", "level"), PAIRS)
def test_every_cut_and_every_flip_of_the_head(format: str, level: str) -> None:
    for whole in samples(format, level, 2):
        for length in range(len(whole)):
            refused_well(whole[:length], format, level)
        for at in range(min(HEAD, len(whole))):
            for value in range(256):
                refused_well(whole[:at] + bytes([value]) + whole[at + 1 :], format, level)


@pytest.mark.parametrize("at", range(64))
def test_a_flipped_header_field_is_the_one_that_is_named_or_later_ones_are(at: int) -> None:
    for value in (0, 1, 0x7F, 0x80, 0xFF):
        changed = SMALLEST[:at] + bytes([value]) + SMALLEST[at + 1 :]
        for problem in problems(changed):
            offset = problem["offset"]
            assert isinstance(offset, int)
            assert offset >= at, "what comes before the change is as good as it was"


def with_sections(count: int, **fields: int) -> bytes:
    """The smallest executable with section headers behind it, all of them but the first alike."""
    shdr = dict.fromkeys(SHDR_NAMES, 0)
    shdr |= {"sh_type": 1, "sh_flags": 2, "sh_offset": 0x78, "sh_size": 8, "sh_addralign": 1} | fields
    body = SMALLEST.ljust(0x88, b"\0")
    table = bytes(SHDR[64].size) + SHDR[64].pack(*shdr.values()) * (count - 1)
    head = bytearray(body + table)
    struct.pack_into("<Q", head, 40, len(body))
    struct.pack_into("<HHH", head, 58, 64, count, 1)
    return bytes(head)


@pytest.mark.parametrize(
    "data",
    [
        patched(SMALLEST, e_phnum=0xFFFF),
        patched(SMALLEST, e_phoff=(1 << 64) - 8),
        patched(SMALLEST, e_phoff=0),
        patched(SMALLEST, p_filesz=(1 << 64) - 1, p_memsz=(1 << 64) - 1),
        patched(SMALLEST, p_offset=1 << 63),
        patched(SMALLEST, e_shoff=64, e_shnum=0xFFFF, e_shentsize=64),
        with_sections(300, sh_size=0xFFFFFFFF),
        with_sections(300, sh_type=2, sh_size=0xFFFFFFFFFFFFFFE8, sh_entsize=24, sh_link=1),
        with_sections(300, sh_type=2, sh_size=24, sh_entsize=24, sh_link=2),
        with_sections(300, sh_type=3, sh_offset=0, sh_size=1 << 40),
        with_sections(300, sh_type=4, sh_entsize=24, sh_size=24 << 30, sh_link=1, sh_info=1),
        with_sections(300, sh_type=7, sh_size=1 << 31),
        with_sections(300, sh_type=17, sh_size=4 << 20, sh_entsize=4, sh_link=1),
    ],
)
def test_counts_in_the_billions_overlaps_and_loops_are_answered(data: bytes) -> None:
    for level in formats.levels(FORMAT):
        refused_well(data, FORMAT, level)
        assert inconsistencies(data, FORMAT, level) == []


def overlapping_elf(sections: int) -> bytes:
    """Every section is the whole file."""
    data = bytearray(with_sections(sections, sh_offset=0, sh_size=1 << 62))
    return bytes(data)


def claimed_often(sections: int) -> bytes:
    """Every section is a symbol table over the whole file, named in itself."""
    return with_sections(sections, sh_type=2, sh_offset=0, sh_size=1 << 40, sh_entsize=24, sh_link=1)


def packed(fields: structs.Layout, **values: int) -> bytes:
    return b"".join(values.get(name, 0).to_bytes(size, "little") for name, size in fields)


def looping_pe(imports: int) -> bytes:
    """A PE file whose import descriptors all name the same long look-up table: the descriptors themselves."""
    body = struct.pack("<5I", 0x1000, 1, 1, 0x1000, 0x1000) * imports
    optional = packed(structs.OPTIONAL[0x20B], Magic=0x20B, NumberOfRvaAndSizes=16)
    directories = bytes(8) + struct.pack("<2I", 0x1000, len(body))
    head = packed(structs.DOS, e_magic=0x5A4D, e_lfanew=64)
    head += packed(
        structs.COFF, Signature=0x4550, Machine=0x8664, NumberOfSections=1, SizeOfOptionalHeader=240
    )
    head += optional + directories.ljust(128, b"\0")
    head += packed(
        structs.SECTION, VirtualSize=len(body), VirtualAddress=0x1000, SizeOfRawData=len(body),
        PointerToRawData=1024, Characteristics=0xE0000020,
    )  # fmt: skip
    return head.ljust(1024, b"\0") + body


HOSTILE = """
import resource, sys
from bytegen.formats.annotate import annotate
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
account = annotate(sys.stdin.buffer.read())
assert sum(area.end - area.start for area in account.areas) == account.size
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) // 1024)
"""


@pytest.mark.parametrize(
    "data",
    [overlapping_elf(20_000), claimed_often(20_000), looping_pe(4_000)],
    ids=["overlapping", "claimed often", "looping"],
)
def test_the_tolerant_reader_stays_within_bounds(data: bytes) -> None:
    done = subprocess.run([sys.executable, "-c", HOSTILE], input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-500:]
    # VmHWM is this process's own; ru_maxrss begins with what the parent had when it forked.
    assert int(done.stdout) < 1_000, "MiB"
