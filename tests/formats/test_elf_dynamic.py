"""ELF's dynamic section: compilers' dynamic programs replay, random ones pass every judge, and the sets hold."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import lief_judge, readelf_judge

from bytegen import formats
from bytegen.formats.core.drive import draw
from bytegen.formats.elf.dynamic import gnu_hash, hashes
from bytegen.formats.elf.dynamic.addresses import AddressMap
from bytegen.formats.elf.dynamic.names import Strings, is_library
from bytegen.formats.elf.dynamic.relocations import packed_run
from bytegen.formats.elf.dynamic.versions import elf_hash
from bytegen.formats.elf.plan import Segment
from bytegen.formats.identify import detect
from bytegen.formats.oracles.dynamic_loader import loader_lists, loader_verifies
from bytegen.formats.oracles.panel import complaints

SOURCE = """#include <stdio.h>
__thread int calls;
int shared_value = 3;
__attribute__((constructor)) static void start(void) { calls = 1; }
int visible(int x) { return printf("%d\\n", x + calls + shared_value); }
"""
MAIN = SOURCE + "int main(void) { return visible(4) < 0; }\n"
PLAIN = {
    "pie": (),
    "fixed": ("-no-pie",),
    "static-pie": ("-static-pie",),
    "gnu-hash": ("-Wl,--hash-style=gnu", "-rdynamic"),
    "sysv-hash": ("-Wl,--hash-style=sysv", "-rdynamic"),
    "both-hashes": ("-Wl,--hash-style=both", "-rdynamic", "-Wl,-z,now"),
    "lazy": ("-Wl,-z,lazy", "-Wl,-z,norelro"),
    "runpath": ("-Wl,-rpath,$ORIGIN/lib", "-Wl,--enable-new-dtags"),
    "rpath": ("-Wl,-rpath,$ORIGIN/lib", "-Wl,--disable-new-dtags"),
    "stripped": ("-s", "-O2"),
    "shared": ("-shared", "-fPIC"),
    "shared-named": ("-shared", "-fPIC", "-Wl,-soname,libthing.so.1", "-Wl,-Bsymbolic"),
    "shared-packed": ("-shared", "-fPIC", "-Wl,-z,pack-relative-relocs"),
}


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What gcc makes of the source in each of the ways it can here."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc here")
    folder = tmp_path_factory.mktemp("dynamic")
    made = {}
    for name, arguments in PLAIN.items():
        source, output = folder / f"{name}.c", folder / name
        source.write_text(SOURCE if "-shared" in arguments else MAIN)
        done = subprocess.run(["gcc", *arguments, "-o", output, source], capture_output=True)
        if done.returncode == 0:
            made[name] = output.read_bytes()
    assert "pie" in made
    return made


@pytest.mark.parametrize("level", ["parse", "load"])
def test_compilers_dynamic_files_replay(programs: dict[str, bytes], level: str) -> None:
    for name, data in programs.items():
        format = detect(data)
        assert format is not None
        constraint = formats.constraint(format, max_bytes=len(data), level=level)
        refusal = formats.replay(constraint, data)
        assert refusal is None, f"{name}: {refusal}"
        paths = {field.path.partition(".")[0].partition("[")[0] for field in constraint.fields()}
        assert "dynamic" in paths, name


def test_masks_admit_what_replay_admits(programs: dict[str, bytes]) -> None:
    """Byte by byte through the dynamic section: the sets listed for a mask have the values that a replay takes."""
    data = programs["pie"]
    format = detect(data)
    assert format is not None
    constraint = formats.constraint(format, max_bytes=len(data), level="load")
    constraint.advance_many(data)
    spans = [field for field in constraint.fields() if field.path.startswith("dynamic")]
    walked = formats.constraint(format, max_bytes=len(data), level="load")
    start, stop = spans[0].start, spans[-1].end
    assert walked.advance_many(data[:start]) == start
    for byte in data[start:stop]:
        assert walked.mask()[byte], f"{walked.field()}: {walked.refusal()}"
        walked.advance(byte)


@pytest.mark.parametrize("wrong", ["STRTAB", "SYMTAB", "GNU_HASH", "STRSZ", "RELASZ", "VERNEED", "PLTREL"])
def test_a_wrong_value_is_refused_where_it_stands(programs: dict[str, bytes], wrong: str) -> None:
    data = programs["pie"]
    format = detect(data)
    assert format is not None
    constraint = formats.constraint(format, max_bytes=len(data), level="load")
    assert formats.replay(constraint, data) is None
    span = next(field for field in constraint.fields() if field.path.endswith(f"].{wrong}"))
    broken = bytearray(data)
    value = span.value + (-1 if wrong == "STRSZ" else 1)
    broken[span.start : span.end] = value.to_bytes(span.end - span.start, "little")
    refusal = formats.replay(formats.constraint(format, max_bytes=len(data), level="load"), bytes(broken))
    assert refusal is not None
    assert span.start <= refusal.offset < span.end
    assert refusal.field.endswith(wrong)


def test_versions_without_an_index_for_each_symbol_are_refused(programs: dict[str, bytes]) -> None:
    """glibc reads DT_VERSYM wherever versions are needed or defined, and dies where there is none."""
    data = programs["pie"]
    format = detect(data)
    assert format is not None
    versym, other = (0x6FFFFFF0).to_bytes(8, "little"), (0x6FFFFEF6).to_bytes(8, "little")
    broken = data.replace(versym, other, 1)
    if broken == data:
        pytest.skip("this compiler's programs have no symbol versions")
    refusal = formats.replay(formats.constraint(format, max_bytes=len(data), level="load"), broken)
    assert refusal is not None
    assert refusal.field.startswith("dynamic[")


@pytest.mark.parametrize("name", ["pie", "both-hashes", "shared"])
def test_a_program_cut_anywhere_and_continued_at_random_passes_every_judge(
    programs: dict[str, bytes], name: str, tmp_path: Path
) -> None:
    data, path, rng = programs[name], tmp_path / "program", random.Random(name)
    format = detect(data)
    assert format is not None
    for _ in range(6):
        limit = len(data) + rng.choice((0, 500, 9_000))
        c = formats.constraint(format, max_bytes=limit, level="load")
        cut = rng.choice(
            (rng.randrange(64, 1_400), rng.randrange(len(data)), len(data) - rng.randrange(4_500))
        )
        assert c.advance_many(data[:cut]) == cut
        draw(c, rng)
        path.write_bytes(c.data)
        path.chmod(0o755)
        assert complaints(path, format, "load") == [], f"cut at {cut} of {len(data)}, limit {limit}"
        for more in (len(c.data), limit + 50_000):
            assert formats.replay(formats.constraint(format, max_bytes=more, level="load"), c.data) is None


@pytest.mark.parametrize("format", ["elf64-x86_64", "elf32-i386", "elf64-aarch64"])
@pytest.mark.parametrize("level", ["parse", "load"])
def test_random_dynamic_files_pass_every_judge(format: str, level: str, tmp_path: Path) -> None:
    dynamic, path = 0, tmp_path / "program"
    for seed in range(80):
        data = formats.sample(format, seed, 6_000, level)
        constraint = formats.constraint(format, max_bytes=6_000, level=level)
        assert formats.replay(constraint, data) is None
        if not any(field.path.startswith("dynamic") for field in constraint.fields()):
            continue
        dynamic += 1
        path.write_bytes(data)
        path.chmod(0o755)
        complaints = lief_judge(data)
        if shutil.which("readelf"):
            complaints += readelf_judge(path)
        if level == "load" and sys.platform.startswith("linux") and os.uname().machine == "x86_64":
            for ask in (loader_verifies, loader_lists):
                found = ask(path, format)
                complaints += [] if found is None or found.accepted else [f"ld.so: {found.outcome}"]
        assert not complaints, f"seed {seed}: {complaints}"
    assert dynamic


# The tables behind, each against a plain reading of its definition


def _walks(buckets: list[int], chains: list[int]) -> bool:
    """Whether every walk from a bucket ends and no symbol is met twice."""
    met: set[int] = set()
    for head in buckets:
        place = head
        while place:
            if place >= len(chains) or place in met:
                return False
            met.add(place)
            place = chains[place]
    return True


numbers = st.integers(0, 6)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(numbers, min_size=1, max_size=5), st.lists(numbers, min_size=1, max_size=7), st.integers(0, 3)
)
def test_a_hash_table_that_is_good_can_be_walked(buckets: list[int], chains: list[int], lead: int) -> None:
    words = [len(buckets), len(chains), *buckets, *chains]
    raw = bytes(4 * lead) + b"".join(word.to_bytes(4, "little") for word in words)
    count = hashes.symbols_of(raw, 4 * lead, len(raw))
    if count is not None:
        assert count == len(chains)
        assert _walks(buckets, chains)
        assert hashes.size_of(raw, 4 * lead) == 4 * len(words)
    elif len(set(buckets + chains) - {0}) == sum(1 for word in buckets + chains if word):
        assert max(buckets + chains) >= len(chains)
    found = hashes.starts(raw, 0, len(raw)).tolist()
    assert found == [x for x in range(0, len(raw), 4) if hashes.symbols_of(raw, x, len(raw)) is not None]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_gnu_hash_table_is_found_where_it_is_good(data: st.DataObject) -> None:
    words = data.draw(st.lists(st.sampled_from([0, 1, 2, 3, 4, 5, 8, 64]), max_size=24))
    raw = b"".join(word.to_bytes(4, "little") for word in words)
    for size in (4, 8):
        found = gnu_hash.starts(raw, 0, len(raw), size).tolist()
        assert found == [x for x in range(0, len(raw), size) if gnu_hash.read(raw, x, len(raw), size)]
        for place in found:
            table = gnu_hash.read(raw, place, len(raw), size)
            assert table is not None
            assert place + table.size <= len(raw)
            buckets, first, bloom, _ = (words[place // 4 + i] for i in range(4))
            heads = [words[(place + 16 + size * bloom) // 4 + i] for i in range(buckets)]
            chains = place + 16 + size * bloom + 4 * buckets
            for head in filter(None, heads):
                at = chains + 4 * (head - first)
                while not words[at // 4] & 1:
                    at += 4
                assert (at - chains) // 4 + first < table.symbols


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=12), st.booleans())
def test_packed_relocations_begin_with_an_address(words: list[int], strict: bool) -> None:
    raw = b"".join(word.to_bytes(8, "little") for word in words)
    map = AddressMap((Segment(0, 0, 24, 24, 4),), len(raw))
    run = packed_run(raw, 0, len(raw), map, 8, strict)
    good = 0
    for word in words:
        if (good == 0 and word & 1) or (strict and not word & 1 and word > 16):
            break
        good += 1
    assert run == good


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([b"\0", b"a", b".so", b"/", b"\xff", b"libx", b".6"]), max_size=20))
def test_names_of_libraries_are_found_wherever_they_stand(parts: list[bytes]) -> None:
    raw = b"".join(parts)
    strings = Strings(raw, AddressMap((Segment(0, 0, len(raw), len(raw), 4),), len(raw)))
    found = strings.libraries(0, len(raw)).tolist()
    expected = []
    for x in range(1, len(raw)):
        end = raw.find(0, x)
        if end >= 0 and raw[x - 1] == 0 and is_library(raw[x:end]):
            expected.append(x)
    assert found == expected


@given(st.binary(min_size=1, max_size=12))
def test_elf_hash_is_that_of_the_gabi(name: bytes) -> None:
    """The gABI's own formula, in 32-bit arithmetic."""
    value = np.uint64(0)
    mask = np.uint64(0xFFFFFFFF)
    for byte in name:
        value = ((value << np.uint64(4)) + np.uint64(byte)) & mask
        high = value & np.uint64(0xF0000000)
        value ^= high >> np.uint64(24)
        value &= ~high & mask
    assert elf_hash(name) == int(value)


def test_addresses_go_to_the_segment_that_holds_them() -> None:
    loads = (Segment(0, 0x1000, 0x100, 0x200, 4), Segment(0x80, 0x5080, 0x100, 0x100, 6))
    map = AddressMap(loads, 0xC0)
    rng = random.Random(1)
    for address in [rng.randrange(0x6000) for _ in range(500)]:
        holders = [load for load in loads if 0 <= address - load.address < load.filesz]
        expected = address - holders[0].shift if holders else None
        assert map.offset(address) == expected
        behind = map.behind(address)
        assert (behind is not None) == (expected is not None and expected < 0xC0)
