"""validate: content with sound files, exact about broken ones, and never thrown off by anything in a file."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from handmade import EXIT_0, minimal_elf, patched
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import static_programs

from bytegen import formats
from bytegen.formats.api import replay_whole
from bytegen.formats.errors import FormatError
from bytegen.formats.identify import describe, detect
from bytegen.formats.oracles.isolated import Examiner
from bytegen.formats.report import Problem, Report

FORMAT = "elf64-x86_64"
HEADERS = 0x78
SMALLEST = minimal_elf()


def quick(data: bytes, **options: str) -> Report:
    return formats.validate(data, isolate=False, **options)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    names = ("gcc-free", "zig-cc-free")
    found = list(static_programs(tmp_path_factory.mktemp("programs"), names=names))
    if not found:
        pytest.skip("no compiler here: gcc and ziglang are both missing")
    return found[0][1]


@pytest.fixture
def examiner() -> Iterator[Examiner]:
    child = Examiner()
    yield child
    child.close()


def test_sound_files_are_found_sound(program: bytes) -> None:
    for data in (SMALLEST, program, formats.sample(FORMAT, 1, 2_000)):
        report = quick(data)
        assert report.ok, str(report)
        assert (report.format, report.level) == (FORMAT, "load")
        assert report.facts["size"] == len(data)


def test_facts_tell_how_much_of_the_code_decodes() -> None:
    code = quick(SMALLEST).facts["code"]
    assert isinstance(code, dict)
    assert (code["swept"], code["decoded_share"]) == (len(EXIT_0), 1.0)


def test_the_child_process_finds_what_is_found_in_this_one(program: bytes) -> None:
    for data in (SMALLEST, program, program[:500], patched(SMALLEST, p_align=3)):
        assert formats.validate(data) == quick(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file ends before it begins"),
        (b"hello, world", "begins with 68 65 6c 6c 6f 2c 20 77"),
        (b"#!/bin/sh\n", "a script"),
        (b"MZ" + bytes(100), "an MZ file"),
        (b"\x7fELF\x02", "ends inside the ELF header"),
        (SMALLEST[:4] + b"\x02\x02" + SMALLEST[6:], "big-endian"),
        (SMALLEST[:4] + b"\x01\x01" + SMALLEST[6:], "32-bit"),
        (patched(SMALLEST, e_machine=8), "MIPS"),
        (patched(SMALLEST, e_machine=0x1234), "machine 0x1234"),
    ],
)
def test_what_is_in_no_format_of_ours_is_named_for_what_it_is(data: bytes, words: str) -> None:
    report = quick(data)
    assert not report.ok
    assert report.format is None
    (problem,) = report.problems
    assert words in problem.message
    assert FORMAT in problem.message, "what is supported is said too"


def test_unknown_formats_and_levels_are_refused_with_those_there_are() -> None:
    with pytest.raises(FormatError, match=FORMAT):
        quick(SMALLEST, format="elf128")
    for chosen in ({"format": FORMAT}, {}):
        with pytest.raises(FormatError, match="load"):
            quick(SMALLEST, level="flies", **chosen)
    with pytest.raises(FormatError, match="load"):
        quick(b"no program", level="flies")


def test_a_named_format_is_held_to_whatever_the_file_is() -> None:
    report = quick(b"hello, world" * 20, format=FORMAT)
    assert report.format == FORMAT
    assert report.problems[0].judge == "rules"
    assert report.problems[0].offset == 0


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"e_type": 1}, "ehdr.e_type"),
        ({"e_phoff": 1 << 40}, "ehdr.e_phoff"),
        ({"e_phentsize": 32}, "ehdr.e_phentsize"),
        ({"e_phnum": 60_000}, "ehdr.e_phnum"),
        ({"p_filesz": 1 << 40}, "phdr[0].p_filesz"),
        ({"p_memsz": 8}, "phdr[0].p_memsz"),
    ],
)
def test_rules_name_the_first_wrong_field_and_its_offset(fields: dict[str, int], path: str) -> None:
    data = patched(SMALLEST, **fields)
    problem = next(p for p in quick(data).problems if p.judge == "rules")
    assert problem.field == path
    assert problem.offset is not None
    changed = [at for at in range(len(data)) if data[at] != SMALLEST[at]]
    assert changed[0] <= problem.offset <= changed[-1] + 7


def test_a_file_cut_at_any_length_is_not_ok() -> None:
    for length in range(len(SMALLEST)):
        assert not quick(SMALLEST[:length]).ok, length


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_real_program_cut_anywhere_gives_a_report(program: bytes, data: st.DataObject) -> None:
    length = data.draw(st.integers(0, len(program) - 1))
    assert not quick(program[:length]).ok


@given(at=st.integers(0, HEADERS - 1), value=st.integers(0, 255))
@settings(max_examples=300, deadline=None)
def test_any_header_byte_may_have_any_value(at: int, value: int) -> None:
    changed = bytearray(SMALLEST)
    changed[at] = value
    report = quick(bytes(changed))
    assert json.loads(report.to_json())["ok"] == report.ok


@pytest.mark.full
def test_every_header_byte_may_have_every_value() -> None:
    for at in range(HEADERS):
        for value in range(256):
            changed = bytearray(SMALLEST)
            changed[at] = value
            quick(bytes(changed))


@given(changes=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=20))
@settings(max_examples=60, deadline=None)
def test_a_real_program_with_changed_bytes_gives_a_report(
    program: bytes, changes: list[tuple[int, int]]
) -> None:
    changed = bytearray(program)
    for at, value in changes:
        changed[at % len(changed)] = value
    quick(bytes(changed))


@given(st.binary(max_size=400))
@settings(max_examples=100, deadline=None)
def test_any_bytes_give_a_report_whether_or_not_a_format_is_named(data: bytes) -> None:
    for start in (b"", SMALLEST[:20], SMALLEST[:64]):
        quick(start + data)
        quick(start + data, format=FORMAT)


@pytest.mark.parametrize(
    "fields",
    [
        {"e_phnum": 0xFFFF},
        {"e_shnum": 0xFFFF, "e_shoff": 64, "e_shentsize": 64},
        {"e_shoff": 64, "e_shnum": 1, "e_shentsize": 64, "e_shstrndx": 0},
        {"e_shoff": (1 << 64) - 64, "e_shnum": 4, "e_shentsize": 64},
        {"p_filesz": (1 << 64) - 1, "p_memsz": (1 << 64) - 1},
        {"p_type": 2, "p_offset": 0},
        {"p_type": 4, "p_offset": 0},
        {"p_type": 3, "p_offset": (1 << 64) - 1},
    ],
)
def test_huge_counts_and_overlapping_tables_are_reported(fields: dict[str, int]) -> None:
    report = formats.validate(patched(SMALLEST, **fields))
    assert not report.ok
    assert "process" not in str(report), "no judge was lost over it"


def test_a_judge_that_never_answers_is_reported_and_the_next_file_is_examined() -> None:
    impatient = Examiner(timeout=0.0)
    findings = impatient.examine(SMALLEST, FORMAT, "load")
    messages = [problem["message"] for finding in findings for problem in finding["problems"]]
    assert "gave no answer within 0 s" in str(messages[0])
    impatient.timeout = 60.0
    assert all(not finding["problems"] for finding in impatient.examine(SMALLEST, FORMAT, "load"))
    impatient.close()


def test_a_judge_that_dies_is_reported_and_the_next_file_is_examined(examiner: Examiner) -> None:
    assert all(not finding["problems"] for finding in examiner.examine(SMALLEST, FORMAT, "load"))
    assert examiner.child_id is not None
    os.kill(examiner.child_id, signal.SIGSTOP)
    threading.Timer(0.2, os.kill, (examiner.child_id, signal.SIGKILL)).start()
    findings = examiner.examine(SMALLEST, FORMAT, "load")
    assert [finding["judge"] for finding in findings] == ["rules", "lief", "capstone"]
    assert "SIGKILL" in str(findings[0]["problems"])
    assert all(not finding["problems"] for finding in examiner.examine(SMALLEST, FORMAT, "load"))


def test_large_files_pass_through_the_pipes(examiner: Examiner) -> None:
    long = minimal_elf(EXIT_0 + bytes(3_000_000))
    assert all(not finding["problems"] for finding in examiner.examine(long, FORMAT, "load"))


def test_detect_goes_by_magic_class_order_and_machine() -> None:
    assert detect(SMALLEST) == FORMAT
    assert detect(patched(SMALLEST, e_machine=183)) == "elf64-aarch64"
    assert detect(SMALLEST[:4] + b"\x01\x01" + SMALLEST[6:18] + b"\x03\x00") == "elf32-i386"
    assert detect(SMALLEST[:19]) is None
    assert (
        detect(b"MZ" + bytes(58) + b"\x40\0\0\0PE\0\0\x64\x86" + bytes(18) + b"\x0b\x02") == "pe32plus-x86_64"
    )
    assert describe(SMALLEST) == "ELF 64-bit little-endian x86-64 executable"


@given(st.binary(max_size=100))
def test_detect_and_describe_take_any_bytes(data: bytes) -> None:
    for start in (b"", b"MZ", b"\x7fELF"):
        detect(start + data)
        assert describe(start + data).isprintable()


def test_report_is_readable_and_safe_to_print() -> None:
    problem = Problem("lief", "a name: \x1b[2J\n\udcff", 24, "ehdr.e_entry")
    report = Report(FORMAT, "load", [problem], {"what": "ELF", "size": 3})
    assert not report.ok
    first, second = str(report).splitlines()
    assert first == "not ok: ELF, 3 bytes, held to elf64-x86_64 at level load"
    assert second == "  lief: byte 24 (0x18), ehdr.e_entry: a name: \\x1b[2J\\n\\udcff"
    assert json.loads(report.to_json())["problems"][0]["offset"] == 24


def test_nothing_is_left_behind_in_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    quick(patched(SMALLEST, e_phoff=1 << 40))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [name for name in formats.available() if name.startswith("elf")])
def test_what_is_drawn_is_good_though_a_wider_limit_was_drawn_under(name: str) -> None:
    """Under their own length some are refused: rules keep room for strings that the headers turn out to have."""
    narrow = 0
    for level in ("load", "code"):
        for seed in range(100):
            data = formats.sample(name, seed, 700, level, pick="lively")
            own = formats.constraint(
                name, max_bytes=max(len(data), formats.least_bytes(name, level)), level=level
            )
            narrow += formats.replay(own, data) is not None
            assert replay_whole(data, name, level)[1] is None
    assert narrow, "these files show nothing: draw smaller ones"
